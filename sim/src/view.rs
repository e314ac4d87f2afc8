//! What one client believes it sees, and the rules that every frame of the map must keep, checked
//! before the client believes it.
//!
//! Over TCP, with one stream a session to the backend, frames of both lanes keep their order; so
//! nobody is told to move that is not in view. Over datagrams each lane keeps its own: places may
//! come before their owner does, or after, and are passed over where they are not news.
//!
//! Invariant: the view has been compared with the truth of every tick before `next_tick`.

use std::collections::{BTreeMap, BTreeSet};

use protocol::world::{Belief, Changes, Point, Positions};

use crate::book::Boot;
use crate::plan::map::MapPlan;
use crate::rule::{Rule, Step, check};
use crate::truth::Truth;

/// Which frames come in the order in which they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All.
    All,
    /// Those of each lane.
    EachLane,
}

/// A client's view, from its entry on.
#[derive(Debug)]
pub struct View {
    /// On which map.
    pub boot: Boot,
    /// The client's own, by which others know it.
    pub tag: u64,
    id: u32,
    belief: Belief,
    order: Order,
    next_tick: u32,
    changes_tick: u32,
    positions_tick: u32,
    /// By tag: which of the places that it told was seen last.
    last_told: BTreeMap<u64, usize>,
    /// Others that came into view.
    pub enters: u64,
}

impl View {
    /// The view of one that has just been let in, as of a tick.
    pub fn new(boot: Boot, tag: u64, id: u32, tick: u32, order: Order) -> Self {
        Self {
            boot,
            tag,
            id,
            belief: Belief::default(),
            order,
            // Then it was not there yet, and saw nobody.
            next_tick: tick,
            changes_tick: tick,
            positions_tick: tick,
            last_told: BTreeMap::new(),
            enters: 0,
        }
    }

    /// A plant: the client does not forget what it saw before.
    pub fn keep(&mut self, earlier: Self) {
        self.belief = earlier.belief;
    }

    /// Who is seen where.
    pub fn seen(&self) -> impl Iterator<Item = (u64, Point)> {
        self.belief.seen().iter().map(|seen| (seen.tag, seen.at))
    }

    /// Who is seen.
    pub fn tags(&self) -> BTreeSet<u64> {
        self.seen().map(|(tag, _)| tag).collect()
    }

    /// Applies a frame of changes.
    ///
    /// # Errors
    /// It broke a rule.
    pub fn changes(&mut self, plan: &MapPlan, truth: &Truth, changes: &Changes<'_>) -> Step {
        let (tick, tag) = (changes.tick, self.tag);
        check(
            tick > self.changes_tick && tick <= truth.last_tick(self.boot),
            Rule::TicksRise,
            || {
                format!(
                    "{tag} was told of changes in tick {tick} of {}",
                    self.changes_tick
                )
            },
        )?;
        self.changes_tick = tick;
        // In between nothing was told, so nothing may have changed.
        if let Some(wrong) = self.wrong_until(plan, truth, tick) {
            return check(false, Rule::ViewsExact, || wrong);
        }
        let before = self.tags();
        self.check_events(changes)?;
        for enter in changes.enters() {
            if self.order == Order::EachLane {
                // A place that overtook its leaving told where it is by now.
                self.last_told.remove(&enter.tag);
            }
            self.place(plan, truth, enter.tag, enter.at)?;
            self.enters += 1;
        }
        let contradiction = self.belief.handle_changes(changes).err();
        check(contradiction.is_none(), Rule::ViewEvents, || {
            format!("{tag} was told what cannot be: {contradiction:?}")
        })?;
        for rest in changes.rests() {
            if let Some(seen) = self.belief.of(rest.id).copied()
                && (self.order == Order::All || seen.tick <= tick)
            {
                self.place(plan, truth, seen.tag, rest.at)?;
            }
        }
        let after = self.tags();
        let wrong = truth.wrong(plan, (self.boot, tag, tick), &before, &after);
        check(wrong.is_none(), Rule::ViewsExact, || {
            wrong.unwrap_or_default()
        })?;
        self.next_tick = tick + 1;
        Ok(())
    }

