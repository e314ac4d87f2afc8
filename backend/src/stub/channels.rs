//! Channels of a game process: who is a member, the numbers of their messages, and the tail that
//! is kept for those who were away.
//!
//! This side is the publisher. A message goes out once over each link that holds a member;
//! sealing it and handing it to the members is the shard's. A member whose session comes over
//! another link is made known there anew.
//!
//! Invariants: a number is given once to one reliable message of a channel, and means the same
//! on every link. A client gets nothing from the tail that was published before it joined. A tail
//! holds at most [`TAIL_MESSAGES_MAX`] messages and [`TAIL_BYTES_MAX`] bytes.

use std::collections::{BTreeMap, VecDeque};

use protocol::body::{Body, ChannelHeader, ChannelNotice, Lane, MessageKind};
use protocol::channel::Filter;
use protocol::ids::{ChannelId, Incarnation, MessageId, SessionId};
use protocol::limits::{
    ATTRIBUTES_MAX, CHANNEL_HEADER_BYTES, CHANNELS_PER_SESSION_MAX, LIST_SESSIONS_MAX,
    PAYLOAD_BYTES_MAX,
};
use protocol::reason::DropReason;
use protocol::time::Now;
use protocol::uplink::{self, Record};
use rustc_hash::FxHashMap;

use super::core::{Core, Session};
use super::{ChannelError, EVERYBODY};
use crate::link::LinkId;

/// Channels of a process: what a big game has of guilds and rooms at a time.
pub const CHANNELS_MAX: usize = 100_000;

/// Reliable messages in a channel's tail: what a lively channel says in a resume time of 60 s.
pub const TAIL_MESSAGES_MAX: usize = 256;

/// Bytes of their payloads; the newest one is kept whatever its length.
pub const TAIL_BYTES_MAX: usize = 64 * 1_024;

/// Bytes of one answer to CATCH_UP, unless one message has more; the client asks for the rest. Half of
/// the smallest queue that a gateway can be given for a client: more at once could close the
/// client again that has just come back.
const CATCH_UP_BYTES: usize = 16 * 1_024;

/// What a session has of channels and attributes; most sessions have neither.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    list: Vec<Membership>,
    attributes: Vec<(u16, u32)>,
    /// Channels that it left while its client was away, which has still to hear of it.
    left: Vec<ChannelId>,
}

#[derive(Debug)]
struct Membership {
    channel: ChannelId,
    /// The number that came next when it joined: nothing earlier is for it.
    since: u32,
    /// Up to which number its client was sent the tail since the shard knows of it. A client
    /// loses nothing in between, so whoever asks twice is sent it once.
    answered: u32,
}

/// A reliable message that may be asked for.
#[derive(Debug)]
struct Kept {
    filter: Filter,
    message: MessageId,
    payload: Box<[u8]>,
}

#[derive(Debug)]
struct Channel {
    incarnation: Incarnation,
    /// Number of the next reliable message.
    next: u32,
    /// Number of the last sequenced one.
    sequenced: u32,
    tail: VecDeque<Kept>,
    tail_bytes: usize,
    members: usize,
    /// How many members each link holds.
    links: BTreeMap<LinkId, usize>,
}

impl Channel {
    fn keep(&mut self, kept: Kept) {
        self.tail_bytes += kept.payload.len();
        self.tail.push_back(kept);
        while self.tail.len() > TAIL_MESSAGES_MAX
            || (self.tail_bytes > TAIL_BYTES_MAX && self.tail.len() > 1)
        {
            if let Some(oldest) = self.tail.pop_front() {
                self.tail_bytes -= oldest.payload.len();
            }
        }
    }

    fn forget_one_at(&mut self, link: LinkId) {
        if let Some(count) = self.links.get_mut(&link) {
            *count -= 1;
            if *count == 0 {
                self.links.remove(&link);
            }
        }
    }
}

