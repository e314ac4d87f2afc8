//! WebSocket framing (RFC 6455 §5) for both ends: headers, masks, close codes,
//! and in `decoder` what cuts a byte stream into messages.
//!
//! Deliberately not here: HTTP, but for the answer to a key (`accept`), and what a
//! message means. No extension is known, so none is ever in use.
//!
//! Invariant: what is written here is one whole unfragmented frame, its length in
//! the fewest bytes.

pub mod client;
pub mod decoder;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::reason::CloseReason;

/// The subprotocol of a client that offers any: frames of version 1.
pub const SUBPROTOCOL: &str = "sallyport.1";

/// Bytes of the longest header: two, eight of length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// Bytes of the longest payload of a control frame (§5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// What a frame carries (§5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message before.
    Continuation = 0,
    /// A message of UTF-8.
    Text = 1,
    /// A message of bytes.
    Binary = 2,
    /// The closing handshake.
    Close = 8,
    /// To be answered by `Pong` with the same payload.
    Ping = 9,
    /// The answer, or a sign of life that nobody asked for.
    Pong = 10,
}

impl Opcode {
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Close codes of RFC 6455 §7.4.1 that are in use here.
pub mod close {
    /// All is done.
    pub const NORMAL: u16 = 1_000;
    /// The server goes away.
    pub const GOING_AWAY: u16 = 1_001;
    /// A frame breaks the rules.
    pub const PROTOCOL_ERROR: u16 = 1_002;
    /// A message of a type that is not taken.
    pub const UNSUPPORTED: u16 = 1_003;
    /// A text is not UTF-8.
    pub const NOT_UTF8: u16 = 1_007;
    /// A message is longer than what is taken.
    pub const TOO_LONG: u16 = 1_009;
    /// The first code of ours (of the private range): this plus a close reason.
    pub const REASONS: u16 = 4_000;
}

/// The close code that tells a reason: its own number in the private range, but
/// where the RFC has a word for it.
pub const fn close_code(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::LoggedOut | CloseReason::PeerClosed => close::NORMAL,
        CloseReason::Draining => close::GOING_AWAY,
        reason => close::REASONS + reason as u16,
    }
}

/// Whether a peer may send this code in a close frame (§7.4; 1012 to 1014 are
/// registered since).
pub const fn is_close_code(code: u16) -> bool {
    matches!(code, 1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999)
}

/// Appends the header of a whole frame from a server with so many payload bytes.
pub fn write_header(opcode: Opcode, payload_bytes: usize, out: &mut Vec<u8>) {
    write_start(opcode, payload_bytes, 0, out);
}

/// Appends a whole frame from a client. The mask is to be one that nobody can
/// foresee (§5.3), where somebody else chose the payload.
pub fn write_masked(opcode: Opcode, mask: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    write_start(opcode, payload.len(), 0x80, out);
    out.extend_from_slice(&mask);
    let at = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[at..], mask);
}

fn write_start(opcode: Opcode, payload_bytes: usize, mask_bit: u8, out: &mut Vec<u8>) {
    let first = 0x80 | opcode as u8;
    match payload_bytes {
        0..=125 => out.extend_from_slice(&[first, mask_bit | payload_bytes as u8]),
        126..=0xffff => {
            let [high, low] = (payload_bytes as u16).to_be_bytes();
            out.extend_from_slice(&[first, mask_bit | 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, mask_bit | 127]);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Masks or unmasks in place (§5.3), eight bytes at a time.
pub fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// What a server answers to a client's `Sec-WebSocket-Key` (§4.2.2).
pub fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests;
