//! Line and bar charts as SVG text, for pages that load nothing.
//!
//! Owns axes, ticks and marks; colours come from the page as the CSS classes `s0`…`s5` (series),
//! `grid`, `axis` and `window`. Knows nothing of load tests. Invariant: what it returns is one
//! well-formed `<svg>`, whatever the numbers and names are.

use std::fmt::Write as _;

/// Width of each chart, in SVG units.
const WIDTH: f64 = 720.0;
/// Height of a line chart.
const HEIGHT: f64 = 260.0;
/// Room to the left, for the ticks of the value axis.
const LEFT: f64 = 74.0;
/// Room to the right, for the half of the last tick's text.
const RIGHT: f64 = 22.0;
/// Room above, for the value axis' name.
const TOP: f64 = 26.0;
/// Room below, for the ticks and the name of the other axis.
const BOTTOM: f64 = 44.0;
/// Ticks of an axis, about.
const TICKS: f64 = 5.0;
/// Points of a series up to which each gets a mark with its value.
const MARKS_MAX: usize = 60;
/// Series of different look; more begin again from the first.
pub const LOOKS: usize = 6;
/// Height of a bar with the gap below it.
const BAR_STEP: f64 = 24.0;
/// Room to the left of bars, for their names.
const BAR_LEFT: f64 = 300.0;
/// Room to the right of bars, for their numbers.
const BAR_RIGHT: f64 = 90.0;

/// How an axis spaces its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// By powers of ten; what is not above 0 is not drawn.
    Log,
    /// Quantiles in 0..1, by how few lie above: 0.9, 0.99, 0.999 are evenly spaced.
    Quantile,
}

/// How numbers on an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 1,200 as 1.2 k.
    Count,
    /// Seconds, plain.
    Seconds,
    /// Microseconds, as µs, ms or s.
    Micros,
    /// Bytes, as KiB, MiB or GiB.
    Bytes,
    /// A plain number, such as of cores.
    Number,
    /// 0.99 as 99 %.
    Percent,
}

/// One axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// What it shows.
    pub name: &'static str,
    /// How it is spaced.
    pub scale: Scale,
    /// How its numbers are written.
    pub unit: Unit,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// (x, y), x rising; no y interrupts the line.
    pub points: Vec<(f64, Option<f64>)>,
}

/// A chart of lines.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it is, for those who do not see it.
    pub title: &'static str,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
    /// A stretch of x to be shaded.
    pub window: Option<(f64, f64)>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Beside it.
    pub name: String,
    /// Its length.
    pub value: u64,
    /// Its look, below [`LOOKS`].
    pub look: usize,
}

/// Where a linear axis ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With its values.
    Value,
    /// With the first tick that no value exceeds.
    Tick,
}

/// The range of an axis, from its scale's view.
struct Range {
    low: f64,
    high: f64,
    scale: Scale,
}

impl Range {
    /// Wide enough for all values; never empty.
    fn of(values: impl Iterator<Item = f64>, axis: Axis, ends: Ends) -> Self {
        let scale = axis.scale;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| is_drawn(*value, scale)) {
            low = low.min(value);
            high = high.max(value);
        }
        let (low, high) = match scale {
            _ if low > high => match scale {
                Scale::Linear => (0.0, 1.0),
                Scale::Log => (1.0, 10.0),
                Scale::Quantile => (0.0, 0.9),
            },
            Scale::Linear => {
                let high = if high > 0.0 { high } else { 1.0 };
                (low.min(0.0), high)
            }
            // At least a decade, ends on whole ones.
            Scale::Log => {
                let low = 10_f64.powf(low.log10().floor());
                let high = 10_f64.powf(high.log10().ceil());
                (low, high.max(low * 10.0))
            }
            Scale::Quantile => (0.0, high.max(0.9)),
        };
        let high = if scale == Scale::Linear && ends == Ends::Tick {
            let step = tick_step(high - low, axis.unit);
            (high / step).ceil() * step
        } else {
            high
        };
        Self { low, high, scale }
    }

    /// Where a value lies, 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let place = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
            Scale::Quantile => -(1.0 - value).log10(),
        };
        let (low, high) = (place(self.low), place(self.high));
        ((place(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn ticks(&self, unit: Unit) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = tick_step(self.high - self.low, unit);
                let first = (self.low / step).ceil() as i64;
                let last = (self.high / step + 1e-9).floor() as i64;
                (first..=last).map(|at| at as f64 * step).collect()
            }
            Scale::Log => {
                let first = self.low.log10().round() as i32;
                let last = self.high.log10().round() as i32;
                (first..=last).map(|at| 10_f64.powi(at)).collect()
            }
            Scale::Quantile => {
                let tens = (1..=9).map(|nines| 1.0 - 10_f64.powi(-nines));
                [0.0, 0.5]
                    .into_iter()
                    .chain(tens)
                    .filter(|tick| *tick <= self.high + 1e-12)
                    .collect()
            }
        }
    }
}

