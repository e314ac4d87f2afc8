//! Sealing by hand, with every field chosen: for what the protocol crate's own
//! sender refuses to do.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use protocol::cipher::Key;
use protocol::frame::{AAD_BYTES, Header, write_crc};
use protocol::limits::{FRAME_HEADER_BYTES, TAG_BYTES};

/// A sealed frame.
pub fn seal(key: &Key, sequence: u64, flags: u8, timestamp_ms: u32, body: &[u8]) -> Vec<u8> {
    let header = Header {
        length: (FRAME_HEADER_BYTES + body.len() + TAG_BYTES) as u32,
        flags,
        sequence: sequence as u32,
        timestamp_ms,
        crc: 0,
    };
    let mut frame = header.encode().to_vec();
    frame.extend_from_slice(body);
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sequence.to_le_bytes());
    let (head, body) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let tag = ChaCha20Poly1305::new(&key.0.into())
        .encrypt_in_place_detached(&nonce.into(), &head[..AAD_BYTES], body)
        // Only a body above 256 GiB fails; the checks of the vectors would notice.
        .unwrap_or_default();
    frame.extend_from_slice(&tag);
    write_crc(&mut frame);
    frame
}
