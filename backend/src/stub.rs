//! The backend stub's core: what stands between the uplinks of a game process and its game.
//!
//! Owns the sessions that are here, the backend's end of each one's reliable streams, what goes
//! out over which link, and the memory of sessions that ended here without the gateway's word.
//! It does not know what a message means ([`Game`] does), and has no link and no clock.
//!
//! # Call order
//! [`Stub::handle_link_up`], then [`Stub::handle_control`] and [`Stub::handle_records`], then
//! once [`Stub::handle_link_down`]; an error means: close that link and call `handle_link_down`.
//! After every `handle_*`: [`Stub::poll_send`] until `None`, [`Stub::take_records`], and
//! [`Stub::poll_timeout`] for when [`Stub::handle_timeout`] is due. Time only moves forward.
//!
//! # Links and sessions
//! OPEN attaches a session to a link; the same OPEN again, over this or another link, attaches
//! it anew and both ends of its stream agree where to go on (SYNC). While its client
//! is away nothing is sent for it: what is reliable waits in its outbox. A session whose link is
//! lost, or whose shard says that it is gone from there, waits for that, and ends when it has
//! waited too long. It then stays ended: messages for
//! it were lost, and a session that lost reliable messages must not go on as if it had not.
//!
//! # Invariants
//! One session of an account, that with the highest fence. A game hears of a session's coming
//! and going once each. What a session can make this process keep is bounded by its outbox.

mod api;
mod channels;
mod core;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use protocol::body::{BadBody, Body, ChannelNotice, Lane, MessageHeader, MessageKind};
use protocol::channel::NOTICE;
use protocol::control::{BackendHello, ShardHello, ToBackend, ToShard, to_backend, to_shard};
use protocol::ids::{Fence, GroupId, SessionId};
use protocol::reason::{CloseReason, DropReason};
use protocol::stream::{Delivery, OutboxLimits, StreamEnd};
use protocol::time::{Now, Time};
use protocol::uplink::{self, Open, Record};
use rustc_hash::FxHashMap;

use self::core::{Core, LinkOut, Timer};
pub use api::{
    ChannelError, Context, Departure, EVERYBODY, EchoGame, Filter, Game, GameCounts, Message,
    Player, Request, SendError,
};
pub use channels::{CHANNELS_MAX, TAIL_BYTES_MAX, TAIL_MESSAGES_MAX};

use crate::link::{LinkFault, LinkId, check_hello};

/// Sessions of a game process unless configured: what one core can serve, several times over.
pub const SESSIONS_MAX_DEFAULT: usize = 250_000;

/// How long a session waits for its gateway's link, ms, unless configured: when the gateway is
/// lost, center keeps the session for the lease and then for the resume time, 15 s and 60 s
/// unless configured, and its client may come back through another gateway until then.
pub const LINK_GRACE_MS_DEFAULT: u64 = 90_000;

/// Sessions remembered that ended here while their gateway could not hear of it: 24 bytes each.
/// Past it the oldest is forgotten, and would start anew if its gateway still had it.
const ENDED_MAX: usize = 100_000;

/// Accounts remembered that were here and have gone, by their fence: about 100 bytes each.
/// What comes of an earlier session over a link that was held up comes within seconds.
const DEPARTED_MAX: usize = 65_536;

/// What a stub is told at its start.
#[derive(Debug, Clone)]
pub struct StubSettings {
    /// Name told to the shards.
    pub instance: String,
    /// Drawn anew by each start of the process.
    pub boot: u64,
    /// The group that it serves; not 0.
    pub group: GroupId,
    /// Whether the game wants to know where clients are.
    pub wants_address: bool,
    /// Sessions at a time.
    pub sessions_max: usize,
    /// What a session's outbox holds.
    pub outbox: OutboxLimits,
    /// How long a session waits for its gateway's link, ms.
    pub link_grace_ms: u64,
}

