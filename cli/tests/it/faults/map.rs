//! A game with a map that is killed under its walkers: they walk on over the same connections,
//! and what they see at the end is exact, whether their places were written down or not.

use super::load::Load;
use crate::cluster::{Cluster, Settings};

const RESTORED: &str = "sallyport_game_players_restored_total";
const WRITTEN: &str = "sallyport_game_snapshots_written_total";
const CLIENTS: u64 = 60;

/// Walkers that compare what they see with a brute-force answer at their end.
fn walkers(cluster: &Cluster) -> Load {
    let clients = CLIENTS.to_string();
    let more = ["--scenario", "walk", "--group", "1", "--clients", &clients];
    let how = ["--visible", "6", "--duration", "10"];
    Load::start(cluster, &[&more[..], &how].concat())
}

fn killed_under_walkers(game: Settings, is_written: bool) {
    let mut cluster = Cluster::start(&[], &[], game);
    let load = walkers(&cluster);
    cluster.wait_metric("game", "sallyport_game_players", |players| {
        players == CLIENTS
    });
    cluster.wait_metric("game", "sallyport_game_ticks_total", |ticks| ticks > 20);
    if is_written {
        // Twice from here on, so that a whole one has begun after the last of them came.
        let before = cluster.metrics("game").value(WRITTEN);
        cluster.wait_metric("game", WRITTEN, |written| written >= before + 2);
    }
    cluster.game.kill();
    cluster.game.start();
    cluster.wait_metric("game", "sallyport_game_players", |players| {
        players == CLIENTS
    });
    let metrics = cluster.metrics("game");
    let restored = metrics.value(RESTORED);
    assert_eq!(restored, if is_written { CLIENTS } else { 0 });
    assert_eq!(
        metrics.value("sallyport_game_snapshots_unreadable_total"),
        0
    );
    load.finish();
    let metrics = cluster.metrics("game");
    assert_eq!(metrics.value("sallyport_game_snapshots_failed_total"), 0);
}

#[test]
fn walkers_are_put_back_where_they_stood() {
    killed_under_walkers(
        &[
            "game.kind=walk",
            "map.executors=2",
            "map.node_width_units=576",
            "map.node_height_units=288",
            "map.snapshot.directory=map-snapshots",
            "map.snapshot.interval_ms=300",
        ],
        true,
    );
}

#[test]
fn walkers_are_put_back_by_the_plain_driver_too() {
    killed_under_walkers(
        &[
            "game.kind=walk",
            "map.executors=2",
            "map.driver=threads",
            "map.snapshot.directory=map-snapshots",
            "map.snapshot.interval_ms=300",
        ],
        true,
    );
}

#[test]
fn walkers_enter_a_map_without_memory_again() {
    killed_under_walkers(&["game.kind=walk"], false);
}
