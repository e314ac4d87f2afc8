//! A whole frame: sealed and encoded by one end, taken out of the byte stream,
//! checked, opened and decoded by the other. Everything that PROTOCOL §4 asks
//! for is in it; the payload does not shrink, so LZ4 only tries.
//!
//! Deliberately not here: sockets, streams, sessions.

use protocol::body::{Body, Lane, MessageHeader, MessageKind};
use protocol::buffers::Buffers;
use protocol::check::{self, Age, Bucket, Charged, ClockOffset, Rate};
use protocol::cipher::{Key, Opener, RekeyPolicy, Sealer};
use protocol::client::compressed;
use protocol::compress::Scratch;
use protocol::ids::{GroupId, MessageId};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::reassembly::Reassembly;
use protocol::time::Time;

use crate::Digest;
use crate::tiny::noise;

/// Far above what a bench reaches: each frame is charged, none is refused.
const RATE: Rate = Rate {
    per_second: u32::MAX,
    burst: u32::MAX,
};
const COMPRESS_BYTES_MIN: usize = 64;
/// Microseconds between two frames: 10,000 frames a second.
const STEP_US: u64 = 100;

/// Two ends of one direction of a connection.
pub struct Ends {
    now: Time,
    sealer: Sealer,
    opener: Opener,
    clock: ClockOffset,
    frames: Bucket,
    bytes: Bucket,
    reassembly: Reassembly,
    buffers: Buffers,
    scratch: Scratch,
    payload: Vec<u8>,
    number: u32,
    /// Sealed frames that were not opened.
    stream: Vec<u8>,
}

impl Ends {
    /// Ends that exchange payloads of this size.
    pub fn new(payload_bytes: usize) -> Self {
        let now = Time(1_000_000);
        Self {
            now,
            sealer: Sealer::new(Key([1; 32]), now, RekeyPolicy::default()),
            opener: Opener::new(Key([1; 32])),
            clock: ClockOffset::new(now.wire_ms(), now),
            frames: Bucket::full(RATE, now),
            bytes: Bucket::full(RATE, now),
            reassembly: Reassembly::default(),
            buffers: Buffers::default(),
            scratch: Scratch::default(),
            payload: noise(payload_bytes),
            number: 0,
            stream: Vec::new(),
        }
    }

    /// Seals and encodes one frame behind those that wait.
    pub fn seal(&mut self) {
        self.now = self.now + STEP_US;
        self.number += 1;
        let header = MessageHeader {
            kind: MessageKind::Request,
            lane: Lane::Reliable,
            more: false,
            group: GroupId(1),
            number: self.number,
            ack: self.number - 1,
            message: MessageId(1),
            request: self.number,
        };
        let (flags, payload) = compressed(&self.payload, COMPRESS_BYTES_MIN, &mut self.scratch);
        self.sealer.seal(self.now, flags, &mut self.stream, |out| {
            header.encode(out);
            out.extend_from_slice(payload);
        });
    }

    /// Opens all frames that wait; returns how many passed every check.
    pub fn open(&mut self, mut message: impl FnMut(&MessageHeader, &[u8])) -> u32 {
        let mut data = self.stream.as_mut_slice();
        let mut opened = 0;
        while let Ok(Some(frame)) =
            self.reassembly
                .next(&mut data, FRAME_BYTES_MAX, &mut self.buffers)
        {
            let length = frame.len() as u32;
            let is_within = self.frames.charge(RATE, 1, self.now) == Charged::Within
                && self.bytes.charge(RATE, length, self.now) == Charged::Within;
            let Ok(frame) = check::open(frame, &mut self.opener, &mut self.clock, self.now) else {
                break;
            };
            let Ok(Body::Message { header, payload }) = Body::decode(frame.body) else {
                break;
            };
            if is_within && frame.age == Age::Fresh {
                message(&header, payload);
                opened += 1;
            }
        }
        self.stream.clear();
        opened
    }

    /// The stream of `frames` frames, sealed now and left for
    /// [`open`](Self::open).
    pub fn fill(&mut self, frames: usize) {
        for _ in 0..frames {
            self.seal();
        }
    }

    /// Forgets what waits: for measuring sealing alone.
    pub fn forget(&mut self) {
        self.stream.clear();
    }
}

/// What came through `frames` frames of this payload.
///
/// # Panics
/// A frame was refused.
pub fn digest(payload_bytes: usize, frames: usize) -> Digest {
    let mut ends = Ends::new(payload_bytes);
    let mut digest = Digest::default();
    ends.fill(frames);
    digest.update(&ends.stream);
    let opened = ends.open(|header, payload| {
        digest.update(&header.number.to_le_bytes());
        digest.update(payload);
    });
    assert_eq!(opened as usize, frames, "every frame was opened");
    digest
}
