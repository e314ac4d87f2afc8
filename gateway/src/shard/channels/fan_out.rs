//! How what is published reaches the members: in the order in which it was, some of them a turn, and
//! by reference where each gets the same bytes.
//!
//! Not here: who is a member and under which key something is sealed, which is the parent's.
//!
//! Invariants:
//! - A turn hands something to at most `MEMBERS_PER_TURN` members. What waits is bounded by
//!   `WAITING_BYTES_MAX`; beyond it the oldest is handed out at once.
//! - Who has left, even while a message is being handed out, does not get it; who has come since does
//!   not either.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use protocol::body::{ChannelHeader, ChannelNotice, Lane};
use protocol::channel::Filter;
use protocol::limits::{CHANNEL_HEADER_BYTES, DATAGRAM_BYTES_MAX};
use protocol::time::Now;

use super::Place;
use crate::engine::ConnId;
use crate::front::Front;
use crate::shard::Shard;

/// Members that are handed something in a turn: about half a millisecond, with what the kernel does for
/// each. With 512 the p50 of others' requests was five times as long in a storm; a turn itself costs what
/// one member does.
pub(super) const MEMBERS_PER_TURN: usize = 64;

/// Bytes of messages, and of lists of their receivers, that wait to be handed out. A list counts with
/// each message that shares it, so this bounds the work that waits too: of a channel with 10,000
/// members, 200 messages.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Something on its way to the members of a channel.
#[derive(Debug)]
struct FanOut {
    at: Place,
    /// Who was a member when it began.
    members: Arc<Vec<ConnId>>,
    next: usize,
    what: What,
}

#[derive(Debug)]
pub(super) enum What {
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
        frame: Option<SharedFrame>,
    },
}

/// A frame that many get.
#[derive(Debug)]
pub(super) struct SharedFrame {
    bytes: Arc<[u8]>,
    /// The same in a WebSocket's message, once a member has one: the header in front of it is the
    /// same for all of them.
    message: OnceCell<Arc<[u8]>>,
}

impl SharedFrame {
    pub(super) fn new(frame: Vec<u8>) -> Self {
        Self {
            bytes: frame.into(),
            message: OnceCell::new(),
        }
    }

    /// What goes to the socket of a member.
    fn behind(&self, front: Option<&Front>) -> &Arc<[u8]> {
        match front {
            None => &self.bytes,
            Some(_) => self
                .message
                .get_or_init(|| Front::message_of(&self.bytes).into()),
        }
    }
}

impl FanOut {
    fn bytes(&self) -> usize {
        let what = match &self.what {
            What::Key(notice) => notice.len(),
            // Twice: for WebSockets there may be another one.
            What::Message { body, frame, .. } => {
                body.len() + frame.as_ref().map_or(0, |frame| 2 * frame.bytes.len())
            }
        };
        what + self.members.len() * size_of::<ConnId>()
    }
}

/// What waits to be handed out, the oldest first.
#[derive(Debug, Default)]
pub(super) struct FanOuts {
    queue: VecDeque<FanOut>,
    bytes: usize,
}

impl FanOuts {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Shard {
    pub(super) fn begin_fan_out(
        &mut self,
        now: Now,
        at: Place,
        members: Arc<Vec<ConnId>>,
        what: What,
    ) {
        let fan_out = FanOut {
            at,
            members,
            next: 0,
            what,
        };
        let waiting = &mut self.channels.waiting;
        waiting.bytes += fan_out.bytes();
        waiting.queue.push_back(fan_out);
        while self.channels.waiting.bytes > WAITING_BYTES_MAX && self.channels.is_busy() {
            self.fan_out(now, usize::MAX);
        }
    }

    /// Once a turn: some of what waits goes to members.
    pub(in crate::shard) fn fan_out_some(&mut self, now: Now) {
        let mut room = MEMBERS_PER_TURN;
        while room > 0 && self.channels.is_busy() {
            room -= self.fan_out(now, room).min(room);
        }
    }

    /// Hands the oldest to so many members at most; to how many it did, and one for the looking.
    fn fan_out(&mut self, now: Now, members_max: usize) -> usize {
        let Some(mut fan_out) = self.channels.waiting.queue.pop_front() else {
            return 0;
        };
        // While the list is the channel's own, nobody has left. Whoever leaves from here on does so
        // because its connection ends.
        let channel = self.channels.table.get(&fan_out.at);
        let is_current = channel.is_some_and(|it| Arc::ptr_eq(&it.members, &fan_out.members));
        let begin = fan_out.next;
        let end = begin.saturating_add(members_max).min(fan_out.members.len());
        for index in begin..end {
            let id = fan_out.members[index];
            self.hand_out(now, id, &fan_out, is_current);
        }
        fan_out.next = end;
        let waiting = &mut self.channels.waiting;
        if end < fan_out.members.len() {
            waiting.queue.push_front(fan_out);
        } else {
            waiting.bytes -= fan_out.bytes();
        }
        end - begin + 1
    }

    /// Hands something to one member, if it still is one.
    fn hand_out(&mut self, now: Now, id: ConnId, fan_out: &FanOut, is_current: bool) {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        let Some(session) = connection.session_mut() else {
            return;
        };
        if !is_current {
            let memberships = session.memberships.as_mut();
            if memberships.and_then(|all| all.find(fan_out.at)).is_none() {
                return;
            }
        }
        match &fan_out.what {
            What::Key(notice) => self.deliver(now, id, Lane::Reliable, 0, notice, &[]),
            What::Message {
                header,
                filter,
                flags,
                body,
                frame,
            } => {
                // Most messages are for all, and then nothing of the session is looked at.
                if *filter != Filter::ALL {
                    let version = session.client_version;
                    let attribute = |key| session.attribute(header.group, key);
                    if !filter.passes(session.id, version, attribute) {
                        return self.skip(now, id, header);
                    }
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

    /// A member does not get a message. It is told so where it would miss it.
    fn skip(&mut self, now: Now, id: ConnId, header: &ChannelHeader) {
        if header.lane == Lane::Reliable {
            let (from, to) = (header.number, header.number.saturating_add(1));
            let lost = false;
            let notice = ChannelNotice::Skip { from, to, lost };
            self.notify(now, id, header.group, header.channel, notice);
        }
    }

    /// Sends a member the frame that is sealed for all, where its connection carries such;
    /// whether it does.
    fn hand_frame(&mut self, id: ConnId, lane: Lane, frame: &SharedFrame) -> bool {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return true;
        };
        if !connection.is_stream() {
            // What must not get lost is the reliable lane's of the datagrams.
            return lane != Lane::Reliable && self.queue_shared(id, &frame.bytes);
        }
        let waits = lane != Lane::Reliable && connection.is_behind(&self.config);
        let bytes = frame.behind(connection.front.as_deref());
        if waits || !connection.make_room(bytes.len(), &self.config, &self.counters) {
            // What becomes of it is decided where every other message's is.
            return false;
        }
        connection.push_shared(&frame.bytes, bytes, &mut self.buffers);
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
}
