//! The scenario `walk`: clients enter a map, move, and keep what they believe they see; at the
//! end that is compared with an answer that no server had a part in.
//!
//! Owns the answer and its comparison. The frames, a client's belief and the ways of the walkers
//! are `protocol::world`'s. Every place is a function of (seed, client, step), so that each
//! worker knows where the clients of the others are.
//!
//! # The answer
//! When all have stopped, a client must see everybody within `view_units`, and nobody beyond
//! `view_units + hysteresis_units`; between the two it may, since that depends on the ticks of
//! the way there. Each must be where its last step ends. A client whose view is full
//! (`visible_max`) need not see more.
//!
//! Invariant: the answer is made by distances alone, of all clients with all others near them.

use std::collections::HashMap;

use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::ids::GroupId;
use protocol::time::Time;
use protocol::world::path::{Walk, field_units};
use protocol::world::{
    ABSENT, Belief, CHANGES, Changes, ENTER, Enter, Entry, MOVE, Move, POSITIONS, Point, Positions,
    RETURNED,
};

use super::client::Judge;
use super::{Fleet, Phase, Stage};
use crate::messages::WorkerPlan;
use crate::schedule::{self, Schedule};

/// A step is this part of the distance at which others come into view: with 128 units of 25 cm,
/// 2 m a second, a brisk walk.
const STEP_OF_VIEW: u32 = 16;
/// Steps back in which a place that was seen is looked for. A server that is a quarter of an hour
/// late at one step a second has failed anyway.
const STEPS_BACK_MAX: u32 = 1_000;
/// How long, ms, all beliefs must be right before a run ends: longer than a map waits until it
/// tells reliably where one has stopped.
pub(super) const SETTLE_MS: u64 = 3_000;
/// How often beliefs are compared while the server comes to rest, microseconds.
const COMPARE_US: u64 = 100_000;

/// What is known of the map and of everybody on it.
#[derive(Debug)]
pub(super) struct World {
    /// Others in view, on average, that there are to be.
    visible: f64,
    /// Tags the players of this run.
    run: u32,
    /// The map, as its first reply told, and the ways on it.
    map: Option<(Entry, Walk)>,
    /// The client whose reply is to tell; the others wait for it.
    pioneer: Option<u32>,
    /// Clients that are on the map.
    pub(super) here: u32,
    /// Clients that were not let on it.
    pub(super) refused: u32,
    /// The place of each client of the run in the order of sends.
    places: Vec<u32>,
    answer: Option<Answer>,
    compared_at: Time,
    was_right: bool,
    /// Others that clients saw in the window, summed over as many looks at one.
    pub(super) looked: (u64, u64),
}

/// Where everybody is at the end, and who is near whom.
#[derive(Debug)]
struct Answer {
    /// By the client's number in the run.
    places: Vec<Point>,
    /// Of each local client: those that it may see.
    near: Vec<Vec<u32>>,
}

/// One client on the map.
#[derive(Debug, Default)]
pub(super) struct Walker {
    is_here: bool,
    /// It was on a map that is no more, and has asked to be put on the new one.
    is_entering_again: bool,
    /// The map was started anew at least once.
    has_returned: bool,
    belief: Belief,
}

/// What the map says to a client after the game was started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// Its player was put back.
    Returned(Entry),
    /// Its player is not there.
    Absent,
}

impl Walker {
    /// Whether it is on the map.
    pub(super) fn is_here(&self) -> bool {
        self.is_here
    }
}

/// How a belief is wrong: others that are missing, that should not be there, or elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wrong {
    missing: u64,
    extra: u64,
    place: u64,
}

impl World {
    pub(super) fn new(plan: &WorkerPlan) -> Option<Self> {
        let walk = plan.walk.as_ref()?;
        Some(Self {
            visible: walk.visible,
            run: walk.run,
            map: None,
            pioneer: None,
            here: 0,
            refused: 0,
            places: schedule::places(plan.clients, plan.seed),
            answer: None,
            compared_at: Time(0),
            was_right: false,
            looked: (0, 0),
        })
    }