    /// Who enters is not in view, who leaves or rests is, and nobody is told of itself.
    fn check_events(&self, changes: &Changes<'_>) -> Step {
        let tag = self.tag;
        let mut seen: BTreeSet<u32> = self.belief.seen().iter().map(|seen| seen.id).collect();
        let mut left = BTreeSet::new();
        for id in changes.leaves() {
            check(seen.remove(&id), Rule::ViewEvents, || {
                format!("{tag} was told that {id} left, which it did not see")
            })?;
            left.insert(id);
        }
        for enter in changes.enters() {
            check(
                enter.id != self.id && enter.tag != tag,
                Rule::ViewEvents,
                || format!("{tag} sees itself"),
            )?;
            check(
                !left.contains(&enter.id) && seen.insert(enter.id),
                Rule::ViewEvents,
                || {
                    format!(
                        "{tag} was told that {} came, which it saw already",
                        enter.id
                    )
                },
            )?;
        }
        for rest in changes.rests() {
            check(seen.contains(&rest.id), Rule::ViewEvents, || {
                format!(
                    "{tag} was told that {} stopped, which it does not see",
                    rest.id
                )
            })?;
        }
        Ok(())
    }

    /// Applies a frame of positions.
    ///
    /// # Errors
    /// It broke a rule.
    pub fn positions(&mut self, plan: &MapPlan, truth: &Truth, positions: &Positions<'_>) -> Step {
        let (tick, tag) = (positions.tick, self.tag);
        check(
            tick > self.positions_tick && tick <= truth.last_tick(self.boot),
            Rule::TicksRise,
            || {
                format!(
                    "{tag} was told of places in tick {tick} after {}",
                    self.positions_tick
                )
            },
        )?;
        self.positions_tick = tick;
        for moved in positions.iter() {
            let seen = self.belief.of(moved.id).copied();
            if self.order == Order::EachLane && seen.is_none_or(|seen| tick <= seen.tick) {
                continue;
            }
            check(seen.is_some(), Rule::ViewEvents, || {
                format!(
                    "{tag} was told where {} is, which it does not see",
                    moved.id
                )
            })?;
            if let Some(seen) = seen {
                self.place(plan, truth, seen.tag, moved.at)?;
            }
        }
        self.belief.handle_positions(positions);
        Ok(())
    }

    /// Another is said to be here: it told so, and not before what was seen of it last.
    fn place(&mut self, plan: &MapPlan, truth: &Truth, other: u64, at: Point) -> Step {
        let tag = self.tag;
        check(plan.contains(at), Rule::PlacesTrue, || {
            format!("{tag} sees {other} at {at:?}, off the map")
        })?;
        let from = self.last_told.get(&other).copied().unwrap_or(0);
        let found = truth.find_told(other, from, at);
        check(found.is_some(), Rule::PlacesTrue, || {
            format!("{tag} sees {other} at {at:?}, where it was not, or long ago")
        })?;
        self.last_told.insert(other, found.unwrap_or(from));
        Ok(())
    }

    /// How the view is wrong in a tick before `end` in which it did not change.
    fn wrong_until(&self, plan: &MapPlan, truth: &Truth, end: u32) -> Option<String> {
        let view = self.tags();
        (self.next_tick..end)
            .filter(|tick| *tick == self.next_tick || !truth.is_same(self.boot, *tick))
            .find_map(|tick| truth.wrong(plan, (self.boot, self.tag, tick), &view, &view))
    }

    /// How the view is wrong now that everybody stands.
    pub fn wrong_at_rest(&self, plan: &MapPlan, truth: &Truth) -> Option<String> {
        let far = truth.far_seats(plan, self.boot, self.tag, &self.tags());
        self.wrong_until(plan, truth, truth.last_tick(self.boot) + 1)
            .or_else(|| {
                (far > 0)
                    .then(|| format!("{far} seats of {} have not gone to the nearest", self.tag))
            })
    }
}
