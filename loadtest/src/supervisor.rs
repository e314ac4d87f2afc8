//! The parent of a run: starts workers, moves them through the phases together,
//! watches the server, and makes the report.
//!
//! Invariant: every phase ends, by itself or by its deadline, and no worker
//! outlives the parent: their stdin closes, and what is left is killed.

mod hosting;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::args::LoadtestArgs;
use crate::clock;
use crate::fleet;
use crate::latency::Latencies;
use crate::messages::{FromWorker, Outcome, Progress, ToWorker};
use crate::plan::{Plan, Unable};
use crate::progress::{Printer, Stage, Status};
use crate::report::{Report, Totals};
use crate::server::Server;
use crate::{EXIT_GOOD, EXIT_UNABLE, EXIT_WRONG, machine};

pub use hosting::Hosting;
use hosting::Workers;

/// How often the status is shown and the server is read.
const TICK: Duration = Duration::from_secs(1);
/// How often the server is read while it comes to rest.
const REST_TICK: Duration = Duration::from_millis(500);
/// Readings in a row that must show rest.
const REST_READINGS: u32 = 2;
/// Longest wait for rest.
const REST_MAX: Duration = Duration::from_secs(15);
/// Between the order to start and the first send: all workers must have read it.
const START_LEAD_MS: u64 = 100;
/// What a worker may take longer than its own deadlines say.
const SLACK: Duration = Duration::from_secs(20);

/// `sallyport loadtest`: runs, prints the summary and errors, and returns the
/// exit code.
pub fn run(args: &LoadtestArgs) -> u8 {
    run_hosted(args, Hosting::Processes)
}

/// [`run`], with the choice of where workers live.
pub fn run_hosted(args: &LoadtestArgs, hosting: Hosting) -> u8 {
    let mut printer = Printer::default();
    let result = execute(args, hosting, &mut |status| {
        printer.show(status);
        ControlFlow::Continue(())
    });
    printer.finish();
    match result {
        Ok((report, wrong)) => {
            // A reader that has gone (`| head`) is no reason to fail.
            let _ = std::io::stdout().write_all(report.summary(&wrong).as_bytes());
            if let Some(path) = &args.json
                && let Err(problem) = write_json(path, &report)
            {
                let _ = writeln!(std::io::stderr(), "error: --json: {problem}");
                return EXIT_UNABLE;
            }
            if wrong.is_empty() {
                EXIT_GOOD
            } else {
                EXIT_WRONG
            }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            EXIT_UNABLE
        }
    }
}

