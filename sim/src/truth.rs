//! Where everybody was on each map after each tick, as the map's messages tell, and who must then
//! be in whose view, by comparing everybody with everybody.
//!
//! It knows a map's configuration and what clients told it, nothing of how a map finds its
//! answer. Players are named by the number of their connection (`Attempt`), which is their tag.
//!
//! # The answer
//! Of those that were in view, who is within `view + hysteresis` stays; of the others, who is
//! within `view` comes. If these are more than a view has seats, the seats are taken, and by
//! none but them.
//!
//! Invariant: a snapshot is never changed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::body::Lane;
use protocol::ids::SessionId;
use protocol::world::{Enter, Move, Point};

use crate::book::Boot;
use crate::plan::map::MapPlan;
use crate::rule::{Rule, Step, Violation, check};

/// Who is where.
type Places = BTreeMap<u64, Point>;

/// A player on a map.
#[derive(Debug)]
struct Player {
    tag: u64,
    /// The map's last tick when it came.
    since_tick: u32,
    at: Point,
    /// Of its last move.
    step: u32,
}

/// One start of one game with a map.
#[derive(Debug)]
struct Map {
    players: BTreeMap<SessionId, Player>,
    /// By tick, from 0, when nobody was there. One that changed nothing is shared.
    ticks: Vec<Rc<Places>>,
}

/// All maps of a run, and what clients told.
#[derive(Debug, Default)]
pub struct Truth {
    maps: BTreeMap<Boot, Map>,
    /// The map that a session entered last.
    entered: BTreeMap<SessionId, Boot>,
    /// By tag: all places that its client told, in order.
    told: BTreeMap<u64, Vec<Point>>,
}

impl Truth {
    /// A game process with an empty map has started.
    pub fn note_start(&mut self, boot: Boot) {
        let map = Map {
            players: BTreeMap::new(),
            ticks: vec![Rc::default()],
        };
        self.maps.insert(boot, map);
    }

    /// A client told where it is.
    pub fn note_told(&mut self, tag: u64, at: Point) {
        self.told.entry(tag).or_default().push(at);
    }

    /// A map was asked for a place. Whom it lets in follows from what is known.
    pub fn note_enter(&mut self, boot: Boot, session: SessionId, enter: &Enter) {
        let Some(map) = self.maps.get_mut(&boot) else {
            return;
        };
        let player = Player {
            tag: enter.tag,
            since_tick: map.ticks.len() as u32 - 1,
            at: enter.at,
            step: 0,
        };
        if let Entry::Vacant(place) = map.players.entry(session) {
            place.insert(player);
            self.entered.insert(session, boot);
        }
    }

    /// A map was told of a move.
    pub fn note_move(&mut self, boot: Boot, session: SessionId, lane: Lane, step: &Move) -> Step {
        let player = self
            .maps
            .get_mut(&boot)
            .and_then(|map| map.players.get_mut(&session));
        let Some(player) = player else {
            return Ok(());
        };
        let rule = match lane {
            Lane::Reliable => Rule::ReliableExactlyOnce,
            Lane::Unreliable | Lane::Sequenced => Rule::UnreliableAtMostOnce,
        };
        check(step.step > player.step, rule, || {
            format!(
                "move {} of session {session} came after {}",
                step.step, player.step
            )
        })?;
        player.step = step.step;
        player.at = step.at;
        Ok(())
    }

    /// A player has gone.
    pub fn note_gone(&mut self, boot: Boot, session: SessionId) {
        if let Some(map) = self.maps.get_mut(&boot) {
            map.players.remove(&session);
        }
    }

    /// A map has done a tick.
    pub fn note_tick(&mut self, boot: Boot, tick: u32) -> Step {
        let Some(map) = self.maps.get_mut(&boot) else {
            return Ok(());
        };
        check(tick as usize == map.ticks.len(), Rule::TicksRise, || {
            format!("map {boot:?} did tick {tick} after {}", map.ticks.len() - 1)
        })?;
        let places: Places = map.players.values().map(|p| (p.tag, p.at)).collect();
        let snapshot = match map.ticks.last() {
            Some(last) if **last == places => Rc::clone(last),
            _ => Rc::new(places),
        };
        map.ticks.push(snapshot);
        Ok(())
    }

    /// The map that a session entered last.
    pub fn entered(&self, session: SessionId) -> Option<Boot> {
        self.entered.get(&session).copied()
    }

