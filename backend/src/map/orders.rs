//! What passes between the roster and the partitions of a map in one tick: three batches.
//!
//! [`Orders`] go from the roster to a partition, a [`Handover`] from one partition to another,
//! [`Told`] from a partition to whoever sends frames. They are plain memory that is filled,
//! read, cleared and filled again, so a tick allocates nothing once the largest numbers have
//! been seen. They decide nothing.
//!
//! Invariant: what a batch says of one player it says at most once.

use protocol::ids::SessionId;
use protocol::world::Point;

use super::Frame;
use super::node::Arrival;

/// A player's slot at a node, by the node's place in its partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) node: u32,
    pub(super) slot: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    pub(super) seat: Seat,
    pub(super) arrival: Arrival,
    /// It is new on the map and stands in the node's rectangle: its view begins empty.
    pub(super) is_new: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Stepped {
    pub(super) seat: Seat,
    pub(super) at: Point,
    pub(super) jumped: bool,
}

/// A view that goes from one node to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Released {
    pub(super) from: Seat,
    /// The partition of `to`.
    pub(super) partition: u8,
    pub(super) to: Seat,
}

/// What players did since the last tick, as far as one partition's nodes have to know.
#[derive(Debug, Default)]
pub struct Orders {
    pub(super) tick: u32,
    pub(super) watched: Vec<Watched>,
    pub(super) stepped: Vec<Stepped>,
    pub(super) released: Vec<Released>,
    pub(super) unwatched: Vec<Seat>,
    /// Bits of the partitions whose hand-overs have to be there before the tick.
    pub(super) awaited: u64,
}

impl Orders {
    /// Number of the tick.
    pub fn tick(&self) -> u32 {
        self.tick
    }

    /// Whether a partition hands views over to this one.
    pub fn awaits(&self, partition: usize) -> bool {
        self.awaited >> partition & 1 != 0
    }

    pub(super) fn clear(&mut self) {
        self.watched.clear();
        self.stepped.clear();
        self.released.clear();
        self.unwatched.clear();
        self.awaited = 0;
    }
}

/// Views that go from one partition to another, as ids, since slots mean nothing elsewhere.
#[derive(Debug, Default)]
pub struct Handover {
    /// Where each view goes, and how many of `ids` are its.
    pub(super) views: Vec<(Seat, u8)>,
    pub(super) ids: Vec<u32>,
}

impl Handover {
    /// Whether there is nothing to hand over.
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Forgets everything, to be filled again.
    pub fn clear(&mut self) {
        self.views.clear();
        self.ids.clear();
    }
}

#[derive(Debug, Clone, Copy)]
struct Head {
    session: SessionId,
    bytes: u32,
    is_changes: bool,
}

/// What the players of one partition are to be told of one tick.
#[derive(Debug, Default)]
pub struct Told {
    heads: Vec<Head>,
    bytes: Vec<u8>,
}

impl Told {
    /// Forgets everything, to be filled again.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.bytes.clear();
    }

    /// Takes a frame up.
    pub fn push(&mut self, session: SessionId, frame: Frame<'_>) {
        let (Frame::Changes(bytes) | Frame::Positions(bytes)) = frame;
        self.heads.push(Head {
            session,
            // A frame has some kilobytes at most.
            bytes: bytes.len() as u32,
            is_changes: matches!(frame, Frame::Changes(_)),
        });
        self.bytes.extend_from_slice(bytes);
    }

    /// The frames, in the order in which they were taken up.
    pub fn frames(&self) -> impl Iterator<Item = (SessionId, Frame<'_>)> {
        let mut rest = self.bytes.as_slice();
        self.heads.iter().map(move |head| {
            let (bytes, others) = rest.split_at(head.bytes as usize);
            rest = others;
            let frame = if head.is_changes {
                Frame::Changes(bytes)
            } else {
                Frame::Positions(bytes)
            };
            (head.session, frame)
        })
    }
}
