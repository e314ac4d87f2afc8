//! The page that `--html` writes: the figures of a run and its plots, in one file.
//!
//! Owns the page and its look. Draws with [`plot`], judges nothing. Invariant: the page loads
//! nothing: no script, no font, no picture, no address in it that a browser would fetch.

use std::fmt::Write as _;

use crate::args::Scenario;
use crate::plot::{self, Axis, Bar, Chart, Scale, Series, Unit, escape, written};
use crate::progress::grouped;
use crate::report::Report;
use crate::server::Loss;
use crate::timeline::Timeline;

/// Series of losses that are shown singly, the most frequent ones.
const LOSSES_MAX: usize = 30;

/// What the plots of a run are drawn from.
#[derive(Debug, Default)]
pub struct Record {
    /// A sample a second, thinned.
    pub timeline: Timeline,
    /// The measured window: start and length, seconds. Nothing if the run did not get there.
    pub window: Option<(f64, f64)>,
    /// All latencies: (quantile, microseconds).
    pub curve: Vec<(f64, f64)>,
    /// Roles of the server, each with the number of the process that it is in.
    pub roles: Vec<(String, usize)>,
    /// What the server lost and closed in the run; nothing if it did not tell.
    pub losses: Option<Vec<Loss>>,
}

const TIME: Axis = Axis {
    name: "seconds since the start",
    scale: Scale::Linear,
    unit: Unit::Seconds,
};

/// Colours keep a contrast of 4.5 to the ground in both schemes.
const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#fff;--text:#1c2330;--faint:#5b6472;--grid:#e3e6eb;\
--window:#f1f4f9;--good:#1a7f37;--bad:#b42318;\
--s0:#1f5fbf;--s1:#b4540a;--s2:#1f7a4d;--s3:#8a3ab9;--s4:#b3261e;--s5:#0f7285}\
@media(prefers-color-scheme:dark){:root{--ground:#12161d;--text:#e4e8ee;--faint:#9aa5b4;\
--grid:#2a313c;--window:#1a212b;--good:#4cc26f;--bad:#ff8278;\
--s0:#6ea8ff;--s1:#f2a65a;--s2:#5fce94;--s3:#cf9bf5;--s4:#ff8a80;--s5:#5cc8da}}\
body{margin:0;background:var(--ground);color:var(--text);font:15px/1.5 system-ui,sans-serif}\
main{max-width:760px;margin:0 auto;padding:24px 20px 60px}\
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:34px 0 6px}\
p{margin:4px 0}.faint{color:var(--faint)}.good{color:var(--good)}.bad{color:var(--bad)}\
ul{margin:4px 0;padding-left:20px}\
code{font-size:13px;overflow-wrap:anywhere}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}\
th,td{text-align:right;padding:3px 8px;border-bottom:1px solid var(--grid);font-weight:400}\
th{color:var(--faint)}th:first-child,td:first-child{text-align:left;padding-left:0}.plain td{text-align:left}\
.wide{overflow-x:auto}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:18px 0}\
.tiles div{border:1px solid var(--grid);border-radius:8px;padding:8px 12px}\
.tiles b{display:block;font-size:18px;font-weight:600}.tiles span{color:var(--faint);font-size:13px}\
svg{display:block;width:100%;height:auto}\
svg text{font:12px system-ui,sans-serif;fill:var(--faint)}\
.grid{stroke:var(--grid)}.axis{stroke:var(--faint)}.window{fill:var(--window)}\
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}\
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:13px}\
.key{display:inline-block;width:14px;height:4px;border-radius:2px;margin-right:6px;vertical-align:middle}\
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}\
.s5{--c:var(--s5)}.line{stroke:var(--c)}.line.s1{stroke-dasharray:7 4}.line.s3{stroke-dasharray:2 3}.mark,.bar{fill:var(--c)}.key{background:var(--c)}";