/// What has happened since the start, and how things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubCounts {
    /// Sessions now.
    pub sessions: u64,
    /// Of these, without a link.
    pub detached: u64,
    /// Sessions that came.
    pub connected: u64,
    /// Sessions that ended.
    pub disconnected: u64,
    /// Messages given to the game.
    pub received: u64,
    /// Messages that the game sent.
    pub sent: u64,
    /// Records that came.
    pub records: u64,
    /// SYNCs of clients that were taken.
    pub syncs: u64,
    /// QUALITYs of sessions that were taken.
    pub qualities: u64,
    /// Channels now.
    pub channels: u64,
    /// Messages published to channels.
    pub published: u64,
    /// Messages of channels that were sent once more to members who had missed them.
    pub caught_up: u64,
    /// Dropped records and messages, in the order of `DropReason::ALL`.
    pub drops: [u64; DropReason::ALL.len()],
    /// Sessions ended by this side, in the order of `CloseReason::ALL`.
    pub kicks: [u64; CloseReason::ALL.len()],
}

impl Default for StubCounts {
    fn default() -> Self {
        Self {
            sessions: 0,
            detached: 0,
            connected: 0,
            disconnected: 0,
            received: 0,
            sent: 0,
            records: 0,
            syncs: 0,
            qualities: 0,
            channels: 0,
            published: 0,
            caught_up: 0,
            drops: [0; DropReason::ALL.len()],
            kicks: [0; CloseReason::ALL.len()],
        }
    }
}

/// The core. See the module's documentation for the order of calls.
#[derive(Debug)]
pub struct Stub<G> {
    core: Core,
    game: G,
}

impl<G: Game> Stub<G> {
    /// A stub without sessions.
    pub fn new(settings: StubSettings, game: G) -> Self {
        Self {
            core: Core {
                settings,
                sessions: FxHashMap::default(),
                by_account: HashMap::new(),
                links: BTreeMap::new(),
                channels: channels::Channels::default(),
                timers: BinaryHeap::new(),
                ending: VecDeque::new(),
                ended: HashMap::new(),
                ended_order: VecDeque::new(),
                departed: HashMap::new(),
                departed_order: VecDeque::new(),
                ends: 0,
                sends: VecDeque::new(),
                counts: StubCounts::default(),
            },
            game,
        }
    }

    /// The game.
    pub fn game(&self) -> &G {
        &self.game
    }

    /// Calls the game from outside: for what it does of its own accord.
    pub fn call<T>(&mut self, now: Now, act: impl FnOnce(&mut G, &mut Context<'_>) -> T) -> T {
        let mut context = Context {
            core: &mut self.core,
            now,
        };
        let result = act(&mut self.game, &mut context);
        self.end_those_ending(now);
        result
    }

    /// Lets the game take what its own threads have done.
    pub fn poll_background(&mut self, wakeup: &mut std::task::Context<'_>, now: Now) {
        self.call(now, |game, context| game.poll_background(wakeup, context));
    }

    /// An operator tells everybody who has a session here something, reliably; how many they are.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn handle_notice(&mut self, text: &str) -> Result<usize, ChannelError> {
        let payload = text.as_bytes();
        self.core
            .publish_all(Lane::Reliable, &Filter::ALL, NOTICE, payload)?;
        Ok(self.core.sessions.len())
    }

    /// Counters and gauges.
    pub fn counts(&self) -> StubCounts {
        StubCounts {
            sessions: self.core.sessions.len() as u64,
            channels: self.core.channels.len() as u64,
            ..self.core.counts.clone()
        }
    }

    /// A link's hello has come.
    ///
    /// # Errors
    /// The link is to be closed.
    pub fn handle_link_up(&mut self, link: LinkId, hello: &ShardHello) -> Result<(), LinkFault> {
        check_hello(hello)?;
        self.core.links.insert(link, LinkOut::default());
        let settings = &self.core.settings;
        let hello = BackendHello {
            version: uplink::VERSION,
            instance: settings.instance.clone(),
            boot: settings.boot,
            group: u32::from(settings.group.0),
            wants_address: settings.wants_address,
            lease_ms: 0,
            wants_load: false,
        };
        let message = ToShard {
            message: Some(to_shard::Message::Hello(hello)),
        };
        self.core.sends.push_back((link, message));
        Ok(())
    }

