//! A watch node: the players in its rectangle and around it, and who of the first sees whom.
//!
//! Owns the views of the players in its rectangle, and what they are told each tick. It does not
//! know the map's other nodes; the [`super::Roster`] says who comes, moves and goes, in *slots*
//! that it gives. Nothing in it is shared, so nodes can live on different cores.
//!
//! # Call order
//! Between ticks any number of [`Node::watch`], [`Node::step`], [`Node::unwatch`],
//! [`Node::release`], [`Node::own`], each at most once a player; then [`Node::handle_tick`].
//!
//! # Invariants
//! A view has no doubles and at most `visible_max` seats. Everybody in a view is watched here.
//! A slot is given again only after a tick in which every view has let it go (the roster does).

use protocol::ids::SessionId;
use protocol::world::{
    Entered, Placed, Point, Width, begin_positions, encode_changes, put_position,
};

use super::Frame;
use super::crowd::Candidate;
use super::grid::{Cells, Grid, Runs};
use super::layout::{Layout, NodeIndex};
use super::snapshot::Standing;

/// Candidates for each seat that one view looks at in one tick, at most. More are looked at in
/// turn: who stands among so many sees a full view anyhow, and a crowd of n must not cost n² a
/// tick. The cells around a view hold twice as many as its circle, so four leave room.
pub const SCANNED_PER_SEAT: u32 = 4;

/// Candidates that a view with few seats looks at all the same: few seats are no crowd yet.
pub const SCANNED_LEAST: u32 = 256;

/// In use.
const LIVE: u8 = 1;
/// In the node's rectangle.
const OWNED: u8 = 1 << 1;
/// Its view had no seat for everybody, or could not look at everybody.
const CROWDED: u8 = 1 << 2;
/// Of this tick: came or moved.
const MOVED: u8 = 1 << 3;
/// Of this tick: jumped. Has moved as well.
const JUMPED: u8 = 1 << 4;
/// Of this tick: has rested long enough to be told reliably where.
const RESTED: u8 = 1 << 5;
/// Of this tick: not watched any more.
const GONE: u8 = 1 << 6;
/// Of this tick: its view holds ids, from the node that owned it before.
const ADOPTED: u8 = 1 << 7;

const LASTING: u8 = LIVE | OWNED | CROWDED;
const STIRRED: u8 = MOVED | JUMPED | RESTED | GONE;

/// What all nodes of a map go by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) width: Width,
    pub(super) view_units: i32,
    pub(super) leave_units: i32,
    pub(super) seats: usize,
    /// Of the seats, those for the nearest; the others go round in a crowd.
    pub(super) near_seats: usize,
    scanned_max: u32,
    pub(super) rest_ticks: u32,
    pub(super) rotation_ticks: u32,
}

impl Rules {
    pub(super) fn new(layout: &Layout) -> Self {
        let config = layout.config();
        let seats = config.visible_max as usize;
        Self {
            width: Width::of_map(config.width_units, config.height_units),
            view_units: config.view_units as i32,
            leave_units: layout.leave_units() as i32,
            seats,
            // An eighth goes round: enough that a crowd of hundreds passes by within minutes.
            near_seats: seats - (seats / 8).max(1).min(seats - 1),
            scanned_max: (config.visible_max * SCANNED_PER_SEAT).max(SCANNED_LEAST),
            rest_ticks: config.rest_ticks,
            rotation_ticks: config.rotation_ticks,
        }
    }
}

/// A player that comes into a node's zone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) id: u32,
    pub(super) tag: u64,
    pub(super) session: SessionId,
    pub(super) at: Point,
    pub(super) jumped: bool,
}

/// What views ask of a player, together: a view of twenty touches twenty cache lines, not eighty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spot {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) id: u32,
    /// Where its own view begins in the pool. Here, because the evaluations of its neighbours
    /// have just fetched it.
    start: u32,
    /// Others in its own view.
    count: u8,
    flags: u8,
}

