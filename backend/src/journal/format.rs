//! The journal's file format, pure: bytes in, records out, and back.
//!
//! Layout: `magic 8 | version u32 | salt u32`, then records `length u32 | crc u32 | bytes`,
//! little-endian. The CRC-32 covers salt, length and bytes. The salt is drawn anew for every
//! file, so that neither blocks of an earlier journal that a crash brings to light nor bytes
//! that a client chose are ever taken for a record.
//!
//! It does not know what the bytes mean, and touches no file.
//!
//! Invariant: one batch is one record, and a batch is written only when the one before it is
//! on disk. Hence a crash can damage the last record only; damage before a good record is not
//! a crash but a broken disk or a hand in the file, and is an error.

use crc32fast::Hasher;

/// First eight bytes of a journal.
pub const MAGIC: [u8; 8] = *b"SLYPJRNL";

/// Version of the layout above.
pub const VERSION: u32 = 1;

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 16;

/// Bytes of length and CRC before each record's own.
pub const RECORD_HEADER_BYTES: usize = 8;

/// Largest record, bytes. A batch is one record; more waits for the next batch.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// Why a file cannot be read as a journal. None of these can come from a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The file does not begin with the magic bytes.
    #[error("this is not a journal (wrong first bytes)")]
    NotAJournal,
    /// The file was written by another version.
    #[error("the journal has format version {found}, this program reads version {VERSION}")]
    Version {
        /// What the header says.
        found: u32,
    },
    /// A record is damaged, yet good ones follow.
    #[error(
        "the journal is damaged at byte {offset} (the next good record is at byte {next}); \
         restore it from a copy"
    )]
    Damaged {
        /// Where the damaged record begins.
        offset: u64,
        /// Where the next good one begins.
        next: u64,
    },
}

/// What a journal's bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents<'a> {
    /// The salt of this file.
    pub salt: u32,
    /// The good records, in order.
    pub records: Vec<&'a [u8]>,
    /// Length of the good part, bytes, header included.
    pub good_bytes: usize,
    /// Bytes of a torn record behind the good part: cut them off.
    pub torn_bytes: usize,
}

/// The header of a new file.
pub fn header(salt: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&salt.to_le_bytes());
    header
}

/// Appends one record to `out`.
///
/// # Panics
/// When `bytes` is empty or larger than [`RECORD_BYTES_MAX`]: the caller bounds its batches.
pub fn write_record(salt: u32, bytes: &[u8], out: &mut Vec<u8>) {
    assert!(!bytes.is_empty() && bytes.len() <= RECORD_BYTES_MAX);
    let length = bytes.len() as u32;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc(salt, length, bytes).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a whole file.
pub fn read(bytes: &[u8]) -> Result<Contents<'_>, FormatError> {
    // A journal gets its name only when its header is on disk, so a short one is no crash.
    let header = bytes.get(..HEADER_BYTES).ok_or(FormatError::NotAJournal)?;
    if header[..8] != MAGIC {
        return Err(FormatError::NotAJournal);
    }
    let found = u32_at(header, 8);
    if found != VERSION {
        return Err(FormatError::Version { found });
    }
    let salt = u32_at(header, 12);
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(record) = record_at(salt, bytes, at) {
        records.push(record);
        at += RECORD_HEADER_BYTES + record.len();
    }
    // A damaged length tells nothing about where the next record begins: try every byte.
    for next in at + 1..bytes.len() {
        if record_at(salt, bytes, next).is_some() {
            return Err(FormatError::Damaged {
                offset: at as u64,
                next: next as u64,
            });
        }
    }
    Ok(Contents {
        salt,
        records,
        good_bytes: at,
        torn_bytes: bytes.len() - at,
    })
}

/// The good record that begins at `at`, if one does.
fn record_at(salt: u32, bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    if rest.len() < RECORD_HEADER_BYTES {
        return None;
    }
    let length = u32_at(rest, 0);
    if length == 0 || length as usize > RECORD_BYTES_MAX {
        return None;
    }
    let record = rest.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length as usize)?;
    (crc(salt, length, record) == u32_at(rest, 4)).then_some(record)
}

fn crc(salt: u32, length: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
