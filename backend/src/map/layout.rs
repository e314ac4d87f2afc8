//! A map's configuration, checked, and the watch nodes that tile it.
//!
//! Owns which nodes watch a place. It knows no player.
//!
//! # Bricks
//! Every second row of nodes is shifted by half a node. A node watches its own rectangle and a
//! margin around it as wide as the radius of leaving a view (view + hysteresis), so it knows
//! everybody whom a player inside could see. A place is in the margin of a neighbour in its row
//! only near their common border, and in that of the row above or below only near that row;
//! the shift puts the borders of the other row half a node away. So at most three nodes watch a
//! place, if twice the margin fits into half a node's width, and into its height.
//!
//! Invariant: [`Layout::watchers`] gives one to three different nodes, the owner first.

use protocol::world::{Point, VISIBLE_MAX};

/// Longest side of a map, units: a coordinate has three bytes, and sums of them fit an i32.
pub const MAP_UNITS_MAX: u32 = 1 << 24;

/// Largest radius at which one leaves a view, units: squares of distances between neighbouring
/// cells fit an i32.
pub const LEAVE_UNITS_MAX: u32 = 10_000;

/// Longest side of a node, units: with at most 256 cells a side, cells stay so small that
/// distances to their far ends have squares that fit.
pub const NODE_UNITS_MAX: u32 = 1 << 20;

/// Most nodes of a map. An empty one takes half a kilobyte.
pub const NODES_MAX: u64 = 65_536;

/// Most players of a map: each takes about half a kilobyte at 64 visible.
pub const PLAYERS_MAX: u32 = 1_000_000;

/// Longest time of the two that count in ticks: ten minutes at 10 ticks/s.
pub const TICKS_MAX: u32 = 6_000;

/// Longest unit, mm: a kilometre.
pub const UNIT_MM_MAX: u32 = 1_000_000;

/// What a map is like. [`Layout::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapConfig {
    /// The map's size, units.
    pub width_units: u32,
    /// The map's size, units.
    pub height_units: u32,
    /// A watch node's size, units; even.
    pub node_width_units: u32,
    /// A watch node's size, units.
    pub node_height_units: u32,
    /// Distance up to which others come into view, units.
    pub view_units: u32,
    /// How much farther they must go to leave it, units.
    pub hysteresis_units: u32,
    /// Others that one player sees at most.
    pub visible_max: u32,
    /// Players on the map at most.
    pub players_max: u32,
    /// Length of a unit, mm: positions are rounded to it.
    pub unit_mm: u32,
    /// Ticks without a move after which a player's place is told reliably. Longer than the time
    /// between two moves of one who walks, so that only stops are told.
    pub rest_ticks: u32,
    /// Ticks after which, in a crowd, the next one that was not seen gets a seat for a while.
    pub rotation_ticks: u32,
}

impl Default for MapConfig {
    /// The map of the `walk` game: 16 km of 25 cm units, which two bytes a coordinate can say;
    /// room for 300,000 walkers with 4 in view. Nodes are wide enough that their margins do not
    /// double the work (1.3 nodes watch a player on average), and small enough that one stays in
    /// the first cache level.
    fn default() -> Self {
        Self {
            width_units: 65_536,
            height_units: 65_536,
            node_width_units: 2_048,
            node_height_units: 2_048,
            view_units: 128,
            hysteresis_units: 16,
            visible_max: 64,
            players_max: 150_000,
            unit_mm: 250,
            rest_ticks: 25,
            rotation_ticks: 5,
        }
    }
}

/// A key of [`MapConfig`] is out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}, but must be {rule} ({least} to {most})")]
pub struct MapConfigError {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
    /// Least value allowed, given the other keys.
    pub least: u64,
    /// Largest value allowed, given the other keys.
    pub most: u64,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// Index of a watch node of one map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

/// The nodes that watch a place: one to three, the owner first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchers {
    nodes: [NodeIndex; WATCHERS_MAX],
    count: u8,
}