impl Spot {
    pub(super) fn at(&self) -> Point {
        Point {
            x: self.x as u32,
            y: self.y as u32,
        }
    }

    #[inline]
    fn squared_to(&self, other: &Self) -> i64 {
        let (dx, dy) = (i64::from(self.x - other.x), i64::from(self.y - other.y));
        dx * dx + dy * dy
    }
}

/// What only the player's own evaluation asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Viewer {
    session: SessionId,
    /// In a crowd: the id that last got a seat in turn.
    pub(super) cursor: u32,
    /// How many seats were given in turn.
    pub(super) turn: u8,
}

/// What one view's evaluation collects; kept for the next, so that ticks do not allocate.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) enters: Vec<Entered>,
    pub(super) leaves: Vec<u32>,
    pub(super) rests: Vec<Placed>,
    /// Slots of those in view.
    pub(super) view: Vec<u32>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) distances: Vec<u64>,
    /// Ids of an adopted view, and whether they were found.
    ids: Vec<(u32, bool)>,
    pub(super) positions: Vec<u8>,
    changes: Vec<u8>,
}

/// One watch node. See the module's documentation.
#[derive(Debug)]
pub struct Node {
    pub(super) rules: Rules,
    cells: Cells,

    // By slot.
    pub(super) spots: Vec<Spot>,
    pub(super) viewers: Vec<Viewer>,
    tag: Vec<u64>,
    moved_at: Vec<u32>,
    /// Epoch of the view that last counted it among its members.
    mark: Vec<u32>,

    /// The views one after another, in the order of their evaluation, and so nearly in that of
    /// the next one: reading them in any other order waits for memory longer than it computes.
    pool: Vec<u32>,
    /// The pool that the tick fills.
    next_pool: Vec<u32>,

    /// Views with `CROWDED`.
    crowded: u32,
    changed: bool,
    changed_at: u32,
    epoch: u32,

    live: Vec<u32>,
    moved: Vec<u32>,
    grid: Grid,
    movers: Grid,
    scratch: Scratch,
}

impl Node {
    pub(super) fn new(layout: &Layout, rules: Rules, index: NodeIndex) -> Self {
        Self {
            rules,
            cells: Cells::new(layout.zone(index), layout.config().view_units),
            spots: Vec::new(),
            viewers: Vec::new(),
            tag: Vec::new(),
            moved_at: Vec::new(),
            mark: Vec::new(),
            pool: Vec::new(),
            next_pool: Vec::new(),
            crowded: 0,
            changed: false,
            changed_at: 0,
            epoch: 0,
            live: Vec::new(),
            moved: Vec::new(),
            grid: Grid::default(),
            movers: Grid::default(),
            scratch: Scratch::default(),
        }
    }

    /// Begins to watch a player in a slot that is free. Slots are given without gaps.
    pub(super) fn watch(&mut self, tick: u32, slot: u32, arrival: &Arrival) {
        self.changed = true;
        let s = slot as usize;
        if s >= self.spots.len() {
            self.spots.resize(s + 1, Spot::default());
            self.viewers.resize(s + 1, Viewer::default());
            self.tag.resize(s + 1, 0);
            self.moved_at.resize(s + 1, 0);
            self.mark.resize(s + 1, 0);
        }
        self.spots[s] = Spot {
            x: arrival.at.x as i32,
            y: arrival.at.y as i32,
            id: arrival.id,
            start: 0,
            count: 0,
            flags: LIVE | MOVED | if arrival.jumped { JUMPED } else { 0 },
        };
        self.tag[s] = arrival.tag;
        self.viewers[s] = Viewer {
            session: arrival.session,
            ..Viewer::default()
        };
        self.moved_at[s] = tick;
    }

    /// A watched player has moved.
    pub(super) fn step(&mut self, tick: u32, slot: u32, at: Point, jumped: bool) {
        self.changed = true;
        let s = slot as usize;
        let spot = &mut self.spots[s];
        spot.x = at.x as i32;
        spot.y = at.y as i32;
        spot.flags |= MOVED | if jumped { JUMPED } else { 0 };
        self.moved_at[s] = tick;
    }

