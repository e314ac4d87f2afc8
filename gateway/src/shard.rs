//! The core of a gateway shard: connections, sessions, uplinks, and every
//! check between them. A deterministic state machine: bytes, records and time
//! go in, bytes, records and actions come out.
//!
//! Call order, once a turn of the driver's loop: any number of `handle_*`, then
//! `handle_timeout`, then `poll_send`, `poll_action` and `poll_uplink` until
//! each is exhausted, and `poll_timeout` for the next deadline. Time only moves
//! forward.
//!
//! Invariants:
//! - Nothing in here reads a clock, a socket or a random source; the ephemeral
//!   keys come from a generator seeded by the driver. Those of TLS are rustls' own.
//! - No input of a peer makes it panic, and what a peer can make it keep is
//!   bounded: before login one frame of at most 4 KiB, as much of answers and under
//!   1 KiB of state, after it one frame and `send_queue_bytes_max`. Over TLS, a
//!   record and a session of rustls more.
//! - A frame is lost only through `Counters::drop_frame`, a connection only
//!   through `close`.

mod ahead;
mod backend_side;
mod backlog;
mod bans;
mod channels;
mod client_side;
mod connection;
mod corks;
mod credits;
mod datagrams;
mod deadlines;
#[cfg(any(test, feature = "testing"))]
mod footprint;
mod front;
mod limiting;
pub mod look;
mod moves;
mod operator;
mod quality;
mod queue;
mod resume;
mod session;
mod side;
mod slow;
pub mod story;
mod uplinks;
mod wheel;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use protocol::body::Body;
use protocol::buffers::Buffers;
use protocol::check::{Bucket, Rate};
use protocol::cipher::RekeyPolicy;
use protocol::compress::Scratch;
use protocol::handshake::{self, StaticKey};
use protocol::ids::{Fence, GroupId, SessionId, ShardId, TicketId};
use protocol::reason::{CloseReason, Fault};
use protocol::time::{Now, Time};
use protocol::token::Verifier;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use rustc_hash::FxHashMap;

use crate::counters::Counters;
use crate::engine::{ConnId, SendBuffer};
use crate::front::{Front, FrontConfig};
use crate::limits::{Limits, Usage};
use crate::tickets::Tickets;
use bans::BannedNetworks;
use connection::{Connection, PendingMove, PendingSeek, Phase};
pub use datagrams::DatagramConfig;
use datagrams::DatagramSide;
#[cfg(any(test, feature = "testing"))]
pub use footprint::Footprint;
use queue::Report;
use resume::Parking;
use uplinks::Uplink;
use wheel::Wheel;

/// How long, ms, a connection that was told CLOSE may take to read it. One
/// round trip across the world and a retransmission.
const CLOSING_MS: u64 = 1_000;

/// The same over datagrams, where CLOSE may get lost several times and no end of a stream says so:
/// at 333 ms doubled each time, it is sent four times.
const CLOSING_DATAGRAMS_MS: u64 = 3_000;

/// Connections that one sweep (opening sessions at a backend, closing all)
/// visits in a turn: about a millisecond.
const SWEEP_PER_TURN: usize = 512;

/// What the log wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An uplink's hellos are exchanged.
    UplinkUp {
        /// Which.
        uplink: usize,
        /// The instance's name.
        instance: String,
    },
    /// The backend is not what the configuration says; its link is closed.
    UplinkRefused {
        /// Which.
        uplink: usize,
        /// What to do.
        why: String,
    },
    /// Center did not renew the lease in time; sessions are being closed.
    LeaseLost,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close the connection at once.
    Close(ConnId),
    /// End the sending direction: everything was handed over.
    ShutdownWrite(ConnId),
    /// Stop reading.
    Pause(ConnId),
    /// Read again.
    Resume(ConnId),
    /// Close this uplink's link; it will be dialled again.
    CloseUplink(usize),
    /// Write this to the log.
    Notice(Notice),
}

/// Versions of the game client, both ends included.
pub type Versions = RangeInclusive<u32>;

/// Every version.
pub const ALL_VERSIONS: Versions = 0..=u32::MAX;

/// A group of backends.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The routing key.
    pub group: GroupId,
    /// Which versions of the client each configured instance takes. Their uplinks follow those
    /// of the groups before, after center's, which is uplink 0.
    pub instances: Vec<Versions>,
}

