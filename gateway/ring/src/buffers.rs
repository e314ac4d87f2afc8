//! The receive buffers: a ring of descriptors that the kernel takes buffers
//! from, and the buffers (io_uring_register_buf_ring(3)).
//!
//! Owns the memory of both. Does not register itself; the ring does.
//!
//! Invariant: a buffer is the kernel's from `provide` until a completion names
//! its id, and ours from then until it is provided again. It is lent out as a
//! slice only while it is ours.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// The kernel wants the descriptor ring aligned to a page.
const PAGE_BYTES: usize = 4_096;

pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    bytes: NonNull<u8>,
    bytes_layout: Layout,
    count: u16,
    size: u32,
    /// Next place in the descriptor ring, as the kernel will see it at `publish`.
    tail: u16,
}

impl Buffers {
    /// `count` buffers of `size` bytes, all ours. `count` is a power of two, at
    /// most 32,768.
    ///
    /// # Panics
    /// On any other count, or a size of 0: the caller's mistake.
    pub(crate) fn new(count: u16, size: u32) -> Buffers {
        assert!(count.is_power_of_two() && size > 0);
        let entries_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let (Ok(entries_layout), Ok(bytes_layout)) = (
            Layout::from_size_align(entries_bytes, PAGE_BYTES),
            Layout::from_size_align(usize::from(count) * size as usize, PAGE_BYTES),
        ) else {
            panic!("receive buffers larger than the address space");
        };
        Buffers {
            entries: allocate(entries_layout).cast(),
            entries_layout,
            // Zeroed memory of this size is fresh from the kernel: pages not
            // used yet cost nothing.
            bytes: allocate(bytes_layout),
            bytes_layout,
            count,
            size,
            tail: 0,
        }
    }

    /// The descriptor ring's address and length, for its registration.
    pub(crate) fn registration(&self) -> (u64, u16) {
        (self.entries.as_ptr() as u64, self.count)
    }

    fn start_of(&self, id: u16) -> *mut u8 {
        debug_assert!(id < self.count);
        // SAFETY: id < count (checked by every caller), so the result lies in
        // the one allocation of count * size bytes.
        unsafe {
            self.bytes
                .as_ptr()
                .add(usize::from(id) * self.size as usize)
        }
    }

    /// Gives buffer `id` to the kernel, from the next `publish` on.
    pub(crate) fn provide(&mut self, id: u16) {
        assert!(id < self.count);
        let start = self.start_of(id);
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` < count, so the entry lies within the allocation, which
        // is zeroed, i.e. initialised. The kernel reads entries only up to the
        // tail of the last `publish`, and at most `count` buffers exist, so
        // this entry is not being read. The setters write address, length and
        // id and leave the tail, which shares the first entry, alone.
        let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
        entry.set_addr(start as u64);
        entry.set_len(self.size);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was provided.
    pub(crate) fn publish(&mut self) {
        // SAFETY: `entries` is the base of the descriptor ring; the tail is a
        // u16 in it, aligned, shared with the kernel and so written atomically.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        // Release: the entries are visible before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }

    /// The first `len` bytes of buffer `id`, which a completion has just named
    /// and which has not been provided since; `None` if the kernel named
    /// something that cannot be.
    pub(crate) fn received(&mut self, id: u16, len: usize) -> Option<&mut [u8]> {
        if id >= self.count || len > self.size as usize {
            return None;
        }
        // SAFETY: in bounds by the check above; zeroed at first, so initialised;
        // ours (see the invariant), and borrowed from `self` exclusively, so
        // that it cannot be provided while the slice lives.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start_of(id), len) })
    }

    /// Whether such a buffer exists.
    pub(crate) fn has(&self, id: u16) -> bool {
        id < self.count
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layouts have a size above zero (asserted in `new`).
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts and freed once. The ring
        // drops this only after the last receive has ended and the descriptor
        // ring is unregistered, else leaks it.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.bytes.as_ptr(), self.bytes_layout);
        }
    }
}
