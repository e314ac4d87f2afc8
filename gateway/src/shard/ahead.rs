//! What leaves for a client before what was sealed last: frames that many clients get, each a
//! reference, and between them what was sealed in the meantime. It is empty but for a client that
//! is sent large frames of channels.
//!
//! Invariant: its pieces are bytes for the socket, in order, with what lies around frames.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::buffers::Buffers;

use super::connection::Connection;
use crate::engine::SendBuffer;

/// A frame of so many bytes goes by reference; a shorter one is copied behind what waits, since
/// each piece is a send of its own. ADR 16 has the figures.
const REFERENCE_BYTES_MIN: usize = 1_024;

/// Pieces for which a client that was sent some keeps room.
const PIECES_KEPT: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub struct Ahead {
    pieces: VecDeque<SendBuffer>,
    bytes: usize,
}

impl Ahead {
    fn push(&mut self, piece: SendBuffer) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// The next piece.
    pub(super) fn pop(&mut self) -> Option<SendBuffer> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        if self.pieces.is_empty() {
            // A little stays, so that the next one allocates nothing.
            self.pieces.shrink_to(PIECES_KEPT);
        }
        Some(piece)
    }

    /// Bytes of all pieces.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Connection {
    /// Queues a `frame` that others get too. `bytes`: the same with what lies around it on this
    /// connection.
    pub(super) fn push_shared(
        &mut self,
        frame: &Arc<[u8]>,
        bytes: &Arc<[u8]>,
        buffers: &mut Buffers,
    ) {
        // TLS encrypts for each.
        if frame.len() < REFERENCE_BYTES_MIN || self.tls.is_some() {
            if self.out.capacity() == 0 {
                self.out = buffers.take();
            }
            return self.out.extend_from_slice(frame);
        }
        let ahead = self.ahead.get_or_insert_default();
        if !self.out.is_empty() {
            if let Some(front) = &mut self.front {
                front.wrap(&mut self.out, false, buffers);
            }
            ahead.push(std::mem::take(&mut self.out).into());
        }
        ahead.push(Arc::clone(bytes).into());
    }

    /// What is next for the socket, if that is not what was sealed last.
    pub(super) fn pop_ahead(&mut self) -> Option<SendBuffer> {
        self.ahead.as_mut()?.pop()
    }
}
