//! The portable engine: epoll through `mio`, for hosts where io_uring is
//! forbidden (the default seccomp profile of containers, for one).
//!
//! Owns the sockets and what is left of each send. Writes are tried at once in
//! [`Engine::send`]; only what the kernel does not take waits for readiness.
//! One receive buffer serves all connections. Does not decide anything about a
//! connection: see the contract in the parent module.
//!
//! Invariants:
//! - epoll is edge-triggered, so readiness is remembered in [`Conn::flags`] until
//!   a call says "would block", and a connection with something to do is in
//!   `work` exactly once ([`QUEUED`]).
//! - A slot with [`CLOSING`] has no socket; it is freed where `closed` is reported,
//!   nowhere else.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::sockets::{
    is_exhausted, is_in_progress, prepare_listener, socket_towards, wait_readable,
};
use super::{ACCEPT_RETRY, LISTENERS_MAX};
use super::{
    Carries, ClosedBy, ConnId, Engine, EngineConfig, EngineCounters, EngineKind, Events, SendBuffer,
};

/// Readiness events fetched by one call; more stay in the kernel.
const READY_EVENTS_MAX: usize = 1_024;
/// Clients taken from one listener in one poll, so that a herd of them does
/// not stop those already in.
const ACCEPTS_A_POLL: usize = 64;

/// May have something to read.
const READABLE: u16 = 1 << 0;
/// The peer's FIN or an error has been announced: read to the end, whatever a
/// short read suggests, since no further edge comes.
const READ_CLOSED: u16 = 1 << 1;
/// May be able to write.
const WRITABLE: u16 = 1 << 2;
/// In `work`.
const QUEUED: u16 = 1 << 3;
/// Connect has not finished.
const CONNECTING: u16 = 1 << 4;
/// The engine's user wants no data.
const PAUSED: u16 = 1 << 5;
/// A buffer is on its way, or has arrived but is not reported.
const SENDING: u16 = 1 << 6;
/// FIN is to follow the buffer on its way, or has been sent.
const FIN: u16 = 1 << 7;
/// `closed` is waiting in `done`.
const CLOSING: u16 = 1 << 8;
/// Each read brings one datagram.
const DATAGRAMS: u16 = 1 << 9;

/// Idle: about 64 bytes a connection, all included.
#[derive(Default)]
struct Conn {
    /// `None`: free, or [`CLOSING`].
    socket: Option<TcpStream>,
    generation: u32,
    flags: u16,
    /// Bytes of `buf` that the kernel has taken.
    taken: usize,
    /// What is being sent; empty if nothing is.
    buf: SendBuffer,
}

struct Listening {
    socket: mio::net::TcpListener,
    /// The backlog may hold somebody.
    ready: bool,
}

/// Something that happened outside of a poll and waits for one. At most one
/// `Sent`, one `Connected` and one `Closed` a connection.
enum Done {
    Sent(ConnId, SendBuffer, io::Result<()>),
    Connected(ConnId, io::Result<()>),
    Closed(ConnId, ClosedBy),
}

/// See the module.
pub struct EpollEngine {
    poll: mio::Poll,
    ready: mio::Events,
    listeners: Vec<Listening>,
    conns: Vec<Conn>,
    /// Free indexes below `conns.len()`; above it all are free.
    free: Vec<u32>,
    connections_max: u32,
    /// Connections with something to do, each once.
    work: VecDeque<u32>,
    done: VecDeque<Done>,
    buffer: Box<[u8]>,
    /// The kernel may hold more readiness events than the last fetch took.
    unfetched: bool,
    /// Accepting stopped at `connections_max`; counted once a time.
    full: bool,
    /// Out of descriptors: no accept before this, unless a connection goes.
    accept_at: Option<Instant>,
    counters: EngineCounters,
    /// Engines stay on their thread; the other one must, so both do.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl EpollEngine {
    fn live(&self, conn: ConnId) -> Option<&Conn> {
        self.conns
            .get(conn.index as usize)
            .filter(|c| c.generation == conn.generation && c.socket.is_some())
    }

