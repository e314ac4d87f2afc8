//! The simulator's own promises: equal seeds give equal runs, no seed breaks a
//! rule, each plant is found, and the command line keeps its contract.
//!
//! Invariant: nothing here depends on wall time or on another test.

mod cli;
mod plants;
mod seeds;
