//! The reliable lane of a datagram connection: whole bodies, in order, each once.
//!
//! A selective-repeat ARQ with what makes KCP quick (each segment is acknowledged by
//! itself, three later acknowledgements resend it, no waiting for a window), the
//! round trip and timeout of RFC 6298, and a window of its own that halves on loss
//! (RFC 5681). Why not the `kcp` crate: docs/adr/0009-datagrams.md.
//!
//! It does no I/O and seals nothing: `push` takes bodies, `write` appends the chunks to
//! send, `handle_ack`, `receive` and `poll_message` take in what arrived.
//!
//! Invariants:
//! - `segments[..sent]` are at most `DATAGRAM_WINDOW`.
//! - Out of order, at most the receive window is kept; of a message in pieces, at
//!   most `message_bytes_max`.
//! - An idle one owns no memory.

use std::collections::VecDeque;

use super::chunk::{self, Ack, Chunk, DATA_HEAD_BYTES, MORE};
use crate::limits::{DATAGRAM_WINDOW, DATAGRAM_WINDOW_BEFORE_LOGIN, SEGMENT_BYTES_MAX};
use crate::time::Time;

/// How long, µs, an acknowledgement waits for something to ride on. As QUIC's
/// (RFC 9000 §18.2, max_ack_delay): most replies are there by then.
pub const ACK_DELAY_US: u64 = 25_000;

/// Segments after which an acknowledgement waits no longer.
const ACK_SEGMENTS: u32 = 4;

/// Later segments acknowledged after which one counts as lost; fewer and plain
/// reordering looks like loss (RFC 9002 §6.1.1).
const LOSS_THRESHOLD: u8 = 3;

/// Timeout, µs, before the round trip is known (RFC 9002 §6.2.2 says 333 ms).
const RTO_FIRST_US: u64 = 333_000;

/// Smallest timeout, µs, above the other end's delay. KCP takes 30 ms.
const RTO_MIN_US: u64 = 40_000;

/// Largest timeout, µs: a phone that comes out of a tunnel goes on within it.
const RTO_MAX_US: u64 = 3_000_000;

/// Segments under way at first (RFC 6928 has 10, of 1,460 bytes).
const WINDOW_FIRST: u32 = 12;

/// Segments under way after a loss, at the least.
const WINDOW_MIN: u32 = 4;

/// Capacity, bytes, above which memory that has run empty is freed.
const IDLE_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never sent, or taken for lost.
    Waiting,
    /// On its way.
    Sent,
    /// Acknowledged out of order.
    Acknowledged,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    sent_at: Time,
    bytes: u16,
    flags: u8,
    state: State,
    /// How often it was sent.
    times: u8,
    /// Later segments that were acknowledged since.
    passed: u8,
}

/// What became of a segment that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is a whole message, and the next: process its bytes.
    Message,
    /// It was kept, or was there already; ask `poll_message`.
    Kept,
    /// It was not taken, and is not acknowledged: beyond the window.
    Refused,
    /// The message that it belongs to is longer than allowed.
    TooLong,
}

/// The round trip as measured (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip {
    /// Microseconds; 0 before the first sample.
    smoothed: u64,
    variation: u64,
}

impl RoundTrip {
    fn sample(&mut self, us: u64) {
        let us = us.max(1);
        if self.smoothed == 0 {
            self.smoothed = us;
            self.variation = us / 2;
        } else {
            let off = self.smoothed.abs_diff(us);
            self.variation = (3 * self.variation + off) / 4;
            self.smoothed = (7 * self.smoothed + us) / 8;
        }
    }

    fn timeout_us(&self) -> u64 {
        if self.smoothed == 0 {
            return RTO_FIRST_US;
        }
        let above = (4 * self.variation).max(RTO_MIN_US);
        (self.smoothed + above + ACK_DELAY_US).min(RTO_MAX_US)
    }
}

/// Both directions of one end.
#[derive(Debug)]
pub struct Arq {
    /// Number of `segments[0]`.
    base: u32,
    segments: VecDeque<Segment>,
    /// Their bytes, one behind the other, from `log_start`.
    log: Vec<u8>,
    log_start: usize,
    /// Segments that were sent at least once.
    sent: u32,
    /// Offset in `log` of the first that was not.
    unsent_at: usize,
    under_way: u32,
    /// Of those sent, how many are `Waiting` again.
    lost: u32,
    window: u32,
    threshold: u32,
    /// Acknowledged since the window last grew.
    grown: u32,
    /// Losses below this number are one event.
    recovery: u32,
    round_trip: RoundTrip,
    /// The timeout counts from here.
    since: Time,
    timeouts: u8,
    resent: u64,

