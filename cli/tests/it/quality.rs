//! Round trip, jitter and loss as the player, the operator and the game see them, and
//! connections whose path is silently gone: each transport, the real binary, real sockets.

use std::time::{Duration, Instant};

use protocol::client::Closed;
use protocol::reason::CloseReason;
use serde_json::Value;

use crate::cluster::metrics::fetch;
use crate::cluster::player::Player;
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE, Settings};
use crate::impair::Proxy;

const OFTEN: Settings = &["heartbeat.interval_ms=200"];
const SESSIONS: &str = "sallyport_gateway_sessions";
const PARKED: &str = "sallyport_gateway_sessions_parked";
const QUALITIES: &str = "sallyport_game_qualities_total";
const ROUND_TRIP: &str = "sallyport_gateway_round_trip_seconds";

/// What the gateway shows of an account's session; null if it has none.
fn session(cluster: &Cluster, account: &str) -> Value {
    let path = format!("/sessions?account={account}");
    let (status, body) = fetch(cluster.admin("gateway"), &path).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    let sessions = answer["sessions"].as_array().expect("a list");
    assert!(sessions.len() <= 1, "{body}");
    sessions.first().cloned().unwrap_or_default()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// Plays until both ends have a round trip of at least this, and both have seen loss if
/// there is some to see.
fn play(player: &mut Player, least_us: u32, lossy: bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let quality = player.quality();
        let reports = [quality.ours, quality.theirs];
        if reports
            .iter()
            .all(|report| report.round_trip_us >= least_us && (report.loss > 0) == lossy)
        {
            return;
        }
        assert!(Instant::now() < end, "{quality:?}");
        player.round_trip(b"is it far?");
    }
}

#[test]
fn a_player_an_operator_and_the_game_know_how_good_a_connection_is() {
    let cluster = Cluster::start(OFTEN, &[], &[]);
    let proxy = Proxy::start(cluster.address(), &["--delay-ms", "30", "--loss", "20"]);
    let token = cluster.token("far");
    let mut far = Player::connect_at(&cluster, proxy.address, token);
    far.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
    play(&mut far, 60_000, false);
    let mut lossy = Player::login_udp_at(&cluster, "lossy", proxy.address);
    play(&mut lossy, 60_000, true);

    for (account, transport) in [("far", "tcp"), ("lossy", "udp")] {
        let shown = session(&cluster, account);
        let connection = &shown["connection"];
        assert_eq!(connection["transport"], transport, "{shown}");
        let address = connection["address"].as_str().expect("an address");
        assert!(address.starts_with("127.0.0.1:"), "{shown}");
        assert_eq!(shown["groups"][0]["group"], 1);
        assert_eq!(shown["groups"][0]["instance"], 0);
        assert_eq!(shown["groups"][0]["open"], true);
        for by in ["measured", "told_by_client"] {
            assert!(
                number(&connection[by]["round_trip_us"]) >= 60_000.0,
                "{shown}"
            );
            assert!(number(&connection[by]["jitter_us"]) > 0.0, "{shown}");
            let loss = number(&connection[by]["loss"]);
            assert_eq!(loss > 0.0, transport == "udp", "{shown}");
        }
    }
    let expected = far.seen.session.expect("logged in").0;
    assert_eq!(session(&cluster, "far")["session"], expected);
    assert_eq!(session(&cluster, "nobody"), Value::Null);
    let admin = cluster.admin("gateway");
    let both = "/sessions?account=far&session=1";
    assert_eq!(fetch(admin, both).expect("an answer").0, 400);

    cluster.wait_metric("game", QUALITIES, |told| told >= 2);
    let gateway = cluster.metrics("gateway");
    assert!(gateway.value(&format!("{ROUND_TRIP}_count")) >= 2);
    assert_eq!(
        gateway.value(&format!("{ROUND_TRIP}_bucket{{le=\"0.05\"}}")),
        0
    );
    let all = gateway.value(&format!("{ROUND_TRIP}_bucket{{le=\"+Inf\"}}"));
    assert_eq!(all, gateway.value(&format!("{ROUND_TRIP}_count")));

    // Who has lost its connection is shown without one.
    far.cut();
    cluster.wait_metric("gateway", PARKED, |parked| parked == 1);
    let shown = session(&cluster, "far");
    assert_eq!(shown["session"], expected);
    assert_eq!(shown["connection"], Value::Null);
}

const HASTY: Settings = &[
    "heartbeat.interval_ms=300",
    "heartbeat.idle_timeout_ms=1500",
];
const IDLE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The path falls silent: no end, no reset, both sockets stay. Both ends find out.
fn vanish(transport: &str) {
    let cluster = Cluster::start(HASTY, &[], &[]);
    // Silent after 1.5 to 4.5 s, and cut when the test has long been over.
    let arguments = ["--cut-every", "3", "--cut-silent", "120"];
    let proxy = Proxy::start(cluster.address(), &arguments);
    let mut player = match transport {
        "udp" => Player::login_udp_at(&cluster, "ann", proxy.address),
        _ => {
            let token = cluster.token("ann");
            let mut player = Player::connect_at(&cluster, proxy.address, token);
            player.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
            player
        }
    };
    // Its heartbeats go on, into nothing.
    let closed = player.wait_closed();
    assert_eq!(closed, Closed::ByClient(CloseReason::IdleTimeout));
    cluster.wait_metric("gateway", SESSIONS, |sessions| sessions == 0);
    cluster.wait_metric("gateway", PARKED, |parked| parked == 1);
    let gateway = cluster.metrics("gateway");
    assert_eq!(gateway.closes(CloseReason::IdleTimeout), 1);
}

#[test]
fn a_path_that_falls_silent_is_found_out_over_tcp() {
    vanish("tcp");
}

#[test]
fn a_path_that_falls_silent_is_found_out_over_udp() {
    vanish("udp");
}

#[test]
fn a_path_that_falls_silent_is_found_out_over_websocket() {
    let cluster = Cluster::start(HASTY, &[], &[]);
    let mut raw = Raw::websocket(&cluster);
    raw.greet(&cluster.gateway_key);
    raw.login(&cluster.token("ann"));
    raw.round_trip(b"the last that is heard of it");
    let shown = session(&cluster, "ann");
    assert_eq!(shown["connection"]["transport"], "ws");
    let heard = Instant::now();
    // The socket stays open, and nobody answers the gateway's PING any more.
    cluster.wait_metric("gateway", PARKED, |parked| parked == 1);
    assert!(heard.elapsed() + Duration::from_millis(200) >= IDLE_TIMEOUT);
    assert_eq!(
        cluster.metrics("gateway").closes(CloseReason::IdleTimeout),
        1
    );
    assert_eq!(session(&cluster, "ann")["connection"], Value::Null);
}
