//! Counters as Prometheus text (exposition format 0.0.4).
//!
//! Owns the text; what is counted belongs to the roles. Invariant: every
//! reason has its series from the start, with 0, so that a rate can be taken
//! of the first event; label values come from closed enums only.

use std::fmt::Write as _;
use std::sync::Arc;

use backend::counters::Metric;
use gateway::counters::{Counters, METRICS, ROUND_TRIP_BOUNDS_US};
use gateway::limits::Limited;
use protocol::reason::{CloseReason, DropReason};

/// Appends the help and kind of a metric.
pub fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(out, "# HELP {name} {}\n# TYPE {name} {kind}\n", help.trim());
}

/// Appends what a gateway's shards counted, summed over them.
pub fn gateway(out: &mut String, shards: &[Arc<Counters>]) {
    let mut sums = vec![0_u64; METRICS.len()];
    for shard in shards {
        for (sum, value) in sums.iter_mut().zip(shard.values()) {
            *sum += value;
        }
    }
    for ((name, kind, help), sum) in METRICS.iter().zip(sums) {
        describe(out, name, kind, help);
        let _ = writeln!(out, "{name} {sum}");
    }
    round_trips(out, shards);
    let name = "sallyport_gateway_limited_total";
    let help = "Times that a network or an account was above a limit, by limit.";
    describe(out, name, "counter", help);
    for limit in Limited::ALL {
        let sum: u64 = shards.iter().map(|shard| shard.times_limited(limit)).sum();
        let _ = writeln!(out, "{name}{{limit=\"{}\"}} {sum}", limit.label());
    }
    let name = "sallyport_gateway_drops_total";
    describe(out, name, "counter", "Frames and records lost, by reason.");
    for &reason in DropReason::ALL {
        let sum: u64 = shards.iter().map(|shard| shard.drops(reason)).sum();
        let _ = writeln!(out, "{name}{{reason=\"{}\"}} {sum}", reason.label());
    }
    let name = "sallyport_gateway_closes_total";
    describe(out, name, "counter", "Connections closed, by reason.");
    for &reason in CloseReason::ALL {
        let sum: u64 = shards.iter().map(|shard| shard.closes(reason)).sum();
        let _ = writeln!(out, "{name}{{reason=\"{}\"}} {sum}", reason.label());
    }
}

fn round_trips(out: &mut String, shards: &[Arc<Counters>]) {
    let name = "sallyport_gateway_round_trip_seconds";
    let help = "Round trips to clients, one of each client a heartbeat.";
    describe(out, name, "histogram", help);
    let mut sums = ([0; ROUND_TRIP_BOUNDS_US.len()], 0, 0);
    for shard in shards {
        let (buckets, count, sum_us) = shard.round_trips.values();
        for (sum, bucket) in sums.0.iter_mut().zip(buckets) {
            *sum += bucket;
        }
        sums.1 += count;
        sums.2 += sum_us;
    }
    let (buckets, count, sum_us) = sums;
    let seconds = |us: u64| us as f64 / 1e6;
    for (bound, bucket) in ROUND_TRIP_BOUNDS_US.iter().zip(buckets) {
        let bound = seconds(u64::from(*bound));
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {bucket}");
    }
    let sum = seconds(sum_us);
    let _ = write!(
        out,
        "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}\n"
    );
}

/// Appends what a backend counted; series of one family follow each other.
pub fn samples(out: &mut String, samples: impl Iterator<Item = (Metric, u64)>) {
    let mut family = "";
    for (metric, value) in samples {
        if metric.name != family {
            family = metric.name;
            describe(out, family, metric.kind.label(), metric.help);
        }
        let _ = match metric.label {
            Some((name, label)) => writeln!(out, "{family}{{{name}=\"{label}\"}} {value}"),
            None => writeln!(out, "{family} {value}"),
        };
    }
}

/// The value of the metric with this name and no label, if there is one.
pub fn value(name: &str, mut samples: impl Iterator<Item = (Metric, u64)>) -> Option<u64> {
    samples
        .find(|(metric, _)| metric.name == name)
        .map(|(_, value)| value)
}
