//! The io_uring engine, over the rings of the `gateway-ring` crate.
//!
//! Owns the state of each connection and decides which operations run; the ring
//! owns the memory that the kernel touches. Sockets are direct descriptors: one
//! ring holds at most as many as the open-file limit says, so an engine has as
//! many rings as its connections ask for. One ring accepts at a time, the
//! next one when it has no slot left.
//!
//! What a connection needs is kept as flags, and [`UringEngine::advance`] turns them
//! into operations at the next flush; if the submission queue is full the
//! connection stays in `todo`. Only sends are pushed at once.
//!
//! Invariants:
//! - An index is `ring * slots_per_ring + slot`.
//! - `ops` of a slot counts its operations in flight. The socket is closed only
//!   at zero, and the slot is free only when the close has ended, so no completion
//!   ever meets the wrong user of a slot.
//! - An accept is started only into a slot that is free, so the kernel never
//!   takes a client from the backlog that there is no room for.

mod probe;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use gateway_ring::{Full, Ring, RingConfig, SetupError};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use self::turn::Turn;
use super::LISTENERS_MAX;
use super::sockets::{prepare_listener, socket_towards, wait_readable};
use super::{
    Carries, ClosedBy, ConnId, Engine, EngineConfig, EngineCounters, EngineKind, Events, SendBuffer,
};

pub use self::probe::{UringUnavailable, probe};

/// Operations submitted by one call: larger batches keep the first client of a
/// turn waiting for the last, smaller ones pay for more calls (32 to 64 measured
/// best).
const SUBMISSION_ENTRIES: u32 = 64;
/// 32 KiB a ring, charged to the memlock limit, which the processes of a user
/// share. The kernel finishes some 20 operations an entry, so a queue this long is
/// hardly ever full; beyond it the kernel queues elsewhere, slower.
const COMPLETION_ENTRIES_MAX: u32 = 2_048;
/// Enough for the accepts and a turn's sends of a small ring.
const COMPLETION_ENTRIES_MIN: u32 = 1_024;
/// More sockets than this in one ring bring nothing.
const SLOTS_PER_RING_MAX: u32 = 32_768;
/// Rings are looked at every turn; with this many the open-file limit should be
/// raised instead.
const RINGS_MAX: u32 = 64;
/// The fewest receive buffers that let a ring get on.
const RECEIVE_BUFFERS_MIN: u32 = 32;
/// Accepts waiting on one listener: the most clients taken between two flushes.
const ACCEPTS_WAITING: u32 = 64;

/// The slot holds a connected socket that may be used.
const OPEN: u16 = 1 << 0;
/// A connect is in flight.
const CONNECTING: u16 = 1 << 1;
/// A multishot receive is in flight.
const RECEIVING: u16 = 1 << 2;
/// No data is wanted.
const PAUSED: u16 = 1 << 3;
/// The receive's cancellation is in flight.
const STOPPING: u16 = 1 << 4;
/// The ring holds a buffer of this slot.
const SENDING: u16 = 1 << 5;
/// The send ended short and is to be continued.
const SEND_MORE: u16 = 1 << 6;
/// FIN is to follow the buffer on its way.
const FIN: u16 = 1 << 7;
/// FIN was asked of the kernel.
const FIN_DONE: u16 = 1 << 8;
/// On the way to `closed`.
const CLOSING: u16 = 1 << 9;
/// The cancellation of everything is in flight, or has been.
const CANCELLED: u16 = 1 << 10;
/// The close is in flight.
const CLOSE_SENT: u16 = 1 << 11;
/// In `todo`.
const QUEUED: u16 = 1 << 12;
/// In `starved`: its receive found no free buffer.
const STARVED: u16 = 1 << 13;

/// 12 bytes; with 32 in the ring and 4 in the list of free slots, an idle
/// connection costs 48 bytes of user memory and no buffer.
#[derive(Clone, Copy)]
struct Slot {
    generation: u32,
    flags: u16,
    /// Operations in flight; one or two of each kind.
    ops: u8,
    why: ClosedBy,
}

const _: () = assert!(size_of::<Slot>() <= 12);

