//! Frames that a receiver refuses, one check after the other. The reason in each
//! vector is what the checks of the protocol crate say about it, and has to be the
//! one that the example is meant to show.

use anyhow::ensure;
use protocol::body::{BadBody, Body};
use protocol::buffers::Buffers;
use protocol::check::{self, ClockOffset};
use protocol::cipher::{Key, Opener, RekeyPolicy, Sealer};
use protocol::compress::Scratch;
use protocol::frame::{FLAG_COMPRESSED, FLAG_HANDSHAKE, FLAG_KEY_PHASE, write_crc};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::reason::{CloseReason, DropReason};
use protocol::reassembly::Reassembly;
use protocol::time::Time;
use serde::Serialize;

use super::seal::seal;
use super::{hex, rising};

#[derive(Serialize)]
pub struct Bad {
    name: &'static str,
    frame: String,
    key: String,
    key_phase: u8,
    expected_sequence: u64,
    reason: &'static str,
}

/// How many frames the receiver has had.
const EXPECTED: u64 = 5;
const TIMESTAMP: u32 = 1_000;
const PING: &[u8] = &[
    5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// A receiver that has opened `EXPECTED` frames, and rekeyed before the last of
/// them if it is in phase 1.
struct Receiver {
    key: Key,
    phase: bool,
    opener: Opener,
    clock: ClockOffset,
    now: Time,
}

impl Receiver {
    fn new(phase: bool) -> anyhow::Result<Self> {
        let first = Key(rising(0xc0));
        let now = Time(0).after_ms(u64::from(TIMESTAMP));
        let mut sealer = Sealer::new(first.clone(), now, RekeyPolicy::default());
        let mut receiver = Self {
            key: if phase { first.next() } else { first.clone() },
            phase,
            opener: Opener::new(first),
            clock: ClockOffset::new(TIMESTAMP, now),
            now,
        };
        for sequence in 0..EXPECTED {
            if phase && sequence == EXPECTED - 1 {
                sealer.rekey(now);
            }
            let mut frame = Vec::new();
            sealer.seal(now, 0, &mut frame, |out| out.extend_from_slice(PING));
            ensure!(
                receiver.refusal(&frame).is_none(),
                "a good frame is refused"
            );
        }
        Ok(receiver)
    }

    /// Why the frame is refused, if it is: the checks in their order.
    fn refusal(&mut self, frame: &[u8]) -> Option<&'static str> {
        let mut bytes = frame.to_vec();
        let mut rest = bytes.as_mut_slice();
        let (mut reassembly, mut pool) = (Reassembly::default(), Buffers::default());
        let frame = match reassembly.next(&mut rest, FRAME_BYTES_MAX, &mut pool) {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(_) => return Some(CloseReason::BadLength.label()),
        };
        let opened = match check::open(frame, &mut self.opener, &mut self.clock, self.now) {
            Ok(opened) => opened,
            Err(reason) => return Some(reason.label()),
        };
        let compressed = opened.flags & FLAG_COMPRESSED != 0;
        match Body::decode(opened.body) {
            Err(BadBody::UnknownKind(_)) => Some(DropReason::UnknownKind.label()),
            Err(BadBody::Malformed) => Some(CloseReason::BadBody.label()),
            Ok(Body::Message { payload, .. }) if compressed => Scratch::default()
                .decompress(payload)
                .is_err()
                .then(|| CloseReason::BadCompression.label()),
            Ok(_) => compressed.then(|| CloseReason::BadBody.label()),
        }
    }
}

/// The examples.
pub fn frames() -> anyhow::Result<Vec<Bad>> {
    let receiver = Receiver::new(false)?;
    let key = receiver.key;
    let mut examples = Vec::new();
    for (name, body) in bodies() {
        examples.push((
            name,
            false,
            "bad_body",
            seal(&key, EXPECTED, 0, TIMESTAMP, &body),
        ));
    }
    for (name, body) in [
        ("kind 0", [0; 8].as_slice()),
        ("kind 21, which is not defined", &[21; 20]),
    ] {
        examples.push((
            name,
            false,
            "unknown_kind",
            seal(&key, EXPECTED, 0, TIMESTAMP, body),
        ));
    }
    for (name, payload) in payloads() {
        let body = [MESSAGE.as_slice(), &payload].concat();
        let frame = seal(&key, EXPECTED, FLAG_COMPRESSED, TIMESTAMP, &body);
        examples.push((name, false, "bad_compression", frame));
    }
    let all = envelopes(&key)
        .into_iter()
        .chain(examples)
        .map(|(name, phase, wanted, frame)| {
            let mut receiver = Receiver::new(phase)?;
            let refusal = receiver.refusal(&frame);
            ensure!(
                refusal == Some(wanted),
                "{name}: refused with {refusal:?}, not with {wanted}"
            );
            ensure!(
                receiver.opener.phase() == receiver.phase,
                "{name}: the receiver's key has moved"
            );
            Ok(Bad {
                name,
                frame: hex(&frame),
                key: hex(&receiver.key.0),
                key_phase: u8::from(phase),
                expected_sequence: EXPECTED,
                reason: wanted,
            })
        });
    all.collect()
}

