//! Connections over datagrams (PROTOCOL §12): the forms of a datagram, the replay
//! window, the stateless cookie, the ARQ that carries reliable bodies in order, and
//! [`End`], one end of an established connection. Client and gateway run this code.
//!
//! Not here: addresses. Who a datagram came from, whether that address is
//! validated and where the next one goes is the gateway's (`shard/datagrams`).
//!
//! Invariants:
//! - Nothing of an `End` moves before a datagram has verified.
//! - What a peer can make an `End` keep is bounded by its receive window and by
//!   the longest message; what our own side makes it keep, by the caller, who
//!   asks `queued_bytes`.

pub mod arq;
pub mod chunk;
pub mod cookie;
pub mod end;
pub mod hello;
pub mod side;
pub mod window;

pub use end::End;

use crate::limits::DATAGRAM_BYTES_MAX;

/// First byte of the datagrams that set a connection up. No shard has this number,
/// so the program that steers by the first byte leaves them to the kernel's hash.
pub const SETUP: u8 = 0xff;

/// Bytes of a connection id.
pub const CID_BYTES: usize = 8;

/// Names a connection in each of its datagrams. The first byte on the wire, the
/// lowest of the number, is the shard that has it; the others are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cid(pub u64);

impl Cid {
    /// An id of this shard.
    pub const fn new(shard: u8, random: u64) -> Self {
        Self(random & !0xff | shard as u64)
    }

    /// Which shard has it.
    pub const fn shard(self) -> u8 {
        self.0 as u8
    }
}

/// Splits a sealed datagram into its id and its frame; `None` if it is too short or
/// too long to be one, or sets a connection up.
pub fn split(datagram: &mut [u8]) -> Option<(Cid, &mut [u8])> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return None;
    }
    let (cid, frame) = datagram.split_first_chunk_mut::<CID_BYTES>()?;
    (cid[0] != SETUP).then(|| (Cid(u64::from_le_bytes(*cid)), frame))
}

#[cfg(test)]
mod tests;
