//! Whether io_uring can be used here, found out by doing it, and what to tell
//! an operator where it cannot.
//!
//! Owns nothing: the ring made for the probe is gone when it returns.

use std::io;
use std::os::fd::AsFd;

use gateway_ring::{Ring, RingConfig, SetupError};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Why the io_uring engine cannot run; the epoll engine can.
#[derive(Debug, thiserror::Error)]
pub enum UringUnavailable {
    /// EPERM, EACCES or ENOSYS.
    #[error(
        "io_uring is forbidden or absent ({0}): allow io_uring_setup, io_uring_enter and \
         io_uring_register in the seccomp profile of the container and set the sysctl \
         kernel.io_uring_disabled to 0, or choose the epoll engine"
    )]
    Forbidden(SetupError),
    /// EINVAL.
    #[error(
        "the kernel is too old for this io_uring engine ({0}): use Linux 6.1 or later, or \
         choose the epoll engine"
    )]
    TooOld(SetupError),
    /// ENOMEM.
    #[error(
        "not enough locked memory for io_uring ({0}): raise the memlock limit (ulimit -l, \
         LimitMEMLOCK=), or choose the epoll engine"
    )]
    Memory(SetupError),
    /// EMFILE, ENFILE and whatever else.
    #[error("io_uring cannot be set up ({0}): choose the epoll engine if this stays")]
    Other(SetupError),
}

impl From<SetupError> for UringUnavailable {
    fn from(failed: SetupError) -> Self {
        match failed.error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => UringUnavailable::Forbidden(failed),
            Some(Errno::INVAL) => UringUnavailable::TooOld(failed),
            Some(Errno::NOMEM) => UringUnavailable::Memory(failed),
            _ => UringUnavailable::Other(failed),
        }
    }
}

/// Makes a small ring with every flag, table and buffer that the engine uses, and
/// asks for every operation. For choosing an engine at start-up.
pub fn probe() -> Result<(), UringUnavailable> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
        UringUnavailable::Other(SetupError {
            step: "making an eventfd",
            error: io::Error::from(errno),
        })
    })?;
    let config = RingConfig {
        submission_entries: 8,
        completion_entries: 16,
        slots: 8,
        listeners: 1,
        receive_buffers: 8,
        receive_buffer_bytes: 4_096,
    };
    Ring::new(config, wake.as_fd())?;
    Ok(())
}
