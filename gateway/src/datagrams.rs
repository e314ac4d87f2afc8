//! The UDP socket of a shard: datagrams in and out, many at a time. On io_uring a multishot
//! receive with buffers of its own, elsewhere recvmmsg(2) when the socket is readable;
//! sending is sendmmsg(2) at the end of a turn for both.
//!
//! It knows no connection; what a datagram means is the shard's business.
//!
//! Invariant: what the kernel does not take now stays in `out`, in order, up to
//! `OUT_BYTES_MAX`; above it the caller asks its core for no more.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gateway_ring::{DatagramRing, Outgoing, ReceiveBatch, send_many};
use rustix::event::{EventfdFlags, eventfd};
use socket2::{Domain, Protocol, Socket, Type};

use crate::engine::EngineKind;

/// Receive buffers of a ring, 2 KiB each: what may arrive while one turn lasts.
const RECEIVE_BUFFERS: u16 = 1_024;

/// What is asked of the kernel for what arrives while a turn lasts: everybody's move of one
/// tick. Without the right to raise it, the system's bound (net.core.rmem_max) holds.
const SOCKET_BYTES: i32 = 8 << 20;

/// Addresses that one call sends to.
const BATCH: usize = 32;

/// Bytes that wait for the kernel. A full socket empties within a millisecond.
const OUT_BYTES_MAX: usize = 1 << 20;

/// Sockets on one UDP port, one a shard in the order of the shards, to which the kernel steers
/// by the first byte of a datagram.
///
/// # Errors
/// Those of bind(2), and of setting the program that steers.
pub fn bind(address: SocketAddr, shards: u32) -> io::Result<Vec<UdpSocket>> {
    let mut address = address;
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for _ in 0..shards {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if sockets.is_empty() {
            // A port shared by SO_REUSEPORT looks free to another gateway of the same user;
            // a first bind without it tells.
            let probe = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            probe.bind(&address.into())?;
            address = probe.local_addr()?.as_socket().unwrap_or(address);
        }
        socket.set_reuse_port(true)?;
        gateway_ring::receive_buffer(&socket, SOCKET_BYTES)?;
        socket.bind(&address.into())?;
        sockets.push(socket.into());
    }
    if let Some(first) = sockets.first() {
        gateway_ring::steer_by_first_byte(first)?;
    }
    Ok(sockets)
}

enum Receiver {
    Ring {
        ring: Box<DatagramRing>,
        wake: OwnedFd,
    },
    Batches {
        socket: UdpSocket,
        batch: Box<ReceiveBatch>,
        /// The last call brought as many as it could.
        more: bool,
    },
}

/// Datagrams for one address, in `out`.
struct Waiting {
    to: SocketAddr,
    start: usize,
    end: usize,
    segment_bytes: usize,
}

/// See the module. Stays on the thread that made it.
pub struct Datagrams {
    receiver: Receiver,
    out: Vec<u8>,
    waiting: Vec<Waiting>,
    /// How many of `waiting` are gone.
    sent: usize,
    /// The kernel took nothing the last time.
    full: bool,
}

impl Datagrams {
    /// Over this socket, which is non-blocking.
    ///
    /// # Errors
    /// A ring that cannot be made.
    pub fn new(kind: EngineKind, socket: UdpSocket) -> io::Result<Self> {
        let receiver = match kind {
            EngineKind::Uring => {
                let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let ring = DatagramRing::new(socket.into(), RECEIVE_BUFFERS, wake.as_fd())
                    .map_err(|failed| io::Error::new(failed.error.kind(), failed.to_string()))?;
                Receiver::Ring {
                    ring: Box::new(ring),
                    wake,
                }
            }
            EngineKind::Epoll => Receiver::Batches {
                socket,
                batch: Box::default(),
                more: false,
            },
        };
        Ok(Self {
            receiver,
            out: Vec::new(),
            waiting: Vec::new(),
            sent: 0,
            full: false,
        })
    }

