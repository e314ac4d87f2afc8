//! A well-behaved client over a real socket, on the protocol's own core; and an
//! honest neighbour, one of these in a thread of its own that must notice
//! nothing of what a test does to others.

use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::body::{ChannelHeader, Lane, MessageKind, QueuePosition};
use protocol::cipher::RekeyPolicy;
use protocol::client::{Client, ClientConfig, Closed, Event, Shared};
use protocol::ids::{ChannelId, MessageId, SessionId};
use protocol::quality::Quality;
use protocol::reason::CloseReason;
use protocol::stream::OutboxLimits;
use protocol::time::Time;

use super::socket::is_nothing_yet;
pub use super::socket::{Carrier, Socket, udp_socket};
use super::{Cluster, GROUP, PATIENCE, random32};

/// Time between two requests of an honest neighbour: 100 a second, well within
/// the default limits.
const HONEST_PAUSE: Duration = Duration::from_millis(10);

/// What a player has seen so far.
#[derive(Default)]
pub struct Seen {
    /// Its session.
    pub session: Option<SessionId>,
    /// How often its group came up and went down.
    pub ups: u32,
    /// See `ups`.
    pub downs: u32,
    /// The positions in the queue that it was told.
    pub queued: Vec<QueuePosition>,
    /// Replies in the order of their arrival: request and payload.
    pub replies: Vec<(u32, Vec<u8>)>,
    /// The sessions that it has come back to.
    pub resumed: Vec<SessionId>,
    /// Why nothing leads back to its session.
    pub lost: Option<CloseReason>,
    /// One-way messages in the order of their arrival: lane and payload.
    pub messages: Vec<(Lane, Vec<u8>)>,
    /// The channels that it is a member of.
    pub channels: Vec<ChannelId>,
    /// Their messages in the order of their arrival.
    pub said: Vec<(ChannelHeader, Vec<u8>)>,
    /// How many of them it missed for good.
    pub missed: u32,
    /// How its connection ended.
    pub closed: Option<Closed>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen")
            .field("session", &self.session)
            .field("ups", &self.ups)
            .field("downs", &self.downs)
            .field("replies", &self.replies.len())
            .field("said", &self.said.len())
            .field("closed", &self.closed)
            .finish()
    }
}

/// A client.
pub struct Player {
    /// What carries it.
    pub socket: Socket,
    /// What carries its side path, where it has one.
    side: Option<UdpSocket>,
    client: Client,
    shared: Shared,
    origin: Instant,
    /// Its last request.
    pub asked: u32,
    /// What it has seen.
    pub seen: Seen,
}

impl Player {
    /// Logs in and waits until its group is up.
    pub fn login(cluster: &Cluster, account: &str) -> Self {
        let mut player = Self::connect(cluster, cluster.token(account));
        player.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
        player
    }

    /// Connects with a token; login is under way.
    pub fn connect(cluster: &Cluster, token: String) -> Self {
        Self::connect_at(cluster, cluster.address(), token)
    }

    /// The same through whatever listens at `address`.
    pub fn connect_at(cluster: &Cluster, address: SocketAddr, token: String) -> Self {
        Self::connect_to(address, cluster.gateway_key, token)
    }

    /// Connects to whatever listens there, for a gateway with this key; login is under way.
    pub fn connect_to(address: SocketAddr, gateway_key: [u8; 32], token: String) -> Self {
        let socket = Socket::open(Carrier::Tcp, address);
        Self::over(gateway_key, token, socket)
    }

    /// Connects over any transport to whatever listens there; login is under way.
    pub fn connect_over(
        cluster: &Cluster,
        account: &str,
        carrier: Carrier,
        address: SocketAddr,
    ) -> Self {
        let socket = Socket::open(carrier, address);
        Self::over(cluster.gateway_key, cluster.token(account), socket)
    }

    /// Logs in over datagrams and waits until its group is up.
    pub fn login_udp(cluster: &Cluster, account: &str) -> Self {
        Self::login_udp_at(cluster, account, cluster.address())
    }

    /// The same by way of another address.
    pub fn login_udp_at(cluster: &Cluster, account: &str, to: SocketAddr) -> Self {
        let mut player = Self::connect_udp(cluster, account, to);
        player.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
        player
    }

