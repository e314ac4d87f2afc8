//! Everything of the stub but the game, so that a game can be called with it: sessions, what
//! goes out over which link, timers, and the memory of ended sessions.
//!
//! Invariant: it never calls the game.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use protocol::body::{Body, Lane, MessageHeader, MessageKind};
use protocol::control::ToShard;
use protocol::ids::{ChannelId, Fence, Incarnation, MessageId, SessionId};
use protocol::limits::{PAYLOAD_BYTES_MAX, REASON_TEXT_BYTES_MAX, UPLINK_STREAMS};
use protocol::quality::Quality;
use protocol::reason::{CloseReason, DropReason};
use protocol::stream::StreamEnd;
use protocol::time::{Now, Time};
use protocol::uplink::{self, Open, Record};
use rustc_hash::FxHashMap;

use super::channels::{Channels, Memberships};
use super::{DEPARTED_MAX, ENDED_MAX, Request, SendError, StubCounts, StubSettings};
use crate::link::LinkId;

/// One session that is here.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) fence: Fence,
    pub(super) account: Arc<str>,
    /// Version of the game client.
    pub(super) client_version: u32,
    pub(super) link: Option<LinkId>,
    /// The link whose shard knows its channels: where its client is, while it is.
    pub(super) told_at: Option<LinkId>,
    pub(super) memberships: Option<Box<Memberships>>,
    /// When it ends if no link comes.
    pub(super) grace_until: Option<Time>,
    pub(super) stream: StreamEnd,
    /// How good its client's connection is, as the gateway told last.
    pub(super) quality: Option<Quality>,
    /// It stands in `timers` for an acknowledgement.
    pub(super) ack_timed: bool,
    /// It stands in `timers` for the end of its grace.
    pub(super) grace_timed: bool,
    /// It stands in `ending`.
    pub(super) is_ending: bool,
}

impl Session {
    /// A link leads to the client again, or to where it may come back.
    pub(super) fn lead_to_client(&mut self, is_away: bool) {
        if is_away {
            self.stream.detach();
        } else {
            self.stream.attach();
        }
    }

    /// No link leads to the client. Whether a timer is to be set for the end of the wait: one of
    /// an earlier loss is earlier, and is then set anew.
    pub(super) fn lose_link(&mut self, grace_until: Time) -> bool {
        self.link = None;
        self.grace_until = Some(grace_until);
        self.stream.detach();
        !std::mem::replace(&mut self.grace_timed, true)
    }
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Ack,
    Grace,
}

/// Records that wait to be written, by data stream.
#[derive(Debug, Default)]
pub(super) struct LinkOut {
    pub(super) streams: [Vec<u8>; UPLINK_STREAMS as usize],
}

/// Everything but the game, so that a game can be called with it.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) settings: StubSettings,
    /// Ids are center's and rise by one, so a hasher without a secret will do.
    pub(super) sessions: FxHashMap<SessionId, Session>,
    pub(super) by_account: HashMap<Arc<str>, SessionId>,
    pub(super) links: BTreeMap<LinkId, LinkOut>,
    pub(super) channels: Channels,
    /// One of each kind a session at most; those of sessions that are gone are skipped.
    pub(super) timers: BinaryHeap<Reverse<(Time, SessionId, Timer)>>,
    /// Sessions to end once the game has returned.
    pub(super) ending: VecDeque<(SessionId, CloseReason)>,
    pub(super) ended: HashMap<SessionId, CloseReason>,
    pub(super) ended_order: VecDeque<SessionId>,
    /// The last sessions of accounts that were here and have gone.
    pub(super) departed: HashMap<Arc<str>, (Fence, SessionId)>,
    pub(super) departed_order: VecDeque<(Arc<str>, Fence)>,
    /// Stream ends made so far: each gets an incarnation of its own, since one that starts
    /// anew has no memory even if it is in the same process.
    pub(super) ends: u64,
    pub(super) sends: VecDeque<(LinkId, ToShard)>,
    pub(super) counts: StubCounts,
}