    /// Gets readable when `poll` has something; for an edge-triggered watcher.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        match &self.receiver {
            Receiver::Ring { wake, .. } => wake.as_fd(),
            Receiver::Batches { socket, .. } => socket.as_fd(),
        }
    }

    /// Receives what is there, about `max` datagrams, without blocking. How many.
    ///
    /// # Errors
    /// Those of the ring; a socket's own are reports about datagrams sent before, and passed
    /// over.
    pub fn poll(
        &mut self,
        max: usize,
        mut each: impl FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<usize> {
        let mut count = 0;
        match &mut self.receiver {
            Receiver::Ring { ring, .. } => {
                ring.disarm_wake();
                while count < max {
                    if ring.has_work() {
                        ring.submit()?;
                    }
                    let reaped = ring.reap(max - count, &mut each);
                    if reaped == 0 {
                        break;
                    }
                    count += reaped;
                }
            }
            Receiver::Batches {
                socket,
                batch,
                more,
            } => loop {
                match batch.receive(socket.as_fd(), &mut each) {
                    Ok(received) => count += received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        *more = false;
                        break;
                    }
                    // ECONNREFUSED and the like: of somebody who is gone.
                    Err(_) => {}
                }
                if count >= max {
                    *more = true;
                    break;
                }
            },
        }
        Ok(count)
    }

    /// Where to append what is to be sent; then say so by `queue`. `None` while too much
    /// waits for the kernel.
    pub fn room(&mut self) -> Option<&mut Vec<u8>> {
        (self.out.len() < OUT_BYTES_MAX).then_some(&mut self.out)
    }

    /// What was appended to `room` since the last call goes there.
    pub fn queue(&mut self, to: SocketAddr, segment_bytes: usize) {
        let start = self.waiting.last().map_or(0, |waiting| waiting.end);
        self.waiting.push(Waiting {
            to,
            start,
            end: self.out.len(),
            segment_bytes,
        });
    }

    /// Sends what was queued. Returns for how many addresses the kernel refused it.
    pub fn flush(&mut self) -> u64 {
        let mut refused = 0;
        let socket = match &self.receiver {
            Receiver::Ring { ring, .. } => ring.socket(),
            Receiver::Batches { socket, .. } => socket.as_fd(),
        };
        self.full = false;
        while self.sent < self.waiting.len() {
            let waiting = &self.waiting[self.sent..];
            let batch: [Outgoing<'_>; BATCH] = std::array::from_fn(|at| {
                let waiting = &waiting[at.min(waiting.len() - 1)];
                Outgoing {
                    to: waiting.to,
                    bytes: &self.out[waiting.start..waiting.end],
                    segment_bytes: waiting.segment_bytes,
                }
            });
            match send_many(socket, &batch[..waiting.len().min(BATCH)]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.full = true;
                    return refused;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.sent += 1;
                    refused += 1;
                }
            }
        }
        self.out.clear();
        self.waiting.clear();
        self.sent = 0;
        refused
    }

    /// Whether the kernel was full: the next turn must come by itself.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether `poll` has something already; else `wake_fd` tells when.
    ///
    /// # Errors
    /// Those of the ring.
    pub fn prepare_sleep(&mut self) -> io::Result<bool> {
        match &mut self.receiver {
            Receiver::Ring { ring, .. } => {
                if ring.has_work() {
                    ring.submit()?;
                }
                if ring.has_completions() {
                    return Ok(true);
                }
                ring.arm_wake();
                let busy = ring.has_completions() || ring.has_work();
                if busy {
                    ring.disarm_wake();
                }
                Ok(busy)
            }
            Receiver::Batches { more, .. } => Ok(*more),
        }
    }

    /// Receives that found no free buffer and were started again.
    pub fn starved(&self) -> u64 {
        match &self.receiver {
            Receiver::Ring { ring, .. } => ring.starved(),
            Receiver::Batches { .. } => 0,
        }
    }
}
