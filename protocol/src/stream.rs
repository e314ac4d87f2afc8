//! One end of the two reliable streams between a client and a backend group
//! (PROTOCOL §6): numbers, acknowledgements, the outbox, and SYNC, by which
//! both ends agree where to go on after anything between them was lost. Client
//! and backend stub run this same code.
//!
//! Call order: `push` what the application sends; `handle_*` what arrived; then
//! `poll_sync`, `poll_transmit` until `None`, and `poll_ack`. Time only moves
//! forward.
//!
//! Invariant: what `push` accepted stays in the outbox until the other end has
//! acknowledged it, and leaves in order, once for each SYNC.

use std::collections::VecDeque;

use crate::body::{Lane, MessageHeader, Sync, patch_ack};
use crate::ids::{GroupId, Incarnation};
use crate::limits::{ACK_DELAY_MS, ACK_MESSAGES_MAX, OUTBOX_BYTES_MAX};
use crate::time::Time;

/// Capacity, bytes, above which an outbox that has run empty is freed.
const IDLE_OUTBOX_BYTES_MAX: usize = 1_024;

/// Bytes that a backend's end sends again for a client that acknowledges nothing: a
/// SYNC has 22 bytes and would otherwise cost a whole outbox as often as the client
/// likes. Four losses in a row with a full outbox are a broken path.
const RESEND_BYTES_MAX: i64 = 4 * OUTBOX_BYTES_MAX as i64;

/// Bytes that may be sent again for each that is acknowledged.
const RESEND_PER_ACKNOWLEDGED: i64 = 4;

/// Bounds of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Messages that wait for acknowledgement.
    pub messages_max: usize,
    /// Bytes of them, headers included.
    pub bytes_max: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            messages_max: crate::limits::OUTBOX_MESSAGES_MAX,
            bytes_max: crate::limits::OUTBOX_BYTES_MAX,
        }
    }
}

/// The outbox is at a bound; the message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull;

/// What to do with a reliable message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is the next one: hand it to the application.
    Deliver,
    /// It was delivered before.
    Repeated,
    /// One before it is missing; a SYNC will ask for it.
    Gap,
    /// The ends have not agreed where to go on.
    NotSynced,
}

/// Which side of the stream this is; they answer a SYNC differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}

/// One end.
#[derive(Debug)]
pub struct StreamEnd {
    side: Side,
    /// Both ends agree; messages flow.
    open: bool,
    /// The backend's end has no memory of this session yet.
    fresh: bool,
    sync_wanted: bool,
    /// The last number behind a gap, 0 if there is none: rising ones belong to
    /// one gap and ask once, a lower one means that the resend has one too.
    gap_number: u32,
    ack_wanted: bool,
    group: GroupId,
    incarnation: Incarnation,
    /// Number of the first message in the outbox.
    base: u32,
    /// Index in the outbox of the next message to transmit.
    cursor: u32,
    /// Number expected next from the other end.
    next: u32,
    /// Received since the last acknowledgement that was sent.
    unacknowledged: u32,
    unacknowledged_since: Time,
    /// The highest acknowledgement that was sent.
    ack_sent: u32,
    sequenced_sent: u32,
    sequenced_seen: u32,
    /// Encoded messages, one behind the other, from `log_start`.
    log: Vec<u8>,
    log_start: usize,
    lengths: VecDeque<u32>,
    /// Offset in `log` of the message at `cursor`.
    cursor_at: usize,
    /// Bytes that a SYNC may still make a backend's end send again; below 0
    /// after one that took more, until enough is acknowledged.
    resend_bytes: i64,
    /// Bytes that a client's end may still send, where its backend does not keep up.
    credit: Option<u32>,
}

impl StreamEnd {
    /// A client's end. Down until the backend's SYNC.
    pub fn client(group: GroupId) -> Self {
        Self::new(Side::Client, group, Incarnation(0))
    }

    /// A backend's end without memory. Call `attach` to send the first SYNC.
    pub fn backend(group: GroupId, incarnation: Incarnation) -> Self {
        Self::new(Side::Backend, group, incarnation)
    }

    fn new(side: Side, group: GroupId, incarnation: Incarnation) -> Self {
        Self {
            side,
            open: false,
            fresh: side == Side::Backend,
            sync_wanted: false,
            gap_number: 0,
            ack_wanted: false,
            group,
            incarnation,
            base: 1,
            cursor: 0,
            next: 1,
            unacknowledged: 0,
            unacknowledged_since: Time(0),
            ack_sent: 0,
            sequenced_sent: 0,
            sequenced_seen: 0,
            log: Vec::new(),
            log_start: 0,
            lengths: VecDeque::new(),
            cursor_at: 0,
            resend_bytes: RESEND_BYTES_MAX,
            credit: None,
        }
    }

    /// Which group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Whether messages flow.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Messages that are not acknowledged.
    pub fn outbox_messages(&self) -> usize {
        self.lengths.len()
    }

