//! One direction of a TCP-like connection: what the sender has not put on the
//! wire, what the receiver has in order, and what came early. Below it segments
//! are delayed, lost and repeated; above it a byte stream comes out.
//!
//! Invariant: what `take` yields is a prefix of what `write` took, whatever
//! arrives in which order, however often.

use std::collections::BTreeMap;

/// Bytes on the wire and not read, at most: the sum of both socket buffers.
/// Small, so that who does not read is noticed.
const WINDOW_BYTES: u64 = 32_768;

/// A piece of the stream on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its first byte.
    pub at: u64,
    /// Its bytes; empty for the end of the stream.
    pub bytes: Vec<u8>,
    /// The stream ends behind it.
    pub fin: bool,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    unsent: Vec<u8>,
    fin_wanted: bool,
    fin_sent: bool,
    sent: u64,
    early: BTreeMap<u64, Vec<u8>>,
    ready: Vec<u8>,
    received: u64,
    fin_at: Option<u64>,
}

impl Pipe {
    /// Bytes to send.
    pub fn write(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// The stream ends behind what was written.
    pub fn shut(&mut self) {
        self.fin_wanted = true;
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.sent + self.unsent.len() as u64
    }

    /// Bytes that the receiver has taken.
    pub fn taken(&self) -> u64 {
        self.received - self.ready.len() as u64
    }

    /// Whether everything written is on the wire.
    pub fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// The next segment, of at most `bytes_max` bytes, while the window is open.
    pub fn segment(&mut self, bytes_max: usize) -> Option<Segment> {
        let room = WINDOW_BYTES.saturating_sub(self.sent - self.taken()) as usize;
        let length = self.unsent.len().min(bytes_max).min(room);
        let fin = self.fin_wanted && !self.fin_sent && length == self.unsent.len();
        if length == 0 && !fin {
            return None;
        }
        let at = self.sent;
        let bytes: Vec<u8> = self.unsent.drain(..length).collect();
        self.sent += length as u64;
        self.fin_sent |= fin;
        Some(Segment { at, bytes, fin })
    }

    /// A segment has come.
    pub fn arrive(&mut self, segment: Segment) {
        if segment.fin {
            self.fin_at = Some(segment.at + segment.bytes.len() as u64);
        }
        if segment.at >= self.received && !segment.bytes.is_empty() {
            self.early.insert(segment.at, segment.bytes);
        }
        while let Some(bytes) = self.early.remove(&self.received) {
            self.received += bytes.len() as u64;
            self.ready.extend_from_slice(&bytes);
        }
    }

    /// What has come in order and was not taken.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes so many bytes of it.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        self.ready.drain(..bytes.min(self.ready.len())).collect()
    }

    /// The end of the stream was reached and everything before it taken.
    pub fn is_ended(&self) -> bool {
        self.fin_at == Some(self.received) && self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests;
