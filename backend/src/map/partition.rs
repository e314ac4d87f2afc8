//! A partition: those of a map's watch nodes that one core looks after.
//!
//! Owns its nodes, and so the views of the players in their rectangles. It knows neither the
//! roster nor the other partitions: they meet in batches ([`Orders`], [`Handover`]) only, so
//! each partition can run on a thread of its own, and the result is that of one thread. Its
//! snapshots are in `map/copying.rs`.
//!
//! # Call order
//! For each tick: [`Partition::handle_orders`]; then [`Partition::take_handover`] for each other
//! partition, and [`Partition::handle_handover`] with what each of those that the orders await
//! has handed over; then [`Partition::handle_tick`].
//!
//! Invariant: a view is at one node, or in one hand-over, at a time.

use protocol::ids::SessionId;

use super::MapConfig;
use super::copying::Copying;
use super::layout::{Layout, NodeIndex};
use super::node::{Node, Rules};
use super::orders::{Handover, Orders, Seat};
use super::{Frame, MapConfigError};

/// Partitions of one map at most: a bit each in [`Orders`], and far more cores than a map of a
/// million players keeps busy.
pub const PARTITIONS_MAX: usize = 64;

/// The core. See the module's documentation.
#[derive(Debug)]
pub struct Partition {
    index: usize,
    pub(super) nodes: Vec<Node>,
    /// By partition. What stays here is adopted at once, without one.
    handovers: Vec<Handover>,
    /// Of a view that goes from one node here to another.
    ids: Vec<u32>,
    pub(super) tick: u32,
    pub(super) copying: Option<Copying>,
}

impl Partition {
    /// All partitions of a map, without players; at least one, at most [`PARTITIONS_MAX`].
    ///
    /// # Errors
    /// The configuration breaks a rule.
    pub fn all(config: &MapConfig, count: usize) -> Result<Vec<Self>, MapConfigError> {
        let layout = Layout::new(config.clone())?;
        let count = count.clamp(1, PARTITIONS_MAX);
        Ok((0..count)
            .map(|index| Self::new(&layout, index, count))
            .collect())
    }

    pub(super) fn new(layout: &Layout, index: usize, count: usize) -> Self {
        let rules = Rules::new(layout);
        let nodes = (0..layout.node_count() as u32)
            .map(NodeIndex)
            .filter(|&node| layout.partition_of(node, count) == index)
            .map(|node| Node::new(layout, rules, node))
            .collect();
        Self {
            index,
            nodes,
            handovers: (0..count).map(|_| Handover::default()).collect(),
            ids: Vec::new(),
            tick: 0,
            copying: None,
        }
    }

    /// Which one of its map's it is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What players did since the last tick.
    pub fn handle_orders(&mut self, orders: &Orders) {
        self.tick = orders.tick;
        for watched in &orders.watched {
            let Seat { node, slot } = watched.seat;
            let node = &mut self.nodes[node as usize];
            node.watch(self.tick, slot, &watched.arrival);
            if watched.is_new {
                node.own(slot, &[]);
                self.note_arrival(watched.seat);
            }
        }
        for stepped in &orders.stepped {
            let Seat { node, slot } = stepped.seat;
            self.nodes[node as usize].step(self.tick, slot, stepped.at, stepped.jumped);
        }
        for released in &orders.released {
            let from = &mut self.nodes[released.from.node as usize];
            let partition = usize::from(released.partition);
            if partition == self.index {
                self.ids.clear();
                from.release(released.from.slot, &mut self.ids);
                let to = &mut self.nodes[released.to.node as usize];
                to.own(released.to.slot, &self.ids);
                self.note_arrival(released.to);
            } else {
                let handover = &mut self.handovers[partition];
                let count = from.release(released.from.slot, &mut handover.ids);
                handover.views.push((released.to, count));
            }
        }
        // Last: a player whose view has gone on may leave the node's zone in the same tick.
        for &Seat { node, slot } in &orders.unwatched {
            self.nodes[node as usize].unwatch(slot);
        }
    }

    /// Takes what there is to hand over to another partition, and leaves `empty` to be filled
    /// in the next tick.
    pub fn take_handover(&mut self, partition: usize, empty: Handover) -> Handover {
        std::mem::replace(&mut self.handovers[partition], empty)
    }

    /// Whether there is anything to hand over to another partition.
    pub fn has_handover(&self, partition: usize) -> bool {
        !self.handovers[partition].is_empty()
    }

    /// What another partition hands over.
    pub fn handle_handover(&mut self, handover: &Handover) {
        let mut ids = handover.ids.as_slice();
        for &(seat, count) in &handover.views {
            let (view, rest) = ids.split_at(usize::from(count));
            ids = rest;
            self.nodes[seat.node as usize].own(seat.slot, view);
            self.note_arrival(seat);
        }
    }

    /// Looks at the nodes, and hands over what each player is to be told: at most one frame of
    /// each kind, the changes first.
    pub fn handle_tick(&mut self, send: &mut impl FnMut(SessionId, Frame<'_>)) {
        for node in &mut self.nodes {
            node.handle_tick(self.tick, send);
        }
    }
}
