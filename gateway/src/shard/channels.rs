//! Channels (PROTOCOL §13): who is a member here, the key of each, and what is published: sealed
//! once, or for each member.
//!
//! Not here: how it reaches the members, which is [`fan_out`]'s; numbers and the tail, which are the
//! publisher's.
//!
//! Invariants:
//! - A key is drawn from the shard's own random numbers for one epoch of one channel and given
//!   to members only. Once somebody has left, it is used for at most `EPOCH_MS_MIN` more.
//! - What is sealed under a key leaves for a member after the key itself: both go through one
//!   queue, in order.

mod fan_out;

use std::sync::Arc;

use protocol::body::{Body, ChannelNotice, Lane, MessageKind};
use protocol::channel::{ChannelSealer, EVERYBODY, Filter, KEY_ID_BYTES};
use protocol::cipher::Key;
use protocol::client::compressed;
use protocol::ids::{ChannelId, GroupId, Incarnation, SessionId};
use protocol::limits::{
    ATTRIBUTES_MAX, CHANNEL_HEADER_BYTES, CHANNELS_PER_SESSION_MAX, PAYLOAD_BYTES_MAX,
    SEALED_FRAME_BYTES_MIN,
};
use protocol::reason::DropReason;
use protocol::time::Now;
use protocol::uplink::Sessions;
use rustc_hash::FxHashMap;

use super::Shard;
use super::connection::{Connection, Session};
use crate::engine::ConnId;
use fan_out::{FanOuts, SharedFrame, What};

/// Time, ms, between two epochs of a channel that members leave one after the other: each costs
/// every member a frame.
const EPOCH_MS_MIN: u64 = 100;

/// What a session has of channels and attributes; most sessions have neither.
#[derive(Debug, Default)]
pub struct Memberships {
    list: Vec<Membership>,
    attributes: Vec<Attribute>,
}

#[derive(Debug)]
struct Membership {
    at: Place,
    /// Where it stands among the channel's members.
    index: u32,
}

#[derive(Debug)]
struct Attribute {
    group: GroupId,
    key: u16,
    value: u32,
}

impl Memberships {
    fn find(&mut self, at: Place) -> Option<&mut Membership> {
        self.list.iter_mut().find(|it| it.at == at)
    }

    /// How many attributes there are.
    pub(super) fn attributes(&self) -> usize {
        self.attributes.len()
    }

    /// The backend of a group is another one now: what the last one set is void.
    pub(super) fn forget_attributes(&mut self, group: GroupId) {
        self.attributes.retain(|it| it.group != group);
    }
}

/// A channel's name here: its publisher's uplink, and the publisher's name for it.
type Place = (u16, ChannelId);

#[derive(Debug, Default)]
struct Channel {
    /// What is being handed out shares the list: who comes or goes meanwhile makes another one.
    members: Arc<Vec<ConnId>>,
    sealer: Option<ChannelSealer>,
    /// Somebody has left who has the key.
    is_stale: bool,
}

/// All channels of a shard.
#[derive(Debug, Default)]
pub struct Channels {
    table: FxHashMap<Place, Channel>,
    /// The name of the next key.
    next_key: u32,
    waiting: FanOuts,
}

impl Channels {
    /// Whether something is still to be handed out.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Session {
    fn attribute(&self, group: GroupId, key: u16) -> Option<u32> {
        let mut all = self.memberships.as_ref()?.attributes.iter();
        all.find(|it| it.group == group && it.key == key)
            .map(|it| it.value)
    }
}

impl Shard {
    /// The connection of a session that is open at this uplink.
    fn bound(&mut self, at: usize, id: SessionId) -> Option<(ConnId, &mut Session)> {
        let conn = *self.sessions.get(&id)?;
        let uplink = &self.uplinks[at];
        let connection = Self::at(&mut self.connections, conn)?;
        let session = connection.session_mut()?;
        let binding = session.bindings.get(uplink.group?)?;
        let is_bound = binding.uplink == Some(at as u16) && uplink.holds(binding);
        is_bound.then_some((conn, session))
    }

    fn group_of(&self, at: usize) -> GroupId {
        let group = self.uplinks[at].group;
        group.map_or(GroupId(0), |index| self.config.groups[index].group)
    }

    /// The channels of a session, with their groups.
    pub(super) fn channels_of(
        &self,
        session: &Session,
    ) -> impl Iterator<Item = (GroupId, ChannelId)> {
        let list = session.memberships.iter().flat_map(|it| &it.list);
        list.map(|it| (self.group_of(usize::from(it.at.0)), it.at.1))
    }

