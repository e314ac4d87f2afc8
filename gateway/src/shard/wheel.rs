//! A hashed timer wheel (Varghese and Lauck, "Hashed and Hierarchical Timing
//! Wheels", 1987): inserting is a push, expiring visits only what is due.
//!
//! It keeps no order within a tick and never removes early: who has fired looks
//! at its own deadline, and is inserted again if that has moved. A deadline
//! beyond the horizon fires at the horizon, and is inserted again likewise.

use protocol::time::Time;

use crate::engine::ConnId;

/// Microseconds of a tick where deadlines are seconds: precise enough.
pub const TICK_US: u64 = 32_768;

/// Ticks of the wheel; with `TICK_US` a horizon of 33 s, above the usual idle
/// timeout, so that an idle connection fires about once an idle timeout.
const SLOTS: usize = 1_024;

/// The timers of one shard.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<ConnId>>,
    tick_us: u64,
    /// The tick that is due next.
    tick: u64,
    /// Bit i of word i / 64: slot i is not empty.
    occupied: [u64; SLOTS / 64],
}

impl Wheel {
    /// An empty wheel at `now`, whose ticks are so long.
    pub fn new(now: Time, tick_us: u64) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            tick_us,
            tick: now.0 / tick_us,
            occupied: [0; SLOTS / 64],
        }
    }

    /// Fires `conn` at `at` or up to one tick later; earlier if that is beyond
    /// the horizon.
    pub fn insert(&mut self, conn: ConnId, at: Time) {
        let tick =
            at.0.div_ceil(self.tick_us)
                .clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let slot = (tick % SLOTS as u64) as usize;
        self.slots[slot].push(conn);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Moves what is due at `now` to `due`.
    pub fn expire(&mut self, now: Time, due: &mut Vec<ConnId>) {
        let last = now.0 / self.tick_us;
        // After a long pause every slot is due once, not many times.
        let first = self.tick.max(last.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=last {
            let slot = (tick % SLOTS as u64) as usize;
            if self.occupied[slot / 64] & 1 << (slot % 64) != 0 {
                due.append(&mut self.slots[slot]);
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
        self.tick = self.tick.max(last + 1);
    }

    /// When `expire` will have something, if anything is inserted.
    pub fn next(&self) -> Option<Time> {
        let start = (self.tick % SLOTS as u64) as usize;
        let words = SLOTS / 64;
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some(Time((self.tick + ahead as u64) * self.tick_us));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