    /// The same while login is under way.
    pub fn connect_udp(cluster: &Cluster, account: &str, to: SocketAddr) -> Self {
        let socket = Socket::open(Carrier::Udp, to);
        Self::over(cluster.gateway_key, cluster.token(account), socket)
    }

    /// Logs in over a stream, and asks for a side path by way of this address.
    pub fn login_beside(cluster: &Cluster, account: &str, to: SocketAddr) -> Self {
        let mut player = Self::connect(cluster, cluster.token(account));
        player.client.offer_side_path();
        player.side = Some(udp_socket(to));
        player.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
        player
    }

    /// Whether its side path holds.
    pub fn is_side_path_up(&self) -> bool {
        self.client.is_side_path_up(self.now())
    }

    /// Sends a one-way message.
    pub fn send(&mut self, lane: Lane, payload: &[u8]) {
        let (now, shared) = (self.now(), &mut self.shared);
        let sent = self
            .client
            .send(now, lane, GROUP, MessageId(7), payload, shared);
        assert_eq!(sent, Ok(()), "{:?}", self.seen);
        self.transmit();
    }

    /// Over a socket that is there; login is under way.
    fn over(gateway_key: [u8; 32], token: String, socket: Socket) -> Self {
        Self::over_as(gateway_key, token, socket, 1, String::new())
    }

    /// Connects with a version of the game and a device of its own; login is under way.
    pub fn connect_as(cluster: &Cluster, token: String, version: u32, device: &str) -> Self {
        let socket = Socket::open(Carrier::Tcp, cluster.address());
        Self::over_as(
            cluster.gateway_key,
            token,
            socket,
            version,
            device.to_owned(),
        )
    }

    fn over_as(
        gateway_key: [u8; 32],
        token: String,
        socket: Socket,
        client_version: u32,
        device: String,
    ) -> Self {
        let origin = Instant::now();
        let config = ClientConfig {
            gateway_key,
            token,
            client_version,
            channel: "tests".to_owned(),
            device,
            outbox: OutboxLimits::default(),
            rekey: RekeyPolicy::default(),
            compress_bytes_min: 64,
        };
        let client = match socket {
            Socket::Stream(_) | Socket::Web(_) => Client::connect(config, random32(), Time(0)),
            Socket::Datagrams(_) => Client::connect_datagrams(config, random32(), Time(0)),
        };
        let client = client.expect("a usable key");
        let mut player = Self {
            socket,
            side: None,
            client,
            shared: Shared::default(),
            origin,
            asked: 0,
            seen: Seen::default(),
        };
        player.transmit();
        player
    }

    /// Sends a request; its id.
    pub fn request(&mut self, payload: &[u8]) -> u32 {
        let id = self.client.request(GROUP, MessageId(7), payload);
        self.asked = id.expect("room in the outbox");
        self.transmit();
        self.asked
    }

    /// What the gateway said in words when it closed.
    pub fn close_text(&self) -> &str {
        self.client.close_text()
    }

    /// Sends a request of this kind and waits for its reply, which says nothing.
    pub fn ask(&mut self, message: MessageId, payload: &[u8]) {
        let id = self.client.request(GROUP, message, payload);
        self.asked = id.expect("room in the outbox");
        self.transmit();
        let asked = self.asked;
        self.wait("a reply", |seen| {
            seen.replies
                .last()
                .is_some_and(|(reply, _)| *reply == asked)
        });
    }

    /// Sends a one-way message of this kind in the reliable lane.
    pub fn tell(&mut self, message: MessageId, payload: &[u8]) {
        let (now, shared) = (self.now(), &mut self.shared);
        let sent = self
            .client
            .send(now, Lane::Reliable, GROUP, message, payload, shared);
        assert_eq!(sent, Ok(()), "{:?}", self.seen);
        self.transmit();
    }

    /// Messages that the backend has not acknowledged.
    pub fn outbox_messages(&self) -> usize {
        self.client.outbox_messages()
    }

    /// How good its connection is.
    pub fn quality(&self) -> Quality {
        self.client.quality().unwrap_or_default()
    }

    /// Goes on until it has seen what `is_done` looks for.
    pub fn wait(&mut self, what: &str, is_done: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_done(&self.seen) {
            assert!(Instant::now() < end, "not in time: {what}: {:?}", self.seen);
            let waits_for_end = self.seen.closed.is_none();
            assert!(
                waits_for_end,
                "closed before it was time: {what}: {:?}",
                self.seen
            );
            self.pump();
        }
    }

