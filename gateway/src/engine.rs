//! The I/O engines of a gateway shard: sockets in, events out.
//!
//! Owns the contract ([`Engine`], [`Events`]) that both engines fulfil:
//! `uring` over the `gateway-ring` crate, and `epoll` over `mio` for hosts
//! where io_uring is forbidden. The same conformance tests run over both.
//!
//! Deliberately not here: frames, limits, timers, what a connection means. An
//! engine moves bytes and says who came and who went.
//!
//! Invariants:
//! - Every [`ConnId`] given out, by [`Events::accepted`] or [`Engine::connect`],
//!   ends with exactly one [`Events::closed`], and nothing about it follows.
//! - Every buffer taken by [`Engine::send`] comes back in exactly one
//!   [`Events::sent`], before `closed`.
//! - An id is never given out twice: the index is reused, the generation is not.
//!
//! A loop turn of the thread that owns an engine:
//!
//! ```text
//! poll (events are collected) -> act on them (send, pause, close) -> flush
//!   flush said true: poll again; false: sleep on wake_fd or in wait, then poll
//! ```
//!
//! An engine belongs to the thread that made it (a ring accepts submissions
//! from no other), so engines are not `Send`.

pub mod epoll;
mod sockets;
pub mod uring;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

pub use self::uring::{UringUnavailable, probe};
pub use gateway_ring::SendBuffer;

/// Listeners of one engine: a TCP port for each address family and a few to
/// spare. A constant, because each costs accepts that wait in the kernel.
pub const LISTENERS_MAX: usize = 8;
/// How long accepting rests when the process is out of descriptors or memory
/// and no connection ends; then somebody may have freed some.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A connection of one engine.
///
/// The index is dense, below [`EngineConfig::connections_max`], so that it can
/// index a `Vec`. The generation differs each time an index is used again, so
/// a stale id matches nothing and every call with one is ignored or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Below the capacity of the engine.
    pub index: u32,
    /// Rises by one with each use of the index; wraps after 2^32 uses.
    pub generation: u32,
}

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// io_uring, the default on Linux where it is allowed.
    Uring,
    /// epoll through `mio`, everywhere.
    Epoll,
}

impl EngineKind {
    /// The name in configuration, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            EngineKind::Uring => "uring",
            EngineKind::Epoll => "epoll",
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a socket that connects carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// TCP: a stream of bytes.
    Stream,
    /// UDP: datagrams. Each [`Engine::send`] is one, and each [`Events::received`]; what is longer
    /// than [`EngineConfig::receive_buffer_bytes`] is cut. An empty one ends the connection as a
    /// FIN does, and what a router or the peer's kernel says of it is an error of the socket.
    Datagrams,
}

/// What an engine is built for.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Connections at once, accepted and connecting together; at least 1.
    pub connections_max: u32,
    /// Bytes of one receive buffer: the most that one [`Events::received`]
    /// brings.
    pub receive_buffer_bytes: u32,
    /// Receive buffers of the whole engine (io_uring: divided among its rings,
    /// each rounded up to a power of two; epoll: one is enough, ignored).
    pub receive_buffers: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            // Far above what a shard serves by default; an idle slot costs
            // under 64 bytes of user memory.
            connections_max: 16_384,
            // Twenty game frames; a longer burst comes in several.
            receive_buffer_bytes: 2_048,
            // A buffer is in use between the kernel's write and the end of
            // `received`, so this covers what arrives in one loop turn. Who finds
            // none has its receive ended and started again: with 9,900 requests
            // at once and 1,024 buffers, most did.
            receive_buffers: 4_096,
        }
    }
}

impl EngineConfig {
    /// Receive buffers of one ring have 16-bit ids, and a ring of them is at
    /// most 32,768 long.
    const RECEIVE_BUFFERS_MAX: u32 = 32_768;

