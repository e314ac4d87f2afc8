use protocol::limits::FRAME_BYTES_MAX;
use protocol::websocket::write_masked;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::*;

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What a front says to some bytes: its messages, how much overhead, and its end.
fn feed(front: &mut Front, bytes: &[u8]) -> (Vec<Vec<u8>>, usize, Option<CloseReason>) {
    let config = FrontConfig::default();
    let mut pool = Buffers::default();
    let mut bytes = bytes.to_vec();
    let mut data = &mut bytes[..];
    let (mut messages, mut overhead) = (Vec::new(), 0);
    loop {
        match front.next(&config, None, &mut data, FRAME_BYTES_MAX, &mut pool) {
            Ok(Step::Wait) => return (messages, overhead, None),
            Ok(Step::Open(address)) => assert_eq!(address, None),
            Ok(Step::Message { bytes, .. }) => messages.push(bytes.to_vec()),
            Ok(Step::Overhead(_)) => overhead += 1,
            Ok(Step::Done(_)) => panic!("nothing comes behind HTTP"),
            Err(reason) => return (messages, overhead, Some(reason)),
        }
    }
}

fn open() -> Box<Front> {
    let mut front = Front::of_first_bytes(*b"GET", b"GET").unwrap();
    assert_eq!(feed(&mut front, &REQUEST[3..]), (vec![], 0, None));
    let mut out = Vec::new();
    front.wrap(&mut out, false, &mut Buffers::default());
    assert!(out.starts_with(b"HTTP/1.1 101 "));
    front
}

fn wrapped(front: &mut Front, frames: &[u8], last: bool) -> Vec<u8> {
    let mut out = frames.to_vec();
    front.wrap(&mut out, last, &mut Buffers::default());
    out
}

fn client(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(opcode, [1, 2, 3, 4], payload, &mut out);
    out
}

#[test]
fn only_methods_of_http_have_a_front() {
    for method in [b"GET", b"POS", b"HEA", b"PRI"] {
        assert!(Front::of_first_bytes(*method, &[]).is_some());
    }
    for other in [b"get", b"\x16\x03\x01", b"GE ", b"\0\0\0"] {
        assert!(Front::of_first_bytes(*other, &[]).is_none());
    }
}

#[test]
fn frames_get_a_header_each_and_answers_come_first() {
    let mut front = open();
    let bytes = [client(Opcode::Ping, b"?"), client(Opcode::Binary, b"frame")].concat();
    assert_eq!(feed(&mut front, &bytes), (vec![b"frame".to_vec()], 1, None));
    let small = [&[16, 0, 0][..], &[9; 13]].concat();
    let large = [&[0, 1, 0][..], &[8; 253]].concat();
    let out = wrapped(&mut front, &[&small[..], &large].concat(), false);
    let wanted = [
        &[0x8a, 1, b'?'][..],
        &[0x82, 16],
        &small,
        &[0x82, 126, 1, 0],
        &large,
    ];
    assert_eq!(out, wanted.concat());
    assert!(wrapped(&mut front, &[], false).is_empty());
}

#[test]
fn the_end_has_a_close_frame_with_the_reason_once() {
    let mut front = open();
    front.end(CloseReason::BadToken);
    assert!(
        wrapped(&mut front, &[], false).is_empty(),
        "not yet the last"
    );
    let frame = [&[16, 0, 0][..], &[9; 13]].concat();
    let out = wrapped(&mut front, &frame, true);
    let close = [&[0x88, 11][..], &4_030u16.to_be_bytes(), b"bad_token"].concat();
    assert_eq!(out, [&[0x82, 16][..], &frame, &close].concat());
    assert!(wrapped(&mut front, &[], true).is_empty());
}

#[test]
fn a_close_is_answered_by_its_like_and_ends_everything() {
    for (payload, answer) in [
        (&b""[..], &[0x88, 0][..]),
        (b"\x03\xe8bye", &[0x88, 2, 3, 0xe8]),
        (b"\x0f\xa0", &[0x88, 2, 0x0f, 0xa0]),
    ] {
        let mut front = open();
        let bytes = [
            client(Opcode::Close, payload),
            client(Opcode::Binary, b"late"),
        ]
        .concat();
        let (messages, _, end) = feed(&mut front, &bytes);
        assert_eq!((messages, end), (vec![], Some(CloseReason::PeerClosed)));
        assert!(!front.carries_frames());
        front.end(CloseReason::PeerClosed);
        assert_eq!(wrapped(&mut front, &[], true), answer);
        assert_eq!(
            feed(&mut front, &bytes),
            (vec![], 0, None),
            "nothing is read"
        );
    }
}

#[test]
fn violations_have_their_own_codes() {
    for (bytes, reason, code) in [
        (vec![0x82, 3, 1, 2, 3], CloseReason::BadWebsocket, 1_002u16),
        (
            client(Opcode::Text, b"\xff"),
            CloseReason::BadWebsocket,
            1_007,
        ),
        (
            client(Opcode::Binary, &vec![0; FRAME_BYTES_MAX + 1]),
            CloseReason::BadLength,
            1_009,
        ),
    ] {
        let mut front = open();
        assert_eq!(feed(&mut front, &bytes).2, Some(reason));
        front.end(reason);
        let out = wrapped(&mut front, &[], true);
        assert_eq!(out[..4], [&[0x88, 2][..], &code.to_be_bytes()].concat());
    }
}

#[test]
fn a_request_that_is_refused_is_answered_and_nothing_follows() {
    let mut front = Front::of_first_bytes(*b"PUT", &[]).unwrap();
    let (_, _, end) = feed(&mut front, b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(end, Some(CloseReason::BadUpgrade));
    assert!(!front.carries_frames());
    front.end(CloseReason::BadUpgrade);
    assert!(wrapped(&mut front, &[], true).starts_with(b"HTTP/1.1 405 "));
    // One that is not finished when the gateway goes.
    let mut front = Front::of_first_bytes(*b"GET", &[]).unwrap();
    feed(&mut front, b"GET / HT");
    front.end(CloseReason::Draining);
    assert!(wrapped(&mut front, &[], true).starts_with(b"HTTP/1.1 503 "));
}

#[test]
fn pings_that_nobody_lets_out_are_answered_up_to_a_bound() {
    let mut front = open();
    for _ in 0..1_000 {
        feed(&mut front, &client(Opcode::Ping, &[1; 125]));
    }
    assert!(front.answers.len() <= ANSWERS_BYTES_MAX + 127);
}

#[test]
fn mutations_never_panic() {
    let mut random = ChaCha20Rng::seed_from_u64(11);
    let stream = [
        REQUEST,
        &client(Opcode::Binary, &[3; 40]),
        &client(Opcode::Ping, b"p"),
        &client(Opcode::Binary, &[4; 700]),
        &client(Opcode::Close, b"\x03\xe8"),
    ]
    .concat();
    for _ in 0..5_000 {
        let mut bytes = stream.clone();
        for _ in 0..=random.next_u32() % 4 {
            let at = random.next_u32() as usize % bytes.len();
            match random.next_u32() % 3 {
                0 => bytes[at] = random.next_u32() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.next_u32() as u8),
            }
        }
        let mut front = Front::of_first_bytes(*b"GET", &[]).unwrap();
        let piece = 1 + random.next_u32() as usize % 300;
        for chunk in bytes.chunks(piece) {
            if let (_, _, Some(reason)) = feed(&mut front, chunk) {
                front.end(reason);
                break;
            }
            assert!(front.answers.len() <= ANSWERS_BYTES_MAX + 127);
        }
        wrapped(&mut front, &[], true);
    }
}
