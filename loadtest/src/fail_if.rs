//! `--fail-if NAME OP NUMBER`: parsing before the run, judging its report after.
//!
//! Invariant: a name that no report can have is refused before anything runs.

use serde_json::Value;

use crate::tally::REASONS;

/// Numeric fields at the top of a report.
pub const FIELDS: &[&str] = &[
    "seed",
    "clients_wanted",
    "clients_connected",
    "connect_failures",
    "connect_seconds",
    "duration_seconds",
    "rate_wanted",
    "rate_reached",
    "frames_sent",
    "frames_received",
    "frames_lost",
    "frames_duplicated",
    "frames_out_of_order",
    "visible_mean",
    "frames_sent_beside",
    "resumes",
    "relogins",
    "back_p50_us",
    "back_p99_us",
];
/// Fields of `latency_us`.
pub const LATENCIES: &[&str] = &["p50", "p90", "p99", "p999", "max"];
/// Fields of `mixed`.
pub const MIXED_FIELDS: &[&str] = &[
    "requests_sent",
    "sequenced_sent",
    "unreliable_sent",
    "payload_bytes_sent",
    "cuts",
    "logouts",
    "frames_lost_allowed",
];
/// Fields of `queue`.
pub const QUEUE_FIELDS: &[&str] = &[
    "waited",
    "position_max",
    "cut",
    "wait_p50_us",
    "wait_p99_us",
    "wait_max_us",
];
/// Fields of each role in `server`.
pub const SERVER_FIELDS: &[&str] = &[
    "cpu_seconds",
    "cpu_us_per_frame",
    "cpu_us_per_resume",
    "rss_bytes_before",
    "rss_bytes_idle",
    "rss_bytes_peak",
    "rss_bytes_per_client",
    "connect_cpu_us_per_client",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

/// The longer ones first, so that `>=` is not read as `>`.
const COMPARISONS: &[(&str, Comparison)] = &[
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

/// One expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    path: Vec<String>,
    comparison: Comparison,
    number: f64,
}

/// What a condition says of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judged {
    /// It does not hold: good.
    False,
    /// It holds for this value.
    True(f64),
    /// The report has no such figure, so nothing is shown.
    Missing,
}

impl Condition {
    /// Parses an expression such as `p99_us > 50000`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape = || format!("`{text}`: must be NAME OP NUMBER, such as 'p99_us > 50000'");
        let at = text.find(['>', '<', '=', '!']).ok_or_else(shape)?;
        let (name, rest) = text.split_at(at);
        let (symbol, comparison) = COMPARISONS
            .iter()
            .find(|(symbol, _)| rest.starts_with(symbol))
            .ok_or_else(shape)?;
        let number: f64 = rest[symbol.len()..].trim().parse().map_err(|_| shape())?;
        if !number.is_finite() {
            return Err(shape());
        }
        let path = path(name.trim()).ok_or_else(|| {
            format!(
                "`{text}`: `{}` is not a numeric field of the result",
                name.trim()
            )
        })?;
        Ok(Self {
            text: text.to_owned(),
            path,
            comparison: *comparison,
            number,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is about a figure that comes from an admin port.
    pub fn needs_server(&self) -> bool {
        self.role().is_some()
    }

    /// The role that it is about, if it is about one.
    pub fn role(&self) -> Option<&str> {
        (self.path[0] == "server").then(|| self.path[1].as_str())
    }

    /// Judges a report.
    pub fn judge(&self, report: &Value) -> Judged {
        let value = self
            .path
            .iter()
            .try_fold(report, |value, key| value.get(key))
            .and_then(Value::as_f64);
        let value = match value {
            Some(value) => value,
            // An error that did not happen is not in the report.
            None if self.path[0] == "errors" => 0.0,
            None => return Judged::Missing,
        };
        let holds = match self.comparison {
            Comparison::Above => value > self.number,
            Comparison::AtLeast => value >= self.number,
            Comparison::Below => value < self.number,
            Comparison::AtMost => value <= self.number,
            Comparison::Equal => value == self.number,
            Comparison::Unequal => value != self.number,
        };
        if holds {
            Judged::True(value)
        } else {
            Judged::False
        }
    }
}

/// The path of a name in the report.
fn path(name: &str) -> Option<Vec<String>> {
    let latency = name
        .strip_suffix("_us")
        .filter(|short| LATENCIES.contains(short));
    let parts: Vec<&str> = match latency {
        Some(short) => vec!["latency_us", short],
        None => name.split('.').collect(),
    };
    let is_known = match parts[..] {
        [field] => FIELDS.contains(&field),
        ["latency_us", field] => LATENCIES.contains(&field),
        ["queue", field] => QUEUE_FIELDS.contains(&field),
        ["mixed", field] => MIXED_FIELDS.contains(&field),
        ["errors", reason] => {
            REASONS.contains(&reason)
                || protocol::reason::CloseReason::ALL
                    .iter()
                    .any(|known| known.label() == reason)
        }
        ["server", _, field] => SERVER_FIELDS.contains(&field),
        _ => false,
    };
    is_known.then(|| parts.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