    fn live_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns
            .get_mut(conn.index as usize)
            .filter(|c| c.generation == conn.generation && c.socket.is_some())
    }

    fn id(&self, index: u32) -> ConnId {
        ConnId {
            index,
            generation: self.conns[index as usize].generation,
        }
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() || self.conns.len() < self.connections_max as usize
    }

    /// Registers the socket under a free slot.
    fn admit(&mut self, mut socket: TcpStream, flags: u16) -> io::Result<ConnId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.conns.len() < self.connections_max as usize => {
                self.conns.push(Conn::default());
                self.conns.len() as u32 - 1
            }
            None => return Err(full()),
        };
        let registered = self.poll.registry().register(
            &mut socket,
            Token(index as usize),
            Interest::READABLE | Interest::WRITABLE,
        );
        if let Err(error) = registered {
            self.free.push(index);
            return Err(error);
        }
        let conn = &mut self.conns[index as usize];
        conn.socket = Some(socket);
        // QUEUED stays: the index may still be in `work` from its last use.
        conn.flags = flags | (conn.flags & QUEUED);
        Ok(self.id(index))
    }

    /// The end of a slot's use, where `closed` is reported.
    fn release(&mut self, conn: ConnId) {
        let slot = &mut self.conns[conn.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.flags &= QUEUED;
        self.free.push(conn.index);
        self.full = false;
        self.accept_at = None;
    }

    /// Drops the socket and queues what is left to report.
    fn retire(&mut self, conn: ConnId, why: ClosedBy) {
        let kind = match why {
            ClosedBy::Error(kind) => kind,
            ClosedBy::Peer | ClosedBy::Local => io::ErrorKind::ConnectionAborted,
        };
        let slot = &mut self.conns[conn.index as usize];
        // Dropping the socket takes it out of epoll: nothing duplicates it.
        slot.socket = None;
        slot.flags = (slot.flags & QUEUED) | CLOSING;
        let buf = std::mem::take(&mut slot.buf);
        if !buf.is_empty() {
            self.done.push_back(Done::Sent(conn, buf, Err(kind.into())));
        }
        self.done.push_back(Done::Closed(conn, why));
    }

    fn enqueue(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        if conn.flags & QUEUED == 0 {
            conn.flags |= QUEUED;
            self.work.push_back(index);
        }
    }

    /// Fetches readiness from the kernel into flags and `work`.
    fn fetch(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.ready, Some(Duration::ZERO)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.unfetched = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let mut count = 0;
        for event in &self.ready {
            count += 1;
            let token = event.token().0;
            if let Some(listener) = usize::MAX.checked_sub(token).filter(|i| *i < LISTENERS_MAX) {
                if let Some(listening) = self.listeners.get_mut(listener) {
                    listening.ready = true;
                }
                continue;
            }
            // An event of a socket just closed may meet the next user of its
            // index: it costs a call that would block, nothing else.
            let Some(conn) = self.conns.get_mut(token) else {
                continue;
            };
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                conn.flags |= READABLE;
            }
            if event.is_read_closed() || event.is_error() {
                conn.flags |= READ_CLOSED;
            }
            if event.is_writable() || event.is_write_closed() || event.is_error() {
                conn.flags |= WRITABLE;
            }
            if conn.flags & QUEUED == 0 {
                conn.flags |= QUEUED;
                self.work.push_back(token as u32);
            }
        }
        self.unfetched = count >= READY_EVENTS_MAX;
        Ok(())
    }

    fn report_done<E: Events>(&mut self, events: &mut E, budget: usize) -> usize {
        let mut reported = 0;
        while reported < budget {
            let Some(done) = self.done.pop_front() else {
                break;
            };
            reported += 1;
            match done {
                Done::Sent(conn, buf, result) => {
                    if let Some(slot) = self.live_mut(conn) {
                        slot.flags &= !SENDING;
                    }
                    events.sent(conn, buf, result);
                }
                Done::Connected(conn, result) => events.connected(conn, result),
                Done::Closed(conn, why) => {
                    self.release(conn);
                    events.closed(conn, why);
                }
            }
        }
        reported
    }

    /// Writes what is left; an error retires the connection.
    fn write_on(&mut self, conn: ConnId) {
        let Some(slot) = self.live_mut(conn) else {
            return;
        };
        let Some(socket) = slot.socket.as_mut() else {
            return;
        };
        while slot.taken < slot.buf.len() {
            match socket.write(&slot.buf[slot.taken..]) {
                Ok(0) => return self.retire(conn, ClosedBy::Error(io::ErrorKind::WriteZero)),
                Ok(n) => slot.taken += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.flags &= !WRITABLE;
                    return;
                }
                Err(error) => return self.retire(conn, ClosedBy::Error(error.kind())),
            }
        }
        if slot.flags & FIN != 0 {
            // Fails only if the peer is gone, which reading will tell.
            let _ = socket.shutdown(Shutdown::Write);
        }
        let buf = std::mem::take(&mut slot.buf);
        slot.taken = 0;
        self.done.push_back(Done::Sent(conn, buf, Ok(())));
    }

    /// Whether the connect has finished; its outcome goes to `done`.
    fn finish_connect(&mut self, conn: ConnId) -> bool {
        let Some(slot) = self.live_mut(conn) else {
            return false;
        };
        let Some(socket) = slot.socket.as_ref() else {
            return false;
        };
        let failed = match socket.take_error() {
            Ok(Some(error)) | Err(error) => Some(error),
            Ok(None) => match socket.peer_addr() {
                Ok(_) => None,
                // A stale event of the slot's last user.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return false,
                Err(error) => Some(error),
            },
        };
        slot.flags &= !CONNECTING;
        match failed {
            None => self.done.push_back(Done::Connected(conn, Ok(()))),
            Some(error) => {
                let kind = error.kind();
                self.done.push_back(Done::Connected(conn, Err(error)));
                self.retire(conn, ClosedBy::Error(kind));
            }
        }
        true
    }

    /// One read of one connection. Returns how many events it made.
    fn read_one<E: Events>(&mut self, conn: ConnId, events: &mut E) -> usize {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut received = 0;
        if let Some(slot) = self.live_mut(conn)
            && let Some(socket) = slot.socket.as_mut()
        {
            match socket.read(&mut buffer) {
                Ok(0) => self.retire(conn, ClosedBy::Peer),
                Ok(n) => {
                    // A short read has emptied the socket (epoll(7)), unless
                    // the end is behind it, or each read brings one datagram.
                    if n < buffer.len() && slot.flags & (READ_CLOSED | DATAGRAMS) == 0 {
                        slot.flags &= !READABLE;
                    }
                    events.received(conn, &mut buffer[..n]);
                    received = 1;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.flags &= !(READABLE | READ_CLOSED);
                }
                Err(error) => self.retire(conn, ClosedBy::Error(error.kind())),
            }
        }
        self.buffer = buffer;
        received
    }

    fn serve<E: Events>(&mut self, index: u32, events: &mut E) -> usize {
        let conn = self.id(index);
        let mut reported = 0;
        self.conns[index as usize].flags &= !QUEUED;
        let flags = self.conns[index as usize].flags;
        if flags & CONNECTING != 0 && flags & WRITABLE != 0 && !self.finish_connect(conn) {
            self.conns[index as usize].flags &= !WRITABLE;
        }
        let slot = &self.conns[index as usize];
        if !slot.buf.is_empty() && slot.flags & WRITABLE != 0 {
            self.write_on(conn);
        }
        if self.wants_read(index) {
            reported += self.read_one(conn, events);
        }
        if self.wants_read(index) {
            self.enqueue(index);
        }
        reported
    }

    fn wants_read(&self, index: u32) -> bool {
        let slot = &self.conns[index as usize];
        slot.socket.is_some() && slot.flags & (READABLE | PAUSED | CONNECTING) == READABLE
    }

    fn can_accept(&self) -> bool {
        self.listeners.iter().any(|l| l.ready)
            && self.has_room()
            && self.accept_at.is_none_or(|at| at <= Instant::now())
    }

    fn accept_some<E: Events>(&mut self, events: &mut E, budget: usize) -> usize {
        if self.accept_at.is_some_and(|at| at > Instant::now()) {
            return 0;
        }
        self.accept_at = None;
        let mut reported = 0;
        for at in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_A_POLL.min(budget.saturating_sub(reported)) {
                if !self.listeners[at].ready {
                    break;
                }
                if !self.has_room() {
                    if !self.full {
                        self.full = true;
                        self.counters.accept_full += 1;
                    }
                    return reported;
                }
                match self.listeners[at].socket.accept() {
                    Ok((socket, peer)) => match self.admit(socket, 0) {
                        Ok(conn) => {
                            self.counters.accepted += 1;
                            events.accepted(conn, Some(peer));
                            reported += 1;
                        }
                        Err(_) => self.counters.accept_failed += 1,
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[at].ready = false;
                    }
                    Err(error) => {
                        self.counters.accept_failed += 1;
                        if is_exhausted(&error) {
                            self.accept_at = Some(Instant::now() + ACCEPT_RETRY);
                            return reported;
                        }
                    }
                }
            }
        }
        reported
    }
}

