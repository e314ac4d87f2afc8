//! Clients over UDP against a whole cluster: the real binary, real sockets.

mod flood;
mod relay;
mod side;

use std::net::UdpSocket;
use std::time::Duration;

use protocol::datagram::cookie::COOKIE_BYTES;
use protocol::datagram::hello::{self, Setup};
use protocol::handshake::Initiator;
use protocol::reason::CloseReason;

use crate::cluster::player::{Player, udp_socket};
use crate::cluster::{Cluster, PATIENCE, random32};
use relay::{Luck, Relay};

const SENT: &str = "sallyport_gateway_sent_bytes_total";
const RECEIVED: &str = "sallyport_gateway_received_bytes_total";
const FORWARDED: &str = "sallyport_gateway_forwarded_total";
const CONNECTIONS: &str = "sallyport_gateway_connections";
const DATAGRAMS: &str = "sallyport_gateway_datagrams_received_total";
const CHALLENGES: &str = "sallyport_gateway_path_challenges_total";
const MIGRATIONS: &str = "sallyport_gateway_migrations_total";
const RESENT: &str = "sallyport_gateway_segments_resent_total";

fn drops(reason: &str) -> String {
    format!("sallyport_gateway_drops_total{{reason=\"{reason}\"}}")
}

#[test]
fn a_player_logs_in_echoes_and_logs_out() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut player = Player::login_udp(&cluster, "alice");
    for length in [1, 64, 1_000, 1_104, 1_105, 5_000, 32_000] {
        player.round_trip(&vec![length as u8; length]);
    }
    player.logout();
    cluster.wait_metric("gateway", CONNECTIONS, |count| count == 0);
}

#[test]
fn a_player_who_is_lost_is_waited_for_and_can_log_in_anew() {
    let settings = &[
        "heartbeat.interval_ms=500",
        "heartbeat.idle_timeout_ms=1500",
    ];
    let cluster = Cluster::start(settings, &[], &[]);
    let mut player = Player::login_udp(&cluster, "alice");
    player.round_trip(b"here");
    // Nobody says a word of it: the gateway has to find out.
    let lost = player.seen.session;
    drop(player);
    cluster.wait_metric("gateway", CONNECTIONS, |count| count == 0);
    let gateway = cluster.metrics("gateway");
    assert_eq!(gateway.closes(CloseReason::IdleTimeout), 1);
    assert_eq!(gateway.value("sallyport_gateway_sessions"), 0);
    assert_eq!(gateway.value("sallyport_gateway_sessions_parked"), 1);
    let mut anew = Player::login_udp(&cluster, "alice");
    assert_ne!(anew.seen.session, lost);
    let ended = "sallyport_game_disconnected_total";
    cluster.wait_metric("game", ended, |count| count == 1);
    assert_eq!(cluster.metrics("gateway").closes(CloseReason::Replaced), 1);
    anew.round_trip(b"here again");
    anew.logout();
}

/// An INIT, and its nonce.
fn init(cluster: &Cluster, cookie: &[u8; COOKIE_BYTES]) -> (u64, Vec<u8>) {
    let mut frame = Vec::new();
    Initiator::hello(&cluster.gateway_key, random32(), 0, &mut frame).expect("a usable key");
    let nonce = 4_711;
    let mut out = Vec::new();
    let setup = Setup::Init {
        cookie,
        hello: &frame,
    };
    hello::encode(nonce, &setup, &mut out);
    (nonce, out)
}

fn answer(socket: &UdpSocket) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut bytes = [0; 2_048];
    let length = socket.recv(&mut bytes).expect("an answer");
    bytes[..length].to_vec()
}

/// Asks with no cookie; the one that is offered.
fn cookie(cluster: &Cluster, socket: &UdpSocket) -> [u8; COOKIE_BYTES] {
    let (nonce, init) = init(cluster, &[0; COOKIE_BYTES]);
    socket.send(&init).expect("sent");
    match hello::decode(&answer(socket)) {
        Some((named, Setup::Retry { cookie })) if named == nonce => *cookie,
        other => panic!("not a RETRY: {other:?}"),
    }
}

#[test]
fn who_has_no_cookie_leaves_nothing_behind_and_gains_nothing() {
    let cluster = Cluster::start(&[], &[], &[]);
    for _ in 0..20 {
        let socket = udp_socket(cluster.address());
        let (_, init) = init(&cluster, &[0; COOKIE_BYTES]);
        for _ in 0..20 {
            socket.send(&init).expect("sent");
        }
        // None of these is answered.
        socket.send(&init[..1_199]).expect("sent");
        socket.send(&[0xff; 40]).expect("sent");
        socket.send(&[0; 1_200]).expect("sent");
        socket.send(&[7; 3]).expect("sent");
        socket.send(&[7; 1_900]).expect("sent");
        // The answer is shorter than the question.
        assert!(answer(&socket).len() < 40);
    }
    cluster.wait_metric("gateway", DATAGRAMS, |count| count == 20 * 25);
    let metrics = cluster.metrics("gateway");
    assert_eq!(metrics.value(CONNECTIONS), 0);
    assert!(metrics.value(SENT) * 20 < metrics.value(RECEIVED));
    assert_eq!(metrics.value(&drops("datagram_unknown")), 20);
    assert_eq!(metrics.value(&drops("datagram_malformed")), 20 * 4);

    // A cookie that was changed, or is another address's, is as good as none.
    let (socket, other) = (udp_socket(cluster.address()), udp_socket(cluster.address()));
    let good = cookie(&cluster, &socket);
    let mut forged = good;
    forged[COOKIE_BYTES - 1] ^= 1;
    for (socket, cookie) in [(&socket, &forged), (&other, &good)] {
        socket.send(&init(&cluster, cookie).1).expect("sent");
        let retry = answer(socket);
        assert!(matches!(
            hello::decode(&retry),
            Some((_, Setup::Retry { .. }))
        ));
    }
    assert_eq!(cluster.metrics("gateway").value(&drops("bad_cookie")), 2);
    assert_eq!(cluster.metrics("gateway").value(CONNECTIONS), 0);
}

