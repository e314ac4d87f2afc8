//! The result: the object that `--json` writes, the summary for people, and
//! the verdict.
//!
//! Invariant: the fields of [`Report`] are those of the command-line contract,
//! which people script against; the verdict depends on nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::fail_if::{Condition, Judged};
use crate::latency::{Latencies, Percentiles};
use crate::messages::{Mixed, Outcome, Queued};
use crate::progress::grouped;

/// What `--json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the clients did.
    pub scenario: &'static str,
    /// How they connected.
    pub transport: &'static str,
    /// Over which lane.
    pub lane: &'static str,
    /// Seed of order and content.
    pub seed: u64,
    /// The command line, secrets redacted.
    pub command: String,
    /// Commit that this binary was built from.
    pub git_commit: &'static str,
    /// Engine of the gateway, as its admin port says.
    pub engine: String,
    /// Processor and cores.
    pub machine: String,
    /// Kernel release.
    pub kernel: String,
    /// Asked for.
    pub clients_wanted: u32,
    /// Most that were logged in at the same time.
    pub clients_connected: u32,
    /// Clients that never got in, or never came back, after retries.
    pub connect_failures: u32,
    /// First attempt to last login.
    pub connect_seconds: f64,
    /// The measured window.
    pub duration_seconds: f64,
    /// Sends a second asked for.
    pub rate_wanted: f64,
    /// Sends a second in the window.
    pub rate_reached: f64,
    /// Application messages sent, in the window and its drain.
    pub frames_sent: u64,
    /// Received, likewise.
    pub frames_received: u64,
    /// Sent and never answered.
    pub frames_lost: u64,
    /// Answered again.
    pub frames_duplicated: u64,
    /// Answered after a later one.
    pub frames_out_of_order: u64,
    /// Reason → count.
    pub errors: BTreeMap<String, u64>,
    /// Only in `walk`.
    pub visible_mean: Option<f64>,
    /// Only with `--side-path`: of `frames_sent`, those that left as datagrams beside the stream.
    pub frames_sent_beside: Option<u64>,
    /// Only in `mixed`: what the clients did.
    pub mixed: Option<Mixed>,
    /// Only in `login-storm`: what the clients saw of the queue.
    pub queue: Option<QueueFigures>,
    /// Only in `reconnect-storm` and `mixed`: returns to a session.
    pub resumes: Option<u64>,
    /// Returns that had to log in anew, likewise.
    pub relogins: Option<u64>,
    /// Half of all returns took no longer than this, from the first connect until the session is
    /// there, likewise.
    pub back_p50_us: Option<u64>,
    /// 99 of 100 did not.
    pub back_p99_us: Option<u64>,
    /// From the intended moment of a send to its reply.
    pub latency_us: Percentiles,
    /// By role.
    pub server: BTreeMap<String, ServerFigures>,
}

/// What the clients of `login-storm` saw of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct QueueFigures {
    /// How many waited, and how far behind.
    #[serde(flatten)]
    pub seen: Queued,
    /// Half of those who waited did so no longer than this.
    pub wait_p50_us: u64,
    /// 99 of 100 did not.
    pub wait_p99_us: u64,
    /// Nobody waited longer.
    pub wait_max_us: u64,
}

/// Figures of one role of the server; `None` where its admin port does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ServerFigures {
    /// CPU in the window and its drain.
    pub cpu_seconds: Option<f64>,
    /// The same, for each message that the clients received.
    pub cpu_us_per_frame: Option<f64>,
    /// The same, for each return to a session: with a low rate, what a resume costs. Only where
    /// clients are cut.
    pub cpu_us_per_resume: Option<f64>,
    /// Resident memory before the first client.
    pub rss_bytes_before: Option<u64>,
    /// When all were in and nothing happened.
    pub rss_bytes_idle: Option<u64>,
    /// Highest seen.
    pub rss_bytes_peak: Option<u64>,
    /// What a client that is in costs.
    pub rss_bytes_per_client: Option<f64>,
    /// CPU from the first attempt until all are in, for each client: what a login costs.
    pub connect_cpu_us_per_client: Option<f64>,
}

impl ServerFigures {
    /// Fills in what follows from the other figures.
    pub fn derive(&mut self, clients: u32, frames_received: u64, resumes: u64) {
        let each = |total: f64, count: f64| (count > 0.0).then(|| total / count);
        self.cpu_us_per_frame = self
            .cpu_seconds
            .and_then(|seconds| each(seconds * 1e6, frames_received as f64));
        self.cpu_us_per_resume = self
            .cpu_seconds
            .and_then(|seconds| each(seconds * 1e6, resumes as f64));
        self.rss_bytes_per_client = self
            .rss_bytes_idle
            .zip(self.rss_bytes_before)
            .and_then(|(idle, before)| each(idle as f64 - before as f64, f64::from(clients)));
    }
}