    /// Bytes of them.
    pub fn outbox_bytes(&self) -> usize {
        self.log.len() - self.log_start
    }

    /// The highest number up to which everything was received.
    pub fn received(&self) -> u32 {
        self.next.wrapping_sub(1)
    }

    /// Takes a message into the outbox; number, acknowledgement and lane of
    /// `header` are filled in here.
    ///
    /// # Errors
    /// `OutboxFull` when a bound is reached or the numbers are used up.
    pub fn push(
        &mut self,
        mut header: MessageHeader,
        payload: &[u8],
        limits: OutboxLimits,
    ) -> Result<u32, OutboxFull> {
        let bytes = header.encoded_bytes() + payload.len();
        let number = self
            .base
            .checked_add(self.lengths.len() as u32)
            .ok_or(OutboxFull)?;
        if number == u32::MAX
            || self.lengths.len() >= limits.messages_max
            || self.outbox_bytes() + bytes > limits.bytes_max
        {
            return Err(OutboxFull);
        }
        header.lane = Lane::Reliable;
        header.number = number;
        header.ack = self.received();
        header.encode(&mut self.log);
        self.log.extend_from_slice(payload);
        self.lengths.push_back(bytes as u32);
        Ok(number)
    }

    /// Number for the next message of the sequenced lane.
    pub fn next_sequenced(&mut self) -> u32 {
        self.sequenced_sent = self.sequenced_sent.wrapping_add(1);
        self.sequenced_sent
    }

    /// Whether a sequenced message is newer than all before it.
    pub fn handle_sequenced(&mut self, number: u32) -> bool {
        let newer = number.wrapping_sub(self.sequenced_seen) as i32 > 0;
        if newer {
            self.sequenced_seen = number;
        }
        newer
    }

    /// A reliable message with this number arrived. On `Deliver` the caller
    /// processes it before it polls for the acknowledgement.
    pub fn handle_message(&mut self, number: u32, ack: u32, now: Time) -> Delivery {
        if !self.open {
            return Delivery::NotSynced;
        }
        self.handle_ack(ack);
        if number == self.next && number != u32::MAX {
            self.next += 1;
            self.gap_number = 0;
            if self.unacknowledged == 0 {
                self.unacknowledged_since = now;
            }
            self.unacknowledged += 1;
            return Delivery::Deliver;
        }
        if number < self.next {
            self.ack_wanted = true;
            return Delivery::Repeated;
        }
        if number <= self.gap_number || self.gap_number == 0 {
            self.sync_wanted = true;
        }
        self.gap_number = number;
        if self.side == Side::Backend {
            self.open = false;
        }
        Delivery::Gap
    }

    /// An acknowledgement arrived. One for what was never sent is ignored.
    pub fn handle_ack(&mut self, ack: u32) {
        if !self.open {
            return;
        }
        self.acknowledge(ack);
    }

    fn acknowledge(&mut self, ack: u32) {
        let end = self.base + self.lengths.len() as u32;
        if ack < self.base || ack >= end {
            return;
        }
        while self.base <= ack {
            let Some(length) = self.lengths.pop_front() else {
                break;
            };
            self.log_start += length as usize;
            self.resend_bytes = (self.resend_bytes + RESEND_PER_ACKNOWLEDGED * i64::from(length))
                .min(RESEND_BYTES_MAX);
            self.base += 1;
            self.cursor = self.cursor.saturating_sub(1);
        }
        self.cursor_at = self.cursor_at.max(self.log_start);
        if self.lengths.is_empty() {
            self.log.clear();
            self.log_start = 0;
            self.cursor_at = 0;
            if self.log.capacity() > IDLE_OUTBOX_BYTES_MAX {
                self.log = Vec::new();
            }
        } else if self.log_start > self.log.len() / 2 {
            self.log.drain(..self.log_start);
            self.cursor_at -= self.log_start;
            self.log_start = 0;
        }
    }

    /// The path to the client (again) leads here: agree anew.
    pub fn attach(&mut self) {
        self.open = false;
        self.sync_wanted = true;
        self.resend_bytes = RESEND_BYTES_MAX;
    }

    /// What this end may send until it is told anew: so many bytes, or `None` for no limit.
    /// The last message that leaves may be longer than what is left. A SYNC lifts it.
    pub fn set_credit(&mut self, bytes: Option<u32>) {
        self.credit = bytes;
    }

    /// Whether there is any left.
    pub fn has_credit(&self) -> bool {
        self.credit != Some(0)
    }

    /// The path is gone; the outbox keeps what it has.
    pub fn detach(&mut self) {
        self.open = false;
        self.sync_wanted = false;
    }

    /// Whether a SYNC comes from an end of the backend that has received something of this
    /// session while it is not the one that this client knows: one that was left. What lies
    /// between it and the present one would be lost or come twice.
    pub fn is_left_end(&self, sync: &Sync) -> bool {
        self.side == Side::Client && !sync.fresh && sync.incarnation != self.incarnation
    }

