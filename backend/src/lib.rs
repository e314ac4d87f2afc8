//! The backend roles: pure cores and the thin drivers that join them to files and uplinks.
//!
//! [`center`] is the core of center, [`journal`] its journal. [`link`] is what the roles share
//! about their uplinks.
//!
//! It does not know the gateway: the two meet only in the messages of `protocol`.

#![forbid(unsafe_code)]

pub mod center;
pub mod journal;
pub mod link;
