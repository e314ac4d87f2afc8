//! A client's core: handshake, login, heartbeat, one reliable stream a group,
//! requests. It does no I/O; the async client, the load generator and the
//! simulator drive this same type.
//!
//! A connection that is lost leaves its session, and `resume` comes back to it
//! in a new one: the streams and what waits in them go on.
//!
//! Call order: `connect`; then, in a loop, `handle_received` for bytes that
//! arrived, `handle_timeout` when `poll_timeout` is due, the application's
//! calls (`request`, `send`, `logout`), and after any of these `poll_transmit`
//! for the bytes to send. After `Event::Closed`, if `can_resume`: `resume`, and
//! the same loop again. Time only moves forward.
//!
//! Over datagrams (`connect_datagrams`, `resume_datagrams`) the same calls mean one
//! datagram each. A session may go from one transport to another. A connection over a
//! stream can have a path of datagrams beside it (`offer_side_path`), with
//! `handle_side_received` and `poll_side_transmit`.
//!
//! Invariant: an event is given to the caller once, in the order of the wire.

mod bodies;
mod channels;
pub mod comeback;
mod datagrams;
mod side;
mod tickets;
mod wire;

use self::channels::Channels;
use self::datagrams::Setup;
use self::side::SidePath;
use self::tickets::Tickets;
pub use self::wire::compressed;
use self::wire::{Connection, StreamWire, Wire, seal_encoded};
use crate::body::{Body, ChannelHeader, Lane, Login, MessageHeader, MessageKind, QueuePosition};
use crate::buffers::Buffers;
use crate::check::{self, ClockOffset};
use crate::cipher::{Opener, RekeyPolicy, Sealer};
use crate::compress::Scratch;
use crate::frame::{self, FLAG_CHANNEL, Header};
use crate::handshake::{Initiator, Parameters};
use crate::ids::{ChannelId, GroupId, MessageId, SessionId};
use crate::limits::{FRAME_BYTES_MAX, GROUPS_MAX, PAYLOAD_BYTES_MAX};
use crate::quality::{Meter, Quality};
use crate::reason::CloseReason;
use crate::reassembly::Reassembly;
use crate::stream::{OutboxLimits, StreamEnd};
use crate::time::Time;

/// The credential of a LOGIN is a token.
pub const LOGIN_METHOD_TOKEN: u8 = 1;

/// Bytes that `poll_transmit` hands out at once, about: a replay of a whole
/// outbox leaves in pieces.
const TRANSMIT_BYTES: usize = 65_536;

/// Bytes that wait to be sent from which on no message of an unreliable lane is taken: no outbox
/// bounds those. Above `TRANSMIT_BYTES`, so that a replay does not keep them all out.
const UNSENT_BYTES_MAX: usize = 2 * TRANSMIT_BYTES;

/// What a client needs to log in.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The pinned public key of the gateway.
    pub gateway_key: [u8; 32],
    /// Proves the account, once.
    pub token: String,
    /// Version of the game client.
    pub client_version: u32,
    /// Distribution channel.
    pub channel: String,
    /// Device.
    pub device: String,
    /// Bounds of the outbox of each group.
    pub outbox: OutboxLimits,
    /// When this client changes its key.
    pub rekey: RekeyPolicy,
    /// Payloads from this size on are compressed where that shrinks them.
    pub compress_bytes_min: usize,
}

/// Memory that many clients on one thread share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Buffers for frames in pieces.
    pub buffers: Buffers,
    /// For compression.
    pub scratch: Scratch,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Logged in.
    LoggedIn(SessionId),
    /// Login is good, and others come before: where this client waits now. `LoggedIn` follows by
    /// itself.
    Queued(QueuePosition),
    /// Back in its session, in a new connection.
    Resumed(SessionId),
    /// The session has ended without LOGOUT, or nothing leads back to it: what
    /// waits in the outboxes is lost. `Closed` follows.
    SessionLost(CloseReason),
    /// Reliable messages of this group flow (again).
    GroupUp(GroupId),
    /// The group's backend is away; messages wait in the outbox.
    GroupDown(GroupId),
    /// A message of the game, decompressed.
    Message(MessageHeader, &'a [u8]),
    /// The client is a member of a channel, from now on.
    ChannelJoined(GroupId, ChannelId),
    /// It is no member any more.
    ChannelLeft(GroupId, ChannelId),
    /// A message to the members of a channel, decompressed.
    ChannelMessage(ChannelHeader, &'a [u8]),
    /// So many reliable messages of a channel were missed for good: the client was away for
    /// longer than its publisher keeps them.
    ChannelLost(GroupId, ChannelId, u32),
    /// A PONG came back after this many microseconds; `quality` is current.
    RoundTrip(u32),
    /// The connection is over; nothing follows, unless the session is resumed.
    Closed(Closed),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The gateway said why (a code that this client does not know is `None`).
    ByGateway(Option<CloseReason>),
    /// This client closed: a check failed, a deadline passed, or it was asked to.
    ByClient(CloseReason),
}

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is over and cannot be resumed.
    #[error("the connection is closed")]
    Closed,
    /// Not logged in yet, or, on an unreliable lane, the group is down.
    #[error("the group is not up")]
    NotUp,
    /// The outbox of the group is full.
    #[error("the outbox of the group is full")]
    OutboxFull,
    /// On an unreliable lane: the connection or the group's backend takes less than is sent.
    #[error("what was sent before waits to leave")]
    Busy,
    /// Above `PAYLOAD_BYTES_MAX`.
    #[error("the payload is larger than a frame holds")]
    TooLarge,
    /// More than `GROUPS_MAX` groups.
    #[error("too many groups")]
    TooManyGroups,
}

