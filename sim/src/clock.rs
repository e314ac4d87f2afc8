//! The clocks of one simulated process: a steady one with an origin and a drift
//! of its own, and a calendar that is a little off.
//!
//! Invariant: `local(global(at)) >= at`, so that who is woken for a deadline
//! finds it reached.

use protocol::time::{Now, Time};

use crate::random::Random;

/// The calendar at the start of the world, Unix ms.
pub const UNIX_START_MS: u64 = 1_800_000_000_000;

/// Drift of a process's clock, parts per million; what the protocol takes for
/// honest is five times as much.
const DRIFT_PPM_MAX: u64 = 100;

/// How far, ms, a calendar may be off: under half of what tokens tolerate.
const SKEW_MS_MAX: u64 = 1_000;

/// One process's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Time,
    origin_us: u64,
    drift_ppm: i64,
    skew_ms: i64,
}

impl Clock {
    /// The clocks of a process that starts at `at`.
    pub fn start(at: Time, random: &mut Random) -> Self {
        Self {
            started: at,
            origin_us: random.below(10_000_000_000),
            drift_ppm: random.below(2 * DRIFT_PPM_MAX) as i64 - DRIFT_PPM_MAX as i64,
            skew_ms: random.below(2 * SKEW_MS_MAX) as i64 - SKEW_MS_MAX as i64,
        }
    }

    /// What the process reads at a moment of the world.
    pub fn now(&self, at: Time) -> Now {
        Now {
            time: self.local(at),
            unix_ms: (UNIX_START_MS + at.ms()).saturating_add_signed(self.skew_ms),
        }
    }

    fn local(&self, at: Time) -> Time {
        let elapsed = at.us_since(self.started);
        let drift = elapsed as i64 * self.drift_ppm / 1_000_000;
        Time((self.origin_us + elapsed).saturating_add_signed(drift))
    }

    /// The first moment of the world at which the process reads at least `local`.
    pub fn global(&self, local: Time) -> Time {
        let wanted = local.0.saturating_sub(self.origin_us);
        let drift = i128::from(wanted) * i128::from(self.drift_ppm) / 1_000_000;
        let mut at = Time(
            self.started
                .0
                .saturating_add(wanted)
                .saturating_add_signed(-(drift as i64) - 1),
        );
        while self.local(at) < local {
            at = at + 1;
        }
        at
    }
}