/// Nodes that watch one place at most.
pub const WATCHERS_MAX: usize = 3;

impl Watchers {
    /// The node in whose rectangle the place lies.
    pub fn owner(&self) -> NodeIndex {
        self.nodes[0]
    }

    /// All of them.
    pub fn nodes(&self) -> &[NodeIndex] {
        &self.nodes[..usize::from(self.count)]
    }

    fn push(&mut self, node: NodeIndex) {
        // A fourth can't be: the configuration was checked.
        debug_assert!(usize::from(self.count) < WATCHERS_MAX);
        if let Some(place) = self.nodes.get_mut(usize::from(self.count)) {
            *place = node;
            self.count += 1;
        }
    }
}

/// A node's watched area: its rectangle and the margin, units; may reach over the map's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Left edge.
    pub left: i32,
    /// Upper edge.
    pub top: i32,
    /// From left to right.
    pub width_units: u32,
    /// From top to bottom.
    pub height_units: u32,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Layout {
    config: MapConfig,
    /// Nodes in a row; the same for shifted rows, which need the most.
    columns: u32,
    rows: u32,
}

impl Layout {
    /// Checks a configuration.
    ///
    /// # Errors
    /// Names the key that is out of its bounds, and the bounds.
    pub fn new(config: MapConfig) -> Result<Self, MapConfigError> {
        let check = |key, value: u32, least: u64, most: u64, rule| {
            let value = u64::from(value);
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(MapConfigError {
                    key,
                    value,
                    least,
                    most,
                    rule,
                })
            }
        };
        const RANGE: &str = "in its range";
        let side_max = u64::from(MAP_UNITS_MAX);
        check("width_units", config.width_units, 1, side_max, RANGE)?;
        check("height_units", config.height_units, 1, side_max, RANGE)?;
        let leave_max = u64::from(LEAVE_UNITS_MAX);
        check("view_units", config.view_units, 1, leave_max, RANGE)?;
        // Not wider than the view: the cells are made for look-ups of up to twice a view.
        let rest = (leave_max - u64::from(config.view_units)).min(config.view_units.into());
        check("hysteresis_units", config.hysteresis_units, 0, rest, RANGE)?;
        check(
            "visible_max",
            config.visible_max,
            1,
            VISIBLE_MAX as u64,
            RANGE,
        )?;
        check(
            "players_max",
            config.players_max,
            1,
            PLAYERS_MAX.into(),
            RANGE,
        )?;
        check("unit_mm", config.unit_mm, 1, UNIT_MM_MAX.into(), RANGE)?;
        check("rest_ticks", config.rest_ticks, 1, TICKS_MAX.into(), RANGE)?;
        check(
            "rotation_ticks",
            config.rotation_ticks,
            1,
            TICKS_MAX.into(),
            RANGE,
        )?;

