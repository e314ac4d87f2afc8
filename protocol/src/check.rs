//! The checks of a received frame that need memory of earlier ones: rate
//! (token buckets), timestamp (clock offset), and the receiving half of a
//! connection that runs all checks in the order of PROTOCOL §4.

use crate::cipher::Opener;
use crate::frame::{self, FLAG_HANDSHAKE, FLAGS_KNOWN, Header};
use crate::limits::{
    CLOCK_DRIFT_PPM_MAX, CLOCK_SETTLE_MS, SEALED_FRAME_BYTES_MIN, TIMESTAMP_AGE_MS_MAX,
    TIMESTAMP_AHEAD_MS_MAX,
};
use crate::quality::Jitter;
use crate::reason::CloseReason;
use crate::time::Time;

/// A rate and the burst above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units a second. 0 switches the limit off.
    pub per_second: u32,
    /// Units that may come at once.
    pub burst: u32,
}

/// What a charge to a bucket means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// Within the limit.
    Within,
    /// Above: reading should pause for this long, microseconds.
    Above {
        /// Time until the debt is paid.
        pause_us: u64,
    },
    /// More than a whole burst above.
    FarAbove,
}

/// A token bucket that may go into debt: over a stream transport the bytes are
/// here already, so the peer is slowed by not reading on.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Millionths of a unit; negative is debt.
    level: i64,
    refilled_at: Time,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, now: Time) -> Self {
        Self {
            level: i64::from(rate.burst) * 1_000_000,
            refilled_at: now,
        }
    }

    /// When it is full again if nothing more is taken out.
    pub fn full_at(&self, rate: Rate) -> Time {
        let full = i64::from(rate.burst) * 1_000_000;
        let missing = full.saturating_sub(self.level).max(0).unsigned_abs();
        match rate.per_second {
            0 => self.refilled_at,
            per_second => self.refilled_at + missing.div_ceil(u64::from(per_second)),
        }
    }

    /// Takes out what is missing if it is full again no earlier than then: what its owner
    /// took out of another one before. At most a burst is owed.
    pub fn owe_until(&mut self, rate: Rate, full_at: Time, now: Time) {
        let full = i64::from(rate.burst) * 1_000_000;
        let missing = full_at
            .us_since(now)
            .saturating_mul(u64::from(rate.per_second));
        let level = full.saturating_sub(i64::try_from(missing).unwrap_or(i64::MAX));
        self.level = self.level.min(level.max(-full));
    }

    /// Gives `units` back that were taken for nothing.
    pub fn refund(&mut self, rate: Rate, units: u32) {
        if rate.per_second > 0 {
            self.level += i64::from(units) * 1_000_000;
        }
    }

    /// Takes `units` out.
    pub fn charge(&mut self, rate: Rate, units: u32, now: Time) -> Charged {
        if rate.per_second == 0 {
            return Charged::Within;
        }
        let full = i64::from(rate.burst) * 1_000_000;
        // Units a second times microseconds are millionths of units.
        let gained = now
            .us_since(self.refilled_at)
            .saturating_mul(u64::from(rate.per_second));
        self.level = self
            .level
            .saturating_add(i64::try_from(gained).unwrap_or(i64::MAX))
            .min(full);
        self.refilled_at = now;
        self.level -= i64::from(units) * 1_000_000;
        if self.level >= 0 {
            Charged::Within
        } else if self.level >= -full {
            Charged::Above {
                pause_us: self
                    .level
                    .unsigned_abs()
                    .div_ceil(u64::from(rate.per_second)),
            }
        } else {
            Charged::FarAbove
        }
    }
}

/// What the timestamp of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Neither old nor early.
    Fresh,
    /// Sent longer ago than the bound.
    Old,
    /// Sent later than now, by more than the bound.
    Future,
}

/// Microseconds in which two honest clocks move apart by a millisecond.
const US_PER_DRIFT_MS: u64 = 1_000_000_000 / CLOCK_DRIFT_PPM_MAX;