    /// A control message has come. A game takes none after the hello.
    ///
    /// # Errors
    /// The link is to be closed.
    pub fn handle_control(&mut self, _: LinkId, message: &ToBackend) -> Result<(), LinkFault> {
        Err(match message.message {
            Some(to_backend::Message::Hello(_)) => LinkFault::Hello,
            Some(_) => LinkFault::Role,
            None => LinkFault::Unreadable,
        })
    }

    /// Whole records have come.
    ///
    /// # Errors
    /// The link is to be closed.
    pub fn handle_records(
        &mut self,
        now: Now,
        link: LinkId,
        mut run: &[u8],
    ) -> Result<(), LinkFault> {
        if !self.core.links.contains_key(&link) {
            return Ok(());
        }
        while let Some((session, record)) = uplink::next(&mut run).map_err(|_| LinkFault::Record)? {
            self.core.counts.records += 1;
            match record {
                Record::Data(body) => self.handle_body(now, link, session, body),
                Record::Open(open) => self.handle_open(now, link, session, &open),
                Record::End {
                    fence,
                    reason,
                    unix_ms,
                } => {
                    let reason = CloseReason::from_code(reason);
                    self.handle_end(now, session, fence, reason, unix_ms);
                }
                Record::Gone => self.handle_gone(now, link, session),
                Record::Quality(quality) => self.core.take_quality(link, session, quality),
                Record::Kick { .. }
                | Record::Latest { .. }
                | Record::Join { .. }
                | Record::Leave { .. }
                | Record::Publish { .. }
                | Record::List { .. }
                | Record::Attribute { .. } => return Err(LinkFault::Record),
            }
            self.end_those_ending(now);
        }
        Ok(())
    }

    /// A link is gone. Its sessions wait for the next one.
    pub fn handle_link_down(&mut self, now: Now, link: LinkId) {
        self.core.links.remove(&link);
        self.core.forget_channel_link(link);
        let grace_until = now.time.after_ms(self.core.settings.link_grace_ms);
        for (id, session) in &mut self.core.sessions {
            if session.link == Some(link) {
                self.core.counts.detached += 1;
                if session.lose_link(grace_until) {
                    let timer = (grace_until, *id, Timer::Grace);
                    self.core.timers.push(Reverse(timer));
                }
            }
        }
    }

    /// When `handle_timeout` is due. It may find nothing to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.core.timers.peek().map(|Reverse((due, _, _))| *due);
        [timer, self.game.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(Reverse((due, id, timer))) = self.core.timers.peek().copied()
            && due <= now.time
        {
            self.core.timers.pop();
            let Some(session) = self.core.sessions.get_mut(&id) else {
                continue;
            };
            match timer {
                Timer::Ack => {
                    session.ack_timed = false;
                    self.core.flush(now.time, id);
                }
                Timer::Grace => {
                    session.grace_timed = false;
                    match session.grace_until {
                        Some(until) if until > now.time => {
                            session.grace_timed = true;
                            self.core.timers.push(Reverse((until, id, Timer::Grace)));
                        }
                        Some(_) => self.core.end_later(id, CloseReason::LinkLost),
                        None => {}
                    }
                }
            }
        }
        self.end_those_ending(now);
        if self.game.poll_timeout().is_some_and(|due| due <= now.time) {
            let mut context = Context {
                core: &mut self.core,
                now,
            };
            self.game.handle_timeout(&mut context);
            self.end_those_ending(now);
        }
    }

    /// The next control message to send.
    pub fn poll_send(&mut self) -> Option<(LinkId, ToShard)> {
        self.core.sends.pop_front()
    }

    /// Hands over the records to send: link, data stream from 1, bytes. `take` empties them.
    pub fn take_records(&mut self, take: &mut impl FnMut(LinkId, u8, &mut Vec<u8>)) {
        for (link, out) in &mut self.core.links {
            for (stream, records) in (1..).zip(&mut out.streams) {
                if !records.is_empty() {
                    take(*link, stream, records);
                }
            }
        }
    }

