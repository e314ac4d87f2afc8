//! Opening frames that come in any order, repeatedly or not at all: the replay
//! window (RFC 6479, with a word to spare so that the window is whole), and the
//! keys of two neighbouring phases.
//!
//! Invariant: a sequence is accepted at most once, and nothing moves before its
//! frame has verified.

use crate::cipher::{Key, expand, open_in_place};
use crate::frame::{FLAG_KEY_PHASE, Header};
use crate::limits::{KEY_FRAMES_MAX, REPLAY_WINDOW};
use crate::reason::DropReason;

/// One word more than the window has: its oldest and its newest sequences may
/// share a word's place otherwise.
const WORDS: usize = REPLAY_WINDOW as usize / 64 + 1;

/// Which sequences have been seen.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// One above the highest sequence seen.
    next: u64,
    seen: [u64; WORDS],
    accepted: u64,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
            accepted: 0,
        }
    }
}

impl ReplayWindow {
    /// Whether this sequence would be accepted.
    ///
    /// # Errors
    /// `DatagramLate` below the window, `DatagramRepeated` if it was seen.
    pub fn check(&self, sequence: u64) -> Result<(), DropReason> {
        if sequence >= self.next {
            return Ok(());
        }
        if self.next - sequence > REPLAY_WINDOW {
            return Err(DropReason::DatagramLate);
        }
        let (word, bit) = place(sequence);
        if self.seen[word] & bit != 0 {
            return Err(DropReason::DatagramRepeated);
        }
        Ok(())
    }

    /// Accepts a sequence that `check` has let through. Whether it is the newest.
    pub fn accept(&mut self, sequence: u64) -> bool {
        let newest = sequence >= self.next;
        if newest {
            // Words that the window moves into hold what was seen long ago.
            let from = if self.next == 0 {
                0
            } else {
                (self.next - 1) / 64 + 1
            };
            let to = sequence / 64;
            for word in from.max(to.saturating_sub(WORDS as u64 - 1))..=to {
                self.seen[(word % WORDS as u64) as usize] = 0;
            }
            self.next = sequence + 1;
        }
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
        self.accepted += 1;
        newest
    }

    /// One above the highest sequence accepted.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Sequences below `next` that were never accepted: lost, late, or on their way.
    pub fn missing(&self) -> u64 {
        self.next - self.accepted
    }
}

fn place(sequence: u64) -> (usize, u64) {
    let word = (sequence / 64) % WORDS as u64;
    (word as usize, 1 << (sequence % 64))
}

/// The receiving half of a datagram connection's cipher.
#[derive(Debug)]
pub struct DatagramOpener {
    key: Key,
    /// The key before, for what is still on its way.
    previous: Option<Key>,
    phase: bool,
    /// The lowest sequence seen under `key`; what bears the other phase and lies
    /// below it is of the key before, what lies above of the key to come. A sender
    /// keeps each key for more frames than the window is long, so there is no third.
    phase_first: u64,
    key_frames: u64,
    window: ReplayWindow,
}

/// A frame that has verified.
#[derive(Debug)]
pub struct DatagramOpened<'a> {
    /// Its place among those that the peer sent.
    pub sequence: u64,
    /// No frame before it had a higher sequence.
    pub newest: bool,
    /// In the clear, in place.
    pub body: &'a mut [u8],
}

impl DatagramOpener {
    /// An opener under a fresh key.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            previous: None,
            phase: false,
            phase_first: 0,
            key_frames: 0,
            window: ReplayWindow::default(),
        }
    }

    /// Opens one frame in place, whose length, flags and CRC have been checked.
    ///
    /// # Errors
    /// `DatagramLate`, `DatagramRepeated`, `DatagramSeal`; nothing has moved.
    pub fn open<'a>(
        &mut self,
        header: &Header,
        frame: &'a mut [u8],
    ) -> Result<DatagramOpened<'a>, DropReason> {
        let sequence = expand(self.window.next(), header.sequence);
        // Before the key is asked, since it is so much cheaper; what is forged and
        // what is repeated are both dropped.
        self.window.check(sequence)?;
        let other_phase = (header.flags & FLAG_KEY_PHASE != 0) != self.phase;
        let is_previous = other_phase && sequence < self.phase_first;
        let next_key = (other_phase && !is_previous).then(|| self.key.next());
        let key = match &next_key {
            Some(key) => key,
            None if is_previous => self.previous.as_ref().ok_or(DropReason::DatagramSeal)?,
            None => &self.key,
        };
        if key == &self.key && self.key_frames >= KEY_FRAMES_MAX {
            return Err(DropReason::DatagramSeal);
        }
        let body = open_in_place(key, sequence, frame).map_err(|_| DropReason::DatagramSeal)?;
        if let Some(key) = next_key {
            self.previous = Some(std::mem::replace(&mut self.key, key));
            self.phase = !self.phase;
            self.phase_first = sequence;
            self.key_frames = 1;
        } else if !is_previous {
            self.phase_first = self.phase_first.min(sequence);
            self.key_frames += 1;
        }
        let newest = self.window.accept(sequence);
        Ok(DatagramOpened {
            sequence,
            newest,
            body,
        })
    }

    /// What was seen.
    pub fn window(&self) -> &ReplayWindow {
        &self.window
    }
}

#[cfg(test)]
mod tests;