/// What a shard is built from.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The gateway's name, unique among gateways.
    pub gateway: String,
    /// Which shard this is.
    pub shard: ShardId,
    /// Drawn at random when the process started.
    pub boot: u64,
    /// The key that clients pin.
    pub key: StaticKey,
    /// Groups that clients may talk to.
    pub groups: Vec<GroupConfig>,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Connections at once that are not logged in.
    pub connections_before_login_max: usize,
    /// From accept to finished handshake, ms.
    pub handshake_timeout_ms: u32,
    /// From accept to finished login, ms.
    pub login_timeout_ms: u32,
    /// A client silent for so long, ms, sends PING.
    pub heartbeat_interval_ms: u32,
    /// A connection silent for so long, ms, is closed.
    pub idle_timeout_ms: u32,
    /// Frames that a connection may send.
    pub frames: Rate,
    /// Bytes that a connection may send.
    pub bytes: Rate,
    /// How long, ms, a session whose client is lost waits for it; 0 ends it with
    /// its connection.
    pub resume_ms: u32,
    /// Bytes that wait for one client; above it the client is too slow.
    pub send_queue_bytes_max: usize,
    /// How long, ms, what is sent to a client may wait for it to read; then the client is too
    /// slow.
    pub write_timeout_ms: u32,
    /// Bytes that wait for one backend; above it, who sends to it waits for credit.
    pub uplink_queue_bytes_max: usize,
    /// When the shard changes the keys it sends under.
    pub rekey: RekeyPolicy,
    /// Payloads from this size on are compressed where that shrinks them.
    pub compress_bytes_min: usize,
    /// Client versions below this are not let in.
    pub version_min: u32,
    /// Where a client whose version is not served gets another one; its CLOSE says so.
    pub upgrade_address: Arc<str>,
    /// A channel's messages are sealed once for all members, not for each; the one of everybody
    /// never is.
    pub seal_channels_once: bool,
    /// Limits of networks and accounts.
    pub limits: Limits,
    /// Who has how much of them in use, in all shards of the gateway.
    pub usage: Arc<Usage>,
    /// The tickets of the sessions in all shards of the gateway.
    pub tickets: Arc<Tickets>,
    /// What comes before the frames.
    pub front: FrontConfig,
    /// Connections over datagrams; without it there are none.
    pub datagrams: Option<DatagramConfig>,
}

/// One shard.
pub struct Shard {
    config: ShardConfig,
    verifier: Verifier,
    random: ChaCha20Rng,
    counters: Arc<Counters>,
    buffers: Buffers,
    scratch: Scratch,
    /// By the index of their id.
    connections: Vec<Option<Box<Connection>>>,
    connections_open: usize,
    sessions: FxHashMap<SessionId, ConnId>,
    /// Sessions without a connection.
    parking: Parking,
    /// The one ticket of each session, by its id.
    tickets: FxHashMap<TicketId, SessionId>,
    /// Claims at center, at most one a connection before login.
    claims: FxHashMap<u64, ConnId>,
    /// Tickets that center was asked for, in the order in which they were.
    seeks: BTreeMap<u64, PendingSeek>,
    /// Sessions that center was asked to move here.
    moves: BTreeMap<u64, PendingMove>,
    /// The next number of a claim, a seek or a move.
    next_claim: u64,
    /// Connections that wait in center's queue.
    queued: usize,
    /// When center is told next how busy this shard is.
    report: Report,
    /// Networks from which nobody may connect.
    banned: BannedNetworks,
    channels: channels::Channels,
    uplinks: Vec<Uplink>,
    /// For each group, in the order of the configuration: its first uplink.
    group_first_uplink: Vec<usize>,
    wheel: Wheel,
    due: Vec<ConnId>,
    /// Connections over datagrams, where there may be any.
    datagrams: Option<Box<DatagramSide>>,
    /// Connections whose reading is to start again, by when.
    rate_pauses: BinaryHeap<Reverse<(Time, ConnId)>>,
    /// Connections with bytes to send; each at most once (`listed`).
    to_send: VecDeque<ConnId>,
    /// Output that waits for a backend's.
    corks: corks::Corks,
    actions: VecDeque<Action>,
    lease: session::Lease,
    /// Some sessions are to be opened at a backend: the next index to look at.
    binding_sweep: Option<usize>,
    /// All connections are to be closed for this reason: the next index.
    closing_sweep: Option<(CloseReason, usize)>,
    /// Those who are connected from a banned network are to be closed: the next index.
    ban_sweep: Option<usize>,
    draining: bool,
    /// When the present turn began.
    turn: Now,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("shard", &self.config.shard)
            .field("connections", &self.connections_open)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard without connections. `seed` must be fresh and secret: all
    /// ephemeral keys come from it.
    pub fn new(
        config: ShardConfig,
        verifier: Verifier,
        seed: [u8; 32],
        counters: Arc<Counters>,
        now: Now,
    ) -> Self {
        let mut uplinks = vec![Uplink::new(None, ALL_VERSIONS)];
        let mut group_first_uplink = Vec::with_capacity(config.groups.len());
        for (index, group) in config.groups.iter().enumerate() {
            group_first_uplink.push(uplinks.len());
            let versions = group.instances.iter().cloned();
            uplinks.extend(versions.map(|versions| Uplink::new(Some(index), versions)));
        }
        let datagrams = config
            .datagrams
            .as_ref()
            .map(|config| Box::new(DatagramSide::new(config, now.time)));
        Self {
            verifier,
            random: ChaCha20Rng::from_seed(seed),
            counters,
            buffers: Buffers::default(),
            scratch: Scratch::default(),
            connections: Vec::new(),
            connections_open: 0,
            sessions: FxHashMap::default(),
            parking: Parking::default(),
            tickets: FxHashMap::default(),
            claims: FxHashMap::default(),
            seeks: BTreeMap::new(),
            moves: BTreeMap::new(),
            next_claim: 1,
            queued: 0,
            report: Report::default(),
            banned: BannedNetworks::default(),
            channels: channels::Channels::default(),
            uplinks,
            group_first_uplink,
            wheel: Wheel::new(now.time, wheel::TICK_US),
            datagrams,
            due: Vec::new(),
            rate_pauses: BinaryHeap::new(),
            to_send: VecDeque::new(),
            corks: corks::Corks::default(),
            actions: VecDeque::new(),
            lease: session::Lease::default(),
            binding_sweep: None,
            closing_sweep: None,
            ban_sweep: None,
            draining: false,
            turn: now,
            config,
        }
    }

