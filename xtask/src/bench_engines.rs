//! `bench-engines`: what a round trip through the gateway costs, compared with
//! echo servers that check nothing, under the same load in alternation.
//!
//! Owns the order of runs and the arithmetic. The servers are in
//! [`servers`], the load is `closed-loop` of the package `benches`: as many
//! connections as asked for, one request of 64 bytes outstanding on each. The
//! server under test has the first core, everything else the last one; where the
//! load's core is the busier of the two, the server is not at its limit, and the
//! table says so.
//!
//! Invariants: one server at a time; each round runs each server once, so that
//! whatever else the machine does meets all of them; every process that is
//! started here ends with this one, however it ends.

mod cluster;
pub mod fan_out;
mod servers;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use self::cluster::Cluster;
use self::servers::{Server, spawn_on};

/// Runs of each server, unless told otherwise: a median of five bears two that
/// were disturbed.
const ROUNDS: u32 = 5;
/// Seconds of load before each window: caches, congestion windows, pools.
const WARM_UP_SECONDS: f64 = 1.0;
/// All runs together; then what is there is printed.
const MINUTES_MAX: u64 = 30;

/// Arguments of the task.
#[derive(Args)]
pub struct BenchEngines {
    /// Connections, several numbers separated by commas [default: 1000,9900]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: Vec<u32>,
    /// Seconds that are measured in each run [default: 3]
    #[arg(long)]
    seconds: Option<f64>,
    /// Runs of each server [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Only see that it works: two short rounds with few connections, not optimised
    #[arg(long)]
    quick: bool,
    /// What to build and run [default: release]
    #[arg(long, value_enum)]
    profile: Option<Profile>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    Dev,
    Release,
}

/// What is measured, in the order of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    GatewayUring,
    GatewayEpoll,
    BareRing,
    BareEpoll,
}

impl Subject {
    const ALL: [Subject; 4] = [
        Subject::GatewayUring,
        Subject::GatewayEpoll,
        Subject::BareRing,
        Subject::BareEpoll,
    ];

    const fn name(self) -> &'static str {
        match self {
            Subject::GatewayUring => "gateway, uring",
            Subject::GatewayEpoll => "gateway, epoll",
            Subject::BareRing => "bare ring echo",
            Subject::BareEpoll => "bare epoll echo",
        }
    }
}

/// What `closed-loop` writes.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Outcome {
    seconds: f64,
    round_trips: u64,
    received_bytes: u64,
    server_cpu_seconds: f64,
    backend_cpu_seconds: f64,
    load_cpu_seconds: f64,
}

impl Outcome {
    fn cpu_us(&self) -> f64 {
        self.server_cpu_seconds * 1e6 / self.round_trips as f64
    }

    fn backend_cpu_us(&self) -> f64 {
        self.backend_cpu_seconds * 1e6 / self.round_trips as f64
    }

    fn rate(&self) -> f64 {
        self.round_trips as f64 / self.seconds
    }
}

/// One outcome of each subject, in their order.
type Round = [Outcome; Subject::ALL.len()];

/// The binaries, and the cores for the server and for the rest.
struct Bench {
    binaries: PathBuf,
    server_core: usize,
    other_core: usize,
    seconds: f64,
    warm_up_seconds: f64,
}

