//! Who is let in: bans, client versions, the queue.

use std::time::{Duration, Instant};

use protocol::client::Closed;
use protocol::reason::CloseReason;

use crate::cluster::player::{Carrier, Player};
use crate::cluster::{Cluster, PATIENCE, wait_until};
use crate::{Outcome, run};

/// Within this a ban has thrown everybody out: a tenth is usual, and the machine may be busy.
const THROWN_OUT_WITHIN: Duration = Duration::from_secs(1);

fn admin(cluster: &Cluster, arguments: &[&str]) -> Outcome {
    let url = format!("http://{}", cluster.admin("center"));
    let command = [&["admin", &url], arguments].concat();
    run(cluster.path(), &command)
}

fn banned() -> Closed {
    Closed::ByGateway(Some(CloseReason::Banned))
}

#[test]
fn who_is_banned_is_thrown_out_and_stays_out_over_a_restart() {
    let mut cluster = Cluster::start(&["listen.udp=true"], &["lease_ms=2000"], &[]);
    let mut honest = Player::login(&cluster, "honest");
    let mut mallory = Player::login(&cluster, "mallory");
    let mut over_udp = Player::login_udp(&cluster, "mallory-udp");
    let mut away = Player::login(&cluster, "mallory-away");
    away.cut();
    cluster.wait_metric("gateway", "sallyport_gateway_sessions_parked", |parked| {
        parked == 1
    });
    let mut on_device = Player::connect_as(&cluster, cluster.token("other"), 1, "phone-1");
    on_device.wait("login", |seen| seen.session.is_some());

    let began = Instant::now();
    for account in ["mallory", "mallory-udp", "mallory-away"] {
        let outcome = admin(
            &cluster,
            &["ban", "--account", account, "--text", "you cheated"],
        );
        assert_eq!(outcome.code, 0, "{}", outcome.err);
    }
    assert_eq!(admin(&cluster, &["ban", "--device", "phone-1"]).code, 0);
    for player in [&mut mallory, &mut over_udp] {
        assert_eq!(player.wait_closed(), banned());
        assert_eq!(player.close_text(), "you cheated");
    }
    assert_eq!(on_device.wait_closed(), banned());
    assert_eq!(on_device.close_text(), CloseReason::Banned.text());
    let took = began.elapsed();
    assert!(
        took < THROWN_OUT_WITHIN * 4,
        "{took:?}, with four processes started"
    );
    cluster.wait_metric("game", "sallyport_game_sessions", |sessions| sessions == 1);

    away.try_resume_over(Carrier::Tcp, cluster.address());
    let refused = Closed::ByClient(CloseReason::TicketUnknown);
    assert_eq!(away.wait_closed(), refused, "its session has ended");

    cluster.center.kill();
    cluster.center.start();
    wait_until("center is back", PATIENCE, || {
        admin(&cluster, &["bans"]).code == 0
    });
    let listed = admin(&cluster, &["bans"]).out;
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(
        listed.contains(r#"{"account":"mallory","text":"you cheated"}"#),
        "{listed}"
    );
    cluster.wait_metric("center", "sallyport_center_sessions", |sessions| {
        sessions == 1
    });
    let mut again = Player::connect(&cluster, cluster.token("mallory"));
    assert_eq!(again.wait_closed(), banned());

    assert_eq!(admin(&cluster, &["unban", "--account", "mallory"]).code, 0);
    let outcome = admin(&cluster, &["unban", "--account", "mallory"]);
    assert_eq!(
        (outcome.code, &*outcome.err),
        (1, "error: there is no such ban\n")
    );
    let mallory = Player::login(&cluster, "mallory");
    mallory.logout();
    honest.round_trip(b"still here");
    honest.logout();
}

#[test]
fn a_banned_network_is_refused_before_the_handshake() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut player = Player::login(&cluster, "ann");
    let mut over_udp = Player::login_udp(&cluster, "bob");
    // Clients of this host come from its loopback addresses.
    let began = Instant::now();
    assert_eq!(
        admin(&cluster, &["ban", "--network", "127.0.0.0/8"]).code,
        0
    );
    assert_eq!(player.wait_closed(), banned());
    assert_eq!(over_udp.wait_closed(), banned());
    let took = began.elapsed();
    assert!(took < THROWN_OUT_WITHIN, "{took:?}");
    let handshakes = "sallyport_gateway_handshakes_total";
    let before = cluster.metrics("gateway").value(handshakes);
    let mut again = Player::connect(&cluster, cluster.token("ann"));
    again.wait_closed();
    assert_eq!(cluster.metrics("gateway").value(handshakes), before);
    assert_eq!(
        admin(&cluster, &["unban", "--network", "127.0.0.0/8"]).code,
        0
    );
    wait_until("she is let in again", PATIENCE, || {
        let mut again = Player::connect(&cluster, cluster.token("ann"));
        again.pump_until(|seen| seen.session.is_some() || seen.closed.is_some());
        again.seen.session.is_some()
    });
    let outcome = admin(&cluster, &["ban", "--network", "127.0.0.0/40"]);
    assert_eq!(outcome.code, 2, "{}", outcome.err);
    assert_eq!(admin(&cluster, &["ban"]).code, 2);
}