/// What all workers found, together.
#[derive(Debug, Default)]
pub struct Totals {
    /// Sums; the moments are the first and the last of all.
    pub sum: Outcome,
    /// All latencies.
    pub latencies: Latencies,
    /// All times of coming back.
    pub back: Latencies,
    /// How long clients waited in the queue.
    pub waits: Latencies,
}

impl Totals {
    /// Adds the result of one worker.
    pub fn add(&mut self, outcome: &Outcome) {
        let sum = &mut self.sum;
        self.latencies.add_counts(&outcome.latency);
        self.back.add_counts(&outcome.back);
        self.waits.add_counts(&outcome.waits);
        if let Some(one) = &outcome.queued {
            let sum = sum.queued.get_or_insert_default();
            sum.waited += one.waited;
            sum.position_max = sum.position_max.max(one.position_max);
            sum.cut += one.cut;
        }
        sum.resumes += outcome.resumes;
        sum.relogins += outcome.relogins;
        if sum.unable.is_none() {
            sum.unable.clone_from(&outcome.unable);
        }
        sum.logged_in_most += outcome.logged_in_most;
        sum.connect_failures += outcome.connect_failures;
        let both = |one: Option<u64>, other: Option<u64>, pick: fn(u64, u64) -> u64| {
            one.zip(other).map(|(a, b)| pick(a, b)).or(one).or(other)
        };
        sum.first_attempt_us = both(sum.first_attempt_us, outcome.first_attempt_us, u64::min);
        sum.last_login_us = both(sum.last_login_us, outcome.last_login_us, u64::max);
        sum.window_end_us = both(sum.window_end_us, outcome.window_end_us, u64::max);
        sum.sent_in_window += outcome.sent_in_window;
        sum.sent += outcome.sent;
        sum.received += outcome.received;
        sum.lost += outcome.lost;
        sum.duplicated += outcome.duplicated;
        sum.out_of_order += outcome.out_of_order;
        if let Some(one) = outcome.sent_beside {
            *sum.sent_beside.get_or_insert_default() += one;
        }
        if let Some(one) = &outcome.mixed {
            let sum = sum.mixed.get_or_insert_default();
            sum.requests_sent += one.requests_sent;
            sum.sequenced_sent += one.sequenced_sent;
            sum.unreliable_sent += one.unreliable_sent;
            sum.payload_bytes_sent += one.payload_bytes_sent;
            sum.cuts += one.cuts;
            sum.logouts += one.logouts;
            sum.frames_lost_allowed += one.frames_lost_allowed;
        }
        if let Some((seen, clients)) = outcome.visible {
            let sum = sum.visible.get_or_insert_default();
            *sum = (sum.0 + seen, sum.1 + clients);
        }
        for (reason, count) in &outcome.errors {
            *sum.errors.entry(reason.clone()).or_default() += count;
        }
    }
}

impl Totals {
    /// What the clients saw of the queue.
    pub fn queue(&self) -> Option<QueueFigures> {
        let waits = self.waits.percentiles();
        self.sum.queued.map(|seen| QueueFigures {
            seen,
            wait_p50_us: waits.p50,
            wait_p99_us: waits.p99,
            wait_max_us: waits.max,
        })
    }
}

impl Report {
    /// Everything that is wrong, one line each; empty means exit code 0.
    pub fn wrong(&self, fail_if: &[Condition]) -> Vec<String> {
        let mut wrong = Vec::new();
        // In a storm of logins clients leave while others come.
        if self.queue.is_none() && self.clients_connected < self.clients_wanted {
            wrong.push(format!(
                "{} of {} clients were not in",
                grouped(u64::from(self.clients_wanted - self.clients_connected)),
                grouped(u64::from(self.clients_wanted))
            ));
        }
        for (count, what) in [
            (
                u64::from(self.connect_failures),
                "clients never got in, or never came back",
            ),
            (self.frames_lost, "messages were lost"),
            (self.frames_duplicated, "messages were doubled"),
            (self.frames_out_of_order, "messages were out of order"),
        ] {
            if count > 0 {
                wrong.push(format!("{} {what}", grouped(count)));
            }
        }
        for (reason, count) in &self.errors {
            wrong.push(format!("{} × {reason}", grouped(*count)));
        }
        if !fail_if.is_empty() {
            let value = serde_json::to_value(self).unwrap_or_default();
            for condition in fail_if {
                match condition.judge(&value) {
                    Judged::False => {}
                    Judged::True(number) => {
                        wrong.push(format!("--fail-if '{}': it is {number}", condition.text()));
                    }
                    Judged::Missing => wrong.push(format!(
                        "--fail-if '{}': the server did not tell this figure",
                        condition.text()
                    )),
                }
            }
        }
        wrong
    }