#[derive(Debug)]
enum State {
    /// HELLO is out.
    Hello(Initiator),
    /// Keys stand; LOGIN or ATTACH is out.
    Login(Connection),
    /// In a session.
    Up(Connection),
    Closed,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: State,
    reassembly: Reassembly,
    streams: Vec<StreamEnd>,
    /// Bytes to send that are not messages of a reliable stream.
    out: Vec<u8>,
    started_at: Time,
    heard_at: Time,
    /// When the next PING is due.
    ping_at: Time,
    next_request: u32,
    session: SessionId,
    tickets: Tickets,
    /// What the gateway asked for when it closed.
    retry_after_ms: u32,
    /// It waits to be let in, and may for hours.
    is_queued: bool,
    /// What the gateway said when it closed.
    close_text: Box<str>,
    /// How the connection was set up, where it is one of datagrams.
    setup: Option<Box<Setup>>,
    side: SidePath,
    channels: Channels,
}

/// How long, ms, a client waits for WELCOME and LOGIN_OK when the gateway has
/// not told its own deadline. Above the gateway's default of 10 s.
const LOGIN_TIMEOUT_MS: u64 = 15_000;

impl Client {
    /// Begins a connection: the HELLO waits in `poll_transmit`. `ephemeral`
    /// must be fresh and secret.
    ///
    /// # Errors
    /// `BadHandshake` if the pinned key is unusable.
    pub fn connect(
        config: ClientConfig,
        ephemeral: [u8; 32],
        now: Time,
    ) -> Result<Self, CloseReason> {
        let mut out = Vec::new();
        let initiator = Initiator::hello(&config.gateway_key, ephemeral, now.wire_ms(), &mut out)?;
        Ok(Self {
            config,
            state: State::Hello(initiator),
            reassembly: Reassembly::default(),
            streams: Vec::new(),
            out,
            started_at: now,
            heard_at: now,
            ping_at: now,
            next_request: 1,
            session: SessionId(0),
            tickets: Tickets::default(),
            retry_after_ms: 0,
            is_queued: false,
            close_text: Box::default(),
            setup: None,
            side: SidePath::default(),
            channels: Channels::default(),
        })
    }

    /// Begins a connection that comes back to the session, when the last one is
    /// over: RESUME waits in `poll_transmit`. Any gateway of the cluster will do,
    /// whatever carried the last connection. `ephemeral` must be fresh and secret.
    ///
    /// # Errors
    /// `TicketUnknown` if there is nothing to come back to (`can_resume`).
    pub fn resume(&mut self, ephemeral: [u8; 32], now: Time) -> Result<(), CloseReason> {
        let ticket = self.tickets.next().filter(|_| self.can_resume());
        let ticket = ticket.ok_or(CloseReason::TicketUnknown)?;
        self.setup = None;
        self.reassembly = Reassembly::default();
        let initiator = Initiator::resume(ticket, ephemeral, now.wire_ms(), &mut self.out)?;
        self.state = State::Hello(initiator);
        self.started_at = now;
        self.heard_at = now;
        self.retry_after_ms = 0;
        self.is_queued = false;
        self.close_text = Box::default();
        Ok(())
    }

    /// Whether the connection is over and the session perhaps not.
    pub fn can_resume(&self) -> bool {
        self.is_closed() && self.session != SessionId(0) && self.tickets.next().is_some()
    }

