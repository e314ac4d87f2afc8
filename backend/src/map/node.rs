//! A watch node: the players in its rectangle and around it, and who of the first sees whom.
//!
//! Owns the views of the players in its rectangle, and what they are told each tick. It does not
//! know the map's other nodes; [`super::Map`] tells it who comes, moves and goes, in its own
//! *slots*. Nothing in it is shared, so nodes can live on different cores.
//!
//! # Call order
//! Between ticks any number of [`Node::watch`], [`Node::step`], [`Node::unwatch`],
//! [`Node::release`], [`Node::own`], each at most once a player; then [`Node::handle_tick`].
//!
//! # Invariants
//! A view has no doubles and at most `visible_max` seats. Everybody in a view is watched here.
//! A slot is given again only after a tick in which every view has let it go.

use protocol::ids::SessionId;
use protocol::world::{
    Entered, Placed, Point, Width, begin_positions, encode_changes, put_position,
};

use super::Frame;
use super::crowd::Candidate;
use super::grid::{Cells, Grid, Runs};
use super::layout::{Layout, NodeIndex};

/// Candidates that one view looks at in one tick, at most. More are looked at in turn: who
/// stands among so many sees a full view anyhow, and a crowd of n must not cost n² a tick.
pub const SCAN_MAX: u32 = 1_024;

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

/// What one view's evaluation collects; kept for the next, so that ticks do not allocate.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) enters: Vec<Entered>,
    pub(super) leaves: Vec<u32>,
    pub(super) rests: Vec<Placed>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) distances: Vec<u64>,
    /// Ids of an adopted view, and whether they were found.
    ids: Vec<(u32, bool)>,
    positions: Vec<u8>,
    changes: Vec<u8>,
}

/// One watch node. See the module's documentation.
#[derive(Debug)]
pub struct Node {
    pub(super) rules: Rules,
    cells: Cells,

    // By slot.
    x: Vec<i32>,
    y: Vec<i32>,
    flags: Vec<u8>,
    pub(super) id: Vec<u32>,
    tag: Vec<u64>,
    session: Vec<SessionId>,
    moved_at: Vec<u32>,
    /// Epoch of the view that last counted it among its members.
    mark: Vec<u32>,
    pub(super) view_len: Vec<u8>,
    /// `rules.seats` slots for each slot; only those of owned ones are in use.
    pub(super) views: Vec<u32>,
    /// In a crowd: the id that last got a seat in turn, and how many did.
    pub(super) cursor: Vec<u32>,
    pub(super) turn: Vec<u8>,

    free: Vec<u32>,
    /// To be freed when this tick's views have let them go.
    gone: Vec<u32>,
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
            x: Vec::new(),
            y: Vec::new(),
            flags: Vec::new(),
            id: Vec::new(),
            tag: Vec::new(),
            session: Vec::new(),
            moved_at: Vec::new(),
            mark: Vec::new(),
            view_len: Vec::new(),
            views: Vec::new(),
            cursor: Vec::new(),
            turn: Vec::new(),
            free: Vec::new(),
            gone: Vec::new(),
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

