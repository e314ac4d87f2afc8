//! The only crate of the workspace with unsafe code.
#![allow(unsafe_code)]

mod options;
pub use options::bind_address_no_port;
