//! The status line of dev.
//!
//! Owns its numbers and its form, which scripts read. Invariant: it takes
//! nothing from a role but what the admin port shows.

use std::time::Instant;

use serde_json::{Map, Value};

use crate::admin::RoleView;

/// What the gateway had counted at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    at: Instant,
    /// `uring` or `epoll`.
    pub engine: String,
    sessions: u64,
    frames: u64,
    drops: u64,
}

/// Latency as the clients of `--clients` see it, microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// Median.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
}

impl Status {
    /// Reads the counters.
    pub fn of(gateway: &RoleView) -> Self {
        let mut own = Map::new();
        (gateway.stats)(&mut own);
        let number = |name: &str| own.get(name).and_then(Value::as_u64).unwrap_or(0);
        Self {
            at: Instant::now(),
            engine: own
                .get("engine")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            sessions: number("sessions"),
            frames: number("frames_received"),
            drops: number("drops"),
        }
    }

    /// The line for what happened since `before`.
    pub fn line(&self, before: &Self, latency: Latency) -> String {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let frames = self.frames.saturating_sub(before.frames) as f64 / seconds;
        format!(
            "status clients={} frames_per_second={frames:.0} p50_us={} p99_us={} drops={}",
            self.sessions, latency.p50_us, latency.p99_us, self.drops
        )
    }
}