    pub(super) fn handle_join(
        &mut self,
        now: Now,
        at: usize,
        id: SessionId,
        channel: ChannelId,
        incarnation: Incarnation,
        next: u32,
    ) {
        let place = (at as u16, channel);
        let group = self.group_of(at);
        let Some((conn, session)) = self.bound(at, id) else {
            return self.counters.drop_frame(DropReason::SessionGone);
        };
        let memberships = session.memberships.get_or_insert_default();
        let is_member = memberships.find(place).is_some();
        if !is_member && memberships.list.len() >= CHANNELS_PER_SESSION_MAX {
            return self.counters.drop_frame(DropReason::BadRecord);
        }
        let entry = self.channels.table.entry(place).or_default();
        if !is_member {
            let index = entry.members.len() as u32;
            Arc::make_mut(&mut entry.members).push(conn);
            self.counters.channel_members.add(1);
            if let Some((_, session)) = self.bound(at, id)
                && let Some(memberships) = &mut session.memberships
            {
                memberships.list.push(Membership { at: place, index });
            }
        }
        self.count_channels();
        let notice = ChannelNotice::Joined { incarnation, next };
        self.notify(now, conn, group, channel, notice);
        if self.seals_once(channel) {
            // The first key is drawn for the first message.
            let sealer = self
                .channels
                .table
                .get(&place)
                .and_then(|it| it.sealer.as_ref());
            if let Some(sealer) = sealer {
                // Frames sealed before may still be on their way to others, not to this one.
                let (id, key, sequence) = (sealer.id(), sealer.key().clone(), sealer.sequence());
                let key = &key.0;
                let notice = ChannelNotice::Key { id, key, sequence };
                self.notify(now, conn, group, channel, notice);
            }
        }
    }

    pub(super) fn handle_leave(&mut self, now: Now, at: usize, id: SessionId, channel: ChannelId) {
        let group = self.group_of(at);
        let Some((conn, session)) = self.bound(at, id) else {
            return self.counters.drop_frame(DropReason::SessionGone);
        };
        let place = (at as u16, channel);
        if let Some(memberships) = &mut session.memberships
            && let Some(position) = memberships.list.iter().position(|it| it.at == place)
        {
            let left = memberships.list.swap_remove(position);
            self.remove_member(conn, &left);
        }
        self.notify(now, conn, group, channel, ChannelNotice::Left);
    }

    pub(super) fn handle_attribute(&mut self, at: usize, id: SessionId, key: u16, value: u32) {
        let group = self.group_of(at);
        let Some((_, session)) = self.bound(at, id) else {
            return self.counters.drop_frame(DropReason::SessionGone);
        };
        let attributes = &mut session.memberships.get_or_insert_default().attributes;
        attributes.retain(|it| it.group != group || it.key != key);
        if value == 0 {
            return;
        }
        if attributes.len() >= ATTRIBUTES_MAX {
            return self.counters.drop_frame(DropReason::BadRecord);
        }
        attributes.push(Attribute { group, key, value });
    }

    /// One message of the unreliable lane to several sessions, each sealed for itself.
    pub(super) fn handle_list(&mut self, now: Now, at: usize, sessions: Sessions<'_>, body: &[u8]) {
        let Ok(Body::Message { header, payload }) = Body::decode(body) else {
            return self.counters.drop_frame(DropReason::BadRecord);
        };
        if header.kind != MessageKind::Message
            || header.lane != Lane::Unreliable
            || header.group != self.group_of(at)
            || payload.len() > PAYLOAD_BYTES_MAX
        {
            return self.counters.drop_frame(DropReason::BadRecord);
        }
        let head = &body[..header.encoded_bytes()];
        let bytes_min = self.config.compress_bytes_min;
        let (flags, payload) = compressed(payload, bytes_min, &mut self.scratch);
        let payload = payload.to_vec();
        for id in sessions.iter() {
            match self.bound(at, id) {
                Some((conn, _)) => self.deliver(now, conn, header.lane, flags, head, &payload),
                None => self.counters.drop_frame(DropReason::SessionGone),
            }
        }
    }

    pub(super) fn handle_publish(&mut self, now: Now, at: usize, filter: &Filter, body: &[u8]) {
        let Ok(Body::ChannelMessage { header, payload }) = Body::decode(body) else {
            return self.counters.drop_frame(DropReason::BadRecord);
        };
        if header.group != self.group_of(at) || payload.len() > PAYLOAD_BYTES_MAX {
            return self.counters.drop_frame(DropReason::BadRecord);
        }
        let place = (at as u16, header.channel);
        if !self.channels.table.contains_key(&place) {
            // The last member has just left.
            return;
        }
        let once = self.seals_once(header.channel);
        if once {
            self.renew_epoch(now, place);
        }
        let Some(entry) = self.channels.table.get_mut(&place) else {
            return;
        };
        let bytes_min = self.config.compress_bytes_min;
        let (flags, payload) = compressed(payload, bytes_min, &mut self.scratch);
        let mut whole = Vec::with_capacity(CHANNEL_HEADER_BYTES + payload.len());
        whole.extend_from_slice(&body[..CHANNEL_HEADER_BYTES]);
        whole.extend_from_slice(payload);
        let frame = entry.sealer.as_mut().filter(|_| once).map(|sealer| {
            let mut frame = Vec::with_capacity(SEALED_FRAME_BYTES_MIN + KEY_ID_BYTES + whole.len());
            sealer.seal(now.time, flags, &mut frame, |out| {
                out.extend_from_slice(&whole);
            });
            SharedFrame::new(frame)
        });
        self.counters.channel_messages.add(1);
        let members = Arc::clone(&entry.members);
        let what = What::Message {
            header,
            filter: *filter,
            flags,
            body: whole,
            frame,
        };
        self.begin_fan_out(now, place, members, what);
    }