    /// Goes on until `is_done`, be it the end of the connection.
    pub fn pump_until(&mut self, is_done: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_done(&self.seen) {
            assert!(Instant::now() < end, "not in time: {:?}", self.seen);
            self.pump();
        }
    }

    /// Waits until the connection is over, and says why.
    pub fn wait_closed(&mut self) -> Closed {
        self.pump_until(|seen| seen.closed.is_some());
        self.seen.closed.expect("waited for")
    }

    /// Sends a request and waits for its echo; how long that took.
    pub fn round_trip(&mut self, payload: &[u8]) -> Duration {
        let sent_at = Instant::now();
        let id = self.request(payload);
        self.wait("an echo", |seen| {
            seen.replies.last().is_some_and(|(reply, _)| *reply == id)
        });
        let took = sent_at.elapsed();
        let (_, echo) = self.seen.replies.last().expect("a reply");
        assert_eq!(echo, payload);
        took
    }

    /// Loses its connection. Over datagrams nobody but itself hears of it.
    pub fn cut(&mut self) {
        let stream = match &self.socket {
            Socket::Stream(stream) => Some(stream),
            Socket::Web(web) => Some(&web.stream),
            Socket::Datagrams(_) => None,
        };
        if let Some(stream) = stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.client.handle_disconnected(&mut |_| {});
    }

    /// Loses its connection, of which the gateway hears nothing while the socket
    /// that this returns lives.
    pub fn vanish(&mut self) -> TcpStream {
        let Socket::Stream(stream) = &self.socket else {
            panic!("only a stream can look alive")
        };
        let old = stream.try_clone().expect("a descriptor");
        self.client.handle_disconnected(&mut |_| {});
        old
    }

    /// Begins to come back, to the same gateway; the bytes of its RESUME.
    pub fn try_resume(&mut self, cluster: &Cluster) -> Vec<u8> {
        self.try_resume_over(Carrier::Tcp, cluster.address())
    }

    /// The same to any gateway, over any transport.
    pub fn try_resume_over(&mut self, carrier: Carrier, address: SocketAddr) -> Vec<u8> {
        self.seen.closed = None;
        let now = self.now();
        let began = match carrier {
            Carrier::Udp => self.client.resume_datagrams(random32(), now),
            Carrier::Tcp | Carrier::Web => self.client.resume(random32(), now),
        };
        began.expect("a way back");
        self.socket = Socket::open(carrier, address);
        self.transmit()
    }

    /// Comes back, and waits until its group is up.
    pub fn come_back(&mut self, cluster: &Cluster) {
        self.come_back_over(Carrier::Tcp, cluster.address());
    }

    /// The same to any gateway, over any transport. A ticket that was used up on the way
    /// before is refused once, and the other one tried.
    pub fn come_back_over(&mut self, carrier: Carrier, address: SocketAddr) {
        let (before, ups) = (self.seen.resumed.len(), self.seen.ups);
        let end = Instant::now() + PATIENCE;
        self.try_resume_over(carrier, address);
        while self.seen.resumed.len() == before || self.seen.ups == ups {
            assert!(Instant::now() < end, "no resume in time: {:?}", self.seen);
            assert_eq!(self.seen.lost, None);
            if self.seen.closed.is_some() {
                self.try_resume_over(carrier, address);
            }
            self.pump();
        }
    }

    /// Ends its session and waits for the gateway's word.
    pub fn logout(mut self) {
        let now = self.now();
        self.client.logout(now);
        self.transmit();
        let closed = self.wait_closed();
        assert_eq!(closed, Closed::ByGateway(Some(CloseReason::LoggedOut)));
    }

