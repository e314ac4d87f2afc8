//! Clients that read more slowly than they are sent to: what may get lost is kept unsealed behind
//! what is on its way, so that the newest of it is what they get.
//!
//! It closes nobody. Invariant: no more than `send_queue_bytes_max` waits for a client; what is
//! reliable takes the room of what may get lost.

use protocol::body::Lane;
use protocol::buffers::Buffers;
use protocol::reason::DropReason;
use protocol::time::{Now, Time};

use super::ShardConfig;
use super::backlog::{Displaced, Key, Waiting};
use super::connection::Connection;
use super::story::Event;
use crate::counters::Counters;

/// The part of its queue from which on a client is behind. The rest is for what is reliable and for
/// what is kept.
const BEHIND_PART: usize = 4;

/// So many messages wait no longer.
fn leave(counters: &Counters, messages: u64) {
    let waiting = counters.backlog_messages.value();
    counters.backlog_messages.set(waiting - messages);
}

/// A body for a client, in two pieces.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) lane: Lane,
    /// Where only the latest counts.
    pub(super) key: Option<Key>,
    /// Of its frame.
    pub(super) flags: u8,
    pub(super) head: &'a [u8],
    pub(super) rest: &'a [u8],
}

/// What has become of one.
#[derive(Debug)]
pub(super) enum Way {
    /// It is sealed behind what waits.
    Stream,
    /// It goes by the path of datagrams beside the stream.
    Beside,
    /// It waits until what is sealed has left.
    Backlog,
    /// There is no room, and it may get lost.
    Lost,
    /// There is no room, and it may not.
    TooSlow,
}

impl Connection {
    /// Takes a body, as its lane demands and the client's pace allows.
    pub(super) fn take(
        &mut self,
        now: Time,
        outgoing: &Outgoing<'_>,
        config: &ShardConfig,
        counters: &Counters,
        buffers: &mut Buffers,
    ) -> Way {
        let &Outgoing {
            lane,
            key,
            flags,
            head,
            rest,
        } = outgoing;
        let may_wait = lane != Lane::Reliable && self.is_behind(config);
        if !may_wait && !self.make_room(head.len() + rest.len(), config, counters) {
            if lane == Lane::Reliable {
                return Way::TooSlow;
            }
            counters.drop_frame(DropReason::SendQueueFull);
            return Way::Lost;
        }
        if lane != Lane::Reliable && self.push_beside(now, flags, head, rest) {
            return Way::Beside;
        }
        if may_wait {
            let message = Waiting {
                key,
                flags,
                header_bytes: head.len() as u8,
                body: [head, rest].concat().into(),
            };
            if self.backlog.is_none() {
                self.note(now, Event::Slow, 0);
            }
            self.wait(message, config, counters);
            return Way::Backlog;
        }
        if self.is_stream() && self.out.capacity() == 0 {
            self.out = buffers.take();
        }
        self.seal_encoded(now, flags, head, rest);
        Way::Stream
    }

    /// Whether what may get lost is to wait.
    pub(super) fn is_behind(&self, config: &ShardConfig) -> bool {
        // Datagrams leave, or get lost, by themselves.
        self.is_stream()
            && (self.backlog.is_some()
                || self.sealed_bytes() > config.send_queue_bytes_max / BEHIND_PART)
    }

    /// Makes room for so many bytes that are to be sealed. Whether there is.
    pub(super) fn make_room(
        &mut self,
        bytes: usize,
        config: &ShardConfig,
        counters: &Counters,
    ) -> bool {
        let room = config
            .send_queue_bytes_max
            .checked_sub(self.sealed_bytes() + bytes);
        let Some(room) = room else {
            return false;
        };
        if let Some(backlog) = &mut self.backlog {
            let dropped = backlog.shrink(room);
            counters.drop_frames(DropReason::SendQueueFull, dropped);
            leave(counters, dropped);
        }
        true
    }

    /// Keeps a message until what is on its way has left.
    fn wait(&mut self, message: Waiting, config: &ShardConfig, counters: &Counters) {
        let room = config
            .send_queue_bytes_max
            .saturating_sub(self.sealed_bytes());
        let backlog = self.backlog.get_or_insert_default();
        let Displaced { coalesced, dropped } = backlog.push(message, room);
        counters.drop_frames(DropReason::Coalesced, coalesced);
        counters.drop_frames(DropReason::SendQueueFull, dropped);
        let waiting = counters.backlog_messages.value() + 1;
        counters.backlog_messages.set(waiting - coalesced - dropped);
    }

    /// Seals of what is kept as much as makes the client no slower than it is.
    pub(super) fn send_backlog(&mut self, config: &ShardConfig, now: Now, counters: &Counters) {
        let Some(mut backlog) = self.backlog.take() else {
            return;
        };
        while self.sealed_bytes() <= config.send_queue_bytes_max / BEHIND_PART
            && let Some(message) = backlog.pop()
        {
            let (head, payload) = message.body.split_at(usize::from(message.header_bytes));
            self.seal_encoded(now.time, message.flags, head, payload);
            counters.frames_sent.add(1);
            leave(counters, 1);
        }
        if backlog.len() > 0 {
            self.backlog = Some(backlog);
        }
    }

    /// The connection ends, and with it what was kept.
    pub(super) fn drop_backlog(&mut self, counters: &Counters) {
        let lost = self
            .backlog
            .take()
            .map_or(0, |backlog| backlog.len() as u64);
        counters.drop_frames(DropReason::SendQueueFull, lost);
        leave(counters, lost);
    }

    /// When what is being sent has waited too long; nothing while nothing is.
    pub(super) fn write_deadline(&self, timeout_ms: u32) -> Option<Time> {
        (self.in_flight_bytes > 0).then(|| self.in_flight_since.after_ms(u64::from(timeout_ms)))
    }
}
