use proptest::prelude::*;

use super::super::{write_header, write_masked};
use super::*;

const MAX: usize = FRAME_BYTES_MAX;

/// What a test compares: an event with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Message(bool, Vec<u8>),
    Fragment,
    Ping(Vec<u8>),
    Pong(usize),
    Close(Option<u16>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { text, bytes } => Self::Message(text, bytes.to_vec()),
            Event::Fragment => Self::Fragment,
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes),
            Event::Close(code) => Self::Close(code),
        }
    }
}

/// Feeds the bytes in pieces of this size.
fn decode(
    mut decoder: Decoder,
    bytes: &[u8],
    piece: usize,
    max: usize,
) -> (Vec<Seen>, Option<Violation>) {
    let mut pool = Buffers::default();
    let mut seen = Vec::new();
    let mut bytes = bytes.to_vec();
    for chunk in bytes.chunks_mut(piece) {
        let mut data = chunk;
        loop {
            match decoder.next(&mut data, max, &mut pool) {
                Ok(Some(event)) => seen.push(event.into()),
                Ok(None) => break,
                Err(violation) => return (seen, Some(violation)),
            }
        }
        assert!(data.is_empty());
    }
    (seen, None)
}

fn of_client(bytes: &[u8]) -> (Vec<Seen>, Option<Violation>) {
    decode(Decoder::of_client(), bytes, usize::MAX, MAX)
}

/// A frame with its first byte as given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(Opcode::Binary, [9, 8, 7, 6], payload, &mut out);
    out[0] = first;
    out
}

#[test]
fn frames_are_events_however_they_are_cut() {
    let long = vec![0xa5; 20_000];
    let bytes = [
        frame(0x82, b"whole"),
        frame(0x89, b"ping"),
        frame(0x02, b"in "),
        frame(0x8a, b""),
        frame(0x00, b"three "),
        frame(0x89, &[7; 125]),
        frame(0x80, b"pieces"),
        frame(0x82, b""),
        frame(0x02, b""),
        frame(0x00, b""),
        frame(0x80, &long),
        frame(0x81, "grüße".as_bytes()),
        frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']),
    ]
    .concat();
    let wanted = vec![
        Seen::Message(false, b"whole".to_vec()),
        Seen::Ping(b"ping".to_vec()),
        Seen::Fragment,
        Seen::Pong(0),
        Seen::Fragment,
        Seen::Ping(vec![7; 125]),
        Seen::Message(false, b"in three pieces".to_vec()),
        Seen::Message(false, vec![]),
        Seen::Fragment,
        Seen::Fragment,
        Seen::Message(false, long),
        Seen::Message(true, "grüße".as_bytes().to_vec()),
        Seen::Close(Some(1_000)),
    ];
    for piece in [1, 2, 3, 5, 7, 14, 1_000, usize::MAX] {
        let seen = decode(Decoder::of_client(), &bytes, piece, MAX);
        assert_eq!(seen, (wanted.clone(), None), "by {piece}");
    }
}

#[test]
fn a_servers_frames_are_not_masked() {
    let mut bytes = Vec::new();
    write_header(Opcode::Binary, 3, &mut bytes);
    bytes.extend(b"abc");
    let (seen, violation) = decode(Decoder::of_server(), &bytes, 1, MAX);
    assert_eq!(seen, [Seen::Message(false, b"abc".to_vec())]);
    assert_eq!(violation, None);
    assert_eq!(of_client(&bytes).1, Some(Violation::Protocol));
    let masked = frame(0x82, b"abc");
    let (_, violation) = decode(Decoder::of_server(), &masked, 9, MAX);
    assert_eq!(violation, Some(Violation::Protocol));
}

