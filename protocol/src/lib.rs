//! The wire of Sallyport, as pure state machines: frames, handshake, sealed
//! bodies, reliable streams, the client's core, and the records of the uplink.
//!
//! `docs/PROTOCOL.md` is the specification; this crate is its one
//! implementation in Rust, used by clients, gateway and backends alike.
//!
//! Invariant: nothing in here reads a clock, opens a socket, starts a thread,
//! awaits, or draws a random number. Time and seeds are arguments.
//! `tests/it/purity.rs` checks it.

#![forbid(unsafe_code)]

pub mod body;
pub mod buffers;
pub mod channel;
pub mod chat;
pub mod check;
pub mod cipher;
pub mod client;
pub mod compress;
pub mod control;
pub mod datagram;
mod dh;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod limits;
pub mod network;
pub mod quality;
pub mod reason;
pub mod reassembly;
pub mod stream;
pub mod ticket;
pub mod time;
pub mod token;
pub mod uplink;
pub mod websocket;
pub mod world;

#[cfg(test)]
mod testing;
