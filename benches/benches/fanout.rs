//! One message of 64 bytes sealed for each of 9,900 members; an element is one
//! recipient.

use benches::fanout::{Members, digest};
use benches::tiny::size;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MEMBERS: usize = 9_900;

fn fanout(c: &mut Criterion) {
    let members = size(MEMBERS, 16);
    println!("fanout/{members} digest={}", digest(members, 2));
    let mut all = Members::new(members);
    let mut group = c.benchmark_group("fanout");
    group.throughput(Throughput::Elements(members as u64));
    group.bench_function(format!("seal_each/{members}"), |b| {
        b.iter(|| all.seal_each());
    });
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