/// Follows the difference between the peer's clock and ours: local minus peer,
/// which is the true difference plus the frame's delay, so that the smallest one
/// seen is the best estimate.
///
/// - The estimate sinks to each smaller difference, and rises by the drift that
///   two honest clocks can show; a frame far above it is old.
/// - While it settles (`CLOCK_SETTLE_MS`), it sinks freely, and its lowest point
///   becomes the origin: the very first frame may have been late by seconds.
/// - After that, a difference below the origin by more than the bound and the
///   drift since then is from the future. A clock that runs faster than drift
///   explains gets there sooner or later, and stays there.
///
/// How much the difference varies from frame to frame is the connection's jitter.
#[derive(Clone, Copy, Debug)]
pub struct ClockOffset {
    /// Local ms − peer ms, wrapping: the origin of all differences.
    first: u32,
    /// The estimate, relative to `first`, milliseconds.
    estimate: i32,
    started_at: Time,
    /// Up to when drift has been added to the estimate.
    updated_at: Time,
    jitter: Jitter,
}

impl ClockOffset {
    /// Starts from the first frame of the peer.
    pub fn new(peer_ms: u32, now: Time) -> Self {
        Self {
            first: now.wire_ms().wrapping_sub(peer_ms),
            estimate: 0,
            started_at: now,
            updated_at: now,
            jitter: Jitter::new(peer_ms, now),
        }
    }

    /// Judges a frame that has verified, and learns from it.
    pub fn judge(&mut self, peer_ms: u32, now: Time) -> Age {
        self.jitter.arrived(peer_ms, now);
        let difference = now.wire_ms().wrapping_sub(peer_ms).wrapping_sub(self.first) as i32;
        let open_us = now.us_since(self.started_at);
        if open_us < CLOCK_SETTLE_MS * 1_000 && difference < 0 {
            self.first = self.first.wrapping_add_signed(difference);
            self.estimate = 0;
            self.updated_at = now;
            return Age::Fresh;
        }
        let risen = now.us_since(self.updated_at) / US_PER_DRIFT_MS;
        self.estimate = self
            .estimate
            .saturating_add(i32::try_from(risen).unwrap_or(i32::MAX));
        // The rest of the division counts next time, else drift is followed too slowly.
        self.updated_at = self.updated_at + risen * US_PER_DRIFT_MS;
        let drift_ms = i64::try_from(open_us / US_PER_DRIFT_MS).unwrap_or(i64::MAX);
        if i64::from(difference).saturating_add(drift_ms) < -TIMESTAMP_AHEAD_MS_MAX {
            return Age::Future;
        }
        if difference < self.estimate {
            self.estimate = difference;
            self.updated_at = now;
        }
        if i64::from(difference) - i64::from(self.estimate) > TIMESTAMP_AGE_MS_MAX {
            Age::Old
        } else {
            Age::Fresh
        }
    }

    /// Jitter of the peer's frames, µs.
    pub fn jitter_us(&self) -> u32 {
        self.jitter.us()
    }

    /// Local ms − peer ms, wrapping, as estimated now.
    pub fn offset_ms(&self) -> u32 {
        self.first.wrapping_add_signed(self.estimate)
    }
}

/// A frame that passed every check of its envelope.
#[derive(Debug)]
pub struct Opened<'a> {
    /// `FLAG_COMPRESSED` or nothing.
    pub flags: u8,
    /// What its timestamp says; what follows depends on the lane.
    pub age: Age,
    /// The body in the clear, in place.
    pub body: &'a mut [u8],
}

/// Checks flags, CRC, seal, sequence and timestamp of a sealed frame. Length
/// and rate came before (they need no key), kind and payload come after.
///
/// # Errors
/// The reason to close the connection; over a stream transport each of these
/// means that what follows can't be trusted.
pub fn open<'a>(
    frame: &'a mut [u8],
    opener: &mut Opener,
    clock: &mut ClockOffset,
    now: Time,
) -> Result<Opened<'a>, CloseReason> {
    let header = Header::decode(frame).ok_or(CloseReason::BadLength)?;
    if frame.len() < SEALED_FRAME_BYTES_MIN || header.length as usize != frame.len() {
        return Err(CloseReason::BadLength);
    }
    if header.flags & !FLAGS_KNOWN != 0 || header.flags & FLAG_HANDSHAKE != 0 {
        return Err(CloseReason::BadFlags);
    }
    if frame::crc(frame) != header.crc {
        return Err(CloseReason::BadCrc);
    }
    let body = opener.open(&header, frame)?;
    let age = clock.judge(header.timestamp_ms, now);
    Ok(Opened {
        flags: header.flags & frame::FLAG_COMPRESSED,
        age,
        body,
    })
}

#[cfg(test)]
mod tests;
