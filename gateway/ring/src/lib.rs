//! The only crate of the workspace with unsafe code: a ring (io_uring) with a
//! table of sockets, behind a safe interface.
//!
//! Owns whatever the kernel may touch while an operation runs: the buffers
//! being sent, the receive buffers, the socket addresses. Deliberately knows
//! nothing of connections, generations or policy; that is the `uring` engine of
//! the `gateway` crate.
//!
//! Invariant that everything rests on: memory handed to the kernel is neither
//! freed, moved, read as initialised nor lent out before the *last* completion
//! of its operation has been taken from the completion queue. Where that cannot
//! be waited for (a ring dropped while the kernel does not answer), the memory
//! is leaked.
//!
//! Needs Linux 6.1 (IORING_SETUP_DEFER_TASKRUN).
#![allow(unsafe_code)]

mod address;
mod buffers;
mod completion;
mod datagrams;
mod name;
mod options;
mod ring;
mod send_buffer;
mod setup;

pub use completion::{Completion, Full};
pub use datagrams::{DatagramRing, Outgoing, RECEIVE_BYTES, ReceiveBatch, send_many};
pub use options::{bind_address_no_port, receive_buffer, steer_by_first_byte};
pub use ring::Ring;
pub use send_buffer::SendBuffer;
pub use setup::{RingConfig, SetupError};
