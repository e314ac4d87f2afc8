//! The workloads compute something, the same each time; the echo servers and the
//! closed loop work together.

mod digests;
mod echoes;