    /// One look at the socket and at the clock.
    pub fn pump(&mut self) {
        let mut bytes = [0; 16_384];
        let read = self.socket.read(&mut bytes);
        let now = self.now();
        let seen = &mut self.seen;
        let mut events = |event: Event<'_>| match event {
            Event::LoggedIn(session) => seen.session = Some(session),
            Event::GroupUp(_) => seen.ups += 1,
            Event::GroupDown(_) => seen.downs += 1,
            Event::Message(header, payload) if header.kind == MessageKind::Reply => {
                seen.replies.push((header.request, payload.to_vec()));
            }
            Event::Resumed(session) => seen.resumed.push(session),
            Event::SessionLost(reason) => seen.lost = Some(reason),
            Event::Message(header, payload) => {
                seen.messages.push((header.lane, payload.to_vec()));
            }
            Event::Queued(position) => seen.queued.push(position),
            Event::RoundTrip(_) => {}
            Event::ChannelJoined(_, channel) => seen.channels.push(channel),
            Event::ChannelLeft(_, channel) => seen.channels.retain(|it| *it != channel),
            Event::ChannelMessage(header, payload) => seen.said.push((header, payload.to_vec())),
            Event::ChannelLost(_, _, count) => seen.missed += count,
            Event::Closed(closed) => seen.closed = Some(closed),
        };
        match read {
            Ok(0) => self.client.handle_disconnected(&mut events),
            Ok(read) => {
                self.client
                    .handle_received(now, &mut bytes[..read], &mut self.shared, &mut events);
            }
            Err(error) if is_nothing_yet(&error) => {}
            Err(_) => self.client.handle_disconnected(&mut events),
        }
        // An error says that nobody is there, which the core finds out by itself.
        if let Some(read) = self
            .side
            .as_ref()
            .and_then(|side| side.recv(&mut bytes).ok())
        {
            let (datagram, shared) = (&mut bytes[..read], &mut self.shared);
            self.client
                .handle_side_received(now, datagram, shared, &mut events);
        }
        self.client.handle_timeout(now, &mut events);
        self.transmit();
    }

    /// Sends what the core has; that.
    fn transmit(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut out = Vec::new();
        let now = self.now();
        while self.client.poll_transmit(now, &mut self.shared, &mut out) {
            self.socket.write(&out);
            sent.append(&mut out);
        }
        if let Some(side) = &self.side {
            while self.client.poll_side_transmit(now, &mut out) {
                let _ = side.send(&out);
                out.clear();
            }
        }
        sent
    }

    fn now(&self) -> Time {
        Time(self.origin.elapsed().as_micros() as u64)
    }
}

/// A neighbour who echoes all the time.
pub struct Honest {
    stop: Arc<AtomicBool>,
    latencies: Arc<Mutex<Vec<Duration>>>,
    thread: JoinHandle<Player>,
}

impl Honest {
    /// Logs in and begins.
    pub fn start(cluster: &Cluster) -> Self {
        Self::with_pause(cluster, HONEST_PAUSE)
    }

    /// The same with another time between two requests.
    pub fn with_pause(cluster: &Cluster, pause: Duration) -> Self {
        let mut player = Player::login(cluster, "honest");
        player.round_trip(b"first");
        let stop = Arc::new(AtomicBool::new(false));
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&latencies));
        let thread = std::thread::spawn(move || {
            let mut next = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                // Long enough for several looks of both codecs, short enough to be quick.
                let payload: Vec<u8> = (0..64).map(|at| (next * 31 + at) as u8).collect();
                let took = player.round_trip(&payload);
                shared.lock().expect("no panic there").push(took);
                next += 1;
                while began.elapsed() < pause {
                    player.pump();
                }
            }
            player
        });
        Self {
            stop,
            latencies,
            thread,
        }
    }

    /// Its round trips since the last call.
    pub fn take_latencies(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.latencies.lock().expect("no panic there"))
    }

    /// Waits until it has done so many round trips since the last call of this or
    /// `take_latencies`, and returns them.
    pub fn round_trips(&self, count: usize) -> Vec<Duration> {
        super::wait_until("honest round trips", PATIENCE, || {
            assert!(
                !self.thread.is_finished(),
                "the honest neighbour has failed"
            );
            self.latencies.lock().expect("no panic there").len() >= count
        });
        self.take_latencies()
    }

    /// Ends it, and checks that it has noticed nothing.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let player = self.thread.join().expect("the honest neighbour");
        assert_eq!((player.seen.ups, player.seen.downs), (1, 0));
        player.logout();
    }
}

/// The percentile of some round trips.
pub fn percentile(mut latencies: Vec<Duration>, percent: usize) -> Duration {
    assert!(!latencies.is_empty());
    latencies.sort_unstable();
    latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)]
}
