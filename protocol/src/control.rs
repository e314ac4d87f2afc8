//! Control messages of an uplink: prost types generated from
//! `proto/control.proto` without `protoc`, and checked in. `cargo xtask
//! generate` writes them, and a test of xtask fails when they are stale.

#[allow(missing_docs, clippy::all)]
mod generated;

pub use generated::*;