type Example = (&'static str, bool, &'static str, Vec<u8>);

/// What is wrong with the frame around the body.
fn envelopes(key: &Key) -> Vec<Example> {
    let good = seal(key, EXPECTED, 0, TIMESTAMP, PING);
    // A copy with one bit of a byte turned, with or without a checksum that fits.
    let flipped = |at: usize, bit: u8, fix: bool| {
        let mut frame = good.clone();
        frame[at] ^= 1 << bit;
        if fix {
            write_crc(&mut frame);
        }
        frame
    };
    let mut long = good.clone();
    long[..3].copy_from_slice(&[0x01, 0x80, 0]);
    let mut get = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec();
    get.truncate(good.len());
    let mut short = good.clone();
    short.truncate(32);
    short[0] = 32;
    write_crc(&mut short);
    let last = good.len() - 1;
    let other = Key(rising(0x01));
    let at = |sequence, flags| seal(key, sequence, flags, TIMESTAMP, PING);
    vec![
        ("length above 32,768", false, "bad_length", long),
        ("an HTTP request", false, "bad_length", get),
        (
            "length of a sealed frame below 33",
            false,
            "bad_length",
            short,
        ),
        ("length 0", false, "bad_length", vec![0; 40]),
        (
            "unknown flag, sealed with it",
            false,
            "bad_flags",
            at(EXPECTED, 8),
        ),
        (
            "highest flag, sealed with it",
            false,
            "bad_flags",
            at(EXPECTED, 0x80),
        ),
        (
            "HANDSHAKE after the handshake",
            false,
            "bad_flags",
            at(EXPECTED, FLAG_HANDSHAKE),
        ),
        (
            "a bit of the checksum is wrong",
            false,
            "bad_crc",
            flipped(12, 0, false),
        ),
        (
            "a bit of the timestamp is wrong",
            false,
            "bad_crc",
            flipped(8, 3, false),
        ),
        (
            "a bit of the ciphertext is wrong",
            false,
            "bad_crc",
            flipped(16, 7, false),
        ),
        (
            "a bit of the tag is wrong",
            false,
            "bad_crc",
            flipped(last, 0, false),
        ),
        (
            "COMPRESSED set on the way",
            false,
            "bad_seal",
            flipped(3, 1, true),
        ),
        (
            "KEY_PHASE set on the way",
            false,
            "bad_seal",
            flipped(3, 2, true),
        ),
        (
            "another sequence put in",
            false,
            "bad_seal",
            flipped(4, 0, true),
        ),
        (
            "another timestamp put in",
            false,
            "bad_seal",
            flipped(8, 0, true),
        ),
        (
            "another ciphertext put in",
            false,
            "bad_seal",
            flipped(16, 0, true),
        ),
        (
            "another tag put in",
            false,
            "bad_seal",
            flipped(last, 7, true),
        ),
        (
            "sealed with another key",
            false,
            "bad_seal",
            seal(&other, EXPECTED, 0, TIMESTAMP, PING),
        ),
        (
            "sealed with the next key, without KEY_PHASE",
            false,
            "bad_seal",
            seal(&key.next(), EXPECTED, 0, TIMESTAMP, PING),
        ),
        (
            "sealed with the key after the next one",
            false,
            "bad_seal",
            seal(
                &key.next().next(),
                EXPECTED,
                FLAG_KEY_PHASE,
                TIMESTAMP,
                PING,
            ),
        ),
        (
            "the old key, after a frame under the new one",
            true,
            "bad_seal",
            at(EXPECTED, 0),
        ),
        (
            "the last frame again",
            false,
            "sequence_repeated",
            at(EXPECTED - 1, 0),
        ),
        (
            "the first frame again",
            false,
            "sequence_repeated",
            at(0, 0),
        ),
        (
            "one frame is missing",
            false,
            "sequence_skipped",
            at(EXPECTED + 1, 0),
        ),
        (
            "2^31 - 1 frames are missing",
            false,
            "sequence_skipped",
            at(EXPECTED + (1 << 31) - 1, 0),
        ),
        (
            "the next key, but one frame is missing",
            false,
            "sequence_skipped",
            seal(&key.next(), EXPECTED + 1, FLAG_KEY_PHASE, TIMESTAMP, PING),
        ),
        (
            "COMPRESSED on a body without payload",
            false,
            "bad_body",
            at(EXPECTED, FLAG_COMPRESSED),
        ),
    ]
}

