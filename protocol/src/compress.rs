//! Payload compression (PROTOCOL §4): a u32 with the decompressed size, then
//! one LZ4 block. The output never exceeds a fixed size.

use crate::limits::{DECOMPRESSED_BYTES_MAX, DECOMPRESSED_RATIO_MAX, PAYLOAD_BYTES_MAX};

/// Bytes of the size in front of the block.
const SIZE_BYTES: usize = 4;

/// The payload is malformed, or its declared size breaks a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCompression;

/// Scratch memory of a shard for compressing and decompressing, allocated once.
pub struct Scratch {
    bytes: Box<[u8]>,
    table: lz4_flex::block::CompressTable,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        let worst = SIZE_BYTES + lz4_flex::block::get_maximum_output_size(DECOMPRESSED_BYTES_MAX);
        Self {
            bytes: vec![0; worst].into_boxed_slice(),
            table: lz4_flex::block::CompressTable::default(),
        }
    }
}

impl Scratch {
    /// The compressed form of `payload`, if that is shorter and fits a frame.
    pub fn compress(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() > DECOMPRESSED_BYTES_MAX {
            return None;
        }
        let block = lz4_flex::block::compress_into_with_table(
            payload,
            &mut self.bytes[SIZE_BYTES..],
            &mut self.table,
        )
        .ok()?;
        let length = SIZE_BYTES + block;
        if length >= payload.len()
            || length > PAYLOAD_BYTES_MAX
            || payload.len() > block * DECOMPRESSED_RATIO_MAX
        {
            return None;
        }
        self.bytes[..SIZE_BYTES].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        Some(&self.bytes[..length])
    }

    /// Decompresses a payload.
    ///
    /// # Errors
    /// The declared size is above the bounds, or the block does not yield it.
    pub fn decompress(&mut self, compressed: &[u8]) -> Result<&[u8], BadCompression> {
        let (size, block) = compressed
            .split_first_chunk::<SIZE_BYTES>()
            .ok_or(BadCompression)?;
        let size = u32::from_le_bytes(*size) as usize;
        if size > DECOMPRESSED_BYTES_MAX || size > block.len() * DECOMPRESSED_RATIO_MAX {
            return Err(BadCompression);
        }
        let written = lz4_flex::block::decompress_into(block, &mut self.bytes[..size])
            .map_err(|_| BadCompression)?;
        if written == size {
            Ok(&self.bytes[..size])
        } else {
            Err(BadCompression)
        }
    }
}

#[cfg(test)]
mod tests;
