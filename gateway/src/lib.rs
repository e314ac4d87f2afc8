//! The gateway: the pure core of a shard (`shard`), the I/O engines around it
//! (`engine`), and the driver that joins the two with the uplinks (`drive`).
//!
//! It knows no backend: what it forwards to is a group and an address.

#![forbid(unsafe_code)]

pub mod counters;
pub mod datagrams;
pub mod drive;
pub mod engine;
pub mod front;
pub mod limits;
pub mod shard;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tickets;
