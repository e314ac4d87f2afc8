//! What a ring is made for, and why it could not be made.
//!
//! Owns no ring: only the question whether the kernel can do what is needed.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// What a ring is made for.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Entries of the submission queue: the most that one call submits.
    pub submission_entries: u32,
    /// Entries of the completion queue. Past it the kernel keeps completions in a
    /// list of its own, which is slower, and ends multishots.
    pub completion_entries: u32,
    /// Sockets; with the listeners at most the soft open-file limit.
    pub slots: u32,
    /// Places for listeners behind the slots.
    pub listeners: u32,
    /// Receive buffers, a power of two, at most 32,768.
    pub receive_buffers: u16,
    /// Bytes of each.
    pub receive_buffer_bytes: u32,
}

/// Why a ring could not be made.
#[derive(Debug)]
pub struct SetupError {
    /// What was being done, as a system administrator would call it.
    pub step: &'static str,
    /// What the kernel answered.
    pub error: io::Error,
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.error)
    }
}

impl std::error::Error for SetupError {}

/// Whether the kernel knows every operation that is used here, and the features
/// that their safety rests on.
pub(crate) fn check_operations(ring: &IoUring) -> Result<(), SetupError> {
    let missing = |step| SetupError {
        step,
        error: io::Error::from_raw_os_error(libc::EINVAL),
    };
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| SetupError {
            step: "asking for the known operations",
            error,
        })?;
    let needed = [
        opcode::Accept::CODE,
        opcode::Connect::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::Shutdown::CODE,
        opcode::AsyncCancel2::CODE,
        opcode::Close::CODE,
    ];
    if !needed.iter().all(|code| probe.is_supported(*code)) {
        return Err(missing("an operation is not known"));
    }
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
        return Err(missing("a feature is not there"));
    }
    Ok(())
}
