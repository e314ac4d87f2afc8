//! What a simulated client sends: its number, the sequence of the send, and a
//! body that is a function of (seed, client, sequence), so that a reply can be
//! judged without remembering the request.

/// Bytes at the front of each payload: client and sequence, both u32 LE.
pub const PREFIX_BYTES: usize = 8;
/// Bytes of the smallest and of the largest payload that is drawn.
pub const DRAWN_BYTES: (usize, usize) = (16, 2_048);
/// Words after which a body that can be compressed repeats itself: as text does, more or less.
const PERIOD_WORDS: u64 = 8;
/// Turns the draws of shapes into others than those of content.
const SHAPES: u64 = 0x7368_6170_6573;

/// How long a payload is and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// At least [`PREFIX_BYTES`].
    pub bytes: usize,
    /// Whether compression makes it shorter.
    pub repeats: bool,
}

impl Shape {
    /// Random content of so many bytes.
    pub const fn random(bytes: usize) -> Self {
        Self {
            bytes,
            repeats: false,
        }
    }

    /// One that is drawn for this send: each doubling of length as often as the others, one in
    /// two of them repeating itself.
    pub fn drawn(seed: u64, client: u32, sequence: u32) -> Self {
        let (least, most) = DRAWN_BYTES;
        let draw = mix(seed ^ SHAPES ^ mix(u64::from(client) << 32 | u64::from(sequence)));
        let doublings = (most / least).ilog2();
        let floor = least << ((draw >> 32) % u64::from(doublings));
        Self {
            bytes: floor + (draw % (floor as u64 + 1)) as usize,
            repeats: draw >> 63 == 1,
        }
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): turns a counter into
/// well-mixed bits.
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn words(seed: u64, client: u32, sequence: u32, repeats: bool) -> impl Iterator<Item = [u8; 8]> {
    let start = mix(seed ^ mix(u64::from(client) << 32 | u64::from(sequence)));
    let period = if repeats { PERIOD_WORDS } else { u64::MAX };
    (0_u64..).map(move |at| mix(start.wrapping_add(at % period)).to_le_bytes())
}

/// Writes the payload of one send into `out`, which it clears.
pub fn write(seed: u64, client: u32, sequence: u32, shape: Shape, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&client.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    for word in words(seed, client, sequence, shape.repeats) {
        let missing = shape.bytes.saturating_sub(out.len());
        if missing == 0 {
            break;
        }
        out.extend_from_slice(&word[..missing.min(word.len())]);
    }
}

/// The sequence that a payload claims; `None` if it is too short.
pub fn sequence(payload: &[u8]) -> Option<u32> {
    payload
        .get(4..PREFIX_BYTES)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes)
}

/// Whether `payload` is exactly what [`write`] made for this send.
pub fn is_of(payload: &[u8], seed: u64, client: u32, sequence: u32, shape: Shape) -> bool {
    let Some((prefix, body)) = payload.split_at_checked(PREFIX_BYTES) else {
        return false;
    };
    payload.len() == shape.bytes
        && prefix[..4] == client.to_le_bytes()
        && prefix[4..] == sequence.to_le_bytes()
        && body
            .chunks(8)
            .zip(words(seed, client, sequence, shape.repeats))
            .all(|(chunk, word)| *chunk == word[..chunk.len()])
}

#[cfg(test)]
mod tests;