impl Slot {
    const FREE: Slot = Slot {
        generation: 0,
        flags: 0,
        ops: 0,
        why: ClosedBy::Local,
    };

    fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Goes to [`CLOSING`]; the first reason stays.
    fn begin_close(&mut self, why: ClosedBy) {
        if !self.has(CLOSING) {
            self.flags = (self.flags | CLOSING) & !OPEN;
            self.why = why;
        }
    }
}

struct Listening {
    socket: TcpListener,
    /// Accepts in flight.
    waiting: u32,
}

/// Connections whose receive found no free buffer. Starting them all again at
/// once would find none again, over and over, while the buffers wait in
/// completions behind theirs; so only as many start as buffers came back.
#[derive(Default)]
struct Starved {
    /// In order, each once; slots of the ring.
    slots: VecDeque<u32>,
    /// Buffers given back since the last flush.
    freed: usize,
}

/// See the module.
pub struct UringEngine {
    rings: Vec<Ring>,
    /// By ring: free slots, the lowest on top.
    free: Vec<Vec<u32>>,
    slots: Vec<Slot>,
    slots_per_ring: u32,
    /// Receive buffers of one ring.
    receive_buffers: usize,
    wake: OwnedFd,
    /// `None` where a listener was: places are not used again, since its last
    /// accepts may still be on their way.
    listeners: Vec<Option<Listening>>,
    /// Accepts in flight, each of which holds a slot.
    waiting: u32,
    /// The ring that accepts.
    accepting: usize,
    /// Connections whose flags ask for operations, each once.
    todo: VecDeque<u32>,
    /// By ring: who waits for receive buffers.
    starved: Vec<Starved>,
    /// Buffers of closing connections that no operation will bring back; before
    /// `closed`, since the close is pushed after a buffer goes in here.
    returned: Vec<(ConnId, SendBuffer)>,
    /// Where the next poll starts, so that no ring starves the others.
    first: usize,
    full: bool,
    accept_at: Option<Instant>,
    counters: EngineCounters,
}

