//! What a client's handle and its task share: the core, what waits for the game, and which
//! requests wait for replies. Reads no clock and opens no socket.
//!
//! Call order: `begin`, with `offer_side_path` behind it; `handle_received`, `handle_timeout`,
//! `handle_disconnected`, `poll_transmit` and those of the side path as the core's; once `has_ended`, `handle_end`, and after the wait that it gives
//! `begin` again.
//!
//! Bounds: `EVENTS_MAX` and `EVENTS_BYTES_MAX`, beyond which nothing is to be read (what one read
//! brings comes on top), `REQUESTS_MAX`, and the core's outboxes.
//!
//! Invariant: once it is over nothing but what waits in `events` comes out of it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::cipher::RekeyPolicy;
use protocol::client::comeback::{Comeback, Next};
use protocol::client::{
    Client as Core, ClientConfig, Closed, Event as CoreEvent, SendError, Shared,
};
use protocol::ids::{GroupId, MessageId, SessionId};
use protocol::quality::Quality;
use protocol::stream::OutboxLimits;
use protocol::time::Time;
use tokio::sync::oneshot;

use crate::{ChannelMessage, Config, Error, Event, Message, Transport};

/// Events that wait for the game before the client stops reading.
pub const EVENTS_MAX: usize = 1_024;

/// Bytes of their payloads, likewise: as much as a few of the largest messages.
pub const EVENTS_BYTES_MAX: usize = 1 << 20;

/// Requests that wait for their replies: as many as an outbox holds.
pub const REQUESTS_MAX: usize = protocol::limits::OUTBOX_MESSAGES_MAX;

/// Payloads from so many bytes on are compressed where that shrinks them; below, LZ4 finds
/// nothing to shorten.
const COMPRESS_BYTES_MIN: usize = 256;

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not in yet, for the first time.
    Arriving,
    /// The same, in the queue.
    Waiting,
    /// In a session.
    In,
    /// Without a connection.
    Away,
    Over,
}

/// What the game gets in answer to a request.
pub(crate) type Outcome = Result<Vec<u8>, Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logout {
    No,
    Wanted,
    Sent,
}

/// See the module.
pub(crate) struct State {
    config: Config,
    core: Option<Core>,
    shared: Shared,
    logout: Logout,
    over: Option<Error>,
    seen: Seen,
}

