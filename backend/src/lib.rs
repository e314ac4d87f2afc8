//! The backend roles: pure cores and the thin drivers that join them to files and uplinks.
//!
//! Cores: [`center`], [`stub`] (what every game runs in), [`map`] and [`walk`] (a game). Drivers: [`center_driver`], [`game`],
//! [`spread`] (a map on several cores), and [`journal`] for center's disk. [`link`] is what the roles share about their uplinks,
//! [`counters`] what they tell `/metrics`.
//!
//! It does not know the gateway: the two meet only in the messages of `protocol`.
//! Invariant: no core reads a clock, opens anything, or draws a random number.

#![forbid(unsafe_code)]

pub mod center;
pub mod center_driver;
pub mod chat;
pub mod counters;
pub mod game;
pub mod journal;
pub mod link;
mod link_driver;
pub mod map;
pub mod spread;
pub mod stub;
pub mod walk;
