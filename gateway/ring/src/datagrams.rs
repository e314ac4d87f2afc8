//! Datagrams in batches: a ring with one multishot receive, and calls that receive or
//! send many at once (recvmmsg(2), sendmmsg(2)) for whoever has no ring.
//!
//! Sending is a call a batch and not an operation a datagram of the ring: a UDP send never
//! waits, so the ring would only add a request and a completion to each, and the memory
//! would have to live until then. See docs/adr/0009-datagrams.md.
//!
//! Invariants: those of the crate; what the calls point to lives on their stack or is
//! borrowed for the call.

use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::buffers::Buffers;
use crate::name::{self, NAME_BYTES};
use crate::setup::SetupError;

/// The one group of receive buffers.
const BUFFER_GROUP: u16 = 0;

/// Bytes that the kernel writes before the name (`struct io_uring_recvmsg_out`).
const OUT_BYTES: usize = 16;

/// Bytes of a receive buffer; what is longer than a datagram of ours is cut, and dropped.
pub const RECEIVE_BYTES: usize = 2_048;

/// Datagrams of one call: two of these are what a ring is told at once (64 measured best
/// there), and the arrays stay on the stack.
const BATCH: usize = 32;

/// How long a dropped ring waits for its receive, as `ring` does.
const DROP_WAIT: Duration = Duration::from_secs(1);

const RECEIVE: u64 = 1;
const CANCEL: u64 = 2;

/// A ring that receives from one socket. Bound to the thread that made it.
pub struct DatagramRing {
    ring: IoUring,
    socket: OwnedFd,
    buffers: ManuallyDrop<Buffers>,
    /// What the receive was told: only lengths. Boxed, since the kernel may look again.
    header: ManuallyDrop<Box<libc::msghdr>>,
    /// Operations pushed whose last completion was not taken.
    in_flight: u32,
    receiving: bool,
    starved: u64,
    armed: bool,
    _not_send: PhantomData<*const ()>,
}