    fn tag(&self, client: u32) -> u64 {
        u64::from(self.run) << 32 | u64::from(client)
    }

    /// The client of this run that a tag names.
    fn client_of(&self, tag: u64) -> Option<u32> {
        let client = tag as u32;
        let is_ours = tag >> 32 == u64::from(self.run) && (client as usize) < self.places.len();
        is_ours.then_some(client)
    }

    /// What a client says to be put on the map where its step ends. `None`: not yet.
    fn enter_at(&self, client: u32, step: u32) -> Option<Enter> {
        let at = match &self.map {
            Some((_, walk)) => walk.at(u64::from(client), step),
            // Only the map tells how large the field is to be: one goes first, to the one place
            // that every map has, and tells the others.
            None if self.pioneer.is_none() => Point { x: 0, y: 0 },
            None => return None,
        };
        Some(Enter {
            tag: self.tag(client),
            at,
        })
    }

    /// The move of a client.
    pub(super) fn encode_move(&self, client: u32, step: u32, out: &mut Vec<u8>) {
        out.clear();
        if let Some((_, walk)) = &self.map {
            let at = walk.at(u64::from(client), step);
            Move { step, at }.encode(out);
        }
    }

    /// The step that ends at `at`, the latest one that has been due.
    fn step_at(&self, schedule: &Schedule, now: Time, client: u32, at: Point) -> Option<u32> {
        let (_, walk) = self.map.as_ref()?;
        let place = *self.places.get(client as usize)?;
        let latest = schedule.turns_until(now, place);
        (0..=STEPS_BACK_MAX.min(latest))
            .map(|back| latest - back)
            .find(|step| walk.at(u64::from(client), *step) == at)
    }

    /// When the step of a client was due.
    fn due_at(&self, schedule: &Schedule, client: u32, step: u32) -> Option<Time> {
        let place = *self.places.get(client as usize)?;
        Some(schedule.moment(step.checked_sub(1)?, place))
    }

    /// Every move of the run has come: where everybody is from now on.
    pub(super) fn set_answer(&mut self, plan: &WorkerPlan) {
        let Some((entry, walk)) = &self.map else {
            return;
        };
        let total = schedule::total(plan.rate, plan.duration_ms);
        let clients = u64::from(plan.clients);
        let places: Vec<Point> = (0_u32..)
            .zip(&self.places)
            .map(|(client, place)| {
                let step = total.saturating_sub(u64::from(*place)).div_ceil(clients);
                walk.at(u64::from(client), step as u32)
            })
            .collect();
        let leave = entry
            .view_units
            .saturating_add(entry.hysteresis_units)
            .max(1);
        let mut cells: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
        for (client, at) in (0_u32..).zip(&places) {
            let cell = (at.x / leave, at.y / leave);
            cells.entry(cell).or_default().push(client);
        }
        let near_of = |client: u32| {
            let at = places[client as usize];
            let around = |at: u32| (at / leave).saturating_sub(1)..=at / leave + 1;
            let mut near: Vec<u32> = around(at.x)
                .flat_map(|x| around(at.y).map(move |y| (x, y)))
                .filter_map(|cell| cells.get(&cell))
                .flatten()
                .copied()
                .filter(|other| {
                    *other != client
                        && at.distance_squared(places[*other as usize]) <= square(leave)
                })
                .collect();
            near.sort_unstable();
            near
        };
        self.answer = Some(Answer {
            near: (plan.first..plan.first + plan.count).map(near_of).collect(),
            places,
        });
    }