#[test]
fn an_init_that_is_repeated_is_answered_alike_and_opens_one_connection() {
    let settings = &["limits.handshake_timeout_ms=1000"];
    let cluster = Cluster::start(settings, &[], &[]);
    let socket = udp_socket(cluster.address());
    let good = cookie(&cluster, &socket);
    let (_, init) = init(&cluster, &good);
    socket.send(&init).expect("sent");
    let first = answer(&socket);
    assert!(matches!(
        hello::decode(&first),
        Some((_, Setup::Accept { .. }))
    ));
    for _ in 0..10 {
        socket.send(&init).expect("sent");
        assert_eq!(answer(&socket), first);
    }
    assert_eq!(cluster.metrics("gateway").value(CONNECTIONS), 1);
    // Nobody ever used it: it is forgotten.
    cluster.wait_metric("gateway", CONNECTIONS, |count| count == 0);
}

#[test]
fn a_bad_path_loses_nothing_of_the_reliable_lane() {
    let cluster = Cluster::start(&[], &[], &[]);
    let luck = Luck {
        loss: 100,
        double: 100,
        late: 100,
    };
    let relay = Relay::start(cluster.address(), luck);
    let mut player = Player::login_udp_at(&cluster, "alice", relay.address);
    for turn in 0..60 {
        let length = if turn % 20 == 7 { 20_000 } else { 100 };
        player.round_trip(&vec![turn as u8; length]);
    }
    assert_eq!((player.seen.ups, player.seen.downs), (1, 0));
    let metrics = cluster.metrics("gateway");
    assert!(metrics.value(RESENT) > 0, "nothing was sent again");
    assert!(metrics.value(&drops("datagram_repeated")) > 0);
    assert_eq!(metrics.value(&drops("datagram_seal")), 0);
}

#[test]
fn recorded_datagrams_reach_no_backend() {
    let cluster = Cluster::start(&[], &[], &[]);
    let relay = Relay::start(cluster.address(), Luck::default());
    let mut player = Player::login_udp_at(&cluster, "alice", relay.address);
    for turn in 0..30 {
        player.round_trip(&[turn; 50]);
    }
    // What is still owed, an acknowledgement, has left before they are counted.
    let pause = std::time::Instant::now();
    while pause.elapsed() < Duration::from_millis(100) {
        player.pump();
    }
    let recorded = relay.recorded();
    let sealed: Vec<_> = recorded.iter().filter(|it| it[0] != 0xff).collect();
    assert!(sealed.len() >= 32, "{}", sealed.len());
    let before = cluster.metrics("gateway").value(FORWARDED);
    let stranger = udp_socket(cluster.address());
    for datagram in &sealed {
        relay.send(datagram);
        stranger.send(datagram).expect("sent");
        let mut forged = datagram.to_vec();
        forged[8 + 4] ^= 0x40;
        protocol::frame::write_crc(&mut forged[8..]);
        stranger.send(&forged).expect("sent");
    }
    let count = sealed.len() as u64;
    cluster.wait_metric("gateway", &drops("datagram_repeated"), |n| n == 2 * count);
    cluster.wait_metric("gateway", &drops("datagram_seal"), |n| n == count);
    let metrics = cluster.metrics("gateway");
    assert_eq!(metrics.value(FORWARDED), before);
    assert_eq!(metrics.value(CHALLENGES), 0, "a repeat moves nobody");
    player.round_trip(b"as before");
    player.logout();
}

#[test]
fn a_player_who_moves_keeps_its_session_and_gets_another_id() {
    // Two shards: the kernel must find the right one whatever the address.
    let cluster = Cluster::start(&["engine.shards=2"], &[], &[]);
    let mut players = Vec::new();
    for at in 0..4 {
        let relay = Relay::start(cluster.address(), Luck::default());
        let player = Player::login_udp_at(&cluster, &format!("player-{at}"), relay.address);
        players.push((relay, player));
    }
    for moves in 1..=3_u64 {
        for (relay, player) in &mut players {
            player.round_trip(b"before");
            relay.rebind();
            player.round_trip(b"after");
        }
        let end = std::time::Instant::now() + PATIENCE;
        while cluster.metrics("gateway").value(MIGRATIONS) < moves * 4 {
            assert!(std::time::Instant::now() < end, "they never arrive");
            for (_, player) in &mut players {
                player.round_trip(b"more");
            }
        }
        for (_, player) in &mut players {
            player.round_trip(b"under the new id");
            player.round_trip(b"under the new id");
        }
    }
    assert_eq!(cluster.metrics("gateway").value(MIGRATIONS), 12);
    for (relay, player) in players {
        let recorded = relay.recorded();
        let mut cids: Vec<&[u8]> = recorded
            .iter()
            .filter(|datagram| datagram[0] != 0xff)
            .map(|datagram| &datagram[..8])
            .collect();
        cids.dedup();
        assert_eq!(cids.len(), 4, "one more with each move: {cids:?}");
        assert!(cids.iter().all(|cid| cid[0] == cids[0][0] && cid[0] < 2));
        assert_eq!((player.seen.ups, player.seen.downs), (1, 0));
        // The answer finds it also where LOGOUT is the first that comes from there.
        relay.rebind();
        player.logout();
    }
    let metrics = cluster.metrics("gateway");
    assert_eq!(metrics.value(&drops("datagram_unknown")), 0);
}