/// What the core's events change.
struct Seen {
    phase: Phase,
    session: Option<SessionId>,
    comeback: Comeback,
    /// How the connection ended.
    closed: Option<Closed>,
    events: VecDeque<Event>,
    events_bytes: usize,
    requests: HashMap<u32, oneshot::Sender<Outcome>>,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            core: None,
            shared: Shared::default(),
            logout: Logout::No,
            over: None,
            seen: Seen {
                phase: Phase::Arriving,
                session: None,
                comeback: Comeback::new(config.attempts_max),
                closed: None,
                events: VecDeque::new(),
                events_bytes: 0,
                requests: HashMap::new(),
            },
            config,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.seen.phase
    }

    /// The session, where there is one, with or without a connection.
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.seen.session
    }

    pub(crate) fn quality(&self) -> Option<Quality> {
        self.core.as_ref().and_then(Core::quality)
    }

    pub(crate) fn over(&self) -> Option<&Error> {
        self.over.as_ref()
    }

    /// Whether the next connection logs in, for which it needs a token.
    pub(crate) fn needs_token(&self) -> bool {
        !self.core.as_ref().is_some_and(Core::can_resume)
    }

    /// Where to connect next.
    pub(crate) fn gateway(&self) -> &str {
        let count = self.config.gateways.len();
        &self.config.gateways[self.seen.comeback.address(count)]
    }

    /// A connection stands: resumes, or logs in with this token. What is wrong is in `handle_end`.
    pub(crate) fn begin(&mut self, now: Time, token: Option<String>, ephemeral: [u8; 32]) {
        if self.over.is_some() {
            return;
        }
        let begun = match (&mut self.core, token) {
            (Some(core), None) => match self.config.transport {
                Transport::Udp => core.resume_datagrams(ephemeral, now),
                Transport::Tcp | Transport::WebSocket => core.resume(ephemeral, now),
            },
            (_, token) => {
                let config = self.core_config(token.unwrap_or_default());
                let core = match self.config.transport {
                    Transport::Udp => Core::connect_datagrams(config, ephemeral, now),
                    Transport::Tcp | Transport::WebSocket => Core::connect(config, ephemeral, now),
                };
                core.map(|core| self.core = Some(core))
            }
        };
        self.seen.closed = begun.err().map(Closed::ByClient);
    }

    /// Whether datagrams are to go beside the connection.
    pub(crate) fn wants_side_path(&self) -> bool {
        self.config.side_path && self.config.transport != Transport::Udp
    }

    /// The connection that has just begun has a socket for datagrams beside it.
    pub(crate) fn offer_side_path(&mut self) {
        if let Some(core) = &mut self.core {
            core.offer_side_path();
        }
    }

    pub(crate) fn is_side_path_up(&self, now: Time) -> bool {
        let core = self.core.as_ref();
        core.is_some_and(|core| core.is_side_path_up(now))
    }

    fn core_config(&self, token: String) -> ClientConfig {
        ClientConfig {
            gateway_key: self.config.gateway_key,
            token,
            client_version: self.config.client_version,
            channel: self.config.channel.clone(),
            device: self.config.device.clone(),
            outbox: OutboxLimits::default(),
            rekey: RekeyPolicy::default(),
            compress_bytes_min: COMPRESS_BYTES_MIN,
        }
    }

    pub(crate) fn handle_received(&mut self, now: Time, data: &mut [u8]) {
        let Self {
            core, shared, seen, ..
        } = self;
        if let Some(core) = core {
            core.handle_received(now, data, shared, &mut |event| seen.handle(now, event));
        }
    }

    /// One datagram arrived beside the connection.
    pub(crate) fn handle_side_received(&mut self, now: Time, data: &mut [u8]) {
        let Self {
            core, shared, seen, ..
        } = self;
        if let Some(core) = core {
            core.handle_side_received(now, data, shared, &mut |event| seen.handle(now, event));
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        if let Some(core) = &mut self.core {
            let seen = &mut self.seen;
            core.handle_timeout(now, &mut |event| seen.handle(now, event));
        }
    }

    /// The transport is gone.
    pub(crate) fn handle_disconnected(&mut self, now: Time) {
        if let Some(core) = &mut self.core {
            let seen = &mut self.seen;
            core.handle_disconnected(&mut |event| seen.handle(now, event));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.core.as_ref().and_then(Core::poll_timeout)
    }

    /// As the core's. LOGOUT leaves behind everything else.
    pub(crate) fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) {
        let Some(core) = &mut self.core else {
            return;
        };
        if !core.poll_transmit(now, &mut self.shared, out) && self.logout == Logout::Wanted {
            self.logout = Logout::Sent;
            core.logout(now);
            core.poll_transmit(now, &mut self.shared, out);
        }
    }

    /// The next datagram to go beside the connection; whether there is one.
    pub(crate) fn poll_side_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        let core = self.core.as_mut();
        core.is_some_and(|core| core.poll_side_transmit(now, out))
    }

    /// Whether the connection has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.seen.closed.is_some() || self.over.is_some()
    }

    /// The connection has ended, or (`failure`) something else stood in the way. How long to wait
    /// before the next; `None` when it is over.
    pub(crate) fn handle_end(
        &mut self,
        now: Time,
        failure: Option<Error>,
        random: u64,
    ) -> Option<Duration> {
        if self.over.is_some() {
            return None;
        }
        let closed = self.seen.closed.take();
        let retry_after_ms = match (&self.core, closed) {
            (Some(core), Some(_)) => core.retry_after_ms(),
            _ => 0,
        };
        let why = failure.or(closed.map(Error::of));
        let why = why.unwrap_or(Error::SessionLost);
        match self
            .seen
            .comeback
            .handle_end(now, closed, retry_after_ms, random)
        {
            Next::Final => self.end(why),
            Next::GaveUp { attempts } => self.end(Error::GaveUp {
                attempts,
                last: Box::new(why),
            }),
            Next::Again { .. } if self.logout != Logout::No => self.end(Error::LeftAlone),
            Next::Again { attempt, wait_ms } => {
                let wait = Duration::from_millis(wait_ms);
                // Until the first login there is nobody to tell.
                if self.seen.phase != Phase::Arriving {
                    if self.seen.phase != Phase::Waiting {
                        self.seen.phase = Phase::Away;
                    }
                    self.seen.push(Event::Reconnecting { attempt, wait, why });
                }
                return Some(wait);
            }
        }
        None
    }

    /// Nothing follows.
    pub(crate) fn end(&mut self, why: Error) {
        if self.over.is_none() {
            self.seen.phase = Phase::Over;
            self.seen.lose_session();
            self.seen.push(Event::Closed(why.clone()));
            self.over = Some(why);
            self.core = None;
        }
    }

    pub(crate) fn log_out(&mut self) {
        if self.seen.phase == Phase::In {
            self.logout = Logout::Wanted;
        } else {
            self.end(Error::LeftAlone);
        }
    }

    pub(crate) fn send(
        &mut self,
        now: Time,
        group: GroupId,
        lane: Lane,
        id: MessageId,
        payload: &[u8],
    ) -> Result<(), Error> {
        let Self { core, shared, .. } = self;
        // What is taken while a login is under way would be lost where that is refused.
        let core = core.as_mut().filter(|_| self.seen.session.is_some());
        let core = core.ok_or(SendError::Closed)?;
        Ok(core.send(now, lane, group, id, payload, shared)?)
    }

    /// Sends a request; its id, and where the answer will be.
    pub(crate) fn request(
        &mut self,
        group: GroupId,
        id: MessageId,
        payload: &[u8],
    ) -> Result<(u32, oneshot::Receiver<Outcome>), Error> {
        let core = self.core.as_mut().filter(|_| self.seen.session.is_some());
        let core = core.ok_or(SendError::Closed)?;
        if self.seen.requests.len() >= REQUESTS_MAX {
            return Err(Error::TooManyRequests);
        }
        let request = core.request(group, id, payload)?;
        let (to_app, outcome) = oneshot::channel();
        self.seen.requests.insert(request, to_app);
        Ok((request, outcome))
    }

    /// Forgets a request, if nobody waits for it any more: of the next session, another one
    /// may have its id.
    pub(crate) fn forget(&mut self, request: u32) {
        let waits = self.seen.requests.get(&request);
        if waits.is_some_and(oneshot::Sender::is_closed) {
            self.seen.requests.remove(&request);
        }
    }

    /// The next event for the game.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.seen.events.pop_front()?;
        self.seen.events_bytes -= payload_bytes(&event);
        Some(event)
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.seen.events.is_empty()
    }

    /// Whether more may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.seen.events.len() < EVENTS_MAX && self.seen.events_bytes < EVENTS_BYTES_MAX
    }
}

