//! `bench-fanout`: what it costs the gateway to give one message of a channel to each member,
//! compared with two bare ways to send the same bytes over as many sockets: a loop of `write`, and
//! a ring whose sends share one buffer.
//!
//! The next message is said when all members have heard the last one, and each hearing is checked.
//! The members' process does not sleep meanwhile, so that no server pays for waking it.
//!
//! Invariant: in a round the bare servers send messages as long as the gateway's frames were.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

use super::cluster::Cluster;
use super::servers::Server;
use super::table::spread_of;
use super::{Bench, Outcome, Profile, ROUNDS, WARM_UP_SECONDS};

/// Arguments of the task.
#[derive(Args)]
pub struct BenchFanOut {
    /// Members of the channel
    #[arg(long, default_value_t = 9_900, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    members: u32,
    /// Bytes of a message's payload
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..=4_000))]
    payload_bytes: u16,
    /// Seconds that are measured in each run [default: 3]
    #[arg(long)]
    seconds: Option<f64>,
    /// Runs of each server [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Only see that it works: one short round with few members, not optimised
    #[arg(long)]
    quick: bool,
}

/// What is measured, in the order of a round.
const NAMES: [&str; 4] = [
    "gateway, uring",
    "gateway, epoll",
    "bare write loop",
    "bare ring",
];

type Round = [Outcome; NAMES.len()];

/// Runs the task.
pub fn run(args: &BenchFanOut) -> anyhow::Result<ExitCode> {
    let (members, seconds, rounds) = if args.quick {
        (args.members.min(50), 0.3, 1)
    } else {
        (args.members, 3.0, ROUNDS)
    };
    let seconds = args.seconds.unwrap_or(seconds);
    let warm_up_seconds = if args.quick { 0.1 } else { WARM_UP_SECONDS };
    let profile = if args.quick {
        Profile::Dev
    } else {
        Profile::Release
    };
    let bench = Bench::new(profile, seconds, warm_up_seconds)?;
    let mut done = Vec::new();
    for round in 1..=args.rounds.unwrap_or(rounds) {
        eprintln!("round {round}, {members} members");
        done.push(measure(&bench, members, args.payload_bytes)?);
    }
    print(members, args.payload_bytes, seconds, &done);
    Ok(ExitCode::SUCCESS)
}

fn measure(bench: &Bench, members: u32, payload_bytes: u16) -> anyhow::Result<Round> {
    let uring = gateway(bench, "uring", members, payload_bytes)?;
    let epoll = gateway(bench, "epoll", members, payload_bytes)?;
    let bytes = (uring.received_bytes as f64 / uring.round_trips as f64).round();
    let bare = |binary: &str| -> anyhow::Result<Outcome> {
        let server = Server::echo(&bench.binaries.join(binary), bench.server_core)?;
        let mode = [
            "--mode",
            "fan-out-raw",
            "--payload-bytes",
            &bytes.to_string(),
        ];
        bench
            .load(&server, members, &mode)
            .context(binary.to_owned())
    };
    Ok([
        uring,
        epoll,
        bare("bare-write-fan-out")?,
        bare("bare-ring-fan-out")?,
    ])
}

fn gateway(
    bench: &Bench,
    engine: &str,
    members: u32,
    payload_bytes: u16,
) -> anyhow::Result<Outcome> {
    let cluster = Cluster::start(bench, engine, "chat")?;
    let mode = [
        "--mode",
        "fan-out-gateway",
        "--payload-bytes",
        &payload_bytes.to_string(),
        "--key",
        &cluster.gateway_key,
        "--token-key",
        &cluster.token_secret,
        "--cpu-of-backend",
        &cluster.game.process.to_string(),
    ];
    let outcome = bench
        .load(&cluster.gateway, members, &mode)
        .with_context(|| cluster.logs())?;
    ensure!(
        outcome.received_bytes > 0,
        "the members heard nothing at all"
    );
    Ok(outcome)
}

fn print(members: u32, payload_bytes: u16, seconds: f64, rounds: &[Round]) {
    let Some(first) = rounds.first() else {
        return;
    };
    let frame_bytes = first[0].received_bytes as f64 / first[0].round_trips as f64;
    println!(
        "\n{members} members, payloads of {payload_bytes} bytes ({frame_bytes:.1} sent), {} rounds of {seconds} s\n",
        rounds.len()
    );
    println!(
        "{:<18}{:>24}{:>14}{:>15}{:>14}",
        "server", "CPU µs a recipient", "messages/s", "server's core", "other core"
    );
    for (at, name) in NAMES.iter().enumerate() {
        let middle = |of: &dyn Fn(&Outcome) -> f64| spread_of(rounds.iter().map(|it| of(&it[at])));
        let [low, cpu_us, high] = middle(&Outcome::cpu_us);
        let [_, rate, _] = middle(&|it| it.rate() / f64::from(members));
        let [_, busy, _] = middle(&|it| 100.0 * it.server_cpu_seconds / it.seconds);
        let [_, other, _] =
            middle(&|it| 100.0 * (it.load_cpu_seconds + it.backend_cpu_seconds) / it.seconds);
        println!(
            "{name:<18}{:>24}{rate:>14.1}{busy:>13.0} %{other:>12.0} %",
            format!("{cpu_us:.2} ({low:.2}–{high:.2})")
        );
    }
    println!("\nratio of CPU a recipient to that of the cheaper bare way");
    for (at, name) in NAMES[..2].iter().enumerate() {
        let [low, middle, high] = spread_of(
            rounds
                .iter()
                .map(|it| it[at].cpu_us() / it[2].cpu_us().min(it[3].cpu_us())),
        );
        println!("{name:<18}{middle:.2} ({low:.2}–{high:.2})");
    }
}
