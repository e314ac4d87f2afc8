//! Makes an input out of others: bits, edges of integers, pieces taken out, doubled, exchanged.
//!
//! Invariant: a run is a function of its seed.

use crate::INPUT_BYTES_MAX;

/// Changes of one input at the most.
const CHANGES_MAX: u64 = 6;

/// Values at which code tends to break, cut to the width that is written.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    15,
    16,
    33,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    1_104,
    4_096,
    32_767,
    32_768,
    65_535,
    i32::MAX as u64,
    u32::MAX as u64,
    i64::MAX as u64,
    u64::MAX,
];

/// A generator of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }
}

/// A new input, made of two of the corpus.
pub fn mutated(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.draw() % CHANGES_MAX {
        change(&mut bytes, other, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let length = bytes.len();
    let at = random.below(length + 1);
    match random.below(12) {
        0 | 1 if at < length => bytes[at] ^= 1 << random.below(8),
        2 if at < length => bytes[at] = random.draw() as u8,
        3 if at < length => {
            let step = random.below(5) as u8;
            bytes[at] = bytes[at].wrapping_add(step).wrapping_sub(2);
        }
        4 | 5 => {
            let width = [1, 2, 3, 4, 8][random.below(5)];
            let value = EDGES[random.below(EDGES.len())];
            let value = value.wrapping_sub(random.draw() & 1);
            let mut written = value.to_le_bytes();
            if random.below(4) == 0 {
                written[..width].reverse();
            }
            let end = (at + width).min(length);
            bytes[at..end].copy_from_slice(&written[..end - at]);
        }
        6 => bytes.truncate(at),
        7 => {
            let end = at + random.below(length - at + 1).min(64);
            bytes.drain(at..end);
        }
        8 => {
            let end = at + random.below(length - at + 1);
            let piece = bytes[at..end].to_vec();
            insert(bytes, random.below(length + 1), &piece);
        }
        9 => {
            let count = 1 + random.below(16);
            let piece: Vec<u8> = (0..count).map(|_| random.draw() as u8).collect();
            insert(bytes, at, &piece);
        }
        10 => {
            let from = random.below(other.len() + 1);
            let to = from + random.below(other.len() - from + 1);
            insert(bytes, at, &other[from..to]);
        }
        _ => {
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

/// Puts `piece` there as long as the input does not become too long.
fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() + piece.len() <= INPUT_BYTES_MAX {
        bytes.splice(at..at, piece.iter().copied());
    }
}