    /// Compares what one local client believes with the answer.
    fn compare(&self, first: u32, index: u32, belief: &Belief) -> Wrong {
        let mut wrong = Wrong::default();
        let (Some(answer), Some((entry, _))) = (&self.answer, &self.map) else {
            return wrong;
        };
        let near = &answer.near[index as usize];
        let mut seen: Vec<u32> = Vec::with_capacity(belief.seen().len());
        for other in belief.seen() {
            // Players of others are none of this run's business.
            let Some(client) = self.client_of(other.tag) else {
                continue;
            };
            if near.binary_search(&client).is_err() {
                wrong.extra += 1;
            } else if answer.places[client as usize] != other.at {
                wrong.place += 1;
            }
            seen.push(client);
        }
        seen.sort_unstable();
        let before = seen.len();
        seen.dedup();
        wrong.extra += (before - seen.len()) as u64;
        if belief.seen().len() < usize::from(entry.visible_max) {
            let own_place = answer.places[(first + index) as usize];
            wrong.missing = near
                .iter()
                .filter(|other| {
                    let distance = own_place.distance_squared(answer.places[**other as usize]);
                    distance <= square(entry.view_units) && seen.binary_search(other).is_err()
                })
                .count() as u64;
        }
        wrong
    }
}

fn square(units: u32) -> u64 {
    u64::from(units) * u64::from(units)
}

impl Judge<'_> {
    /// A message of the map.
    pub(super) fn world_message(&mut self, header: &MessageHeader, payload: &[u8]) {
        if header.group != GroupId(self.plan.group) || header.more {
            self.tally.error("content");
            return;
        }
        match (header.kind, header.lane, header.message) {
            (MessageKind::Reply, _, ENTER) => match Entry::decode(payload) {
                Ok(entry) => {
                    self.forget_view();
                    self.seen.entry = Some(Ok(entry));
                }
                Err(_) => self.seen.entry = Some(Err(())),
            },
            (MessageKind::Message, Lane::Reliable, RETURNED) => match Entry::decode(payload) {
                Ok(entry) => {
                    self.forget_view();
                    self.seen.restart = Some(Restart::Returned(entry));
                }
                Err(_) => self.tally.error("content"),
            },
            (MessageKind::Message, Lane::Reliable, ABSENT) if payload.is_empty() => {
                self.seen.restart = Some(Restart::Absent);
            }
            (MessageKind::Error, ..) => self.seen.entry = Some(Err(())),
            (MessageKind::Message, Lane::Reliable, CHANGES) => match Changes::decode(payload) {
                Ok(changes) => self.changes(&changes),
                Err(_) => self.tally.error("content"),
            },
            (MessageKind::Message, Lane::Sequenced, POSITIONS) => {
                match Positions::decode(payload) {
                    Ok(positions) => self.positions(&positions),
                    Err(_) => self.tally.error("content"),
                }
            }
            _ => self.tally.error("content"),
        }
    }

    /// The view begins empty; what follows is of the new map.
    fn forget_view(&mut self) {
        if let Some(walker) = self.walker.as_deref_mut() {
            walker.belief = Belief::default();
        }
    }

    fn changes(&mut self, changes: &Changes<'_>) {
        let Some(walker) = self.walker.as_deref_mut() else {
            self.tally.error("content");
            return;
        };
        if walker.belief.handle_changes(changes).is_err() {
            self.tally.error("view_contradiction");
        }
        for enter in changes.enters() {
            self.place(enter.tag, enter.at);
        }
        for rest in changes.rests() {
            if let Some(tag) = self.tag_of(rest.id) {
                self.place(tag, rest.at);
            }
        }
    }

    fn positions(&mut self, positions: &Positions<'_>) {
        for moved in positions.iter() {
            let Some(seen) = self
                .walker
                .as_ref()
                .and_then(|walker| walker.belief.of(moved.id))
            else {
                continue;
            };
            // What is told again is no later for that.
            let is_news = seen.at != moved.at;
            let due_at = self.place(seen.tag, moved.at);
            if let Some(due_at) = due_at.filter(|_| is_news) {
                self.tally.interval.record(self.now.us_since(due_at));
            }
        }
        match self.walker.as_deref_mut() {
            Some(walker) => {
                walker.belief.handle_positions(positions);
            }
            None => self.tally.error("content"),
        }
    }

    fn tag_of(&self, id: u32) -> Option<u64> {
        let walker = self.walker.as_ref()?;
        walker.belief.of(id).map(|seen| seen.tag)
    }

    /// Another player was seen here: it must have been there. Returns when it was to go there.
    fn place(&mut self, tag: u64, at: Point) -> Option<Time> {
        // Before the start clients are still being put on the map.
        let (world, schedule) = (self.world?, self.schedule?);
        let client = world.client_of(tag)?;
        let step = world.step_at(schedule, self.now, client, at);
        if step.is_none() {
            self.tally.error("off_path");
        }
        world.due_at(schedule, client, step?)
    }
}

