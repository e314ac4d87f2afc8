//! The socket options that no safe wrapper of ours offers.
//!
//! Owns nothing; the descriptor is borrowed for the call.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets IP_BIND_ADDRESS_NO_PORT (ip(7)): a bind to port 0 takes only the
/// address, and connect draws a port that is unused *towards that
/// destination*. Errors: not an IP socket, or Linux before 4.2.
pub fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on)
}

/// Steers the datagrams of a group of sockets that share a port (SO_REUSEPORT, in the order
/// in which they were bound) by their first byte: to the socket of that number, and where
/// there is none, as without this, by the kernel's hash of the addresses (socket(7),
/// SO_ATTACH_REUSEPORT_CBPF). Needs no privilege.
pub fn steer_by_first_byte(socket: &impl AsFd) -> io::Result<()> {
    // BPF_LD | BPF_B | BPF_ABS of offset 0, then BPF_RET | BPF_A.
    let mut program = [
        libc::sock_filter {
            code: 0x30,
            jt: 0,
            jf: 0,
            k: 0,
        },
        libc::sock_filter {
            code: 0x16,
            jt: 0,
            jf: 0,
            k: 0,
        },
    ];
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    set(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &program,
    )
}

/// Asks for a receive buffer of so many bytes: above the system's bound where we may, else
/// up to it.
pub fn receive_buffer(socket: &impl AsFd, bytes: i32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes))
}

fn set<T>(socket: &impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so open; the kernel reads `size_of::<T>()` bytes
    // from `value`, and what it points to (the program above lives until we return), during
    // the call only. Every caller passes the type that its option is documented with.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