/// All channels of the process.
#[derive(Debug, Default)]
pub(super) struct Channels {
    table: FxHashMap<ChannelId, Channel>,
    /// Channels made so far: each gets an incarnation of its own.
    made: u64,
    /// Every session is a member of [`EVERYBODY`].
    everybody: bool,
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Session {
    fn attribute(&self, key: u16) -> Option<u32> {
        let all = &self.memberships.as_ref()?.attributes;
        all.iter().find(|it| it.0 == key).map(|it| it.1)
    }
}

impl Core {
    pub(super) fn join(&mut self, id: SessionId, channel: ChannelId) -> Result<(), ChannelError> {
        let session = self.sessions.get_mut(&id).ok_or(ChannelError::Gone)?;
        let told_at = session.told_at;
        let memberships = session.memberships.get_or_insert_default();
        if memberships.list.iter().any(|it| it.channel == channel) {
            return Ok(());
        }
        if memberships.list.len() >= CHANNELS_PER_SESSION_MAX {
            return Err(ChannelError::TooManyOfSession);
        }
        let channels = &mut self.channels;
        if !channels.table.contains_key(&channel) && channels.table.len() >= CHANNELS_MAX {
            return Err(ChannelError::TooMany);
        }
        let made = &mut channels.made;
        let boot = self.settings.boot;
        let entry = channels.table.entry(channel).or_insert_with(|| {
            *made += 1;
            Channel {
                incarnation: Incarnation(boot.wrapping_add(*made)),
                next: 1,
                sequenced: 0,
                tail: VecDeque::new(),
                tail_bytes: 0,
                members: 0,
                links: BTreeMap::new(),
            }
        });
        entry.members += 1;
        memberships.left.retain(|left| *left != channel);
        memberships.list.push(Membership {
            channel,
            since: entry.next,
            answered: 0,
        });
        if let Some(link) = told_at
            && let Some(out) = self.links.get_mut(&link)
        {
            *entry.links.entry(link).or_default() += 1;
            let joined = joined(channel, entry, entry.next);
            uplink::encode(id, &joined, out.of_channel(channel));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, id: SessionId, channel: ChannelId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let (told_at, Some(memberships)) = (session.told_at, &mut session.memberships) else {
            return;
        };
        let Some(at) = memberships.list.iter().position(|it| it.channel == channel) else {
            return;
        };
        memberships.list.swap_remove(at);
        if let Some(out) = told_at.and_then(|link| self.links.get_mut(&link)) {
            let leave = Record::Leave { channel };
            uplink::encode(id, &leave, out.of_channel(channel));
        } else if memberships.left.len() < CHANNELS_PER_SESSION_MAX {
            memberships.left.push(channel);
        }
        self.forget_member(channel, told_at);
    }

    fn forget_member(&mut self, channel: ChannelId, told_at: Option<LinkId>) {
        if let Some(entry) = self.channels.table.get_mut(&channel) {
            entry.members -= 1;
            if let Some(link) = told_at {
                entry.forget_one_at(link);
            }
            if entry.members == 0 {
                self.channels.table.remove(&channel);
            }
        }
    }

    /// A session has ended here: the shard knows, or is told by KICK.
    pub(super) fn forget_memberships(&mut self, session: &mut Session) {
        if let Some(memberships) = session.memberships.take() {
            for it in &memberships.list {
                self.forget_member(it.channel, session.told_at);
            }
        }
    }

    /// The shard that held a session has it no more, or its client is away: it is in no channel
    /// there.
    pub(super) fn untell_memberships(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && let Some(link) = session.told_at.take()
            && let Some(memberships) = &session.memberships
        {
            for it in &memberships.list {
                if let Some(entry) = self.channels.table.get_mut(&it.channel) {
                    entry.forget_one_at(link);
                }
            }
        }
    }

    /// A link is gone, and with it what its shard knew.
    pub(super) fn forget_channel_link(&mut self, link: LinkId) {
        for entry in self.channels.table.values_mut() {
            entry.links.remove(&link);
        }
        for session in self.sessions.values_mut() {
            if session.told_at == Some(link) {
                session.told_at = None;
            }
        }
    }

    /// A session's client is there, over a link that may be new: the shard learns its channels
    /// and attributes.
    pub(super) fn tell_memberships(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.told_at = session.link;
        let (Some(link), Some(memberships)) = (session.link, &mut session.memberships) else {
            return;
        };
        let Some(out) = self.links.get_mut(&link) else {
            return;
        };
        for channel in memberships.left.drain(..) {
            uplink::encode(id, &Record::Leave { channel }, out.of_channel(channel));
        }
        for it in &mut memberships.list {
            let Some(entry) = self.channels.table.get_mut(&it.channel) else {
                continue;
            };
            *entry.links.entry(link).or_default() += 1;
            it.answered = 0;
            // A client that was never told that it is a member begins at its first message; one that
            // was goes on where it is, and asks for what it has missed.
            let first = (it.since != entry.next).then_some(it.since);
            for next in first.into_iter().chain([entry.next]) {
                let joined = joined(it.channel, entry, next);
                uplink::encode(id, &joined, out.of_channel(it.channel));
            }
        }
        for &(key, value) in &memberships.attributes {
            uplink::encode(id, &Record::Attribute { key, value }, out.of(id));
        }
    }

    /// A session is new here.
    pub(super) fn begin_memberships(&mut self, id: SessionId, is_away: bool) {
        if self.channels.everybody {
            // It has no other channel yet, so that there is room.
            let _ = self.join(id, EVERYBODY);
        }
        if !is_away {
            self.tell_memberships(id);
        }
    }

    pub(super) fn publish_all(
        &mut self,
        lane: Lane,
        filter: &Filter,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        if !std::mem::replace(&mut self.channels.everybody, true) {
            let all: Vec<SessionId> = self.sessions.keys().copied().collect();
            for id in all {
                self.join(id, EVERYBODY)?;
            }
        }
        self.publish(EVERYBODY, lane, filter, message, payload)
    }

    pub(super) fn publish(
        &mut self,
        channel: ChannelId,
        lane: Lane,
        filter: &Filter,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ChannelError::TooLong);
        }
        // Without members there is nobody to hear it.
        let Some(entry) = self.channels.table.get_mut(&channel) else {
            return Ok(());
        };
        let number = match lane {
            Lane::Reliable => entry.next,
            Lane::Unreliable => 0,
            Lane::Sequenced => {
                entry.sequenced = entry.sequenced.wrapping_add(1);
                entry.sequenced
            }
        };
        if lane == Lane::Reliable {
            entry.next = entry.next.checked_add(1).ok_or(ChannelError::TooMany)?;
            entry.keep(Kept {
                filter: *filter,
                message,
                payload: payload.into(),
            });
        }
        let header = ChannelHeader {
            lane,
            group: self.settings.group,
            number,
            channel,
            message,
        };
        for link in entry.links.keys() {
            if let Some(out) = self.links.get_mut(link) {
                uplink::encode_publish(filter, out.of_channel(channel), |out| {
                    header.encode(out);
                    out.extend_from_slice(payload);
                });
            }
        }
        self.counts.published += 1;
        Ok(())
    }

