//! Where a walker of a load test is: a pure function of (seed, client, step), so that every
//! process of the test, and the judge at its end, knows it without being told.
//!
//! A walker goes straight on at walking speed and is reflected at the edges of a square field.
//! A uniform spread stays uniform under that, so the mean number in view does not drift during
//! a test. It says nothing of who sees whom; [`field_units`] only sizes the field.
//!
//! Invariant: integers only on the way of a walker, so that every machine computes the same.

use super::Point;

/// Longest step, units: its square fits.
const STEP_UNITS_MAX: u32 = 1 << 24;

/// The walkers of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Which test.
    pub seed: u64,
    /// Side of the square in which they walk, from the map's origin, units; at least 1.
    pub field_units: u32,
    /// How far one goes in one step, units; at most 2²⁴.
    pub step_units: u32,
}

impl Walk {
    /// Where a client is after a number of steps.
    pub fn at(&self, client: u64, step: u32) -> Point {
        let draws = [1, 2, 3].map(|draw| mix(self.seed, client, draw));
        // A direction without trigonometry, which machines round differently: any dx up to the
        // speed, and the dy that completes it.
        let speed = i64::from(self.step_units.min(STEP_UNITS_MAX));
        let dx = (draws[2] >> 2) as i64 % (2 * speed + 1) - speed;
        let dy = (speed * speed - dx * dx).unsigned_abs().isqrt() as i64;
        let dy = if draws[2] & 1 == 0 { dy } else { -dy };
        Point {
            x: reflect(draws[0], dx, step, self.field_units),
            y: reflect(draws[1], dy, step, self.field_units),
        }
    }
}

/// Side of the field, units, in which `walkers` see `visible` others on average, at most
/// `field_units_max`. `view_units` and `hysteresis_units` are the map's.
///
/// Two uniform points in a square of side L are within r with probability
/// π t² − 8⁄3 t³ + ½ t⁴, t = r ⁄ L ≤ 1 (square line picking); the mean is that times the others.
/// Of the pairs between the radius of coming into view and that of leaving it about half are in
/// view, hence r half-way between the two. A mean that even a field of side r would not reach
/// gets that field.
pub fn field_units(
    walkers: u64,
    visible: f64,
    view_units: u32,
    hysteresis_units: u32,
    field_units_max: u32,
) -> u32 {
    let radius = f64::from(view_units) + f64::from(hysteresis_units) / 2.0;
    let others = walkers.saturating_sub(1) as f64;
    let mean = |t: f64| others * t * t * (std::f64::consts::PI - t * (8.0 / 3.0) + t * t / 2.0);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // The mean rises with t; 50 halvings are more than the digits that matter.
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if mean(middle) < visible {
            low = middle;
        } else {
            high = middle;
        }
    }
    let side = (radius / high).ceil();
    // Written so that nonsense (NaN) gets the largest field.
    if side < f64::from(field_units_max) {
        (side as u32).max(1)
    } else {
        field_units_max.max(1)
    }
}

/// The place on one axis: straight on from a drawn start, folded at both edges.
fn reflect(draw: u64, velocity: i64, step: u32, field_units: u32) -> u32 {
    let last = i64::from(field_units.max(1)) - 1;
    if last == 0 {
        return 0;
    }
    let start = (draw % field_units as u64) as i64;
    let period = 2 * last;
    let way = i128::from(velocity) * i128::from(step);
    let folded = (i128::from(start) + way).rem_euclid(i128::from(period)) as i64;
    folded.min(period - folded) as u32
}

/// 64 well-mixed bits (the finaliser of SplitMix64, Steele et al. 2014) of three numbers.
fn mix(seed: u64, client: u64, draw: u64) -> u64 {
    [client, draw].iter().fold(finish(seed), |state, &number| {
        finish(state ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    })
}

fn finish(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
