//! `sallyport admin` against running processes: sessions and their stories, kick, top, limits,
//! broadcast, drain, and who may ask.

use std::fs;
use std::time::Duration;

use protocol::channel::{EVERYBODY, NOTICE};
use protocol::reason::CloseReason;
use serde_json::Value;

use crate::cluster::player::Player;
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE, wait_until};
use crate::{Outcome, run};

/// Runs `sallyport admin` against a role.
fn admin(cluster: &Cluster, role: &str, words: &[&str]) -> Outcome {
    let url = format!("http://{}", cluster.admin(role));
    let arguments: Vec<&str> = ["admin", &url]
        .into_iter()
        .chain(words.iter().copied())
        .collect();
    run(cluster.path(), &arguments)
}

/// The same, for answers of one JSON object a line.
fn admin_json(cluster: &Cluster, words: &[&str]) -> Vec<Value> {
    let outcome = admin(cluster, "gateway", words);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let lines = outcome.out.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn sessions_are_listed_page_by_page() {
    let cluster = Cluster::start(&["engine.shards=2"], &[], &[]);
    let alice = Player::login(&cluster, "alice");
    let udp = Player::login_udp(&cluster, "bob");
    let others: Vec<_> = (0..3)
        .map(|at| Player::login(&cluster, &format!("other-{at}")))
        .collect();
    let all = admin_json(&cluster, &["sessions", "--json"]);
    let mut accounts: Vec<_> = all.iter().filter_map(|it| it["account"].as_str()).collect();
    accounts.sort_unstable();
    assert_eq!(accounts, ["alice", "bob", "other-0", "other-1", "other-2"]);
    // In pages of two, each begins where the one before ended.
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let mut words = vec!["sessions", "--json", "--limit", "2"];
        if !after.is_empty() {
            words.extend(["--after", &after]);
        }
        let page = admin(&cluster, "gateway", &words);
        assert!(page.out.lines().count() <= 2, "{}", page.out);
        seen.extend(page.out.lines().map(str::to_owned));
        match page.err.trim().split_once("--after ") {
            Some((_, next)) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    let table = admin(&cluster, "gateway", &["sessions"]).out;
    assert!(table.contains("alice") && table.contains("udp"), "{table}");
    drop((alice, udp, others));
}

#[test]
fn a_session_tells_its_story() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut alice = Player::login(&cluster, "alice");
    alice.round_trip(&[7; 3_000]);
    // Cut off, and back.
    alice.cut();
    let away = || admin_json(&cluster, &["sessions", "--account", "alice", "--json"]);
    wait_until("it is away", PATIENCE, || away()[0]["connection"].is_null());
    let story = admin(&cluster, "gateway", &["sessions", "--account", "alice"]).out;
    assert!(story.contains("waits for its client"), "{story}");
    alice.come_back(&cluster);
    alice.round_trip(b"again");
    let id = alice.seen.session.expect("a session").0.to_string();
    let one = &admin_json(&cluster, &["sessions", &id, "--json"])[0];
    let events = one["events"].as_array().expect("events");
    let labels: Vec<_> = events
        .iter()
        .filter_map(|it| it["event"].as_str())
        .collect();
    assert_eq!(labels, ["logged_in", "bound", "lost", "resumed"]);
    assert_eq!(events[1]["group"], 1);
    assert_eq!(events[2]["reason"], "peer_closed");
    assert_eq!(one["connection"]["transport"], "tcp");
    assert_eq!(one["connection"]["queued_bytes"], 0);
    assert!(one["connection"]["address"].is_string());
    assert_eq!(one["groups"][0]["open"], true);
    assert_eq!(one["groups"][0]["credit_bytes"], Value::Null);
    let story = admin(&cluster, "gateway", &["sessions", &id]).out;
    for part in [
        "of alice",
        "round trip",
        "lost (peer_closed)",
        "credit without bound",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    let nobody = admin(&cluster, "gateway", &["sessions", "--account", "nobody"]);
    assert_eq!(nobody.code, 1, "{}", nobody.err);
}

#[test]
fn the_busiest_session_comes_first() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut quiet = Player::login(&cluster, "quiet");
    let mut busy = Player::login(&cluster, "busy");
    quiet.round_trip(b"hello");
    for _ in 0..20 {
        busy.round_trip(&[1; 2_000]);
    }
    for by in ["bytes", "frames"] {
        let top = admin_json(&cluster, &["top", "--json", "--by", by]);
        let accounts: Vec<_> = top.iter().filter_map(|it| it["account"].as_str()).collect();
        assert_eq!(accounts, ["busy", "quiet"], "{by}");
    }
    let top = admin_json(&cluster, &["top", "--json", "--limit", "1"]);
    let rate = top[0]["connection"]["received_bytes_per_second"].as_u64();
    assert!(rate.expect("a rate") > 1_000, "{top:?}");
    let table = admin(&cluster, "gateway", &["top", "--once"]);
    assert_eq!(table.code, 0);
    assert!(table.out.contains("busy"), "{}", table.out);
}

#[test]
fn a_kick_ends_a_session_wherever_its_client_is() {
    let cluster = Cluster::start(&["engine.shards=2"], &[], &[]);
    let mut player = Player::login(&cluster, "mallory");
    let kick = admin(
        &cluster,
        "gateway",
        &["kick", "--account", "mallory", "--text", "be nice"],
    );
    assert_eq!(kick.code, 0, "{}", kick.err);
    player.wait_closed();
    assert_eq!(player.close_text(), "be nice");
    assert_eq!(cluster.metrics("gateway").closes(CloseReason::Kicked), 1);
    // It may come again, and be away.
    let mut player = Player::login(&cluster, "mallory");
    player.cut();
    cluster.wait_metric("gateway", "sallyport_gateway_sessions_parked", |parked| {
        parked == 1
    });
    let id = player.seen.session.expect("a session").0.to_string();
    assert_eq!(admin(&cluster, "gateway", &["kick", &id]).code, 0);
    cluster.wait_metric("game", "sallyport_game_sessions", |sessions| sessions == 0);
    cluster.wait_metric("center", "sallyport_center_sessions", |sessions| {
        sessions == 0
    });
    assert_eq!(admin(&cluster, "gateway", &["kick", &id]).code, 1);
    let center = admin(&cluster, "center", &["kick", &id]);
    assert_eq!(center.code, 1);
    assert!(center.err.contains("ask the gateways"), "{}", center.err);
}

#[test]
fn who_is_above_the_limits_is_named() {
    let cluster = Cluster::start(
        &[
            "limits.network_exempt=192.0.2.0/24",
            "limits.network_connections_max=2",
        ],
        &[],
        &[],
    );
    let _here = [Raw::greeted(&cluster), Raw::greeted(&cluster)];
    let _refused = [Raw::connect(&cluster), Raw::connect(&cluster)];
    let limited = "sallyport_gateway_limited_total{limit=\"network_open\"}";
    cluster.wait_metric("gateway", limited, |times| times == 2);
    let limits = &admin_json(&cluster, &["limits", "--json"])[0];
    assert_eq!(limits["limited"]["network_open"], 2);
    assert_eq!(limits["tables"]["networks"], 1);
    let network = &limits["worst_networks"][0];
    assert!(
        network["network"]
            .as_str()
            .is_some_and(|it| it.ends_with(".0/24"))
    );
    assert_eq!(network["open"], 2);
    assert_eq!(network["times_above"], 2);
    let table = admin(&cluster, "gateway", &["limits"]).out;
    assert!(table.contains("network_open"), "{table}");
}

#[test]
fn a_broadcast_reaches_every_player_of_a_game() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut players = [
        Player::login(&cluster, "alice"),
        Player::login_udp(&cluster, "bob"),
    ];
    for text in ["in ten minutes", "in five minutes"] {
        let told = admin(&cluster, "game", &["broadcast", text]);
        assert_eq!(told.code, 0, "{}", told.err);
        assert_eq!(told.out.trim(), "told 2 sessions");
    }
    for player in &mut players {
        player.wait("both notices", |seen| seen.said.len() == 2);
        for (at, text) in ["in ten minutes", "in five minutes"].iter().enumerate() {
            let (header, said) = &player.seen.said[at];
            assert_eq!((header.channel, header.message), (EVERYBODY, NOTICE));
            assert_eq!(said, text.as_bytes());
        }
    }
    assert_eq!(admin(&cluster, "game", &["broadcast", ""]).code, 2);
    assert_eq!(admin(&cluster, "gateway", &["broadcast", "hello"]).code, 1);
}