    /// What can be said of a run in which nothing is wrong.
    pub fn praise(&self) -> &'static str {
        if self.visible_mean.is_some() {
            "each client saw exactly who was near, and where"
        } else if self.mixed.is_some() {
            "every request was answered, once and in order; no message came twice, late or harmed"
        } else if self.queue.is_some() {
            "all got in, nobody was overtaken in the queue, and each was answered"
        } else {
            "everything came back, once, in order and unharmed"
        }
    }

    /// The summary for people.
    pub fn summary(&self, wrong: &[String]) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{} over {}, {}, seed {}\n\
             clients    {} of {} in {:.2} s\n\
             sent       {} in {:.1} s: {:.0}/s of {:.0}/s wanted\n\
             received   {}, lost {}, doubled {}, out of order {}\n\
             latency    p50 {} µs, p90 {}, p99 {}, p99.9 {}, max {}",
            self.scenario,
            self.transport,
            if self.mixed.is_some() {
                String::from("every lane")
            } else {
                format!("{} lane", self.lane)
            },
            self.seed,
            grouped(u64::from(self.clients_connected)),
            grouped(u64::from(self.clients_wanted)),
            self.connect_seconds,
            grouped(self.frames_sent),
            self.duration_seconds,
            self.rate_reached,
            self.rate_wanted,
            grouped(self.frames_received),
            grouped(self.frames_lost),
            grouped(self.frames_duplicated),
            grouped(self.frames_out_of_order),
            grouped(self.latency_us.p50),
            grouped(self.latency_us.p90),
            grouped(self.latency_us.p99),
            grouped(self.latency_us.p999),
            grouped(self.latency_us.max),
        );
        if let Some(visible) = self.visible_mean {
            let _ = writeln!(out, "views      {visible:.2} others in view on average");
        }
        if let Some(beside) = self.frames_sent_beside {
            let _ = writeln!(
                out,
                "side path  {} of them by datagrams beside the connection",
                grouped(beside)
            );
        }
        if let Some(mixed) = &self.mixed {
            let _ = writeln!(
                out,
                "mixed      {} requests, {} sequenced, {} unreliable; {:.1} MB of payloads; {} cuts; \
                 {} logouts and new logins; {} lost where none is promised",
                grouped(mixed.requests_sent),
                grouped(mixed.sequenced_sent),
                grouped(mixed.unreliable_sent),
                mixed.payload_bytes_sent as f64 / 1e6,
                grouped(mixed.cuts),
                grouped(mixed.logouts),
                grouped(mixed.frames_lost_allowed),
            );
        }
        if let Some(queue) = &self.queue {
            let _ = writeln!(
                out,
                "queue      {} waited, position {} at most, {} of them cut meanwhile; wait p50 {:.2} s, \
                 p99 {:.2} s, max {:.2} s",
                grouped(queue.seen.waited),
                grouped(u64::from(queue.seen.position_max)),
                grouped(queue.seen.cut),
                queue.wait_p50_us as f64 / 1e6,
                queue.wait_p99_us as f64 / 1e6,
                queue.wait_max_us as f64 / 1e6,
            );
        }
        if let (Some(resumes), Some(relogins)) = (self.resumes, self.relogins) {
            let _ = writeln!(
                out,
                "returns    {} to their sessions, {} by a new login; back in p50 {} µs, p99 {}",
                grouped(resumes),
                grouped(relogins),
                grouped(self.back_p50_us.unwrap_or_default()),
                grouped(self.back_p99_us.unwrap_or_default()),
            );
        }
        for (role, figures) in &self.server {
            let shown = |value: Option<f64>, scale: f64, digits: usize| {
                value.map_or(String::from("?"), |value| {
                    format!("{:.digits$}", value / scale)
                })
            };
            let mib = f64::from(1 << 20);
            let a_resume = figures.cpu_us_per_resume.map_or(String::new(), |us| {
                format!(", {us:.0} µs a resume with all else")
            });
            let _ = writeln!(
                out,
                "{role:<10} CPU {} s, {} µs a message, {} µs a login{a_resume}; memory {} MiB before, {} idle, \
                 {} at most; {} KiB a client",
                shown(figures.cpu_seconds, 1.0, 2),
                shown(figures.cpu_us_per_frame, 1.0, 2),
                shown(figures.connect_cpu_us_per_client, 1.0, 0),
                shown(figures.rss_bytes_before.map(|bytes| bytes as f64), mib, 1),
                shown(figures.rss_bytes_idle.map(|bytes| bytes as f64), mib, 1),
                shown(figures.rss_bytes_peak.map(|bytes| bytes as f64), mib, 1),
                shown(figures.rss_bytes_per_client, 1_024.0, 2),
            );
        }
        if wrong.is_empty() {
            let _ = writeln!(out, "good: {}", self.praise());
        } else {
            for line in wrong {
                let _ = writeln!(out, "wrong      {line}");
            }
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests;
