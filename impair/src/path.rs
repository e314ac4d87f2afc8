//! One direction of one flow, as a pure core: what happens to what is sent, and when it arrives.
//!
//! Owns the order and the rate of what passes. It holds no bytes: it says when they are due, and
//! the driver keeps them. Time only moves forward.
//!
//! The model is that of Linux' `netem` (tc-netem(8)): a packet waits for its turn at the rate,
//! then takes the delay and a jitter drawn evenly from both sides of it; it is lost, doubled or
//! held back by chance, each drawn on its own.
//!
//! Invariant: equal seeds and equal calls give equal fates.

use protocol::time::Time;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// Chances are told in millionths.
pub const CERTAIN: u32 = 1_000_000;

/// How long, µs, what waits for its turn at the rate may have to wait; a datagram that would wait
/// longer is dropped. A router's buffer holds about as much.
pub const QUEUE_US_MAX: u64 = 200_000;

/// Payload of one TCP segment on Ethernet, bytes: what is lost or not.
pub const SEGMENT_BYTES: usize = 1_448;

/// What TCP waits before it sends a lost segment again, µs, beside the round trip: Linux' lowest
/// retransmission timeout.
pub const RETRANSMIT_US: u64 = 200_000;

/// How long a datagram is held back, µs, at least, for later ones to overtake it.
pub const HELD_BACK_US_MIN: u64 = 10_000;

/// What a path does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One way.
    pub delay_us: u64,
    /// At most so much less or more than the delay.
    pub jitter_us: u64,
    /// Chance that a datagram or a segment is lost, in millionths.
    pub loss: u32,
    /// Chance that a datagram is held back, in millionths.
    pub reorder: u32,
    /// Chance that a datagram arrives twice, in millionths.
    pub duplicate: u32,
    /// Bytes a second; 0: as many as come.
    pub bytes_per_second: u64,
}

/// What happens to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then, and perhaps again.
    Arrives {
        /// When.
        at: Time,
        /// When its copy does.
        again: Option<Time>,
        /// It was held back.
        held_back: bool,
    },
    /// It is lost by chance.
    Lost,
    /// Too much waits already.
    Overflows,
}

/// Where chance comes from.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Another one, which no later call of this one changes.
    pub fn fork(&mut self) -> Self {
        Self(ChaCha8Rng::seed_from_u64(self.0.next_u64()))
    }

    /// Evenly from 0 to below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of a 64-bit number is far below what anyone could see.
        self.0.next_u64().checked_rem(end).unwrap_or(0)
    }

    /// A time from half of `mean_us` to one and a half.
    pub fn spread(&mut self, mean_us: u64) -> u64 {
        mean_us / 2 + self.below(mean_us + 1)
    }

    fn happens(&mut self, millionths: u32) -> bool {
        // Drawn also where it can't happen, so that one option does not change what others do.
        self.below(u64::from(CERTAIN)) < u64::from(millionths)
    }
}

/// The core. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Path {
    conditions: Conditions,
    random: Random,
    /// When the rate has room again.
    busy_until: Time,
    /// When the last piece of a stream arrives.
    arrived: Time,
}

impl Path {
    /// A path on which nothing is under way.
    pub fn new(conditions: Conditions, random: Random) -> Self {
        Self {
            conditions,
            random,
            busy_until: Time::default(),
            arrived: Time::default(),
        }
    }

    /// A datagram is sent.
    pub fn handle_datagram(&mut self, now: Time, bytes: usize) -> Fate {
        let lost = self.random.happens(self.conditions.loss);
        let held_back = self.random.happens(self.conditions.reorder);
        let doubled = self.random.happens(self.conditions.duplicate);
        if lost {
            return Fate::Lost;
        }
        if self.busy_until.us_since(now) > QUEUE_US_MAX {
            return Fate::Overflows;
        }
        let mut at = self.sent(now, bytes) + self.travel_us();
        if held_back {
            at = at + self.conditions.jitter_us.max(HELD_BACK_US_MIN);
        }
        let again = doubled.then(|| self.busy_until + self.travel_us());
        Fate::Arrives {
            at,
            again,
            held_back,
        }
    }

    /// A piece of a stream is sent: when it arrives, which is not before the pieces sent earlier,
    /// and whether it waits for a lost segment.
    pub fn handle_piece(&mut self, now: Time, bytes: usize) -> (Time, bool) {
        let segments = bytes.div_ceil(SEGMENT_BYTES);
        let lost = (0..segments).fold(false, |lost, _| {
            self.random.happens(self.conditions.loss) || lost
        });
        let mut at = self.sent(now, bytes) + self.travel_us();
        if lost {
            at = at + RETRANSMIT_US + 2 * self.conditions.delay_us;
        }
        self.arrived = self.arrived.max(at);
        (self.arrived, lost)
    }

    /// When the rate has let it through.
    fn sent(&mut self, now: Time, bytes: usize) -> Time {
        let takes_us = (bytes as u64 * 1_000_000)
            .checked_div(self.conditions.bytes_per_second)
            .unwrap_or(0);
        self.busy_until = self.busy_until.max(now) + takes_us;
        self.busy_until
    }

    fn travel_us(&mut self) -> u64 {
        let Conditions {
            delay_us,
            jitter_us,
            ..
        } = self.conditions;
        let drawn = self.random.below(2 * jitter_us + 1);
        (delay_us + drawn).saturating_sub(jitter_us)
    }
}

#[cfg(test)]
mod tests;