    /// Number expected next.
    next: u32,
    /// What came early: place i is segment `next + 1 + i`.
    early: VecDeque<Option<(u8, Vec<u8>)>>,
    /// `next` has moved and the first place of `early` is now it.
    shift: bool,
    /// The beginning of a message whose end has not come.
    partial: Vec<u8>,
    partial_flags: u8,
    is_whole: bool,
    receive_window: u32,
    message_bytes_max: usize,
    /// Segments that no acknowledgement has covered.
    unacknowledged: u32,
    ack_at: Option<Time>,
    newest_at: Time,
}

impl Arq {
    /// An end that takes messages of so many bytes, and until `open_window` no more
    /// than a LOGIN needs.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            base: 0,
            segments: VecDeque::new(),
            log: Vec::new(),
            log_start: 0,
            sent: 0,
            unsent_at: 0,
            under_way: 0,
            lost: 0,
            window: WINDOW_FIRST,
            threshold: DATAGRAM_WINDOW,
            grown: 0,
            recovery: 0,
            round_trip: RoundTrip::default(),
            since: Time(0),
            timeouts: 0,
            resent: 0,
            next: 0,
            early: VecDeque::new(),
            shift: false,
            partial: Vec::new(),
            partial_flags: 0,
            is_whole: false,
            receive_window: DATAGRAM_WINDOW_BEFORE_LOGIN,
            message_bytes_max,
            unacknowledged: 0,
            ack_at: None,
            newest_at: Time(0),
        }
    }

    /// The peer has shown who it is: it may have a whole window under way, and send
    /// messages of so many bytes.
    pub fn open_window(&mut self, message_bytes_max: usize) {
        self.receive_window = DATAGRAM_WINDOW;
        self.message_bytes_max = message_bytes_max;
    }

    /// Bytes that are not acknowledged, sent or not.
    pub fn queued_bytes(&self) -> usize {
        self.log.len() - self.log_start
    }

    /// Bytes of the peer that are kept: what came early, and a message whose end has not come.
    pub fn held_bytes(&self) -> usize {
        let early = self.early.iter().flatten();
        early.map(|(_, bytes)| bytes.len()).sum::<usize>() + self.partial.len()
    }

    /// Places for segments that came early; less than the receive window.
    pub fn held_segments(&self) -> usize {
        self.early.len()
    }

    /// The smoothed round trip, µs; 0 while none is known.
    pub fn round_trip_us(&self) -> u64 {
        self.round_trip.smoothed
    }

    /// Segments that were sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Takes a body, given in pieces. `flags`: `COMPRESSED` or nothing.
    pub fn push(&mut self, flags: u8, pieces: &[&[u8]]) {
        let start = self.log.len();
        for piece in pieces {
            self.log.extend_from_slice(piece);
        }
        let mut left = self.log.len() - start;
        while left > 0 {
            let bytes = left.min(SEGMENT_BYTES_MAX);
            left -= bytes;
            self.segments.push_back(Segment {
                sent_at: Time(0),
                bytes: bytes as u16,
                flags: flags | if left > 0 { MORE } else { 0 },
                state: State::Waiting,
                times: 0,
                passed: 0,
            });
        }
    }

    /// Whether `write` would append a segment.
    pub fn can_write(&self) -> bool {
        self.under_way < self.window && (self.lost > 0 || self.has_unsent())
    }

    /// Bytes of the chunk that `write` would append first.
    pub fn next_bytes(&self) -> Option<usize> {
        let mut under_way = self.segments.iter().take(self.sent as usize);
        let next = match self.lost {
            0 => self.segments.get(self.sent as usize),
            _ => under_way.find(|segment| segment.state == State::Waiting),
        };
        next.filter(|_| self.can_write())
            .map(|segment| DATA_HEAD_BYTES + usize::from(segment.bytes))
    }

    fn has_unsent(&self) -> bool {
        self.sent < DATAGRAM_WINDOW && (self.sent as usize) < self.segments.len()
    }

    /// Appends segments as long as they fit into `room` bytes: first those that were
    /// lost, then new ones.
    pub fn write(&mut self, now: Time, mut room: usize, out: &mut Vec<u8>) {
        if self.under_way == 0 {
            self.since = now;
        }
        if self.lost > 0 {
            let mut at = self.log_start;
            for index in 0..self.sent as usize {
                let segment = self.segments[index];
                let end = at + usize::from(segment.bytes);
                if segment.state == State::Waiting {
                    if self.under_way >= self.window
                        || room < DATA_HEAD_BYTES + usize::from(segment.bytes)
                    {
                        return;
                    }
                    room -= DATA_HEAD_BYTES + usize::from(segment.bytes);
                    self.lost -= 1;
                    self.resent += 1;
                    self.write_one(now, index, at..end, out);
                }
                at = end;
                if self.lost == 0 {
                    break;
                }
            }
        }
        while self.has_unsent() && self.under_way < self.window {
            let index = self.sent as usize;
            let bytes = usize::from(self.segments[index].bytes);
            if room < DATA_HEAD_BYTES + bytes {
                return;
            }
            room -= DATA_HEAD_BYTES + bytes;
            let at = self.unsent_at;
            self.unsent_at += bytes;
            self.sent += 1;
            self.write_one(now, index, at..at + bytes, out);
        }
    }

    fn write_one(
        &mut self,
        now: Time,
        index: usize,
        range: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) {
        let segment = &mut self.segments[index];
        segment.state = State::Sent;
        segment.sent_at = now;
        segment.times = segment.times.saturating_add(1);
        segment.passed = 0;
        self.under_way += 1;
        let chunk = Chunk::Data {
            flags: segment.flags,
            number: self.base.wrapping_add(index as u32),
            bytes: &self.log[range],
        };
        chunk.encode(out);
    }

    /// The peer says what it has. One for what was never sent is ignored.
    pub fn handle_ack(&mut self, now: Time, ack: &Ack) {
        let advanced = ack.next.wrapping_sub(self.base);
        if advanced > self.sent {
            return;
        }
        let mut newest: Option<Segment> = None;
        let mut count = 0;
        let mut seen = |segment: &Segment| {
            count += 1;
            if newest.is_none_or(|newest| newest.sent_at <= segment.sent_at) {
                newest = Some(*segment);
            }
        };
        for _ in 0..advanced {
            let Some(segment) = self.segments.pop_front() else {
                break;
            };
            match segment.state {
                State::Sent => self.under_way -= 1,
                State::Waiting => self.lost -= 1,
                State::Acknowledged => {}
            }
            if segment.state != State::Acknowledged {
                seen(&segment);
            }
            self.log_start += usize::from(segment.bytes);
            self.base = self.base.wrapping_add(1);
            self.sent -= 1;
        }
        let mut bitmap = ack.bitmap;
        // Those of it that are news: bit i is place i + 1.
        let mut fresh: u64 = 0;
        while bitmap != 0 {
            let index = bitmap.trailing_zeros() as usize + 1;
            bitmap &= bitmap - 1;
            if index >= self.sent as usize {
                break;
            }
            let segment = &mut self.segments[index];
            match segment.state {
                State::Sent => self.under_way -= 1,
                State::Waiting => self.lost -= 1,
                State::Acknowledged => continue,
            }
            seen(segment);
            segment.state = State::Acknowledged;
            fresh |= 1 << (index - 1);
        }
        let Some(newest) = newest else {
            return;
        };
        if newest.times == 1 {
            // A segment that was sent twice doesn't tell which one this is about (Karn).
            let us = now.us_since(newest.sent_at).saturating_sub(ack.delay_us);
            self.round_trip.sample(us);
        }
        self.since = now;
        self.timeouts = 0;
        self.grow(count);
        self.detect_loss(fresh, newest.sent_at);
        self.tidy();
    }

    /// Slow start below the threshold, above it one segment a round trip. Only a
    /// window that was in use grows.
    fn grow(&mut self, acknowledged: u32) {
        if self.under_way + acknowledged < self.window / 2 {
            return;
        }
        if self.window < self.threshold {
            self.window += acknowledged;
        } else {
            self.grown += acknowledged;
            if self.grown >= self.window {
                self.grown = 0;
                self.window += 1;
            }
        }
        self.window = self.window.min(DATAGRAM_WINDOW);
    }

    fn detect_loss(&mut self, fresh: u64, newest: Time) {
        let mut is_event = false;
        let highest = 64 - fresh.leading_zeros() as usize;
        for index in 0..highest {
            let segment = &mut self.segments[index];
            if segment.state != State::Sent || segment.sent_at > newest {
                continue;
            }
            let later = (fresh >> index).count_ones() as u8;
            segment.passed = segment.passed.saturating_add(later);
            if segment.passed >= LOSS_THRESHOLD {
                segment.state = State::Waiting;
                self.under_way -= 1;
                self.lost += 1;
                let number = self.base.wrapping_add(index as u32);
                is_event |= number.wrapping_sub(self.recovery) as i32 >= 0;
            }
        }
        if is_event {
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = self.threshold;
            self.recovery = self.base.wrapping_add(self.sent);
        }
    }

    fn tidy(&mut self) {
        if self.segments.is_empty() {
            self.log.clear();
            self.log_start = 0;
            self.unsent_at = 0;
            if self.log.capacity() > IDLE_BYTES_MAX {
                self.log = Vec::new();
            }
            if self.segments.capacity() * size_of::<Segment>() > IDLE_BYTES_MAX {
                self.segments = VecDeque::new();
            }
        } else if self.log_start > self.log.len() / 2 {
            self.log.drain(..self.log_start);
            self.unsent_at -= self.log_start;
            self.log_start = 0;
        }
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let resend = (self.under_way > 0).then(|| {
            let us = self.round_trip.timeout_us() << self.timeouts.min(6);
            self.since + us.min(RTO_MAX_US)
        });
        [resend, self.ack_at].into_iter().flatten().min()
    }

    /// Time has passed: what was not acknowledged in time is taken for lost.
    pub fn handle_timeout(&mut self, now: Time) {
        let us = self.round_trip.timeout_us() << self.timeouts.min(6);
        if self.under_way == 0 || now < self.since + us.min(RTO_MAX_US) {
            return;
        }
        for segment in self.segments.iter_mut().take(self.sent as usize) {
            if segment.state == State::Sent {
                segment.state = State::Waiting;
                self.lost += 1;
            }
        }
        self.under_way = 0;
        self.timeouts = self.timeouts.saturating_add(1);
        self.threshold = (self.window / 2).max(WINDOW_MIN);
        self.window = WINDOW_MIN;
        self.recovery = self.base.wrapping_add(self.sent);
        self.since = now;
    }

    /// A segment arrived. After `Message` and `Kept`, `poll_message` may have more.
    pub fn receive(&mut self, now: Time, flags: u8, number: u32, bytes: &[u8]) -> Received {
        let ahead = number.wrapping_sub(self.next);
        if ahead >= 1 << 31 {
            // The acknowledgement got lost.
            self.ack_at = Some(now);
            return Received::Kept;
        }
        if ahead >= self.receive_window {
            return Received::Refused;
        }
        if self.unacknowledged == 0 {
            self.ack_at.get_or_insert(now + ACK_DELAY_US);
        }
        self.unacknowledged += 1;
        self.newest_at = now;
        if ahead > 0 {
            // A gap: the sender wants to know soon.
            self.ack_at = Some(now);
            let at = ahead as usize - 1;
            if self.early.len() <= at {
                self.early.resize_with(at + 1, || None);
            }
            self.early[at].get_or_insert_with(|| (flags, bytes.to_vec()));
            return Received::Kept;
        }
        if self.unacknowledged >= ACK_SEGMENTS || !self.early.is_empty() {
            self.ack_at = Some(now);
        }
        self.advance();
        if self.partial.is_empty() && flags & MORE == 0 {
            return Received::Message;
        }
        if self.append(flags, bytes) {
            Received::Kept
        } else {
            Received::TooLong
        }
    }

    fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
        self.shift = true;
    }

    /// `false` if the message becomes too long.
    fn append(&mut self, flags: u8, bytes: &[u8]) -> bool {
        if self.partial.is_empty() {
            self.partial_flags = flags & !MORE;
        }
        if self.partial.len() + bytes.len() > self.message_bytes_max {
            return false;
        }
        self.partial.extend_from_slice(bytes);
        self.is_whole = flags & MORE == 0;
        true
    }

    /// The next message that is whole now and was not given out by `receive`: its flags
    /// and its bytes. `Err`: it is longer than allowed.
    pub fn poll_message(&mut self) -> Option<Result<(u8, Vec<u8>), ()>> {
        loop {
            if std::mem::take(&mut self.is_whole) {
                return Some(Ok((self.partial_flags, std::mem::take(&mut self.partial))));
            }
            if !std::mem::take(&mut self.shift) {
                return None;
            }
            let first = self.early.pop_front().flatten();
            if self.early.is_empty() && self.early.capacity() > 0 {
                self.early = VecDeque::new();
            }
            let (flags, bytes) = first?;
            self.advance();
            if self.partial.is_empty() && flags & MORE == 0 {
                return Some(Ok((flags, bytes)));
            }
            if !self.append(flags, &bytes) {
                return Some(Err(()));
            }
        }
    }

    /// Whether an acknowledgement has to leave now.
    pub fn is_ack_due(&self, now: Time) -> bool {
        self.ack_at.is_some_and(|at| at <= now)
    }

    /// What was received, if that has not been said since.
    pub fn take_ack(&mut self, now: Time) -> Option<Ack> {
        self.ack_at.take()?;
        self.unacknowledged = 0;
        let mut bitmap = 0;
        for (at, segment) in self.early.iter().enumerate().take(64) {
            bitmap |= u64::from(segment.is_some()) << at;
        }
        Some(Ack {
            next: self.next,
            bitmap,
            delay_us: now.us_since(self.newest_at),
        })
    }
}

const _: () = assert!(chunk::ACK_BYTES_MAX < 32);

#[cfg(test)]
mod tests;