#[test]
fn a_drain_says_what_is_left_until_the_process_has_ended() {
    let mut cluster = Cluster::start(&[], &[], &[]);
    let mut player = Player::login(&cluster, "alice");
    let gateway = std::thread::scope(|scope| {
        let drained = scope.spawn(|| admin(&cluster, "gateway", &["drain"]));
        player.wait_closed();
        drained.join().expect("it ran")
    });
    assert_eq!(gateway.code, 0, "{}", gateway.err);
    assert!(gateway.out.ends_with("drained\n"), "{}", gateway.out);
    assert_eq!(player.close_text(), CloseReason::Draining.text());
    let ended = cluster.gateway.wait(Duration::from_secs(10));
    assert_eq!(ended.code(), Some(0));
    // Any process can be asked.
    assert_eq!(admin(&cluster, "game", &["drain"]).code, 0);
    assert_eq!(cluster.game.wait(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn where_there_is_a_token_nothing_changes_without_it() {
    let cluster = Cluster::start(&[], &[], &["admin.token=0123456789abcdef"]);
    for words in [&["broadcast", "x"][..], &["drain"]] {
        let refused = admin(&cluster, "game", words);
        assert_eq!(refused.code, 2);
        assert!(refused.err.contains("--token-file"), "{}", refused.err);
    }
    assert!(cluster.game.is_running());
    fs::write(cluster.path().join("token"), "0123456789abcdef\n").expect("a file");
    let told = admin(
        &cluster,
        "game",
        &["--token-file", "token", "broadcast", "x"],
    );
    assert_eq!(told.code, 0, "{}", told.err);
}
