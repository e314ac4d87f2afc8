//! Where a simulated walker goes: along a path of the load test, about, to a crowd and through
//! it, to and fro inside the hysteresis, along the borders of nodes, or anywhere at a stride.
//!
//! It knows no session. Invariant: a walker is on the map.

use protocol::world::Point;
use protocol::world::path::Walk;

use crate::plan::map::MapPlan;
use crate::random::Random;

/// Steps in a thousand after which a walker changes its manner.
const CHANGE_PER_MILLE: u64 = 40;

/// How a walker goes.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As the walkers of the load test.
    Path,
    /// Small steps in any direction.
    Stroll,
    /// In a crowd where nodes meet.
    Crowd,
    /// About as far from the crowd as one comes into view, and leaves it.
    Pace,
    /// On the borders of nodes and of their margins, and beside them.
    Border,
    /// To anywhere on the map.
    Stride,
    /// Stands.
    Stand,
}

/// A client's walker.
#[derive(Clone, Copy, Debug)]
pub struct Walker {
    /// Where it is.
    pub at: Point,
    manner: Manner,
    steps: u32,
}

impl Walker {
    /// A walker somewhere on the map.
    pub fn draw(map: &MapPlan, random: &mut Random) -> Self {
        Self {
            at: anywhere(map, random),
            manner: manner(random),
            steps: 0,
        }
    }

    /// Where the next step leads; `client` tells the paths apart.
    pub fn next(&mut self, map: &MapPlan, client: usize, random: &mut Random) -> Point {
        if random.chance(CHANGE_PER_MILLE) {
            self.manner = manner(random);
        }
        self.steps += 1;
        let config = &map.config;
        let view = i64::from(config.view_units);
        let (x, y) = (i64::from(self.at.x), i64::from(self.at.y));
        let (crowd_x, crowd_y) = (i64::from(map.gathering.x), i64::from(map.gathering.y));
        match self.manner {
            Manner::Path => {
                let walk = Walk {
                    seed: map.paths_seed,
                    field_units: config.width_units.min(config.height_units),
                    step_units: (config.view_units / 4).max(1),
                };
                walk.at(client as u64, self.steps)
            }
            Manner::Stroll => map.clamp(x + around(random, view / 2), y + around(random, view / 2)),
            Manner::Crowd => {
                let far = (view / 4).max(1);
                map.clamp(crowd_x + around(random, far), crowd_y + around(random, far))
            }
            Manner::Pace => {
                let band = u64::from(config.hysteresis_units) + 3;
                let far = view - 1 + random.below(band) as i64;
                map.clamp(crowd_x - far, crowd_y)
            }
            Manner::Border => {
                let margin = i64::from(config.view_units + config.hysteresis_units);
                let mut axis = |pitch: u32, side: u32| {
                    let lines = u64::from(side / pitch.max(1)) + 1;
                    let line = random.below(lines) as i64 * i64::from(pitch);
                    let beside = [0, 0, -1, 1, margin, -margin, margin - 1][random.index(7)];
                    line + beside
                };
                // Every second row is shifted by half a node.
                let x = axis(config.node_width_units / 2, config.width_units);
                let y = axis(config.node_height_units, config.height_units);
                map.clamp(x, y)
            }
            Manner::Stride => anywhere(map, random),
            Manner::Stand => self.at,
        }
    }
}

fn manner(random: &mut Random) -> Manner {
    match random.below(12) {
        0..2 => Manner::Path,
        2..4 => Manner::Stroll,
        4..7 => Manner::Crowd,
        7..9 => Manner::Pace,
        9 => Manner::Border,
        10 => Manner::Stride,
        _ => Manner::Stand,
    }
}

fn anywhere(map: &MapPlan, random: &mut Random) -> Point {
    let far = 3 * u64::from(map.config.node_width_units);
    Point {
        // On a very wide map they would never meet.
        x: random.below(u64::from(map.config.width_units).min(far)) as u32,
        y: random.below(u64::from(map.config.height_units)) as u32,
    }
}

fn around(random: &mut Random, far: i64) -> i64 {
    random.below(2 * far as u64 + 1) as i64 - far
}
