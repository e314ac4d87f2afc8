//! Time as the cores see it: a steady clock in microseconds that the driver
//! reads and passes in. Invariant: time given to one core never goes back.

use std::ops::Add;

/// A moment on the process's steady clock, in microseconds since an origin
/// that the driver chose. Also used for spans added to it by `after_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment `ms` milliseconds later.
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Milliseconds since the origin.
    pub const fn ms(self) -> u64 {
        self.0 / 1_000
    }

    /// Microseconds from `earlier` to this moment; 0 if `earlier` is later.
    pub const fn us_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The wire timestamp of this moment: milliseconds, wrapping at 2³².
    pub const fn wire_ms(self) -> u32 {
        self.ms() as u32
    }
}

impl Add<u64> for Time {
    type Output = Self;

    /// Adds microseconds.
    fn add(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }
}

/// Both clocks of one moment: the steady one for deadlines, the calendar for
/// token lifetimes and for what backends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Steady clock.
    pub time: Time,
    /// Calendar, milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
}
