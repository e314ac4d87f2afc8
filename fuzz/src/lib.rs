//! What peers may send, fuzzed: one [`Target`] for each kind of input, a mutator that runs on
//! stable Rust, and the corpus that both it and libFuzzer start from.
//!
//! A target is a plain function of bytes. It checks properties and panics where one does not hold;
//! what it returns says how it went, so that a run can tell an input that did something new. The
//! tests run each target for a moment, `cargo xtask fuzz` for as long as one likes.
//!
//! Deliberately not here: coverage, which `libfuzzer/` measures with a nightly compiler, and
//! transports: no target opens a socket.
//!
//! Invariant: a target is a function of its input alone. No clock, no thread, no randomness: what
//! was found once is found again.

#![forbid(unsafe_code)]

pub mod corpus;
pub mod mutate;
pub mod run;
pub mod script;
mod targets;

pub use targets::TARGETS;

/// Bytes of the longest input. Room for a script of some dozens of frames; what takes longer
/// inputs is a bound, and bounds have unit tests.
pub const INPUT_BYTES_MAX: usize = 8_192;

/// One kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on command lines, and that of its folder in the corpus.
    pub name: &'static str,
    /// Takes one input; panics where a property does not hold. The value names the way that the
    /// input went, roughly.
    pub run: fn(&[u8]) -> u64,
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Executions in the tests, chosen so that each target has about half a second there.
    pub executions: u64,
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