/// The header of a message in the reliable lane of group 1, number 1.
const MESSAGE: [u8; 14] = [16, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0];

/// A message's header with another first byte and other bits.
fn headed(kind: u8, bits: u8) -> Vec<u8> {
    let mut body = MESSAGE.to_vec();
    (body[0], body[1]) = (kind, bits);
    if kind != 16 {
        body.extend_from_slice(&7_u32.to_le_bytes());
    }
    body
}

fn login(channel: &[u8], device: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 1, 0, 0, 0, 0];
    for label in [channel, device] {
        body.push(label.len() as u8);
        body.extend_from_slice(label);
    }
    body
}

/// Bodies that are not as §5 says.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let close = |text: &[u8]| [[4, 0, 40, 0, 0, 0, 0, 0].as_slice(), text].concat();
    let mut cut_login = login(b"store", b"phone");
    cut_login.truncate(10);
    vec![
        ("LOGIN that ends within a label", cut_login),
        ("LOGIN with a channel of 65 bytes", login(&[b'a'; 65], b"")),
        (
            "LOGIN with a device that is not UTF-8",
            login(b"", &[0xff, 0xfe]),
        ),
        (
            "LOGIN_OK that is too short",
            vec![2, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            "LOGIN_OK that is too long",
            [[2, 0].as_slice(), &[1; 17]].concat(),
        ),
        ("LOGOUT with something behind it", vec![3, 0]),
        ("CLOSE with a text of 257 bytes", close(&[b'a'; 257])),
        ("CLOSE with a text that is not UTF-8", close(&[0xc3, 0x28])),
        (
            "PING whose reserved byte is not 0",
            [[5, 1].as_slice(), &[0; 21]].concat(),
        ),
        (
            "PING that is too short",
            [[5, 0].as_slice(), &[0; 20]].concat(),
        ),
        (
            "PONG that is too long",
            [[6, 0].as_slice(), &[0; 18]].concat(),
        ),
        (
            "SYNC with an unknown flag",
            [[7, 2].as_slice(), &[0; 18]].concat(),
        ),
        (
            "SYNC that is too short",
            [[7, 0].as_slice(), &[0; 17]].concat(),
        ),
        (
            "ACK whose reserved byte is not 0",
            vec![8, 9, 1, 0, 0, 0, 0, 0],
        ),
        ("GROUP_DOWN that is too short", vec![9, 0, 1]),
        (
            "MESSAGE with a header that is too short",
            MESSAGE[..13].to_vec(),
        ),
        (
            "REQUEST without its request",
            [[17].as_slice(), &MESSAGE[1..]].concat(),
        ),
        ("MESSAGE in lane 3", headed(16, 3)),
        ("MESSAGE with an unknown bit", headed(16, 8)),
        ("MORE on a MESSAGE", headed(16, 4)),
        ("MORE on a REQUEST", headed(17, 4)),
        ("REQUEST in the unreliable lane", headed(17, 1)),
        ("REPLY in the sequenced lane", headed(18, 2)),
        ("ERROR in the unreliable lane", headed(19, 1)),
    ]
}

/// Compressed payloads that are refused: a size, then a block.
fn payloads() -> Vec<(&'static str, Vec<u8>)> {
    let text = b"round and round and round and round and round it goes".repeat(4);
    let block = lz4_flex::block::compress(&text);
    let of = |size: u32, block: &[u8]| [&size.to_le_bytes(), block].concat();
    let size = text.len() as u32;
    vec![
        ("a compressed payload without its size", vec![1, 0, 0]),
        ("a size above 32,768", of(32_769, &[0; 1_024])),
        ("a size of 4 GiB", of(u32::MAX, &block)),
        ("a size above 64 times the block", of(641, &[0x10; 10])),
        (
            "a block that yields less than the size",
            of(size + 1, &block),
        ),
        (
            "a block that yields more than the size",
            of(size - 1, &block),
        ),
        (
            "a block that is cut off",
            of(size, &block[..block.len() - 1]),
        ),
        // One literal, then a match from 200 bytes back.
        (
            "a block that points before its beginning",
            of(20, &[0x1f, b'a', 200, 0, 0, 0]),
        ),
    ]
}
