//! Socket addresses that the kernel reads (connect) or writes (accept) while an
//! operation runs.
//!
//! Owns a pool of them that grows to the most that were in use at once.
//! Invariant: an address is lent to one operation at a time, and only raw
//! pointers to it exist, so that no Rust reference ever claims the memory while
//! the kernel may write to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr::NonNull;

#[repr(C)]
struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

const STORAGE_BYTES: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// The pool. At most as many as operations in flight, so at most as many as
/// the ring has slots.
#[derive(Default)]
pub(crate) struct AddressPool {
    /// Made by `Box::into_raw`, freed in `drop`, never moved in between.
    all: Vec<NonNull<Address>>,
    free: Vec<u32>,
}

impl AddressPool {
    /// Lends an address, blank. Give it back with `give_back`.
    pub(crate) fn lend(&mut self) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            // SAFETY: sockaddr_storage is a C struct of integers and arrays of
            // them, for which all-zero is a value.
            let storage = unsafe { std::mem::zeroed() };
            let address = Box::new(Address { storage, len: 0 });
            self.all.push(NonNull::from(Box::leak(address)));
            self.all.len() as u32 - 1
        });
        let address = self.all[index as usize].as_ptr();
        // SAFETY: the pointer is from a leaked box that only `drop` frees, and
        // an address in `free` (or new) is lent to no operation: nobody else
        // reads or writes it. The write goes through the raw pointer.
        unsafe {
            (*address).storage.ss_family = libc::AF_UNSPEC as libc::sa_family_t;
            (*address).len = STORAGE_BYTES;
        }
        index
    }

    /// Ends the loan; the operation must have ended.
    pub(crate) fn give_back(&mut self, index: u32) {
        self.free.push(index);
    }

    /// What the kernel is told: where the address is and where its length is.
    pub(crate) fn pointers(&self, index: u32) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        let address = self.all[index as usize].as_ptr();
        // SAFETY: `address` points to a live Address (freed only in `drop`);
        // only addresses of fields are taken, nothing is read.
        unsafe {
            (
                (&raw mut (*address).storage).cast(),
                &raw mut (*address).len,
            )
        }
    }

    /// Writes `to` for a connect; returns its length in bytes.
    pub(crate) fn store(&mut self, index: u32, to: SocketAddr) -> libc::socklen_t {
        let storage = self.pointers(index).0;
        match to {
            SocketAddr::V4(to) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: to.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(to.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is larger than and aligned for every
                // sockaddr; the address is lent and not yet given to the kernel.
                unsafe { storage.cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(to) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: to.port().to_be(),
                    sin6_flowinfo: to.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: to.ip().octets(),
                    },
                    sin6_scope_id: to.scope_id(),
                };
                // SAFETY: as above.
                unsafe { storage.cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    /// Reads what an accept wrote; the operation must have ended.
    pub(crate) fn load(&self, index: u32) -> Option<SocketAddr> {
        let storage = self.pointers(index).0;
        // SAFETY: the memory is always initialised (zeroed at first, then
        // written by us or the kernel), the operation has ended, so nobody
        // writes; sockaddr_storage is large and aligned enough for each type.
        unsafe {
            match i32::from((*storage).sa_family) {
                libc::AF_INET => {
                    let raw = storage.cast::<libc::sockaddr_in>().read();
                    let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(raw.sin_port)))
                }
                libc::AF_INET6 => {
                    let raw = storage.cast::<libc::sockaddr_in6>().read();
                    let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                    Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(raw.sin6_port)))
                }
                _ => None,
            }
        }
    }
}

impl Drop for AddressPool {
    fn drop(&mut self) {
        for address in self.all.drain(..) {
            // SAFETY: made by leaking a box of this type and freed once. The
            // ring drops the pool only after the last completion, else leaks it.
            drop(unsafe { Box::from_raw(address.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests;