    /// A player is not near any more, or not on the map. Whoever saw it is told by the tick.
    pub(super) fn unwatch(&mut self, slot: u32) {
        self.changed = true;
        let s = slot as usize;
        self.set_crowded(s, false);
        self.spots[s].flags = GONE;
    }

    /// Gives a player's view away, as ids that it appends, since it has left the rectangle.
    /// Returns how many.
    pub(super) fn release(&mut self, slot: u32, ids: &mut Vec<u32>) -> u8 {
        let s = slot as usize;
        let count = self.spots[s].count;
        let view = self.view(s).iter();
        ids.extend(view.map(|&other| self.spots[other as usize].id));
        self.spots[s].count = 0;
        self.set_crowded(s, false);
        self.spots[s].flags &= !OWNED;
        count
    }

    /// Takes a watched player over, with what it saw until now.
    pub(super) fn own(&mut self, slot: u32, ids: &[u32]) {
        let s = slot as usize;
        let ids = &ids[..ids.len().min(self.rules.seats)];
        let spot = &mut self.spots[s];
        spot.start = self.pool.len() as u32;
        spot.count = ids.len() as u8;
        spot.flags |= OWNED | ADOPTED;
        self.viewers[s].cursor = spot.id;
        self.viewers[s].turn = 0;
        self.pool.extend_from_slice(ids);
    }

    /// Where the player of a slot stands, if it is in the rectangle.
    pub(super) fn standing(&self, tick: u32, slot: u32) -> Option<Standing> {
        let s = slot as usize;
        let spot = self.spots.get(s)?;
        (spot.flags & (LIVE | OWNED) == LIVE | OWNED).then(|| Standing {
            session: self.viewers[s].session,
            tag: self.tag[s],
            id: spot.id,
            tick,
            at: spot.at(),
        })
    }

    /// Where all players in the rectangle stand.
    pub(super) fn standings(&self, tick: u32, each: &mut impl FnMut(Standing)) {
        for slot in 0..self.spots.len() as u32 {
            if let Some(standing) = self.standing(tick, slot) {
                each(standing);
            }
        }
    }

    fn view(&self, slot: usize) -> &[u32] {
        let spot = &self.spots[slot];
        let start = spot.start as usize;
        &self.pool[start..start + usize::from(spot.count)]
    }