        let node_max = u64::from(NODE_UNITS_MAX);
        let twice = 2 * u64::from(config.view_units + config.hysteresis_units);
        let fits = "such that twice (view_units + hysteresis_units) fits into half of it";
        check(
            "node_width_units",
            config.node_width_units,
            2 * twice,
            node_max,
            fits,
        )?;
        let fits = "such that twice (view_units + hysteresis_units) fits into it";
        check(
            "node_height_units",
            config.node_height_units,
            twice,
            node_max,
            fits,
        )?;
        if !config.node_width_units.is_multiple_of(2) {
            return Err(MapConfigError {
                key: "node_width_units",
                value: config.node_width_units.into(),
                least: 2 * twice,
                most: node_max,
                rule: "even, since every second row is shifted by half of it",
            });
        }
        let columns =
            (config.width_units + config.node_width_units / 2).div_ceil(config.node_width_units);
        let rows = config.height_units.div_ceil(config.node_height_units);
        if u64::from(columns) * u64::from(rows) > NODES_MAX {
            return Err(MapConfigError {
                key: "node_width_units",
                value: config.node_width_units.into(),
                least: 2 * twice,
                most: node_max,
                rule: "larger: the map would have more than 65,536 nodes",
            });
        }
        Ok(Self {
            config,
            columns,
            rows,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &MapConfig {
        &self.config
    }

    /// Nodes of the map.
    pub fn node_count(&self) -> usize {
        self.columns as usize * self.rows as usize
    }

    /// Which of `count` partitions looks after a node. Neighbours in a row, and columns of rows,
    /// go to different ones: a crowd fills many nodes side by side, and all cores shall have of
    /// it, while few players cross a border in one tick.
    pub fn partition_of(&self, node: NodeIndex, count: usize) -> usize {
        let (row, column) = (node.0 / self.columns, node.0 % self.columns);
        (row + column) as usize % count.max(1)
    }

    /// Whether a place is on the map.
    pub fn contains(&self, at: Point) -> bool {
        at.x < self.config.width_units && at.y < self.config.height_units
    }

    /// Distance beyond which nobody stays in view, units.
    pub fn leave_units(&self) -> u32 {
        self.config.view_units + self.config.hysteresis_units
    }

    /// The nearest place on the map's grid to one in metres from its origin; off by at most half
    /// a unit each way. `None`: not on the map.
    pub fn quantise(&self, x_metres: f64, y_metres: f64) -> Option<Point> {
        let units = |metres: f64, side: u32| {
            let units = (metres * 1_000.0 / f64::from(self.config.unit_mm)).round();
            // False for NaN too.
            (units >= 0.0 && units < f64::from(side)).then_some(units as u32)
        };
        Some(Point {
            x: units(x_metres, self.config.width_units)?,
            y: units(y_metres, self.config.height_units)?,
        })
    }

    /// A place in metres from the origin.
    pub fn metres(&self, at: Point) -> (f64, f64) {
        let metres = |units: u32| f64::from(units) * f64::from(self.config.unit_mm) / 1_000.0;
        (metres(at.x), metres(at.y))
    }

    /// Who watches a place, which must be on the map.
    pub fn watchers(&self, at: Point) -> Watchers {
        let margin = self.leave_units();
        let row = at.y / self.config.node_height_units;
        let depth = at.y - row * self.config.node_height_units;
        let mut watchers = Watchers {
            nodes: [NodeIndex(0); WATCHERS_MAX],
            count: 0,
        };
        self.push_row(&mut watchers, row, at.x, margin);
        if depth < margin && row > 0 {
            self.push_row(&mut watchers, row - 1, at.x, margin);
        } else if depth + margin >= self.config.node_height_units && row + 1 < self.rows {
            self.push_row(&mut watchers, row + 1, at.x, margin);
        }
        watchers
    }

    /// The nodes of one row whose width and margin contain `x`, the one without margin first.
    fn push_row(&self, watchers: &mut Watchers, row: u32, x: u32, margin: u32) {
        let width = self.config.node_width_units;
        let x = x + self.shift(row);
        let column = x / width;
        let depth = x - column * width;
        let index = row * self.columns + column;
        watchers.push(NodeIndex(index));
        if depth < margin && column > 0 {
            watchers.push(NodeIndex(index - 1));
        } else if depth + margin >= width && column + 1 < self.columns {
            watchers.push(NodeIndex(index + 1));
        }
    }

    fn shift(&self, row: u32) -> u32 {
        (row % 2) * (self.config.node_width_units / 2)
    }

    /// What a node watches.
    pub fn zone(&self, node: NodeIndex) -> Zone {
        let (row, column) = (node.0 / self.columns, node.0 % self.columns);
        let margin = self.leave_units();
        let left = (column * self.config.node_width_units) as i32 - self.shift(row) as i32;
        let top = (row * self.config.node_height_units) as i32;
        Zone {
            left: left - margin as i32,
            top: top - margin as i32,
            width_units: self.config.node_width_units + 2 * margin,
            height_units: self.config.node_height_units + 2 * margin,
        }
    }
}

#[cfg(test)]
mod tests;
