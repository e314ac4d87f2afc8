//! `[map]`: the map of a game of kind `walk`.
//!
//! Owns the names of its keys. Their defaults, with reasons, and the rules between them are the
//! map's ([`MapConfig`], [`Layout`]). Invariant: a [`WalkConfig`] of a reader that finds nothing
//! wrong makes a map.

use backend::map::{
    LEAVE_UNITS_MAX, Layout, MAP_UNITS_MAX, MapConfig, NODE_UNITS_MAX, PARTITIONS_MAX, PLAYERS_MAX,
    TICKS_MAX, UNIT_MM_MAX,
};
use backend::spread::{MapDriver, SnapshotConfig};
use backend::walk::TICK_MS_DEFAULT;
use protocol::world::VISIBLE_MAX;

use super::reader::{Reader, key};

/// Everything that the `walk` game is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkConfig {
    /// The map's shape.
    pub map: MapConfig,
    /// Time between two looks at it.
    pub tick_ms: u16,
    /// Threads that look after its nodes; 0: one a core, but one that is left to the game's own.
    pub executors: u32,
    /// What they run on; `None`: glommio where a probe finds io_uring, else plain threads.
    pub driver: Option<MapDriver>,
    /// `[map.snapshot]`, if it has a directory.
    pub snapshot: Option<SnapshotConfig>,
}

impl WalkConfig {
    /// Reads `[map]`.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let default = MapConfig::default();
        let mut read = |name: &str, default: u32, least: u32, most: u32| {
            reader.integer32(key(format!("map.{name}")), Some(default), least..=most)
        };
        // What depends on another key is looked at below, by the map's own rules.
        let map = MapConfig {
            unit_mm: read("unit_mm", default.unit_mm, 1, UNIT_MM_MAX),
            width_units: read("width_units", default.width_units, 1, MAP_UNITS_MAX),
            height_units: read("height_units", default.height_units, 1, MAP_UNITS_MAX),
            node_width_units: read(
                "node_width_units",
                default.node_width_units,
                1,
                NODE_UNITS_MAX,
            ),
            node_height_units: read(
                "node_height_units",
                default.node_height_units,
                1,
                NODE_UNITS_MAX,
            ),
            view_units: read("view_units", default.view_units, 1, LEAVE_UNITS_MAX),
            hysteresis_units: read(
                "hysteresis_units",
                default.hysteresis_units,
                0,
                LEAVE_UNITS_MAX,
            ),
            visible_max: read("visible_max", default.visible_max, 1, VISIBLE_MAX as u32),
            players_max: read("players_max", default.players_max, 1, PLAYERS_MAX),
            rest_ticks: read("rest_ticks", default.rest_ticks, 1, TICKS_MAX),
            rotation_ticks: read("rotation_ticks", default.rotation_ticks, 1, TICKS_MAX),
        };
        // Shorter ones only cost: no screen shows them, and no link brings them apart.
        let tick_ms = read("tick_ms", TICK_MS_DEFAULT.into(), 10, 10_000);
        let executors = read("executors", 0, 0, PARTITIONS_MAX as u32);
        let driver = reader.choice(
            key("map.driver"),
            "auto",
            &[
                ("auto", None),
                ("glommio", Some(MapDriver::Glommio)),
                ("threads", Some(MapDriver::Threads)),
            ],
        );
        let directory = reader.optional_path(key("map.snapshot.directory"));
        // What players may have to walk again when the process is killed; shorter ones write the
        // whole map more often.
        let interval_ms = reader.integer(
            key("map.snapshot.interval_ms"),
            Some(10_000),
            100..=3_600_000,
        );
        if reader.is_good()
            && let Err(wrong) = Layout::new(map.clone())
        {
            let path = format!("map.{}", wrong.key);
            reader.problem_at(
                &path,
                format!(
                    "{} is out of range: allowed are {} to {}, {}",
                    wrong.value, wrong.least, wrong.most, wrong.rule
                ),
            );
        }
        Self {
            map,
            tick_ms: u16::try_from(tick_ms).unwrap_or(TICK_MS_DEFAULT),
            executors,
            driver,
            snapshot: directory.map(|directory| SnapshotConfig {
                directory,
                interval_ms,
            }),
        }
    }
}