    /// The map that a session is on which was told that it was let in after this tick.
    pub fn map_of(&self, session: SessionId, tick: u32) -> Result<Boot, Violation> {
        let wrong = || Violation::new(Rule::RepliesMatch, "a map let somebody in that never came");
        let boot = *self.entered.get(&session).ok_or_else(wrong)?;
        let player = self.maps.get(&boot).and_then(|m| m.players.get(&session));
        // One that was kicked since has no entry any more, and its client is to hear of it.
        check(
            player.is_none_or(|player| player.since_tick == tick),
            Rule::RepliesMatch,
            || format!("session {session} was let in at tick {tick}"),
        )?;
        Ok(boot)
    }

    /// The last tick of a map.
    pub fn last_tick(&self, boot: Boot) -> u32 {
        self.maps
            .get(&boot)
            .map_or(0, |map| map.ticks.len() as u32 - 1)
    }

    /// Where a map has a player, if it has it.
    pub fn place_of(&self, boot: Boot, session: SessionId) -> Option<Point> {
        let player = self.maps.get(&boot)?.players.get(&session)?;
        Some(player.at)
    }

    /// Players on a map, by tag.
    pub fn tags_on(&self, boot: Boot) -> BTreeSet<u64> {
        self.maps
            .get(&boot)
            .into_iter()
            .flat_map(|map| map.players.values().map(|player| player.tag))
            .collect()
    }

    /// The first place from the `from`th on that a client told and that is `at`.
    pub fn find_told(&self, tag: u64, from: usize, at: Point) -> Option<usize> {
        let told = self.told.get(&tag)?;
        let behind = told.get(from..)?.iter().position(|place| *place == at)?;
        Some(from + behind)
    }

    /// Whether nothing happened on a map in a tick.
    pub fn is_same(&self, boot: Boot, tick: u32) -> bool {
        let Some(map) = self.maps.get(&boot) else {
            return false;
        };
        let at = |tick: u32| map.ticks.get(tick as usize);
        match (tick.checked_sub(1).and_then(at), at(tick)) {
            (Some(before), Some(after)) => Rc::ptr_eq(before, after),
            _ => false,
        }
    }

    /// How a view after a tick differs from the answer, given the one before it.
    pub fn wrong(
        &self,
        plan: &MapPlan,
        (boot, viewer, tick): (Boot, u64, u32),
        before: &BTreeSet<u64>,
        after: &BTreeSet<u64>,
    ) -> Option<String> {
        let places = self.maps.get(&boot)?.ticks.get(tick as usize)?;
        let Some(own) = places.get(&viewer) else {
            return (!after.is_empty())
                .then(|| format!("{viewer} sees {after:?}, and is not on the map"));
        };
        let may_be_seen: BTreeSet<u64> = places
            .iter()
            .filter(|(other, at)| {
                let squared = own.distance_squared(**at);
                let limit = if before.contains(other) {
                    plan.leave_squared()
                } else {
                    plan.view_squared()
                };
                **other != viewer && squared <= limit
            })
            .map(|(other, _)| *other)
            .collect();
        let seats = plan.seats();
        let is_right = if may_be_seen.len() <= seats {
            *after == may_be_seen
        } else {
            after.len() == seats && after.is_subset(&may_be_seen)
        };
        (!is_right).then(|| {
            format!(
                "after tick {tick} {viewer} sees {after:?}, and should see {may_be_seen:?} \
                 in {seats} seats; it saw {before:?}"
            )
        })
    }

    /// Of a full view at rest: how many seats of the near are not taken by those that are nearest
    /// within a tenth, as `backend::map` promises.
    pub fn far_seats(
        &self,
        plan: &MapPlan,
        boot: Boot,
        viewer: u64,
        view: &BTreeSet<u64>,
    ) -> usize {
        let seats = plan.seats();
        let near = seats - (seats / 8).max(1).min(seats - 1);
        let Some(places) = self.maps.get(&boot).and_then(|map| map.ticks.last()) else {
            return 0;
        };
        let Some(own) = places.get(&viewer).filter(|_| view.len() == seats) else {
            return 0;
        };
        let distance = |other: &u64| places.get(other).map(|at| own.distance_squared(*at));
        let mut all: Vec<u64> = places
            .keys()
            .filter(|other| **other != viewer)
            .filter_map(|other| {
                let squared = distance(other)?;
                (view.contains(other) || squared <= plan.view_squared()).then_some(squared)
            })
            .collect();
        all.sort_unstable();
        let limit = all.get(near - 1).map_or(0, |squared| squared * 5 / 4);
        let close = view.iter().filter_map(distance).filter(|d| *d <= limit);
        near.saturating_sub(close.count())
    }
}
