//! A whole frame: sealed and encoded; checked, opened and decoded.

use benches::frame::{Ends, digest};
use benches::tiny::size;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Frames of one measured step, so that the clock's own cost does not count.
const BATCH: usize = 256;

fn frame(c: &mut Criterion) {
    let batch = size(BATCH, 4);
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(batch as u64));
    for payload_bytes in [64, 256, 1_024] {
        println!(
            "frame/{payload_bytes} digest={}",
            digest(payload_bytes, batch)
        );
        let mut ends = Ends::new(payload_bytes);
        group.bench_function(format!("seal/{payload_bytes}"), |b| {
            b.iter(|| {
                ends.forget();
                ends.fill(batch);
            });
        });
        // Opening has its own ends, since it misses no frame.
        let ends = std::cell::RefCell::new(Ends::new(payload_bytes));
        group.bench_function(format!("open/{payload_bytes}"), |b| {
            b.iter_batched(
                || ends.borrow_mut().fill(batch),
                |()| ends.borrow_mut().open(|_, _| ()),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
