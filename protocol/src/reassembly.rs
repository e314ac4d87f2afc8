//! Cuts the byte stream of a connection into frames. A frame that arrived
//! whole is handed out where it lies in the receive buffer; only one that is
//! cut by the end of that buffer is copied, once, into a pooled buffer.
//!
//! Invariant: at most one frame, and never more than the caller's maximum, is
//! kept between two calls.

use crate::buffers::Buffers;
use crate::frame;
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};

/// The length field is below the header or above the maximum. The stream
/// can't be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength(pub usize);

/// What one connection keeps between two receives.
#[derive(Debug, Default)]
pub struct Reassembly {
    partial: Vec<u8>,
    /// The frame in `partial` was handed out; drop it at the next call.
    handed_out: bool,
}

impl Reassembly {
    /// The next whole frame of `data`, which it shortens from the front; `None`
    /// when the rest was too short and has been kept.
    pub fn next<'a, 'data: 'a>(
        &'a mut self,
        data: &mut &'data mut [u8],
        frame_bytes_max: usize,
        pool: &mut Buffers,
    ) -> Result<Option<&'a mut [u8]>, BadLength> {
        if self.handed_out {
            self.release(pool);
        }
        if self.partial.is_empty() {
            let length = match frame::length(data) {
                Some(length) => checked(length, frame_bytes_max)?,
                None => usize::MAX,
            };
            if length <= data.len() {
                let (head, rest) = std::mem::take(data).split_at_mut(length);
                *data = rest;
                return Ok(Some(head));
            }
            if !data.is_empty() {
                // Strangers, who may send little, get no buffer that was grown
                // for others.
                if frame_bytes_max >= FRAME_BYTES_MAX {
                    self.partial = pool.take();
                }
                self.partial.extend_from_slice(data);
                *data = &mut [];
            }
            return Ok(None);
        }
        // The length field itself may have been cut.
        if self.partial.len() < 3 {
            self.fill(3, data);
        }
        let Some(length) = frame::length(&self.partial) else {
            return Ok(None);
        };
        self.fill(checked(length, frame_bytes_max)?, data);
        if self.partial.len() < length {
            return Ok(None);
        }
        self.handed_out = true;
        Ok(Some(&mut self.partial))
    }

    /// Bytes of a frame that has begun and is not complete.
    pub fn pending_bytes(&self) -> usize {
        if self.handed_out {
            0
        } else {
            self.partial.len()
        }
    }

    /// Gives the buffer back, for a connection that ends or has nothing pending.
    pub fn release(&mut self, pool: &mut Buffers) {
        pool.give(std::mem::take(&mut self.partial));
        self.handed_out = false;
    }

    fn fill(&mut self, length: usize, data: &mut &mut [u8]) {
        let wanted = length.saturating_sub(self.partial.len()).min(data.len());
        let (head, rest) = std::mem::take(data).split_at_mut(wanted);
        self.partial.extend_from_slice(head);
        *data = rest;
    }
}

fn checked(length: usize, frame_bytes_max: usize) -> Result<usize, BadLength> {
    if (FRAME_HEADER_BYTES..=frame_bytes_max).contains(&length) {
        Ok(length)
    } else {
        Err(BadLength(length))
    }
}

#[cfg(test)]
mod tests;