    /// Evaluates the views of the owned players, and hands over what each has to be told: at
    /// most one frame of each kind.
    pub(super) fn handle_tick(&mut self, tick: u32, send: &mut impl FnMut(SessionId, Frame<'_>)) {
        if self.changed {
            self.changed_at = tick;
        } else if self.crowded == 0 && tick.wrapping_sub(self.changed_at) > self.rules.rest_ticks {
            return;
        }
        let rested = self.sort_out(tick);
        if self.changed || self.crowded > 0 || rested {
            self.grid.rebuild(&self.cells, &self.live, &self.spots);
            self.movers.clear();
            // Where everybody has moved, nobody asks for the movers only.
            if !self.moved.is_empty() && self.moved.len() < self.live.len() {
                self.movers.rebuild(&self.cells, &self.moved, &self.spots);
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            self.next_pool.clear();
            // In the order of the cells: neighbours look at the same memory.
            for index in 0..self.grid.slot.len() {
                let slot = self.grid.slot[index] as usize;
                if self.spots[slot].flags & OWNED != 0 {
                    self.evaluate(slot, tick, &mut scratch);
                    self.tell(slot, tick, &mut scratch, send);
                }
            }
            std::mem::swap(&mut self.pool, &mut self.next_pool);
            self.scratch = scratch;
        }
        for spot in &mut self.spots {
            spot.flags &= LASTING;
        }
        self.changed = false;
    }

    /// Lists who is here and who moved; marks who has come to rest, and says if anybody did.
    fn sort_out(&mut self, tick: u32) -> bool {
        let mut rested = false;
        self.live.clear();
        self.moved.clear();
        for (slot, spot) in self.spots.iter_mut().enumerate() {
            if spot.flags & LIVE == 0 {
                continue;
            }
            self.live.push(slot as u32);
            if spot.flags & MOVED != 0 {
                self.moved.push(slot as u32);
            } else if tick.wrapping_sub(self.moved_at[slot]) == self.rules.rest_ticks {
                spot.flags |= RESTED;
                rested = true;
            }
        }
        rested
    }

    /// Brings one view up to date.
    fn evaluate(&mut self, viewer: usize, tick: u32, scratch: &mut Scratch) {
        scratch.enters.clear();
        scratch.leaves.clear();
        scratch.rests.clear();
        scratch.positions.clear();
        scratch.candidates.clear();
        scratch.view.clear();
        if self.spots[viewer].flags & ADOPTED != 0 {
            self.translate(viewer, scratch);
        } else {
            scratch.view.extend_from_slice(self.view(viewer));
        }
        self.review(viewer, tick, scratch);
        let partly = self.look_around(viewer, tick, scratch);
        let crowded = scratch.candidates.len() > self.rules.seats - scratch.view.len();
        if crowded {
            self.crowd(viewer, tick, scratch);
        } else {
            for index in 0..scratch.candidates.len() {
                self.seat(scratch.candidates[index], scratch);
            }
        }
        self.set_crowded(viewer, crowded || partly);
        let spot = &mut self.spots[viewer];
        spot.start = self.next_pool.len() as u32;
        spot.count = scratch.view.len() as u8;
        self.next_pool.extend_from_slice(&scratch.view);
    }

    /// Turns the ids of an adopted view into slots. Who is not within the radius of leaving has
    /// left; everybody within it is watched here.
    fn translate(&mut self, viewer: usize, scratch: &mut Scratch) {
        scratch.ids.clear();
        scratch
            .ids
            .extend(self.view(viewer).iter().map(|&id| (id, false)));
        if scratch.ids.is_empty() {
            return;
        }
        scratch.ids.sort_unstable();
        let Spot { x, y, .. } = self.spots[viewer];
        let leave = self.rules.leave_units;
        for (start, end) in self.grid.runs(&self.cells, x, y, leave).iter() {
            for place in start..end {
                let (dx, dy) = (self.grid.x[place] - x, self.grid.y[place] - y);
                if dx * dx + dy * dy > leave * leave {
                    continue;
                }
                let slot = self.grid.slot[place];
                let id = self.spots[slot as usize].id;
                if let Ok(index) = scratch.ids.binary_search_by_key(&id, |entry| entry.0) {
                    scratch.ids[index].1 = true;
                    scratch.view.push(slot);
                }
            }
        }
        let left = scratch.ids.iter().filter(|entry| !entry.1);
        scratch.leaves.extend(left.map(|entry| entry.0));
    }

    /// Goes over those in view: who has left, and what there is to tell of the others.
    fn review(&self, viewer: usize, tick: u32, scratch: &mut Scratch) {
        let rules = self.rules;
        let own = self.spots[viewer];
        let view_squared = i64::from(rules.view_units).pow(2);
        let leave_squared = i64::from(rules.leave_units).pow(2);
        let mut seat = 0;
        while seat < scratch.view.len() {
            let slot = scratch.view[seat] as usize;
            let other = self.spots[slot];
            if (other.flags & STIRRED) | (own.flags & MOVED) == 0 {
                seat += 1;
                continue;
            }
            // After a jump nobody has the benefit of having been in view.
            let jumped = (other.flags | own.flags) & JUMPED != 0;
            let limit = if jumped { view_squared } else { leave_squared };
            if other.flags & GONE != 0 || own.squared_to(&other) > limit {
                scratch.leaves.push(other.id);
                scratch.view.swap_remove(seat);
                continue;
            }
            let placed = Placed {
                id: other.id,
                at: other.at(),
            };
            if jumped {
                scratch.enters.push(Entered {
                    id: other.id,
                    tag: self.tag[slot],
                    at: placed.at,
                });
            } else if other.flags & MOVED != 0 {
                if scratch.positions.is_empty() {
                    begin_positions(&mut scratch.positions, rules.width, tick);
                }
                put_position(&mut scratch.positions, rules.width, placed);
            } else if other.flags & RESTED != 0 {
                scratch.rests.push(placed);
            }
            seat += 1;
        }
    }

    /// Finds those within the view's radius that have no seat. Says if there were too many to
    /// look at all of them.
    fn look_around(&mut self, viewer: usize, tick: u32, scratch: &mut Scratch) -> bool {
        let Spot { x, y, .. } = self.spots[viewer];
        let view = self.rules.view_units;
        // Who stands still with seats to spare sees everybody within the radius already: only
        // one that moves can come into it.
        let all = self.spots[viewer].flags & (MOVED | CROWDED) != 0;
        let grid = if all { &self.grid } else { &self.movers };
        if grid.is_empty() {
            return false;
        }
        self.epoch = match self.epoch.checked_add(1) {
            Some(epoch) => epoch,
            None => {
                self.mark.fill(0);
                1
            }
        };
        for &member in &scratch.view {
            self.mark[member as usize] = self.epoch;
        }
        self.mark[viewer] = self.epoch;
        let runs = grid.runs(&self.cells, x, y, view);
        let scanned_max = self.rules.scanned_max;
        let partly = runs.total > scanned_max;
        let mut scan = |runs: &Runs| {
            for (start, end) in runs.iter() {
                let places = grid.x[start..end].iter().zip(&grid.y[start..end]);
                for ((&other_x, &other_y), &slot) in places.zip(&grid.slot[start..end]) {
                    let (dx, dy) = (other_x - x, other_y - y);
                    let squared = dx * dx + dy * dy;
                    if squared <= view * view && self.mark[slot as usize] != self.epoch {
                        scratch.candidates.push(Candidate {
                            squared: squared as u32,
                            id: self.spots[slot as usize].id,
                            slot,
                        });
                    }
                }
            }
        };
        if partly {
            let skip = tick.wrapping_mul(scanned_max) % runs.total;
            for part in runs.window(skip, scanned_max) {
                scan(&part);
            }
        } else {
            scan(&runs);
        }
        partly
    }

    /// Gives the next seat of a view that has one.
    pub(super) fn seat(&self, candidate: Candidate, scratch: &mut Scratch) {
        scratch.view.push(candidate.slot);
        scratch.enters.push(self.entered(candidate.slot as usize));
    }

    pub(super) fn entered(&self, slot: usize) -> Entered {
        Entered {
            id: self.spots[slot].id,
            tag: self.tag[slot],
            at: self.spots[slot].at(),
        }
    }

    fn set_crowded(&mut self, slot: usize, crowded: bool) {
        let flags = &mut self.spots[slot].flags;
        self.crowded -= u32::from(*flags & CROWDED != 0);
        self.crowded += u32::from(crowded);
        *flags &= !CROWDED;
        *flags |= if crowded { CROWDED } else { 0 };
    }

    fn tell(
        &self,
        viewer: usize,
        tick: u32,
        scratch: &mut Scratch,
        send: &mut impl FnMut(SessionId, Frame<'_>),
    ) {
        let session = self.viewers[viewer].session;
        if !(scratch.enters.is_empty() && scratch.leaves.is_empty() && scratch.rests.is_empty()) {
            scratch.changes.clear();
            encode_changes(
                &mut scratch.changes,
                self.rules.width,
                tick,
                &scratch.enters,
                &scratch.leaves,
                &scratch.rests,
            );
            send(session, Frame::Changes(&scratch.changes));
        }
        if !scratch.positions.is_empty() {
            send(session, Frame::Positions(&scratch.positions));
        }
    }
}
