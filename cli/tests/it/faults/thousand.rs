//! Both games of a cluster are killed at once under a thousand clients: nobody is
//! disconnected, each echo comes exactly once and in order, and the walkers see at the end
//! what brute force says.
//!
//! What DESIGN promises of an instance that dies is at least once in the game, and once for
//! the client: a request that the dead process had taken up and not answered is taken up
//! again by the next one.

use protocol::reason::CloseReason;
use serde_json::Value;

use super::load::Load;
use crate::cluster::Cluster;

const HALF: u64 = 500;
const PLAYERS: &str = "sallyport_game_players";
const RECEIVED: &str = "sallyport_game_messages_received_total";
const CONNECTED: &str = "sallyport_game_connected_total";
const RESTORED: &str = "sallyport_game_players_restored_total";
const WRITTEN: &str = "sallyport_game_snapshots_written_total";

#[test]
fn two_games_are_killed_under_a_thousand_clients() {
    let gateway = &[
        "limits.sessions_max=1200",
        "limits.connections_before_login_max=1200",
    ];
    let map = &[
        "map.snapshot.directory=map-snapshots",
        "map.snapshot.interval_ms=300",
    ];
    let (mut cluster, mut map) = Cluster::start_with_map(gateway, map);
    let half = HALF.to_string();
    let each = ["--clients", &half, "--rate", "1500", "--processes", "1"];
    let walk = ["--scenario", "walk", "--visible", "4", "--duration", "10"];
    let echo = ["--duration", "6", "--json", "echo.json"];
    let walkers = Load::start(&cluster, &[&each[..], &walk].concat());
    cluster.wait_metric("map", PLAYERS, |players| players == HALF);
    let echoers = Load::start(&cluster, &[&each[..], &echo].concat());
    cluster.wait_metric("game", RECEIVED, |received| received > 500);
    // Twice from here on, so that a whole one has begun after the last of them came.
    let before = cluster.metrics("map").value(WRITTEN);
    cluster.wait_metric("map", WRITTEN, |written| written >= before + 2);

    let first = cluster.metrics("game").value(RECEIVED);
    cluster.game.kill();
    map.kill();
    cluster.game.start();
    map.start();

    cluster.wait_metric("map", RESTORED, |restored| restored == HALF);
    cluster.wait_metric("game", CONNECTED, |connected| connected == 2 * HALF);
    walkers.finish();
    echoers.finish();

    let second = cluster.metrics("game").value(RECEIVED);
    let report = std::fs::read(cluster.path().join("echo.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let sent = report["frames_sent"].as_u64().expect("a number");
    assert_eq!(report["frames_received"], sent);
    assert!(first > 0 && second > 0);
    // Taken up again: at most what each client had under way.
    assert!(
        first + second <= sent + HALF,
        "{first} + {second} of {sent}"
    );

    let gateway = cluster.metrics("gateway");
    for &reason in CloseReason::ALL {
        let expected = if reason == CloseReason::LoggedOut {
            2 * HALF
        } else {
            0
        };
        assert_eq!(gateway.closes(reason), expected, "{}", reason.label());
    }
    assert_eq!(gateway.value("sallyport_gateway_logins_total"), 2 * HALF);
    assert_eq!(gateway.value("sallyport_gateway_resumes_total"), 0);
}
