//! gateway
pub mod engine;
