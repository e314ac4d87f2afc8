//! What happened to a session lately, and how much it sends: what an operator is told of it.
//!
//! Decides nothing. Invariants: a session's story has a fixed size, whatever its client does; the
//! same thing again and again is one entry, which counts.

use protocol::time::Time;

/// Entries of a story: a bad evening's comings and goings. 8 bytes each, of each session.
const EVENTS: usize = 10;

/// What can happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Its login was done.
    #[default]
    LoggedIn,
    /// It came from another shard.
    Moved,
    /// Its client came back to it.
    Resumed,
    /// Its connection was lost, for the reason with this code.
    Lost,
    /// It was bound to an instance of the group with this id.
    Bound,
    /// The group with this id does not keep up, and it got no more credit.
    CreditWithheld,
    /// It sent above its rate, and was not read for a while.
    RatePaused,
    /// Its client reads too slowly: what may get lost began to wait.
    Slow,
    /// It opened a path of datagrams beside its stream.
    SidePath,
    /// Its datagrams come from another address.
    Migrated,
}

impl Event {
    /// As an operator reads it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::LoggedIn => "logged_in",
            Self::Moved => "moved",
            Self::Resumed => "resumed",
            Self::Lost => "lost",
            Self::Bound => "bound",
            Self::CreditWithheld => "credit_withheld",
            Self::RatePaused => "rate_paused",
            Self::Slow => "slow",
            Self::SidePath => "side_path",
            Self::Migrated => "migrated",
        }
    }
}

/// An entry of a story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// When it happened last: a timestamp of the wire, ms.
    pub at_ms: u32,
    /// The code of a reason, or the id of a group; else 0.
    pub about: u16,
    /// What.
    pub event: Event,
    /// How often in a row; stays at its maximum.
    pub times: u8,
}

/// The last events of a session.
#[derive(Clone, Debug, Default)]
pub struct Story {
    events: [Noted; EVENTS],
    /// Where the next one goes.
    next: u8,
}

impl Story {
    /// Something has happened.
    pub fn note(&mut self, now: Time, event: Event, about: u16) {
        let at_ms = now.wire_ms();
        let next = usize::from(self.next);
        let last = &mut self.events[(next + EVENTS - 1) % EVENTS];
        if last.times > 0 && (last.event, last.about) == (event, about) {
            last.times = last.times.saturating_add(1);
            last.at_ms = at_ms;
            return;
        }
        self.events[next] = Noted {
            at_ms,
            about,
            event,
            times: 1,
        };
        self.next = ((next + 1) % EVENTS) as u8;
    }

    /// The events, the oldest first.
    pub fn events(&self) -> impl Iterator<Item = Noted> {
        let (later, earlier) = self.events.split_at(usize::from(self.next));
        let events = earlier.iter().chain(later).copied();
        events.filter(|noted| noted.times > 0)
    }
}

/// Microseconds of one span of [`Traffic`], as a power of two: 4.2 s.
const SPAN_SHIFT: u32 = 22;

/// What goes through a connection, in the span of time before and in the present one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    span: u32,
    before: Amount,
    now: Amount,
}

/// How much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Frames that came.
    pub frames: u32,
    /// Their bytes.
    pub received_bytes: u32,
    /// Bytes that left.
    pub sent_bytes: u32,
}

impl Traffic {
    /// A frame of so many bytes came.
    pub fn received(&mut self, now: Time, bytes: usize) {
        self.turn(now);
        self.now.frames = self.now.frames.saturating_add(1);
        self.now.received_bytes = self.now.received_bytes.saturating_add(bytes as u32);
    }

    /// So many bytes left.
    pub fn sent(&mut self, now: Time, bytes: usize) {
        self.turn(now);
        self.now.sent_bytes = self.now.sent_bytes.saturating_add(bytes as u32);
    }

    /// How much a second, over the last four to eight seconds.
    pub fn per_second(mut self, now: Time) -> Amount {
        self.turn(now);
        let span_us = 1_u64 << SPAN_SHIFT;
        let us = span_us + (now.0 & (span_us - 1));
        let rate = |before: u32, present: u32| {
            let sum = u64::from(before) + u64::from(present);
            u32::try_from(sum * 1_000_000 / us).unwrap_or(u32::MAX)
        };
        Amount {
            frames: rate(self.before.frames, self.now.frames),
            received_bytes: rate(self.before.received_bytes, self.now.received_bytes),
            sent_bytes: rate(self.before.sent_bytes, self.now.sent_bytes),
        }
    }

    fn turn(&mut self, now: Time) {
        let span = (now.0 >> SPAN_SHIFT) as u32;
        if span != self.span {
            let is_next = self.span.wrapping_add(1) == span;
            self.before = if is_next { self.now } else { Amount::default() };
            self.now = Amount::default();
            self.span = span;
        }
    }
}

#[cfg(test)]
mod tests;
