//! The fuzzer that needs no nightly compiler: runs targets for a time, or one input again, or
//! writes the inputs that libFuzzer is to start from. `cargo xtask fuzz` calls it.
//!
//! Exit code: 0 nothing found, 1 a target panicked, 2 it could not run.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use fuzz::run::{Run, execute};
use fuzz::{TARGETS, Target, corpus, target};

/// Executions between two looks at the clock.
const STEPS: u32 = 16;

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(name = "fuzz", about = "Fuzzing on stable Rust")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Name the targets, one a line.
    List,
    /// Mutate inputs of the targets, one target after the other.
    Run {
        /// Minutes for all of them together.
        #[arg(long, value_parser = minutes)]
        minutes: Duration,
        /// Only these.
        #[arg(long = "target", value_name = "NAME", value_parser = named)]
        targets: Vec<Target>,
        /// Another one makes other inputs.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to write inputs that were found.
        #[arg(long, default_value = "target/fuzz/crashes")]
        crashes: PathBuf,
    },
    /// Write the inputs that the targets start from, a folder each.
    Seeds {
        /// Made if it is not there.
        folder: PathBuf,
    },
    /// Give a target one input.
    Reproduce {
        /// Which target.
        #[arg(value_parser = named)]
        target: Target,
        /// The input.
        file: PathBuf,
    },
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())
}

fn named(name: &str) -> Result<Target, String> {
    target(name).copied().ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("the targets are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
fn run(task: Task) -> anyhow::Result<bool> {
    match task {
        Task::List => {
            for target in TARGETS {
                println!("{}", target.name);
            }
            Ok(true)
        }
        Task::Run {
            minutes,
            mut targets,
            seed,
            crashes,
        } => {
            if targets.is_empty() {
                targets = TARGETS.to_vec();
            }
            let each = minutes / targets.len() as u32;
            let (mut executions, mut found) = (0, 0);
            for target in &targets {
                let mut run = Run::new(*target, corpus::load(target)?, seed);
                let crash = fuzz_one(&mut run, target, each).err();
                executions += run.executions();
                if let Some(crash) = crash {
                    found += 1;
                    let file = corpus::save(&crashes, target, &crash.input)?;
                    let file = file.display();
                    println!("{}: FOUND {}: {file}", target.name, crash.message);
                    println!(
                        "again: cargo run -p fuzz -- reproduce {} {file}",
                        target.name
                    );
                }
            }
            println!(
                "{executions} executions of {} targets, {found} found",
                targets.len()
            );
            Ok(found == 0)
        }
        Task::Seeds { folder } => {
            for target in TARGETS {
                let folder = folder.join(target.name);
                fs::create_dir_all(&folder)?;
                for (at, input) in corpus::load(target)?.iter().enumerate() {
                    fs::write(folder.join(format!("seed-{at:04}")), input)?;
                }
            }
            Ok(true)
        }
        Task::Reproduce { target, file } => {
            let input = fs::read(&file).with_context(|| file.display().to_string())?;
            match execute(&target, &input) {
                Ok(way) => println!("nothing is found: way {way:016x}"),
                Err(crash) => {
                    println!("{}: FOUND {}", target.name, crash.message);
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

fn fuzz_one(run: &mut Run, target: &Target, time: Duration) -> Result<(), fuzz::run::Crash> {
    let begin = Instant::now();
    let mut told = begin;
    let mut outcome = Ok(());
    while outcome.is_ok() && begin.elapsed() < time {
        for _ in 0..STEPS {
            outcome = run.step();
            if outcome.is_err() {
                break;
            }
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            tell(run, target, begin.elapsed());
        }
    }
    tell(run, target, begin.elapsed());
    outcome
}

fn tell(run: &Run, target: &Target, spent: Duration) {
    println!(
        "{}: {} executions, {:.0} a second, {} ways, slowest {} ms",
        target.name,
        run.executions(),
        run.executions() as f64 / spent.as_secs_f64().max(0.001),
        run.ways(),
        run.slowest().as_millis()
    );
}
