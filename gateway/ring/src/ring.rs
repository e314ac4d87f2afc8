//! One ring with a table of sockets ("direct descriptors"), receive buffers, and
//! the buffers being sent.
//!
//! Sockets are named by their slot in the table; after the slots come the places
//! of the listeners. A socket in the table needs no descriptor of the process,
//! so a process holds as many sockets as it has rings times the open-file limit.
//!
//! Accepts are single-shot, several waiting at once, each into a slot chosen by
//! the caller. Multishot accept was not taken: when the table is full it accepts
//! one connection more and drops it (io_accept installs after it accepted), and it
//! cannot tell the peer's address. Receives are multishot.
//!
//! Invariants:
//! - `in_flight` counts operations pushed whose last completion was not taken.
//! - user_data is made and read only here, so a completion cannot be forged.
//! - A buffer in `sends` with `in_flight` set is not touched; one that is shared cannot be written to by
//!   anybody, and lives while `sends` has its reference.

use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, DestinationSlot, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::address::AddressPool;
use crate::buffers::Buffers;
use crate::completion::{Completion, Full};
use crate::send_buffer::SendBuffer;
use crate::setup::{RingConfig, SetupError, check_operations};

/// The one group of receive buffers.
const BUFFER_GROUP: u16 = 0;
/// How long a dropped ring waits for its operations before it leaks their
/// memory. Cancelled socket operations end at once; this is for a kernel bug.
const DROP_WAIT: Duration = Duration::from_secs(1);
/// The most that one send operation is asked for; a longer buffer is continued.
const SEND_BYTES_MAX: usize = 1 << 30;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Accept = 1,
    Connect,
    Receive,
    Send,
    Shutdown,
    Cancel,
    CancelReceive,
    CancelAccepts,
    Close,
}

impl Op {
    const fn from_bits(bits: u8) -> Option<Op> {
        Some(match bits {
            1 => Op::Accept,
            2 => Op::Connect,
            3 => Op::Receive,
            4 => Op::Send,
            5 => Op::Shutdown,
            6 => Op::Cancel,
            7 => Op::CancelReceive,
            8 => Op::CancelAccepts,
            9 => Op::Close,
            _ => return None,
        })
    }
}

/// op (8 bits), address (24), slot (32).
const fn user_data(op: Op, address: u32, slot: u32) -> u64 {
    (op as u64) << 56 | (address as u64 & 0xff_ffff) << 32 | slot as u64
}

/// 32 bytes a slot.
#[derive(Default)]
struct Sending {
    /// Empty: nothing is being sent.
    buf: SendBuffer,
    /// Bytes that the kernel has taken.
    taken: u32,
    in_flight: bool,
}

/// See the module. Bound to the thread that made it.
pub struct Ring {
    ring: IoUring,
    config: RingConfig,
    buffers: ManuallyDrop<Buffers>,
    addresses: ManuallyDrop<AddressPool>,
    sends: ManuallyDrop<Box<[Sending]>>,
    /// By address index: the listener of that accept.
    accept_listeners: Vec<u32>,
    in_flight: u32,
    overflows: u64,
    /// Whether events make the eventfd readable.
    armed: bool,
    /// SINGLE_ISSUER: the kernel refuses other threads.
    _not_send: PhantomData<*const ()>,
}

