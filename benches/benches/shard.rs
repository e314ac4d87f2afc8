//! A shard's turn without I/O: the requests of all clients in, records out,
//! replies in, frames out. What is measured is the time in the shard alone; an
//! element is one round trip.

use benches::shard::digest;
use benches::tiny::{is_tiny, noise};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway::testing::Crowd;

const PAYLOAD_BYTES: usize = 64;

fn shard(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard");
    let sizes: &[usize] = if is_tiny() { &[8] } else { &[64, 1_000] };
    for &clients in sizes {
        println!(
            "shard/{clients} digest={}",
            digest(clients, PAYLOAD_BYTES, 2)
        );
        let mut crowd = Crowd::new(clients);
        let payload = noise(PAYLOAD_BYTES);
        group.throughput(Throughput::Elements(clients as u64));
        group.bench_function(format!("turn/{clients}"), |b| {
            b.iter_custom(|rounds| {
                let round = |_| crowd.round(&payload, |_, _| {});
                (0..rounds).map(round).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);