impl Fleet {
    /// Clients that can take part: in `walk` those on the map, in `chat` and `broadcast` those in
    /// their channels.
    pub(super) fn able(&self) -> u32 {
        match (&self.world, &self.rooms) {
            (Some(world), _) => world.here,
            (None, Some(rooms)) => rooms.members,
            (None, None) => self.groups_up,
        }
    }

    /// Asks for a client to be put on the map, if it is its time.
    pub(super) fn enter_map(&mut self, index: u32) {
        let Some(world) = &mut self.world else {
            return;
        };
        let slot = &mut self.slots[index as usize];
        let Some(client) = slot.client.as_mut() else {
            return;
        };
        if slot.stage != Stage::In || !slot.group_up || slot.walker.is_some() {
            return;
        }
        let number = self.plan.first + index;
        let Some(enter) = world.enter_at(number, 0) else {
            return;
        };
        self.payload.clear();
        enter.encode(&mut self.payload);
        let group = GroupId(self.plan.group);
        if client.request(group, ENTER, &self.payload).is_ok() {
            slot.walker = Some(Box::default());
            if world.map.is_none() {
                world.pioneer = Some(index);
            }
            self.mark(index);
        }
    }

    /// The game was started anew under a client.
    pub(super) fn handle_restart(&mut self, index: u32, restart: Restart, now: Time) {
        let (Some(world), slot) = (&mut self.world, &mut self.slots[index as usize]) else {
            return;
        };
        let Some(walker) = slot.walker.as_mut() else {
            self.tally.error("content");
            return;
        };
        match restart {
            Restart::Returned(entry) => {
                walker.has_returned = true;
                walker.is_entering_again = false;
                if walker.is_here {
                    self.send_place(index, now);
                } else {
                    // What it had asked for had been done; the answer was lost.
                    self.handle_entry(index, Ok(entry), now);
                }
            }
            // Before its first answer it is not there, and waits for it.
            Restart::Absent if !walker.is_here || walker.is_entering_again => {}
            Restart::Absent => {
                let number = self.plan.first + index;
                let step = slot.books.main.ledger.sent();
                let (Some(enter), Some(client)) =
                    (world.enter_at(number, step), slot.client.as_mut())
                else {
                    return;
                };
                walker.is_entering_again = true;
                self.payload.clear();
                enter.encode(&mut self.payload);
                let group = GroupId(self.plan.group);
                if client.request(group, ENTER, &self.payload).is_err() {
                    self.tally.error("not_sent");
                }
                self.mark(index);
            }
        }
    }

    /// Tells the map reliably where a client is by now.
    fn send_place(&mut self, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        let (Some(world), Some(client)) = (&self.world, slot.client.as_mut()) else {
            return;
        };
        world.encode_move(
            self.plan.first + index,
            slot.books.main.ledger.sent(),
            &mut self.payload,
        );
        let group = GroupId(self.plan.group);
        let (payload, shared) = (&self.payload, &mut self.shared);
        if client
            .send(now, Lane::Reliable, group, MOVE, payload, shared)
            .is_err()
        {
            self.tally.error("not_sent");
        }
        self.mark(index);
    }

