//! `sallyport loadtest compare A.json B.json`: the figures of two results beside each other.
//!
//! Owns which figures are better high and which low. Runs nothing, and judges no run anew: a run
//! that was wrong says so in its result. Invariant: a file that is no result is refused, so that
//! an empty comparison never passes for a good one.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::fail_if::{FIELDS, LATENCIES};
use crate::plot::written;
use crate::progress::grouped;
use crate::{EXIT_GOOD, EXIT_UNABLE, EXIT_WRONG, plot};

/// Bytes of a result; real ones have a few thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// From this change on, part of A, a figure is named as worse.
const WORSE_FROM: f64 = 0.1;
/// Figures of one result; real ones have about fifty.
const FIGURES_MAX: usize = 1_000;
/// Difference, part of A, that two window lengths may have and still be called the same: a run
/// ends when its last send is made.
const SAME: f64 = 0.01;

/// Figures at the top of a result that are worse when they are lower.
const LOWER_IS_WORSE: &[&str] = &["clients_connected", "rate_reached"];
/// Figures at the top that are worse when they are higher.
const HIGHER_IS_WORSE: &[&str] = &[
    "connect_failures",
    "connect_seconds",
    "frames_lost",
    "frames_duplicated",
    "frames_out_of_order",
];
/// Objects whose figures are all worse when they are higher.
const HIGHER_IS_WORSE_IN: &[&str] = &["errors", "latency_us", "server"];
/// What should be the same in two runs that are compared.
const CONDITIONS: &[&str] = &[
    "scenario",
    "transport",
    "lane",
    "engine",
    "machine",
    "kernel",
    "clients_wanted",
    "rate_wanted",
    "duration_seconds",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// More is worse.
    HigherIsWorse,
    /// Less is worse.
    LowerIsWorse,
    /// Neither.
    Neutral,
}

fn direction(name: &str) -> Direction {
    let object = name.split('.').next().unwrap_or_default();
    if HIGHER_IS_WORSE.contains(&name) || HIGHER_IS_WORSE_IN.contains(&object) {
        Direction::HigherIsWorse
    } else if LOWER_IS_WORSE.contains(&name) {
        Direction::LowerIsWorse
    } else {
        Direction::Neutral
    }
}

/// One figure of both results.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    a: Option<f64>,
    b: Option<f64>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let (a, b) = self.a.zip(self.b)?;
        match (a == 0.0, b == 0.0) {
            (true, true) => Some(1.0),
            (true, false) => Some(f64::INFINITY),
            _ => Some(b / a),
        }
    }

    fn is_worse(&self) -> bool {
        let Some((a, b)) = self.a.zip(self.b) else {
            return false;
        };
        // Of a negative figure (memory that was given back) a tenth of its size, too.
        let margin = a.abs() * WORSE_FROM;
        match direction(&self.name) {
            Direction::HigherIsWorse => b > a + margin,
            Direction::LowerIsWorse => b < a - margin,
            Direction::Neutral => false,
        }
    }
}

/// Compares two files, prints, and returns the exit code.
pub fn run(a: &Path, b: &Path) -> u8 {
    let results = read(a).and_then(|a| Ok((a, read(b)?)));
    match results {
        Ok((first, second)) => {
            let (text, code) = compare((&name(a), &first), (&name(b), &second));
            // A reader that has gone (`| head`) is no reason to fail.
            let _ = std::io::stdout().write_all(text.as_bytes());
            code
        }
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "error: {problem}");
            EXIT_UNABLE
        }
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// Reads a result.
fn read(path: &Path) -> Result<Value, String> {
    let refuse = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|error| refuse(&error))?;
    let strange = "this is not what `sallyport loadtest --json` writes";
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse(&strange));
    }
    if text.is_empty() {
        return Err(refuse(
            &"it is empty: the run that was to write it was not made",
        ));
    }
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| refuse(&format!("{strange}: {error}")))?;
    let is_result = value.get("scenario").is_some_and(Value::is_string)
        && ["frames_sent", "frames_lost", "clients_wanted"]
            .iter()
            .all(|field| value.get(field).is_some_and(Value::is_number));
    if is_result {
        Ok(value)
    } else {
        Err(refuse(&strange))
    }
}

/// The text and the exit code.
fn compare(a: (&str, &Value), b: (&str, &Value)) -> (String, u8) {
    let mut out = String::new();
    for (letter, (name, result)) in [('A', a), ('B', b)] {
        let field = |field: &str| result.get(field).and_then(Value::as_str).unwrap_or("?");
        let _ = writeln!(
            out,
            "{letter}  {name}: {}, {}, {}, engine {}, commit {}",
            field("scenario"),
            field("transport"),
            field("lane"),
            field("engine"),
            field("git_commit")
        );
    }
    let different: Vec<&str> = CONDITIONS
        .iter()
        .copied()
        .filter(|field| !is_same(a.1.get(field), b.1.get(field)))
        .collect();
    if !different.is_empty() {
        let _ = writeln!(out, "the runs differ in: {}", different.join(", "));
    }
    out.push('\n');
    let rows = rows(a.1, b.1);
    table(&mut out, &rows);
    out.push('\n');
    match rows.iter().filter(|row| row.is_worse()).count() {
        0 => out.push_str("good: nothing got worse by more than 10 %\n"),
        1 => out.push_str("1 figure got worse by more than 10 %\n"),
        count => {
            let _ = writeln!(out, "{count} figures got worse by more than 10 %");
        }
    }
    let mut code = EXIT_GOOD;
    for (letter, result) in [('A', a.1), ('B', b.1)] {
        let faults = faults(result);
        if !faults.is_empty() {
            code = EXIT_WRONG;
            let _ = writeln!(out, "wrong: in {letter}, {}", faults.join(", "));
        }
    }
    (out, code)
}

