//! What a ring answers.
//!
//! Owns nothing but what a completion gives back: a buffer sent, or for the time
//! of the call the bytes received.

use std::io;
use std::net::SocketAddr;

use crate::send_buffer::SendBuffer;

/// The submission queue is full and the kernel does not take from it now; take
/// completions first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Something has ended or arrived.
pub enum Completion<'a> {
    /// An accept has ended. On success the slot holds the socket.
    Accepted {
        /// The slot that it was asked for.
        slot: u32,
        /// The listener that it was asked of.
        listener: u32,
        /// The peer's address, where the kernel told one.
        peer: Option<SocketAddr>,
        /// How it went.
        result: io::Result<()>,
    },
    /// A connect has ended.
    Connected {
        /// The slot.
        slot: u32,
        /// How it went.
        result: io::Result<()>,
    },
    /// Bytes have arrived.
    Received {
        /// The slot.
        slot: u32,
        /// Never empty.
        data: &'a mut [u8],
        /// Whether the multishot receive goes on by itself.
        more: bool,
    },
    /// A receive has ended without bytes.
    ReceiveEnded {
        /// The slot.
        slot: u32,
        /// `Ok`: the peer's FIN.
        result: io::Result<()>,
    },
    /// A buffer is back.
    Sent {
        /// The slot.
        slot: u32,
        /// The buffer of [`Ring::send`].
        buf: SendBuffer,
        /// `Ok`: the kernel has taken all of it.
        result: io::Result<()>,
    },
    /// A send has ended short of its buffer: see [`Ring::continue_send`].
    SentPart {
        /// The slot.
        slot: u32,
    },
    /// A shutdown has ended.
    ShutDown {
        /// The slot.
        slot: u32,
    },
    /// [`Ring::cancel`] has ended; what it cancelled ends by its own completion,
    /// before or after.
    Cancelled {
        /// The slot.
        slot: u32,
        /// Something was past cancelling: it may be needed again.
        again: bool,
    },
    /// [`Ring::stop_receive`] has ended; the receive by its own completion.
    ReceiveStopped {
        /// The slot.
        slot: u32,
    },
    /// The slot is free.
    Closed {
        /// The slot.
        slot: u32,
    },
}