    fn handle_open(&mut self, now: Now, link: LinkId, id: SessionId, open: &Open<'_>) {
        // A session that ended here stays ended, whoever brings it, under whatever fence: what
        // was in its outbox is lost.
        if let Some(reason) = self.core.how_it_ended(id, open.account) {
            self.core.kick(link, id, open.fence, reason);
            return;
        }
        if let Some(session) = self.core.sessions.get_mut(&id) {
            if open.fence < session.fence {
                self.core.drop_record(DropReason::StaleFence);
                self.core.kick(link, id, open.fence, CloseReason::Revoked);
                return;
            }
            session.fence = open.fence;
            if session.link.replace(link).is_none() {
                self.core.counts.detached -= 1;
            }
            session.grace_until = None;
            session.lead_to_client(open.away);
            self.core.untell_memberships(id);
            self.core.flush(now.time, id);
            if !open.away {
                self.core.tell_memberships(id);
            }
            return;
        }
        if self.core.was_later_here(open.account, open.fence) {
            self.core.drop_record(DropReason::StaleFence);
            self.core.kick(link, id, open.fence, CloseReason::Revoked);
            return;
        }
        // Another session of this account is an older one that a gateway without link still
        // believes in, or this one is.
        if let Some(rival) = self.core.by_account.get(open.account).copied() {
            let fence = self.core.sessions.get(&rival).map(|rival| rival.fence);
            if fence.is_some_and(|fence| fence > open.fence) {
                self.core.drop_record(DropReason::StaleFence);
                self.core.kick(link, id, open.fence, CloseReason::Revoked);
                return;
            }
            self.end(now, rival, CloseReason::Revoked);
        }
        if self.core.sessions.len() >= self.core.settings.sessions_max {
            self.core.kick(link, id, open.fence, CloseReason::Full);
            return;
        }
        self.core.attach_new(link, id, open);
        let player = Player {
            session: id,
            fence: open.fence,
            account: open.account,
            channel: open.channel,
            client_version: open.client_version,
            address: open.address,
            unix_ms: open.unix_ms,
        };
        let mut context = Context {
            core: &mut self.core,
            now,
        };
        self.game.connected(&mut context, &player);
        self.core.flush(now.time, id);
    }

    fn handle_end(
        &mut self,
        now: Now,
        id: SessionId,
        fence: Fence,
        reason: Option<CloseReason>,
        unix_ms: u64,
    ) {
        match self.core.sessions.get(&id) {
            Some(session) if fence < session.fence => self.core.drop_record(DropReason::StaleFence),
            Some(_) => self.depart(
                now,
                Departure {
                    session: id,
                    reason,
                    unix_ms,
                },
            ),
            // Ended by this side a moment ago.
            None => {}
        }
    }

    /// The shard has the session no more. Another one may: it waits for that as if the link were
    /// lost.
    fn handle_gone(&mut self, now: Now, link: LinkId, id: SessionId) {
        let grace_until = now.time.after_ms(self.core.settings.link_grace_ms);
        if let Some(session) = self.core.sessions.get_mut(&id)
            && session.link == Some(link)
        {
            self.core.untell_memberships(id);
        }
        if let Some(session) = self.core.sessions.get_mut(&id)
            && session.link == Some(link)
        {
            self.core.counts.detached += 1;
            if session.lose_link(grace_until) {
                let timer = (grace_until, id, Timer::Grace);
                self.core.timers.push(Reverse(timer));
            }
        }
    }

