//! The core of a worker: its clients from their first connect to their logout,
//! what they send and what becomes of it. Reads no clock, opens no socket.
//!
//! Call order, in a loop: `handle_*` for what the engine reported; `handle_turn`;
//! then `poll_connect`, `poll_command` and `poll_milestone` until `None`; sleep
//! until `poll_timeout`. Time only moves forward.
//!
//! Bounds: attempts in flight and attempts a client, the phases of connecting,
//! draining and logging out, work a turn. Outboxes are bounded by `protocol`.
//!
//! Invariant: a client is in exactly one [`Stage`], and the counters of
//! [`Tally`] and of the fleet change only where a stage does.

mod arrive;
mod beside;
mod book;
mod client;
mod connect;
mod finish;
mod mixed;
mod rooms;
mod storm;
mod timers;
mod walk;

use std::collections::VecDeque;

use gateway::engine::{ClosedBy, ConnId};
use protocol::client::{Client, Shared};
use protocol::ids::MessageId;
use protocol::time::{Now, Time};
use protocol::token::Issuer;
use protocol::websocket::client::{ClientEnd, Received};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::args::Transport;
use crate::messages::WorkerPlan;
use crate::schedule::Schedule;
use crate::tally::{Tally, socket_reason};
use arrive::Arrival;
use beside::Side;
use book::Books;
use client::{Judge, Seen};
pub use connect::Connect;
use rooms::{Hearer, Rooms};
use storm::Return;
use timers::Timers;
use walk::{Walker, World};

/// Connects and logins in flight of one worker. Enough to keep a gateway busy,
/// few enough that none waits long for its WELCOME.
pub const IN_FLIGHT_MAX: u32 = 256;
/// The same until the first client is in: a wrong key or a dead target shows
/// after a few attempts, not after thousands.
pub const IN_FLIGHT_FIRST: u32 = 8;
/// Attempts of one client to get in.
pub const ATTEMPTS_MAX: u32 = 5;
/// Pause, ms, after the first failed attempt; doubles with each further one.
pub const BACKOFF_MS: u64 = 100;
/// How long, ms, a TCP connect may take; a lost SYN is resent after 1 and 3 s.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// The phase of connecting ends after this, ms, plus `CONNECT_PHASE_MS_A_CLIENT`
/// for each client: a gateway slower than 200 logins a second is a finding.
const CONNECT_PHASE_MS: u64 = 30_000;
/// See [`CONNECT_PHASE_MS`].
const CONNECT_PHASE_MS_A_CLIENT: u64 = 5;
/// How long, ms, clients wait in the queue without one of them being told that it moves: twice
/// the longest pause between two positions.
pub const QUEUE_MS: u64 = 60_000;
/// How long, ms, after the last login groups may take to come up.
pub const GROUP_UP_MS: u64 = 15_000;
/// How long, ms, nothing may be missing before the drain ends: a doubled reply
/// comes after the one that was waited for.
pub const SETTLE_MS: u64 = 200;
/// How long, ms, logging out may take, plus `LOGOUT_MS_A_CLIENT` for each client.
pub const LOGOUT_MS: u64 = 15_000;
/// See [`LOGOUT_MS`]; measured: a tenth of this on a busy machine.
pub const LOGOUT_MS_A_CLIENT: u64 = 2;
/// Logouts begun in one turn.
const LOGOUTS_A_TURN: usize = 256;
/// Turns of the schedule taken in one turn of the loop: the work of about half
/// a millisecond, between two looks at what has come.
const DUE_A_TURN: usize = 256;
/// Every client's timers are looked at once in this time, microseconds. Timers
/// are seconds long; a sweep needs no order among them. Those of datagrams are not,
/// and have [`Timers`].
const SWEEP_US: u64 = 250_000;
/// Longest sleep, microseconds, while there are clients.
const SLEEP_US_MAX: u64 = 10_000;
/// Message id of what the clients send.
pub const MESSAGE: MessageId = MessageId(1);

const NOBODY: u32 = u32::MAX;