impl UringEngine {
    fn new_inner(config: &EngineConfig, slots_per_ring: u32) -> Result<Self, SetupError> {
        let rings_count = config.connections_max.div_ceil(slots_per_ring);
        let receive_buffers = (config.receive_buffers / rings_count)
            .max(RECEIVE_BUFFERS_MIN)
            .next_power_of_two();
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| SetupError {
                step: "making an eventfd",
                error: e.into(),
            })?;
        let mut rings = Vec::with_capacity(rings_count as usize);
        let mut free = Vec::with_capacity(rings_count as usize);
        let mut left = config.connections_max;
        for _ in 0..rings_count {
            let slots = left.min(slots_per_ring);
            left -= slots;
            // Room for each buffer and, up to the bound, a send and a close of
            // each connection at once.
            let completion_entries = (receive_buffers + 2 * slots)
                .next_power_of_two()
                .clamp(COMPLETION_ENTRIES_MIN, COMPLETION_ENTRIES_MAX);
            let config = RingConfig {
                submission_entries: SUBMISSION_ENTRIES,
                completion_entries,
                slots,
                listeners: LISTENERS_MAX as u32,
                receive_buffers: receive_buffers as u16,
                receive_buffer_bytes: config.receive_buffer_bytes,
            };
            rings.push(Ring::new(config, wake.as_fd())?);
            free.push((0..slots).rev().collect());
        }
        Ok(UringEngine {
            rings,
            free,
            slots: vec![Slot::FREE; config.connections_max as usize],
            slots_per_ring,
            receive_buffers: receive_buffers as usize,
            wake,
            listeners: Vec::new(),
            accepting: 0,
            waiting: 0,
            todo: VecDeque::new(),
            starved: (0..rings_count).map(|_| Starved::default()).collect(),
            returned: Vec::new(),
            first: 0,
            full: false,
            accept_at: None,
            counters: EngineCounters::default(),
        })
    }

    fn place(&self, index: u32) -> (usize, u32) {
        (
            (index / self.slots_per_ring) as usize,
            index % self.slots_per_ring,
        )
    }

    fn live_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.slots.get_mut(conn.index as usize).filter(|slot| {
            slot.generation == conn.generation && slot.has(OPEN | CONNECTING) && !slot.has(CLOSING)
        })
    }

    fn enqueue(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.has(QUEUED) {
            slot.flags |= QUEUED;
            self.todo.push_back(index);
        }
    }

    /// Pushes the operations that a slot's flags ask for.
    fn advance(&mut self, index: u32) -> Result<(), Full> {
        let (ring, at) = self.place(index);
        let ring = &mut self.rings[ring];
        let slot = &mut self.slots[index as usize];
        if slot.has(CLOSING) {
            if slot.ops > 0 && !slot.has(CANCELLED) {
                // One by one, each by its name: cancelling by socket looks at all
                // operations of the ring, and closing 15,000 idle clients at once
                // stopped a shard for 5 s.
                if slot.has(CONNECTING) {
                    ring.cancel(at)?;
                    slot.ops += 1;
                }
                if slot.has(RECEIVING) {
                    ring.cancel_receive(at)?;
                    slot.ops += 1;
                }
                if slot.has(SENDING) {
                    ring.cancel_send(at)?;
                    slot.ops += 1;
                }
                // What is left ends by itself.
                slot.flags |= CANCELLED;
            } else if slot.ops == 0 && !slot.has(CLOSE_SENT) {
                if let Some(buf) = ring.take_unsent(at) {
                    let generation = slot.generation;
                    self.returned.push((ConnId { index, generation }, buf));
                }
                ring.close(at)?;
                slot.flags |= CLOSE_SENT;
                slot.ops += 1;
            }
            return Ok(());
        }
        if !slot.has(OPEN) {
            return Ok(());
        }
        if slot.has(SEND_MORE) {
            ring.continue_send(at)?;
            slot.flags &= !SEND_MORE;
            slot.ops += 1;
        }
        if slot.has(FIN) && !slot.has(SENDING | FIN_DONE) {
            ring.shutdown_write(at)?;
            slot.flags |= FIN_DONE;
            slot.ops += 1;
        }
        if !slot.has(PAUSED | RECEIVING | STARVED) {
            ring.receive(at)?;
            slot.flags |= RECEIVING;
            slot.ops += 1;
        } else if slot.has(PAUSED) && slot.has(RECEIVING) && !slot.has(STOPPING) {
            ring.stop_receive(at)?;
            slot.flags |= STOPPING;
            slot.ops += 1;
        }
        Ok(())
    }

    /// Lets as many starved connections receive again as there are buffers.
    fn feed_starved(&mut self) {
        for ring in 0..self.rings.len() {
            let freed = std::mem::take(&mut self.starved[ring].freed);
            if self.starved[ring].slots.is_empty() {
                continue;
            }
            // Without completions every buffer is the kernel's.
            let buffers = match self.rings[ring].has_completions() {
                true => freed,
                false => self.receive_buffers,
            };
            for _ in 0..buffers {
                let Some(at) = self.starved[ring].slots.pop_front() else {
                    break;
                };
                let index = ring as u32 * self.slots_per_ring + at;
                self.slots[index as usize].flags &= !STARVED;
                self.enqueue(index);
            }
        }
    }

    /// Keeps accepts waiting while there are free slots.
    fn arm_accepts(&mut self) -> io::Result<()> {
        if self.accept_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        self.accept_at = None;
        let listening = self.listeners.iter().flatten().count() as u32;
        for listener in 0..self.listeners.len() {
            // Near the end each listener, and whoever connects, has a share.
            let slots = self.free[self.accepting].len() as u32 + self.waiting;
            let share = (slots / (listening + 1)).clamp(1, ACCEPTS_WAITING);
            while self.listeners[listener]
                .as_ref()
                .is_some_and(|l| l.waiting < share)
            {
                if self.free[self.accepting].is_empty() && !self.move_accepting()? {
                    // Full, unless other accepts hold the last slots.
                    if !self.full && self.waiting == 0 {
                        self.full = true;
                        self.counters.accept_full += 1;
                    }
                    return Ok(());
                }
                let Some(slot) = self.free[self.accepting].pop() else {
                    return Ok(());
                };
                if let Err(Full) = self.rings[self.accepting].accept(listener as u32, slot) {
                    self.free[self.accepting].push(slot);
                    return Ok(());
                }
                if let Some(listening) = &mut self.listeners[listener] {
                    listening.waiting += 1;
                    self.waiting += 1;
                }
            }
        }
        Ok(())
    }

    /// Finds a ring with a free slot and lets it accept; `false` if all are full.
    /// Accepts that wait in the old ring hold slots there and are left alone.
    fn move_accepting(&mut self) -> io::Result<bool> {
        let Some(next) = self.free.iter().position(|free| !free.is_empty()) else {
            return Ok(false);
        };
        for (place, listening) in self.listeners.iter().enumerate() {
            if let Some(listening) = listening {
                self.rings[next].put_listener(place as u32, listening.socket.as_fd())?;
            }
        }
        self.accepting = next;
        Ok(true)
    }

    fn can_sleep(&mut self) -> bool {
        self.todo.is_empty()
            && self.returned.is_empty()
            && self.starved.iter().all(|starved| starved.slots.is_empty())
            && self
                .rings
                .iter_mut()
                .all(|ring| !ring.has_completions() && !ring.has_work() && !ring.has_submissions())
    }
}

