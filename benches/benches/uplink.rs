//! Records of 100 bytes on an uplink's stream: appended and encoded; decoded.

use benches::tiny::size;
use benches::uplink::{Batch, digest};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// About what a shard hands over in one turn under load.
const RECORDS: usize = 512;

fn uplink(c: &mut Criterion) {
    let records = size(RECORDS, 8);
    println!("uplink/{records} digest={}", digest(records));
    let mut group = c.benchmark_group("uplink");
    group.throughput(Throughput::Elements(records as u64));
    let mut batch = Batch::default();
    group.bench_function("encode/100", |b| b.iter(|| batch.encode(records)));
    batch.encode(records);
    group.bench_function("decode/100", |b| {
        b.iter(|| {
            let mut bytes = 0;
            let decoded = batch.decode(|_, _, payload| bytes += payload.len());
            (decoded, bytes)
        });
    });
    group.finish();
}

criterion_group!(benches, uplink);
criterion_main!(benches);
