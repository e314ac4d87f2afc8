//! The map against a naive one that compares everybody with everybody, through the eyes of
//! clients that apply the frames.

mod crowds;
mod oracle;
mod partitions;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::SessionId;
use protocol::world::{Belief, Changes, Point, Positions};

use super::*;

/// Draws of a test, from its seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % u64::from(below)) as u32
    }

    fn place(&mut self, config: &MapConfig) -> Point {
        Point {
            x: self.roll(config.width_units),
            y: self.roll(config.height_units),
        }
    }

    /// A step of up to `far` each way, stopped by the map's edge.
    fn step(&mut self, config: &MapConfig, at: Point, far: u32) -> Point {
        let mut axis = |from: u32, side: u32| {
            (from + self.roll(2 * far + 1))
                .saturating_sub(far)
                .min(side - 1)
        };
        Point {
            x: axis(at.x, config.width_units),
            y: axis(at.y, config.height_units),
        }
    }
}

fn small() -> MapConfig {
    MapConfig {
        width_units: 700,
        height_units: 390,
        node_width_units: 192,
        node_height_units: 96,
        view_units: 40,
        hysteresis_units: 8,
        visible_max: 255,
        rest_ticks: 6,
        ..MapConfig::default()
    }
}

/// What is known of a player without the map.
struct Body {
    walker: Walker,
    at: Point,
    jumped: bool,
    belief: Belief,
}

/// A map, the players on it as the test knows them, and the naive relation of who sees whom.
struct World {
    map: Map,
    /// By session, which is the tag as well.
    bodies: BTreeMap<u64, Body>,
    /// Pairs of ids that see each other, the lower first: what views without bounds would be.
    sees: BTreeSet<(u32, u32)>,
    next_session: u64,
    /// Of the last tick: enters and leaves by the viewer's session.
    enters: BTreeMap<u64, Vec<u32>>,
    leaves: BTreeMap<u64, Vec<u32>>,
    /// Whether the next position frame is lost.
    loses: Option<Dice>,
    frames: usize,
}

impl World {
    fn new(config: MapConfig) -> Self {
        Self {
            map: Map::new(config).unwrap(),
            bodies: BTreeMap::new(),
            sees: BTreeSet::new(),
            next_session: 1,
            enters: BTreeMap::new(),
            leaves: BTreeMap::new(),
            loses: None,
            frames: 0,
        }
    }

    fn config(&self) -> MapConfig {
        self.map.layout().config().clone()
    }

    fn enter(&mut self, at: Point) -> u64 {
        let session = self.next_session;
        self.next_session += 1;
        let walker = self
            .map
            .handle_enter(SessionId(session), session, at)
            .unwrap();
        let body = Body {
            walker,
            at,
            jumped: false,
            belief: Belief::default(),
        };
        self.bodies.insert(session, body);
        session
    }

    fn step(&mut self, session: u64, at: Point) {
        let body = self.bodies.get_mut(&session).unwrap();
        body.at = at;
        self.map.handle_move(body.walker, at).unwrap();
    }

    fn jump(&mut self, session: u64, at: Point) {
        let body = self.bodies.get_mut(&session).unwrap();
        body.at = at;
        body.jumped = true;
        self.map.handle_teleport(body.walker, at).unwrap();
    }

    fn leave(&mut self, session: u64) {
        let body = self.bodies.remove(&session).unwrap();
        self.map.handle_leave(body.walker).unwrap();
        assert_eq!(self.map.handle_leave(body.walker), Err(MapError::Gone));
        assert_eq!(
            self.map.handle_move(body.walker, body.at),
            Err(MapError::Gone)
        );
        assert_eq!(self.map.place_of(body.walker), None);
    }

    /// One tick of the map and of the naive relation; clients apply what they are told.
    fn tick(&mut self) {
        self.enters.clear();
        self.leaves.clear();
        let mut told = BTreeSet::new();
        let Self {
            map,
            bodies,
            enters,
            leaves,
            loses,
            frames,
            ..
        } = self;
        let tick = map.tick().wrapping_add(1);
        map.handle_tick(&mut |session, frame| {
            *frames += 1;
            let body = bodies
                .get_mut(&session.0)
                .expect("only those on the map are told");
            match frame {
                Frame::Changes(bytes) => {
                    assert!(
                        told.insert((session, 0)),
                        "two frames of one kind in a tick"
                    );
                    assert!(!told.contains(&(session, 1)), "the changes come first");
                    let changes = Changes::decode(bytes).unwrap();
                    assert_eq!(changes.tick, tick);
                    enters.insert(session.0, changes.enters().map(|enter| enter.id).collect());
                    leaves.insert(session.0, changes.leaves().collect());
                    body.belief.handle_changes(&changes).unwrap();
                }
                Frame::Positions(bytes) => {
                    assert!(
                        told.insert((session, 1)),
                        "two frames of one kind in a tick"
                    );
                    let positions = Positions::decode(bytes).unwrap();
                    assert_eq!(positions.tick, tick);
                    assert!(positions.iter().count() > 0);
                    for moved in positions.iter() {
                        assert!(body.belief.of(moved.id).is_some(), "it is in view");
                    }
                    if loses.as_mut().is_some_and(|dice| dice.roll(2) == 0) {
                        return;
                    }
                    body.belief.handle_positions(&positions);
                }
            }
        });
        self.look();
        assert_eq!(self.map.players(), self.bodies.len());
    }

    fn look(&mut self) {
        let config = self.map.layout().config();
        let view = u64::from(config.view_units).pow(2);
        let leave = u64::from(config.view_units + config.hysteresis_units).pow(2);
        let mut sees = BTreeSet::new();
        let all: Vec<_> = self.bodies.values().collect();
        for (index, a) in all.iter().enumerate() {
            for b in &all[..index] {
                let pair = (a.walker.id.min(b.walker.id), a.walker.id.max(b.walker.id));
                let known = self.sees.contains(&pair) && !a.jumped && !b.jumped;
                if a.at.distance_squared(b.at) <= if known { leave } else { view } {
                    sees.insert(pair);
                }
            }
        }
        self.sees = sees;
        for body in self.bodies.values_mut() {
            body.jumped = false;
        }
    }

    fn believed(&self, session: u64) -> BTreeSet<u32> {
        self.bodies[&session]
            .belief
            .seen()
            .iter()
            .map(|seen| seen.id)
            .collect()
    }

    /// Every client believes what the naive relation says, and knows where everybody is.
    fn check_all(&self) {
        let places: BTreeMap<_, _> = self
            .bodies
            .iter()
            .map(|(session, body)| (body.walker.id, (*session, body.at)))
            .collect();
        let mut wanted: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for &(a, b) in &self.sees {
            wanted.entry(a).or_default().insert(b);
            wanted.entry(b).or_default().insert(a);
        }
        for (session, body) in &self.bodies {
            let wanted = wanted.remove(&body.walker.id).unwrap_or_default();
            assert_eq!(self.believed(*session), wanted, "view of session {session}");
            for seen in body.belief.seen() {
                assert_eq!(
                    (seen.tag, seen.at),
                    places[&seen.id],
                    "as session {session} sees it"
                );
            }
        }
    }
}
