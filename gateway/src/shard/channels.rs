//! Channels (PROTOCOL §13): who is a member here, the key of each, and the fan-out of what is
//! published: sealed once, or for each member.
//!
//! Not here: numbers and the tail, which are the publisher's.
//!
//! Invariants:
//! - A key is drawn from the shard's own random numbers for one epoch of one channel and given
//!   to members only. Once somebody has left, it is used for at most `EPOCH_MS_MIN` more.
//! - What is sealed under a key leaves for a member after the key itself: both go through one
//!   queue, in order.
//! - A turn hands a message to at most `FAN_OUT_PER_TURN` members. What waits is bounded by
//!   `FAN_OUT_BYTES_MAX`; beyond it the oldest is handed out at once.
//! - Who has left, even while a message is being handed out, does not get it.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::body::{Body, ChannelHeader, ChannelNotice, Lane, MessageKind};
use protocol::channel::{ChannelSealer, EVERYBODY, Filter};
use protocol::cipher::Key;
use protocol::client::compressed;
use protocol::ids::{ChannelId, GroupId, Incarnation, SessionId};
use protocol::limits::{
    ATTRIBUTES_MAX, CHANNEL_HEADER_BYTES, CHANNELS_PER_SESSION_MAX, DATAGRAM_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
};
use protocol::reason::DropReason;
use protocol::time::Now;
use protocol::uplink::Sessions;
use rustc_hash::FxHashMap;

use super::Shard;
use super::connection::{Connection, Session};
use crate::engine::ConnId;

/// Time, ms, between two epochs of a channel that members leave one after the other: each costs
/// every member a frame.
const EPOCH_MS_MIN: u64 = 100;

/// Members that are handed something in a turn: about a millisecond and a half, with what
/// the kernel does for each.
const FAN_OUT_PER_TURN: usize = 512;

/// Bytes of messages, and of lists of their receivers, that wait to be handed out.
const FAN_OUT_BYTES_MAX: usize = 16 << 20;

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

    /// The backend of a group is another one now: what the last one set is void.
    pub(super) fn forget_attributes(&mut self, group: GroupId) {
        self.attributes.retain(|it| it.group != group);
    }
}

/// A channel's name here: its publisher's uplink, and the publisher's name for it.
type Place = (u16, ChannelId);

#[derive(Debug, Default)]
struct Channel {
    members: Vec<ConnId>,
    sealer: Option<ChannelSealer>,
    /// Somebody has left who has the key.
    is_stale: bool,
}

/// Something on its way to the members of a channel.
#[derive(Debug)]
struct FanOut {
    at: Place,
    /// Who was a member when it began.
    members: Vec<ConnId>,
    next: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A CHANNEL that gives a key.
    Key(Vec<u8>),
    Message {
        header: ChannelHeader,
        filter: Filter,
        /// Of a frame.
        flags: u8,
        /// As it is sealed for a member alone.
        body: Vec<u8>,
        /// As it is sealed for all; none where it is for each.
        frame: Option<Arc<[u8]>>,
    },
}

impl FanOut {
    fn bytes(&self) -> usize {
        let what = match &self.what {
            What::Key(notice) => notice.len(),
            What::Message { body, frame, .. } => {
                body.len() + frame.as_ref().map_or(0, |frame| frame.len())
            }
        };
        what + self.members.len() * size_of::<ConnId>()
    }
}

/// All channels of a shard.
#[derive(Debug, Default)]
pub struct Channels {
    table: FxHashMap<Place, Channel>,
    /// The name of the next key.
    next_key: u32,
    fan_outs: VecDeque<FanOut>,
    fan_out_bytes: usize,
}

impl Channels {
    /// Whether something is still to be handed out.
    pub(super) fn is_busy(&self) -> bool {
        !self.fan_outs.is_empty()
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
            entry.members.push(conn);
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
        let mut whole = body[..CHANNEL_HEADER_BYTES].to_vec();
        whole.extend_from_slice(payload);
        let frame = entry.sealer.as_mut().filter(|_| once).map(|sealer| {
            let mut frame = Vec::new();
            sealer.seal(now.time, flags, &mut frame, |out| {
                out.extend_from_slice(&whole);
            });
            frame.into()
        });
        self.counters.channel_messages.add(1);
        let fan_out = FanOut {
            at: place,
            members: entry.members.clone(),
            next: 0,
            what: What::Message {
                header,
                filter: *filter,
                flags,
                body: whole,
                frame,
            },
        };
        self.begin_fan_out(now, fan_out);
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
        let members = entry.members.clone();
        let notice = ChannelNotice::Key {
            id,
            key: &key.0,
            sequence: 0,
        };
        let group = self.group_of(usize::from(place.0));
        let fan_out = FanOut {
            at: place,
            members,
            next: 0,
            what: What::Key(encoded(group, place.1, notice)),
        };
        self.begin_fan_out(now, fan_out);
    }