    /// Sends several players one message: in the unreliable lane as one record a link, in the
    /// others, where each player has numbers of its own, as a message each.
    pub(super) fn send_list(
        &mut self,
        now: Now,
        sessions: &[SessionId],
        lane: Lane,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ChannelError::TooLong);
        }
        if lane != Lane::Unreliable {
            for &id in sessions {
                // One that is gone or full is so for itself.
                let _ = self.push(now, id, lane, message, payload);
            }
            return Ok(());
        }
        let mut by_link: BTreeMap<LinkId, Vec<SessionId>> = BTreeMap::new();
        for id in sessions {
            let session = self.sessions.get(id);
            match session.and_then(|it| it.link.filter(|_| it.stream.is_open())) {
                Some(link) => by_link.entry(link).or_default().push(*id),
                None => self.drop_record(DropReason::GroupDown),
            }
        }
        let header = self.header(MessageKind::Message, lane, message);
        for (link, sessions) in by_link {
            if let Some(out) = self.links.get_mut(&link) {
                for some in sessions.chunks(LIST_SESSIONS_MAX) {
                    self.counts.sent += some.len() as u64;
                    uplink::encode_list(some, &mut out.streams[0], |out| {
                        header.encode(out);
                        out.extend_from_slice(payload);
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_attribute(
        &mut self,
        id: SessionId,
        key: u16,
        value: u32,
    ) -> Result<(), ChannelError> {
        let session = self.sessions.get_mut(&id).ok_or(ChannelError::Gone)?;
        let told_at = session.told_at;
        let memberships = session.memberships.get_or_insert_default();
        let attributes = &mut memberships.attributes;
        match attributes.iter().position(|it| it.0 == key) {
            Some(at) if value == 0 => {
                attributes.swap_remove(at);
            }
            Some(at) => attributes[at].1 = value,
            None if value == 0 => return Ok(()),
            None if attributes.len() >= ATTRIBUTES_MAX => {
                return Err(ChannelError::TooManyOfSession);
            }
            None => attributes.push((key, value)),
        }
        if let Some(out) = told_at.and_then(|link| self.links.get_mut(&link)) {
            uplink::encode(id, &Record::Attribute { key, value }, out.of(id));
        }
        Ok(())
    }

    /// A member wants the reliable messages from a number on.
    pub(super) fn catch_up(&mut self, link: LinkId, id: SessionId, channel: ChannelId, next: u32) {
        let Self {
            sessions,
            channels,
            links,
            settings,
            counts,
            ..
        } = self;
        let found = sessions.get_mut(&id).and_then(|session| {
            if session.told_at != Some(link) {
                return None;
            }
            let version = session.client_version;
            let memberships = session.memberships.as_mut()?;
            let Memberships {
                list, attributes, ..
            } = &mut **memberships;
            let it = list.iter_mut().find(|it| it.channel == channel)?;
            Some((it, &*attributes, version))
        });
        let (Some((it, attributes, version)), Some(entry), Some(out)) =
            (found, channels.table.get(&channel), links.get_mut(&link))
        else {
            return self.drop_record(DropReason::SessionGone);
        };
        let group = settings.group;
        let out = out.of(id);
        let notify = |out: &mut Vec<u8>, notice| {
            uplink::encode_data(id, out, |out| {
                Body::Channel {
                    group,
                    channel,
                    notice,
                }
                .encode(out);
            });
        };
        let mut from = next.min(entry.next);
        if from < it.since {
            let (to, lost) = (it.since, false);
            notify(out, ChannelNotice::Skip { from, to, lost });
            from = to;
        }
        // What it was sent already is not sent again, and counts as lost for it.
        from = from.max(it.answered);
        let first = entry.next - entry.tail.len() as u32;
        if from < first {
            let (to, lost) = (first, true);
            notify(out, ChannelNotice::Skip { from, to, lost });
            from = to;
        }
        let (mut bytes, mut reached) = (0, entry.next);
        for (number, kept) in (first..).zip(&entry.tail).skip((from - first) as usize) {
            let size = CHANNEL_HEADER_BYTES + kept.payload.len();
            if bytes > 0 && bytes + size > CATCH_UP_BYTES {
                reached = number;
                break;
            }
            bytes += size;
            let attribute = |key| attributes.iter().find(|it| it.0 == key).map(|it| it.1);
            if kept.filter.passes(id, version, attribute) {
                let header = ChannelHeader {
                    lane: Lane::Reliable,
                    group,
                    number,
                    channel,
                    message: kept.message,
                };
                uplink::encode_data(id, out, |out| {
                    header.encode(out);
                    out.extend_from_slice(&kept.payload);
                });
                counts.caught_up += 1;
            } else {
                let (from, to, lost) = (number, number + 1, false);
                notify(out, ChannelNotice::Skip { from, to, lost });
            }
        }
        notify(out, ChannelNotice::CaughtUp { next: reached });
        it.answered = reached;
    }

    /// An attribute of a session.
    pub(super) fn attribute(&self, id: SessionId, key: u16) -> Option<u32> {
        self.sessions.get(&id)?.attribute(key)
    }
}

fn joined(channel: ChannelId, entry: &Channel, next: u32) -> Record<'static> {
    Record::Join {
        channel,
        incarnation: entry.incarnation,
        next,
    }
}

#[cfg(test)]
mod tests;
