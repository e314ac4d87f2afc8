//! What may get lost, for a client that reads too slowly: messages that are not sealed yet, so
//! that one can still take another's place.
//!
//! It bounds nothing by itself: `Backlog::push` is told how much may wait. Invariant: of one key
//! there is at most one message, and numbers of the sequenced lane leave in their order.

use std::collections::VecDeque;

use protocol::body::sequenced_group;
use protocol::ids::GroupId;

/// Messages that wait for one client: a second of a busy game's. It bounds a look at all of them,
/// which each one costs as it comes and as it leaves.
const MESSAGES_MAX: usize = 256;

/// What two messages have in common of which only the newer one is worth sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The group that sends them.
    pub group: GroupId,
    /// Its own key.
    pub key: u32,
}

/// One message.
#[derive(Debug)]
pub struct Waiting {
    /// Where it is only the latest that counts.
    pub key: Option<Key>,
    /// Flags of its frame.
    pub flags: u8,
    /// Bytes of its header in `body`.
    pub header_bytes: u8,
    /// The encoded body.
    pub body: Box<[u8]>,
}

/// What a message did to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Displaced {
    /// One of the same key that it took the place of.
    pub coalesced: u64,
    /// The oldest ones, for which there was no room, itself perhaps.
    pub dropped: u64,
}

/// The messages that wait, the oldest in front.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// Where the number lies in an encoded message (PROTOCOL §5).
const NUMBER: std::ops::Range<usize> = 4..8;

impl Waiting {
    fn number(&self) -> u32 {
        u32::from_le_bytes(self.body[NUMBER].try_into().unwrap_or_default())
    }
}

impl Backlog {
    /// Bytes of all bodies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a message in. One of the same key gives it its place; for any other the oldest make
    /// room, until `bytes_max` are kept, and no more than `MESSAGES_MAX`.
    pub fn push(&mut self, message: Waiting, bytes_max: usize) -> Displaced {
        let mut displaced = Displaced::default();
        self.bytes += message.body.len();
        let same = message.key.and_then(|key| {
            let mut waiting = self.waiting.iter_mut();
            waiting.find(|it| it.key == Some(key))
        });
        match same {
            Some(older) => {
                let older = std::mem::replace(older, message);
                self.bytes -= older.body.len();
                displaced.coalesced = 1;
            }
            None => self.waiting.push_back(message),
        }
        displaced.dropped = self.shrink(bytes_max);
        displaced
    }

    /// Drops the oldest until at most so many bytes are kept, and messages; how many messages those were.
    pub fn shrink(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        while (self.bytes > bytes_max || self.len() > MESSAGES_MAX) && self.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    /// The oldest message.
    pub fn pop(&mut self) -> Option<Waiting> {
        let mut message = self.waiting.pop_front()?;
        self.bytes -= message.body.len();
        self.take_lowest_number(&mut message);
        Some(message)
    }

    /// A message that took an older one's place has a higher number than some that stand behind
    /// it, which the client would then pass over. So the first one leaves with the lowest
    /// number of its lane, and whoever had that gets its own.
    fn take_lowest_number(&mut self, first: &mut Waiting) {
        let group = sequenced_group(&first.body);
        if group.is_none() {
            return;
        }
        let number = first.number();
        let behind = self.waiting.iter_mut();
        let lowest = behind
            .filter(|it| sequenced_group(&it.body) == group)
            .min_by_key(|it| it.number().wrapping_sub(number) as i32);
        if let Some(lowest) = lowest.filter(|it| (it.number().wrapping_sub(number) as i32) < 0) {
            let (front, back) = (&mut first.body[NUMBER], &mut lowest.body[NUMBER]);
            front.swap_with_slice(back);
        }
    }
}

#[cfg(test)]
mod tests;
