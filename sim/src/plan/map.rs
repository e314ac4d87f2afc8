//! What a seed draws of a map, if its cluster has one: its shape, its nodes, its seats, the time
//! between ticks, and where the walkers crowd.
//!
//! Maps are small against their views, so that few walkers meet often, and their nodes are about
//! as small as they may be, so that walkers often stand at borders.
//!
//! Invariant: what is drawn follows every rule of `MapConfig`.

use backend::map::MapConfig;
use protocol::world::Point;

use crate::random::Random;

/// A map and how it is walked on.
#[derive(Clone, Debug)]
pub struct MapPlan {
    /// The map.
    pub config: MapConfig,
    /// Time between ticks, ms.
    pub tick_ms: u16,
    /// Game processes of its group, a map each.
    pub instances: usize,
    /// Mean pause between two steps of a walker, ms.
    pub step_ms: u64,
    /// Where crowds gather: a corner of nodes, if there is one on the map.
    pub gathering: Point,
    /// Of the paths that some walkers follow.
    pub paths_seed: u64,
}

impl MapPlan {
    /// Draws a map for so many clients.
    pub fn draw(clients: usize, random: &mut Random) -> Self {
        let view_units = random.between(8, 60) as u32;
        let hysteresis_units = match random.below(3) {
            0 => 0,
            1 => view_units,
            _ => random.between(1, view_units.into()) as u32,
        };
        let twice = 2 * (view_units + hysteresis_units);
        let slack = u64::from(twice);
        let node_width_units = 2 * (twice + random.below(slack) as u32);
        let node_height_units = twice + random.below(slack) as u32;
        let mut width_units = node_width_units * random.between(1, 3) as u32;
        let mut height_units = node_height_units * random.between(1, 4) as u32;
        if random.chance(100) {
            // So wide that coordinates take four bytes.
            width_units += 1 << 16;
        }
        // The last nodes reach over the edge.
        width_units -= random.below(u64::from(node_width_units / 2)) as u32;
        height_units -= random.below(u64::from(node_height_units / 2)) as u32;
        let config = MapConfig {
            width_units,
            height_units,
            node_width_units,
            node_height_units,
            view_units,
            hysteresis_units,
            visible_max: if random.chance(600) {
                random.between(1, 4) as u32
            } else {
                255
            },
            players_max: 1_000,
            unit_mm: 250,
            rest_ticks: random.between(2, 20) as u32,
            rotation_ticks: random.between(1, 6) as u32,
        };
        let gathering = Point {
            x: node_width_units.min(width_units - 1),
            y: node_height_units.min(height_units - 1),
        };
        Self {
            config,
            tick_ms: random.between(50, 400) as u16,
            instances: random.between(1, 2) as usize,
            // The more there are, the less each does: runs cost about the same.
            step_ms: random.between(100, 600) * (clients as u64).max(6) / 6,
            gathering,
            paths_seed: random.bits(),
        }
    }

    /// The place nearest to these coordinates that is on the map.
    pub fn clamp(&self, x: i64, y: i64) -> Point {
        let axis = |at: i64, side: u32| at.clamp(0, i64::from(side) - 1) as u32;
        Point {
            x: axis(x, self.config.width_units),
            y: axis(y, self.config.height_units),
        }
    }

    /// Whether a place is on the map.
    pub fn contains(&self, at: Point) -> bool {
        at.x < self.config.width_units && at.y < self.config.height_units
    }

    /// Square of the distance up to which others come into view.
    pub fn view_squared(&self) -> u64 {
        u64::from(self.config.view_units).pow(2)
    }

    /// Square of the distance beyond which nobody stays in view.
    pub fn leave_squared(&self) -> u64 {
        u64::from(self.config.view_units + self.config.hysteresis_units).pow(2)
    }

    /// Others in view at most.
    pub fn seats(&self) -> usize {
        self.config.visible_max as usize
    }
}
