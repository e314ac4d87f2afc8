//! What the clients' applications do on a map: they ask to be let in whenever the map's group
//! comes up, since only the map knows whether it still has them; they walk, stop when the world
//! falls quiet, and apply what they are told.
//!
//! A session's moves go over one lane until it stops, since a client's core promises no order
//! between lanes and the map takes each move for the latest. The last one is reliable.
//!
//! Invariant: a walker is where it last told that it is.

use std::collections::{BTreeMap, BTreeSet};

use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::ids::GroupId;
use protocol::world::{
    ABSENT, CHANGES, Changes, ENTER, Enter, Entry, MOVE, Move, POSITIONS, Point, Positions,
    REFUSED_HERE_ALREADY,
};

use super::World;
use super::client_side::ClientHost;
use super::event::Event;
use super::phases::Phase;
use crate::plan::map::MapPlan;
use crate::plant::Plant;
use crate::random::Random;
use crate::rule::{Rule, Step, Violation, check};
use crate::view::{Order, View};
use crate::walker::Walker;

/// The group whose game is a map.
pub const MAP_GROUP: GroupId = GroupId(8);

/// A client on a map.
#[derive(Debug)]
pub struct MapSide {
    walker: Walker,
    /// Since it was let in.
    view: Option<View>,
    /// It is to ask (again) to be let in.
    wants_entry: bool,
    /// Its last place was told reliably to a map that had let it in.
    is_settled: bool,
    /// Of its moves.
    lane: Lane,
    /// Moves that it told in this session.
    steps: u32,
}

impl MapSide {
    pub(super) fn new(map: &MapPlan, random: &mut Random) -> Self {
        Self {
            walker: Walker::draw(map, random),
            view: None,
            wants_entry: false,
            is_settled: false,
            lane: Lane::Reliable,
            steps: 0,
        }
    }

    /// A new session begins, or the one that was is over.
    fn begin(&mut self, lane: Lane) {
        *self = Self {
            view: None,
            wants_entry: false,
            is_settled: false,
            lane,
            steps: 0,
            ..*self
        };
    }
}

impl World {
    /// A client has a new connection.
    pub(super) fn walker_begins(&mut self, client: usize) {
        let Some(map) = &self.plan.map else {
            return;
        };
        let lanes = [Lane::Reliable, Lane::Unreliable, Lane::Sequenced];
        let drawn = lanes[self.random.index(lanes.len())];
        // Datagrams keep no order between lanes, nor in the unreliable one, and the map takes
        // each move for the latest.
        let lane = match self.clients[client].flow {
            Some(_) => Lane::Reliable,
            None => drawn,
        };
        let after_us = self.random.between(1, 2_000 * map.step_ms);
        let host = &mut self.clients[client];
        if let Some(side) = &mut host.map {
            side.begin(lane);
        }
        let life = host.life;
        self.after_us(after_us, Event::ClientWalk { client, life });
    }

    /// A client's connection is over.
    pub(super) fn walker_ends(&mut self, client: usize) {
        if let Some(side) = &mut self.clients[client].map {
            side.begin(Lane::Reliable);
        }
    }

    /// The map's group is there (again): does it have this client?
    pub(super) fn walker_group_up(&mut self, client: usize) {
        if let Some(side) = &mut self.clients[client].map {
            side.wants_entry = true;
        }
        self.walker_asks(client);
    }

    fn walker_asks(&mut self, client: usize) {
        let ClientHost {
            core: Some(core),
            attempt: Some(attempt),
            map: Some(side),
            ..
        } = &mut self.clients[client]
        else {
            return;
        };
        if !side.wants_entry {
            return;
        }
        let enter = Enter {
            tag: u64::from(*attempt),
            at: side.walker.at,
        };
        let mut payload = Vec::new();
        enter.encode(&mut payload);
        // With a full outbox it asks later.
        if core.request(MAP_GROUP, ENTER, &payload).is_ok() {
            side.wants_entry = false;
            side.is_settled = false;
            self.truth.note_told(enter.tag, enter.at);
        }
    }

    /// Tells a place; what is not taken leaves the walker where it was.
    fn walker_tells(&mut self, client: usize, lane: Lane, at: Point) {
        let ClientHost {
            clock,
            shared,
            core: Some(core),
            attempt: Some(attempt),
            map: Some(side),
            ..
        } = &mut self.clients[client]
        else {
            return;
        };
        let now = clock.now(self.now).time;
        let step = side.steps + 1;
        let mut payload = Vec::new();
        Move { step, at }.encode(&mut payload);
        if core
            .send(now, lane, MAP_GROUP, MOVE, &payload, shared)
            .is_ok()
        {
            side.steps = step;
            side.walker.at = at;
            side.is_settled = lane == Lane::Reliable;
            self.truth.note_told(u64::from(*attempt), at);
        }
    }

    /// A walker goes a step.
    pub(super) fn client_walk(&mut self, client: usize, life: u32) -> Step {
        let host = &mut self.clients[client];
        if host.life != life || self.phase >= Phase::Quiet {
            return Ok(());
        }
        let (Some(map), Some(side)) = (&self.plan.map, &mut host.map) else {
            return Ok(());
        };
        let after_us = self.random.between(1, 2_000 * map.step_ms);
        let lane = side.lane;
        let next = side
            .view
            .is_some()
            .then(|| side.walker.next(map, client, &mut self.random));
        self.after_us(after_us, Event::ClientWalk { client, life });
        self.walker_asks(client);
        if let Some(at) = next {
            self.walker_tells(client, lane, at);
        }
        self.client_flush(client)
    }

