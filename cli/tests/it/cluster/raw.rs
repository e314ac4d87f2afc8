//! A client that can say anything: it does the handshake and seals as it should,
//! and hands every frame to the test, which sends it as it likes. It comes over
//! TCP, over WebSocket, and either of them within TLS (`tls`).

mod tls;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use protocol::body::{Body, Lane, Login, MessageHeader, MessageKind, Sync};
use protocol::buffers::Buffers;
use protocol::cipher::{Opener, RekeyPolicy, Sealer};
use protocol::client::LOGIN_METHOD_TOKEN;
use protocol::compress::Scratch;
use protocol::frame::{self, FLAG_COMPRESSED, FLAG_HANDSHAKE, Header};
use protocol::handshake::Initiator;
use protocol::ids::MessageId;
use protocol::limits::FRAME_HEADER_BYTES;
use protocol::quality::Ping;
use protocol::reason::CloseReason;
use protocol::time::Time;
use protocol::websocket::client::{ClientEnd, Received};

use super::{Cluster, GROUP, PATIENCE, random32};
use tls::Tls;
pub use tls::{TLS12, TLS13};

/// The client's clock at the start: far from 0, so that a frame can be older
/// than the connection.
const CLOCK_START_MS: u64 = 1_000_000;

/// A connection of a client that may misbehave.
pub struct Raw {
    /// Its socket.
    pub stream: TcpStream,
    began: Instant,
    ciphers: Option<(Sealer, Opener)>,
    inbox: Vec<u8>,
    /// All of it travels in records of this.
    tls: Option<Tls>,
    /// Its frames travel in messages of this.
    websocket: Option<ClientEnd>,
    /// The code that the gateway closed the WebSocket with.
    close_code: Option<u16>,
    /// All that it has sent, for whoever listens on the way.
    recorded: Option<Vec<u8>>,
    scratch: Scratch,
    /// Next number of the reliable lane.
    next: u32,
    /// Highest number received in it.
    received: u32,
}

impl Raw {
    /// Only a socket.
    pub fn connect(cluster: &Cluster) -> Self {
        let stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
        Self::over(stream)
    }