/// How long, ms, so many clients may take to get in.
pub fn connect_ms(clients: u32) -> u64 {
    CONNECT_PHASE_MS + CONNECT_PHASE_MS_A_CLIENT * u64::from(clients)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits in `queue` for room among the attempts in flight.
    Queued,
    /// Waits after a failed attempt.
    Waiting(Time),
    /// The TCP connect is on its way since.
    Connecting(Time),
    /// Handshake and login.
    LoggingIn,
    /// In a session.
    In,
    /// LOGOUT is sent.
    LoggingOut,
    /// Was in.
    Ended,
    /// Never got in.
    Failed,
}

impl Stage {
    /// Not in and not given up.
    const fn is_arriving(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::Waiting(_) | Self::Connecting(_) | Self::LoggingIn
        )
    }
}

#[derive(Debug)]
struct Slot {
    stage: Stage,
    attempts: u32,
    group_up: bool,
    was_in: bool,
    /// In `dirty`.
    is_dirty: bool,
    /// A buffer is with the engine.
    is_sending: bool,
    /// There may be more to send behind it.
    has_more: bool,
    conn: Option<ConnId>,
    client: Option<Box<Client>>,
    /// With `--side-path`.
    side: Side,
    /// What its frames travel in, where that is a WebSocket.
    websocket: Option<Box<ClientEnd>>,
    books: Books,
    /// In `walk`, from its request to be put on the map on.
    walker: Option<Box<Walker>>,
    /// In `chat` and `broadcast`, from its request to be let into its channel on.
    hearer: Option<Box<Hearer>>,
    /// In `reconnect-storm` and `mixed`.
    storm: Option<Box<Return>>,
    /// In `login-storm`.
    arrival: Option<Box<Arrival>>,
    /// Waits in the gateway's queue.
    waits: bool,
}

/// An attempt to connect is over: how many fewer are in flight. One that `waits` in the gateway's
/// queue was none of them.
fn landed(waits: &mut bool) -> u32 {
    u32::from(!std::mem::take(waits))
}