impl Engine for UringEngine {
    fn new(config: &EngineConfig) -> io::Result<Self> {
        config.check()?;
        // Each table may be as long as the soft open-file limit, whatever else
        // is open, since its sockets need no descriptors.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let slots_per_ring = limit
            .saturating_sub(LISTENERS_MAX as u64)
            .min(u64::from(SLOTS_PER_RING_MAX)) as u32;
        let slots_per_ring = slots_per_ring.min(config.connections_max);
        if slots_per_ring == 0 || config.connections_max.div_ceil(slots_per_ring) > RINGS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} connections need more than {RINGS_MAX} rings under an open-file limit \
                     of {limit}; raise the limit (ulimit -n)",
                    config.connections_max
                ),
            ));
        }
        Self::new_inner(config, slots_per_ring).map_err(|failed| {
            let kind = failed.error.kind();
            io::Error::new(kind, UringUnavailable::from(failed))
        })
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Uring
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        if self.listeners.len() >= LISTENERS_MAX {
            return Err(io::Error::other("too many listeners for one engine"));
        }
        prepare_listener(&listener)?;
        self.rings[self.accepting].put_listener(self.listeners.len() as u32, listener.as_fd())?;
        self.listeners.push(Some(Listening {
            socket: listener,
            waiting: 0,
        }));
        Ok(())
    }

    fn stop_listening(&mut self) {
        for place in 0..self.listeners.len() {
            if self.listeners[place].take().is_none() {
                continue;
            }
            for ring in &mut self.rings {
                // Fails only where the kernel refuses to be entered, and then
                // the next flush reports it.
                let _ = ring.remove_listener(place as u32);
            }
        }
    }

    fn connect(
        &mut self,
        carries: Carries,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<ConnId> {
        let Some(ring) = self.free.iter().position(|free| !free.is_empty()) else {
            return Err(io::Error::other("all connections of the engine are in use"));
        };
        let socket = socket_towards(carries, to, from)?;
        // The ring waits for readiness itself.
        socket.set_nonblocking(false)?;
        let Some(at) = self.free[ring].pop() else {
            return Err(io::ErrorKind::ResourceBusy.into());
        };
        let started = self.rings[ring]
            .put_socket(at, socket.as_fd())
            .and_then(|()| {
                self.rings[ring]
                    .connect(at, to)
                    .map_err(|Full| io::ErrorKind::ResourceBusy.into())
            });
        if let Err(error) = started {
            // The next user of the slot replaces the socket in the table.
            self.free[ring].push(at);
            return Err(error);
        }
        let index = ring as u32 * self.slots_per_ring + at;
        let slot = &mut self.slots[index as usize];
        slot.flags = CONNECTING | (slot.flags & (QUEUED | STARVED));
        slot.ops = 1;
        Ok(ConnId {
            index,
            generation: slot.generation,
        })
    }

    fn send(&mut self, conn: ConnId, buf: SendBuffer) -> Result<(), SendBuffer> {
        let (ring, at) = self.place(conn.index);
        match self.live_mut(conn) {
            Some(slot) if slot.has(OPEN) && !slot.has(SENDING | FIN) => {}
            _ => return Err(buf),
        }
        self.rings[ring].send(at, buf)?;
        let slot = &mut self.slots[conn.index as usize];
        slot.flags |= SENDING;
        slot.ops += 1;
        Ok(())
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(slot) = self.live_mut(conn) {
            slot.flags |= PAUSED;
            self.enqueue(conn.index);
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(slot) = self.live_mut(conn) {
            slot.flags &= !PAUSED;
            self.enqueue(conn.index);
        }
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        if let Some(slot) = self.live_mut(conn)
            && slot.has(OPEN)
        {
            slot.flags |= FIN;
            self.enqueue(conn.index);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(slot) = self.live_mut(conn) {
            slot.begin_close(ClosedBy::Local);
            self.enqueue(conn.index);
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.feed_starved();
        for _ in 0..self.todo.len() {
            let Some(&index) = self.todo.front() else {
                break;
            };
            if let Err(Full) = self.advance(index) {
                break;
            }
            self.todo.pop_front();
            self.slots[index as usize].flags &= !QUEUED;
        }
        self.arm_accepts()?;
        for ring in &mut self.rings {
            if ring.has_submissions() || ring.has_work() {
                ring.submit()?;
            }
        }
        if !self.can_sleep() {
            return Ok(true);
        }
        for ring in &mut self.rings {
            ring.arm_wake();
        }
        if self.can_sleep() {
            return Ok(false);
        }
        for ring in &mut self.rings {
            ring.disarm_wake();
        }
        Ok(true)
    }

    fn poll<E: Events>(&mut self, events: &mut E, events_max: usize) -> io::Result<usize> {
        let mut reported = self.returned.len();
        for (conn, buf) in self.returned.drain(..) {
            events.sent(conn, buf, Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let count = self.rings.len();
        self.first = (self.first + 1) % count;
        for turn in 0..count {
            let at = (self.first + turn) % count;
            self.rings[at].disarm_wake();
            while reported < events_max {
                // Finishing what is ready takes a call for about 20 operations.
                if self.rings[at].has_work() {
                    self.rings[at].submit()?;
                }
                let UringEngine {
                    rings,
                    free,
                    slots,
                    listeners,
                    waiting,
                    todo,
                    starved,
                    full,
                    accept_at,
                    counters,
                    slots_per_ring,
                    ..
                } = self;
                let mut turn = Turn {
                    base: at as u32 * *slots_per_ring,
                    free: &mut free[at],
                    slots,
                    listeners,
                    waiting,
                    todo,
                    starved: &mut starved[at],
                    full,
                    accept_at,
                    counters,
                    events,
                };
                let reaped = rings[at].reap(events_max - reported, |c| turn.take(c));
                reported += reaped;
                if reaped == 0 {
                    break;
                }
            }
        }
        self.counters.completion_overflows = self.rings.iter().map(Ring::overflows).sum();
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
        if let [ring] = self.rings.as_mut_slice() {
            // Sleeping in the ring itself saves the eventfd and a call.
            ring.disarm_wake();
            return ring.submit_and_wait(timeout);
        }
        wait_readable(self.wake.as_fd(), timeout)?;
        // Back to zero, or the next poll(2) would return at once.
        let mut count = [0; 8];
        match rustix::io::read(&self.wake, &mut count) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.accept_at
    }

    fn counters(&self) -> EngineCounters {
        self.counters
    }

    fn connections(&self) -> u32 {
        let free: usize = self.free.iter().map(Vec::len).sum();
        self.slots.len() as u32 - free as u32 - self.waiting
    }
}

#[cfg(test)]
mod tests;
