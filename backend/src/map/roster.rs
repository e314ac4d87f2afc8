//! The roster of a map: who is on it, where, and which nodes watch whom.
//!
//! Owns the players' records and the slots that they have at the nodes; a tick turns what
//! players did into a batch of [`Orders`] for each partition. It decides nothing about views,
//! which are the nodes'.
//!
//! # Call order
//! [`Roster::handle_enter`], then any number of [`Roster::handle_move`] and
//! [`Roster::handle_teleport`], then [`Roster::handle_leave`]; between them, for each tick,
//! [`Roster::handle_tick`].
//!
//! Invariant: slots are given in an order that does not depend on the number of partitions, so
//! that the frames do not either.

use protocol::ids::SessionId;
use protocol::world::Point;

use super::layout::{Layout, NodeIndex, WATCHERS_MAX};
use super::node::Arrival;
use super::orders::{Orders, Released, Seat, Stepped, Watched};
use super::{MapConfig, MapConfigError, MapError, PARTITIONS_MAX, Walker};

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

/// What the roster knows of a node.
#[derive(Debug, Default)]
struct Post {
    /// Slots given so far.
    slots: u32,
    free: Vec<u32>,
    partition: u8,
    /// Its place among the nodes of its partition.
    place: u32,
}

impl Post {
    fn give(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }
}

/// The core. See the module's documentation.
#[derive(Debug)]
pub struct Roster {
    layout: Layout,
    partitions: usize,
    posts: Vec<Post>,
    records: Vec<Record>,
    free: Vec<u32>,
    /// Records with something for the next tick.
    stirred: Vec<u32>,
    /// Slots to be freed once the tick's views have let them go.
    gone: Vec<Watch>,
    players: u32,
    next_id: u32,
    tick: u32,
}

impl Roster {
    /// A roster without players, of a map with so many partitions; at least one, at most
    /// [`PARTITIONS_MAX`].
    ///
    /// # Errors
    /// The configuration breaks a rule.
    pub fn new(config: MapConfig, partitions: usize) -> Result<Self, MapConfigError> {
        let layout = Layout::new(config)?;
        let partitions = partitions.clamp(1, PARTITIONS_MAX);
        let mut nodes = [0; PARTITIONS_MAX];
        let posts = (0..layout.node_count() as u32)
            .map(|node| {
                let partition = layout.partition_of(NodeIndex(node), partitions);
                nodes[partition] += 1;
                Post {
                    slots: 0,
                    free: Vec::new(),
                    // Below PARTITIONS_MAX.
                    partition: partition as u8,
                    place: nodes[partition] - 1,
                }
            })
            .collect();
        Ok(Self {
            layout,
            partitions,
            posts,
            records: Vec::new(),
            free: Vec::new(),
            stirred: Vec::new(),
            gone: Vec::new(),
            players: 0,
            next_id: 1,
            tick: 0,
        })
    }

    /// The map's shape.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Partitions of the map.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Gives ids above this one from now on: those up to it were given in an earlier life of the
    /// map, and clients may still believe in them.
    pub fn skip_ids(&mut self, last: u32) {
        self.next_id = self.next_id.max(last.checked_add(1).unwrap_or(1));
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

    /// Writes what the partitions have to know for the next tick, a batch each, in the place of
    /// what is in them.
    pub fn handle_tick(&mut self, orders: &mut [Orders]) {
        debug_assert_eq!(orders.len(), self.partitions);
        self.tick = self.tick.wrapping_add(1);
        for orders in &mut *orders {
            orders.clear();
            orders.tick = self.tick;
        }
        let mut stirred = std::mem::take(&mut self.stirred);
        for &index in &stirred {
            self.apply(index, orders);
        }
        stirred.clear();
        self.stirred = stirred;
        for watch in self.gone.drain(..) {
            self.posts[watch.node.0 as usize].free.push(watch.slot);
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

    /// Writes down what a player did since the last tick.
    fn apply(&mut self, index: u32, orders: &mut [Orders]) {
        let record = &mut self.records[index as usize];
        let old_watches = record.watches;
        let old = &old_watches[..usize::from(record.watch_count)];
        record.stirred = false;
        if record.leaving {
            record.id = 0;
            self.free.push(index);
            for &watch in old {
                self.unwatch(watch, orders);
            }
            return;
        }
        let jumped = std::mem::take(&mut record.jumped);
        let watchers = self.layout.watchers(record.at);
        let arrival = Arrival {
            id: record.id,
            tag: record.tag,
            session: record.session,
            at: record.at,
            jumped,
        };
        for (place, &node) in watchers.nodes().iter().enumerate() {
            let post = &mut self.posts[node.0 as usize];
            let orders = &mut orders[usize::from(post.partition)];
            let known = old.iter().find(|watch| watch.node == node);
            let slot = known.map_or_else(|| post.give(), |watch| watch.slot);
            let seat = Seat {
                node: post.place,
                slot,
            };
            if known.is_some() {
                orders.stepped.push(Stepped {
                    seat,
                    at: arrival.at,
                    jumped,
                });
            } else {
                orders.watched.push(Watched {
                    seat,
                    arrival,
                    is_new: place == 0 && old.is_empty(),
                });
            }
            record.watches[place] = Watch { node, slot };
        }
        record.watch_count = watchers.nodes().len() as u8;
        let owner = record.watches[0];
        if let Some(&before) = old.first()
            && before.node != owner.node
        {
            self.release(before, owner, orders);
        }
        for &watch in old {
            if !watchers.nodes().contains(&watch.node) {
                self.unwatch(watch, orders);
            }
        }
    }

    fn seat(&self, watch: Watch) -> (usize, Seat) {
        let post = &self.posts[watch.node.0 as usize];
        let seat = Seat {
            node: post.place,
            slot: watch.slot,
        };
        (usize::from(post.partition), seat)
    }

    fn release(&self, from: Watch, to: Watch, orders: &mut [Orders]) {
        let (from_partition, from) = self.seat(from);
        let (to_partition, to) = self.seat(to);
        orders[from_partition].released.push(Released {
            from,
            partition: to_partition as u8,
            to,
        });
        if from_partition != to_partition {
            orders[to_partition].awaited |= 1 << from_partition;
        }
    }

    fn unwatch(&mut self, watch: Watch, orders: &mut [Orders]) {
        let (partition, seat) = self.seat(watch);
        orders[partition].unwatched.push(seat);
        self.gone.push(watch);
    }
}
