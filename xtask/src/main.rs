//! Tasks that people do by hand more than once: what is generated and checked
//! in, running a command as if io_uring were forbidden, comparing engines, and fuzzing.
//!
//! Invariant: each generated file is a function of the sources alone, so that
//! `--check` can tell whether it is current.

#![forbid(unsafe_code)]

mod artifact;
mod bench_engines;
mod control;
mod fuzz;
mod reasons;
mod vectors;
mod without_uring;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Sallyport repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write protocol/src/control/generated.rs from protocol/proto/control.proto.
    Generate(Check),
    /// Write the test vectors in docs/vectors/.
    Vectors(Check),
    /// Write the generated tables in docs/.
    Docs(Check),
    /// Run a command with io_uring forbidden, as Docker's default profile does.
    ///
    /// Sets SALLYPORT_TEST_WITHOUT_URING=1 for it. Example:
    /// cargo xtask without-io-uring -- cargo test -p gateway
    WithoutIoUring {
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Compare the CPU of a round trip through the gateway, on each engine, with
    /// bare echo servers under the same load.
    BenchEngines(bench_engines::BenchEngines),
    /// Compare the CPU of giving one message to each member of a channel with two
    /// bare ways to send the same bytes.
    #[command(name = "bench-fanout")]
    BenchFanOut(bench_engines::fan_out::BenchFanOut),
    /// Look for inputs that break something, with libFuzzer or (--stable) without.
    Fuzz(fuzz::Fuzz),
    /// Say whether io_uring can be used here.
    #[command(hide = true)]
    ProbeIoUring,
}

#[derive(Args)]
struct Check {
    /// Write nothing; exit with 1 when a file is not current.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    let (name, check, artifacts) = match task {
        Task::Generate(Check { check }) => ("generate", check, control::artifacts()?),
        Task::Vectors(Check { check }) => ("vectors", check, vectors::artifacts()?),
        Task::Docs(Check { check }) => ("docs", check, reasons::artifacts()?),
        Task::WithoutIoUring { command } => return without_uring::run(&command),
        Task::BenchEngines(args) => return bench_engines::run(&args),
        Task::BenchFanOut(args) => return bench_engines::fan_out::run(&args),
        Task::Fuzz(args) => return fuzz::run(&args),
        Task::ProbeIoUring => {
            println!("{}", without_uring::probe());
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut stale = false;
    for artifact in &artifacts {
        if artifact.is_current()? {
            continue;
        }
        let path = artifact.path();
        if check {
            stale = true;
            eprintln!("xtask: {path} is not current; run `cargo xtask {name}` and commit it");
        } else {
            artifact.write()?;
            println!("wrote {path}");
        }
    }
    Ok(if stale {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}