/// The whole page.
pub fn page(report: &Report, wrong: &[String], record: &Record) -> String {
    let mut out = String::new();
    let title = escape(&format!(
        "{} over {}, {} clients",
        report.scenario,
        report.transport,
        grouped(u64::from(report.clients_wanted))
    ));
    let _ = writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width\"/>\
         <title>Load test: {title}</title>\n<style>{STYLE}</style></head>\n<body><main>\n\
         <h1>Load test: {title}</h1>"
    );
    verdict(&mut out, report, wrong);
    tiles(&mut out, report);
    if record.window.is_some() {
        out.push_str(
            "<p class=\"faint\">The shaded stretch of a plot is the measured window.</p>\n",
        );
    }
    for (chart, remark) in charts(report, record) {
        let _ = writeln!(out, "<section><h2>{}</h2>", escape(chart.title));
        if !remark.is_empty() {
            let _ = writeln!(out, "<p class=\"faint\">{}</p>", escape(&remark));
        }
        out.push_str(&chart.legend());
        out.push_str(&chart.svg());
        out.push_str("</section>\n");
    }
    losses(&mut out, record);
    server(&mut out, report);
    about(&mut out, report);
    out.push_str("</main></body></html>\n");
    out
}

fn verdict(out: &mut String, report: &Report, wrong: &[String]) {
    if wrong.is_empty() {
        let _ = writeln!(out, "<p class=\"good\">✓ Good: {}.</p>", report.praise());
        return;
    }
    out.push_str("<p class=\"bad\">✗ Something is wrong:</p>\n<ul class=\"bad\">");
    for line in wrong {
        let _ = write!(out, "<li>{}</li>", escape(line));
    }
    out.push_str("</ul>\n");
}

fn tiles(out: &mut String, report: &Report) {
    let micros = |us: u64| written(us as f64, Unit::Micros);
    let latency = &report.latency_us;
    let lost = format!(
        "{} / {} / {}",
        grouped(report.frames_lost),
        grouped(report.frames_duplicated),
        grouped(report.frames_out_of_order)
    );
    let mut tiles = vec![
        (
            format!(
                "{} of {}",
                grouped(u64::from(report.clients_connected)),
                grouped(u64::from(report.clients_wanted))
            ),
            format!("clients, in {:.1} s", report.connect_seconds),
        ),
        (
            format!("{} /s", grouped(report.rate_reached.round() as u64)),
            format!(
                "sent for {:.1} s, of {} /s wanted",
                report.duration_seconds,
                grouped(report.rate_wanted.round() as u64)
            ),
        ),
        (grouped(report.frames_sent), String::from("sent")),
        (grouped(report.frames_received), String::from("received")),
        (lost, String::from("lost / doubled / out of order")),
        (micros(latency.p50), String::from("latency p50")),
        (micros(latency.p99), String::from("latency p99")),
        (micros(latency.p999), String::from("latency p99.9")),
        (micros(latency.max), String::from("largest latency")),
    ];
    if let Some(visible) = report.visible_mean {
        tiles.push((
            format!("{visible:.2}"),
            String::from("others in view, on average"),
        ));
    }
    if let Some(beside) = report.frames_sent_beside {
        tiles.push((grouped(beside), String::from("sent beside the connection")));
    }
    if let Some(mixed) = &report.mixed {
        tiles.extend([
            (
                format!(
                    "{} / {} / {}",
                    grouped(mixed.requests_sent),
                    grouped(mixed.sequenced_sent),
                    grouped(mixed.unreliable_sent)
                ),
                String::from("requests / sequenced / unreliable"),
            ),
            (
                format!("{:.1} MB", mixed.payload_bytes_sent as f64 / 1e6),
                String::from("payloads sent"),
            ),
            (
                format!("{} / {}", grouped(mixed.cuts), grouped(mixed.logouts)),
                String::from("cuts / logouts and new logins"),
            ),
            (
                grouped(mixed.frames_lost_allowed),
                String::from("lost where none is promised"),
            ),
        ]);
    }
    if let (Some(resumes), Some(p99)) = (report.resumes, report.back_p99_us) {
        tiles.push((
            grouped(resumes),
            format!("resumes; back in {} at p99", micros(p99)),
        ));
    }
    out.push_str("<div class=\"tiles\">");
    for (figure, name) in tiles {
        let _ = write!(
            out,
            "<div><b>{}</b><span>{}</span></div>",
            escape(&figure),
            escape(&name)
        );
    }
    out.push_str("</div>\n");
}