    /// The session, once logged in.
    pub fn session(&self) -> Option<SessionId> {
        matches!(self.state, State::Up(_)).then_some(self.session)
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// How long, ms, the gateway that closed the connection wants this client to wait before the
    /// next one; 0 if it said nothing of it.
    pub fn retry_after_ms(&self) -> u32 {
        self.retry_after_ms
    }

    /// What the gateway said to people when it closed the connection: after `UpgradeRequired`,
    /// where another version is. Empty before, and over a handshake that was refused.
    pub fn close_text(&self) -> &str {
        &self.close_text
    }

    /// What the gateway told in WELCOME.
    pub fn parameters(&self) -> Option<&Parameters> {
        match &self.state {
            State::Login(connection) | State::Up(connection) => Some(&connection.parameters),
            State::Hello(_) | State::Closed => None,
        }
    }

    /// How good the connection is, once a PING was answered: the first one leaves after
    /// login, one more with each heartbeat.
    pub fn quality(&self) -> Option<Quality> {
        match &self.state {
            State::Up(connection) => Some(connection.quality()),
            _ => None,
        }
    }

    /// Messages in all outboxes.
    pub fn outbox_messages(&self) -> usize {
        self.streams.iter().map(StreamEnd::outbox_messages).sum()
    }

    /// Whether reliable messages of this group flow.
    pub fn is_group_up(&self, group: GroupId) -> bool {
        self.streams
            .iter()
            .any(|stream| stream.group() == group && stream.is_open())
    }

    /// Sends a request on the reliable lane; replies carry the id returned.
    ///
    /// # Errors
    /// `SendError`; nothing was taken.
    pub fn request(
        &mut self,
        group: GroupId,
        message: MessageId,
        payload: &[u8],
    ) -> Result<u32, SendError> {
        let request = self.next_request;
        self.push(MessageKind::Request, group, message, request, payload)?;
        self.next_request = self.next_request.wrapping_add(1).max(1);
        Ok(request)
    }

    /// Sends a one-way message.
    ///
    /// # Errors
    /// `SendError`; nothing was taken. On the unreliable lanes also `NotUp`
    /// while the group is down, since nothing would keep the message, and `Busy`.
    pub fn send(
        &mut self,
        now: Time,
        lane: Lane,
        group: GroupId,
        message: MessageId,
        payload: &[u8],
        shared: &mut Shared,
    ) -> Result<(), SendError> {
        if lane == Lane::Reliable {
            return self.push(MessageKind::Message, group, message, 0, payload);
        }
        self.check_payload(payload)?;
        let index = self.stream(group)?;
        let (State::Up(connection), Some(stream)) = (&mut self.state, self.streams.get_mut(index))
        else {
            return Err(SendError::NotUp);
        };
        if !stream.is_open() {
            return Err(SendError::NotUp);
        }
        if connection.waiting_bytes(self.out.len()) >= UNSENT_BYTES_MAX || !stream.has_credit() {
            return Err(SendError::Busy);
        }
        // Until SYNC is there the backend has no way to answer.
        if let Some(sync) = stream.poll_sync() {
            connection.seal(now, 0, &mut self.out, |out| Body::Sync(sync).encode(out));
        }
        let number = if lane == Lane::Sequenced {
            stream.next_sequenced()
        } else {
            0
        };
        let ack = stream.take_ack();
        let header = MessageHeader {
            kind: MessageKind::Message,
            lane,
            more: false,
            group,
            number,
            ack,
            message,
            request: 0,
        };
        let bytes_min = self.config.compress_bytes_min;
        let (flags, payload) = compressed(payload, bytes_min, &mut shared.scratch);
        let body = Body::Message { header, payload };
        if self.side.push(now, flags, &body) {
            return Ok(());
        }
        connection.seal(now, flags, &mut self.out, |out| body.encode(out));
        Ok(())
    }

    /// Ends the session; CLOSE from the gateway follows.
    pub fn logout(&mut self, now: Time) {
        if let State::Login(connection) | State::Up(connection) = &mut self.state {
            connection.seal(now, 0, &mut self.out, |out| Body::Logout.encode(out));
        }
    }

    fn push(
        &mut self,
        kind: MessageKind,
        group: GroupId,
        message: MessageId,
        request: u32,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.check_payload(payload)?;
        let index = self.stream(group)?;
        let header = MessageHeader {
            kind,
            lane: Lane::Reliable,
            more: false,
            group,
            number: 0,
            ack: 0,
            message,
            request,
        };
        self.streams[index]
            .push(header, payload, self.config.outbox)
            .map_err(|_| SendError::OutboxFull)?;
        Ok(())
    }

    fn check_payload(&self, payload: &[u8]) -> Result<(), SendError> {
        if self.is_closed() && !self.can_resume() {
            return Err(SendError::Closed);
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            Err(SendError::TooLarge)
        } else {
            Ok(())
        }
    }

    fn stream(&mut self, group: GroupId) -> Result<usize, SendError> {
        if let Some(index) = self
            .streams
            .iter()
            .position(|stream| stream.group() == group)
        {
            return Ok(index);
        }
        if self.streams.len() >= GROUPS_MAX {
            return Err(SendError::TooManyGroups);
        }
        self.streams.push(StreamEnd::client(group));
        Ok(self.streams.len() - 1)
    }

    /// Bytes arrived, or one datagram; they are opened in place.
    pub fn handle_received(
        &mut self,
        now: Time,
        mut data: &mut [u8],
        shared: &mut Shared,
        events: &mut impl FnMut(Event<'_>),
    ) {
        if self.setup.is_some() {
            return self.handle_datagram(now, data, shared, events);
        }
        let mut reassembly = std::mem::take(&mut self.reassembly);
        while !self.is_closed() {
            match reassembly.next(&mut data, FRAME_BYTES_MAX, &mut shared.buffers) {
                Ok(Some(frame)) => {
                    self.heard_at = now;
                    if let Err(closed) = self.handle_frame(now, frame, &mut shared.scratch, events)
                    {
                        self.close(closed, events);
                    }
                }
                Ok(None) => break,
                Err(_) => self.close(Closed::ByClient(CloseReason::BadLength), events),
            }
        }
        self.reassembly = reassembly;
        if self.is_closed() {
            self.reassembly.release(&mut shared.buffers);
        }
    }

    /// The transport is gone.
    pub fn handle_disconnected(&mut self, events: &mut impl FnMut(Event<'_>)) {
        if !self.is_closed() {
            self.close(Closed::ByClient(CloseReason::PeerClosed), events);
        }
    }

    fn close(&mut self, closed: Closed, events: &mut impl FnMut(Event<'_>)) {
        self.state = State::Closed;
        // What was not sent is sealed under keys that are over.
        self.out = Vec::new();
        self.side.close();
        self.channels.close();
        for stream in &mut self.streams {
            stream.detach();
        }
        let (Closed::ByGateway(Some(reason)) | Closed::ByClient(reason)) = closed else {
            // A reason of a later version; whether the session lives shows.
            return events(Event::Closed(closed));
        };
        let had_session = self.can_resume();
        if reason == CloseReason::TicketUnknown {
            self.tickets.refuse();
        } else if !reason.leaves_session() {
            self.tickets = Tickets::default();
        }
        if had_session && !self.can_resume() && reason != CloseReason::LoggedOut {
            events(Event::SessionLost(reason));
        }
        events(Event::Closed(closed));
    }

    fn handle_frame(
        &mut self,
        now: Time,
        frame: &mut [u8],
        scratch: &mut Scratch,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        if let (Some(header), State::Up(_)) = (Header::decode(frame), &self.state)
            && header.flags & FLAG_CHANNEL != 0
        {
            if frame::crc(frame) != header.crc {
                return Err(Closed::ByClient(CloseReason::BadCrc));
            }
            return self.handle_channel_frame(&header, frame, scratch, events);
        }
        let state = std::mem::replace(&mut self.state, State::Closed);
        match state {
            State::Hello(initiator) => {
                let peer_ms = Header::decode(frame).map_or(0, |header| header.timestamp_ms);
                let (keys, parameters) = initiator.welcome(frame).map_err(Closed::ByClient)?;
                self.tickets.renew(keys.ticket());
                let wire = Wire::Stream(StreamWire {
                    sealer: Sealer::new(keys.client, now, self.config.rekey),
                    opener: Opener::new(keys.gateway),
                    clock: ClockOffset::new(peer_ms, now),
                });
                self.log_in(now, wire, parameters);
                Ok(())
            }
            State::Login(_) | State::Up(_) => {
                let mut state = state;
                let (State::Login(connection) | State::Up(connection)) = &mut state else {
                    return Ok(());
                };
                let Wire::Stream(wire) = &mut connection.wire else {
                    return Ok(());
                };
                let opened = check::open(frame, &mut wire.opener, &mut wire.clock, now)
                    .map_err(Closed::ByClient)?;
                self.state = state;
                let body = Body::decode(opened.body);
                let (flags, age) = (opened.flags, opened.age);
                self.handle_body(now, flags, age, body, scratch, events)
            }
            State::Closed => Ok(()),
        }
    }

    /// The keys stand: LOGIN or ATTACH is the first to use them.
    fn log_in(&mut self, now: Time, wire: Wire, parameters: Parameters) {
        let mut connection = Connection {
            wire,
            parameters,
            meter: Meter::default(),
        };
        let login = Login {
            method: LOGIN_METHOD_TOKEN,
            client_version: self.config.client_version,
            channel: &self.config.channel,
            device: &self.config.device,
            credential: self.config.token.as_bytes(),
        };
        if self.session == SessionId(0) {
            connection.seal(now, 0, &mut self.out, |out| Body::Login(login).encode(out));
        } else {
            connection.seal(now, 0, &mut self.out, |out| Body::Attach.encode(out));
            // Here it costs neither end a system call of its own.
            connection.ping(now, &mut self.out);
            self.ping_at = now.after_ms(u64::from(parameters.heartbeat_interval_ms));
        }
        self.state = State::Login(connection);
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let deadline = self.session_timeout()?;
        let datagrams = [self.datagram_timeout(), self.side.poll_timeout()];
        Some(datagrams.into_iter().flatten().fold(deadline, Time::min))
    }

    fn session_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Closed => None,
            State::Login(connection) if self.is_queued => {
                let idle_ms = connection.parameters.idle_timeout_ms;
                Some(self.ping_at.min(self.heard_at.after_ms(u64::from(idle_ms))))
            }
            State::Hello(_) | State::Login(_) => Some(self.login_deadline()),
            State::Up(connection) => {
                let parameters = &connection.parameters;
                let idle = self
                    .heard_at
                    .after_ms(u64::from(parameters.idle_timeout_ms));
                let acks = self.streams.iter().filter_map(StreamEnd::ack_deadline);
                Some(acks.fold(idle.min(self.ping_at), Time::min))
            }
        }
    }

    fn login_deadline(&self) -> Time {
        self.started_at.after_ms(LOGIN_TIMEOUT_MS)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time, events: &mut impl FnMut(Event<'_>)) {
        let login_deadline = self.login_deadline();
        self.handle_datagram_timeout(now);
        let is_queued = self.is_queued;
        match &mut self.state {
            State::Closed => {}
            State::Hello(_) | State::Login(_) if !is_queued => {
                if now >= login_deadline {
                    self.close(Closed::ByClient(CloseReason::LoginTimeout), events);
                }
            }
            State::Hello(_) => {}
            State::Login(connection) | State::Up(connection) => {
                let parameters = connection.parameters;
                if now
                    >= self
                        .heard_at
                        .after_ms(u64::from(parameters.idle_timeout_ms))
                {
                    self.close(Closed::ByClient(CloseReason::IdleTimeout), events);
                } else if now >= self.ping_at {
                    // Also where enough else was sent for a sign of life: it measures.
                    connection.ping(now, &mut self.out);
                    self.ping_at = now.after_ms(u64::from(parameters.heartbeat_interval_ms));
                }
            }
        }
    }

    /// Appends bytes to send to `out`; `false` when there are none. About
    /// `TRANSMIT_BYTES` a call; call again once they are under way. Of datagrams, one a
    /// call; call again at once.
    pub fn poll_transmit(&mut self, now: Time, shared: &mut Shared, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        if self.setup.is_some() {
            self.transmit_streams(now, shared, out);
            self.transmit_datagram(now, out);
        } else {
            self.transmit_stream(now, shared, out);
        }
        out.len() > before
    }

    fn transmit_stream(&mut self, now: Time, shared: &mut Shared, out: &mut Vec<u8>) {
        out.append(&mut self.out);
        if self.out.capacity() > 1_024 {
            self.out = Vec::new();
        }
        self.transmit_streams(now, shared, out);
    }

    fn transmit_streams(&mut self, now: Time, shared: &mut Shared, out: &mut Vec<u8>) {
        let before = out.len();
        if let State::Up(connection) = &mut self.state {
            for stream in &mut self.streams {
                if let Some(sync) = stream.poll_sync() {
                    connection.seal(now, 0, out, |out| Body::Sync(sync).encode(out));
                }
                while connection.waiting_bytes(out.len() - before) < TRANSMIT_BYTES
                    && let Some(message) = stream.poll_transmit()
                {
                    seal_encoded(
                        connection,
                        now,
                        message,
                        self.config.compress_bytes_min,
                        &mut shared.scratch,
                        out,
                    );
                }
                if let Some(ack) = stream.poll_ack(now) {
                    let group = stream.group();
                    connection.seal(now, 0, out, |out| Body::Ack { group, ack }.encode(out));
                }
            }
        }
        self.transmit_catch_ups(now, out);
    }
}

#[cfg(test)]
mod tests;