impl Slot {
    /// Whether its turns count: it is in, or comes back to where it was.
    fn is_playing(&self) -> bool {
        self.stage == Stage::In || self.storm.as_ref().is_some_and(|storm| storm.is_away)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// Every client is settled; waits for the start.
    Ready,
    Running,
    /// The window is over.
    Draining {
        deadline: Time,
        /// Since when nothing is missing.
        quiet_since: Option<Time>,
    },
    Drained,
    LoggingOut {
        deadline: Time,
    },
    Done,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Command {
    /// Hand these bytes to the engine.
    Send(ConnId, Vec<u8>),
    /// Close.
    Close(ConnId),
}

/// What the parent wants to know at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// Every client is in or was given up.
    Ready,
    /// Every reply is here or was given up.
    Drained,
    /// Everything is over.
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Fleet {
    plan: WorkerPlan,
    issuer: Issuer,
    rng: ChaCha20Rng,
    slots: Vec<Slot>,
    /// Client of each of the engine's connections.
    by_conn: Vec<u32>,
    queue: VecDeque<u32>,
    /// With `--side-path`: clients that have come into a session, each at most once a session.
    without_side: VecDeque<u32>,
    /// Over datagrams.
    timers: Timers,
    dirty: VecDeque<u32>,
    closes: Vec<ConnId>,
    shared: Shared,
    payload: Vec<u8>,
    schedule: Option<Schedule>,
    /// When whom to cut, in `reconnect-storm` and `mixed`.
    cuts: Option<Schedule>,
    /// When who logs out to log in anew, in `mixed`.
    leaves: Option<Schedule>,
    /// In `walk`.
    world: Option<World>,
    /// In `chat` and `broadcast`.
    rooms: Option<Rooms>,
    tally: Tally,
    phase: Phase,
    milestone: Option<Milestone>,
    unable: Option<String>,
    /// The parent waits for nothing more than the end.
    is_finishing: bool,
    /// The window ended before all turns had come.
    is_cut_short: bool,
    /// Clients that are neither in nor given up.
    arriving: u32,
    in_flight: u32,
    groups_up: u32,
    /// Turns that have come and are not sent, of clients that are in.
    pending: u64,
    connect_deadline: Time,
    group_deadline: Time,
    swept_at: Time,
    sweep_position: usize,
    logout_position: usize,
    first_attempt: Option<Time>,
    last_login: Option<Time>,
    window_end: Option<Time>,
}

impl Fleet {
    /// A fleet that begins to connect. `secret` must be fresh and random.
    pub fn new(plan: WorkerPlan, issuer: Issuer, secret: [u8; 32], now: Time) -> Self {
        let slots = (0..plan.count).map(|_| Slot {
            stage: Stage::Queued,
            attempts: 0,
            group_up: false,
            was_in: false,
            is_dirty: false,
            is_sending: false,
            has_more: false,
            conn: None,
            client: None,
            side: Side::default(),
            websocket: None,
            books: if plan.is_mixed() {
                Books::mixed(plan.transport == Transport::Udp || plan.side_path)
            } else {
                Books::default()
            },
            walker: None,
            hearer: None,
            storm: plan.cut_every_ms.map(|_| Box::default()),
            arrival: plan.login_storm.map(|_| Box::default()),
            waits: false,
        });
        Self {
            issuer,
            rng: ChaCha20Rng::from_seed(secret),
            slots: slots.collect(),
            by_conn: Vec::new(),
            queue: match plan.login_storm {
                Some(_) => VecDeque::new(),
                None => (0..plan.count).collect(),
            },
            without_side: VecDeque::new(),
            timers: Timers::new(plan.count),
            dirty: VecDeque::new(),
            closes: Vec::new(),
            shared: Shared::default(),
            payload: Vec::with_capacity(plan.payload_bytes),
            schedule: None,
            cuts: None,
            leaves: None,
            world: World::new(&plan),
            rooms: Rooms::new(&plan),
            tally: Tally::default(),
            phase: Phase::Connecting,
            milestone: None,
            unable: None,
            is_finishing: false,
            is_cut_short: false,
            arriving: plan.count,
            in_flight: 0,
            groups_up: 0,
            pending: 0,
            connect_deadline: now.after_ms(connect_ms(plan.count)),
            group_deadline: now,
            swept_at: now,
            sweep_position: 0,
            logout_position: 0,
            first_attempt: None,
            last_login: None,
            window_end: None,
            plan,
        }
    }

    /// The parent says when to send.
    pub fn handle_start(&mut self, at: Time) {
        if self.phase == Phase::Ready {
            let plan = &self.plan;
            self.schedule = Some(Schedule::new(
                at,
                plan.rate,
                plan.duration_ms,
                plan.clients,
                plan.first,
                plan.count,
                plan.seed,
            ));
            self.cuts = storm::cuts(plan, at);
            self.leaves = mixed::leaves(plan, at);
            self.connect_deadline = at.after_ms(plan.duration_ms + connect_ms(plan.count));
            self.phase = Phase::Running;
        }
    }

    /// The parent wants an end. In the middle of a run no more is sent, and
    /// what is under way is waited for.
    pub fn handle_finish(&mut self, now: Time) {
        self.is_finishing = true;
        match self.phase {
            Phase::Running => {
                self.is_cut_short = true;
                self.end_window(now, now);
            }
            Phase::Draining { .. } | Phase::LoggingOut { .. } | Phase::Done => {}
            Phase::Connecting | Phase::Ready | Phase::Drained => self.log_out(now),
        }
    }

    fn end_window(&mut self, end: Time, now: Time) {
        self.window_end = Some(end);
        self.tally.sent_in_window = self.tally.sent;
        self.phase = Phase::Draining {
            deadline: now.after_ms(self.plan.drain_ms),
            quiet_since: None,
        };
    }

    fn log_out(&mut self, now: Time) {
        // Who is cut at this moment comes back, to log out.
        self.queue
            .retain(|index| self.slots[*index as usize].was_in);
        self.phase = Phase::LoggingOut {
            deadline: now.after_ms(LOGOUT_MS + LOGOUT_MS_A_CLIENT * u64::from(self.plan.count)),
        };
    }

    fn index_of(&self, conn: ConnId) -> Option<u32> {
        let index = *self.by_conn.get(conn.index as usize)?;
        let slot = self.slots.get(index as usize)?;
        (slot.conn == Some(conn) || slot.side.conn == Some(conn)).then_some(index)
    }

    /// A socket is connected: the client says HELLO.
    pub fn handle_connected(&mut self, conn: ConnId, now: Now) {
        if let Some(index) = self.index_of(conn) {
            if self.is_beside(index, conn) {
                return self.handle_connected_beside(index);
            }
            let begun = if self.slots[index as usize].was_in {
                self.begin_return(index, now)
            } else {
                self.new_client(index, now)
                    .map(|client| self.slots[index as usize].client = Some(Box::new(client)))
            };
            match begun {
                Ok(()) => {
                    let websocket = (self.plan.transport == Transport::Ws).then(|| {
                        let mut random = [0; 16];
                        self.rng.fill_bytes(&mut random);
                        Box::new(ClientEnd::new(&self.plan.target.to_string(), random))
                    });
                    let slot = &mut self.slots[index as usize];
                    slot.websocket = websocket;
                    slot.stage = Stage::LoggingIn;
                    self.mark(index);
                }
                Err(reason) => self.end(index, reason, now.time),
            }
        }
    }

    /// Bytes arrived, or one datagram.
    pub fn handle_received(&mut self, conn: ConnId, data: &mut [u8], now: Time) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        if self.is_beside(index, conn) {
            return self.handle_received_beside(index, data, now);
        }
        match self.slots[index as usize].websocket.take() {
            None => self.handle_stream(index, data, now),
            Some(mut websocket) => {
                self.handle_messages(index, &mut websocket, data, now);
                self.slots[index as usize].websocket = Some(websocket);
            }
        }
        self.mark(index);
    }

    fn handle_stream(&mut self, index: u32, data: &mut [u8], now: Time) {
        self.with_client(index, now, |client, shared, judge| {
            client.handle_received(now, data, shared, &mut |event| judge.handle(event));
        });
    }

    /// Takes the frames out of what a WebSocket brought.
    fn handle_messages(
        &mut self,
        index: u32,
        websocket: &mut ClientEnd,
        mut data: &mut [u8],
        now: Time,
    ) {
        loop {
            match websocket.next(&mut data, &mut self.shared.buffers) {
                Ok(Some(Received::Message(frame))) => self.handle_stream(index, frame, now),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => return self.end(index, "websocket_refused", now),
            }
        }
    }

    /// A buffer is back.
    pub fn handle_sent(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.shared.buffers.give(buf);
        if let Some(index) = self.index_of(conn) {
            if self.is_beside(index, conn) {
                return self.handle_sent_beside(index);
            }
            let slot = &mut self.slots[index as usize];
            slot.is_sending = false;
            if std::mem::take(&mut slot.has_more) {
                self.mark(index);
            }
        }
    }

    /// A connection is over.
    pub fn handle_closed(&mut self, conn: ConnId, why: ClosedBy, now: Time) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        if self.is_beside(index, conn) {
            self.slots[index as usize].side = Side::default();
            return;
        }
        self.slots[index as usize].conn = None;
        let reason = match why {
            ClosedBy::Error(kind) => socket_reason(kind),
            ClosedBy::Peer | ClosedBy::Local => protocol::reason::CloseReason::PeerClosed.label(),
        };
        self.end(index, reason, now);
    }