impl Seen {
    fn handle(&mut self, now: Time, event: CoreEvent<'_>) {
        match event {
            CoreEvent::LoggedIn(session) => {
                match self.phase {
                    Phase::Arriving => {}
                    Phase::Waiting => self.push(Event::LoggedIn(session)),
                    _ => self.push(Event::NewSession(session)),
                }
                self.enter(now, session);
            }
            CoreEvent::Resumed(session) => {
                self.push(Event::Resumed(session));
                self.enter(now, session);
            }
            CoreEvent::SessionLost(_) => self.lose_session(),
            CoreEvent::GroupUp(group) => self.push(Event::GroupUp(group)),
            CoreEvent::GroupDown(group) => self.push(Event::GroupDown(group)),
            CoreEvent::Message(header, payload) => self.message(&header, payload),
            CoreEvent::ChannelJoined(group, channel) => {
                self.push(Event::ChannelJoined(group, channel));
            }
            CoreEvent::ChannelLeft(group, channel) => {
                self.push(Event::ChannelLeft(group, channel));
            }
            CoreEvent::ChannelLost(group, channel, count) => {
                self.push(Event::ChannelLost(group, channel, count));
            }
            CoreEvent::ChannelMessage(header, payload) => {
                self.push(Event::ChannelMessage(ChannelMessage {
                    group: header.group,
                    channel: header.channel,
                    lane: header.lane,
                    number: header.number,
                    id: header.message,
                    payload: payload.to_vec(),
                }));
            }
            CoreEvent::Queued(position) => {
                if self.phase == Phase::Arriving {
                    self.phase = Phase::Waiting;
                }
                // A newer position makes the last one worthless, so they do not pile up.
                match self.events.back_mut() {
                    Some(Event::Queued(last)) => *last = position,
                    _ => self.push(Event::Queued(position)),
                }
            }
            CoreEvent::RoundTrip(_) => {}
            CoreEvent::Closed(closed) => self.closed = Some(closed),
        }
    }

    fn enter(&mut self, now: Time, session: SessionId) {
        self.comeback.handle_in(now);
        self.session = Some(session);
        self.phase = Phase::In;
    }

    fn lose_session(&mut self) {
        self.session = None;
        for (_, to_app) in self.requests.drain() {
            let _ = to_app.send(Err(Error::SessionLost));
        }
    }

    fn message(&mut self, header: &MessageHeader, payload: &[u8]) {
        let outcome = match header.kind {
            MessageKind::Reply if !header.more => Ok(payload.to_vec()),
            MessageKind::Error => Err(refusal(payload)),
            MessageKind::Message | MessageKind::Request | MessageKind::Reply => {
                let request = header.kind == MessageKind::Reply;
                return self.push(Event::Message(Message {
                    group: header.group,
                    lane: header.lane,
                    id: header.message,
                    request: request.then_some(header.request),
                    payload: payload.to_vec(),
                }));
            }
        };
        // Nobody waits for what comes after its time, or a second time from a backend that
        // began anew.
        if let Some(to_app) = self.requests.remove(&header.request) {
            let _ = to_app.send(outcome);
        }
    }

    fn push(&mut self, event: Event) {
        self.events_bytes += payload_bytes(&event);
        self.events.push_back(event);
    }
}

fn payload_bytes(event: &Event) -> usize {
    match event {
        Event::Message(message) => message.payload.len(),
        Event::ChannelMessage(message) => message.payload.len(),
        _ => 0,
    }
}

/// The payload of an ERROR.
fn refusal(payload: &[u8]) -> Error {
    let (code, text) = payload.split_first_chunk().unwrap_or((&[0; 2], &[]));
    Error::Refused {
        code: u16::from_le_bytes(*code),
        text: String::from_utf8_lossy(text).into_owned(),
    }
}
