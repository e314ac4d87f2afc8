//! Clients that lose their connection and come back to their session.

use std::io::Write as _;
use std::net::TcpStream;

use protocol::client::Closed;
use protocol::reason::CloseReason;

use crate::cluster::Cluster;
use crate::cluster::player::{Honest, Player};

const PARKED: &str = "sallyport_gateway_sessions_parked";
const RESUMES: &str = "sallyport_gateway_resumes_total";
const LOGINS: &str = "sallyport_gateway_logins_total";
const MOVES: &str = "sallyport_gateway_moves_total";

#[test]
fn a_client_comes_back_again_and_again_and_nothing_is_lost() {
    let cluster = Cluster::start(&[], &[], &[]);
    let honest = Honest::start(&cluster);
    let mut player = Player::login(&cluster, "ann");
    let session = player.seen.session.expect("logged in");
    for round in 0..10_u8 {
        // Asked and not answered, and asked while nobody is there to hear it.
        player.request(&[round; 200]);
        player.cut();
        player.request(&[100 + round; 20]);
        player.come_back(&cluster);
        assert_eq!(player.seen.resumed.last(), Some(&session));
        player.round_trip(b"here again");
    }
    let replies: Vec<u32> = player.seen.replies.iter().map(|(id, _)| *id).collect();
    let all: Vec<u32> = (1..=player.asked).collect();
    assert_eq!(replies, all, "each once, in order");
    // The game has heard nothing of it.
    let game = cluster.metrics("game");
    assert_eq!(game.value("sallyport_game_connected_total"), 2);
    assert_eq!(game.value("sallyport_game_disconnected_total"), 0);
    assert_eq!(cluster.metrics("gateway").value(RESUMES), 10);
    player.logout();
    honest.finish();
}

#[test]
fn a_half_open_connection_gives_way_to_a_resume() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut player = Player::login(&cluster, "ann");
    // The gateway hears nothing of it: the old socket stays open.
    let old = player.vanish();
    player.come_back(&cluster);
    player.round_trip(b"here");
    let gateway = cluster.metrics("gateway");
    assert_eq!(gateway.closes(CloseReason::Superseded), 1);
    assert_eq!(gateway.value("sallyport_gateway_sessions"), 1);
    drop(old);
    player.logout();
}

#[test]
fn a_session_waits_for_its_time_and_a_logout_ends_it() {
    let cluster = Cluster::start(&["resume.time_ms=1500"], &[], &[]);
    let mut player = Player::login(&cluster, "ann");
    player.cut();
    cluster.wait_metric("gateway", PARKED, |parked| parked == 1);
    cluster.wait_metric("game", "sallyport_game_disconnected_total", |ended| {
        ended == 1
    });
    cluster.wait_metric("center", "sallyport_center_sessions", |held| held == 0);
    player.try_resume(&cluster);
    assert_eq!(
        player.wait_closed(),
        Closed::ByClient(CloseReason::TicketUnknown)
    );
    assert_eq!(player.seen.lost, Some(CloseReason::TicketUnknown));
    let gateway = cluster.metrics("gateway");
    assert_eq!(gateway.closes(CloseReason::NotResumed), 1);
    assert_eq!(gateway.closes(CloseReason::TicketUnknown), 1);
    // The account is free.
    Player::login(&cluster, "ann").logout();
    cluster.wait_metric("game", "sallyport_game_disconnected_total", |ended| {
        ended == 2
    });
}

#[test]
fn an_account_whose_client_is_lost_can_log_in_anew() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut lost = Player::login(&cluster, "ann");
    lost.round_trip(b"before");
    lost.cut();
    cluster.wait_metric("gateway", PARKED, |parked| parked == 1);
    let mut anew = Player::login(&cluster, "ann");
    anew.round_trip(b"after");
    assert_ne!(anew.seen.session, lost.seen.session);
    cluster.wait_metric("gateway", PARKED, |parked| parked == 0);
    assert_eq!(cluster.metrics("gateway").closes(CloseReason::Replaced), 1);
    // Who comes back now finds nothing, and disturbs nobody.
    lost.try_resume(&cluster);
    lost.wait_closed();
    assert_eq!(lost.seen.lost, Some(CloseReason::TicketUnknown));
    anew.round_trip(b"still here");
    let game = cluster.metrics("game");
    assert_eq!(game.value("sallyport_game_connected_total"), 2);
    assert_eq!(game.value("sallyport_game_disconnected_total"), 1);
    anew.logout();
}

#[test]
fn a_recorded_resume_is_worthless_and_harms_nobody() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut player = Player::login(&cluster, "ann");
    player.cut();
    let recorded = player.try_resume(&cluster);
    player.pump_until(|seen| !seen.resumed.is_empty());
    player.round_trip(b"here");
    let mut replays = Vec::new();
    for _ in 0..20 {
        let mut replay = TcpStream::connect(cluster.address()).expect("the gateway accepts");
        replay.write_all(&recorded).expect("a socket");
        replays.push(replay);
    }
    let series = "sallyport_gateway_closes_total{reason=\"ticket_unknown\"}";
    cluster.wait_metric("gateway", series, |refused| refused == 20);
    player.round_trip(b"still here");
    assert_eq!(
        cluster.metrics("gateway").closes(CloseReason::Superseded),
        0
    );
    player.logout();
}

#[test]
fn a_crowd_that_is_cut_comes_back_whole_on_any_shard() {
    const CROWD: usize = 200;
    let cluster = Cluster::start(&["engine.shards=2"], &[], &[]);
    let mut crowd: Vec<_> = (0..CROWD)
        .map(|index| Player::login(&cluster, &format!("crowd-{index}")))
        .collect();
    for round in 0..3_u8 {
        for player in &mut crowd {
            player.request(&[round; 64]);
            player.cut();
        }
        for player in &mut crowd {
            player.try_resume(&cluster);
        }
        for player in &mut crowd {
            player.round_trip(&[round; 10]);
        }
    }
    for player in crowd {
        assert_eq!(player.seen.replies.len(), 6);
        player.logout();
    }
    let gateway = cluster.metrics("gateway");
    assert_eq!(gateway.value(RESUMES), 3 * CROWD as u64);
    assert_eq!(gateway.value(LOGINS), CROWD as u64);
    assert_eq!(gateway.value(PARKED), 0);
    // Nobody chooses the shard: about half came to the other one each time.
    let moves = gateway.value(MOVES);
    assert!((100..500).contains(&moves), "{moves}");
    let center = cluster.metrics("center");
    assert_eq!(center.value("sallyport_center_moved_total"), moves);
    let game = cluster.metrics("game");
    assert_eq!(game.value("sallyport_game_connected_total"), CROWD as u64);
    cluster.wait_metric("game", "sallyport_game_sessions", |sessions| sessions == 0);
}