impl DatagramRing {
    /// Makes a ring with so many receive buffers (a power of two, at most 32,768), whose
    /// events make `wake` (an eventfd) readable while `arm_wake` holds.
    ///
    /// # Errors
    /// As [`Ring::new`](crate::Ring::new).
    pub fn new(
        socket: OwnedFd,
        receive_buffers: u16,
        wake: BorrowedFd<'_>,
    ) -> Result<Self, SetupError> {
        let step = |step| move |error| SetupError { step, error };
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(u32::from(receive_buffers) * 2)
            .dontfork()
            .build(8)
            .map_err(step("io_uring_setup"))?;
        let submitter = ring.submitter();
        submitter
            .register_eventfd(wake.as_raw_fd())
            .map_err(step("registering the eventfd"))?;
        let mut buffers = Buffers::new(receive_buffers, RECEIVE_BYTES as u32);
        for id in 0..receive_buffers {
            buffers.provide(id);
        }
        buffers.publish();
        let (address, count) = buffers.registration();
        // SAFETY: as in `Ring::new`: the memory is `count` descriptors, page-aligned, and
        // freed only after unregistering, or leaked.
        unsafe { submitter.register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0) }
            .map_err(step("registering the receive buffers"))?;
        // SAFETY: msghdr is a C struct of integers and pointers, for which zero is a value.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        let mut this = Self {
            ring,
            socket,
            buffers: ManuallyDrop::new(buffers),
            header: ManuallyDrop::new(header),
            in_flight: 0,
            receiving: false,
            starved: 0,
            armed: true,
            _not_send: PhantomData,
        };
        this.disarm_wake();
        Ok(this)
    }

    /// The socket, to send from.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives that ended because no buffer was free, and were started again.
    pub fn starved(&self) -> u64 {
        self.starved
    }

    /// Starts the receive where it does not run, and lets the kernel finish what became
    /// ready.
    ///
    /// # Errors
    /// Those of io_uring_enter(2) that stay.
    pub fn submit(&mut self) -> io::Result<()> {
        if !self.receiving {
            let header: *const libc::msghdr = &raw const **self.header;
            let entry =
                opcode::RecvMsgMulti::new(Fd(self.socket.as_raw_fd()), header, BUFFER_GROUP)
                    .build()
                    .user_data(RECEIVE);
            // SAFETY: the header and the buffers live until the receive's last completion
            // or are leaked (see `drop`), and the socket is ours.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.receiving = true;
                self.in_flight += 1;
            }
        }
        crate::ring::passing(self.ring.submit())
    }

    /// Whether `submit` would bring something.
    pub fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        !self.receiving || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether `reap` has something.
    pub fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// From now on events make the eventfd readable; see [`Ring`](crate::Ring).
    pub fn arm_wake(&mut self) {
        if !self.armed {
            self.armed = true;
            self.ring.completion().enable_eventfd();
            // See `Ring::arm_wake`.
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Events need not make the eventfd readable.
    pub fn disarm_wake(&mut self) {
        if self.armed {
            self.armed = false;
            self.ring.completion().disable_eventfd();
        }
    }

    /// Takes at most `max` datagrams; one that was cut is empty. Returns how many completions there were.
    pub fn reap(&mut self, max: usize, mut each: impl FnMut(SocketAddr, &mut [u8])) -> usize {
        let mut taken = 0;
        for entry in self.ring.completion().take(max) {
            taken += 1;
            let more = cqueue::more(entry.flags());
            if !more {
                self.in_flight -= 1;
            }
            if entry.user_data() != RECEIVE {
                continue;
            }
            if !more {
                self.receiving = false;
                self.starved += u64::from(-entry.result() == libc::ENOBUFS);
            }
            let id = cqueue::buffer_select(entry.flags()).filter(|id| self.buffers.has(*id));
            let Some(id) = id else {
                continue;
            };
            if let Ok(len) = usize::try_from(entry.result())
                && let Some(buffer) = self.buffers.received(id, len)
                && let Some((from, datagram)) = unpack(buffer)
            {
                each(from, datagram);
            }
            self.buffers.provide(id);
        }
        if taken > 0 {
            self.buffers.publish();
        }
        taken
    }

    fn quiesce(&mut self) -> bool {
        let deadline = Instant::now() + DROP_WAIT;
        let mut cancelled = false;
        while self.in_flight > 0 {
            if !cancelled {
                let entry = opcode::AsyncCancel2::new(CancelBuilder::any())
                    .build()
                    .user_data(CANCEL);
                // SAFETY: a cancellation points to nothing.
                cancelled = unsafe { self.ring.submission().push(&entry) }.is_ok();
                self.in_flight += u32::from(cancelled);
            }
            let timespec = Timespec::from(Duration::from_millis(10));
            let args = SubmitArgs::new().timespec(&timespec);
            let waited = self.ring.submitter().submit_with_args(1, &args);
            if crate::ring::passing(waited).is_err() || Instant::now() >= deadline {
                return false;
            }
            while self.reap(usize::MAX, |_, _| {}) > 0 {}
        }
        self.ring
            .submitter()
            .unregister_buf_ring(BUFFER_GROUP)
            .is_ok()
    }
}

impl Drop for DatagramRing {
    fn drop(&mut self) {
        if self.quiesce() {
            // SAFETY: dropped once, here; no operation is in flight and the buffers are
            // unregistered, so the kernel points to none of them.
            unsafe {
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.header);
            }
        }
    }
}

/// Sender and content of what a multishot receive wrote; `None` where the sender has no
/// address of a family that we know.
fn unpack(buffer: &mut [u8]) -> Option<(SocketAddr, &mut [u8])> {
    let (out, rest) = buffer.split_first_chunk_mut::<OUT_BYTES>()?;
    let flags = u32::from_ne_bytes([out[12], out[13], out[14], out[15]]);
    let (name, datagram) = rest.split_first_chunk_mut::<NAME_BYTES>()?;
    // What was cut is none of ours: it is reported empty, so that it is counted.
    let is_whole = flags & libc::MSG_TRUNC as u32 == 0;
    let datagram = if is_whole { datagram } else { &mut [] };
    Some((name::decode(name)?, datagram))
}

/// Buffers for [`receive`](ReceiveBatch::receive).
pub struct ReceiveBatch {
    bytes: Box<[u8]>,
    names: [[u8; NAME_BYTES]; BATCH],
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self {
            bytes: vec![0; BATCH * RECEIVE_BYTES].into_boxed_slice(),
            names: [[0; NAME_BYTES]; BATCH],
        }
    }
}

