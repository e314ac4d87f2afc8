//! The payloads that simulated clients send: who, what, and a filler that
//! follows from them, so that whoever sees one can tell whether it is whole.

use protocol::body::Lane;

/// Bytes before the filler.
pub const HEAD_BYTES: usize = 12;

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// Which connection of which client, counted over the run.
    pub attempt: u32,
    /// On which lane.
    pub lane: u8,
    /// It wants an answer.
    pub is_request: bool,
    /// Which message of this attempt on this lane, from 0.
    pub index: u32,
}

fn filler(sent: &Sent, at: usize) -> u8 {
    // Runs of four, so that there is something to compress.
    (sent.attempt.wrapping_mul(31) ^ sent.index.wrapping_mul(7) ^ (at as u32 / 4)) as u8
}

/// The number of a lane.
pub fn lane_number(lane: Lane) -> u8 {
    lane as u8
}

/// Writes a payload of at least `bytes` bytes.
pub fn encode(sent: &Sent, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.max(HEAD_BYTES));
    out.extend_from_slice(&sent.attempt.to_le_bytes());
    out.extend_from_slice(&sent.index.to_le_bytes());
    out.push(sent.lane);
    out.push(u8::from(sent.is_request));
    out.extend_from_slice(&[0xa5, 0x5a]);
    for at in HEAD_BYTES..bytes {
        out.push(filler(sent, at));
    }
    out
}

/// Reads a payload; `None` if a byte of it is not what `encode` writes.
pub fn decode(payload: &[u8]) -> Option<Sent> {
    let (head, rest) = payload.split_first_chunk::<HEAD_BYTES>()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let sent = Sent {
        attempt: word(0),
        index: word(4),
        lane: head[8],
        is_request: head[9] != 0,
    };
    let is_whole = head[9] <= 1
        && head[10..] == [0xa5, 0x5a]
        && rest
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte == filler(&sent, HEAD_BYTES + at));
    is_whole.then_some(sent)
}

/// What the game puts in front of what it sends: which life of a session it
/// comes from, and which message on this lane of that life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromGame {
    /// A session's stay at an instance, counted over the run.
    pub life: u32,
    /// From 0, a lane.
    pub counter: u32,
}

impl FromGame {
    /// Bytes of it.
    pub const BYTES: usize = 8;

    /// In front of `payload`.
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES + payload.len());
        out.extend_from_slice(&self.life.to_le_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(payload);
        out
    }

    /// Parts it from the payload behind.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, payload) = bytes.split_first_chunk::<{ Self::BYTES }>()?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Some((
            Self {
                life: word(0),
                counter: word(4),
            },
            payload,
        ))
    }
}