/// Runs the task.
pub fn run(args: &BenchEngines) -> anyhow::Result<ExitCode> {
    let (connections, seconds, rounds, warm_up_seconds, profile) = if args.quick {
        (vec![50], 0.3, 2, 0.1, Profile::Dev)
    } else {
        let connections = vec![1_000, 9_900];
        (connections, 3.0, ROUNDS, WARM_UP_SECONDS, Profile::Release)
    };
    let connections = match args.connections.as_slice() {
        [] => connections,
        given => given.to_vec(),
    };
    let seconds = args.seconds.unwrap_or(seconds);
    ensure!(
        (0.05..=60.0).contains(&seconds),
        "--seconds: must be between 0.05 and 60"
    );
    let rounds = args.rounds.unwrap_or(rounds);
    let bench = Bench::new(args.profile.unwrap_or(profile), seconds, warm_up_seconds)?;
    let until = Instant::now() + Duration::from_secs(60 * MINUTES_MAX);
    let mut done = vec![Vec::new(); connections.len()];
    'all: for round in 1..=rounds {
        for (&count, done) in connections.iter().zip(&mut done) {
            if Instant::now() >= until {
                eprintln!("{MINUTES_MAX} minutes are over; these are the rounds so far");
                break 'all;
            }
            eprintln!("round {round} of {rounds}, {count} connections");
            done.push(bench.round(count)?);
        }
    }
    for (&count, done) in connections.iter().zip(&done) {
        if !done.is_empty() {
            print!("{}", table::of(count, seconds, done));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds what is run; returns the directory with the binaries.
fn build(profile: Profile) -> anyhow::Result<PathBuf> {
    let (name, directory) = match profile {
        Profile::Dev => ("dev", "debug"),
        Profile::Release => ("release", "release"),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--profile", name])
        .args(["--package", "sallyport", "--package", "benches", "--bins"])
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the build has failed");
    // This binary lies in DIRECTORY/debug, wherever CARGO_TARGET_DIR points.
    let this = std::env::current_exe()?;
    let target = this.parent().and_then(Path::parent);
    Ok(target.context("no target directory")?.join(directory))
}

impl Bench {
    /// Sees that it can run here, and builds what is run.
    fn new(profile: Profile, seconds: f64, warm_up_seconds: f64) -> anyhow::Result<Self> {
        let probed = crate::without_uring::probe();
        ensure!(
            probed == "available",
            "io_uring is needed here, and cannot be used: {probed}"
        );
        let cores = std::thread::available_parallelism()?.get();
        ensure!(
            cores > 1,
            "two cores are needed, one for the server and one for the load"
        );
        Ok(Self {
            binaries: build(profile)?,
            server_core: 0,
            other_core: cores - 1,
            seconds,
            warm_up_seconds,
        })
    }

    fn round(&self, connections: u32) -> anyhow::Result<Round> {
        let mut outcomes = Vec::with_capacity(Subject::ALL.len());
        for subject in Subject::ALL {
            let outcome = self
                .measure(subject, connections)
                .with_context(|| format!("{}, {connections} connections", subject.name()))?;
            outcomes.push(outcome);
        }
        outcomes
            .try_into()
            .map_err(|_| anyhow::anyhow!("a subject is missing"))
    }

    fn measure(&self, subject: Subject, connections: u32) -> anyhow::Result<Outcome> {
        match subject {
            Subject::BareRing => self.load_echo("bare-ring-echo", connections),
            Subject::BareEpoll => self.load_echo("bare-epoll-echo", connections),
            Subject::GatewayUring => self.load_gateway("uring", connections),
            Subject::GatewayEpoll => self.load_gateway("epoll", connections),
        }
    }

    fn load_echo(&self, binary: &str, connections: u32) -> anyhow::Result<Outcome> {
        let server = Server::echo(&self.binaries.join(binary), self.server_core)?;
        self.load(&server, connections, &["--mode", "raw"])
    }

    fn load_gateway(&self, engine: &str, connections: u32) -> anyhow::Result<Outcome> {
        let cluster = Cluster::start(self, engine, "echo")?;
        let backend = cluster.game.process.to_string();
        let mode = [
            "--mode",
            "gateway",
            "--key",
            &cluster.gateway_key,
            "--token-key",
            &cluster.token_secret,
            "--cpu-of-backend",
            &backend,
        ];
        let outcome = self
            .load(&cluster.gateway, connections, &mode)
            .with_context(|| cluster.logs())?;
        let starved = cluster.receives_starved()?;
        if starved > 0 {
            eprintln!("gateway, {engine}: {starved} receives found no buffer");
        }
        Ok(outcome)
    }

    /// Loads a server and returns what the load has measured.
    fn load(&self, server: &Server, connections: u32, mode: &[&str]) -> anyhow::Result<Outcome> {
        let mut command = Command::new(self.binaries.join("closed-loop"));
        command
            .arg(server.address.to_string())
            .args(mode)
            .args(["--connections", &connections.to_string()])
            .args(["--warm-up", &self.warm_up_seconds.to_string()])
            .args(["--seconds", &self.seconds.to_string()])
            .args(["--cpu-of", &server.process.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = spawn_on(self.other_core, command)?.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let outcome: Outcome =
            serde_json::from_slice(&output.stdout).context("reading what closed-loop wrote")?;
        ensure!(outcome.round_trips > 0, "not one round trip was made");
        Ok(outcome)
    }
}
