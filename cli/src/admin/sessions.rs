//! A session as `/sessions` shows it.
//!
//! Owns the names of the fields, which scripts read. Invariant: what is not known is null,
//! never 0.

use gateway::shard::look::{ConnectionView, SessionView, Transport};
use protocol::quality::Report;
use serde_json::{Value, json};

/// See the module.
pub fn json(view: &SessionView) -> Value {
    let groups: Vec<Value> = view
        .bindings
        .iter()
        .map(|binding| {
            json!({
                "group": binding.group.0,
                "instance": binding.instance,
                "open": binding.is_open,
            })
        })
        .collect();
    json!({
        "session": view.session.0,
        "fence": view.fence.0,
        "shard": view.shard.0,
        "channel": view.channel,
        "client_version": view.client_version,
        "login_unix_ms": view.login_unix_ms,
        "connection": view.connection.as_ref().map(connection),
        "groups": groups,
    })
}

fn connection(view: &ConnectionView) -> Value {
    json!({
        "transport": match view.transport {
            Transport::Tcp => "tcp",
            Transport::WebSocket => "ws",
            Transport::Udp => "udp",
        },
        "address": view.address.map(|address| address.to_string()),
        "queued_bytes": view.queued_bytes,
        "measured": report(&view.quality.ours),
        "told_by_client": report(&view.quality.theirs),
    })
}

fn report(report: &Report) -> Value {
    let round_trip_us = (report.round_trip_us > 0).then_some(report.round_trip_us);
    json!({
        "round_trip_us": round_trip_us,
        "jitter_us": report.jitter_us,
        "loss": f64::from(report.loss) / 256.0,
    })
}