    fn handle_body(&mut self, now: Now, link: LinkId, id: SessionId, body: &[u8]) {
        let core = &mut self.core;
        let body = match Body::decode(body) {
            Ok(body) => body,
            Err(BadBody::UnknownKind(_)) => return core.drop_record(DropReason::UnknownKind),
            Err(BadBody::Malformed) => return core.drop_record(DropReason::BadRecord),
        };
        let Some(session) = core
            .sessions
            .get_mut(&id)
            .filter(|session| session.link == Some(link))
        else {
            return core.drop_record(DropReason::SessionGone);
        };
        match body {
            Body::Message { header, payload } => {
                if header.group != core.settings.group {
                    return core.drop_record(DropReason::WrongGroup);
                }
                if !matches!(header.kind, MessageKind::Message | MessageKind::Request) {
                    return core.drop_record(DropReason::UnknownKind);
                }
                if let Some(reason) = refusal(&mut session.stream, &header, now.time) {
                    core.drop_record(reason);
                } else {
                    self.deliver(now, id, &header, payload);
                }
            }
            Body::Sync(sync) => {
                if sync.group != core.settings.group {
                    return core.drop_record(DropReason::WrongGroup);
                }
                if session.stream.handle_sync(&sync) {
                    core.counts.syncs += 1;
                } else {
                    // For the end before this one; the client will answer ours too.
                    core.drop_record(DropReason::StreamNotSynced);
                }
            }
            Body::Ack { group, ack } => {
                if group != core.settings.group {
                    return core.drop_record(DropReason::WrongGroup);
                }
                session.stream.handle_ack(ack);
            }
            Body::Channel {
                group,
                channel,
                notice: ChannelNotice::CatchUp { next },
            } => {
                if group != core.settings.group {
                    return core.drop_record(DropReason::WrongGroup);
                }
                core.catch_up(link, id, channel, next);
            }
            _ => return core.drop_record(DropReason::UnknownKind),
        }
        self.core.flush(now.time, id);
    }

    fn deliver(&mut self, now: Now, session: SessionId, header: &MessageHeader, payload: &[u8]) {
        self.core.counts.received += 1;
        let mut context = Context {
            core: &mut self.core,
            now,
        };
        let message = header.message;
        if header.kind == MessageKind::Request {
            let request = Request {
                session,
                message,
                request: header.request,
            };
            self.game.request(&mut context, &request, payload);
        } else {
            let message = Message {
                session,
                lane: header.lane,
                message,
                payload,
            };
            self.game.message(&mut context, &message);
        }
    }

    /// Ends the sessions that were found to be at their end while something else went on.
    fn end_those_ending(&mut self, now: Now) {
        // A game that kicks in `disconnected` adds to these; each is here once.
        while let Some((id, reason)) = self.core.ending.pop_front() {
            self.end(now, id, reason);
        }
    }

    /// Ends a session from this side.
    fn end(&mut self, now: Now, id: SessionId, reason: CloseReason) {
        let Some(session) = self.core.sessions.get(&id) else {
            return;
        };
        let (link, fence) = (session.link, session.fence);
        match link {
            Some(link) => self.core.kick(link, id, fence, reason),
            None => self.core.count_kick(reason),
        }
        // The gateway may not hear of it, and come again with this session.
        self.core.remember_ended(id, reason);
        self.depart(
            now,
            Departure {
                session: id,
                reason: Some(reason),
                unix_ms: now.unix_ms,
            },
        );
    }

    fn depart(&mut self, now: Now, departure: Departure) {
        let Some(mut session) = self.core.sessions.remove(&departure.session) else {
            return;
        };
        self.core.forget_memberships(&mut session);
        self.core.by_account.remove(&session.account);
        self.core
            .remember_departed(&session.account, session.fence, departure.session);
        self.core.counts.detached -= u64::from(session.link.is_none());
        self.core.counts.disconnected += 1;
        let mut context = Context {
            core: &mut self.core,
            now,
        };
        self.game.disconnected(&mut context, &departure);
    }
}

/// Looks whether a message is to be delivered, and moves the stream on.
fn refusal(stream: &mut StreamEnd, header: &MessageHeader, now: Time) -> Option<DropReason> {
    match header.lane {
        Lane::Reliable => match stream.handle_message(header.number, header.ack, now) {
            Delivery::Deliver => None,
            Delivery::Repeated => Some(DropReason::StreamRepeated),
            Delivery::Gap => Some(DropReason::StreamGap),
            Delivery::NotSynced => Some(DropReason::StreamNotSynced),
        },
        Lane::Unreliable => {
            stream.handle_ack(header.ack);
            None
        }
        Lane::Sequenced => {
            stream.handle_ack(header.ack);
            let is_newer = stream.handle_sequenced(header.number);
            (!is_newer).then_some(DropReason::SequencedStale)
        }
    }
}

#[cfg(test)]
mod tests;
