//! What people see while a test runs: one line a second on stderr, redrawn in
//! place on a terminal.

use std::io::{IsTerminal as _, Write as _};

/// Letters of the bar.
const BAR: usize = 24;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Clients are getting in.
    Connecting,
    /// All are in; the server is coming to rest.
    Settling,
    /// Sends are being made and measured.
    Running,
    /// The last replies and the logouts are waited for.
    Finishing,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// What it is doing.
    pub stage: Stage,
    /// Clients that are logged in.
    pub clients: u32,
    /// Clients there are to be.
    pub clients_wanted: u32,
    /// Clients that were given up.
    pub clients_failed: u32,
    /// Clients that got in in the last second.
    pub logins_per_second: f64,
    /// Sends in the last second.
    pub sent_per_second: f64,
    /// Messages received in the last second.
    pub received_per_second: f64,
    /// Median latency of the last second, microseconds; 0 if there was none.
    pub p50_us: u64,
    /// 99th percentile of the last second, microseconds.
    pub p99_us: u64,
    /// What went wrong so far: errors, losses, doubled and reordered messages.
    pub errors: u64,
    /// Seconds of the window that have passed.
    pub window_seconds: f64,
    /// Length of the window, seconds.
    pub duration_seconds: f64,
}

/// The line of a status.
pub fn line(status: &Status) -> String {
    let part = |done: f64, of: f64| {
        if of > 0.0 {
            (done / of).clamp(0.0, 1.0)
        } else {
            1.0
        }
    };
    let errors = match status.errors {
        0 => String::new(),
        count => format!("  wrong {}", grouped(count)),
    };
    match status.stage {
        Stage::Connecting => {
            let failed = match status.clients_failed {
                0 => String::new(),
                count => format!("  given up {}", grouped(u64::from(count))),
            };
            format!(
                "connecting {} {}/{} clients  {}/s{failed}",
                bar(part(
                    f64::from(status.clients),
                    f64::from(status.clients_wanted)
                )),
                grouped(u64::from(status.clients)),
                grouped(u64::from(status.clients_wanted)),
                grouped(status.logins_per_second as u64),
            )
        }
        Stage::Settling => format!(
            "settling   {} clients are in; waiting until the server is at rest{errors}",
            grouped(u64::from(status.clients))
        ),
        Stage::Running => format!(
            "running    {} {:.0}/{:.0} s  {} clients  sent {}/s  received {}/s  p50 {} µs  p99 {} µs{errors}",
            bar(part(status.window_seconds, status.duration_seconds)),
            status.window_seconds,
            status.duration_seconds,
            grouped(u64::from(status.clients)),
            grouped(status.sent_per_second as u64),
            grouped(status.received_per_second as u64),
            grouped(status.p50_us),
            grouped(status.p99_us),
        ),
        Stage::Finishing => format!(
            "finishing  {} clients still in  received {}/s{errors}",
            grouped(u64::from(status.clients)),
            grouped(status.received_per_second as u64),
        ),
    }
}

fn bar(part: f64) -> String {
    let full = (part * BAR as f64) as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR - full.min(BAR)))
}

/// A number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Writes lines to stderr.
#[derive(Debug)]
pub struct Printer {
    is_terminal: bool,
    /// A line stands there that the next one overwrites.
    is_open: bool,
}

impl Default for Printer {
    fn default() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            is_open: false,
        }
    }
}

impl Printer {
    /// Shows a status. What stderr does not take is lost, which harms no test.
    pub fn show(&mut self, status: &Status) {
        let line = line(status);
        let mut stderr = std::io::stderr().lock();
        let _ = if self.is_terminal {
            self.is_open = true;
            write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }

    /// Leaves the last line where it is.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let _ = writeln!(std::io::stderr());
        }
    }
}