fn write_json(path: &std::path::Path, report: &Report) -> Result<(), String> {
    let mut text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    text.push('\n');
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs a test; `observe` sees the status once a second and can end the run
/// early. Returns the report and what is wrong, one line each.
///
/// # Errors
/// The test could not run.
pub fn execute(
    args: &LoadtestArgs,
    hosting: Hosting,
    observe: &mut dyn FnMut(&Status) -> ControlFlow<()>,
) -> Result<(Report, Vec<String>), Unable> {
    let plan = Plan::new(args)?;
    let server = Server::new(&plan.admins, plan.admin_token.clone())
        .map_err(|problem| Unable::argument("--admin", problem))?;
    for role in plan.fail_if.iter().filter_map(|condition| condition.role()) {
        if !server.has_role(role) {
            let problem = format!(
                "no admin port tells of the role `{role}`; there are: {}",
                server.role_names()
            );
            return Err(Unable::argument("--fail-if", problem));
        }
    }
    let workers = Workers::start(&plan.workers, hosting)
        .map_err(|error| Unable::Environment(format!("workers cannot be started: {error}")))?;
    let mut run = Run::new(args, &plan, workers, server);
    run.drive(observe);
    let report = run.report(args)?;
    let wrong = report.wrong(&plan.fail_if);
    Ok((report, wrong))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Resting { since: Instant, readings: u32 },
    Running,
    Finishing,
}

/// One worker, as the parent knows it.
#[derive(Debug, Default)]
struct Known {
    progress: Progress,
    is_ready: bool,
    is_drained: bool,
    outcome: Option<Outcome>,
}

struct Run {
    clients: u32,
    duration_ms: u64,
    drain_ms: u64,
    workers: Workers,
    known: Vec<Known>,
    server: Server,
    phase: Phase,
    deadline: Instant,
    /// Start of the window, on the machine's steady clock.
    start_us: Option<u64>,
    recent: Latencies,
    shown: Progress,
    shown_at: Instant,
    /// Last reading of the server.
    sampled_at: Instant,
}

impl Run {
    fn new(args: &LoadtestArgs, plan: &Plan, workers: Workers, server: Server) -> Self {
        let now = Instant::now();
        let connect_ms = fleet::CONNECT_PHASE_MS
            + fleet::CONNECT_PHASE_MS_A_CLIENT * u64::from(args.clients)
            + fleet::GROUP_UP_MS;
        let whole = &plan.workers[0];
        Self {
            clients: args.clients,
            duration_ms: whole.duration_ms,
            drain_ms: whole.drain_ms,
            known: plan.workers.iter().map(|_| Known::default()).collect(),
            workers,
            server,
            phase: Phase::Connecting,
            deadline: now + Duration::from_millis(connect_ms) + SLACK,
            start_us: None,
            recent: Latencies::default(),
            shown: Progress::default(),
            shown_at: now,
            sampled_at: now,
        }
    }

    fn drive(&mut self, observe: &mut dyn FnMut(&Status) -> ControlFlow<()>) {
        let mut tick_at = Instant::now() + TICK;
        while self.known.iter().any(|known| known.outcome.is_none()) {
            let now = Instant::now();
            if now >= self.deadline {
                self.give_up();
                return;
            }
            if now >= tick_at {
                tick_at = now + TICK;
                let status = self.status(now);
                if observe(&status).is_break() && self.phase != Phase::Finishing {
                    self.finish();
                }
                if self.phase != Phase::Finishing && !self.is_resting() {
                    self.sample();
                }
            }
            self.advance();
            let mut wait = tick_at.saturating_duration_since(Instant::now());
            if self.is_resting() {
                wait = wait.min(REST_TICK);
            }
            match self.workers.inbox.recv_timeout(wait) {
                Ok((worker, message)) => self.handle(worker, message),
                Err(RecvTimeoutError::Timeout) => {}
                // Every reader has ended, and with it every worker.
                Err(RecvTimeoutError::Disconnected) => self.give_up(),
            }
        }
    }

    fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting { .. })
    }

    fn handle(&mut self, worker: usize, message: Option<FromWorker>) {
        let known = &mut self.known[worker];
        let progress = match message {
            Some(FromWorker::Progress(progress)) => progress,
            Some(FromWorker::Ready(progress)) => {
                known.is_ready = true;
                progress
            }
            Some(FromWorker::Drained(progress)) => {
                known.is_drained = true;
                progress
            }
            Some(FromWorker::Final(outcome)) => {
                known.progress.logged_in = 0;
                known.outcome = Some(*outcome);
                return;
            }
            None => {
                if known.outcome.is_none() {
                    known.outcome = Some(died(&known.progress));
                }
                return;
            }
        };
        self.recent.add_counts(&progress.latency);
        known.progress = Progress {
            latency: Vec::new(),
            ..progress
        };
    }

    /// Moves on when every worker has.
    fn advance(&mut self) {
        let all = |is_there: fn(&Known) -> bool| {
            self.known
                .iter()
                .all(|known| known.outcome.is_some() || is_there(known))
        };
        match self.phase {
            Phase::Connecting if all(|known| known.is_ready) => {
                let now = Instant::now();
                self.phase = Phase::Resting {
                    since: now,
                    readings: 0,
                };
                self.deadline = now + REST_MAX + SLACK;
            }
            Phase::Resting { since, readings } => self.rest(since, readings),
            Phase::Running if all(|known| known.is_drained) => {
                self.sample();
                self.server.mark_end();
                self.finish();
            }
            _ => {}
        }
    }

    fn rest(&mut self, since: Instant, readings: u32) {
        if self.server.is_watched() && since.elapsed() < REST_MAX {
            if self.sampled_at.elapsed() < REST_TICK {
                return;
            }
            let readings = if self.sample() { readings + 1 } else { 0 };
            self.phase = Phase::Resting { since, readings };
            if readings < REST_READINGS {
                return;
            }
        }
        self.server.mark_start();
        let at_us = clock::time().after_ms(START_LEAD_MS).0;
        self.start_us = Some(at_us);
        self.workers.send(&ToWorker::Start { at_us });
        self.phase = Phase::Running;
        let window = Duration::from_millis(START_LEAD_MS + self.duration_ms + self.drain_ms);
        self.deadline = Instant::now() + window + SLACK;
    }

    fn finish(&mut self) {
        self.workers.send(&ToWorker::Finish);
        self.phase = Phase::Finishing;
        let logout_ms = fleet::LOGOUT_MS + fleet::LOGOUT_MS_A_CLIENT * u64::from(self.clients);
        let end = Duration::from_millis(self.drain_ms + logout_ms);
        self.deadline = Instant::now() + end + SLACK;
    }

    fn sample(&mut self) -> bool {
        if !self.server.is_watched() {
            return true;
        }
        let seconds = self.sampled_at.elapsed().as_secs_f64();
        self.sampled_at = Instant::now();
        self.server.sample(seconds)
    }

    /// A worker is past every deadline.
    fn give_up(&mut self) {
        self.workers.kill();
        for known in &mut self.known {
            if known.outcome.is_none() {
                known.outcome = Some(died(&known.progress));
            }
        }
    }

    fn status(&mut self, now: Instant) -> Status {
        let mut sum = Progress::default();
        for known in &self.known {
            sum.logged_in += known.progress.logged_in;
            sum.failed += known.progress.failed;
            sum.sent += known.progress.sent;
            sum.received += known.progress.received;
            sum.errors += known.progress.errors;
        }
        let seconds = now.duration_since(self.shown_at).as_secs_f64().max(0.001);
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let latency = self.recent.percentiles();
        self.recent.clear();
        let window_us = self
            .start_us
            .map_or(0, |start| clock::time().0.saturating_sub(start));
        let duration_seconds = self.duration_ms as f64 / 1e3;
        let status = Status {
            stage: match self.phase {
                Phase::Connecting => Stage::Connecting,
                Phase::Resting { .. } => Stage::Settling,
                Phase::Running if window_us <= self.duration_ms * 1_000 => Stage::Running,
                Phase::Running | Phase::Finishing => Stage::Finishing,
            },
            clients: sum.logged_in,
            clients_wanted: self.clients,
            clients_failed: sum.failed,
            logins_per_second: per_second(
                u64::from(sum.logged_in),
                u64::from(self.shown.logged_in),
            ),
            sent_per_second: per_second(sum.sent, self.shown.sent),
            received_per_second: per_second(sum.received, self.shown.received),
            p50_us: latency.p50,
            p99_us: latency.p99,
            errors: sum.errors,
            window_seconds: (window_us as f64 / 1e6).min(duration_seconds),
            duration_seconds,
        };
        self.shown = sum;
        self.shown_at = now;
        status
    }

    fn report(&mut self, args: &LoadtestArgs) -> Result<Report, Unable> {
        let mut totals = Totals::default();
        for outcome in self.known.iter().filter_map(|known| known.outcome.as_ref()) {
            totals.add(outcome);
        }
        let sum = totals.sum;
        if let Some(problem) = sum
            .unable
            .filter(|_| self.start_us.is_none() || sum.sent == 0)
        {
            return Err(Unable::Environment(format!("{}: {problem}", args.target)));
        }
        if sum.logged_in_most == 0 {
            return Err(Unable::Environment(format!(
                "{}: no client got in",
                args.target
            )));
        }
        let seconds = |from: Option<u64>, to: Option<u64>| {
            from.zip(to)
                .map_or(0.0, |(from, to)| to.saturating_sub(from) as f64 / 1e6)
        };
        let duration_seconds = seconds(self.start_us, sum.window_end_us);
        let rate_reached = if duration_seconds > 0.0 {
            sum.sent_in_window as f64 / duration_seconds
        } else {
            0.0
        };
        Ok(Report {
            scenario: args.scenario.as_str(),
            transport: args.transport.as_str(),
            lane: args.lane.as_str(),
            seed: args.seed,
            command: command(std::env::args()),
            git_commit: option_env!("SALLYPORT_GIT_COMMIT").unwrap_or("unknown"),
            engine: self.server.engine(),
            machine: machine::machine(),
            kernel: machine::kernel(),
            clients_wanted: args.clients,
            clients_connected: sum.logged_in_most,
            connect_failures: sum.connect_failures,
            connect_seconds: seconds(sum.first_attempt_us, sum.last_login_us),
            duration_seconds,
            rate_wanted: args.rate,
            rate_reached,
            frames_sent: sum.sent,
            frames_received: sum.received,
            frames_lost: sum.lost,
            frames_duplicated: sum.duplicated,
            frames_out_of_order: sum.out_of_order,
            errors: sum.errors,
            visible_mean: None,
            latency_us: totals.latencies.percentiles(),
            server: self.server.figures(sum.logged_in_most, sum.received),
        })
    }
}

/// The result of a worker that ended without one.
fn died(progress: &Progress) -> Outcome {
    Outcome {
        logged_in_most: progress.logged_in,
        sent: progress.sent,
        received: progress.received,
        errors: [(String::from("worker_died"), 1)].into(),
        ..Outcome::default()
    }
}

/// The command line with secrets redacted.
fn command(words: impl Iterator<Item = String>) -> String {
    const SECRET: &str = "--token-key";
    let mut is_secret = false;
    let words: Vec<String> = words
        .map(|word| {
            if std::mem::replace(&mut is_secret, word == SECRET) {
                String::from("REDACTED")
            } else if word.starts_with("--token-key=") {
                format!("{SECRET}=REDACTED")
            } else {
                word
            }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests;
