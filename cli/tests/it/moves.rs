//! Sessions that go on at another gateway, and over another transport.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use protocol::client::Closed;
use protocol::reason::CloseReason;

use crate::cluster::metrics;
use crate::cluster::player::{Carrier, Player};
use crate::cluster::process::Process;
use crate::cluster::{Cluster, PATIENCE, wait_until};

const MOVES: &str = "sallyport_gateway_moves_total";
const MOVED: &str = "sallyport_center_moved_total";

/// A second gateway, and where its clients connect.
fn second_gateway(cluster: &Cluster) -> (Process, SocketAddr) {
    let mut other = cluster.other_gateway("gateway.identity", &cluster.game_identity);
    other.start();
    let admin = (cluster.ip(), 17_001).into();
    wait_until("the second gateway is ready", PATIENCE, || {
        metrics::fetch(admin, "/readyz").is_some_and(|(code, _)| code == 200)
    });
    (other, (cluster.ip(), 17_000).into())
}

/// Every request was answered once, in order, and backends have heard of nothing.
fn check_whole(cluster: &Cluster, players: &[Player]) {
    for player in players {
        let replies: Vec<u32> = player.seen.replies.iter().map(|(id, _)| *id).collect();
        let all: Vec<u32> = (1..=player.asked).collect();
        assert_eq!(replies, all, "each once, in order");
        assert_eq!(player.seen.lost, None);
    }
    let game = cluster.metrics("game");
    let connected = game.value("sallyport_game_connected_total");
    assert_eq!(connected, players.len() as u64);
    assert_eq!(game.value("sallyport_game_disconnected_total"), 0);
}

#[test]
fn a_session_goes_from_one_transport_to_another_and_back() {
    let cluster = Cluster::start(&["engine.shards=2"], &[], &[]);
    let mut player = Player::login(&cluster, "ann");
    let session = player.seen.session.expect("logged in");
    let ways = [Carrier::Udp, Carrier::Web, Carrier::Tcp, Carrier::Web];
    let ways = ways
        .into_iter()
        .chain([Carrier::Udp, Carrier::Udp, Carrier::Tcp]);
    for (round, carrier) in ways.cycle().take(21).enumerate() {
        player.request(&[round as u8; 2_000]);
        player.cut();
        player.request(&[round as u8; 20]);
        player.come_back_over(carrier, cluster.address());
        player.round_trip(b"here again");
        assert_eq!(player.seen.resumed.last(), Some(&session));
    }
    check_whole(&cluster, std::slice::from_ref(&player));
    player.logout();
}

#[test]
fn a_session_that_began_over_datagrams_is_kept_as_well() {
    let settings = &[
        "heartbeat.interval_ms=500",
        "heartbeat.idle_timeout_ms=1500",
    ];
    let cluster = Cluster::start(settings, &[], &[]);
    let mut player = Player::login_udp(&cluster, "ann");
    player.cut();
    let parked = "sallyport_gateway_sessions_parked";
    cluster.wait_metric("gateway", parked, |count| count == 1);
    player.request(b"while nobody is there");
    player.come_back_over(Carrier::Udp, cluster.address());
    player.round_trip(b"here again");
    check_whole(&cluster, std::slice::from_ref(&player));
    player.logout();
}

#[test]
fn the_clients_of_a_gateway_that_is_killed_go_on_at_the_other_one() {
    let mut cluster = Cluster::start(&[], &[], &[]);
    let (_other, address) = second_gateway(&cluster);
    let mut players: Vec<_> = (0..10)
        .map(|index| match index % 2 {
            0 => Player::login(&cluster, &format!("player-{index}")),
            _ => Player::login_udp(&cluster, &format!("player-{index}")),
        })
        .collect();
    for player in &mut players {
        player.round_trip(b"before");
        player.request(&[1; 300]);
    }
    cluster.gateway.kill();
    for player in &mut players {
        player.cut();
        player.request(&[2; 30]);
    }
    // At once: nobody waits for the lease of the dead one.
    let carriers = [Carrier::Tcp, Carrier::Udp, Carrier::Web];
    for (player, carrier) in players.iter_mut().zip(carriers.into_iter().cycle()) {
        player.come_back_over(carrier, address);
        player.round_trip(b"after");
    }
    check_whole(&cluster, &players);
    let center = cluster.metrics("center");
    assert_eq!(center.value(MOVED), 10);
    assert_eq!(center.value("sallyport_center_sessions"), 10);
    for player in players {
        player.logout();
    }
}

#[test]
fn the_sessions_of_a_dead_gateway_outlive_its_lease() {
    let mut cluster = Cluster::start(&[], &["lease_ms=1500"], &[]);
    let (_other, address) = second_gateway(&cluster);
    let mut player = Player::login(&cluster, "ann");
    let mut lost = Player::login(&cluster, "bob");
    player.round_trip(b"before");
    lost.round_trip(b"before");
    cluster.gateway.kill();
    player.cut();
    let orphans = "sallyport_center_orphans";
    cluster.wait_metric("center", orphans, |count| count == 2);
    player.come_back_over(Carrier::Tcp, address);
    player.round_trip(b"after");
    // An account whose client is gone for good is free now.
    let mut anew = Player::connect_at(&cluster, address, cluster.token("bob"));
    anew.pump_until(|seen| seen.session.is_some() && seen.ups > 0);
    anew.round_trip(b"anew");
    assert_eq!(cluster.metrics("center").value(orphans), 0);
    player.logout();
    anew.logout();
}

#[test]
fn clients_of_a_gateway_that_is_drained_go_on_elsewhere() {
    let cluster = Cluster::start(&[], &[], &[]);
    let (_other, address) = second_gateway(&cluster);
    let mut player = Player::login(&cluster, "ann");
    player.round_trip(b"before");
    cluster.gateway.terminate();
    let closed = player.wait_closed();
    assert_eq!(closed, Closed::ByGateway(Some(CloseReason::Draining)));
    player.come_back_over(Carrier::Tcp, address);
    player.round_trip(b"after");
    check_whole(&cluster, std::slice::from_ref(&player));
    player.logout();
}

#[test]
fn a_ticket_that_was_used_is_refused_at_every_gateway_and_harms_nobody() {
    let cluster = Cluster::start(&[], &[], &[]);
    let (_other, address) = second_gateway(&cluster);
    let mut player = Player::login(&cluster, "ann");
    player.cut();
    let recorded = player.try_resume_over(Carrier::Tcp, address);
    player.pump_until(|seen| !seen.resumed.is_empty());
    player.round_trip(b"here");
    let there = metrics::read((cluster.ip(), 17_001).into()).expect("metrics");
    assert_eq!(there.value(MOVES), 1);
    // The session is there; at home nobody knows it, and nobody has heard its end.
    for gateway in [cluster.address(), address] {
        for _ in 0..10 {
            let mut replay = TcpStream::connect(gateway).expect("a gateway accepts");
            replay.write_all(&recorded).expect("a socket");
            let mut answer = [0; 20];
            std::io::Read::read_exact(&mut replay, &mut answer).expect("REJECT");
            let [low, high] = (CloseReason::TicketUnknown as u16).to_le_bytes();
            assert_eq!(answer[16..], [3, 1, low, high]);
        }
    }
    player.round_trip(b"still here");
    assert_eq!(cluster.metrics("center").value(MOVED), 1);
    check_whole(&cluster, std::slice::from_ref(&player));
    player.logout();
}
