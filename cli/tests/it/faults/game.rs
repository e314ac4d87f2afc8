//! A game process that is killed: sessions stay, and when it is back each
//! request that was outstanding is answered once, in order.

use protocol::reason::DropReason;

use super::{GAME_SESSIONS, GATEWAY_SESSIONS, PLAYERS, players};
use crate::cluster::metrics::drops;
use crate::cluster::player::Player;
use crate::cluster::{Cluster, PATIENCE, wait_until};

/// Sends so many requests, each with its number, and looks for answers
/// meanwhile.
fn ask(players: &mut [Player], count: usize) {
    for _ in 0..count {
        for player in players.iter_mut() {
            let number = player.asked + 1;
            let id = player.request(&payload(number));
            assert_eq!(id, number);
        }
    }
    players.iter_mut().for_each(Player::pump);
}

/// What request `number` carries.
fn payload(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(20)
}

/// Waits for all answers, and checks them from the first to the last.
fn all_answered(players: &mut [Player], earlier: usize) {
    for player in players {
        let asked = player.asked as usize;
        player.wait("all answers", |seen| seen.replies.len() >= asked);
        let replies = &player.seen.replies;
        let ids: Vec<u32> = replies.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=player.asked).collect::<Vec<_>>());
        for (id, echo) in &replies[earlier..] {
            assert_eq!(*echo, payload(*id));
        }
    }
}

/// A cluster whose rates let a replay through at once.
fn cluster() -> Cluster {
    let gateway = &["limits.frames_per_second=0", "limits.bytes_per_second=0"];
    Cluster::start(gateway, &[], &[])
}

#[test]
fn a_killed_game_leaves_the_sessions_and_answers_what_is_outstanding() {
    let mut cluster = cluster();
    let mut players = players(&cluster);
    let earlier = players[0].seen.replies.len();
    let before = cluster.metrics("gateway");
    let held = [cluster.gateway.holdings(), cluster.center.holdings()];
    // Some are on their way when it happens …
    ask(&mut players, 10);
    cluster.game.kill();
    // … some follow before anybody has noticed …
    ask(&mut players, 50);
    cluster.wait_metric("gateway", "sallyport_gateway_uplinks_up", |up| up == 1);
    assert_eq!(
        cluster.metrics("gateway").value(GATEWAY_SESSIONS),
        PLAYERS as u64
    );
    // … and some while everybody knows.
    ask(&mut players, 40);
    for player in &mut players {
        player.wait("GROUP_DOWN", |seen| seen.downs == 1);
        assert!(player.outbox_messages() >= 90, "they wait in its outbox");
    }
    ask(&mut players, 40);

    cluster.game.start();
    all_answered(&mut players, earlier);
    for player in &mut players {
        assert_eq!((player.seen.ups, player.seen.downs), (2, 1));
        player.round_trip(b"as before");
    }
    let after = cluster.metrics("gateway");
    let down = DropReason::GroupDown;
    let dropped = after.drops(down) - before.drops(down);
    let most = PLAYERS as u64 * 80;
    assert!((PLAYERS as u64..=most).contains(&dropped), "{dropped}");
    for &reason in DropReason::ALL {
        if reason != down {
            assert_eq!(after.drops(reason), before.drops(reason), "{reason:?}");
        }
    }
    let game = cluster.metrics("game");
    assert_eq!(game.value(GAME_SESSIONS), PLAYERS as u64);
    assert_eq!(game.value("sallyport_game_connected_total"), PLAYERS as u64);
    cluster.gateway.wait_back(held[0]);
    cluster.center.wait_back(held[1]);
    players.into_iter().for_each(Player::logout);
}

#[test]
fn a_game_that_is_back_at_once_has_lost_nothing() {
    let mut cluster = cluster();
    let mut players = players(&cluster);
    let earlier = players[0].seen.replies.len();
    for _ in 0..3 {
        ask(&mut players, 20);
        cluster.game.kill();
        cluster.game.start();
        ask(&mut players, 20);
        all_answered(&mut players, earlier);
    }
    // What was answered is acknowledged, and kept no longer.
    wait_until("empty outboxes", PATIENCE, || {
        players.iter_mut().all(|player| {
            player.pump();
            player.outbox_messages() == 0
        })
    });
    let gateway = cluster.metrics("gateway");
    assert_eq!(gateway.value(GATEWAY_SESSIONS), PLAYERS as u64);
    assert_eq!(gateway.value(&drops(DropReason::WrongGroup)), 0);
    players.into_iter().for_each(Player::logout);
}
