//! The digest over everything that happened in a run: FNV-1a, 64 bits (Fowler,
//! Noll, Vo), which needs no key and is the same everywhere.
//!
//! Invariant: nothing but virtual time, names of kinds, numbers and bytes of
//! the simulated world goes in.

use protocol::time::Time;

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a over bytes, from a state.
pub fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    }
    hash
}

/// FNV-1a of bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    fnv(BASIS, bytes)
}

/// What happened so far.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    /// Tell each event on standard error, for somebody who looks at a seed.
    pub loud: bool,
}

impl Trace {
    /// An empty trace.
    pub fn new(loud: bool) -> Self {
        Self {
            hash: BASIS,
            events: 0,
            loud,
        }
    }

    /// Something happened.
    pub fn event(&mut self, at: Time, kind: &str, numbers: &[u64], bytes: &[u8]) {
        self.events += 1;
        self.hash = fnv(self.hash, &at.0.to_le_bytes());
        self.hash = fnv(self.hash, kind.as_bytes());
        for number in numbers {
            self.hash = fnv(self.hash, &number.to_le_bytes());
        }
        self.hash = fnv(self.hash, bytes);
        if self.loud {
            eprintln!("{:>12} {kind} {numbers:?} {} bytes", at.0, bytes.len());
        }
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The digest so far.
    pub fn digest(&self) -> u64 {
        self.hash
    }
}