/// The charts that there is something for, each with a remark.
fn charts(report: &Report, record: &Record) -> Vec<(Chart, String)> {
    let latency_of = if report.scenario == Scenario::Walk.as_str() {
        "from the intended move until another sees it (log)"
    } else {
        "from the intended send to the reply (log)"
    };
    let samples = || record.timeline.samples();
    let window = record.window.map(|(start, length)| (start, start + length));
    let over_time = |title, name, scale, unit, series| Chart {
        title,
        x: TIME,
        y: Axis { name, scale, unit },
        series,
        window,
    };
    let line = |name: &str, points: Vec<(f64, Option<f64>)>| Series {
        name: name.to_owned(),
        points,
    };
    let of = |pick: &dyn Fn(&crate::timeline::Sample) -> Option<f64>| {
        samples()
            .map(|sample| (sample.at_seconds, pick(sample)))
            .collect()
    };
    let mut charts = vec![
        (
            over_time(
                "Connections",
                "clients logged in",
                Scale::Linear,
                Unit::Count,
                vec![line("clients", of(&|s| Some(f64::from(s.clients))))],
            ),
            String::new(),
        ),
        (
            over_time(
                "Rates",
                "messages a second",
                Scale::Linear,
                Unit::Count,
                vec![
                    line("sent", of(&|s| Some(s.sent_per_second))),
                    line("received", of(&|s| Some(s.received_per_second))),
                ],
            ),
            String::new(),
        ),
        (
            over_time(
                "Latency over time",
                latency_of,
                Scale::Log,
                Unit::Micros,
                vec![
                    line("p50", of(&|s| s.latency.map(|latency| latency.p50_us))),
                    line("p99", of(&|s| s.latency.map(|latency| latency.p99_us))),
                ],
            ),
            String::new(),
        ),
        (
            Chart {
                title: "Latency by percentile",
                x: Axis {
                    name: "of all are quicker",
                    scale: Scale::Quantile,
                    unit: Unit::Percent,
                },
                y: Axis {
                    name: latency_of,
                    scale: Scale::Log,
                    unit: Unit::Micros,
                },
                series: vec![line(
                    "latency",
                    record
                        .curve
                        .iter()
                        .map(|(quantile, us)| (*quantile, Some(*us)))
                        .collect(),
                )],
                window: None,
            },
            String::new(),
        ),
    ];
    if !record.roles.is_empty() {
        charts.push((
            over_time(
                "CPU by role",
                "cores in use",
                Scale::Linear,
                Unit::Number,
                cpu(record),
            ),
            String::new(),
        ));
        let lines = memory(record);
        let remark = match &lines[..] {
            [line] if record.roles.len() > 1 => format!("Of one process: {}.", line.name),
            _ => String::from("Roles that share a process share its memory."),
        };
        charts.push((
            over_time(
                "Memory by role",
                "resident memory",
                Scale::Linear,
                Unit::Bytes,
                lines,
            ),
            remark,
        ));
    }
    charts
}

/// Cores that each role used between two readings.
fn cpu(record: &Record) -> Vec<Series> {
    let readings: Vec<_> = record
        .timeline
        .samples()
        .filter_map(|sample| sample.server.as_ref())
        .collect();
    let of = |role: usize| {
        readings
            .windows(2)
            .filter_map(|pair| {
                let seconds = pair[1].at_seconds - pair[0].at_seconds;
                // Two samples may show the same reading.
                (seconds > 0.0).then(|| {
                    let used = pair[0]
                        .roles
                        .get(role)?
                        .cpu_seconds
                        .zip(pair[1].roles.get(role)?.cpu_seconds);
                    Some((
                        pair[1].at_seconds,
                        used.map(|(before, now)| ((now - before) / seconds).max(0.0)),
                    ))
                })?
            })
            .collect()
    };
    record
        .roles
        .iter()
        .enumerate()
        .map(|(at, (name, _))| Series {
            name: name.clone(),
            points: of(at),
        })
        .collect()
}

