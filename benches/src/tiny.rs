//! The tiny mode: `cargo test` runs each bench once, small, to see that it works.
//!
//! Owns what criterion and the benches must agree on, and the payload of all of
//! them. Invariant: only `cargo bench`, which passes `--bench`, measures.

/// Whether this is a test and not a measurement.
pub fn is_tiny() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

/// The size to use: the small one in a test.
pub fn size(full: usize, tiny: usize) -> usize {
    if is_tiny() { tiny } else { full }
}

/// Bytes that do not compress, the same ones each time.
pub fn noise(bytes: usize) -> Vec<u8> {
    // Knuth's multiplicative hash; its high byte has no pattern that LZ4 finds.
    (0..bytes as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}