    /// The other end says where it stands. Returns whether the ends now agree;
    /// a backend ignores a SYNC that is meant for an earlier incarnation, and one
    /// of a client that asks for more and more and acknowledges nothing.
    pub fn handle_sync(&mut self, sync: &Sync) -> bool {
        match self.side {
            Side::Client => {
                self.credit = None;
                if sync.incarnation != self.incarnation {
                    self.incarnation = sync.incarnation;
                    self.next = 1;
                    self.unacknowledged = 0;
                    self.ack_sent = 0;
                    self.sequenced_seen = 0;
                    self.forget_acks();
                }
                // What the backend has received it need not be sent again, but
                // only an acknowledgement says that the answers are on their way.
                let from = if sync.fresh { self.base } else { sync.next };
                self.rewind(from);
                self.sync_wanted = true;
            }
            Side::Backend => {
                if sync.incarnation != self.incarnation || sync.base == 0 {
                    return false;
                }
                if self.fresh {
                    self.fresh = false;
                    self.next = sync.base;
                } else {
                    // An honest client never let go of what we did not have.
                    self.next = self.next.max(sync.base);
                }
                self.acknowledge(sync.next.wrapping_sub(1));
                if self.resend_bytes <= 0 {
                    return false;
                }
                self.resend_bytes -= (self.cursor_at - self.log_start) as i64;
                self.rewind(self.base);
                // The client still holds what was acknowledged in vain.
                self.ack_wanted = sync.base < self.next;
            }
        }
        self.open = true;
        self.gap_number = 0;
        true
    }

    /// The outbox acknowledges numbers of an end that is no more.
    fn forget_acks(&mut self) {
        let mut at = self.log_start;
        for &length in &self.lengths {
            let end = at + length as usize;
            patch_ack(&mut self.log[at..end], 0);
            at = end;
        }
    }

    /// Transmits next what has this number, or the first that is there.
    fn rewind(&mut self, number: u32) {
        let skipped = number
            .saturating_sub(self.base)
            .min(self.lengths.len() as u32);
        self.cursor = skipped;
        let bytes: usize = self
            .lengths
            .iter()
            .take(skipped as usize)
            .map(|&length| length as usize)
            .sum();
        self.cursor_at = self.log_start + bytes;
    }

    /// The SYNC to send now, if one is due.
    pub fn poll_sync(&mut self) -> Option<Sync> {
        if !std::mem::take(&mut self.sync_wanted) {
            return None;
        }
        if self.side == Side::Client {
            // Its `next` acknowledges.
            self.unacknowledged = 0;
            self.ack_wanted = false;
        }
        Some(Sync {
            fresh: self.fresh,
            group: self.group,
            incarnation: self.incarnation,
            next: self.next,
            base: self.base,
        })
    }

    /// The next message to transmit. It acknowledges what was processed before
    /// it was pushed, the last one everything: a message must never acknowledge
    /// what is answered behind it, since this end may die in between.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        if !self.open || self.sync_wanted || !self.has_credit() {
            return None;
        }
        let length = *self.lengths.get(self.cursor as usize)? as usize;
        if let Some(credit) = &mut self.credit {
            *credit = credit.saturating_sub(length as u32);
        }
        let start = self.cursor_at;
        self.cursor += 1;
        self.cursor_at += length;
        if self.is_transmitted() {
            let ack = self.take_ack();
            patch_ack(&mut self.log[start..start + length], ack);
        }
        Some(&self.log[start..start + length])
    }

    fn is_transmitted(&self) -> bool {
        self.cursor as usize == self.lengths.len()
    }

    /// Whether an acknowledgement has nothing to wait for. A client without credit does not hold
    /// it back: the backend would keep what it sends until its outbox is full.
    fn can_acknowledge(&self) -> bool {
        self.is_transmitted() || !self.has_credit()
    }

    /// The acknowledgement for something that is leaving now.
    pub fn take_ack(&mut self) -> u32 {
        if self.can_acknowledge() {
            self.unacknowledged = 0;
            self.ack_wanted = false;
            self.ack_sent = self.received();
        }
        self.ack_sent
    }

    /// The acknowledgement to send by itself, if one is due at `now`.
    pub fn poll_ack(&mut self, now: Time) -> Option<u32> {
        let due = self.ack_wanted
            || self.unacknowledged >= ACK_MESSAGES_MAX
            || self.ack_deadline().is_some_and(|deadline| deadline <= now);
        (due && self.open && !self.sync_wanted && self.can_acknowledge()).then(|| self.take_ack())
    }

    /// When `poll_ack` will be due, if nothing else happens.
    pub fn ack_deadline(&self) -> Option<Time> {
        (self.open && self.unacknowledged > 0)
            .then(|| self.unacknowledged_since.after_ms(ACK_DELAY_MS))
    }
}

#[cfg(test)]
mod tests;