    /// Whether the members share a key: everybody would hold that of everybody.
    fn seals_once(&self, channel: ChannelId) -> bool {
        self.config.seal_channels_once && channel != EVERYBODY
    }

    /// Before something is sealed: a new key where somebody has left or the present one is worn.
    fn renew_epoch(&mut self, now: Now, place: Place) {
        let Some(entry) = self.channels.table.get(&place) else {
            return;
        };
        let ends = match &entry.sealer {
            None => true,
            Some(sealer) => {
                let is_old = now.time >= sealer.since().after_ms(EPOCH_MS_MIN);
                sealer.is_worn(now.time) || (entry.is_stale && is_old)
            }
        };
        if ends {
            self.begin_epoch(now, place);
        }
    }

    /// Draws a key and gives it to all members, ahead of what is sealed under it.
    fn begin_epoch(&mut self, now: Now, place: Place) {
        let key = Key(self.ephemeral());
        let id = self.channels.next_key;
        // After 2³² epochs a name comes again, long after its key is forgotten.
        self.channels.next_key = id.wrapping_add(1);
        let Some(entry) = self.channels.table.get_mut(&place) else {
            return;
        };
        let policy = self.config.rekey;
        entry.sealer = Some(ChannelSealer::new(id, key.clone(), now.time, policy));
        entry.is_stale = false;
        self.counters.channel_epochs.add(1);
        let members = Arc::clone(&entry.members);
        let notice = ChannelNotice::Key {
            id,
            key: &key.0,
            sequence: 0,
        };
        let group = self.group_of(usize::from(place.0));
        let what = What::Key(encoded(group, place.1, notice));
        self.begin_fan_out(now, place, members, what);
    }

    fn notify(
        &mut self,
        now: Now,
        id: ConnId,
        group: GroupId,
        channel: ChannelId,
        notice: ChannelNotice<'_>,
    ) {
        let bytes = encoded(group, channel, notice);
        self.deliver(now, id, Lane::Reliable, 0, &bytes, &[]);
    }

    fn remove_member(&mut self, conn: ConnId, left: &Membership) {
        let Some(entry) = self.channels.table.get_mut(&left.at) else {
            return;
        };
        let index = left.index as usize;
        if entry.members.get(index) != Some(&conn) {
            return;
        }
        Arc::make_mut(&mut entry.members).swap_remove(index);
        entry.is_stale = true;
        let moved = entry.members.get(index).copied();
        if entry.members.is_empty() {
            self.channels.table.remove(&left.at);
        }
        self.counters.channel_members.sub(1);
        if let Some(moved) = moved
            && let Some(connection) = Self::at(&mut self.connections, moved)
            && let Some(session) = connection.session_mut()
            && let Some(memberships) = &mut session.memberships
            && let Some(it) = memberships.find(left.at)
        {
            it.index = left.index;
        }
        self.count_channels();
    }

    /// A session's connection is over: it is in no channel here any more. Where it comes
    /// back, its backends say anew which it is in.
    pub(super) fn leave_channels(&mut self, conn: ConnId, session: &mut Session) {
        if let Some(memberships) = session.memberships.take() {
            for left in &memberships.list {
                self.remove_member(conn, left);
            }
        }
    }

    /// An uplink is gone, and its channels with it.
    pub(super) fn forget_channels(&mut self, at: usize) {
        let uplink = at as u16;
        let places: Vec<Place> = self.channels.table.keys().copied().collect();
        for place in places.into_iter().filter(|place| place.0 == uplink) {
            let Some(entry) = self.channels.table.remove(&place) else {
                continue;
            };
            for conn in entry.members.iter() {
                if let Some(connection) = Self::at(&mut self.connections, *conn)
                    && let Some(session) = connection.session_mut()
                    && let Some(memberships) = &mut session.memberships
                {
                    memberships.list.retain(|it| it.at != place);
                }
            }
            self.counters
                .channel_members
                .sub(entry.members.len() as u64);
        }
        self.count_channels();
    }

    fn count_channels(&self) {
        self.counters.channels.set(self.channels.table.len() as u64);
    }
}

fn encoded(group: GroupId, channel: ChannelId, notice: ChannelNotice<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    let body = Body::Channel {
        group,
        channel,
        notice,
    };
    body.encode(&mut bytes);
    bytes
}

impl Connection {
    fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            super::connection::Phase::Session(session) => Some(session),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