impl Core {
    pub(super) fn attach_new(&mut self, link: LinkId, id: SessionId, open: &Open<'_>) {
        let incarnation = Incarnation(self.settings.boot.wrapping_add(self.ends));
        self.ends += 1;
        let stream = StreamEnd::backend(self.settings.group, incarnation);
        let account: Arc<str> = open.account.into();
        self.by_account.insert(Arc::clone(&account), id);
        let mut session = Session {
            fence: open.fence,
            account,
            client_version: open.client_version,
            link: Some(link),
            told_at: None,
            memberships: None,
            grace_until: None,
            stream,
            quality: None,
            ack_timed: false,
            grace_timed: false,
            is_ending: false,
        };
        session.lead_to_client(open.away);
        self.sessions.insert(id, session);
        self.counts.connected += 1;
        self.begin_memberships(id, open.away);
    }

    pub(super) fn reply(
        &mut self,
        now: Now,
        request: &Request,
        more: bool,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let header = self.header(MessageKind::Reply, Lane::Reliable, request.message);
        let header = MessageHeader {
            more,
            request: request.request,
            ..header
        };
        self.send(now, request.session, header, payload)
    }

    pub(super) fn reply_error(
        &mut self,
        now: Now,
        request: &Request,
        code: u16,
        text: &str,
    ) -> Result<(), SendError> {
        let header = self.header(MessageKind::Error, Lane::Reliable, request.message);
        let header = MessageHeader {
            request: request.request,
            ..header
        };
        let text = protocol::body::truncated(text, REASON_TEXT_BYTES_MAX);
        let mut payload = code.to_le_bytes().to_vec();
        payload.extend_from_slice(text.as_bytes());
        self.send(now, request.session, header, &payload)
    }

    pub(super) fn push(
        &mut self,
        now: Now,
        session: SessionId,
        lane: Lane,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let header = self.header(MessageKind::Message, lane, message);
        self.send(now, session, header, payload)
    }

    pub(super) fn push_latest(
        &mut self,
        now: Now,
        session: SessionId,
        key: u32,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let header = self.header(MessageKind::Message, Lane::Sequenced, message);
        self.send_keyed(now, session, Some(key), header, payload)
    }

    pub(super) fn header(
        &self,
        kind: MessageKind,
        lane: Lane,
        message: MessageId,
    ) -> MessageHeader {
        MessageHeader {
            kind,
            lane,
            more: false,
            group: self.settings.group,
            number: 0,
            ack: 0,
            message,
            request: 0,
        }
    }

    pub(super) fn send(
        &mut self,
        now: Now,
        id: SessionId,
        header: MessageHeader,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.send_keyed(now, id, None, header, payload)
    }

