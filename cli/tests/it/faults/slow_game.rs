//! A game that runs a tenth of the time: those who send to it are slowed, and nobody else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::reason::{CloseReason, DropReason};

use super::load::Load;
use crate::cluster::metrics::Calm;
use crate::cluster::player::Player;
use crate::cluster::{Cluster, PATIENCE};

const PLAYERS: usize = 120;

/// Bytes of a request: LZ4 can't shrink them.
const PAYLOAD_BYTES: usize = 8_192;

/// Requests that a player has out at a time. Together they are 7 MiB, more than the windows of QUIC
/// and the queue below can hold.
const OUT_MAX: usize = 7;

/// How long the game stands still, and then runs.
const FROZEN: Duration = Duration::from_millis(450);
const RUNNING: Duration = Duration::from_millis(50);

/// Threads that play them.
const THREADS: usize = 8;

/// What a player out of credit may have had on its way, twice (buffers grow by doubling),
/// and what turns and QUIC's windows take in both directions.
const MEMORY_BYTES: u64 = PLAYERS as u64 * 2 * 65_536 + (64 << 20);

#[test]
fn a_game_at_a_tenth_of_its_speed_slows_only_those_who_talk_to_it() {
    let (cluster, _map) = Cluster::start_with_map(
        &[
            "limits.frames_per_second=0",
            "limits.bytes_per_second=0",
            "limits.uplink_queue_bytes=65536",
            "heartbeat.interval_ms=500",
            "heartbeat.idle_timeout_ms=10000",
        ],
        &[],
    );
    let mut calm = Calm::before(&cluster);
    let numbers: Vec<_> = (0..PLAYERS).collect();
    let mut players: Vec<_> = std::thread::scope(|scope| {
        let some = numbers.chunks(PLAYERS / THREADS);
        let threads: Vec<_> = some
            .map(|some| scope.spawn(|| enter(&cluster, some)))
            .collect();
        let entered = threads.into_iter().map(|it| it.join().expect("players"));
        entered.flatten().collect()
    });
    let before_bytes = cluster.gateway.rss_bytes();
    cluster.gateway.forget_peak();
    let how = [
        "--scenario",
        "walk",
        "--group",
        "2",
        "--clients",
        "30",
        "--duration",
        "2",
    ];
    let walkers = Load::start(&cluster, &how);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                cluster.game.freeze();
                std::thread::sleep(FROZEN);
                cluster.game.thaw();
                std::thread::sleep(RUNNING);
            }
        });
        for some in players.chunks_mut(PLAYERS / THREADS) {
            scope.spawn(|| play(some, &done));
        }
        // The others walk as ever, and see what they have to.
        walkers.finish();
        done.store(true, Ordering::Relaxed);
    });
    let rss_bytes = cluster.gateway.rss_bytes_peak();
    let metrics = cluster.metrics("gateway");
    let withheld = metrics.value("sallyport_gateway_credits_withheld_total");
    let pauses = metrics.value("sallyport_gateway_uplink_pauses_total");
    println!(
        "credit withheld {withheld} times, {pauses} pauses, {before_bytes} bytes before, {rss_bytes} at most"
    );
    assert!(withheld > 0, "nobody was slowed");
    assert_eq!(pauses, 0, "who heeds its credit is read");
    assert!(rss_bytes < before_bytes + MEMORY_BYTES, "{rss_bytes} bytes");
    for (player, sent) in &players {
        assert_eq!(player.seen.replies.len(), *sent, "an answer came twice");
        let round_trip_us = player.quality().ours.round_trip_us;
        assert!(
            (1..3_000_000).contains(&round_trip_us),
            "{round_trip_us} µs for a PING"
        );
    }
    std::thread::scope(|scope| {
        while !players.is_empty() {
            let some = players.split_off(players.len() - PLAYERS / THREADS);
            scope.spawn(|| some.into_iter().for_each(|(player, _)| player.logout()));
        }
    });
    // Acknowledgements that crossed CLOSE.
    calm.tolerate(DropReason::AfterClose);
    calm.closed(CloseReason::LoggedOut, PLAYERS as u64 + 30);
    calm.check();
}

/// Some of the players log in, and have said one thing.
fn enter(cluster: &Cluster, numbers: &[usize]) -> Vec<(Player, usize)> {
    let enter = |number: &usize| {
        let mut player = Player::login(cluster, &format!("slowed-{number}"));
        player.round_trip(b"up");
        (player, 1)
    };
    numbers.iter().map(enter).collect()
}

/// Some of the players send as much as they may until `done`, and wait until all is answered.
fn play(players: &mut [(Player, usize)], done: &AtomicBool) {
    let noise: Vec<u8> = (0..PAYLOAD_BYTES as u64)
        .map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u8)
        .collect();
    while !done.load(Ordering::Relaxed) {
        for (player, sent) in &mut *players {
            while player.outbox_messages() < OUT_MAX {
                player.request(&noise);
                *sent += 1;
            }
            player.pump();
        }
    }
    let end = Instant::now() + PATIENCE;
    while players
        .iter()
        .any(|(player, sent)| player.seen.replies.len() < *sent)
    {
        assert!(Instant::now() < end, "some answers never came");
        for (player, _) in &mut *players {
            player.pump();
        }
    }
}