    /// What this shard counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Sessions that are logged in.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Whose sessions these are, with their ids and fences: those that are logged
    /// in, in the order of their connections, then those that wait for their client.
    pub fn live_sessions(&self) -> impl Iterator<Item = (&str, SessionId, Fence)> {
        let sessions = self.connections.iter().flatten();
        sessions
            .filter_map(|connection| connection.session())
            .chain(self.parking.iter().map(|(session, _)| session))
            .map(|session| (&*session.account, session.id, session.fence))
    }

    /// Connections that are open, those that are closing included.
    pub fn connections(&self) -> usize {
        self.connections_open
    }

    /// A client was accepted.
    pub fn handle_accepted(&mut self, now: Now, id: ConnId, peer: Option<SocketAddr>) {
        let index = id.index as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        self.counters.accepted.add(1);
        self.connections_open += 1;
        self.counters.connections.set(self.connections_open as u64);
        let mut connection = Box::new(Connection::new(
            id,
            peer,
            Bucket::full(self.config.frames, now.time),
            Bucket::full(self.config.bytes, now.time),
            now.time,
        ));
        let admitted = self.admit(now, &mut connection);
        self.connections[index] = Some(connection);
        if let Err(reason) = admitted {
            self.close(now, id, reason);
            return;
        }
        self.wheel.insert(
            id,
            now.time
                .after_ms(u64::from(self.config.handshake_timeout_ms)),
        );
    }

    /// Whether a connection that was accepted may go on.
    fn admit(&mut self, now: Now, connection: &mut Connection) -> Result<(), CloseReason> {
        if self.draining {
            return Err(CloseReason::Draining);
        }
        // Before the bound of all: a network that floods must not be told that we are full.
        self.enter_accepted(now, connection)?;
        if self.before_login() > self.config.connections_before_login_max {
            return Err(CloseReason::Full);
        }
        self.check_network(now, connection.peer)?;
        connection.front = Front::of_accepted(&self.config.front, connection.peer)?;
        Ok(())
    }

    /// The engine has closed the connection; nothing about it follows.
    pub fn handle_closed(&mut self, now: Now, id: ConnId) {
        let Some(mut connection) = self.take(id) else {
            return;
        };
        self.connections_open -= 1;
        self.counters.connections.set(self.connections_open as u64);
        connection.drop_backlog(&self.counters);
        if !matches!(connection.phase, Phase::Closing) {
            self.counters.close(CloseReason::PeerClosed);
            self.end_session(now, &mut connection, CloseReason::PeerClosed);
        }
        self.leave_network(&mut connection);
        connection.reassembly.release(&mut self.buffers);
        if let Some(front) = &mut connection.front {
            front.release(&mut self.buffers);
        }
        if let Some(tls) = &mut connection.tls {
            tls.release(&mut self.buffers);
        }
        self.buffers.give(std::mem::take(&mut connection.out));
        self.forget_datagrams(&connection);
    }

