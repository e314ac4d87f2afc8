//! The frame header (PROTOCOL §2): its layout, its CRC, and nothing about keys.

use crate::limits::FRAME_HEADER_BYTES;

/// The body is a handshake message, not sealed.
pub const FLAG_HANDSHAKE: u8 = 1;
/// The payload of the message in the body is compressed.
pub const FLAG_COMPRESSED: u8 = 1 << 1;
/// Phase of the sender's key; flips with each rekey.
pub const FLAG_KEY_PHASE: u8 = 1 << 2;
/// The body is sealed for the members of a channel, not for this connection; only a
/// gateway sends it.
pub const FLAG_CHANNEL: u8 = 1 << 3;
/// All flags of a frame that is sealed for a connection, or of a handshake.
pub const FLAGS_KNOWN: u8 = FLAG_HANDSHAKE | FLAG_COMPRESSED | FLAG_KEY_PHASE;

/// Bytes of the header that the AEAD authenticates: all but the CRC.
pub const AAD_BYTES: usize = 12;

/// The fixed header of a frame, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole frame, header included.
    pub length: u32,
    /// `FLAG_*`.
    pub flags: u8,
    /// Low 32 bits of the wire sequence.
    pub sequence: u32,
    /// Milliseconds on the sender's steady clock, wrapping.
    pub timestamp_ms: u32,
    /// CRC-32 of the header without this field and of the body.
    pub crc: u32,
}

impl Header {
    /// Reads the header of a frame; `None` if there are fewer than 16 bytes.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let head: &[u8; FRAME_HEADER_BYTES] = frame.first_chunk()?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let first = word(0);
        Some(Self {
            length: first & 0xff_ffff,
            flags: head[3],
            sequence: word(4),
            timestamp_ms: word(8),
            crc: word(12),
        })
    }

    /// The sixteen bytes of the header.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut head = [0; FRAME_HEADER_BYTES];
        head[..4].copy_from_slice(&(self.length & 0xff_ffff).to_le_bytes());
        head[3] = self.flags;
        head[4..8].copy_from_slice(&self.sequence.to_le_bytes());
        head[8..12].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        head[12..].copy_from_slice(&self.crc.to_le_bytes());
        head
    }
}

/// The length field of a frame that starts with these bytes; `None` while
/// fewer than three are there.
pub fn length(start: &[u8]) -> Option<usize> {
    let [a, b, c] = *start.first_chunk()?;
    Some(usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16)
}

/// CRC-32 (ISO-HDLC) of bytes 0–11 and of everything behind the header.
pub fn crc(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..AAD_BYTES]);
    hasher.update(&frame[FRAME_HEADER_BYTES..]);
    hasher.finalize()
}

/// Appends a handshake frame with this body to `out`.
pub fn encode_handshake(timestamp_ms: u32, body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let header = Header {
        length: (FRAME_HEADER_BYTES + body.len()) as u32,
        flags: FLAG_HANDSHAKE,
        sequence: 0,
        timestamp_ms,
        crc: 0,
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(body);
    write_crc(&mut out[start..]);
}

/// Computes the CRC of a complete frame and writes it into its header.
pub fn write_crc(frame: &mut [u8]) {
    let crc = crc(frame);
    frame[AAD_BYTES..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests;
