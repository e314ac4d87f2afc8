//! Fuzzing for as long as one likes: under libFuzzer, which needs a nightly compiler and
//! cargo-fuzz, or with the mutator of the tests, which needs neither.
//!
//! It runs one process at a time, and ends by itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;

use crate::artifact::absolute;

/// Where inputs and findings lie, from the repository's root.
const FOLDER: &str = "target/fuzz";

/// Seconds that one execution may take before it counts as a finding: a thousand times the usual.
const TIMEOUT_S: u32 = 20;

/// Where the inputs that found something are told by libFuzzer.
const WRITTEN: &str = "Test unit written to ";

/// Where libFuzzer says how often it ran.
const EXECUTED: &str = "stat::number_of_executed_units:";

#[derive(Args)]
pub struct Fuzz {
    /// Minutes for all targets together; building is not counted.
    #[arg(long)]
    minutes: f64,
    /// Only these targets.
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// With the mutator of the tests: no nightly compiler, no coverage.
    #[arg(long)]
    stable: bool,
}

/// Runs it. 0: nothing found; 1: something; an error: it could not run.
pub fn run(args: &Fuzz) -> anyhow::Result<ExitCode> {
    ensure!(args.minutes > 0.0, "--minutes has to be above 0");
    if args.stable {
        return run_stable(args);
    }
    ensure!(
        has_libfuzzer(),
        "libFuzzer needs a nightly compiler and cargo-fuzz. Install them:\n  \
         rustup toolchain install nightly\n  \
         cargo install cargo-fuzz\n\
         or give --stable: the mutator of the tests, without coverage"
    );
    run_libfuzzer(args)
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    // Nothing is installed behind anybody's back.
    cargo
        .env("RUSTUP_AUTO_INSTALL", "0")
        .current_dir(absolute(""));
    // What `cargo xtask` was started by chose the toolchain of the repository.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC"] {
        cargo.env_remove(variable);
    }
    cargo
}

/// The programs of the crate `fuzz`.
fn fuzz() -> Command {
    let mut fuzz = cargo();
    fuzz.args(["run", "--quiet", "--package", "fuzz", "--"]);
    fuzz
}

fn run_stable(args: &Fuzz) -> anyhow::Result<ExitCode> {
    let mut fuzz = fuzz();
    fuzz.args(["run", "--minutes", &args.minutes.to_string()]);
    for target in &args.targets {
        fuzz.args(["--target", target]);
    }
    let status = fuzz.status().context("running cargo")?;
    Ok(ExitCode::from(status.code().map_or(2, |code| code as u8)))
}

fn has_libfuzzer() -> bool {
    cargo()
        .args(["+nightly", "fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn run_libfuzzer(args: &Fuzz) -> anyhow::Result<ExitCode> {
    let list = fuzz().arg("list").stderr(Stdio::inherit()).output()?;
    ensure!(list.status.success(), "the crate fuzz does not build");
    let list = String::from_utf8(list.stdout)?;
    let known: Vec<&str> = list.lines().collect();
    for target in &args.targets {
        ensure!(
            known.contains(&&**target),
            "the targets are {}",
            known.join(", ")
        );
    }
    let all = args.targets.is_empty();
    let wanted = known
        .iter()
        .filter(|name| all || args.targets.iter().any(|it| it == *name));
    let wanted: Vec<&str> = wanted.copied().collect();

    let folder = absolute(FOLDER);
    let status = fuzz().arg("seeds").arg(folder.join("corpus")).status()?;
    ensure!(status.success(), "the seeds could not be written");
    // The versions that everything else is built with.
    fs::copy(
        absolute("Cargo.lock"),
        absolute("fuzz/libfuzzer/Cargo.lock"),
    )?;
    let options = ["--fuzz-dir", "fuzz/libfuzzer", "--sanitizer", "none"];
    let build = folder.join("build");
    let status = cargo()
        .args(["+nightly", "fuzz", "build"])
        .args(options)
        .arg("--target-dir")
        .arg(&build)
        .arg("any")
        .status()?;
    ensure!(status.success(), "cargo fuzz build failed");

    let seconds = (args.minutes * 60.0 / wanted.len() as f64).ceil().max(1.0) as u64;
    let (mut executions, mut found) = (0, 0);
    for target in &wanted {
        let crashes = folder.join("crashes").join(target);
        fs::create_dir_all(&crashes)?;
        let begin = Instant::now();
        let mut child = cargo()
            .args(["+nightly", "fuzz", "run"])
            .args(options)
            .arg("--target-dir")
            .arg(&build)
            .arg("any")
            .arg(folder.join("corpus").join(target))
            .arg("--")
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={TIMEOUT_S}"))
            .args(["-max_len=8192", "-print_final_stats=1", "-verbosity=1"])
            .env("SALLYPORT_FUZZ_TARGET", target)
            .stderr(Stdio::piped())
            .spawn()
            .context("running cargo fuzz")?;
        let mut said = Vec::new();
        let mut of_target = 0;
        if let Some(errors) = child.stderr.take() {
            for line in BufReader::new(errors).lines() {
                let line = line?;
                if let Some(count) = line.strip_prefix(EXECUTED) {
                    of_target = count.trim().parse().unwrap_or(0);
                }
                let tells = line.contains("panicked at") || line.contains(WRITTEN);
                if tells || line.contains("ERROR: libFuzzer") {
                    said.push(line);
                }
            }
        }
        let is_good = child.wait()?.success();
        executions += of_target;
        let rate = of_target as f64 / begin.elapsed().as_secs_f64().max(0.001);
        println!("{target}: {of_target} executions, {rate:.0} a second");
        if !is_good {
            found += 1;
            println!("{target}: FOUND");
            for line in said {
                println!("  {line}");
            }
            println!("  again: cargo run -p fuzz -- reproduce {target} FILE");
        }
    }
    println!(
        "{executions} executions of {} targets, {found} found",
        wanted.len()
    );
    Ok(ExitCode::from(u8::from(found > 0)))
}
