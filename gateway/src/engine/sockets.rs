//! What both engines do with sockets in the same way: make and prepare them, and
//! sleep.
//!
//! Owns the socket options. Does not own a socket beyond the call.
//!
//! Invariant: every socket that leaves here is non-blocking and close-on-exec, and one
//! of TCP has TCP_NODELAY (frames are small and must not wait for acknowledgements).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::Carries;

/// Prepares a listener; on Linux the sockets accepted from it inherit
/// TCP_NODELAY, which saves a call for each.
pub(super) fn prepare_listener(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    SockRef::from(listener).set_tcp_nodelay(true)
}

/// A socket for a connection to `to`, bound to the address `from` if given, not
/// connected yet.
pub(super) fn socket_towards(
    carries: Carries,
    to: SocketAddr,
    from: Option<IpAddr>,
) -> io::Result<Socket> {
    let (kind, protocol) = match carries {
        Carries::Stream => (Type::STREAM, Protocol::TCP),
        Carries::Datagrams => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if carries == Carries::Stream {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(from) = from {
        // Without it bind would take a port that no other socket of this
        // address can use, whatever its destination: 28,000 connections an
        // address and no more. Kernels that lack it still work up to there.
        let _ = gateway_ring::bind_address_no_port(&socket);
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    }
    Ok(socket)
}

/// Blocks until `fd` is readable, `timeout` has passed or a signal came.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether connecting has only begun.
pub(super) fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error())
}

/// An accept that failed for want of descriptors or memory: the client is
/// still in the backlog, and trying again at once would spin.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|raw| {
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS]
            .iter()
            .any(|errno| errno.raw_os_error() == raw)
    })
}