impl Ring {
    /// Makes a ring whose events make `wake` (an eventfd) readable while
    /// [`arm_wake`](Ring::arm_wake) holds.
    ///
    /// Errors: see [`SetupError`]; nothing is left behind.
    ///
    /// # Panics
    /// If `receive_buffers` is no power of two or a size is 0.
    pub fn new(config: RingConfig, wake: BorrowedFd<'_>) -> Result<Ring, SetupError> {
        let step = |step| move |error| SetupError { step, error };
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // Tells by a flag whether entering the kernel would bring anything.
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.completion_entries)
            .dontfork()
            .build(config.submission_entries)
            .map_err(step("io_uring_setup"))?;
        let submitter = ring.submitter();
        check_operations(&ring)?;
        submitter
            .register_files_sparse(config.slots + config.listeners)
            .map_err(step("registering the table of sockets"))?;
        submitter
            .register_eventfd(wake.as_raw_fd())
            .map_err(step("registering the eventfd"))?;
        let mut buffers = Buffers::new(config.receive_buffers, config.receive_buffer_bytes);
        for id in 0..config.receive_buffers {
            buffers.provide(id);
        }
        buffers.publish();
        let (address, count) = buffers.registration();
        // SAFETY: the memory is `count` descriptors, page-aligned, and lives in
        // `self.buffers`, which is freed only after unregistering or leaked.
        unsafe { submitter.register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0) }
            .map_err(step("registering the receive buffers"))?;
        let sends = (0..config.slots).map(|_| Sending::default()).collect();
        let mut ring = Ring {
            ring,
            config,
            buffers: ManuallyDrop::new(buffers),
            addresses: ManuallyDrop::new(AddressPool::default()),
            sends: ManuallyDrop::new(sends),
            accept_listeners: Vec::new(),
            in_flight: 0,
            overflows: 0,
            // As the kernel starts.
            armed: true,
            _not_send: PhantomData,
        };
        ring.disarm_wake();
        Ok(ring)
    }

    /// Puts a listening socket into its place; the kernel keeps it open until
    /// [`remove_listener`](Ring::remove_listener).
    pub fn put_listener(&mut self, listener: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.check_listener(listener)?;
        self.put(self.config.slots + listener, socket.as_raw_fd())
    }

    /// Cancels the accepts of a listener and lets go of its socket. Accepts that
    /// had succeeded are still reported.
    pub fn remove_listener(&mut self, listener: u32) -> io::Result<()> {
        self.check_listener(listener)?;
        let place = self.config.slots + listener;
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(Fixed(place)).all()).build();
        // If the queue is stuck the accepts stay; they hold no memory but ours.
        let pushed = self.push(cancel, user_data(Op::CancelAccepts, 0, place));
        self.submit()?;
        self.put(place, -1)?;
        pushed.map_err(|Full| io::ErrorKind::ResourceBusy.into())
    }

    /// Puts a socket into a free slot; the caller's descriptor can be closed.
    pub fn put_socket(&mut self, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.check_slot(slot)?;
        self.put(slot, socket.as_raw_fd())
    }

    /// Accepts one connection into a free slot.
    ///
    /// # Panics
    /// If there is no such slot or listener: the caller's mistake, as below.
    pub fn accept(&mut self, listener: u32, slot: u32) -> Result<(), Full> {
        assert!(slot < self.config.slots && listener < self.config.listeners);
        let Ok(destination) = DestinationSlot::try_from_slot_target(slot) else {
            return Err(Full);
        };
        let index = self.addresses.lend();
        if self.accept_listeners.len() <= index as usize {
            self.accept_listeners.resize(index as usize + 1, 0);
        }
        self.accept_listeners[index as usize] = listener;
        let (address, len) = self.addresses.pointers(index);
        let place = Fixed(self.config.slots + listener);
        let entry = opcode::Accept::new(place, address, len)
            .file_index(Some(destination))
            .build();
        self.push(entry, user_data(Op::Accept, index, slot))
            .inspect_err(|Full| self.addresses.give_back(index))
    }

    /// Connects the socket in a slot.
    pub fn connect(&mut self, slot: u32, to: SocketAddr) -> Result<(), Full> {
        assert!(slot < self.config.slots);
        let index = self.addresses.lend();
        let len = self.addresses.store(index, to);
        let (address, _) = self.addresses.pointers(index);
        let entry = opcode::Connect::new(Fixed(slot), address, len).build();
        self.push(entry, user_data(Op::Connect, index, slot))
            .inspect_err(|Full| self.addresses.give_back(index))
    }

    /// Starts a multishot receive.
    pub fn receive(&mut self, slot: u32) -> Result<(), Full> {
        assert!(slot < self.config.slots);
        let entry = opcode::RecvMulti::new(Fixed(slot), BUFFER_GROUP).build();
        self.push(entry, user_data(Op::Receive, 0, slot))
    }

    /// Cancels the receive of a slot.
    pub fn stop_receive(&mut self, slot: u32) -> Result<(), Full> {
        let target = CancelBuilder::user_data(user_data(Op::Receive, 0, slot));
        let entry = opcode::AsyncCancel2::new(target).build();
        self.push(entry, user_data(Op::CancelReceive, 0, slot))
    }

    /// Sends all of `buf`. Given back if it is empty or longer than 4 GiB, if
    /// another one is on its way, or if the queue is full.
    pub fn send(&mut self, slot: u32, buf: SendBuffer) -> Result<(), SendBuffer> {
        let sending = &mut self.sends[slot as usize];
        if buf.is_empty() || buf.len() > u32::MAX as usize || !sending.buf.is_empty() {
            return Err(buf);
        }
        sending.buf = buf;
        sending.taken = 0;
        self.continue_send(slot)
            .map_err(|Full| std::mem::take(&mut self.sends[slot as usize].buf))
    }

    /// Goes on after [`Completion::SentPart`]. Nothing happens if nothing is left.
    pub fn continue_send(&mut self, slot: u32) -> Result<(), Full> {
        let sending = &self.sends[slot as usize];
        if sending.buf.is_empty() || sending.in_flight {
            return Ok(());
        }
        let left = &sending.buf[sending.taken as usize..];
        let entry = opcode::Send::new(
            Fixed(slot),
            left.as_ptr(),
            left.len().min(SEND_BYTES_MAX) as u32,
        )
        // WAITALL: the kernel itself goes on after a short send.
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build();
        self.push(entry, user_data(Op::Send, 0, slot))?;
        self.sends[slot as usize].in_flight = true;
        Ok(())
    }

    /// Takes back a buffer that is between [`Completion::SentPart`] and
    /// [`continue_send`](Ring::continue_send).
    pub fn take_unsent(&mut self, slot: u32) -> Option<SendBuffer> {
        let sending = &mut self.sends[slot as usize];
        (!sending.buf.is_empty() && !sending.in_flight).then(|| std::mem::take(&mut sending.buf))
    }

    /// Ends the sending direction (FIN).
    pub fn shutdown_write(&mut self, slot: u32) -> Result<(), Full> {
        assert!(slot < self.config.slots);
        let entry = opcode::Shutdown::new(Fixed(slot), libc::SHUT_WR).build();
        self.push(entry, user_data(Op::Shutdown, 0, slot))
    }

    /// Cancels the receive of a slot that is to be closed.
    pub fn cancel_receive(&mut self, slot: u32) -> Result<(), Full> {
        self.cancel_one(Op::Receive, slot)
    }

    /// Cancels the send of a slot that is to be closed.
    pub fn cancel_send(&mut self, slot: u32) -> Result<(), Full> {
        self.cancel_one(Op::Send, slot)
    }

    /// By name the kernel finds an operation in its hash table.
    fn cancel_one(&mut self, op: Op, slot: u32) -> Result<(), Full> {
        assert!(slot < self.config.slots);
        let target = CancelBuilder::user_data(user_data(op, 0, slot));
        let entry = opcode::AsyncCancel2::new(target).build();
        self.push(entry, user_data(Op::Cancel, 0, slot))
    }

    /// Cancels all operations of a slot. The kernel looks at every operation of
    /// the ring for that: with 15,000 receives waiting it takes 0.3 ms.
    pub fn cancel(&mut self, slot: u32) -> Result<(), Full> {
        assert!(slot < self.config.slots);
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fixed(slot)).all()).build();
        self.push(entry, user_data(Op::Cancel, 0, slot))
    }

    /// Closes the socket in a slot. Operations on it hold it open until they end.
    pub fn close(&mut self, slot: u32) -> Result<(), Full> {
        assert!(slot < self.config.slots);
        let entry = opcode::Close::new(Fixed(slot)).build();
        self.push(entry, user_data(Op::Close, 0, slot))
    }

    /// Whether something was pushed that the kernel has not taken.
    pub fn has_submissions(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether [`submit`](Ring::submit) would bring completions.
    pub fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether [`reap`](Ring::reap) has something.
    pub fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Times that completions were found in the kernel's overflow list.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Enters the kernel once: submits what was pushed and lets it finish what
    /// became ready. That the kernel is busy or interrupted is no error; what was
    /// pushed then stays.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().cq_overflow() {
            self.overflows += 1;
        }
        passing(self.ring.submit())
    }

    /// Like [`submit`](Ring::submit), but blocks until there is a completion or
    /// `timeout` has passed.
    pub fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timespec = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timespec);
        passing(self.ring.submitter().submit_with_args(1, &args))
    }

    /// From now on events make the eventfd readable. Look at `has_work` and
    /// `has_completions` afterwards: what came before it does not.
    pub fn arm_wake(&mut self) {
        if self.armed {
            return;
        }
        self.armed = true;
        self.ring.completion().enable_eventfd();
        // The kernel sets its flag, then reads ours; we do it the other way
        // round, so that one of the two sees the other. Without the fence both
        // could miss.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Events need not make the eventfd readable: saves a write for each.
    pub fn disarm_wake(&mut self) {
        if self.armed {
            self.armed = false;
            self.ring.completion().disable_eventfd();
        }
    }

    /// Takes at most `max` completions. Returns how many.
    pub fn reap(&mut self, max: usize, mut each: impl FnMut(Completion<'_>)) -> usize {
        let Ring {
            ring,
            config,
            buffers,
            addresses,
            sends,
            accept_listeners,
            in_flight,
            ..
        } = self;
        let mut taken = 0;
        let mut provided = false;
        for entry in ring.completion().take(max) {
            taken += 1;
            let more = cqueue::more(entry.flags());
            if !more {
                *in_flight -= 1;
            }
            let bits = entry.user_data();
            let (slot, address) = (bits as u32, (bits >> 32) as u32 & 0xff_ffff);
            let Some(op) = Op::from_bits((bits >> 56) as u8) else {
                continue;
            };
            let result = match entry.result() {
                n if n < 0 => Err(io::Error::from_raw_os_error(-n)),
                n => Ok(n as usize),
            };
            match op {
                Op::Accept => {
                    let peer = result.as_ref().ok().and_then(|_| addresses.load(address));
                    addresses.give_back(address);
                    each(Completion::Accepted {
                        slot,
                        listener: accept_listeners[address as usize],
                        peer,
                        result: result.map(drop),
                    });
                }
                Op::Connect => {
                    addresses.give_back(address);
                    each(Completion::Connected {
                        slot,
                        result: result.map(drop),
                    });
                }
                Op::Receive => {
                    let id = cqueue::buffer_select(entry.flags()).filter(|id| buffers.has(*id));
                    match result {
                        Ok(len) if len > 0 => {
                            let data = id.and_then(|id| buffers.received(id, len));
                            match data {
                                Some(data) => each(Completion::Received { slot, data, more }),
                                None => debug_assert!(false, "bytes without a buffer"),
                            }
                        }
                        // Neither FIN nor an error comes with F_MORE.
                        ended => each(Completion::ReceiveEnded {
                            slot,
                            result: ended.map(drop),
                        }),
                    }
                    if let Some(id) = id {
                        buffers.provide(id);
                        provided = true;
                    }
                }
                Op::Send => {
                    let sending = &mut sends[slot as usize];
                    sending.in_flight = false;
                    match after_send(sending, result) {
                        Some(result) => each(Completion::Sent {
                            slot,
                            buf: std::mem::take(&mut sending.buf),
                            result,
                        }),
                        None => each(Completion::SentPart { slot }),
                    }
                }
                Op::Shutdown => each(Completion::ShutDown { slot }),
                Op::Cancel => each(Completion::Cancelled {
                    slot,
                    again: result.is_err_and(|e| e.raw_os_error() == Some(libc::EALREADY)),
                }),
                Op::CancelReceive => each(Completion::ReceiveStopped { slot }),
                Op::CancelAccepts => debug_assert!(slot >= config.slots),
                Op::Close => each(Completion::Closed { slot }),
            }
        }
        if provided {
            // Once a batch: the kernel takes buffers only when it is entered.
            buffers.publish();
        }
        taken
    }

    fn check_slot(&self, slot: u32) -> io::Result<()> {
        if slot < self.config.slots {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "no such slot"))
        }
    }

    fn check_listener(&self, listener: u32) -> io::Result<()> {
        if listener < self.config.listeners {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no such listener",
            ))
        }
    }

    fn put(&mut self, place: u32, fd: i32) -> io::Result<()> {
        self.ring
            .submitter()
            .register_files_update(place, &[fd])
            .map(drop)
    }

    fn push(&mut self, entry: squeue::Entry, user_data: u64) -> Result<(), Full> {
        let entry = entry.user_data(user_data);
        for attempt in 0..2 {
            // SAFETY: the entries are made in this module only. What they point
            // to is owned by `sends`, `buffers` or `addresses`, and stays where
            // it is until the operation's last completion was taken: a send's
            // buffer by `in_flight`, an address by its loan, the receive buffers
            // by living as long as the ring. `drop` waits or leaks.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.in_flight += 1;
                return Ok(());
            }
            if attempt == 0 && self.submit().is_err() {
                break;
            }
        }
        Err(Full)
    }

    /// Ends everything; whether it worked.
    fn quiesce(&mut self) -> bool {
        let deadline = Instant::now() + DROP_WAIT;
        let mut cancelled = false;
        while self.in_flight > 0 {
            if !cancelled {
                let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
                let place = self.config.slots;
                cancelled = self
                    .push(entry, user_data(Op::CancelAccepts, 0, place))
                    .is_ok();
            }
            if self.submit_and_wait(Duration::from_millis(10)).is_err()
                || Instant::now() >= deadline
            {
                return false;
            }
            while self.reap(usize::MAX, |completion| drop(completion)) > 0 {}
        }
        let submitter = self.ring.submitter();
        // Closes the sockets now; dropping the ring would do it some time later.
        let _ = submitter.unregister_files();
        submitter.unregister_buf_ring(BUFFER_GROUP).is_ok()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.quiesce() {
            // SAFETY: dropped once, here, and not used afterwards. No operation
            // is in flight and the descriptor ring is unregistered, so the
            // kernel has no pointer into any of them.
            unsafe {
                ManuallyDrop::drop(&mut self.sends);
                ManuallyDrop::drop(&mut self.addresses);
                ManuallyDrop::drop(&mut self.buffers);
            }
        }
    }
}

/// Books a send's result: `None` if the rest is still to be sent.
fn after_send(sending: &mut Sending, result: io::Result<usize>) -> Option<io::Result<()>> {
    match result {
        Ok(0) => Some(Err(io::ErrorKind::WriteZero.into())),
        Ok(n) => {
            sending.taken = sending.taken.saturating_add(n as u32);
            (sending.taken as usize >= sending.buf.len()).then_some(Ok(()))
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => None,
            _ => Some(Err(error)),
        },
    }
}

/// What only means "not now" is no error.
pub(crate) fn passing(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // EBUSY, EAGAIN: completions must be taken first, or no memory for
            // requests at the moment; ETIME: the timeout of a wait.
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
