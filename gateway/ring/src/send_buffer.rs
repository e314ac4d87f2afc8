//! Bytes on their way to the kernel: somebody's own, or shared by many sends.
//!
//! Invariant: while it is somewhere, its bytes neither move nor change: moving the value moves a
//! pointer, and nobody can write to what is shared.

use std::ops::Deref;
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendBuffer {
    /// Comes back to be used again.
    Own(Vec<u8>),
    /// One message to many: each send holds a reference.
    Shared(Arc<[u8]>),
}

// As large as a `Vec`: there is one for each slot of a ring.
const _: () = assert!(size_of::<SendBuffer>() == size_of::<Vec<u8>>());

impl SendBuffer {
    /// The buffer, if nobody else has a share in it; else an empty one.
    pub fn into_own(self) -> Vec<u8> {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(_) => Vec::new(),
        }
    }
}

impl Default for SendBuffer {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Deref for SendBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for SendBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Own(bytes)
    }
}

impl From<Arc<[u8]>> for SendBuffer {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}
