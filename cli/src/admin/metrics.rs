//! Counters as Prometheus text (exposition format 0.0.4).
//!
//! Owns the text; what is counted belongs to the roles. Invariant: every
//! reason has its series from the start, with 0, so that a rate can be taken
//! of the first event; label values come from closed enums, or are names of which only so
//! many are told apart (`online`).

use std::fmt::Write as _;
use std::sync::Arc;

use backend::center::Online;
use backend::counters::Metric;
use gateway::counters::{Counters, METRICS, ROUND_TRIP_BOUNDS_US, SEND_QUEUE_BOUNDS_BYTES};
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
    let name = "sallyport_gateway_round_trip_seconds";
    let help = "Round trips to clients, one of each client a heartbeat.";
    let values = shards.iter().map(|shard| shard.round_trips.values());
    histogram(out, (name, help), &ROUND_TRIP_BOUNDS_US, 1e6, values);
    let name = "sallyport_gateway_send_queue_bytes";
    let help = "Bytes that wait for a client, looked at with each of its heartbeats.";
    let values = shards.iter().map(|shard| shard.send_queues.values());
    histogram(out, (name, help), &SEND_QUEUE_BOUNDS_BYTES, 1.0, values);
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

/// Appends a histogram of all shards, whose values are so many of `unit` each.
fn histogram<const N: usize>(
    out: &mut String,
    (name, help): (&str, &str),
    bounds: &[u32; N],
    unit: f64,
    shards: impl Iterator<Item = ([u64; N], u64, u64)>,
) {
    describe(out, name, "histogram", help);
    let (mut buckets, mut count, mut sum) = ([0; N], 0, 0);
    for shard in shards {
        for (all, bucket) in buckets.iter_mut().zip(shard.0) {
            *all += bucket;
        }
        count += shard.1;
        sum += shard.2;
    }
    for (bound, bucket) in bounds.iter().zip(buckets) {
        let bound = f64::from(*bound) / unit;
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {bucket}");
    }
    let sum = sum as f64 / unit;
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

/// How the sessions that are counted under no name are labelled.
const OTHERS: &str = "(others)";

/// Appends who is online at center.
pub fn online(out: &mut String, online: &Online) {
    family(
        out,
        ("sallyport_center_online_by_version", "version"),
        "Sessions by the version of their client.",
        &online.versions,
    );
    family(
        out,
        ("sallyport_center_online_by_channel", "channel"),
        "Sessions by the distribution channel of their client.",
        &online.channels,
    );
    family(
        out,
        ("sallyport_center_online_by_gateway", "gateway"),
        "Sessions by the gateway that holds them.",
        &online.gateways,
    );
}

fn family<K: ToString>(
    out: &mut String,
    (name, label): (&str, &str),
    help: &str,
    counts: &[(Option<K>, u64)],
) {
    describe(out, name, "gauge", help);
    for (value, count) in counts {
        let value = value
            .as_ref()
            .map_or(OTHERS.to_owned(), ToString::to_string);
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} {count}");
    }
}

/// The value of the metric with this name and no label, if there is one.
pub fn value(name: &str, mut samples: impl Iterator<Item = (Metric, u64)>) -> Option<u64> {
    samples
        .find(|(metric, _)| metric.name == name)
        .map(|(_, value)| value)
}
