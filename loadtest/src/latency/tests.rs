//! Counts survive the way from a worker to the parent.

use super::{LATENCY_US_MAX, Latencies, Percentiles};

#[test]
fn counts_move_without_loss() {
    let (mut one, mut other) = (Latencies::default(), Latencies::default());
    for us in 0..10_000_u64 {
        one.record(us * 37);
    }
    let before = one.percentiles();
    other.add_counts(&one.take_counts());
    assert_eq!(one.count(), 0);
    assert_eq!(one.percentiles(), Percentiles::default());
    assert_eq!(other.count(), 10_000);
    assert_eq!(other.percentiles(), before);
}

#[test]
fn nothing_is_dropped_at_the_bound() {
    let mut latencies = Latencies::default();
    latencies.record(u64::MAX);
    latencies.record(0);
    assert_eq!(latencies.count(), 2);
    assert!(latencies.percentiles().max >= LATENCY_US_MAX);
}

#[test]
fn percentiles_are_exact_to_three_digits() {
    let mut latencies = Latencies::default();
    for us in 1..=100_000 {
        latencies.record(us);
    }
    let percentiles = latencies.percentiles();
    for (value, expected) in [
        (percentiles.p50, 50_000),
        (percentiles.p90, 90_000),
        (percentiles.p99, 99_000),
        (percentiles.p999, 99_900),
        (percentiles.max, 100_000),
    ] {
        assert!(
            value.abs_diff(expected) * 1_000 <= expected,
            "{value} {expected}"
        );
    }
}