    fn mark(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.is_dirty {
            slot.is_dirty = true;
            self.dirty.push_back(index);
        }
    }

    /// Runs one call of a client's core and acts on what it reported.
    fn with_client(
        &mut self,
        index: u32,
        now: Time,
        call: impl FnOnce(&mut Client, &mut Shared, &mut Judge<'_>),
    ) {
        let slot = &mut self.slots[index as usize];
        let Some(client) = slot.client.as_mut() else {
            return;
        };
        let mut seen = Seen::default();
        let mut judge = Judge {
            plan: &self.plan,
            index,
            base: slot.storm.as_ref().map_or(0, |storm| storm.base),
            schedule: self.schedule.as_ref(),
            books: &mut slot.books,
            world: self.world.as_ref(),
            walker: slot.walker.as_deref_mut(),
            rooms: self.rooms.as_mut(),
            hearer: slot.hearer.as_deref_mut(),
            tally: &mut self.tally,
            seen: &mut seen,
            now,
        };
        call(client, &mut self.shared, &mut judge);
        if let Some(position) = seen.queued {
            self.wait_in_queue(index, position, now);
        }
        if seen.logged_in {
            self.enter(index, now);
        }
        if seen.logged_in || seen.resumed {
            self.note_session(index, now, seen.resumed);
            if self.plan.side_path {
                self.without_side.push_back(index);
            }
        }
        if let Some(up) = seen.group_up {
            self.set_group_up(index, up);
            self.enter_map(index);
            self.enter_room(index);
        }
        if let Some(answer) = seen.entry {
            self.handle_entry(index, answer, now);
        }
        if seen.is_joined || seen.is_refused {
            self.handle_room(index, seen.is_joined, seen.is_refused);
        }
        if let Some(restart) = seen.restart {
            self.handle_restart(index, restart, now);
        }
        if let Some(closed) = seen.closed {
            self.end_by(index, closed, now);
        }
        self.take_part(index, now);
    }

    fn set_group_up(&mut self, index: u32, up: bool) {
        let slot = &mut self.slots[index as usize];
        if slot.group_up != up {
            slot.group_up = up;
            self.groups_up = if up {
                self.groups_up + 1
            } else {
                self.groups_up - 1
            };
        }
    }

    /// Time has passed: turns, deadlines, phases.
    pub fn handle_turn(&mut self, now: Time) {
        self.sweep(now);
        while let Some(index) = self.timers.poll_due(now) {
            self.handle_client_timeout(index, now);
        }
        match self.phase {
            Phase::Connecting => self.advance_connecting(now),
            Phase::Ready | Phase::Drained | Phase::Done => {}
            Phase::Running if self.plan.login_storm.is_some() => self.advance_storm(now),
            Phase::Running => self.advance_running(now),
            Phase::Draining {
                deadline,
                quiet_since,
            } => self.advance_draining(now, deadline, quiet_since),
            Phase::LoggingOut { deadline } => self.advance_logout(now, deadline),
        }
    }

    fn advance_running(&mut self, now: Time) {
        for _ in 0..DUE_A_TURN {
            let Some(index) = self.schedule.as_mut().and_then(|s| s.poll_due(now)) else {
                break;
            };
            let slot = &mut self.slots[index as usize];
            if slot.is_playing() {
                let (client, turn) = (self.plan.first + index, slot.books.due());
                slot.books.of(self.plan.lane_of(client, turn)).due += 1;
                self.pending += 1;
                self.mark(index);
            }
        }
        self.cut_due(now);
        self.leave_due(now);
        let Some(schedule) = &self.schedule else {
            return;
        };
        let end = schedule.start().after_ms(self.plan.duration_ms);
        let is_over = schedule.poll_timeout().is_none() && now >= end;
        if is_over && let Some(world) = &mut self.world {
            world.set_answer(&self.plan);
        }
        if is_over || self.tally.logged_in == 0 {
            self.end_window(if is_over { end } else { now }, now);
        }
    }

    fn advance_draining(&mut self, now: Time, deadline: Time, quiet_since: Option<Time>) {
        // Who is away and has nothing to come back comes back to log out.
        let is_quiet = self.tally.outstanding == 0
            && self.pending == 0
            && self.are_views_right(now)
            && self.is_all_heard();
        let quiet_since = is_quiet.then(|| quiet_since.unwrap_or(now));
        let settle_ms = if self.world.is_some() && !self.is_finishing {
            walk::SETTLE_MS
        } else {
            SETTLE_MS
        };
        let is_settled = quiet_since.is_some_and(|since| now >= since.after_ms(settle_ms));
        if is_settled || now >= deadline {
            self.judge_views();
            self.judge_hearers();
        }
        if (is_settled || now >= deadline) && self.is_finishing {
            self.log_out(now);
        } else if is_settled || now >= deadline {
            self.phase = Phase::Drained;
            self.milestone = Some(Milestone::Drained);
        } else {
            self.phase = Phase::Draining {
                deadline,
                quiet_since,
            };
        }
    }

    /// Looks at the timers of the clients whose turn in the sweep it is.
    fn sweep(&mut self, now: Time) {
        let passed = now.us_since(self.swept_at).min(SWEEP_US);
        let share = self.slots.len() as u64 * passed / SWEEP_US;
        if share == 0 {
            return;
        }
        self.swept_at = now;
        for _ in 0..share {
            let index = self.sweep_position;
            self.sweep_position = (index + 1) % self.slots.len();
            self.look_at(index as u32, now);
        }
    }

    fn look_at(&mut self, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        match slot.stage {
            Stage::Waiting(until) if now >= until => {
                slot.stage = Stage::Queued;
                if let Some(storm) = &mut slot.storm {
                    storm.set_out(now);
                }
                self.queue.push_back(index);
            }
            Stage::Connecting(since) if now >= since.after_ms(CONNECT_TIMEOUT_MS) => {
                self.end(index, "connect_timeout", now);
            }
            Stage::LoggingIn | Stage::In | Stage::LoggingOut => {
                self.enter_map(index);
                self.enter_room(index);
                self.look_around(index);
                self.handle_client_timeout(index, now);
                self.take_part(index, now);
            }
            _ => {}
        }
    }

    fn handle_client_timeout(&mut self, index: u32, now: Time) {
        let client = self.slots[index as usize].client.as_ref();
        let timeout = client.and_then(|client| client.poll_timeout());
        if timeout.is_some_and(|at| now >= at) {
            self.with_client(index, now, |client, _, judge| {
                client.handle_timeout(now, &mut |event| judge.handle(event));
            });
            self.mark(index);
        } else {
            self.set_timer(index, now);
        }
    }

    /// To be called after all that moves a client's deadlines.
    fn set_timer(&mut self, index: u32, now: Time) {
        if self.plan.transport == Transport::Udp || self.plan.side_path {
            let client = self.slots[index as usize].client.as_ref();
            let timeout = client.and_then(|client| client.poll_timeout());
            // What comes later is the sweep's, or a heartbeat would leave an entry
            // behind with each acknowledgement.
            if let Some(at) = timeout.filter(|at| at.us_since(now) < SWEEP_US) {
                self.timers.set(index, at);
            }
        }
    }

    /// The next thing for the driver to do with a connection.
    pub fn poll_command(&mut self, now: Time) -> Option<Command> {
        if let Some(conn) = self.closes.pop() {
            return Some(Command::Close(conn));
        }
        while let Some(index) = self.dirty.pop_front() {
            self.slots[index as usize].is_dirty = false;
            if let Some(command) = self.transmit(index, now) {
                return Some(command);
            }
        }
        None
    }

    /// A command could not be done; its buffer is here.
    pub fn handle_refused(&mut self, conn: ConnId, buf: Vec<u8>) {
        // The connection is closing, which is reported, or the engine has lost
        // a promise; either way the client must not go on with a hole in its
        // wire sequence.
        self.shared.buffers.give(buf);
        self.closes.push(conn);
    }

    /// The next milestone, once.
    pub fn poll_milestone(&mut self) -> Option<Milestone> {
        self.milestone.take()
    }

    /// When `handle_turn` wants to be called, at the latest.
    pub fn poll_timeout(&self, now: Time) -> Time {
        let busy =
            !self.dirty.is_empty() || !self.closes.is_empty() || !self.without_side.is_empty();
        let can_connect = !self.queue.is_empty() && self.in_flight < IN_FLIGHT_FIRST;
        if busy || can_connect {
            return now;
        }
        let next = self.schedule.as_ref().and_then(Schedule::poll_timeout);
        let latest = now + SLEEP_US_MAX;
        let latest = self
            .timers
            .poll_timeout()
            .map_or(latest, |at| at.min(latest));
        match (self.phase, next) {
            (Phase::Running, Some(next)) => next.min(latest),
            _ => latest,
        }
    }
}

#[cfg(test)]
mod tests;
