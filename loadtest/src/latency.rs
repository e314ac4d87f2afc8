//! Latencies in microseconds, from the moment a send was due to its reply.
//!
//! Owns the histogram's bounds and the form in which workers hand counts to the
//! parent. Invariant: what is above the bound is counted at the bound, never
//! dropped.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Above this, microseconds, a latency counts as this: ten minutes, longer than
/// any reply is waited for.
pub const LATENCY_US_MAX: u64 = 600_000_000;

/// Points of a curve, up to nine nines at twenty a decade.
const CURVE_POINTS_MAX: i32 = 180;

/// Three digits: the error of a value is below a thousandth.
const DIGITS: u8 = 3;

/// A distribution of latencies.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// What a report says of a distribution, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half are below.
    pub p50: u64,
    /// Nine tenths are below.
    pub p90: u64,
    /// 99 of 100 are below.
    pub p99: u64,
    /// 999 of 1,000 are below.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)
                .expect("constants within the bounds of the crate"),
        )
    }
}

impl Latencies {
    /// Counts one latency.
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us.max(1));
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The counts that are not 0, as (microseconds, count), and forgets them.
    pub fn take_counts(&mut self) -> Vec<(u64, u64)> {
        let counts = self
            .0
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect();
        self.0.reset();
        counts
    }

    /// Adds counts of another one.
    pub fn add_counts(&mut self, counts: &[(u64, u64)]) {
        for (us, count) in counts {
            self.0.saturating_record_n((*us).max(1), *count);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The curve of all quantiles: (quantile, microseconds), both rising, denser towards 1, and
    /// no farther than one in all that were counted. At most a few hundred points.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let mut curve = Vec::new();
        if self.0.is_empty() {
            return curve;
        }
        let finest = 1.0 / self.0.len() as f64;
        // Twenty steps of a decade of what lies above.
        for step in 0..CURVE_POINTS_MAX {
            let above = 10_f64.powf(f64::from(step) / -20.0);
            if above < finest {
                break;
            }
            let quantile = 1.0 - above;
            curve.push((quantile, self.0.value_at_quantile(quantile) as f64));
        }
        if finest < 1.0 {
            curve.push((1.0 - finest, self.0.max() as f64));
        }
        curve
    }

    /// The figures of a report; zeros where nothing was counted.
    pub fn percentiles(&self) -> Percentiles {
        if self.0.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            p50: self.0.value_at_quantile(0.5),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
        }
    }
}

#[cfg(test)]
mod tests;
