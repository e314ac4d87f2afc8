//! A gateway that is killed, and one that is asked to end.

use std::time::{Duration, Instant};

use protocol::client::Closed;
use protocol::reason::CloseReason;

use super::{CENTER_SESSIONS, GAME_SESSIONS, PLAYERS, account, players};
use crate::cluster::player::Player;
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE};

/// Lease in these tests; center adds a second of its own.
const LEASE: Duration = Duration::from_millis(2_000);
const MARGIN: Duration = Duration::from_millis(1_000);

#[test]
fn a_killed_gateway_that_keeps_no_sessions_is_a_clear_end_and_its_accounts_are_free_after_the_lease()
 {
    let mut cluster = Cluster::start(
        &["resume.time_ms=0", "limits.account_logins_per_minute=0"],
        &["lease_ms=2000"],
        &["sessions.link_grace_ms=1000"],
    );
    let mut players = players(&cluster);
    let mut stranger = Raw::greeted(&cluster);
    let held = [cluster.game.holdings(), cluster.center.holdings()];
    let died_at = Instant::now();
    cluster.gateway.kill();
    for player in &mut players {
        let closed = player.wait_closed();
        assert_eq!(closed, Closed::ByClient(CloseReason::PeerClosed));
    }
    assert!(died_at.elapsed() < Duration::from_secs(1), "at once");
    let mut byte = [0];
    let ended = std::io::Read::read(&mut stranger.stream, &mut byte);
    assert!(matches!(ended, Ok(0) | Err(_)));

    cluster.gateway.start();
    cluster.wait_ready();
    // Whoever was not there can come at once; whoever was may still be there, as
    // far as center knows, until the dead gateway's lease has run out.
    Player::login(&cluster, "new").logout();
    let mut refusals = 0;
    let mut back = loop {
        let mut player = Player::connect(&cluster, cluster.token(&account(0)));
        player.pump_until(|seen| seen.closed.is_some() || seen.ups > 0);
        match player.seen.closed {
            None => break player,
            Some(closed) => {
                let refused = Closed::ByGateway(Some(CloseReason::AlreadyOnline));
                assert_eq!(closed, refused);
                refusals += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    };
    let took = died_at.elapsed();
    // The last renewal was at most a third of the lease before the end.
    assert!(took >= LEASE * 2 / 3 + MARGIN, "too early: {took:?}");
    assert!(
        took <= LEASE + MARGIN + Duration::from_secs(3),
        "too late: {took:?}"
    );
    assert!(refusals > 0);
    back.round_trip(b"back");
    let closes = cluster
        .metrics("gateway")
        .closes(CloseReason::AlreadyOnline);
    assert_eq!(closes, refusals);

    // The others have forgotten what ended with the old gateway.
    let center = cluster.metrics("center");
    assert_eq!(
        center.value("sallyport_center_sessions_lost_total"),
        PLAYERS as u64
    );
    cluster.wait_metric("center", CENTER_SESSIONS, |sessions| sessions == 1);
    cluster.wait_metric("game", GAME_SESSIONS, |sessions| sessions == 1);
    let game = cluster.metrics("game");
    assert_eq!(
        game.value("sallyport_game_disconnected_total"),
        PLAYERS as u64 + 1
    );
    cluster.game.wait_back(held[0]);
    cluster.center.wait_back(held[1]);
    back.logout();
}

#[test]
fn a_gateway_that_is_asked_to_end_tells_everybody_and_ends_with_0() {
    let mut cluster = Cluster::start(&[], &[], &[]);
    let mut players = players(&cluster);
    let mut greeted = Raw::greeted(&cluster);
    let mut silent = Raw::connect(&cluster);
    cluster.wait_metric("gateway", "sallyport_gateway_connections", |open| {
        open == PLAYERS as u64 + 2
    });
    cluster.gateway.terminate();
    for player in &mut players {
        let closed = player.wait_closed();
        assert_eq!(closed, Closed::ByGateway(Some(CloseReason::Draining)));
    }
    greeted.expect_close(CloseReason::Draining);
    silent.expect_reject(CloseReason::Draining);
    drop((players, greeted, silent));
    let status = cluster.gateway.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    assert!(std::net::TcpStream::connect(cluster.address()).is_err());
    // It has given its sessions back before it went, for their clients to come to another one.
    cluster.wait_metric("center", "sallyport_center_orphans", |orphans| {
        orphans == PLAYERS as u64
    });
    // Who logs in anew has nothing to wait for.
    cluster.gateway.start();
    cluster.wait_ready();
    for index in 0..PLAYERS {
        Player::login(&cluster, &account(index)).logout();
    }
    cluster.wait_metric("center", CENTER_SESSIONS, |sessions| sessions == 0);
    cluster.wait_metric("game", GAME_SESSIONS, |sessions| sessions == 0);
    for process in [&mut cluster.game, &mut cluster.center] {
        process.terminate();
        assert_eq!(process.wait(PATIENCE).code(), Some(0));
    }
}
