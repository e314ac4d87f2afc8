//! A map on which players see those near them (area of interest), as a pure core.
//!
//! Three parts. The [`Roster`] owns where every player is and which watch nodes watch it; each
//! [`Partition`] owns some of the nodes ([`Node`]), which decide who sees whom; in a tick the
//! roster gives each partition one batch of orders, partitions hand views over to each other,
//! and each gives one batch of frames. [`Map`] is all of them in the caller's thread. They know
//! no connection and no message but the map's own two frames ([`protocol::world`]).
//!
//! # Call order
//! [`Map::handle_enter`], then any number of [`Map::handle_move`] and [`Map::handle_teleport`],
//! then [`Map::handle_leave`]; between them, at a steady rate, [`Map::handle_tick`]. Only the
//! tick looks: what a player did between two ticks is its last place. Time is the tick's number.
//!
//! # Who sees whom
//! A comes into B's view when they are at most `view_units` apart, and leaves it when they are
//! more than `view_units + hysteresis_units` apart; so B does for A, unless one of their views
//! is full. After a jump (teleport) only the first radius counts, and who is still in view is
//! told as an enter, so that nobody sees a player glide across the map. A view has
//! `visible_max` seats; who gets them in a crowd is in `map/crowd.rs`.
//!
//! # What a player is told
//! In a tick at most one [`Frame::Changes`] (enters, leaves, and where those in view stopped) and
//! at most one [`Frame::Positions`] (those in view that moved). Positions may be lost: whoever
//! moves is told again, and whoever stops is told reliably after `rest_ticks`.
//!
//! # Cost
//! A node sorts its players into cells anew by each tick. A view costs its members, and the
//! candidates in the cells around it: all of them if the player moved, else only those that did.
//! Nothing allocates once the largest numbers have been seen.
//!
//! # Invariants
//! A player is watched by at most three nodes, and its view is at the one in whose rectangle it
//! is. Views, candidates looked at, players and nodes are bounded.

mod copying;
mod crowd;
mod grid;
mod layout;
mod node;
mod orders;
mod partition;
mod roster;
mod snapshot;

use protocol::ids::SessionId;
use protocol::world::Point;

pub use crowd::EXCHANGES_MAX;
pub use layout::{
    LEAVE_UNITS_MAX, Layout, MAP_UNITS_MAX, MapConfig, MapConfigError, NODE_UNITS_MAX, NODES_MAX,
    NodeIndex, PLAYERS_MAX, TICKS_MAX, UNIT_MM_MAX, WATCHERS_MAX, Watchers, Zone,
};
pub use node::{Node, SCANNED_LEAST, SCANNED_PER_SEAT};
pub use orders::{Handover, Orders, Told};
pub use partition::{PARTITIONS_MAX, Partition};
pub use roster::Roster;
pub use snapshot::{
    BadSnapshot, PLAYER_BYTES, SNAPSHOT_BYTES_MAX, Slice, Snapshot, SnapshotWriter, Standing,
};

/// What a player is to be told, encoded. Borrowed from the node; copy it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// For the reliable lane: who came into view, who left it, who stopped.
    Changes(&'a [u8]),
    /// For the sequenced lane: where those in view are that moved.
    Positions(&'a [u8]),
}

/// A player on the map. Stays refused after it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Walker {
    index: u32,
    id: u32,
}

impl Walker {
    /// Its id in the frames of others.
    pub fn id(self) -> u32 {
        self.id
    }
}

/// Why the map did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// As many players as `players_max` are here.
    #[error("the map is full")]
    Full,
    /// The place is not on the map.
    #[error("the place is not on the map")]
    Outside,
    /// The player has left.
    #[error("the player is not on the map")]
    Gone,
}

/// A map whose partitions are all in the caller's thread. See the module's documentation.
#[derive(Debug)]
pub struct Map {
    roster: Roster,
    partitions: Vec<Partition>,
    orders: Vec<Orders>,
}

impl Map {
    /// An empty map.
    ///
    /// # Errors
    /// The configuration breaks a rule.
    pub fn new(config: MapConfig) -> Result<Self, MapConfigError> {
        Self::with_partitions(config, 1)
    }

    /// An empty map of several partitions, which tells the same frames as one.
    ///
    /// # Errors
    /// The configuration breaks a rule.
    pub fn with_partitions(config: MapConfig, count: usize) -> Result<Self, MapConfigError> {
        let partitions = Partition::all(&config, count)?;
        Ok(Self {
            roster: Roster::new(config, count)?,
            orders: partitions.iter().map(|_| Orders::default()).collect(),
            partitions,
        })
    }

    /// The players.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The players, for what they do.
    pub fn roster_mut(&mut self) -> &mut Roster {
        &mut self.roster
    }

    /// The map's shape.
    pub fn layout(&self) -> &Layout {
        self.roster.layout()
    }

    /// Players on the map.
    pub fn players(&self) -> usize {
        self.roster.players()
    }

    /// Whether a tick would have nothing to do, now and until somebody enters.
    pub fn is_empty(&self) -> bool {
        self.roster.is_empty()
    }

    /// Number of the last tick.
    pub fn tick(&self) -> u32 {
        self.roster.tick()
    }

    /// As [`Roster::handle_enter`].
    ///
    /// # Errors
    /// [`MapError::Full`], [`MapError::Outside`].
    pub fn handle_enter(
        &mut self,
        session: SessionId,
        tag: u64,
        at: Point,
    ) -> Result<Walker, MapError> {
        self.roster.handle_enter(session, tag, at)
    }

    /// As [`Roster::handle_move`].
    ///
    /// # Errors
    /// [`MapError::Outside`], [`MapError::Gone`]; it stays where it was.
    pub fn handle_move(&mut self, walker: Walker, at: Point) -> Result<(), MapError> {
        self.roster.handle_move(walker, at)
    }

    /// As [`Roster::handle_teleport`].
    ///
    /// # Errors
    /// [`MapError::Outside`], [`MapError::Gone`]; it stays where it was.
    pub fn handle_teleport(&mut self, walker: Walker, at: Point) -> Result<(), MapError> {
        self.roster.handle_teleport(walker, at)
    }

    /// As [`Roster::handle_leave`].
    ///
    /// # Errors
    /// [`MapError::Gone`].
    pub fn handle_leave(&mut self, walker: Walker) -> Result<(), MapError> {
        self.roster.handle_leave(walker)
    }

    /// As [`Roster::place_of`].
    pub fn place_of(&self, walker: Walker) -> Option<Point> {
        self.roster.place_of(walker)
    }

    /// Looks at the map, and hands over what each player is to be told: at most one frame of
    /// each kind, the changes first.
    pub fn handle_tick(&mut self, send: &mut impl FnMut(SessionId, Frame<'_>)) {
        self.roster.handle_tick(&mut self.orders);
        for (partition, orders) in self.partitions.iter_mut().zip(&self.orders) {
            partition.handle_orders(orders);
        }
        for to in 0..self.partitions.len() {
            for from in 0..self.partitions.len() {
                if self.orders[to].awaits(from) {
                    let mut handover = self.partitions[from].take_handover(to, Handover::default());
                    self.partitions[to].handle_handover(&handover);
                    handover.clear();
                    self.partitions[from].take_handover(to, handover);
                }
            }
        }
        for partition in &mut self.partitions {
            partition.handle_tick(send);
        }
    }
}

#[cfg(test)]
mod tests;
