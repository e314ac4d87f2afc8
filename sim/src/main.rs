//! The command line of the simulator: seeds in, one line a seed out.

use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use sim::{Course, Plant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code where a rule was broken.
const BROKEN: u8 = 1;
/// Exit code where nothing could be run.
const UNUSABLE: u8 = 2;

/// Simulates whole clusters, seed by seed, and checks that no rule breaks.
#[derive(Debug, Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  \
        sim --seed 42                              one run\n  \
        sim --seeds 0..300                         300 runs, a line each\n  \
        sim --seed 1 --hour                        an hour of cuts and losses\n  \
        sim --plant list                           the broken behaviours\n  \
        sim --seeds 0..100 --plant corrupt-payload shows that they are found\n\n\
        Exit codes: 0 no rule broke, 1 a rule broke (seed and rule are told), 2 could not run."
)]
struct Arguments {
    /// The seed of one run
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A run for each seed from A to below B
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Switch a broken behaviour on; `list` prints them
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Instead of what the seed draws, an hour of virtual time: 50 ms one way, 20 ms jitter, 5 %
    /// loss, and each client is cut off every 10 s
    #[arg(long)]
    hour: bool,
    /// Tell each event of the run on standard error
    #[arg(long)]
    trace: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let wanted = "expected A..B with A below B, for example 0..300";
    let (low, high) = text.split_once("..").ok_or(wanted)?;
    let low: u64 = low.parse().map_err(|_| wanted)?;
    let high: u64 = high.parse().map_err(|_| wanted)?;
    if low < high {
        Ok(low..high)
    } else {
        Err(wanted.to_owned())
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not failures.
            let code = if error.use_stderr() { UNUSABLE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if arguments.plant.as_deref() == Some("list") {
        for plant in Plant::ALL {
            println!(
                "{:<22} breaks {}: {}",
                plant.name(),
                plant.rule(),
                plant.about().trim()
            );
        }
        return ExitCode::SUCCESS;
    }
    let plant = match arguments
        .plant
        .as_deref()
        .map(|name| (name, Plant::by_name(name)))
    {
        None => None,
        Some((_, Some(plant))) => Some(plant),
        Some((name, None)) => {
            eprintln!("error: there is no plant `{name}`; `sim --plant list` shows them");
            return ExitCode::from(UNUSABLE);
        }
    };
    let seeds = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(seeds)) => seeds,
        (None, None) => {
            eprintln!("error: say which seeds to run, for example `sim --seeds 0..300`");
            return ExitCode::from(UNUSABLE);
        }
    };
    // A panic is a rule that broke; it is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let course = match arguments.hour {
        true => Course::Long { minutes: 60 },
        false => Course::Drawn,
    };
    run(seeds, course, plant, arguments.trace)
}

fn run(seeds: Range<u64>, course: Course, plant: Option<Plant>, loud: bool) -> ExitCode {
    let is_one = seeds.end - seeds.start == 1;
    let mut broken = false;
    for seed in seeds {
        if is_one {
            println!("seed {seed}");
        }
        match sim::run_course(seed, course, plant, loud) {
            Ok(report) => println!(
                "seed {seed} ok events={} digest={:016x}",
                report.events, report.digest
            ),
            Err(violation) => {
                println!("seed {seed} broke {violation}");
                eprintln!("seed {seed}: {violation}");
                broken = true;
            }
        }
    }
    ExitCode::from(if broken { BROKEN } else { 0 })
}