    /// Over a socket that the test has made.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self {
            stream,
            began: Instant::now(),
            ciphers: None,
            inbox: Vec::new(),
            tls: None,
            websocket: None,
            close_code: None,
            recorded: None,
            scratch: Scratch::default(),
            next: 1,
            received: 0,
        }
    }

    /// Over a WebSocket that it opens on this socket.
    pub fn over_websocket(stream: TcpStream) -> Self {
        Self::over_websocket_with(stream, b"", "")
    }

    /// The same with bytes before the request, and headers in it.
    pub fn over_websocket_with(stream: TcpStream, before: &[u8], headers: &str) -> Self {
        Self::over(stream).upgraded(before, headers)
    }

    /// Opens a WebSocket on what there is, with bytes before the request, and headers in it.
    pub fn upgraded(mut self, before: &[u8], headers: &str) -> Self {
        let raw = &mut self;
        let [random @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = random32();
        let mut websocket = ClientEnd::new("gateway.test", random);
        let mut request = Vec::new();
        websocket.wrap(&[], &mut request);
        let request = String::from_utf8(request).expect("HTTP");
        let request = request.replace("Upgrade: w", &format!("{headers}Upgrade: w"));
        raw.send(&[before, request.as_bytes()].concat());
        raw.websocket = Some(websocket);
        while !raw.websocket.as_ref().is_some_and(ClientEnd::is_open) {
            assert!(raw.fill(), "the gateway upgrades");
        }
        self
    }

    /// A WebSocket to the gateway.
    pub fn websocket(cluster: &Cluster) -> Self {
        Self::over_websocket(TcpStream::connect(cluster.address()).expect("the gateway accepts"))
    }

    /// The code that the WebSocket was closed with; to be asked at the end.
    pub fn close_code(&self) -> Option<u16> {
        self.close_code
    }

    /// With the keys of a finished handshake.
    pub fn greeted(cluster: &Cluster) -> Self {
        let mut raw = Self::connect(cluster);
        raw.greet(&cluster.gateway_key);
        raw
    }

    /// Logged in, with the stream of its group agreed.
    pub fn logged_in(cluster: &Cluster, account: &str) -> Self {
        let mut raw = Self::greeted(cluster);
        raw.login(&cluster.token(account));
        raw
    }

    /// Does the handshake.
    pub fn greet(&mut self, gateway_key: &[u8; 32]) {
        let (initiator, hello) = self.hello(gateway_key);
        self.send(&hello);
        self.take_keys(initiator);
    }

    fn take_keys(&mut self, initiator: Initiator) {
        let welcome = self.next_frame().expect("WELCOME");
        let (keys, _) = initiator.welcome(&welcome).expect("a good WELCOME");
        let sealer = Sealer::new(keys.client, self.now(), RekeyPolicy::default());
        self.ciphers = Some((sealer, Opener::new(keys.gateway)));
    }

    /// The same where the gateway may cut it off instead. Whether it has its keys.
    pub fn try_greet(&mut self, gateway_key: &[u8; 32]) -> bool {
        let (initiator, hello) = self.hello(gateway_key);
        self.send_or_gone(&hello);
        let is_answered = matches!(self.stream.peek(&mut [0]), Ok(1));
        if is_answered {
            self.take_keys(initiator);
        }
        is_answered
    }

    /// Logs in and agrees about the stream.
    pub fn login(&mut self, token: &str) {
        self.send_login(token);
        self.expect_login();
    }

    /// Waits for LOGIN_OK and answers the backend's SYNC.
    pub fn expect_login(&mut self) {
        self.expect("LOGIN_OK", |body| matches!(body, Body::LoginOk { .. }));
        let mut incarnation = None;
        self.expect("SYNC", |body| {
            if let Body::Sync(sync) = body {
                incarnation = Some(sync.incarnation);
            }
            incarnation.is_some()
        });
        self.send_body(&Body::Sync(Sync {
            fresh: false,
            group: GROUP,
            incarnation: incarnation.expect("of the SYNC"),
            next: 1,
            base: 1,
        }));
    }

    /// Sends LOGIN.
    pub fn send_login(&mut self, token: &str) {
        self.send_body(&Body::Login(Login {
            method: LOGIN_METHOD_TOKEN,
            client_version: 1,
            channel: "",
            device: "",
            credential: token.as_bytes(),
        }));
    }

    /// A HELLO frame, and what reads its answer.
    pub fn hello(&self, gateway_key: &[u8; 32]) -> (Initiator, Vec<u8>) {
        let mut hello = Vec::new();
        let now_ms = self.now().wire_ms();
        let initiator = Initiator::hello(gateway_key, random32(), now_ms, &mut hello);
        (initiator.expect("a usable key"), hello)
    }

    /// Its clock.
    pub fn now(&self) -> Time {
        Time(self.began.elapsed().as_micros() as u64).after_ms(CLOCK_START_MS)
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The next frame in sequence with this body; not sent.
    pub fn seal(&mut self, flags: u8, body: &[u8]) -> Vec<u8> {
        let now = self.now();
        self.seal_at(now, flags, body)
    }

    /// The same with another time on it.
    pub fn seal_at(&mut self, time: Time, flags: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let (sealer, _) = self.ciphers.as_mut().expect("keys stand");
        sealer.seal(time, flags, &mut frame, |out| out.extend_from_slice(body));
        frame
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        let mut wrapped = Vec::new();
        let bytes = match &mut self.websocket {
            None => bytes,
            Some(websocket) => {
                websocket.wrap(bytes, &mut wrapped);
                &wrapped
            }
        };
        if let Some(recorded) = &mut self.recorded {
            recorded.extend_from_slice(bytes);
        }
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => self.stream.write_all(&tls.wrap(bytes)),
        }
        .expect("the gateway takes it");
    }

    /// Somebody notes from now on what it sends.
    pub fn record(mut self) -> Self {
        self.recorded = Some(Vec::new());
        self
    }

    /// What was noted.
    pub fn recorded(&self) -> &[u8] {
        self.recorded.as_ref().expect("it was recorded")
    }

    /// The same where the gateway may have closed already.
    pub fn send_or_gone(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The gateway ends the connection without a word, by a reset where bytes of
    /// ours were still unread.
    pub fn expect_cut(&mut self) {
        match self.stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Ok(_) => panic!("the end is expected, not a byte"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    /// Seals and sends a body.
    pub fn send_body(&mut self, body: &Body<'_>) {
        let frame = self.seal(0, &encoded(body));
        self.send(&frame);
    }

    /// The body of the next request of the reliable lane.
    pub fn request(&mut self, payload: &[u8]) -> Vec<u8> {
        let number = self.next;
        self.next += 1;
        message(
            MessageKind::Request,
            Lane::Reliable,
            number,
            self.received,
            payload,
        )
    }

    /// Sends a request and waits for its echo.
    pub fn round_trip(&mut self, payload: &[u8]) {
        let body = self.request(payload);
        let frame = self.seal(0, &body);
        self.send(&frame);
        self.expect_echo(MessageKind::Reply, payload);
    }

    /// The same where messages of another kind still come before it.
    pub fn round_trip_after(&mut self, other: MessageKind, payload: &[u8]) {
        let body = self.request(payload);
        let frame = self.seal(0, &body);
        self.send(&frame);
        self.expect("a reply", |body| match body {
            Body::Message { header, .. } => {
                assert!([other, MessageKind::Reply].contains(&header.kind));
                header.kind == MessageKind::Reply
            }
            _ => false,
        });
    }

    /// Waits for a message with this payload.
    pub fn expect_echo(&mut self, kind: MessageKind, wanted: &[u8]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        loop {
            let (flags, body) = self.next_body().expect("an echo");
            let Body::Message { header, payload } = Body::decode(&body).expect("a good body")
            else {
                continue;
            };
            if header.lane == Lane::Reliable {
                self.received = header.number;
            }
            let payload = if flags & FLAG_COMPRESSED != 0 {
                scratch.decompress(payload).expect("a good payload")
            } else {
                payload
            };
            assert_eq!((header.kind, payload), (kind, wanted));
            break;
        }
        self.scratch = scratch;
    }

    /// Reads on until a body is what the test wants.
    pub fn expect(&mut self, what: &str, mut is_it: impl FnMut(&Body<'_>) -> bool) {
        loop {
            let (_, bytes) = self
                .next_body()
                .unwrap_or_else(|| panic!("{what} is expected, the connection ended"));
            let body = Body::decode(&bytes).expect("a good body");
            if is_it(&body) {
                return;
            }
            assert!(
                !matches!(body, Body::Close { .. }),
                "{what} is expected, not {body:?}"
            );
        }
    }

    /// Reads on until the gateway says why it closes, and then has closed.
    pub fn expect_close(&mut self, wanted: CloseReason) {
        let reason = loop {
            let (_, bytes) = self
                .next_body()
                .unwrap_or_else(|| panic!("CLOSE for {wanted:?} is expected, nothing was said"));
            if let Body::Close { reason, .. } = Body::decode(&bytes).expect("a good body") {
                break CloseReason::from_code(reason);
            }
        };
        assert_eq!(reason, Some(wanted));
        self.expect_end();
    }

    /// Reads the REJECT that ends a handshake, and the end.
    pub fn expect_reject(&mut self, wanted: CloseReason) {
        let frame = self
            .next_frame()
            .unwrap_or_else(|| panic!("REJECT for {wanted:?} is expected, nothing was said"));
        let header = Header::decode(&frame).expect("a header");
        assert_eq!((header.flags, header.sequence), (FLAG_HANDSHAKE, 0));
        assert_eq!(frame::crc(&frame), header.crc);
        let [low, high] = (wanted as u16).to_le_bytes();
        assert_eq!(frame[FRAME_HEADER_BYTES..], [3, 1, low, high], "{wanted:?}");
        self.expect_end();
    }

    /// The gateway ends the connection, and in order: no reset.
    pub fn expect_end(&mut self) {
        assert_eq!(self.next_frame(), None);
    }

    /// Ends its session in order.
    pub fn logout(mut self) {
        self.send_body(&Body::Logout);
        self.expect_close(CloseReason::LoggedOut);
    }

    /// Ends its sending direction.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a socket");
    }

    /// The next body, opened, with the frame's flags; `None` at the end.
    pub fn next_body(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut frame = self.next_frame()?;
        let header = Header::decode(&frame).expect("a header");
        assert_eq!(frame::crc(&frame), header.crc);
        let (_, opener) = self.ciphers.as_mut().expect("keys stand");
        let body = opener.open(&header, &mut frame).expect("a good frame");
        Some((header.flags, body.to_vec()))
    }

    /// The next frame as it came; `None` when the gateway has ended in order.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = frame::length(&self.inbox)
                && length <= self.inbox.len()
            {
                let rest = self.inbox.split_off(length);
                return Some(std::mem::replace(&mut self.inbox, rest));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads more; `false` when the gateway has ended in order.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16_384];
        let read = loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    let told = self.tls.as_ref().is_none_or(Tls::has_ended);
                    assert!(told, "the end comes without TLS's own");
                    return false;
                }
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("a frame or the end is expected: {error}"),
            }
        };
        let mut plain;
        let mut data = &mut bytes[..read];
        if let Some(tls) = &mut self.tls {
            plain = tls.unwrap(data);
            data = &mut plain;
        }
        let Some(websocket) = &mut self.websocket else {
            self.inbox.extend_from_slice(data);
            return true;
        };
        let mut pool = Buffers::default();
        while let Some(received) = websocket
            .next(&mut data, &mut pool)
            .expect("good WebSocket")
        {
            assert_eq!(self.close_code, None, "nothing follows a close");
            match received {
                Received::Message(frame) => {
                    assert_eq!(frame::length(frame), Some(frame.len()), "a frame a message");
                    self.inbox.extend_from_slice(frame);
                }
                Received::Close(code) => self.close_code = code,
                Received::Open | Received::Control => {}
            }
        }
        true
    }
}

/// A body as bytes.
/// A PING of somebody who has measured nothing.
pub fn ping(stamp: u32) -> Body<'static> {
    Body::Ping(Ping {
        stamp,
        ..Ping::default()
    })
}

pub fn encoded(body: &Body<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    body.encode(&mut out);
    out
}

/// A message of the game.
pub fn message(kind: MessageKind, lane: Lane, number: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let header = MessageHeader {
        kind,
        lane,
        more: false,
        group: GROUP,
        number,
        ack,
        message: MessageId(1),
        request: if kind == MessageKind::Message {
            0
        } else {
            number
        },
    };
    encoded(&Body::Message { header, payload })
}