fn is_drawn(value: f64, scale: Scale) -> bool {
    value.is_finite()
        && match scale {
            Scale::Linear => true,
            Scale::Log => value > 0.0,
            Scale::Quantile => (0.0..1.0).contains(&value),
        }
}

/// 1, 2 or 5 times a power of ten (of two for bytes), about [`TICKS`] of them in `span`.
fn tick_step(span: f64, unit: Unit) -> f64 {
    let raw = (span / TICKS).max(f64::MIN_POSITIVE);
    let base = match unit {
        Unit::Bytes => 1_024_f64.powf(raw.log(1_024.0).floor()),
        _ => 1.0,
    };
    let ten = 10_f64.powf((raw / base).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * ten * base >= raw * 0.999)
        .unwrap_or(10.0);
    // Half a client does not exist.
    match unit {
        Unit::Count => (step * ten).max(1.0),
        _ => step * ten * base,
    }
}

/// Three digits at most, without zeros at the end.
fn plain(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A number with its unit, for people.
pub fn written(value: f64, unit: Unit) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (by, name) = steps
            .iter()
            .rev()
            .find(|(by, _)| value.abs() >= *by)
            .or(steps.first())
            .copied()
            .unwrap_or((1.0, ""));
        format!("{}{name}", plain(value / by))
    };
    match unit {
        Unit::Count => scaled(&[(1.0, ""), (1e3, " k"), (1e6, " M"), (1e9, " G")]),
        Unit::Seconds | Unit::Number => plain(value),
        Unit::Micros => scaled(&[(1.0, " µs"), (1e3, " ms"), (1e6, " s")]),
        Unit::Bytes => {
            let ki = 1_024.0;
            scaled(&[
                (1.0, " B"),
                (ki, " KiB"),
                (ki * ki, " MiB"),
                (ki * ki * ki, " GiB"),
            ])
        }
        Unit::Percent => {
            let text = format!("{:.7}", value * 100.0);
            format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// Text that stands for itself in HTML and SVG. Addresses lose their slashes to references, so
/// that a look for `://` finds no page that loads something.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '/' => out.push_str("&#47;"),
            // Not allowed in XML at all.
            control if control.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

impl Chart {
    /// Draws it.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let shaded = self.window.into_iter().flat_map(|(from, to)| [from, to]);
        let x = Range::of(points().map(|(x, _)| *x).chain(shaded), self.x, Ends::Value);
        let y = Range::of(points().filter_map(|(_, y)| *y), self.y, Ends::Tick);
        let to_x = |value: f64| LEFT + x.part(value) * (WIDTH - LEFT - RIGHT);
        let to_y = |value: f64| HEIGHT - BOTTOM - y.part(value) * (HEIGHT - TOP - BOTTOM);
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);

        let mut out = open(HEIGHT, self.title);
        if let Some((from, to)) = self.window {
            let (from, to) = (to_x(from), to_x(to));
            let _ = writeln!(
                out,
                "<rect class=\"window\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (to - from).max(0.0),
                bottom - TOP
            );
        }
        for tick in y.ticks(self.y.unit) {
            let at = to_y(tick);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                written(tick, self.y.unit)
            );
        }
        for tick in x.ticks(self.x.unit) {
            let at = to_x(tick);
            let _ = writeln!(
                out,
                "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 5.0,
                bottom + 19.0,
                written(tick, self.x.unit)
            );
        }
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text class=\"name\" x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text class=\"name\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
            HEIGHT - 6.0,
            escape(self.x.name),
            TOP - 12.0,
            escape(self.y.name)
        );
        for (at, series) in self.series.iter().enumerate() {
            let drawn: Vec<(f64, Option<f64>)> = series
                .points
                .iter()
                .filter(|(x, _)| is_drawn(*x, self.x.scale))
                .map(|(x, y)| (*x, y.filter(|y| is_drawn(*y, self.y.scale))))
                .collect();
            for run in drawn.split(|(_, y)| y.is_none()) {
                let mut way = String::new();
                for (x, y) in run {
                    let (x, y) = (to_x(*x), to_y(y.unwrap_or_default()));
                    let letter = if way.is_empty() { 'M' } else { 'L' };
                    let _ = write!(way, "{letter}{x:.1} {y:.1}");
                }
                if run.len() > 1 {
                    let _ = writeln!(out, "<path class=\"line s{}\" d=\"{way}\"/>", at % LOOKS);
                }
                // A single point has no line.
                if run.len() == 1 || drawn.len() <= MARKS_MAX {
                    self.mark(&mut out, at, series, run, (&to_x, &to_y));
                }
            }
        }
        out.push_str("</svg>\n");
        out
    }

    /// Marks points; pointing at one shows its value.
    fn mark(
        &self,
        out: &mut String,
        at: usize,
        series: &Series,
        run: &[(f64, Option<f64>)],
        (to_x, to_y): (&dyn Fn(f64) -> f64, &dyn Fn(f64) -> f64),
    ) {
        for (x, y) in run {
            let y = y.unwrap_or_default();
            let _ = writeln!(
                out,
                "<circle class=\"mark s{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"><title>{}: {} at {}</title></circle>",
                at % LOOKS,
                to_x(*x),
                to_y(y),
                escape(&series.name),
                written(y, self.y.unit),
                written(*x, self.x.unit)
            );
        }
    }

    /// Its legend as HTML; nothing for a single line.
    pub fn legend(&self) -> String {
        let mut out = String::new();
        if self.series.len() > 1 {
            out.push_str("<p class=\"legend\">");
            for (at, series) in self.series.iter().enumerate() {
                let _ = write!(
                    out,
                    "<span><i class=\"key s{}\"></i>{}</span> ",
                    at % LOOKS,
                    escape(&series.name)
                );
            }
            out.push_str("</p>\n");
        }
        out
    }
}

/// Draws bars, longest first.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let mut bars: Vec<&Bar> = bars.iter().collect();
    bars.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    let most = bars.first().map_or(1, |bar| bar.value.max(1)) as f64;
    let height = bars.len() as f64 * BAR_STEP + 6.0;
    let mut out = open(height, title);
    for (at, bar) in bars.iter().enumerate() {
        let top = at as f64 * BAR_STEP + 4.0;
        let length = bar.value as f64 / most * (WIDTH - BAR_LEFT - BAR_RIGHT);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar s{}\" x=\"{BAR_LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"16\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            BAR_LEFT - 8.0,
            top + 12.5,
            escape(&bar.name),
            bar.look % LOOKS,
            length.max(1.0),
            BAR_LEFT + length.max(1.0) + 8.0,
            top + 12.5,
            crate::progress::grouped(bar.value)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn open(height: f64, title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\n"
    )
}

#[cfg(test)]
mod tests;
