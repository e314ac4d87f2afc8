//! What is inside a sealed datagram: chunks, one behind the other. Decoding borrows.
//!
//! Invariant: a datagram is read to its end or is malformed; nothing is guessed.

use super::Cid;
use crate::limits::DATAGRAM_WINDOW;

const DATA: u8 = 1;
const ACK: u8 = 2;
const BODY: u8 = 3;
const CHALLENGE: u8 = 4;
const RESPONSE: u8 = 5;
const NEW_CID: u8 = 6;
const PADDING: u8 = 7;

/// The message goes on in the next segment.
pub const MORE: u8 = 1;
/// The payload of the message is compressed.
pub const COMPRESSED: u8 = 1 << 1;

/// Bytes of DATA before its segment.
pub const DATA_HEAD_BYTES: usize = 8;
/// Bytes of BODY before its body.
pub const BODY_HEAD_BYTES: usize = 4;
/// Bytes of the longest ACK.
pub const ACK_BYTES_MAX: usize = 8 + 8;
/// Bytes of CHALLENGE, RESPONSE and NEW_CID.
pub const SHORT_BYTES: usize = 9;

/// Microseconds of a step of the delay in ACK.
const DELAY_STEP_US: u64 = 10;

const _: () = assert!(
    DATAGRAM_WINDOW == 64,
    "the bitmap of ACK has a bit for each"
);

/// A chunk is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

/// What was received of the reliable lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Everything below this segment.
    pub next: u32,
    /// Bit i: segment `next + 1 + i`.
    pub bitmap: u64,
    /// How long, microseconds, the newest of them waited for this.
    pub delay_us: u64,
}

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// A segment of the reliable lane.
    Data {
        /// `MORE`, `COMPRESSED`.
        flags: u8,
        /// Its number.
        number: u32,
        /// A piece of a body.
        bytes: &'a [u8],
    },
    /// What was received.
    Ack(Ack),
    /// A body that needs no order and may get lost.
    Body {
        /// `COMPRESSED` or nothing.
        flags: u8,
        /// The body.
        bytes: &'a [u8],
    },
    /// Who gets this is to send it back.
    Challenge([u8; 8]),
    /// Sent back.
    Response([u8; 8]),
    /// The gateway's new name for the connection, from now on.
    NewCid(Cid),
    /// Zeros up to the end of the datagram. So many bytes, the kind included.
    Padding(usize),
}

impl Chunk<'_> {
    /// Appends the chunk to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Data {
                flags,
                number,
                bytes,
            } => {
                out.extend_from_slice(&[DATA, flags]);
                out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Ack(ack) => {
                let bitmap = ack.bitmap.to_le_bytes();
                let used = 8 - ack.bitmap.leading_zeros() as usize / 8;
                let delay = (ack.delay_us / DELAY_STEP_US).min(u64::from(u16::MAX)) as u16;
                out.extend_from_slice(&[ACK, used as u8]);
                out.extend_from_slice(&delay.to_le_bytes());
                out.extend_from_slice(&ack.next.to_le_bytes());
                out.extend_from_slice(&bitmap[..used]);
            }
            Self::Body { flags, bytes } => {
                body_head(flags, bytes.len(), out);
                out.extend_from_slice(bytes);
            }
            Self::Challenge(token) => {
                out.push(CHALLENGE);
                out.extend_from_slice(&token);
            }
            Self::Response(token) => {
                out.push(RESPONSE);
                out.extend_from_slice(&token);
            }
            Self::NewCid(cid) => {
                out.push(NEW_CID);
                out.extend_from_slice(&cid.0.to_le_bytes());
            }
            Self::Padding(bytes) => {
                if bytes > 0 {
                    out.push(PADDING);
                    out.resize(out.len() + bytes - 1, 0);
                }
            }
        }
    }
}

/// Appends what stands before a body of this many bytes.
pub fn body_head(flags: u8, bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[BODY, flags]);
    out.extend_from_slice(&(bytes as u16).to_le_bytes());
}

/// The chunks of a datagram.
#[derive(Clone, Debug)]
pub struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    /// Of this opened body.
    pub fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BadChunk> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(BadChunk)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadChunk> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| BadChunk)
    }

    fn one(&mut self) -> Result<Chunk<'a>, BadChunk> {
        let [kind] = self.array()?;
        Ok(match kind {
            DATA => {
                let [flags] = self.array()?;
                let length = u16::from_le_bytes(self.array()?);
                let number = u32::from_le_bytes(self.array()?);
                if flags & !(MORE | COMPRESSED) != 0 || length == 0 {
                    return Err(BadChunk);
                }
                Chunk::Data {
                    flags,
                    number,
                    bytes: self.take(length.into())?,
                }
            }
            ACK => {
                let [used] = self.array()?;
                let delay = u16::from_le_bytes(self.array()?);
                let next = u32::from_le_bytes(self.array()?);
                if used > 8 {
                    return Err(BadChunk);
                }
                let mut bitmap = [0; 8];
                bitmap[..usize::from(used)].copy_from_slice(self.take(used.into())?);
                if used > 0 && bitmap[usize::from(used) - 1] == 0 {
                    return Err(BadChunk);
                }
                Chunk::Ack(Ack {
                    next,
                    bitmap: u64::from_le_bytes(bitmap),
                    delay_us: u64::from(delay) * DELAY_STEP_US,
                })
            }
            BODY => {
                let [flags] = self.array()?;
                let length = u16::from_le_bytes(self.array()?);
                if flags & !COMPRESSED != 0 || length == 0 {
                    return Err(BadChunk);
                }
                Chunk::Body {
                    flags,
                    bytes: self.take(length.into())?,
                }
            }
            CHALLENGE => Chunk::Challenge(self.array()?),
            RESPONSE => Chunk::Response(self.array()?),
            NEW_CID => Chunk::NewCid(Cid(u64::from_le_bytes(self.array()?))),
            PADDING => {
                let rest = std::mem::take(&mut self.0);
                if rest.iter().any(|byte| *byte != 0) {
                    return Err(BadChunk);
                }
                Chunk::Padding(1 + rest.len())
            }
            _ => return Err(BadChunk),
        })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, BadChunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let chunk = self.one();
        if chunk.is_err() {
            self.0 = &[];
        }
        Some(chunk)
    }
}

#[cfg(test)]
mod tests;
