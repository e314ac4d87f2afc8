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

use crate::args::{LoadtestArgs, Scenario};
use crate::clock;
use crate::fleet;
use crate::html::{self, Record};
use crate::latency::Latencies;
use crate::messages::{FromWorker, Outcome, Progress, ToWorker};
use crate::plan::{Plan, Unable};
use crate::progress::{Printer, Stage, Status};
use crate::report::{Report, Totals};
use crate::server::Server;
use crate::timeline::{self, Reading, Sample};
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
    let result = record(args, hosting, &mut |status| {
        printer.show(status);
        ControlFlow::Continue(())
    });
    printer.finish();
    match result {
        Ok(finished) => {
            let Finished { report, wrong, .. } = &finished;
            // A reader that has gone (`| head`) is no reason to fail.
            let _ = std::io::stdout().write_all(report.summary(wrong).as_bytes());
            if let Err(problem) = write_files(args, &finished) {
                let _ = writeln!(std::io::stderr(), "error: {problem}");
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

/// Writes what `--json` and `--html` ask for.
fn write_files(args: &LoadtestArgs, finished: &Finished) -> Result<(), String> {
    let write = |argument: &str, path: &std::path::Path, text: &str| {
        std::fs::write(path, text)
            .map_err(|error| format!("{argument}: {}: {error}", path.display()))
    };
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(&finished.report)
            .map_err(|error| format!("--json: {error}"))?;
        text.push('\n');
        write("--json", path, &text)?;
    }
    if let Some(path) = &args.html {
        let page = html::page(&finished.report, &finished.wrong, &finished.record);
        write("--html", path, &page)?;
    }
    Ok(())
}

/// What a run leaves.
#[derive(Debug)]
pub struct Finished {
    /// The result.
    pub report: Report,
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
    /// What its plots are drawn from.
    pub record: Record,
}

/// [`record`], for those who want the report and what is wrong only.
///
/// # Errors
/// The test could not run.
pub fn execute(
    args: &LoadtestArgs,
    hosting: Hosting,
    observe: &mut dyn FnMut(&Status) -> ControlFlow<()>,
) -> Result<(Report, Vec<String>), Unable> {
    record(args, hosting, observe).map(|finished| (finished.report, finished.wrong))
}

/// Runs a test; `observe` sees the status once a second and can end the run early.
///
/// # Errors
/// The test could not run.
pub fn record(
    args: &LoadtestArgs,
    hosting: Hosting,
    observe: &mut dyn FnMut(&Status) -> ControlFlow<()>,
) -> Result<Finished, Unable> {
    let plan = Plan::new(args)?;
    let mut server = Server::new(&plan.admins, plan.admin_token.clone())
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
    if args.html.is_some() {
        server.mark_losses();
    }
    let workers = Workers::start(&plan.workers, hosting)
        .map_err(|error| Unable::Environment(format!("workers cannot be started: {error}")))?;
    let mut run = Run::new(args, &plan, workers, server);
    run.drive(observe);
    let report = run.report(args)?;
    Ok(Finished {
        wrong: report.wrong(&plan.fail_if),
        report,
        record: run.into_record(),
    })
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
    /// As of the last status.
    shown: Progress,
    sent_per_second: f64,
    received_per_second: f64,
    is_ready: bool,
    is_drained: bool,
    outcome: Option<Outcome>,
}

impl Known {
    /// Rates since the last status. Workers report at moments of their own, so that what came
    /// within one second of the parent's may be that of two.
    fn rate(&mut self) {
        let us = self.progress.at_us.saturating_sub(self.shown.at_us);
        if self.outcome.is_some() || self.shown.at_us == 0 {
            (self.sent_per_second, self.received_per_second) = (0.0, 0.0);
        } else if us > 0 {
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 * 1e6 / us as f64;
            self.sent_per_second = rate(self.progress.sent, self.shown.sent);
            self.received_per_second = rate(self.progress.received, self.shown.received);
        }
        self.shown.clone_from(&self.progress);
    }
}

struct Run {
    clients: u32,
    rate: f64,
    duration_ms: u64,
    drain_ms: u64,
    queue_ms: u64,
    is_login_storm: bool,
    workers: Workers,
    known: Vec<Known>,
    server: Server,
    phase: Phase,
    deadline: Instant,
    /// Start of the window, on the machine's steady clock.
    start_us: Option<u64>,
    recent: Latencies,
    /// Clients that were in at the last status.
    shown_clients: u32,
    shown_at: Instant,
    /// Last reading of the server.
    sampled_at: Instant,
    began: Instant,
    record: Record,
}

impl Run {
    fn new(args: &LoadtestArgs, plan: &Plan, workers: Workers, server: Server) -> Self {
        let now = Instant::now();
        let connect_ms = fleet::connect_ms(args.clients) + fleet::GROUP_UP_MS;
        let whole = &plan.workers[0];
        let record = Record {
            roles: server.processes(),
            ..Record::default()
        };
        Self {
            clients: args.clients,
            rate: whole.rate,
            duration_ms: whole.duration_ms,
            drain_ms: whole.drain_ms,
            queue_ms: whole.queue_ms(),
            is_login_storm: whole.login_storm.is_some(),
            known: plan.workers.iter().map(|_| Known::default()).collect(),
            workers,
            server,
            phase: Phase::Connecting,
            deadline: now + Duration::from_millis(connect_ms) + SLACK,
            start_us: None,
            recent: Latencies::default(),
            shown_clients: 0,
            shown_at: now,
            sampled_at: now,
            began: now,
            record,
        }
    }

    fn drive(&mut self, observe: &mut dyn FnMut(&Status) -> ControlFlow<()>) {
        // Plots begin with nobody there, and end so.
        self.record.timeline.push(Sample::default());
        self.watch(observe);
        let status = self.status(Instant::now());
        self.note(&status);
    }

    fn watch(&mut self, observe: &mut dyn FnMut(&Status) -> ControlFlow<()>) {
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
                self.note(&status);
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
        if progress.waiting > 0 {
            // They move, or their worker gives them up.
            let patience = Duration::from_millis(self.queue_ms) + SLACK;
            self.deadline = self.deadline.max(Instant::now() + patience);
        }
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
                self.sample();
                self.server.mark_connected();
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
        self.record.window = Some((
            self.began.elapsed().as_secs_f64() + START_LEAD_MS as f64 / 1e3,
            self.duration_ms as f64 / 1e3,
        ));
        self.workers.send(&ToWorker::Start { at_us });
        self.phase = Phase::Running;
        let storm_ms = match self.is_login_storm {
            true => fleet::connect_ms(self.clients) + self.queue_ms,
            false => 0,
        };
        let window_ms = START_LEAD_MS + self.duration_ms + storm_ms + self.drain_ms;
        let window = Duration::from_millis(window_ms);
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

    /// Keeps what a second was like for the plots.
    fn note(&mut self, status: &Status) {
        let seconds = |at: Instant| at.duration_since(self.began).as_secs_f64();
        let server = self.server.is_watched().then(|| Reading {
            at_seconds: seconds(self.sampled_at),
            roles: self.server.reading(),
        });
        self.record.timeline.push(Sample {
            at_seconds: seconds(self.shown_at),
            clients: status.clients,
            sent_per_second: status.sent_per_second,
            received_per_second: status.received_per_second,
            // No latency is 0; there was none.
            latency: (status.p99_us > 0).then_some(timeline::Latency {
                p50_us: status.p50_us as f64,
                p99_us: status.p99_us as f64,
            }),
            server,
        });
    }

    fn into_record(self) -> Record {
        Record {
            losses: self.server.losses(),
            ..self.record
        }
    }

    fn status(&mut self, now: Instant) -> Status {
        let mut sum = Progress::default();
        let (mut sent_per_second, mut received_per_second) = (0.0, 0.0);
        for known in &mut self.known {
            known.rate();
            sum.logged_in += known.progress.logged_in;
            sum.failed += known.progress.failed;
            sum.errors += known.progress.errors;
            sent_per_second += known.sent_per_second;
            received_per_second += known.received_per_second;
        }
        let seconds = now.duration_since(self.shown_at).as_secs_f64().max(0.001);
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
            logins_per_second: f64::from(sum.logged_in.saturating_sub(self.shown_clients))
                / seconds,
            sent_per_second,
            received_per_second,
            p50_us: latency.p50,
            p99_us: latency.p99,
            errors: sum.errors,
            window_seconds: (window_us as f64 / 1e6).min(duration_seconds),
            duration_seconds,
        };
        self.shown_clients = sum.logged_in;
        self.shown_at = now;
        status
    }

    fn report(&mut self, args: &LoadtestArgs) -> Result<Report, Unable> {
        let mut totals = Totals::default();
        for outcome in self.known.iter().filter_map(|known| known.outcome.as_ref()) {
            totals.add(outcome);
        }
        self.record.curve = totals.latencies.curve();
        let queue = totals.queue();
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
        let come_back = matches!(args.scenario, Scenario::ReconnectStorm | Scenario::Mixed);
        let is_mixed = args.scenario == Scenario::Mixed;
        let back = totals.back.percentiles();
        let duration_seconds = seconds(self.start_us, sum.window_end_us);
        let rate_reached = if duration_seconds > 0.0 {
            sum.sent_in_window as f64 / duration_seconds
        } else {
            0.0
        };
        Ok(Report {
            scenario: args.scenario.as_str(),
            transport: args.transport.as_str(),
            lane: if is_mixed { "all" } else { args.lane.as_str() },
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
            rate_wanted: self.rate,
            rate_reached,
            frames_sent: sum.sent,
            frames_received: sum.received,
            frames_lost: sum.lost,
            frames_duplicated: sum.duplicated,
            frames_out_of_order: sum.out_of_order,
            errors: sum.errors,
            visible_mean: sum
                .visible
                .filter(|(_, clients)| *clients > 0)
                .map(|(seen, clients)| seen as f64 / clients as f64),
            frames_sent_beside: sum.sent_beside,
            queue,
            mixed: sum.mixed,
            resumes: come_back.then_some(sum.resumes),
            relogins: come_back.then_some(sum.relogins),
            back_p50_us: come_back.then_some(back.p50),
            back_p99_us: come_back.then_some(back.p99),
            latency_us: totals.latencies.percentiles(),
            server: self
                .server
                .figures(sum.logged_in_most, sum.received, sum.resumes),
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
