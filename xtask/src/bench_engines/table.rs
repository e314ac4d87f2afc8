//! What is printed: medians of each server, and ratios. A ratio is the median of
//! the ratios of each round, because what disturbs a round disturbs all in it.

use std::fmt::Write as _;

use super::{Outcome, Round, Subject};

/// What is compared with what.
const RATIOS: [(Subject, Subject); 5] = [
    (Subject::GatewayUring, Subject::BareRing),
    (Subject::GatewayEpoll, Subject::BareRing),
    (Subject::GatewayEpoll, Subject::BareEpoll),
    (Subject::GatewayUring, Subject::GatewayEpoll),
    (Subject::BareRing, Subject::BareEpoll),
];

/// The lowest, the middle and the highest of what `of` says of each round.
fn spread(rounds: &[Round], of: impl Fn(&Round) -> f64) -> [f64; 3] {
    spread_of(rounds.iter().map(of))
}

/// The lowest, the middle and the highest of at least one value.
pub(super) fn spread_of(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[0], values[values.len() - 1]);
    let (left, right) = ((values.len() - 1) / 2, values.len() / 2);
    [low, (values[left] + values[right]) / 2.0, high]
}

fn outcome(round: &Round, subject: Subject) -> &Outcome {
    &round[subject as usize]
}

/// The table of one number of connections; at least one round.
pub fn of(connections: u32, seconds: f64, rounds: &[Round]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(&mut out, connections, seconds, rounds);
    out
}

fn write_table(
    out: &mut String,
    connections: u32,
    seconds: f64,
    rounds: &[Round],
) -> std::fmt::Result {
    writeln!(
        out,
        "\n{connections} connections, one request of 64 bytes outstanding on each, \
         {} rounds of {seconds} s\n",
        rounds.len()
    )?;
    writeln!(
        out,
        "{:<18}{:>24}{:>12}{:>16}{:>15}{:>14}",
        "server",
        "CPU µs a round trip",
        "backend µs",
        "round trips/s",
        "server's core",
        "other core"
    )?;
    for subject in Subject::ALL {
        let [low, middle, high] = spread(rounds, |round| outcome(round, subject).cpu_us());
        let [_, rate, _] = spread(rounds, |round| outcome(round, subject).rate());
        let [_, backend, _] = spread(rounds, |round| outcome(round, subject).backend_cpu_us());
        let busy = |cpu_seconds: fn(&Outcome) -> f64| {
            let [_, busy, _] = spread(rounds, |round| {
                let outcome = outcome(round, subject);
                100.0 * cpu_seconds(outcome) / outcome.seconds
            });
            busy
        };
        writeln!(
            out,
            "{:<18}{:>24}{backend:>12.2}{rate:>16.0}{:>13.0} %{:>12.0} %",
            subject.name(),
            format!("{middle:.2} ({low:.2}–{high:.2})"),
            busy(|outcome| outcome.server_cpu_seconds),
            busy(|outcome| outcome.load_cpu_seconds + outcome.backend_cpu_seconds),
        )?;
    }
    writeln!(out, "\nratio of CPU a round trip")?;
    for (a, b) in RATIOS {
        let [low, middle, high] = spread(rounds, |round| {
            outcome(round, a).cpu_us() / outcome(round, b).cpu_us()
        });
        writeln!(
            out,
            "{:<44}{middle:.2} ({low:.2}–{high:.2})",
            format!("{} / {}", a.name(), b.name())
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
