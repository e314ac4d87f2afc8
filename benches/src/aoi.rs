//! A map full of walkers: their moves and the tick that tells each who is around.
//!
//! Deliberately not here: sessions, streams, the game around the map, and the
//! cores of a map node: all of the map is in one thread.
//!
//! Invariant: the crowd is as dense at every size, so that a small one costs as
//! much a player.

use std::time::{Duration, Instant};

use backend::map::{Frame, Map, MapConfig, Walker};
use protocol::ids::SessionId;
use protocol::world::Point;

use crate::Digest;

/// Others within view on average; the target is stated for it.
pub const VISIBLE: u64 = 20;
/// One tick's step of a walker, units of 25 cm: 5 m/s at 10 ticks/s.
const STEP_UNITS: i32 = 2;
/// The eight directions.
const DIRECTIONS: [(i32, i32); 8] = [
    (1, 0),
    (1, 1),
    (0, 1),
    (-1, 1),
    (-1, 0),
    (-1, -1),
    (0, -1),
    (1, -1),
];
/// Ticks until a walker turns, so that views change as those of people do.
const TURN_TICKS: u32 = 50;

struct Player {
    walker: Walker,
    at: Point,
    direction: usize,
}

/// See the module.
pub struct Crowd {
    map: Map,
    side: i32,
    players: Vec<Player>,
    /// Every so manieth player walks; the others stand.
    every: usize,
}

/// What the players were told in some ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn point(x: i32, y: i32) -> Point {
    Point {
        x: x as u32,
        y: y as u32,
    }
}

impl Crowd {
    /// So many players at places drawn evenly, of whom one in `every` walks.
    ///
    /// # Panics
    /// The map does not take them.
    pub fn new(players: usize, every: usize) -> Self {
        let view = u64::from(MapConfig::default().view_units);
        // VISIBLE players in a circle as wide as the view; π as 355/113.
        let area = players as u64 * view * view * 355 / 113 / VISIBLE;
        let side = area.isqrt() as u32;
        let config = MapConfig {
            width_units: side,
            height_units: side,
            players_max: players as u32,
            ..MapConfig::default()
        };
        let mut map = Map::new(config).expect("a map");
        let mut random = 1_u64;
        let mut draw = |below: u64| {
            // Knuth's MMIX generator; its high bits are the good ones.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let players = (0..players as u64).map(|index| {
            let at = point(draw(side.into()) as i32, draw(side.into()) as i32);
            Player {
                walker: map
                    .handle_enter(SessionId(index + 1), 0, at)
                    .expect("room on the map"),
                at,
                direction: draw(DIRECTIONS.len() as u64) as usize,
            }
        });
        let players = players.collect();
        Self {
            map,
            side: side as i32,
            players,
            every,
        }
    }

    /// One tick, with the moves before it. Returns the time in the map.
    ///
    /// # Panics
    /// The map refuses a move.
    pub fn tick(&mut self, mut told: impl FnMut(SessionId, &[u8])) -> Duration {
        let turn = self.map.tick() % TURN_TICKS;
        for (index, player) in self.players.iter_mut().enumerate().step_by(self.every) {
            if index as u32 % TURN_TICKS == turn {
                player.direction = (player.direction + 3) % DIRECTIONS.len();
            }
            let (x, y) = DIRECTIONS[player.direction];
            let step = |at: u32, by: i32| (at as i32 + by * STEP_UNITS).clamp(0, self.side - 1);
            player.at = point(step(player.at.x, x), step(player.at.y, y));
        }
        let begin = Instant::now();
        for player in self.players.iter().step_by(self.every) {
            self.map
                .handle_move(player.walker, player.at)
                .expect("on the map");
        }
        self.map.handle_tick(&mut |session, frame| match frame {
            Frame::Changes(bytes) | Frame::Positions(bytes) => told(session, bytes),
        });
        begin.elapsed()
    }

    /// One tick, and how much was told in it.
    pub fn counted_tick(&mut self) -> (Duration, Told) {
        let mut all = Told::default();
        let spent = self.tick(|_, bytes| {
            all.frames += 1;
            all.bytes += bytes.len() as u64;
        });
        (spent, all)
    }
}

/// What the players were told in `ticks` ticks.
pub fn digest(players: usize, every: usize, ticks: usize) -> Digest {
    let mut crowd = Crowd::new(players, every);
    let mut digest = Digest::default();
    for _ in 0..ticks {
        crowd.tick(|session, bytes| {
            digest.update(&session.0.to_le_bytes());
            digest.update(bytes);
        });
    }
    digest
}
