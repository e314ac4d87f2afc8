//! An input read as a script: what to do next and with what. It never ends by an error; a script
//! that runs out yields zeros, and whoever reads it asks `is_over`.
//!
//! [`Way`] adds up what happened to one number: two inputs with the same way did about the same.

/// A script.
#[derive(Clone, Debug)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Bytes whose count, 16 bits, stands before them.
    pub fn piece(&mut self) -> &'a [u8] {
        let count = self.u16();
        self.bytes(usize::from(count))
    }

    /// What is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes(N);
        let mut array = [0; N];
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// Little-endian, as all.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// See [`Self::u16`].
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// See [`Self::u16`].
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

/// Writes what [`Script`] reads.
#[derive(Clone, Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Appends bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends what [`Script::piece`] reads, after a byte that says what to do with it.
    pub fn piece(mut self, what: u8, bytes: &[u8]) -> Self {
        self.0.push(what);
        self.0
            .extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        self.raw(bytes)
    }

    /// The script.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// What happened, as one number (FNV-1a).
#[derive(Clone, Copy, Debug)]
pub struct Way(u64);

impl Default for Way {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Way {
    /// Something happened that this number names.
    pub fn note(&mut self, what: u64) {
        self.0 = (self.0 ^ what).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Something happened so often: 0, 1, 2 or 3, up to 7, … are one.
    pub fn count(&mut self, times: u64) {
        self.note(u64::from(times.checked_ilog2().map_or(0, |log| log + 1)));
    }

    /// So far.
    pub fn value(self) -> u64 {
        self.0
    }
}
