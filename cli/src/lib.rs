//! What of the binary is used from outside it: reading configurations, which `fuzz` drives.
//!
//! Everything else is the binary's own, in `main.rs`. Invariant: nothing here starts anything.

#![forbid(unsafe_code)]

pub mod config;