#[test]
fn a_client_that_is_too_old_is_told_where_to_get_another() {
    let settings = &[
        "versions.minimum=10",
        "versions.upgrade_address=https://game.example/get",
        "group.0.instances.0.client_versions=..=19",
    ];
    let cluster = Cluster::start(settings, &[], &[]);
    let refused = Closed::ByGateway(Some(CloseReason::UpgradeRequired));
    for version in [9, 20] {
        let mut player = Player::connect_as(&cluster, cluster.token("ann"), version, "");
        assert_eq!(player.wait_closed(), refused);
        assert_eq!(player.close_text(), "https://game.example/get");
    }
    // The token was not used up.
    let token = cluster.token("ann");
    Player::connect_as(&cluster, token.clone(), 9, "").wait_closed();
    let mut player = Player::connect_as(&cluster, token, 10, "");
    player.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
    player.logout();
}

/// Center lets two play, and keeps the places of lost connections for a while.
const CAPPED: &[&str] = &[
    "sessions_online_max=2",
    "queue.forgiven_ms=30000",
    "queue.returning_ms=0",
];

fn position(player: &Player) -> Option<u32> {
    player.seen.queued.last().map(|queued| queued.position)
}

/// A client that waits in the queue.
fn waiting(cluster: &Cluster, account: &str) -> Player {
    let mut player = Player::connect(cluster, cluster.token(account));
    player.wait("a place in the queue", |seen| !seen.queued.is_empty());
    player
}

#[test]
fn players_beyond_the_cap_wait_on_their_connection_and_get_in_in_order() {
    // A queued client is past login: neither the deadline of login nor the idle timeout ends it.
    let settings = &[
        "limits.handshake_timeout_ms=500",
        "limits.login_timeout_ms=500",
        "heartbeat.interval_ms=200",
        "heartbeat.idle_timeout_ms=1500",
    ];
    let cluster = Cluster::start(settings, CAPPED, &[]);
    let mut playing: Vec<_> = ["ann", "bob"]
        .into_iter()
        .map(|name| Player::login(&cluster, name))
        .collect();
    let mut queue: Vec<_> = (0..4)
        .map(|number| waiting(&cluster, &format!("waits-{number}")))
        .collect();
    for (index, player) in queue.iter().enumerate() {
        assert_eq!(position(player), Some(index as u32 + 1));
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2_500) {
        for player in playing.iter_mut().chain(&mut queue) {
            player.pump();
            assert_eq!(player.seen.closed, None);
        }
    }
    assert_eq!(
        cluster.metrics("gateway").value("sallyport_gateway_queued"),
        4
    );
    let online = admin(&cluster, &["online"]);
    assert_eq!(online.code, 0, "{}", online.err);
    for line in [
        "online     2\n",
        "version    1                        2\n",
        "gateway    gateway-1                2\n",
        "queue      4 wait, 0 places are kept;",
    ] {
        assert!(online.out.contains(line), "{line}{}", online.out);
    }
    // One loses its connection and comes back: its place is where it was, over UDP too.
    queue[1].cut();
    cluster.wait_metric("center", "sallyport_center_queue_away", |away| away == 1);
    queue[1] = waiting(&cluster, "waits-1");
    assert_eq!(position(&queue[1]), Some(2));
    // A second connection of the account takes the place along.
    let again = waiting(&cluster, "waits-1");
    let taken = Closed::ByGateway(Some(CloseReason::PlaceTaken));
    assert_eq!(std::mem::replace(&mut queue[1], again).wait_closed(), taken);

    playing.remove(0).logout();
    for next in 0..4 {
        let mut player = queue.remove(0);
        player.wait("its turn", |seen| seen.session.is_some() && seen.ups > 0);
        player.round_trip(b"in at last");
        for behind in &mut queue {
            behind.pump();
            assert_eq!(behind.seen.session, None, "not before {next}");
        }
        player.logout();
    }
    playing.remove(0).logout();
    cluster.wait_metric("center", "sallyport_center_queue", |queue| queue == 0);
    assert_eq!(
        cluster.metrics("gateway").value("sallyport_gateway_queued"),
        0
    );
}

