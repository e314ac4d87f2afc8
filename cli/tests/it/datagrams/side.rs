//! Side paths: players over TCP whose unreliable and sequenced messages go over UDP, as long as
//! their network lets them.

use std::time::{Duration, Instant};

use protocol::body::Lane;

use crate::cluster::player::Player;
use crate::cluster::{Cluster, PATIENCE};
use crate::impair::Proxy;

const PATHS: &str = "sallyport_gateway_side_paths_total";
const BESIDE_IN: &str = "sallyport_gateway_side_messages_received_total";
const BESIDE_OUT: &str = "sallyport_gateway_side_messages_sent_total";

/// Messages of each lane that one look sends.
const EACH: u64 = 20;

/// Sends on both lanes, and waits for every echo.
fn echo(player: &mut Player) {
    player.seen.messages.clear();
    for turn in 0..EACH {
        for lane in [Lane::Unreliable, Lane::Sequenced] {
            player.send(lane, &[turn as u8; 40]);
        }
        let echoes = (turn as usize + 1) * 2;
        player.wait("echoes", |seen| seen.messages.len() == echoes);
    }
    player.round_trip(b"and the reliable lane");
}

fn beside(cluster: &Cluster) -> (u64, u64) {
    let metrics = cluster.metrics("gateway");
    (metrics.value(BESIDE_IN), metrics.value(BESIDE_OUT))
}

fn wait_for_path(player: &mut Player) {
    let end = Instant::now() + PATIENCE;
    while !player.is_side_path_up() {
        assert!(Instant::now() < end, "no side path");
        player.pump();
    }
}

#[test]
fn lanes_go_beside_the_stream_and_over_it_once_udp_is_blocked() {
    let cluster = Cluster::start(&["engine.shards=2"], &[], &[]);
    let proxy = Proxy::start(cluster.address(), &["--delay-ms", "1"]);
    let mut player = Player::login_beside(&cluster, "alice", proxy.address);
    wait_for_path(&mut player);
    player.send(
        Lane::Unreliable,
        b"the gateway's own proof takes its answer",
    );
    player.wait("an echo", |seen| !seen.messages.is_empty());
    let before = beside(&cluster);
    echo(&mut player);
    let after = beside(&cluster);
    // On a machine that stands still for seconds a few go over the stream.
    assert!(
        after.0 - before.0 > EACH && after.1 - before.1 > EACH,
        "{after:?}"
    );

    drop(proxy);
    let end = Instant::now() + PATIENCE;
    while player.is_side_path_up() {
        assert!(Instant::now() < end, "the path still holds");
        player.send(Lane::Unreliable, b"may get lost");
        player.round_trip(b"may not");
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_millis(20) {
            player.pump();
        }
    }
    // The gateway has found out for itself by the time that it no longer counts.
    let end = Instant::now() + PATIENCE;
    let mut last = beside(&cluster);
    loop {
        player.send(Lane::Unreliable, b"still");
        player.round_trip(b"still");
        let now = beside(&cluster);
        if now == last {
            break;
        }
        assert!(Instant::now() < end, "the gateway still sends beside");
        last = now;
    }
    echo(&mut player);
    assert_eq!(beside(&cluster), last);
    assert_eq!((player.seen.ups, player.seen.downs), (1, 0));
    assert_eq!(cluster.metrics("gateway").value(PATHS), 1);
    player.logout();
}

#[test]
fn a_player_whose_network_never_lets_udp_through_notices_nothing() {
    let cluster = Cluster::start(&[], &[], &[]);
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = nobody.local_addr().expect("its address");
    let mut player = Player::login_beside(&cluster, "alice", address);
    for _ in 0..3 {
        echo(&mut player);
    }
    assert!(!player.is_side_path_up());
    assert_eq!(beside(&cluster), (0, 0));
    assert_eq!((player.seen.ups, player.seen.downs), (1, 0));
    player.logout();
}

#[test]
fn a_player_who_comes_back_has_a_path_again() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut player = Player::login_beside(&cluster, "alice", cluster.address());
    wait_for_path(&mut player);
    player.cut();
    assert!(!player.is_side_path_up());
    player.come_back(&cluster);
    wait_for_path(&mut player);
    player.send(Lane::Sequenced, b"again");
    player.wait("an echo", |seen| !seen.messages.is_empty());
    assert_eq!(cluster.metrics("gateway").value(PATHS), 2);
    assert!(beside(&cluster).0 > 0);
    player.logout();
}