impl Engine for EpollEngine {
    fn new(config: &EngineConfig) -> io::Result<Self> {
        config.check()?;
        Ok(EpollEngine {
            poll: mio::Poll::new()?,
            ready: mio::Events::with_capacity(READY_EVENTS_MAX),
            listeners: Vec::new(),
            conns: Vec::new(),
            free: Vec::new(),
            connections_max: config.connections_max,
            work: VecDeque::new(),
            done: VecDeque::new(),
            buffer: vec![0; config.receive_buffer_bytes as usize].into_boxed_slice(),
            unfetched: false,
            full: false,
            accept_at: None,
            counters: EngineCounters::default(),
            _not_send: std::marker::PhantomData,
        })
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Epoll
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }

    fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        if self.listeners.len() >= LISTENERS_MAX {
            return Err(io::Error::other("too many listeners for one engine"));
        }
        prepare_listener(&listener)?;
        let mut socket = mio::net::TcpListener::from_std(listener);
        let token = Token(usize::MAX - self.listeners.len());
        self.poll
            .registry()
            .register(&mut socket, token, Interest::READABLE)?;
        self.listeners.push(Listening {
            socket,
            ready: true,
        });
        Ok(())
    }

    fn stop_listening(&mut self) {
        self.listeners.clear();
        self.accept_at = None;
    }

    fn connect(
        &mut self,
        carries: Carries,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<ConnId> {
        if !self.has_room() {
            return Err(full());
        }
        let socket = socket_towards(carries, to, from)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if is_in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let flags = match carries {
            Carries::Stream => CONNECTING,
            Carries::Datagrams => CONNECTING | DATAGRAMS,
        };
        // The calls that are made of it are those that a socket for datagrams has too.
        self.admit(TcpStream::from_std(socket.into()), flags)
    }

    fn send(&mut self, conn: ConnId, buf: SendBuffer) -> Result<(), SendBuffer> {
        let Some(slot) = self.live_mut(conn) else {
            return Err(buf);
        };
        if buf.is_empty() || slot.flags & (SENDING | FIN | CONNECTING) != 0 {
            return Err(buf);
        }
        slot.buf = buf;
        slot.taken = 0;
        slot.flags |= SENDING;
        self.write_on(conn);
        Ok(())
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(slot) = self.live_mut(conn) {
            slot.flags |= PAUSED;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(slot) = self.live_mut(conn) {
            slot.flags &= !PAUSED;
            if self.wants_read(conn.index) {
                self.enqueue(conn.index);
            }
        }
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        if let Some(slot) = self.live_mut(conn)
            && slot.flags & (FIN | CONNECTING) == 0
        {
            slot.flags |= FIN;
            if slot.buf.is_empty()
                && let Some(socket) = slot.socket.as_ref()
            {
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
    }

    fn close(&mut self, conn: ConnId) {
        if self.live(conn).is_some() {
            self.retire(conn, ClosedBy::Local);
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(self.unfetched || !self.done.is_empty() || !self.work.is_empty() || self.can_accept())
    }

    fn poll<E: Events>(&mut self, events: &mut E, events_max: usize) -> io::Result<usize> {
        let mut reported = self.report_done(events, events_max);
        if reported >= events_max {
            // The edge that led here may have been for what is not fetched.
            self.unfetched = true;
            return Ok(reported);
        }
        self.fetch()?;
        // Each connection in `work` now is served once; one that is still
        // readable goes to the back and waits for the next poll.
        for _ in 0..self.work.len() {
            if reported >= events_max {
                break;
            }
            let Some(index) = self.work.pop_front() else {
                break;
            };
            reported += self.serve(index, events);
            // At once, so that what happened to one connection is in order.
            reported += self.report_done(events, usize::MAX);
        }
        if reported < events_max && !self.listeners.is_empty() {
            reported += self.accept_some(events, events_max - reported);
        }
        Ok(reported)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if self.flush()? {
            return Ok(());
        }
        let timeout = match self.poll_timeout() {
            Some(at) => timeout.min(at.saturating_duration_since(Instant::now())),
            None => timeout,
        };
        // Not by fetching: epoll_wait(2) counts in whole milliseconds.
        wait_readable(self.poll.registry().as_fd(), timeout)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.accept_at
    }

    fn counters(&self) -> EngineCounters {
        self.counters
    }

    fn connections(&self) -> u32 {
        (self.conns.len() - self.free.len()) as u32
    }
}

fn full() -> io::Error {
    io::Error::other("all connections of the engine are in use")
}