#[test]
fn what_breaks_the_rules_is_told() {
    let length = |bytes: &[u8]| [&[0x82][..], bytes, &[0; 4]].concat();
    for (bytes, violation) in [
        // Bits of extensions, and codes that nobody has defined.
        (frame(0xc2, b""), Violation::Protocol),
        (frame(0xa2, b""), Violation::Protocol),
        (frame(0x92, b""), Violation::Protocol),
        (frame(0x83, b""), Violation::Protocol),
        (frame(0x8b, b""), Violation::Protocol),
        (frame(0x8f, b""), Violation::Protocol),
        // Control frames in fragments, or too long.
        (frame(0x09, b""), Violation::Protocol),
        (frame(0x89, &[0; 126]), Violation::Protocol),
        (frame(0x88, &[0; 126]), Violation::Protocol),
        // A continuation of nothing, a new message in the middle of another.
        (frame(0x80, b"x"), Violation::Protocol),
        (frame(0x00, b"x"), Violation::Protocol),
        (
            [frame(0x02, b"x"), frame(0x82, b"y")].concat(),
            Violation::Protocol,
        ),
        (
            [frame(0x02, b"x"), frame(0x81, b"y")].concat(),
            Violation::Protocol,
        ),
        // Lengths in more bytes than they need, or with the top bit.
        (length(&[0xfe, 0, 125]), Violation::Protocol),
        (
            length(&[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            Violation::Protocol,
        ),
        (
            length(&[0xff, 0x80, 0, 0, 0, 0, 1, 0, 0]),
            Violation::Protocol,
        ),
        // Too long, at once and by and by; nothing of it is kept.
        (
            length(&[0xff, 0x7f, 0xff, 0xff, 0xff, 0, 1, 0, 0]),
            Violation::TooLong,
        ),
        (length(&[0xfe, 0x80, 1]), Violation::TooLong),
        (
            [frame(0x02, &vec![0; MAX - 1]), frame(0x80, b"xy")].concat(),
            Violation::TooLong,
        ),
        (frame(0x81, b"\xff"), Violation::NotUtf8),
        (
            [frame(0x01, b"\xe2\x82"), frame(0x80, b"x")].concat(),
            Violation::NotUtf8,
        ),
        // Closes: half a code, one that may not be sent, bad text.
        (frame(0x88, b"\x03"), Violation::Protocol),
        (frame(0x88, &999u16.to_be_bytes()), Violation::Protocol),
        (frame(0x88, &1_004u16.to_be_bytes()), Violation::Protocol),
        (frame(0x88, &1_005u16.to_be_bytes()), Violation::Protocol),
        (frame(0x88, &1_006u16.to_be_bytes()), Violation::Protocol),
        (frame(0x88, &1_015u16.to_be_bytes()), Violation::Protocol),
        (frame(0x88, &2_999u16.to_be_bytes()), Violation::Protocol),
        (frame(0x88, &5_000u16.to_be_bytes()), Violation::Protocol),
        (frame(0x88, b"\x03\xe8\xff"), Violation::NotUtf8),
    ] {
        assert_eq!(of_client(&bytes).1, Some(violation), "{bytes:?}");
    }
}

#[test]
fn a_character_may_be_cut_by_fragments() {
    let bytes = [frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat();
    let (seen, violation) = of_client(&bytes);
    assert_eq!(seen[1], Seen::Message(true, "€".as_bytes().to_vec()));
    assert_eq!(violation, None);
}

#[test]
fn nothing_of_a_frame_that_is_too_long_is_kept() {
    let mut pool = Buffers::default();
    let mut decoder = Decoder::of_client();
    let mut bytes = frame(0x82, &[1; 600]);
    let mut data = &mut bytes[..];
    let refused = decoder.next(&mut data, 512, &mut pool);
    assert_eq!(refused, Err(Violation::TooLong));
    assert_eq!(decoder.message.capacity(), 0);
}

proptest! {
    #[test]
    fn a_message_comes_out_as_it_went_in(
        payload in prop::collection::vec(any::<u8>(), 0..3_000),
        cuts in prop::collection::vec(0usize..3_000, 0..4),
        piece in 1usize..700,
        mask in any::<[u8; 4]>(),
        ping in any::<bool>(),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&at| at <= payload.len()).collect();
        cuts.sort_unstable();
        cuts.push(payload.len());
        let mut bytes = Vec::new();
        let mut at = 0;
        let mut wanted = Vec::new();
        for (index, &end) in cuts.iter().enumerate() {
            let start = bytes.len();
            write_masked(Opcode::Binary, mask, &payload[at..end], &mut bytes);
            let opcode = if index == 0 { Opcode::Binary } else { Opcode::Continuation };
            let last = index + 1 == cuts.len();
            bytes[start] = opcode as u8 | if last { 0x80 } else { 0 };
            if !last {
                wanted.push(Seen::Fragment);
                if ping {
                    write_masked(Opcode::Ping, mask, b"?", &mut bytes);
                    wanted.push(Seen::Ping(b"?".to_vec()));
                }
            }
            at = end;
        }
        wanted.push(Seen::Message(false, payload));
        prop_assert_eq!(decode(Decoder::of_client(), &bytes, piece, MAX), (wanted, None));
    }

    #[test]
    fn mutations_never_panic_and_never_exceed_the_maximum(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        piece in 1usize..400,
    ) {
        let mut bytes = [
            frame(0x02, &payload), frame(0x89, b"p"), frame(0x80, &payload), frame(0x81, b"text"),
        ].concat();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (seen, _) = decode(Decoder::of_client(), &bytes, piece, 400);
        for event in seen {
            if let Seen::Message(_, bytes) = event {
                prop_assert!(bytes.len() <= 400);
            }
        }
    }
}