    /// The map has answered a client.
    pub(super) fn handle_entry(&mut self, index: u32, answer: Result<Entry, ()>, now: Time) {
        let Some(world) = &mut self.world else {
            return;
        };
        let slot = &mut self.slots[index as usize];
        if let Some(walker) = slot.walker.as_mut() {
            let again = std::mem::take(&mut walker.is_entering_again);
            if again && answer.is_ok() {
                self.send_place(index, now);
                return;
            }
            // It was asked for before the game was started anew, which has put it back.
            if answer.is_err() && walker.is_here && walker.has_returned {
                return;
            }
        }
        let (Ok(entry), Some(walker)) = (answer, slot.walker.as_mut()) else {
            self.tally.error("enter_refused");
            world.refused += 1;
            return;
        };
        if std::mem::replace(&mut walker.is_here, true) {
            self.tally.error("content");
            return;
        }
        world.here += 1;
        if world.pioneer == Some(index) && world.map.is_none() {
            let walk = Walk {
                seed: self.plan.seed,
                field_units: field_units(
                    u64::from(self.plan.clients),
                    world.visible,
                    entry.view_units,
                    entry.hysteresis_units,
                    entry.map_width_units.min(entry.map_height_units),
                ),
                step_units: (entry.view_units / STEP_OF_VIEW).max(1),
            };
            world.map = Some((entry, walk));
            // To where the others begin.
            self.send_place(index, now);
            for other in 0..self.slots.len() as u32 {
                self.enter_map(other);
            }
        }
    }

    /// A client is gone.
    pub(super) fn leave_map(&mut self, index: u32) {
        let walker = self.slots[index as usize].walker.take();
        if let Some(world) = &mut self.world {
            world.here -= u32::from(walker.is_some_and(|walker| walker.is_here));
            if world.pioneer == Some(index) && world.map.is_none() {
                world.pioneer = None;
            }
        }
    }

    /// Whether every belief is right, as of at most [`COMPARE_US`] ago.
    pub(super) fn are_views_right(&mut self, now: Time) -> bool {
        let Some(world) = &self.world else {
            return true;
        };
        if now.us_since(world.compared_at) < COMPARE_US {
            return world.was_right;
        }
        let is_right = self.beliefs().all(|wrong| wrong == Wrong::default());
        if let Some(world) = &mut self.world {
            (world.compared_at, world.was_right) = (now, is_right);
        }
        is_right
    }

    /// Counts what is wrong in the clients' views.
    pub(super) fn judge_views(&mut self) {
        let mut sum = Wrong::default();
        for wrong in self.beliefs() {
            sum.missing += wrong.missing;
            sum.extra += wrong.extra;
            sum.place += wrong.place;
        }
        self.tally.errors_add("view_missing", sum.missing);
        self.tally.errors_add("view_extra", sum.extra);
        self.tally.errors_add("view_place", sum.place);
    }

    /// Counts what a client sees, in the window: the sweep comes by each at even distances.
    pub(super) fn look_around(&mut self, index: u32) {
        let walker = self.slots[index as usize].walker.as_deref();
        if let (Some(world), Some(walker)) = (&mut self.world, walker)
            && self.phase == Phase::Running
            && walker.is_here
        {
            world.looked.0 += walker.belief.seen().len() as u64;
            world.looked.1 += 1;
        }
    }

    /// How the belief of each client on the map is wrong.
    fn beliefs(&self) -> impl Iterator<Item = Wrong> {
        let world = self.world.as_ref();
        (0_u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.stage == Stage::In)
            .filter_map(|(index, slot)| Some((index, slot.walker.as_ref()?)))
            .filter(|(_, walker)| walker.is_here)
            .filter_map(move |(index, walker)| {
                Some(world?.compare(self.plan.first, index, &walker.belief))
            })
    }
}
