//! A workload's digest is the same each time and depends on its size.

use benches::{Digest, aoi, fanout, frame, shard, uplink};

fn check(digest: impl Fn(usize) -> Digest) {
    assert_eq!(digest(3), digest(3), "the same each time");
    assert_ne!(digest(3), digest(4), "more work has another result");
    assert_ne!(digest(3), Digest::default(), "some work has a result");
}

#[test]
fn frames() {
    check(|frames| frame::digest(64, frames));
}

#[test]
fn a_shards_turns() {
    check(|rounds| shard::digest(4, 64, rounds));
}

#[test]
fn records() {
    check(uplink::digest);
}

#[test]
fn copies_for_members() {
    check(|members| fanout::digest(members, 2));
}

#[test]
fn ticks_of_a_map() {
    check(|ticks| aoi::digest(50, 1, ticks));
    assert_ne!(aoi::digest(50, 1, 3), aoi::digest(50, 10, 3));
}
