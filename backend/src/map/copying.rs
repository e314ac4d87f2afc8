//! A partition's snapshot: which of its players have been copied.
//!
//! Nodes are copied one after another, between ticks. A player that comes to a node that has
//! been copied already is copied as it comes, so that one that wanders meanwhile is not missed.
//! It may be copied twice; the later copy counts.
//!
//! Invariant: whoever was here when the snapshot began, and is at one of these nodes when it
//! ends, is in it.

use super::orders::Seat;
use super::partition::Partition;
use super::snapshot::{PLAYER_BYTES, Standing};

/// Players after which a slice is cut at the next node: some 30 microseconds.
const SLICE_PLAYERS: usize = 1_024;

/// A snapshot under way.
#[derive(Debug, Default)]
pub(super) struct Copying {
    /// Nodes that have been copied.
    nodes: usize,
    /// Players that came to one of them since the last slice.
    strays: Vec<Standing>,
}

impl Partition {
    /// Begins a snapshot, in the place of one that is under way.
    pub fn begin_snapshot(&mut self) {
        self.copying = Some(Copying::default());
    }

    /// Whether a snapshot is under way.
    pub fn is_in_snapshot(&self) -> bool {
        self.copying.is_some()
    }

    /// Whether all nodes have been copied.
    pub fn is_copied(&self) -> bool {
        let copying = self.copying.as_ref();
        copying.is_some_and(|copying| copying.nodes == self.nodes.len())
    }

    /// Appends the next players.
    pub fn copy_slice(&mut self, out: &mut Vec<u8>) {
        let Some(copying) = &mut self.copying else {
            return;
        };
        for stray in copying.strays.drain(..) {
            stray.encode(out);
        }
        // Beside them, however many they are: a crowd on the move must not keep the nodes waiting.
        let full = out.len() + SLICE_PLAYERS * PLAYER_BYTES;
        while out.len() < full
            && let Some(node) = self.nodes.get(copying.nodes)
        {
            node.standings(self.tick, &mut |standing| standing.encode(out));
            copying.nodes += 1;
        }
    }

    /// Ends the snapshot if everything has been given out; says whether it has.
    pub fn end_snapshot(&mut self) -> bool {
        let is_done = self.is_copied()
            && (self.copying.as_ref()).is_some_and(|copying| copying.strays.is_empty());
        if is_done {
            self.copying = None;
        }
        is_done
    }

    /// A player has come to a node.
    pub(super) fn note_arrival(&mut self, seat: Seat) {
        if let Some(copying) = &mut self.copying
            && (seat.node as usize) < copying.nodes
            && let Some(standing) = self.nodes[seat.node as usize].standing(self.tick, seat.slot)
        {
            copying.strays.push(standing);
        }
    }
}
