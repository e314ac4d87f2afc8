//! What the benches measure, as functions that tests run too: whole frames, a
//! shard's turn, records of an uplink, one message for many, a map's tick. Beside them what
//! `cargo xtask bench-engines` compares the gateway with: echo servers without
//! any check ([`echo`]), and a load with one request outstanding on each
//! connection ([`closed_loop`]).
//!
//! Deliberately not here: timing, which is criterion's in `benches/`, and the
//! order of runs, which is xtask's.
//!
//! Invariant: each workload is a function of its size alone and yields a digest
//! of what it computed, so that one that computes nothing is noticed.

#![forbid(unsafe_code)]

pub mod aoi;
pub mod closed_loop;
pub mod cores;
mod digest;
pub mod echo;
pub mod fanout;
pub mod frame;
pub mod shard;
pub mod tiny;
pub mod uplink;

pub use digest::Digest;