    /// Begins to watch a player; gives its slot.
    pub(super) fn watch(&mut self, tick: u32, arrival: &Arrival) -> u32 {
        self.changed = true;
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.x.len() as u32;
            self.x.push(0);
            self.y.push(0);
            self.flags.push(0);
            self.id.push(0);
            self.tag.push(0);
            self.session.push(SessionId(0));
            self.moved_at.push(0);
            self.mark.push(0);
            self.view_len.push(0);
            self.views.resize(self.views.len() + self.rules.seats, 0);
            self.cursor.push(0);
            self.turn.push(0);
            slot
        });
        let s = slot as usize;
        self.x[s] = arrival.at.x as i32;
        self.y[s] = arrival.at.y as i32;
        self.flags[s] = LIVE | MOVED | if arrival.jumped { JUMPED } else { 0 };
        self.id[s] = arrival.id;
        self.tag[s] = arrival.tag;
        self.session[s] = arrival.session;
        self.moved_at[s] = tick;
        self.view_len[s] = 0;
        slot
    }

    /// A watched player has moved.
    pub(super) fn step(&mut self, tick: u32, slot: u32, at: Point, jumped: bool) {
        self.changed = true;
        let s = slot as usize;
        self.x[s] = at.x as i32;
        self.y[s] = at.y as i32;
        self.flags[s] |= MOVED | if jumped { JUMPED } else { 0 };
        self.moved_at[s] = tick;
    }

    /// A player is not near any more, or not on the map. Whoever saw it is told by the tick.
    pub(super) fn unwatch(&mut self, slot: u32) {
        self.changed = true;
        let s = slot as usize;
        self.set_crowded(s, false);
        self.flags[s] = GONE;
        self.gone.push(slot);
    }

    /// Gives a player's view away, as ids, since it has left the rectangle.
    pub(super) fn release(&mut self, slot: u32, ids: &mut Vec<u32>) {
        let s = slot as usize;
        let base = s * self.rules.seats;
        let view = &self.views[base..base + usize::from(self.view_len[s])];
        ids.clear();
        ids.extend(view.iter().map(|&other| self.id[other as usize]));
        self.view_len[s] = 0;
        self.set_crowded(s, false);
        self.flags[s] &= !OWNED;
    }

    /// Takes a watched player over, with what it saw until now.
    pub(super) fn own(&mut self, slot: u32, ids: &[u32]) {
        let s = slot as usize;
        let base = s * self.rules.seats;
        let ids = &ids[..ids.len().min(self.rules.seats)];
        self.views[base..base + ids.len()].copy_from_slice(ids);
        self.view_len[s] = ids.len() as u8;
        self.flags[s] |= OWNED | ADOPTED;
        self.cursor[s] = self.id[s];
        self.turn[s] = 0;
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
            self.grid.rebuild(&self.cells, &self.live, &self.x, &self.y);
            self.movers.clear();
            // Where everybody has moved, nobody asks for the movers only.
            if !self.moved.is_empty() && self.moved.len() < self.live.len() {
                self.movers
                    .rebuild(&self.cells, &self.moved, &self.x, &self.y);
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            // In the order of the cells: neighbours look at the same memory.
            for index in 0..self.grid.slot.len() {
                let slot = self.grid.slot[index] as usize;
                if self.flags[slot] & OWNED != 0 {
                    self.evaluate(slot, tick, &mut scratch);
                    self.tell(slot, tick, &mut scratch, send);
                }
            }
            self.scratch = scratch;
        }
        for flags in &mut self.flags {
            *flags &= LASTING;
        }
        self.free.append(&mut self.gone);
        self.changed = false;
    }

    /// Lists who is here and who moved; marks who has come to rest, and says if anybody did.
    fn sort_out(&mut self, tick: u32) -> bool {
        let mut rested = false;
        self.live.clear();
        self.moved.clear();
        for (slot, flags) in self.flags.iter_mut().enumerate() {
            if *flags & LIVE == 0 {
                continue;
            }
            self.live.push(slot as u32);
            if *flags & MOVED != 0 {
                self.moved.push(slot as u32);
            } else if tick.wrapping_sub(self.moved_at[slot]) == self.rules.rest_ticks {
                *flags |= RESTED;
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
        if self.flags[viewer] & ADOPTED != 0 {
            self.translate(viewer, scratch);
        }
        self.review(viewer, tick, scratch);
        let partly = self.look_around(viewer, tick, scratch);
        let room = self.rules.seats - usize::from(self.view_len[viewer]);
        let crowded = scratch.candidates.len() > room;
        if crowded {
            self.crowd(viewer, tick, scratch);
        } else {
            for index in 0..scratch.candidates.len() {
                self.seat(viewer, scratch.candidates[index], &mut scratch.enters);
            }
        }
        self.set_crowded(viewer, crowded || partly);
    }

    /// Turns the ids of an adopted view into slots. Who is not within the radius of leaving has
    /// left; everybody within it is watched here.
    fn translate(&mut self, viewer: usize, scratch: &mut Scratch) {
        let base = viewer * self.rules.seats;
        let known = usize::from(self.view_len[viewer]);
        scratch.ids.clear();
        scratch
            .ids
            .extend(self.views[base..base + known].iter().map(|&id| (id, false)));
        scratch.ids.sort_unstable();
        let (x, y) = (self.x[viewer], self.y[viewer]);
        let leave = self.rules.leave_units;
        let mut count = 0;
        if known > 0 {
            for (start, end) in self.grid.runs(&self.cells, x, y, leave).iter() {
                for place in start..end {
                    let (dx, dy) = (self.grid.x[place] - x, self.grid.y[place] - y);
                    let slot = self.grid.slot[place];
                    let id = self.id[slot as usize];
                    if dx * dx + dy * dy <= leave * leave
                        && let Ok(index) = scratch.ids.binary_search_by_key(&id, |entry| entry.0)
                    {
                        scratch.ids[index].1 = true;
                        self.views[base + count] = slot;
                        count += 1;
                    }
                }
            }
        }
        self.view_len[viewer] = count as u8;
        let left = scratch
            .ids
            .iter()
            .filter(|entry| !entry.1)
            .map(|entry| entry.0);
        scratch.leaves.extend(left);
    }

    /// Goes over those in view: who has left, and what there is to tell of the others.
    fn review(&mut self, viewer: usize, tick: u32, scratch: &mut Scratch) {
        let rules = self.rules;
        let base = viewer * rules.seats;
        let own_flags = self.flags[viewer];
        let own_place = self.place(viewer);
        let view_squared = i64::from(rules.view_units).pow(2) as u64;
        let leave_squared = i64::from(rules.leave_units).pow(2) as u64;
        let mut count = usize::from(self.view_len[viewer]);
        let mut seat = 0;
        while seat < count {
            let other = self.views[base + seat] as usize;
            let flags = self.flags[other];
            if (flags & STIRRED) | (own_flags & MOVED) == 0 {
                seat += 1;
                continue;
            }
            let place = self.place(other);
            // After a jump nobody has the benefit of having been in view.
            let jumped = (flags | own_flags) & JUMPED != 0;
            let limit = if jumped { view_squared } else { leave_squared };
            if flags & GONE != 0 || own_place.distance_squared(place) > limit {
                scratch.leaves.push(self.id[other]);
                count -= 1;
                self.views[base + seat] = self.views[base + count];
                continue;
            }
            let placed = Placed {
                id: self.id[other],
                at: place,
            };
            if jumped {
                scratch.enters.push(Entered {
                    id: placed.id,
                    tag: self.tag[other],
                    at: place,
                });
            } else if flags & MOVED != 0 {
                if scratch.positions.is_empty() {
                    begin_positions(&mut scratch.positions, rules.width, tick);
                }
                put_position(&mut scratch.positions, rules.width, placed);
            } else if flags & RESTED != 0 {
                scratch.rests.push(placed);
            }
            seat += 1;
        }
        self.view_len[viewer] = count as u8;
    }

    /// Finds those within the view's radius that have no seat. Says if there were too many to
    /// look at all of them.
    fn look_around(&mut self, viewer: usize, tick: u32, scratch: &mut Scratch) -> bool {
        let (x, y) = (self.x[viewer], self.y[viewer]);
        let view = self.rules.view_units;
        let base = viewer * self.rules.seats;
        // Who stands still with seats to spare sees everybody within the radius already: only
        // one that moves can come into it.
        let all = self.flags[viewer] & (MOVED | CROWDED) != 0;
        let grid = if all { &self.grid } else { &self.movers };
        if grid.is_empty() {
            return false;
        }
        let members = &self.views[base..base + usize::from(self.view_len[viewer])];
        self.epoch = match self.epoch.checked_add(1) {
            Some(epoch) => epoch,
            None => {
                self.mark.fill(0);
                1
            }
        };
        for &member in members {
            self.mark[member as usize] = self.epoch;
        }
        self.mark[viewer] = self.epoch;
        let runs = grid.runs(&self.cells, x, y, view);
        let partly = runs.total > SCAN_MAX;
        let mut scan = |runs: &Runs| {
            for (start, end) in runs.iter() {
                let places = grid.x[start..end].iter().zip(&grid.y[start..end]);
                for ((&other_x, &other_y), &slot) in places.zip(&grid.slot[start..end]) {
                    let (dx, dy) = (other_x - x, other_y - y);
                    let squared = dx * dx + dy * dy;
                    if squared <= view * view && self.mark[slot as usize] != self.epoch {
                        scratch.candidates.push(Candidate {
                            squared: squared as u32,
                            id: self.id[slot as usize],
                            slot,
                        });
                    }
                }
            }
        };
        if partly {
            let skip = tick.wrapping_mul(SCAN_MAX) % runs.total;
            for part in runs.window(skip, SCAN_MAX) {
                scan(&part);
            }
        } else {
            scan(&runs);
        }
        partly
    }

    /// Gives the next seat of a view that has one.
    pub(super) fn seat(&mut self, viewer: usize, candidate: Candidate, enters: &mut Vec<Entered>) {
        let count = usize::from(self.view_len[viewer]);
        self.views[viewer * self.rules.seats + count] = candidate.slot;
        self.view_len[viewer] += 1;
        enters.push(self.entered(candidate.slot as usize));
    }

    pub(super) fn entered(&self, slot: usize) -> Entered {
        Entered {
            id: self.id[slot],
            tag: self.tag[slot],
            at: self.place(slot),
        }
    }

    pub(super) fn place(&self, slot: usize) -> Point {
        Point {
            x: self.x[slot] as u32,
            y: self.y[slot] as u32,
        }
    }

    fn set_crowded(&mut self, slot: usize, crowded: bool) {
        self.crowded -= u32::from(self.flags[slot] & CROWDED != 0);
        self.crowded += u32::from(crowded);
        self.flags[slot] &= !CROWDED;
        self.flags[slot] |= if crowded { CROWDED } else { 0 };
    }

    fn tell(
        &self,
        viewer: usize,
        tick: u32,
        scratch: &mut Scratch,
        send: &mut impl FnMut(SessionId, Frame<'_>),
    ) {
        let session = self.session[viewer];
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
