//! The backend roles: pure cores and the thin drivers that join them to files and uplinks.
//!
//! [`journal`] is center's journal.
//!
//! It does not know the gateway: the two meet only in the messages of `protocol`.

#![forbid(unsafe_code)]

pub mod journal;
