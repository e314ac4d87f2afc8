//! The tick of a map's areas of interest: 50,000 players, 20 visible on average,
//! all of them walking, or one in ten. An element is a player-tick: at 10
//! ticks/s half a core may spend 1 µs on it.

use std::time::Duration;

use benches::aoi::{Crowd, digest};
use benches::tiny::size;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const PLAYERS: usize = 50_000;
/// Ticks after which views have filled and buffers have grown.
const WARM_TICKS: usize = 50;

fn aoi(c: &mut Criterion) {
    let players = size(PLAYERS, 300);
    let mut group = c.benchmark_group("aoi");
    group.throughput(Throughput::Elements(players as u64));
    // A tick takes tens of milliseconds.
    group.sample_size(10);
    for (name, every) in [("all_walk", 1), ("tenth_walks", 10)] {
        let mut crowd = Crowd::new(players, every);
        for _ in 0..size(WARM_TICKS, 2) {
            crowd.counted_tick();
        }
        let (mut spent, mut ticks, mut bytes) = (Duration::ZERO, 0, 0);
        group.bench_function(format!("{name}/{players}"), |b| {
            b.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let (time, told) = crowd.counted_tick();
                    sum += time;
                    bytes += told.bytes;
                }
                spent += sum;
                ticks += rounds;
                sum
            });
        });
        // Filtered out: nothing ran.
        let player_ticks = (ticks.max(1) * players as u64) as f64;
        println!(
            "aoi/{name}/{players} us_per_player_tick={:.3} bytes_per_player_tick={:.1} digest={}",
            spent.as_secs_f64() * 1e6 / player_ticks,
            bytes as f64 / player_ticks,
            digest(players, every, size(5, 2)),
        );
    }
    group.finish();
}

criterion_group!(benches, aoi);
criterion_main!(benches);
