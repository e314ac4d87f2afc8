//! A bounded pool of byte buffers. Frames that arrive in pieces and frames
//! that wait to be sent borrow one, so that an idle connection owns none and
//! a busy one allocates none in steady state.

/// Buffers kept for reuse by one shard: 64 MiB at most, and under 16 MiB while
/// few frames are longer than 4 KiB.
pub const POOLED_BUFFERS_MAX: usize = 4_096;

/// Capacity, bytes, above which a returned buffer is freed instead of kept:
/// one large message must not pin its size forever.
pub const POOLED_BUFFER_BYTES_MAX: usize = 16_384;

/// A stack of empty buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    free: Vec<Vec<u8>>,
}

impl Buffers {
    /// An empty buffer, reused where there is one.
    pub fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Gives a buffer back; its content is forgotten.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0
            || buffer.capacity() > POOLED_BUFFER_BYTES_MAX
            || self.free.len() >= POOLED_BUFFERS_MAX
        {
            return;
        }
        buffer.clear();
        self.free.push(buffer);
    }

    /// Buffers that wait for reuse.
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }
}
