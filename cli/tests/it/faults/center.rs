//! A center that is killed: back within the lease nobody notices; longer, and
//! sessions end with a reason, and players log in again.

use std::time::{Duration, Instant};

use protocol::client::Closed;
use protocol::ids::SessionId;
use protocol::reason::CloseReason;

use super::{CENTER_SESSIONS, GAME_SESSIONS, GATEWAY_SESSIONS, PLAYERS, account, players};
use crate::cluster::Cluster;
use crate::cluster::metrics::Calm;
use crate::cluster::player::{Honest, Player};
use crate::cluster::raw::Raw;

/// The highest session id so far.
fn highest(players: &[Player]) -> SessionId {
    let ids = players.iter().filter_map(|player| player.seen.session);
    ids.max().expect("they are logged in")
}

#[test]
fn a_center_that_is_back_within_the_lease_was_never_missed() {
    let mut cluster = Cluster::start(&[], &["lease_ms=10000"], &[]);
    let honest = Honest::start(&cluster);
    let mut players = players(&cluster);
    for round in 0..2 {
        cluster.center.kill();
        let calm = Calm::before(&cluster);
        honest.round_trips(20);
        // Who comes meanwhile waits, and is let in.
        let token = cluster.token(&format!("late-{round}"));
        let mut late = Player::connect(&cluster, token);
        honest.round_trips(20);
        assert_eq!(late.seen.session, None);
        for player in &mut players {
            player.round_trip(b"undisturbed");
        }
        calm.check();
        drop(calm);
        cluster.center.start();
        late.wait("a login that waited", |seen| seen.ups > 0);
        let mut calm = Calm::before(&cluster);
        assert!(late.seen.session.expect("logged in") > highest(&players));
        // It knows again who is there, and who may not come twice.
        let everybody = PLAYERS as u64 + 1 + round + 1;
        cluster.wait_metric("center", CENTER_SESSIONS, |sessions| sessions == everybody);
        let mut twice = Raw::greeted(&cluster);
        twice.send_login(&cluster.token(&account(0)));
        twice.expect_close(CloseReason::AlreadyOnline);
        honest.round_trips(20);
        calm.closed(CloseReason::AlreadyOnline, 1);
        calm.over();
        let center = cluster.metrics("center");
        assert_eq!(center.value("sallyport_center_revoked_total"), 0);
        players.push(late);
    }
    for player in players {
        assert_eq!((player.seen.ups, player.seen.downs), (1, 0));
        player.logout();
    }
    honest.finish();
}

#[test]
fn a_center_that_is_away_for_longer_ends_sessions_with_a_reason() {
    let lease = Duration::from_millis(1_000);
    let mut cluster = Cluster::start(
        &[
            "limits.login_timeout_ms=2000",
            "limits.handshake_timeout_ms=2000",
        ],
        &["lease_ms=1000"],
        &["sessions.link_grace_ms=1000"],
    );
    let mut players = players(&cluster);
    let last = highest(&players);
    let held = [cluster.gateway.holdings(), cluster.game.holdings()];
    let died_at = Instant::now();
    cluster.center.kill();
    let mut calm = Calm::before(&cluster);
    for player in &mut players {
        let closed = player.wait_closed();
        assert_eq!(closed, Closed::ByGateway(Some(CloseReason::LeaseLost)));
    }
    let took = died_at.elapsed();
    assert!(took >= lease / 2, "a renewal may be late: {took:?}");
    assert!(took <= lease + Duration::from_secs(1), "{took:?}");
    calm.closed(CloseReason::LeaseLost, PLAYERS as u64);
    calm.check();
    cluster.wait_metric("gateway", GATEWAY_SESSIONS, |sessions| sessions == 0);
    cluster.wait_metric("game", GAME_SESSIONS, |sessions| sessions == 0);
    // Who comes now is told that it is not him.
    let mut raw = Raw::greeted(&cluster);
    raw.send_login(&cluster.token("early"));
    raw.expect_close(CloseReason::CenterUnavailable);
    calm.closed(CloseReason::CenterUnavailable, 1);
    calm.check();
    drop(calm);

    cluster.center.start();
    cluster.wait_ready();
    for index in 0..PLAYERS {
        let mut player = Player::login(&cluster, &account(index));
        assert!(player.seen.session.expect("logged in") > last);
        player.round_trip(b"again");
        player.logout();
    }
    cluster.gateway.wait_back(held[0]);
    cluster.game.wait_back(held[1]);
}