#[test]
fn nobody_gets_ahead_with_a_copied_token_or_by_coming_again_and_again() {
    let cluster = Cluster::start(&[], CAPPED, &[]);
    let mut playing: Vec<_> = ["ann", "bob"]
        .into_iter()
        .map(|name| Player::login(&cluster, name))
        .collect();
    let token = cluster.token("first");
    let mut first = Player::connect(&cluster, token.clone());
    first.wait("a place", |seen| !seen.queued.is_empty());
    let mut mallory = waiting(&cluster, "mallory");
    assert_eq!(position(&mallory), Some(2));
    // What she has seen of another's login gets her nothing, and costs the other nothing.
    for _ in 0..3 {
        let mut thief = Player::connect(&cluster, token.clone());
        let refused = Closed::ByGateway(Some(CloseReason::TokenReused));
        assert_eq!(thief.wait_closed(), refused);
    }
    // Nor does it get her ahead to come again, with and without leaving her place.
    for round in 0..4 {
        let again = if round % 2 == 0 {
            mallory.cut();
            cluster.wait_metric("center", "sallyport_center_queue_away", |away| away == 1);
            waiting(&cluster, "mallory")
        } else {
            waiting(&cluster, "mallory")
        };
        mallory = again;
        assert_eq!(position(&mallory), Some(2));
    }
    // Many places cost as many accounts, and are behind.
    let behind: Vec<_> = (0..5)
        .map(|number| waiting(&cluster, &format!("mallory-{number}")))
        .collect();
    assert_eq!(position(&behind[4]), Some(7));
    first.pump();
    assert_eq!((first.seen.closed, position(&first)), (None, Some(1)));
    playing.remove(0).logout();
    first.wait("its turn", |seen| seen.session.is_some());
    mallory.pump();
    assert_eq!(mallory.seen.session, None);
}

#[test]
fn the_queue_outlives_a_restart_of_center_and_tells_who_moves_up() {
    let mut cluster = Cluster::start(&[], CAPPED, &[]);
    let ann = Player::login(&cluster, "ann");
    let mut bob = Player::login(&cluster, "bob");
    let mut first = waiting(&cluster, "first");
    let mut second = waiting(&cluster, "second");
    cluster.center.kill();
    cluster.center.start();
    cluster.wait_metric("center", "sallyport_center_sessions", |sessions| {
        sessions == 2
    });
    cluster.wait_metric("center", "sallyport_center_queue", |queue| queue == 2);
    ann.logout();
    first.wait("its turn", |seen| seen.session.is_some());
    second.wait("a better place", |seen| {
        seen.queued
            .last()
            .is_some_and(|queued| queued.position == 1)
    });
    assert_eq!(second.seen.session, None);
    bob.round_trip(b"noticed nothing");
    bob.logout();
    second.wait("its turn", |seen| seen.session.is_some());
    first.logout();
    second.logout();
}

#[test]
fn a_storm_of_logins_gets_in_through_the_queue_and_nobody_is_overtaken() {
    let cluster = Cluster::start(
        &[],
        &["sessions_online_max=20", "queue.returning_ms=0"],
        &[],
    );
    let how = "--scenario login-storm --clients 120 --rate 400 --stay 0.2";
    let how: Vec<_> = how.split(' ').collect();
    let (load, report) = cluster.load(cluster.address(), &how);
    assert_eq!(load.code, 0, "{}{}", load.out, load.err);
    assert_eq!(report["connect_failures"], 0, "{report}");
    assert_eq!(report["frames_received"], 120, "{report}");
    assert!(
        report["clients_connected"].as_u64().unwrap() <= 20,
        "{report}"
    );
    let queue = |field: &str| report["queue"][field].as_u64().unwrap();
    assert!(queue("waited") >= 60, "{report}");
    assert!(queue("position_max") >= 40, "{report}");
    assert!(queue("cut") >= 1, "{report}");
    // What is behind the last waits as long as it takes 20 at a time to play and leave.
    assert!(queue("wait_max_us") >= 400_000, "{report}");
}

#[test]
fn the_door_is_set_anew_in_a_running_center() {
    let cluster = Cluster::start(&[], &[], &[]);
    let file = cluster.path().join("center.toml");
    let written = std::fs::read_to_string(&file).unwrap();
    let data_dir = "data_dir = \"center-data\"\n";
    let set = |online_max: u32| {
        let capped = format!("{data_dir}sessions_online_max = {online_max}\n");
        let queue = "\n[queue]\nforgiven_ms = 5000\n";
        let text = written.replace(data_dir, &capped) + queue;
        std::fs::write(&file, text).unwrap();
        cluster.center.reload();
        wait_until("center has read it", PATIENCE, || {
            let log = cluster.center.log();
            log.contains("key=\"sessions_online_max\"")
                && log.contains(&format!(" to=\"{online_max}\""))
        });
    };
    let ann = Player::login(&cluster, "ann");
    set(1);
    assert!(
        cluster
            .center
            .log()
            .contains("reloaded key=\"queue.forgiven_ms\"")
    );
    let mut bob = waiting(&cluster, "bob");
    assert_eq!(position(&bob), Some(1));
    set(2);
    bob.wait("its turn", |seen| seen.session.is_some());
    bob.logout();
    ann.logout();
}