impl ReceiveBatch {
    /// The most that one call brings.
    pub const DATAGRAMS_MAX: usize = BATCH;

    /// Receives what is there, without waiting; what was cut is empty. Returns how many datagrams there were.
    ///
    /// # Errors
    /// `WouldBlock` if there was none, and those of recvmmsg(2).
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        mut each: impl FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<usize> {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|at| libc::iovec {
            iov_base: (&raw mut self.bytes[at * RECEIVE_BYTES]).cast(),
            iov_len: RECEIVE_BYTES,
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|at| {
            // SAFETY: a C struct of integers and pointers, for which zero is a value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw mut self.names[at]).cast();
            header.msg_hdr.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut parts[at];
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        // SAFETY: the headers point to `names`, `parts` and through these to `bytes`, with
        // the lengths that they have; all live until the call returns, and nothing else
        // refers to them meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (at, header) in headers.iter().take(count).enumerate() {
            let is_whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let length = if is_whole {
                (header.msg_len as usize).min(RECEIVE_BYTES)
            } else {
                0
            };
            if let Some(from) = name::decode(&self.names[at]) {
                let start = at * RECEIVE_BYTES;
                each(from, &mut self.bytes[start..start + length]);
            }
        }
        Ok(count)
    }
}

/// Datagrams for one address.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// One or several, one behind the other.
    pub bytes: &'a [u8],
    /// The length of each but the last, which may be shorter. The kernel cuts them.
    pub segment_bytes: usize,
}

/// A control message as long as the kernel wants it (cmsg(3), UDP_SEGMENT in udp(7)).
type Control = [u64; 3];

/// Sends as many of `batch` as the kernel takes now, at least one. Returns how many, at
/// most 32.
///
/// # Errors
/// `WouldBlock` if the socket is full, else what is wrong with the *first* of them.
pub fn send_many(socket: BorrowedFd<'_>, batch: &[Outgoing<'_>]) -> io::Result<usize> {
    let count = batch.len().min(BATCH);
    if count == 0 {
        return Ok(0);
    }
    let mut names = [([0; NAME_BYTES], 0); BATCH];
    let mut controls: [Control; BATCH] = [[0; 3]; BATCH];
    let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|_| libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    });
    for (at, outgoing) in batch.iter().take(count).enumerate() {
        names[at] = name::encode(outgoing.to);
        parts[at] = libc::iovec {
            // Only read from by sendmmsg, whatever its type says.
            iov_base: outgoing.bytes.as_ptr().cast_mut().cast(),
            iov_len: outgoing.bytes.len(),
        };
        controls[at] = control(outgoing.segment_bytes as u16);
    }
    let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|at| {
        // SAFETY: as in `receive`.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_name = (&raw mut names[at].0).cast();
        header.msg_hdr.msg_namelen = names[at].1;
        header.msg_hdr.msg_iov = &raw mut parts[at];
        header.msg_hdr.msg_iovlen = 1;
        if batch
            .get(at)
            .is_some_and(|outgoing| outgoing.segment_bytes < outgoing.bytes.len())
        {
            header.msg_hdr.msg_control = (&raw mut controls[at]).cast();
            header.msg_hdr.msg_controllen = size_of::<Control>();
        }
        header
    });
    // SAFETY: `count` headers are filled in; they point to arrays of this stack frame and
    // to the bytes borrowed by `batch`, all with their lengths, until the call returns.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// struct cmsghdr, then the length of a segment.
fn control(segment_bytes: u16) -> Control {
    const UDP_SEGMENT: u32 = 103;
    const HEAD_BYTES: u64 = 16;
    // Level and type are two 32-bit fields, the value 16 bits in the next word.
    let mut kind = [0; 8];
    kind[..4].copy_from_slice(&(libc::SOL_UDP as u32).to_ne_bytes());
    kind[4..].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
    let mut value = [0; 8];
    value[..2].copy_from_slice(&segment_bytes.to_ne_bytes());
    [
        HEAD_BYTES + 2,
        u64::from_ne_bytes(kind),
        u64::from_ne_bytes(value),
    ]
}

const _: () = assert!(size_of::<libc::cmsghdr>() == 16, "as `control` lays it out");

#[cfg(test)]
mod tests;
