//! Where units end in the bytes of one stream: whole records on a data stream,
//! whole messages on the control stream.
//!
//! Pure; it looks at length fields only and never past the given bytes.
//! Invariant: a length outside its bounds is reported at the first look, before
//! anything is kept because of it.

use protocol::limits::{CONTROL_BYTES_MAX, RECORD_BYTES_MAX};
use protocol::uplink::RECORD_HEADER_BYTES;

/// Bytes of the length field before a control message (u32, little-endian).
pub(crate) const CONTROL_PREFIX_BYTES: usize = 4;

/// A length field outside its bounds, in bytes as it stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadLength(pub u32);

/// What the records at the start of some bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Records {
    /// Bytes of the whole records.
    pub whole_bytes: usize,
    /// Set where the next length field is out of bounds.
    pub bad: Option<BadLength>,
}

/// Finds the whole records at the start of `bytes` (u24 length of the whole
/// record, little-endian).
pub(crate) fn records(bytes: &[u8]) -> Records {
    let mut whole_bytes = 0;
    while let Some(&[a, b, c]) = bytes.get(whole_bytes..whole_bytes + 3) {
        let length = u32::from_le_bytes([a, b, c, 0]);
        let record_bytes = length as usize;
        if !(RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&record_bytes) {
            let bad = Some(BadLength(length));
            return Records { whole_bytes, bad };
        }
        if bytes.len() - whole_bytes < record_bytes {
            break;
        }
        whole_bytes += record_bytes;
    }
    Records {
        whole_bytes,
        bad: None,
    }
}

/// Bytes of the control message at the start of `bytes`, its length field
/// included, as soon as that field is there; the message may not be.
pub(crate) fn control_bytes(bytes: &[u8]) -> Result<Option<usize>, BadLength> {
    let Some(&[a, b, c, d]) = bytes.get(..CONTROL_PREFIX_BYTES) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([a, b, c, d]);
    if length as usize > CONTROL_BYTES_MAX {
        return Err(BadLength(length));
    }
    Ok(Some(CONTROL_PREFIX_BYTES + length as usize))
}

#[cfg(test)]
mod tests;
