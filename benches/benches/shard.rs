//! A shard without I/O; what is measured is the time in the shard alone. `turn`: the
//! requests of all clients in, records out, replies in, frames out; an element is one
//! round trip. `login` and `resume`: all clients come, or come back, until their group is
//! up; an element is one client.

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
        group.bench_function(format!("login/{clients}"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| Crowd::timed(clients).1).sum());
        });
        group.bench_function(format!("resume/{clients}"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| crowd.resume()).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);
