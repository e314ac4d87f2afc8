//! A map on which players see those near them (area of interest), as a pure core.
//!
//! Owns where every player is, which watch nodes watch it, and the hand-over of views between
//! nodes; the nodes ([`Node`]) decide who sees whom. It knows no connection and no message but
//! its own two frames, whose layouts are in [`protocol::world`].
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

mod crowd;
mod grid;
mod layout;
mod node;

use protocol::ids::SessionId;
use protocol::world::Point;

pub use crowd::EXCHANGES_MAX;
pub use layout::{
    LEAVE_UNITS_MAX, Layout, MAP_UNITS_MAX, MapConfig, MapConfigError, NODE_UNITS_MAX, NODES_MAX,
    NodeIndex, PLAYERS_MAX, TICKS_MAX, UNIT_MM_MAX, WATCHERS_MAX, Watchers, Zone,
};
pub use node::{Node, SCANNED_LEAST, SCANNED_PER_SEAT};

use node::{Arrival, Rules};

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

/// A player's slot at a node that watches it.
#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    node: NodeIndex,
    slot: u32,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// 0: this record is free.
    id: u32,
    at: Point,
    tag: u64,
    session: SessionId,
    watches: [Watch; WATCHERS_MAX],
    /// 0 until the first tick.
    watch_count: u8,
    /// It stands in `stirred`.
    stirred: bool,
    jumped: bool,
    leaving: bool,
}

/// The core. See the module's documentation.
#[derive(Debug)]
pub struct Map {
    layout: Layout,
    nodes: Vec<Node>,
    records: Vec<Record>,
    free: Vec<u32>,
    /// Records with something for the next tick.
    stirred: Vec<u32>,
    players: u32,
    next_id: u32,
    tick: u32,
    /// Of the view that is being handed over.
    ids: Vec<u32>,
}

impl Map {
    /// An empty map.
    ///
    /// # Errors
    /// The configuration breaks a rule.
    pub fn new(config: MapConfig) -> Result<Self, MapConfigError> {
        let layout = Layout::new(config)?;
        let rules = Rules::new(&layout);
        let nodes = (0..layout.node_count() as u32)
            .map(|index| Node::new(&layout, rules, NodeIndex(index)))
            .collect();
        Ok(Self {
            layout,
            nodes,
            records: Vec::new(),
            free: Vec::new(),
            stirred: Vec::new(),
            players: 0,
            next_id: 1,
            tick: 0,
            ids: Vec::new(),
        })
    }

    /// The map's shape.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Players on the map.
    pub fn players(&self) -> usize {
        self.players as usize
    }

    /// Whether a tick would have nothing to do, now and until somebody enters.
    pub fn is_empty(&self) -> bool {
        self.players == 0 && self.stirred.is_empty()
    }

    /// Number of the last tick.
    pub fn tick(&self) -> u32 {
        self.tick
    }

