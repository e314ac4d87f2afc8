//! How good a connection is: round trip, jitter and loss, as each end measures them and
//! tells the other in its PINGs and PONGs (PROTOCOL §5). The method is that of RTCP's
//! sender and receiver reports (RFC 3550 §6.4).
//!
//! Owns the estimators, which both ends share. It does not say when to ask, and nothing is
//! closed for what it says.
//!
//! Invariant: what a peer claims moves the figures of its own connection and nothing else,
//! and no figure grows beyond its bound.

use crate::time::Time;

/// Longest round trip, µs, that counts. Over TCP a frame may wait out a tunnel; what
/// claims more is a stamp that was never ours.
const ROUND_TRIP_US_MAX: u32 = 60_000_000;

/// Part of a round trip that a new one has in the smoothed figure: a quarter, not the
/// eighth of RFC 6298, since they come a heartbeat apart and people watch them.
const ROUND_TRIP_GAIN: u64 = 4;

/// Longest step, µs, from one frame to the next that jitter takes in: a pause of a
/// minute would else stand in the figure for the next fifty frames.
const JITTER_STEP_US_MAX: u32 = 1_000_000;

/// Datagrams that the fraction of loss looks back on, about.
const LOSS_DATAGRAMS: u64 = 64;

/// A change of a round trip or of jitter up to this, µs, is none.
const NOTICED_US: u32 = 1_000;

/// A change of loss up to this, in 256ths, is none.
const NOTICED_LOSS: u8 = 2;

/// What one end measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Smoothed round trip, µs; 0 while none is known.
    pub round_trip_us: u32,
    /// Jitter of the frames that came from the other end, µs.
    pub jitter_us: u32,
    /// What got lost of the other end's datagrams lately, in 256ths as RTCP says it; 0 over
    /// a stream.
    pub loss: u8,
}

/// The body of a PING.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// Repeated in the PONG; the sender's clock, µs, or what it likes.
    pub stamp: u32,
    /// The last stamp that came from the receiver, in a PING or as a PONG's `own`; 0 if
    /// none has come.
    pub echo: u32,
    /// How long ago that came, µs.
    pub held_us: u32,
    /// What the sender measured.
    pub report: Report,
}

/// The body of a PONG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pong {
    /// That of the PING.
    pub stamp: u32,
    /// The sender's own stamp, for the `echo` of the next PING.
    pub own: u32,
    /// What the sender measured.
    pub report: Report,
}

/// How a connection is in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// What this end measured: the round trip, and what comes from the other end.
    pub ours: Report,
    /// What the other end measured, as it told last.
    pub theirs: Report,
}

/// What of a [`Quality`] is worth telling again when it moves: the worse of both
/// directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    round_trip_us: u32,
    jitter_us: u32,
    loss: u8,
}

impl Quality {
    /// What to compare a later one with.
    pub fn digest(&self) -> Digest {
        Digest {
            round_trip_us: self.ours.round_trip_us,
            jitter_us: self.ours.jitter_us.max(self.theirs.jitter_us),
            loss: self.ours.loss.max(self.theirs.loss),
        }
    }
}

impl Digest {
    /// Whether somebody would notice: more than an eighth and a millisecond of the round
    /// trip, a quarter and a millisecond of jitter, a hundredth of loss.
    pub fn differs(&self, earlier: &Self) -> bool {
        let moved = |now: u32, before: u32, part: u32| {
            now.abs_diff(before) > (before / part).max(NOTICED_US)
        };
        moved(self.round_trip_us, earlier.round_trip_us, 8)
            || moved(self.jitter_us, earlier.jitter_us, 4)
            || self.loss.abs_diff(earlier.loss) > NOTICED_LOSS
    }
}

/// What the wire knows of the frames that came from the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// See [`Report::jitter_us`].
    pub jitter_us: u32,
    /// See [`Report::loss`].
    pub loss: u8,
}

/// One end's part in PING and PONG: the round trip, and what the other end told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    round_trip_us: u32,
    /// Stamp of the PING that waits for its PONG; 0 if none does.
    asked: u32,
    /// The other end's last stamp; 0 before the first.
    heard: u32,
    /// When that came: our stamp.
    heard_at: u32,
    theirs: Report,
}

impl Meter {
    /// The PING to send now.
    pub fn ping(&mut self, now: Time, arrivals: Arrivals) -> Ping {
        let stamp = stamp(now);
        self.asked = stamp;
        let held_us = if self.heard == 0 {
            0
        } else {
            stamp.wrapping_sub(self.heard_at)
        };
        Ping {
            stamp,
            echo: self.heard,
            held_us,
            report: self.report(arrivals),
        }
    }