    fn check(&self) -> io::Result<()> {
        let wrong = if self.connections_max == 0 || self.connections_max > 1 << 24 {
            "connections_max must be between 1 and 16,777,216"
        } else if !(64..=1 << 20).contains(&self.receive_buffer_bytes) {
            "receive_buffer_bytes must be between 64 and 1,048,576"
        } else if !(1..=Self::RECEIVE_BUFFERS_MAX).contains(&self.receive_buffers) {
            "receive_buffers must be between 1 and 32,768"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The peer ended its sending direction in order (FIN). Half-open clients
    /// are not supported: the engine closes.
    Peer,
    /// The socket failed: reset, timed out, refused.
    Error(io::ErrorKind),
    /// [`Engine::close`].
    Local,
}

/// What an engine has counted since it was made. All counters only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Times that accepting stopped because `connections_max` was reached. The
    /// backlog keeps the waiting clients.
    pub accept_full: u64,
    /// Accepts that failed (out of descriptors or memory; the client gave up).
    pub accept_failed: u64,
    /// Receives that found no free buffer and were started again (io_uring).
    pub receive_starved: u64,
    /// Times that the completion queue overflowed (io_uring; nothing is lost).
    pub completion_overflows: u64,
}

/// Takes what [`Engine::poll`] reports. It gets no engine: collect what is to
/// be done and do it after the poll.
pub trait Events {
    /// A client was accepted. The address is missing where the kernel cannot
    /// tell it (io_uring before 6.7) or the client is gone already.
    fn accepted(&mut self, conn: ConnId, peer: Option<SocketAddr>);
    /// An [`Engine::connect`] has finished. After an error, `closed` follows.
    /// Not called for a connection closed by [`Engine::close`] before.
    fn connected(&mut self, conn: ConnId, result: io::Result<()>);
    /// Bytes from the peer, never empty, in order. Mutable, so that frames can be
    /// decrypted in place; gone when the call returns.
    fn received(&mut self, conn: ConnId, data: &mut [u8]);
    /// The buffer of a [`Engine::send`] is back: all of it was handed to the
    /// kernel, or sending failed (then `closed` follows).
    fn sent(&mut self, conn: ConnId, buf: SendBuffer, result: io::Result<()>);
    /// The connection is over and its id will never be seen again.
    fn closed(&mut self, conn: ConnId, why: ClosedBy);
}

/// One engine on one thread; see the module for the loop and the invariants.
///
/// Calls with a stale or closing id are ignored, or refused where something has
/// to be given back.
pub trait Engine: Sized {
    /// Makes an engine on the calling thread, where it must stay.
    fn new(config: &EngineConfig) -> io::Result<Self>;

    /// Which one this is.
    fn kind(&self) -> EngineKind;

    /// Gets readable when [`poll`](Engine::poll) has something, provided the last
    /// [`flush`](Engine::flush) returned `false`. For an *edge-triggered* watcher
    /// (tokio's `AsyncFd`: `readable().await`, `clear_ready()`, `poll`); nobody
    /// else reads from it.
    fn wake_fd(&self) -> BorrowedFd<'_>;

    /// Starts to accept from `listener`, which may be one of several. Sets
    /// non-blocking and TCP_NODELAY on it; accepted sockets inherit the latter.
    fn listen(&mut self, listener: TcpListener) -> io::Result<()>;

    /// Stops to accept and closes the listeners (drain). A connection whose
    /// accept had completed may still be reported.
    fn stop_listening(&mut self);

    /// Starts to connect, from the address `from` if given (any port, with
    /// IP_BIND_ADDRESS_NO_PORT, so that ports are drawn per destination).
    /// TCP_NODELAY is set. Errors: no slot free, no descriptor, address not ours.
    fn connect(
        &mut self,
        carries: Carries,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<ConnId>;

    /// Sends all of `buf`; at most one buffer of a connection is on its way.
    /// Refused, with the buffer given back: empty, another one on its way, not
    /// connected, `shutdown_write` was called, stale id, submission queue stuck.
    fn send(&mut self, conn: ConnId, buf: SendBuffer) -> Result<(), SendBuffer>;

    /// Stops reading. What the kernel had handed over already (at most
    /// `receive_buffers` buffers) still arrives. The peer's FIN goes unnoticed
    /// until `resume`.
    fn pause(&mut self, conn: ConnId);

    /// Reads again.
    fn resume(&mut self, conn: ConnId);

    /// Ends the sending direction (FIN) after the buffer on its way.
    fn shutdown_write(&mut self, conn: ConnId);

    /// Closes now: a buffer on its way is cancelled and comes back, nothing is
    /// received any more, `closed` follows when the last operation has ended.
    /// Where bytes of the peer are still unread, the kernel resets the connection,
    /// which can destroy what was sent last: to part in order, `shutdown_write`
    /// and await `closed` for a bounded time.
    fn close(&mut self, conn: ConnId);

    /// Submits what was asked for since the last time. `true`: [`poll`](Engine::poll)
    /// has something already, so do not sleep. To be called before every sleep.
    fn flush(&mut self) -> io::Result<bool>;

    /// Reports what happened, about `events_max` events at most (a handful
    /// more where one completion means two), without blocking. Returns how many.
    fn poll<E: Events>(&mut self, events: &mut E, events_max: usize) -> io::Result<usize>;

    /// Flushes, then blocks until [`poll`](Engine::poll) has something or `timeout`
    /// has passed. For threads without a reactor.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// When to call [`poll`](Engine::poll) although nothing happened: accepting
    /// rests until then, see [`ACCEPT_RETRY`]. Ask after [`flush`](Engine::flush);
    /// [`wait`](Engine::wait) heeds it by itself.
    fn poll_timeout(&self) -> Option<Instant>;

    /// What was counted so far.
    fn counters(&self) -> EngineCounters;

    /// Connections at present, those being closed included.
    fn connections(&self) -> u32;
}