    /// Puts a player on the map. `tag` is what others are told of it beside its id.
    ///
    /// # Errors
    /// [`MapError::Full`], [`MapError::Outside`].
    pub fn handle_enter(
        &mut self,
        session: SessionId,
        tag: u64,
        at: Point,
    ) -> Result<Walker, MapError> {
        if !self.layout.contains(at) {
            return Err(MapError::Outside);
        }
        if self.players >= self.layout.config().players_max {
            return Err(MapError::Full);
        }
        let id = self.next_id;
        // An id is given again after 2³² players; none of them is here then.
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let record = Record {
            id,
            at,
            tag,
            session,
            watches: [Watch::default(); WATCHERS_MAX],
            watch_count: 0,
            stirred: true,
            jumped: false,
            leaving: false,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.records[index as usize] = record;
                index
            }
            None => {
                self.records.push(record);
                self.records.len() as u32 - 1
            }
        };
        self.players += 1;
        self.stirred.push(index);
        Ok(Walker { index, id })
    }

    /// A player has walked.
    ///
    /// # Errors
    /// [`MapError::Outside`], [`MapError::Gone`]; it stays where it was.
    pub fn handle_move(&mut self, walker: Walker, at: Point) -> Result<(), MapError> {
        self.place(walker, at, false)
    }

    /// A player has been put elsewhere.
    ///
    /// # Errors
    /// [`MapError::Outside`], [`MapError::Gone`]; it stays where it was.
    pub fn handle_teleport(&mut self, walker: Walker, at: Point) -> Result<(), MapError> {
        self.place(walker, at, true)
    }

    /// A player has left the map and is told nothing any more.
    ///
    /// # Errors
    /// [`MapError::Gone`].
    pub fn handle_leave(&mut self, walker: Walker) -> Result<(), MapError> {
        let record = self.find(walker)?;
        record.leaving = true;
        let known = std::mem::replace(&mut record.stirred, true);
        if !known {
            self.stirred.push(walker.index);
        }
        self.players -= 1;
        Ok(())
    }

    /// Where a player is.
    pub fn place_of(&self, walker: Walker) -> Option<Point> {
        let record = self.records.get(walker.index as usize)?;
        (record.id == walker.id && !record.leaving).then_some(record.at)
    }

    /// Looks at the map, and hands over what each player is to be told: at most one frame of
    /// each kind, the changes first.
    pub fn handle_tick(&mut self, send: &mut impl FnMut(SessionId, Frame<'_>)) {
        self.tick = self.tick.wrapping_add(1);
        let mut stirred = std::mem::take(&mut self.stirred);
        for &index in &stirred {
            self.apply(index);
        }
        stirred.clear();
        self.stirred = stirred;
        for node in &mut self.nodes {
            node.handle_tick(self.tick, send);
        }
    }

    fn find(&mut self, walker: Walker) -> Result<&mut Record, MapError> {
        self.records
            .get_mut(walker.index as usize)
            .filter(|record| record.id == walker.id && !record.leaving)
            .ok_or(MapError::Gone)
    }

    fn place(&mut self, walker: Walker, at: Point, jumped: bool) -> Result<(), MapError> {
        if !self.layout.contains(at) {
            return Err(MapError::Outside);
        }
        let record = self.find(walker)?;
        if record.at == at && !jumped {
            return Ok(());
        }
        record.at = at;
        record.jumped |= jumped;
        if !record.stirred {
            record.stirred = true;
            self.stirred.push(walker.index);
        }
        Ok(())
    }

    /// Tells the nodes what a player did since the last tick.
    fn apply(&mut self, index: u32) {
        let tick = self.tick;
        let record = &mut self.records[index as usize];
        let old_watches = record.watches;
        let old = &old_watches[..usize::from(record.watch_count)];
        record.stirred = false;
        if record.leaving {
            for watch in old {
                self.nodes[watch.node.0 as usize].unwatch(watch.slot);
            }
            record.id = 0;
            self.free.push(index);
            return;
        }
        let jumped = std::mem::take(&mut record.jumped);
        let watchers = self.layout.watchers(record.at);
        let owner = watchers.owner();
        let arrival = Arrival {
            id: record.id,
            tag: record.tag,
            session: record.session,
            at: record.at,
            jumped,
        };
        self.ids.clear();
        let moves_house = old.first().is_none_or(|watch| watch.node != owner);
        if moves_house && let Some(watch) = old.first() {
            self.nodes[watch.node.0 as usize].release(watch.slot, &mut self.ids);
        }
        for (place, &node) in watchers.nodes().iter().enumerate() {
            let core = &mut self.nodes[node.0 as usize];
            let slot = match old.iter().find(|watch| watch.node == node) {
                Some(watch) => {
                    core.step(tick, watch.slot, arrival.at, jumped);
                    watch.slot
                }
                None => core.watch(tick, &arrival),
            };
            record.watches[place] = Watch { node, slot };
        }
        record.watch_count = watchers.nodes().len() as u8;
        for watch in old {
            if !watchers.nodes().contains(&watch.node) {
                self.nodes[watch.node.0 as usize].unwatch(watch.slot);
            }
        }
        if moves_house {
            self.nodes[owner.0 as usize].own(record.watches[0].slot, &self.ids);
        }
    }
}

#[cfg(test)]
mod tests;