    /// Takes in a PING. The PONG to send now, and the round trip in µs that the PING
    /// closed, if it did.
    pub fn handle_ping(
        &mut self,
        now: Time,
        ping: &Ping,
        arrivals: Arrivals,
    ) -> (Pong, Option<u32>) {
        let since = stamp(now).wrapping_sub(ping.echo);
        let sample = (ping.echo != 0)
            .then(|| since.wrapping_sub(ping.held_us))
            .and_then(|us| self.sample(us));
        self.hear(now, ping.stamp, ping.report);
        let pong = Pong {
            stamp: ping.stamp,
            own: stamp(now),
            report: self.report(arrivals),
        };
        (pong, sample)
    }

    /// Takes in a PONG. The round trip, µs, if it answers the last PING.
    pub fn handle_pong(&mut self, now: Time, pong: &Pong) -> Option<u32> {
        self.hear(now, pong.own, pong.report);
        if pong.stamp != self.asked || self.asked == 0 {
            return None;
        }
        self.asked = 0;
        self.sample(stamp(now).wrapping_sub(pong.stamp))
    }

    /// How things stand.
    pub fn quality(&self, arrivals: Arrivals) -> Quality {
        Quality {
            ours: self.report(arrivals),
            theirs: self.theirs,
        }
    }

    fn report(&self, arrivals: Arrivals) -> Report {
        Report {
            round_trip_us: self.round_trip_us,
            jitter_us: arrivals.jitter_us,
            loss: arrivals.loss,
        }
    }

    fn hear(&mut self, now: Time, own: u32, report: Report) {
        self.heard = own;
        self.heard_at = stamp(now);
        self.theirs = report;
    }

    fn sample(&mut self, us: u32) -> Option<u32> {
        if us > ROUND_TRIP_US_MAX {
            return None;
        }
        let smoothed = u64::from(self.round_trip_us);
        self.round_trip_us = if smoothed == 0 {
            us.max(1)
        } else {
            let sum = (ROUND_TRIP_GAIN - 1) * smoothed + u64::from(us);
            (sum / ROUND_TRIP_GAIN).max(1) as u32
        };
        Some(us)
    }
}

/// Our clock as a stamp: µs, wrapping after 71 minutes, and never 0.
fn stamp(now: Time) -> u32 {
    (now.0 as u32).max(1)
}

/// Interarrival jitter (RFC 3550 §6.4.1): how much longer or shorter than the one before
/// each frame was on its way, averaged over about 16. The frames' stamps are whole ms, which
/// makes a third of a ms of it.
#[derive(Clone, Copy, Debug)]
pub struct Jitter {
    /// Our clock minus the peer's when the last frame came, µs, wrapping.
    transit_us: u32,
    /// Sixteen times the figure, so that it moves by less than a µs (RFC 3550 §A.8).
    sixteenths: u32,
}

impl Jitter {
    /// Starts with the peer's first frame.
    pub fn new(peer_ms: u32, now: Time) -> Self {
        Self {
            transit_us: transit_us(peer_ms, now),
            sixteenths: 0,
        }
    }

    /// A further frame came.
    pub fn arrived(&mut self, peer_ms: u32, now: Time) {
        let transit_us = transit_us(peer_ms, now);
        let step = transit_us.wrapping_sub(self.transit_us) as i32;
        self.transit_us = transit_us;
        let step = step.unsigned_abs().min(JITTER_STEP_US_MAX);
        self.sixteenths = self.sixteenths + step - (self.sixteenths + 8) / 16;
    }

    /// The figure, µs.
    pub fn us(&self) -> u32 {
        self.sixteenths / 16
    }
}

/// A wrapping count of milliseconds is one of microseconds too: 2³² ms are a whole number
/// of 2³² µs.
fn transit_us(peer_ms: u32, now: Time) -> u32 {
    (now.0 as u32).wrapping_sub(peer_ms.wrapping_mul(1_000))
}

/// Loss of late, from the gaps in the wire sequence. Each datagram weighs a 64th, so that
/// the one in doubt of an idle client does not look like half of what it sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    expected: u64,
    missing: u64,
    millionths: u32,
}

impl Loss {
    /// Takes in how many datagrams were expected so far and how many of them are missing.
    pub fn update(&mut self, expected: u64, missing: u64) {
        let sent = expected.saturating_sub(self.expected);
        // What came late makes the next interval better than it was; none is below 0.
        let lost = missing.saturating_sub(self.missing).min(sent);
        (self.expected, self.missing) = (expected, missing);
        if sent == 0 {
            return;
        }
        let weight = sent.min(LOSS_DATAGRAMS);
        let sample = (u128::from(lost) * 1_000_000 / u128::from(sent)) as u64;
        let before = u64::from(self.millionths) * (LOSS_DATAGRAMS - weight);
        self.millionths = ((before + sample * weight) / LOSS_DATAGRAMS) as u32;
    }

    /// The fraction, as in [`Report::loss`].
    pub fn fraction(&self) -> u8 {
        (u64::from(self.millionths) * 256 / 1_000_000).min(255) as u8
    }
}

#[cfg(test)]
mod tests;