    fn begin_fan_out(&mut self, now: Now, fan_out: FanOut) {
        self.channels.fan_out_bytes += fan_out.bytes();
        self.channels.fan_outs.push_back(fan_out);
        while self.channels.fan_out_bytes > FAN_OUT_BYTES_MAX && self.channels.is_busy() {
            self.fan_out(now, usize::MAX);
        }
    }

    /// Once a turn: some of what waits goes to members.
    pub(super) fn fan_out_some(&mut self, now: Now) {
        let mut room = FAN_OUT_PER_TURN;
        while room > 0 && self.channels.is_busy() {
            room -= self.fan_out(now, room).min(room);
        }
    }

    /// Hands the oldest to so many members at most; to how many it did, and one for the looking.
    fn fan_out(&mut self, now: Now, members_max: usize) -> usize {
        let Some(mut fan_out) = self.channels.fan_outs.pop_front() else {
            return 0;
        };
        let begin = fan_out.next;
        let end = begin.saturating_add(members_max).min(fan_out.members.len());
        for index in begin..end {
            let id = fan_out.members[index];
            self.hand_out(now, id, &fan_out);
        }
        fan_out.next = end;
        if end < fan_out.members.len() {
            self.channels.fan_outs.push_front(fan_out);
        } else {
            self.channels.fan_out_bytes -= fan_out.bytes();
        }
        end - begin + 1
    }

    /// Hands something to one member, if it still is one.
    fn hand_out(&mut self, now: Now, id: ConnId, fan_out: &FanOut) {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        let Some(session) = connection.session_mut() else {
            return;
        };
        let memberships = session.memberships.as_mut();
        if memberships.and_then(|all| all.find(fan_out.at)).is_none() {
            return;
        }
        let group = self.uplinks[usize::from(fan_out.at.0)].group;
        let group = group.map_or(GroupId(0), |index| self.config.groups[index].group);
        let channel = fan_out.at.1;
        match &fan_out.what {
            What::Key(notice) => self.deliver(now, id, Lane::Reliable, 0, notice, &[]),
            What::Message {
                header,
                filter,
                flags,
                body,
                frame,
            } => {
                let version = session.client_version;
                let attribute = |key| session.attribute(group, key);
                if !filter.passes(session.id, version, attribute) {
                    if header.lane == Lane::Reliable {
                        let (from, to) = (header.number, header.number.saturating_add(1));
                        let lost = false;
                        let notice = ChannelNotice::Skip { from, to, lost };
                        self.notify(now, id, group, channel, notice);
                    }
                    return;
                }
                self.counters.channel_deliveries.add(1);
                match frame {
                    Some(frame) if self.hand_frame(id, header.lane, frame) => {}
                    _ => {
                        let (head, payload) = body.split_at(CHANNEL_HEADER_BYTES);
                        self.deliver(now, id, header.lane, *flags, head, payload);
                    }
                }
            }
        }
    }

    /// Sends a member the frame that is sealed for all, where its connection carries such;
    /// whether it does.
    fn hand_frame(&mut self, id: ConnId, lane: Lane, frame: &Arc<[u8]>) -> bool {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return true;
        };
        if !connection.is_stream() {
            // What must not get lost is the reliable lane's of the datagrams.
            return lane != Lane::Reliable && self.queue_shared(id, frame);
        }
        let waits = lane != Lane::Reliable && connection.is_behind(&self.config);
        if waits || !connection.make_room(frame.len(), &self.config, &self.counters) {
            // What becomes of it is decided where every other message's is.
            return false;
        }
        if connection.out.capacity() == 0 {
            connection.out = self.buffers.take();
        }
        connection.out.extend_from_slice(frame);
        self.counters.frames_sent.add(1);
        self.list_for_send(id);
        true
    }

    /// The same over datagrams: the frame goes as it is behind the connection's id.
    fn queue_shared(&mut self, id: ConnId, frame: &Arc<[u8]>) -> bool {
        let (Some(connection), Some(side)) =
            (Self::at(&mut self.connections, id), &mut self.datagrams)
        else {
            return false;
        };
        let fits = protocol::datagram::CID_BYTES + frame.len() <= DATAGRAM_BYTES_MAX;
        let in_doubt = connection
            .datagrams
            .as_ref()
            .is_none_or(|it| it.is_in_doubt());
        let queued = fits && !in_doubt && side.push_shared(id, frame);
        if queued {
            self.counters.frames_sent.add(1);
        }
        queued
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
        entry.members.swap_remove(index);
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
            for conn in &entry.members {
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