/// Memory of each process, named after its roles.
fn memory(record: &Record) -> Vec<Series> {
    let mut lines: Vec<(usize, Series)> = Vec::new();
    for (at, (name, process)) in record.roles.iter().enumerate() {
        if let Some((_, line)) = lines.iter_mut().find(|(known, _)| known == process) {
            line.name.push_str(" + ");
            line.name.push_str(name);
            continue;
        }
        let points = record
            .timeline
            .samples()
            .filter_map(|sample| sample.server.as_ref())
            .map(|reading| {
                let bytes = reading.roles.get(at).and_then(|role| role.rss_bytes);
                (reading.at_seconds, bytes.map(|bytes| bytes as f64))
            })
            .collect();
        let name = name.clone();
        lines.push((*process, Series { name, points }));
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Drops, and closed connections, by reason.
fn losses(out: &mut String, record: &Record) {
    let Some(losses) = &record.losses else {
        return;
    };
    for (title, ending, look, none) in [
        (
            "Drops by reason",
            "_drops_total",
            4,
            "The server dropped nothing.",
        ),
        (
            "Closed connections by reason",
            "_closes_total",
            0,
            "The server closed nothing.",
        ),
    ] {
        let mut bars: Vec<Bar> = losses
            .iter()
            .filter_map(|loss| {
                Some(Bar {
                    name: short(&loss.series, ending)?,
                    value: loss.count,
                    look,
                })
            })
            .collect();
        bars.sort_by_key(|bar| std::cmp::Reverse(bar.value));
        bars.truncate(LOSSES_MAX);
        let _ = writeln!(out, "<section><h2>{title}</h2>");
        if bars.is_empty() {
            let _ = writeln!(out, "<p class=\"good\">✓ {none}</p>");
        } else {
            out.push_str(&plot::bars(title, &bars));
        }
        out.push_str("</section>\n");
    }
}

/// `gateway: login_timeout` for `sallyport_gateway_drops_total{reason="login_timeout"}`; nothing
/// for series of another ending.
fn short(series: &str, ending: &str) -> Option<String> {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let area = name.strip_suffix(ending)?;
    let area = area.strip_prefix("sallyport_").unwrap_or(area);
    let values: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
    Some(if values.is_empty() {
        area.to_owned()
    } else {
        format!("{area}: {}", values.join(", "))
    })
}

fn server(out: &mut String, report: &Report) {
    if report.server.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Server</h2>\n<div class=\"wide\"><table><tr><th>role</th><th>CPU</th>\
         <th>CPU a message</th><th>memory before</th><th>idle</th><th>at most</th>\
         <th>a client</th></tr>",
    );
    let bytes = |value: Option<u64>| value.map(|value| written(value as f64, Unit::Bytes));
    for (role, figures) in &report.server {
        let _ = write!(out, "<tr><td>{}</td>", escape(role));
        for cell in [
            figures.cpu_seconds.map(|seconds| format!("{seconds:.2} s")),
            figures.cpu_us_per_frame.map(|us| written(us, Unit::Micros)),
            bytes(figures.rss_bytes_before),
            bytes(figures.rss_bytes_idle),
            bytes(figures.rss_bytes_peak),
            figures
                .rss_bytes_per_client
                .map(|value| written(value, Unit::Bytes)),
        ] {
            let cell = cell.unwrap_or_else(|| String::from("–"));
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div></section>\n");
}

fn about(out: &mut String, report: &Report) {
    out.push_str("<section><h2>Run</h2>\n<table class=\"plain\">");
    let seed = report.seed.to_string();
    for (name, value) in [
        ("scenario", report.scenario),
        ("transport", report.transport),
        ("lane", report.lane),
        ("seed", &seed),
        ("gateway's engine", &report.engine),
        ("machine", &report.machine),
        ("kernel", &report.kernel),
        ("commit", report.git_commit),
    ] {
        let _ = write!(out, "<tr><td>{name}</td><td>{}</td></tr>", escape(value));
    }
    let _ = writeln!(
        out,
        "</table>\n<p class=\"faint\">Command</p>\n<p><code>{}</code></p></section>",
        escape(&report.command)
    );
}

#[cfg(test)]
pub(crate) mod tests;