fn is_same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a.and_then(Value::as_f64), b.and_then(Value::as_f64)) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs() * SAME,
        _ => a == b,
    }
}

/// What was wrong in a run: losses, and errors of any reason.
fn faults(result: &Value) -> Vec<String> {
    let mut faults: Vec<String> = [
        ("frames_lost", "lost"),
        ("frames_duplicated", "doubled"),
        ("frames_out_of_order", "out of order"),
    ]
    .iter()
    .filter_map(|(field, what)| {
        let count = result.get(field).and_then(Value::as_u64)?;
        (count > 0).then(|| format!("{} {what}", grouped(count)))
    })
    .collect();
    if let Some(errors) = result.get("errors").and_then(Value::as_object) {
        faults.extend(
            errors
                .iter()
                .filter_map(|(reason, count)| Some((reason, count.as_u64()?)))
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| format!("{} × {reason}", grouped(count))),
        );
    }
    faults
}

/// Every numeric field of either result, in the order of the contract, others after them.
fn rows(a: &Value, b: &Value) -> Vec<Row> {
    let mut names = Vec::new();
    collect(a, "", &mut names);
    collect(b, "", &mut names);
    let rank = |name: &str| {
        let latencies = LATENCIES.iter().map(|field| ("latency_us.", *field));
        let fields = FIELDS.iter().map(|field| ("", *field)).chain(latencies);
        let mut known = fields.map(|(prefix, field)| name.strip_prefix(prefix) == Some(field));
        known.position(|is_it| is_it).unwrap_or(usize::MAX)
    };
    names.sort_by(|one, other| rank(one).cmp(&rank(other)).then_with(|| one.cmp(other)));
    names.dedup();
    names
        .into_iter()
        .map(|name| Row {
            a: figure(a, &name),
            b: figure(b, &name),
            name,
        })
        .collect()
}

/// Names of numeric fields, those of objects with dots.
fn collect(value: &Value, prefix: &str, names: &mut Vec<String>) {
    let Some(object) = value.as_object() else {
        return;
    };
    for (key, value) in object {
        let name = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        if value.is_number() && names.len() < 2 * FIGURES_MAX {
            names.push(name);
        } else {
            collect(value, &name, names);
        }
    }
}

fn figure(result: &Value, name: &str) -> Option<f64> {
    let value = name
        .split('.')
        .try_fold(result, |value, key| value.get(key))
        .and_then(Value::as_f64);
    match name.strip_prefix("errors.") {
        // What did not happen is not in a result.
        Some(_) => Some(value.unwrap_or(0.0)),
        None => value,
    }
}

fn table(out: &mut String, rows: &[Row]) {
    let shown = |value: Option<f64>, name: &str| {
        value.map_or_else(|| String::from("-"), |value| cell(value, name))
    };
    let cells: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            [
                row.name.clone(),
                shown(row.a, &row.name),
                shown(row.b, &row.name),
                match row.ratio() {
                    Some(ratio) if ratio.is_finite() => format!("{ratio:.3}"),
                    Some(_) => String::from("new"),
                    None => String::from("-"),
                },
            ]
        })
        .collect();
    let heading = ["", "A", "B", "B/A"].map(String::from);
    let widths: Vec<usize> = (0..heading.len())
        .map(|at| {
            let all = cells.iter().chain([&heading]);
            all.map(|row| row[at].chars().count()).max().unwrap_or(0)
        })
        .collect();
    let worse = rows.iter().map(Row::is_worse);
    for (row, is_worse) in [&heading]
        .into_iter()
        .chain(&cells)
        .zip([false].into_iter().chain(worse))
    {
        let [name, a, b, ratio] = row;
        let _ = writeln!(
            out,
            "{name:<0$}  {a:>1$}  {b:>2$}  {ratio:>3$}{4}",
            widths[0],
            widths[1],
            widths[2],
            widths[3],
            if is_worse { "  worse" } else { "" }
        );
    }
}

/// A number as people read it; memory with its unit.
fn cell(value: f64, name: &str) -> String {
    if name.contains("rss_bytes") {
        return written(value, plot::Unit::Bytes);
    }
    // Exact for whole numbers below 2^53.
    if value.fract() == 0.0 && (0.0..9e15).contains(&value) {
        grouped(value as u64)
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests;