    fn send_keyed(
        &mut self,
        now: Now,
        id: SessionId,
        key: Option<u32>,
        header: MessageHeader,
        payload: &[u8],
    ) -> Result<(), SendError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(SendError::TooLong);
        }
        let limits = self.settings.outbox;
        let session = self.sessions.get_mut(&id).ok_or(SendError::Gone)?;
        match header.lane {
            Lane::Reliable => {
                if session.stream.push(header, payload, limits).is_err() {
                    self.end_later(id, CloseReason::OutboxOverflow);
                    return Err(SendError::Full);
                }
                self.counts.sent += 1;
                self.flush(now.time, id);
            }
            Lane::Unreliable | Lane::Sequenced => {
                // Lost while the client's end is down, as the protocol says.
                if !session.stream.is_open() {
                    self.drop_record(DropReason::GroupDown);
                    return Ok(());
                }
                let mut header = header;
                if header.lane == Lane::Sequenced {
                    header.number = session.stream.next_sequenced();
                }
                header.ack = session.stream.take_ack();
                self.counts.sent += 1;
                let link = session.link.and_then(|link| self.links.get_mut(&link));
                if let Some(out) = link {
                    let write = |out: &mut Vec<u8>| {
                        header.encode(out);
                        out.extend_from_slice(payload);
                    };
                    match key {
                        Some(key) => uplink::encode_latest(id, key, out.of(id), write),
                        None => uplink::encode_data(id, out.of(id), write),
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what the session's stream wants sent, and times its acknowledgement.
    pub(super) fn flush(&mut self, now: Time, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(out) = session.link.and_then(|link| self.links.get_mut(&link)) else {
            return;
        };
        let out = out.of(id);
        let stream = &mut session.stream;
        if let Some(sync) = stream.poll_sync() {
            uplink::encode_data(id, out, |out| Body::Sync(sync).encode(out));
        }
        while let Some(message) = stream.poll_transmit() {
            uplink::encode_data(id, out, |out| out.extend_from_slice(message));
        }
        if let Some(ack) = stream.poll_ack(now) {
            let group = self.settings.group;
            uplink::encode_data(id, out, |out| Body::Ack { group, ack }.encode(out));
        }
        if !session.ack_timed
            && let Some(due) = stream.ack_deadline()
        {
            session.ack_timed = true;
            self.timers.push(Reverse((due, id, Timer::Ack)));
        }
    }

    /// The gateway says how good a client's connection is.
    pub(super) fn take_quality(&mut self, link: LinkId, id: SessionId, quality: Quality) {
        let session = self.sessions.get_mut(&id);
        match session.filter(|session| session.link == Some(link)) {
            Some(session) => {
                session.quality = Some(quality);
                self.counts.qualities += 1;
            }
            None => self.drop_record(DropReason::SessionGone),
        }
    }

    pub(super) fn end_later(&mut self, id: SessionId, reason: CloseReason) {
        // A mark, not a look through `ending`: all of a gateway's may end at once.
        if let Some(session) = self.sessions.get_mut(&id)
            && !std::mem::replace(&mut session.is_ending, true)
        {
            self.ending.push_back((id, reason));
        }
    }

    pub(super) fn kick(&mut self, link: LinkId, id: SessionId, fence: Fence, reason: CloseReason) {
        self.count_kick(reason);
        if let Some(out) = self.links.get_mut(&link) {
            let reason = reason as u16;
            uplink::encode(id, &Record::Kick { fence, reason }, out.of(id));
        }
    }

    pub(super) fn count_kick(&mut self, reason: CloseReason) {
        let position = CloseReason::ALL.iter().position(|other| *other == reason);
        if let Some(count) = position.and_then(|at| self.counts.kicks.get_mut(at)) {
            *count += 1;
        }
    }

    pub(super) fn drop_record(&mut self, reason: DropReason) {
        self.counts.drops[reason as usize] += 1;
    }

    /// Whether a later session of this account was here. What a link that was held up brings of
    /// an earlier one must not be taken after it.
    pub(super) fn was_later_here(&self, account: &str, fence: Fence) -> bool {
        self.departed
            .get(account)
            .is_some_and(|(later, _)| *later > fence)
    }

    /// Why a session that was here has ended, if it has.
    pub(super) fn how_it_ended(&self, id: SessionId, account: &str) -> Option<CloseReason> {
        if let Some(reason) = self.ended.get(&id) {
            return Some(*reason);
        }
        let departed = self.departed.get(account);
        let is_it = departed.is_some_and(|(_, session)| *session == id);
        (is_it && !self.sessions.contains_key(&id)).then_some(CloseReason::LinkLost)
    }

    pub(super) fn remember_departed(
        &mut self,
        account: &Arc<str>,
        fence: Fence,
        session: SessionId,
    ) {
        self.departed_order.push_back((Arc::clone(account), fence));
        self.departed.insert(Arc::clone(account), (fence, session));
        while self.departed_order.len() > DEPARTED_MAX {
            if let Some((oldest, fence)) = self.departed_order.pop_front()
                && self
                    .departed
                    .get(&oldest)
                    .is_some_and(|(last, _)| *last == fence)
            {
                self.departed.remove(&oldest);
            }
        }
    }

    pub(super) fn remember_ended(&mut self, id: SessionId, reason: CloseReason) {
        self.ended.insert(id, reason);
        self.ended_order.push_back(id);
        while self.ended_order.len() > ENDED_MAX {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

impl LinkOut {
    pub(super) fn of(&mut self, session: SessionId) -> &mut Vec<u8> {
        &mut self.streams[usize::from(uplink::stream_of(session) - 1)]
    }

    pub(super) fn of_channel(&mut self, channel: ChannelId) -> &mut Vec<u8> {
        &mut self.streams[usize::from(uplink::stream_of_channel(channel) - 1)]
    }
}
