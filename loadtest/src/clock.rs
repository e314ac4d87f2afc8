//! The clocks of the drivers: CLOCK_MONOTONIC, which all processes of a machine
//! share, so that workers agree on when a run starts without talking about it.
//! The only file that reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::time::{Now, Time};
use rustix::time::{ClockId, clock_gettime};

/// Now, on the steady clock of the machine.
pub fn time() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    // Both parts are never negative on this clock.
    Time(now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000)
}

/// Now, on both clocks.
pub fn now() -> Now {
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    Now {
        time: time(),
        unix_ms,
    }
}