    /// A buffer that `poll_send` gave out has been handed to the kernel, or
    /// failed (then `handle_closed` follows).
    pub fn handle_sent(&mut self, id: ConnId, buffer: SendBuffer) {
        self.counters.bytes_sent.add(buffer.len() as u64);
        self.buffers.give(buffer.into_own());
        if let Some(connection) = self.connection(id) {
            connection.in_flight_bytes = 0;
            // Most have nothing more, and a second look at each is a twentieth of a broadcast.
            if connection.has_output() || matches!(connection.phase, Phase::Closing) {
                self.list_for_send(id);
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.turn = now;
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now.time, &mut due);
        for id in due.drain(..) {
            self.handle_deadline(now, id);
        }
        self.due = due;
        self.handle_datagram_timeouts(now);
        self.pull_corks(now);
        while let Some(&Reverse((at, id))) = self.rate_pauses.peek()
            && at <= now.time
        {
            self.rate_pauses.pop();
            if let Some(connection) = self.connection(id) {
                connection.rate_paused = false;
                if !connection.uplink_paused {
                    self.actions.push_back(Action::Resume(id));
                }
                self.release_held(now, id);
            }
        }
        self.handle_lease(now);
        self.report_load(now);
        self.expire_seeks(now);
        self.expire_parked(now);
        self.grant_credits(now);
        self.sweep(now);
        self.fan_out_some(now);
    }

    /// Work that is spread over turns.
    fn sweep(&mut self, now: Now) {
        if let Some((reason, from)) = self.closing_sweep {
            let to = (from + SWEEP_PER_TURN).min(self.connections.len());
            for index in from..to {
                let wanted = self.connections[index].as_ref().filter(|connection| {
                    reason == CloseReason::Draining || connection.session().is_some()
                });
                if let Some(id) = wanted.map(|connection| connection.id) {
                    self.close(now, id, reason);
                }
            }
            let parked = self.close_some_parked(now, reason, SWEEP_PER_TURN);
            let more = to < self.connections.len() || parked;
            self.closing_sweep = more.then_some((reason, to));
        }
        self.sweep_banned(now);
        if let Some(from) = self.binding_sweep {
            let to = (from + SWEEP_PER_TURN).min(self.connections.len());
            for index in from..to {
                if let Some(mut connection) = self.connections[index].take() {
                    let id = connection.id;
                    let end = self.bind_session(&mut connection);
                    if connection.session().is_some_and(|session| session.untold) {
                        self.tell_center(&mut connection);
                    }
                    self.connections[index] = Some(connection);
                    if let Some(reason) = end {
                        self.close(now, id, reason);
                    }
                }
            }
            self.binding_sweep = (to < self.connections.len()).then_some(to);
            self.sweep_parked(now, self.binding_sweep.is_none());
        } else if self.parking.is_binding() {
            self.sweep_parked(now, false);
        }
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let sweeps = [self.binding_sweep, self.ban_sweep]
            .iter()
            .any(Option::is_some)
            || self.closing_sweep.is_some();
        if sweeps || self.parking.is_binding() || self.channels.is_busy() {
            return Some(Time(0));
        }
        let pauses = self.rate_pauses.peek().map(|Reverse((at, _))| *at);
        [
            self.wheel.next(),
            self.corks.next(),
            pauses,
            self.lease_deadline(),
            self.report.next(),
            self.parking.next(),
            self.next_seek(),
            self.datagram_deadline(),
            self.credit_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing for the driver to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next buffer to send. The engine has at most one of a connection;
    /// `handle_sent` gives it back.
    pub fn poll_send(&mut self) -> Option<(ConnId, SendBuffer)> {
        while let Some(id) = self.to_send.pop_front() {
            let Some(connection) = Self::at(&mut self.connections, id) else {
                continue;
            };
            connection.listed = false;
            if connection.in_flight_bytes > 0 || connection.corked {
                continue;
            }
            connection.send_backlog(&self.config, self.turn, &self.counters);
            if let Some(piece) = connection.pop_ahead() {
                return Some((id, connection.begin_send(piece, self.turn.time)));
            }
            let last = matches!(connection.phase, Phase::Closing);
            if let Some(front) = &mut connection.front {
                front.wrap(&mut connection.out, last, &mut self.buffers);
            }
            if let Some(tls) = &mut connection.tls {
                tls.wrap(&mut connection.out, last, &mut self.buffers);
            }
            if connection.out.is_empty() {
                if matches!(connection.phase, Phase::Closing) && !connection.shut {
                    connection.shut = true;
                    self.actions.push_back(Action::ShutdownWrite(id));
                }
                continue;
            }
            let buffer = std::mem::take(&mut connection.out);
            return Some((id, connection.begin_send(buffer.into(), self.turn.time)));
        }
        None
    }

    fn list_for_send(&mut self, id: ConnId) {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        if !connection.is_stream() {
            self.list_datagrams(id);
        } else if !connection.listed {
            connection.listed = true;
            self.to_send.push_back(id);
        }
    }

    /// Ends a connection: its session, then the connection, telling the client
    /// why where the stream can still carry it.
    fn close(&mut self, now: Now, id: ConnId, reason: CloseReason) {
        self.close_with(now, id, reason, "");
    }

    /// The same with what the client is told in words; empty: the reason's own.
    fn close_with(&mut self, now: Now, id: ConnId, reason: CloseReason, text: &str) {
        let Some(mut connection) = self.take(id) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing) {
            self.connections[id.index as usize] = Some(connection);
            return;
        }
        self.counters.close(reason);
        self.end_session(now, &mut connection, reason);
        connection.drop_backlog(&self.counters);
        let is_stream = connection.is_stream();
        let unheard = connection.is_unheard();
        let handshaking = is_stream && connection.ciphers.is_none();
        connection.phase = Phase::Closing;
        connection.corked = false;
        connection.since = now.time;
        connection.reassembly.release(&mut self.buffers);
        let silent = match reason {
            CloseReason::SlowConsumer => true,
            CloseReason::HandshakeTimeout => unheard,
            CloseReason::ProxyUntrusted | CloseReason::BadProxyHeader => true,
            _ => connection.is_mute,
        };
        if silent {
            // Nothing more gets through, or nobody spoke who could understand.
            connection.ahead = None;
            self.buffers.give(std::mem::take(&mut connection.out));
        } else {
            if is_stream && connection.out.capacity() == 0 {
                connection.out = self.buffers.take();
            }
            let is_open = connection.tls.as_ref().is_none_or(|tls| tls.is_open());
            let carries_frames = match &mut connection.front {
                None => true,
                Some(front) => {
                    front.end(reason);
                    front.carries_frames()
                }
            };
            if !carries_frames || !is_open {
                // The front says it in its own words.
            } else if handshaking {
                handshake::reject(reason, now.time.wire_ms(), &mut connection.out);
            } else {
                // A peer that broke the rules is told what it broke, no more.
                let is_limited = matches!(
                    reason,
                    CloseReason::NetworkLimit | CloseReason::AccountLimit
                );
                let retry_after_ms = if reason.fault() == Fault::Ours || is_limited {
                    1_000
                } else {
                    0
                };
                connection.seal(
                    now.time,
                    &Body::Close {
                        reason: reason as u16,
                        retry_after_ms,
                        text: match (text, reason) {
                            ("", CloseReason::UpgradeRequired) => &self.config.upgrade_address,
                            ("", _) => reason.text(),
                            (text, _) => text,
                        },
                    },
                );
            }
            if connection.rate_paused || connection.uplink_paused {
                // Read on, so that what lies there does not turn our FIN into a reset.
                connection.rate_paused = false;
                connection.uplink_paused = false;
                self.actions.push_back(Action::Resume(id));
            }
            let closing_ms = connection.closing_ms();
            self.wheel.insert(id, now.time.after_ms(closing_ms));
        }
        self.connections[id.index as usize] = Some(connection);
        if silent {
            self.close_transport(now, id);
        } else {
            self.list_for_send(id);
        }
    }

    /// Ends what carries a connection: the engine's socket, or nothing.
    fn close_transport(&mut self, now: Now, id: ConnId) {
        if self.is_datagram(id) {
            self.handle_closed(now, id);
        } else {
            self.actions.push_back(Action::Close(id));
        }
    }

    fn at(connections: &mut [Option<Box<Connection>>], id: ConnId) -> Option<&mut Connection> {
        let slot = connections.get_mut(id.index as usize)?;
        slot.as_deref_mut().filter(|connection| connection.id == id)
    }

    fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        Self::at(&mut self.connections, id)
    }

    /// Takes a connection out of its slot; put it back, or it is gone.
    fn take(&mut self, id: ConnId) -> Option<Box<Connection>> {
        let slot = self.connections.get_mut(id.index as usize)?;
        if slot.as_ref().is_some_and(|connection| connection.id == id) {
            slot.take()
        } else {
            None
        }
    }

    fn ephemeral(&mut self) -> [u8; 32] {
        let mut secret = [0; 32];
        self.random.fill_bytes(&mut secret);
        secret
    }
}

#[cfg(test)]
mod tests;