    /// All walkers stop where they are, and tell so.
    pub(super) fn walkers_stop(&mut self) -> Step {
        for client in 0..self.clients.len() {
            self.walker_asks(client);
            if let Some(side) = &self.clients[client].map
                && side.view.is_some()
                && !side.is_settled
            {
                let at = side.walker.at;
                self.walker_tells(client, Lane::Reliable, at);
            }
            self.client_flush(client)?;
        }
        Ok(())
    }

    /// A message of the map.
    pub(super) fn walker_told(
        &mut self,
        client: usize,
        header: &MessageHeader,
        payload: &[u8],
    ) -> Step {
        let garbled = || Violation::new(Rule::RepliesMatch, "a map sent what it never sends");
        let host = &mut self.clients[client];
        let (Some(plan), Some(side), Some(attempt)) = (&self.plan.map, &mut host.map, host.attempt)
        else {
            return Err(garbled());
        };
        let view = side.view.as_mut();
        let session = self.book.attempts[attempt as usize].session;
        let entered = session.and_then(|session| self.truth.entered(session));
        let order = match host.flow {
            Some(_) => Order::EachLane,
            // What a lane that may lose sends to a slow client waits behind the reliable one.
            None if self.plan.channels => Order::EachLane,
            None => Order::All,
        };
        match (header.kind, header.lane, header.message) {
            (MessageKind::Reply, _, ENTER) => {
                let entry = Entry::decode(payload).map_err(|_| garbled())?;
                check_entry(plan, &entry)?;
                let boot = self
                    .truth
                    .map_of(session.ok_or_else(garbled)?, entry.tick)?;
                let mut view = View::new(boot, attempt.into(), entry.id, entry.tick, order);
                if let Some(earlier) = side.view.take() {
                    self.reentries += 1;
                    if self.plant == Some(Plant::KeepView) {
                        view.keep(earlier);
                    }
                }
                side.view = Some(view);
                Ok(())
            }
            (MessageKind::Error, _, ENTER) => {
                let code = payload.first_chunk().map(|code| u16::from_le_bytes(*code));
                check(
                    code == Some(REFUSED_HERE_ALREADY) && view.is_some(),
                    Rule::RepliesMatch,
                    || format!("client {client} was not let on the map: {code:?}"),
                )
            }
            (MessageKind::Message, Lane::Reliable, CHANGES) => {
                let changes = Changes::decode(payload).map_err(|_| garbled())?;
                self.enters += changes.enters().count() as u64;
                view.ok_or_else(garbled)?
                    .changes(plan, &self.truth, &changes)
            }
            // One that was sent after the answer of a map has overtaken it.
            (MessageKind::Message, Lane::Sequenced, POSITIONS)
                if order == Order::EachLane && view.as_ref().map(|view| view.boot) != entered =>
            {
                Ok(())
            }
            (MessageKind::Message, Lane::Sequenced, POSITIONS) => {
                let positions = Positions::decode(payload).map_err(|_| garbled())?;
                view.ok_or_else(garbled)?
                    .positions(plan, &self.truth, &positions)
            }
            // A move has reached a map that began anew. The view lasts until the next entry.
            (MessageKind::Message, Lane::Reliable, ABSENT) if payload.is_empty() => {
                side.wants_entry = true;
                self.walker_asks(client);
                Ok(())
            }
            _ => Err(garbled()),
        }
    }

    /// What is not yet as it must be on the maps once everybody stands.
    pub(super) fn views_unsettled(&self) -> Option<Violation> {
        let plan = self.plan.map.as_ref()?;
        let mut stands: BTreeMap<u64, Point> = BTreeMap::new();
        let mut on: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
        let mut views = Vec::new();
        for (client, host) in self.clients.iter().enumerate() {
            let (Some(session), Some(side)) = (host.session(), &host.map) else {
                continue;
            };
            let late = |what: &str| {
                let detail = format!("client {client} {what}");
                Some(Violation::new(Rule::Liveness, detail))
            };
            let Some(view) = &side.view else {
                return late("is not on the map");
            };
            let at = side.walker.at;
            if !side.is_settled {
                return late("has not told where it stopped");
            }
            if self.truth.place_of(view.boot, session) != Some(at) {
                return late("has stopped, which its map does not know");
            }
            stands.insert(view.tag, at);
            on.entry(view.boot).or_default().insert(view.tag);
            views.push(view);
        }
        for (game, host) in self.games.iter().enumerate().skip(self.plan.games) {
            let boot = (game, host.boot);
            let (there, known) = (self.truth.tags_on(boot), on.remove(&boot));
            if host.core.is_some() && there != known.unwrap_or_default() {
                let detail = format!("map {boot:?} has others than are there: {there:?}");
                return Some(Violation::new(Rule::Bounded, detail));
            }
        }
        for view in views {
            if let Some(wrong) = view.wrong_at_rest(plan, &self.truth) {
                return Some(Violation::new(Rule::ViewsExact, wrong));
            }
            let astray = view.seen().find(|(tag, at)| stands.get(tag) != Some(at));
            if let Some((tag, at)) = astray {
                let detail = format!(
                    "{} sees {tag} at {at:?}, which stands at {:?}",
                    view.tag,
                    stands.get(&tag)
                );
                return Some(Violation::new(Rule::PlacesTrue, detail));
            }
        }
        None
    }
}

/// A map tells of itself what was configured.
fn check_entry(plan: &MapPlan, entry: &Entry) -> Step {
    let config = &plan.config;
    let expected = Entry {
        id: entry.id,
        tick: entry.tick,
        map_width_units: config.width_units,
        map_height_units: config.height_units,
        view_units: config.view_units,
        hysteresis_units: config.hysteresis_units,
        visible_max: config.visible_max as u16,
        tick_ms: plan.tick_ms,
    };
    check(*entry == expected, Rule::RepliesMatch, || {
        format!("a map says that it is {entry:?}")
    })
}
