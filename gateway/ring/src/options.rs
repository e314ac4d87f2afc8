//! The one socket option that no safe wrapper of ours offers.
//!
//! Owns nothing; the descriptor is borrowed for the call.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets IP_BIND_ADDRESS_NO_PORT (ip(7)): a bind to port 0 takes only the
/// address, and connect draws a port that is unused *towards that
/// destination*. Errors: not an IP socket, or Linux before 4.2.
pub fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the whole call since it is borrowed;
    // the kernel reads `size_of::<c_int>()` bytes from `on`, which lives until
    // the call returns, and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
