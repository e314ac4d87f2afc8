//! When a shard waits a moment before it looks for more: under load, since each
//! turn costs the same wake-up, reactor calls and QUIC packet whether it serves
//! one frame or twenty.
//!
//! Owns the measure of the load and its bounds. Does not wait itself.
//!
//! Invariant: below [`FRAMES_PER_MS_MIN`] nothing is ever held back.

use std::time::Duration;

use protocol::time::Time;

/// How long a turn is put off. Twice this, for a request and its answer, is what
/// it adds to a round trip at most.
const WAIT: Duration = Duration::from_micros(400);

/// Frames a millisecond, both directions, from which on waiting pays: a dozen
/// gather in one `WAIT`.
const FRAMES_PER_MS_MIN: u64 = 32;

/// Milliseconds over which the load is measured: long enough to count a hundred
/// frames, so that a burst of one turn does not pass for load.
const WINDOW_MS: u64 = 4;

/// The load of one shard.
#[derive(Debug, Default)]
pub struct Pace {
    started_at: Time,
    frames_before: u64,
    is_high: bool,
}

impl Pace {
    /// To be asked when there is nothing to do; `frames` is a running count.
    /// How long to wait before looking for more.
    pub fn wait(&mut self, now: Time, frames: u64) -> Option<Duration> {
        let window_us = now.us_since(self.started_at);
        if window_us >= WINDOW_MS * 1_000 {
            let frames_in_window = frames - self.frames_before;
            self.is_high = frames_in_window * 1_000 >= FRAMES_PER_MS_MIN * window_us;
            self.started_at = now;
            self.frames_before = frames;
        }
        self.is_high.then_some(WAIT)
    }
}

#[cfg(test)]
mod tests;
