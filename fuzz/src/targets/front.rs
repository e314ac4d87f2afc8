//! What cuts streams: frames, WebSocket, HTTP, PROXY headers. However the bytes are cut on their
//! way, the same comes out, and what is kept between two pieces is bounded.

use gateway::front::proxy::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX, ProxyHeader};
use gateway::front::{Front, FrontConfig, Step};
use protocol::buffers::Buffers;
use protocol::limits::{FRAME_HEADER_BYTES, LOGIN_FRAME_BYTES_MAX};
use protocol::reassembly::Reassembly;
use protocol::websocket::client::{ClientEnd, Received};
use protocol::websocket::decoder::{Decoder, Event};
use protocol::websocket::{Opcode, accept, close, write_header, write_masked};

use super::vectors;
use crate::script::{Lines, Script, Way};

/// Pieces that a stream is cut into by these bytes: each says how long one is. The last piece is
/// what is left.
fn cut<'a>(stream: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = stream;
    for &cut in cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

/// Reads the cuts and the stream of an input.
fn read<'a>(script: &mut Script<'a>) -> (&'a [u8], &'a [u8]) {
    let count = usize::from(script.u8() % 32);
    let cuts = script.bytes(count);
    (cuts, script.rest())
}

/// An input of [`read`], whose stream is cut after one byte, after three, and in the middle.
fn cut_seed(head: &[u8], stream: &[u8]) -> Vec<u8> {
    let half = (stream.len() / 2).min(255) as u8;
    Lines::default()
        .raw(head)
        .raw(&[3, 1, 2, half])
        .raw(stream)
        .done()
}

/// A stream of frames.
pub fn reassembly(data: &[u8]) -> u64 {
    let (cuts, stream) = read(&mut Script::new(data));
    let whole = frames_of(&[stream]);
    let cut = frames_of(&cut(stream, cuts));
    assert_eq!(whole, cut, "the cuts made a difference");
    let mut way = Way::default();
    way.count(whole.0.len() as u64);
    way.note(u64::from(whole.1.is_some()));
    way.value()
}

fn frames_of(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<usize>) {
    let (mut reassembly, mut pool) = (Reassembly::default(), Buffers::default());
    let mut frames = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        loop {
            match reassembly.next(&mut rest, LOGIN_FRAME_BYTES_MAX, &mut pool) {
                Ok(Some(frame)) => {
                    assert!((FRAME_HEADER_BYTES..=LOGIN_FRAME_BYTES_MAX).contains(&frame.len()));
                    frames.push(frame.to_vec());
                }
                Ok(None) => break,
                Err(bad) => return (frames, Some(bad.0)),
            }
        }
        assert!(rest.is_empty() && reassembly.pending_bytes() <= LOGIN_FRAME_BYTES_MAX);
    }
    (frames, None)
}

/// The frames of the vectors, one behind the other.
pub fn reassembly_seeds() -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = vectors()
        .into_iter()
        .filter(|bytes| protocol::frame::length(bytes) == Some(bytes.len()))
        .collect();
    let all: Vec<u8> = frames.iter().take(20).flatten().copied().collect();
    let mut seeds = vec![cut_seed(&[], &all)];
    seeds.extend(frames.iter().take(8).map(|frame| cut_seed(&[], frame)));
    seeds
}

/// What a WebSocket brings, of a client or of a server.
pub fn websocket(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let of_client = script.u8() & 1 == 0;
    let (cuts, stream) = read(&mut script);
    let whole = events_of(of_client, &[stream]);
    let pieces = cut(stream, cuts);
    assert_eq!(
        whole,
        events_of(of_client, &pieces),
        "the cuts made a difference"
    );
    if !of_client {
        answers_of(&pieces);
    }
    let mut way = Way::default();
    way.note(u64::from(of_client));
    for event in whole.iter().take(16) {
        way.note(u64::from(event.first().copied().unwrap_or_default()));
    }
    way.value()
}

/// Each event as bytes: its kind, then its content.
fn events_of(of_client: bool, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut decoder = match of_client {
        true => Decoder::of_client(),
        false => Decoder::of_server(),
    };
    let mut pool = Buffers::default();
    let mut events = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        loop {
            let event = match decoder.next(&mut rest, LOGIN_FRAME_BYTES_MAX, &mut pool) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(violation) => {
                    events.push(vec![9, violation as u8]);
                    return events;
                }
            };
            let (kind, content) = match &event {
                Event::Message { text, bytes } => (1 + u8::from(*text), &bytes[..]),
                Event::Fragment => (3, &[][..]),
                Event::Ping(payload) => (4, *payload),
                Event::Pong(_) => (5, &[][..]),
                Event::Close(_) => (6, &[][..]),
            };
            assert!(content.len() <= LOGIN_FRAME_BYTES_MAX);
            events.push([&[kind], content].concat());
            // Nothing may follow a close, and nobody asks for it.
            if matches!(event, Event::Close(_)) {
                return events;
            }
        }
        assert!(rest.is_empty());
    }
    events
}

/// The client's end, which also reads HTTP: what it answers is not longer than what it got.
fn answers_of(pieces: &[&[u8]]) {
    let mut end = ClientEnd::new("localhost", [1; 16]);
    let (mut pool, mut out) = (Buffers::default(), Vec::new());
    end.wrap(&[], &mut out);
    out.clear();
    let mut taken = 0;
    for piece in pieces {
        taken += piece.len();
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        loop {
            match end.next(&mut rest, &mut pool) {
                Ok(Some(Received::Close(_))) | Err(_) => return,
                Ok(Some(_)) => {}
                Ok(None) => break,
            }
        }
        end.wrap(&[], &mut out);
        // A mask and a header for each control frame, of which none has under two bytes.
        assert!(out.len() <= 4 * taken, "{} for {taken}", out.len());
    }
}

/// Messages, fragments, control frames; and for the client's end the answer before them.
pub fn websocket_seeds() -> Vec<Vec<u8>> {
    let frames: [(Opcode, &[u8]); 5] = [
        (Opcode::Binary, &[7; 40]),
        (Opcode::Ping, b"ping"),
        (Opcode::Text, b"text"),
        (Opcode::Pong, b""),
        (Opcode::Close, &close::NORMAL.to_be_bytes()),
    ];
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for (opcode, payload) in frames {
        write_masked(opcode, [1, 2, 3, 4], payload, &mut client);
        write_header(opcode, payload.len(), &mut server);
        server.extend_from_slice(payload);
    }
    // In two fragments.
    client.splice(
        0..0,
        [0x02, 0x82, 0, 0, 0, 0, 1, 2, 0x80, 0x81, 0, 0, 0, 0, 3],
    );
    let mut own = Vec::new();
    ClientEnd::new("localhost", [1; 16]).wrap(&[], &mut own);
    let own = String::from_utf8(own).expect("HTTP");
    let key = own
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .expect("the key");
    let mut upgraded = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept(key.as_bytes())
    )
    .into_bytes();
    upgraded.extend_from_slice(&server);
    vec![
        cut_seed(&[0], &client),
        cut_seed(&[1], &server),
        cut_seed(&[1], &upgraded),
    ]
}

/// The front of a listener: PROXY headers of both versions, the upgrade, and what follows.
pub fn front(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let is_proxied = script.u8() & 1 == 1;
    let (cuts, stream) = read(&mut script);
    let pieces = cut(stream, cuts);
    let mut way = Way::default();
    way.note(u64::from(is_proxied));
    if is_proxied {
        let whole = source_of(&[stream]);
        assert_eq!(whole, source_of(&pieces), "the cuts made a difference");
        way.note(whole.map_or(1, |source| 2 + u64::from(source.is_some())));
        return way.value();
    }
    let (whole, end) = steps_of(&[stream]);
    let (cut, cut_end) = steps_of(&pieces);
    let both = whole.len().min(cut.len());
    assert_eq!(whole[..both], cut[..both], "the cuts made a difference");
    // Of a request that has only begun, more is looked at where it comes in pieces.
    assert!(cut_end.is_some() || end.is_none());
    assert!(end.is_some() || cut_end.is_none() || whole.is_empty());
    way.note(end.map_or(0, |reason| reason as u64));
    for step in whole.iter().take(8) {
        way.note(u64::from(step.first().copied().unwrap_or_default()));
    }
    way.value()
}

type ReadSource = Result<Option<(String, usize)>, ()>;

/// What the header says and how many bytes it has.
fn source_of(pieces: &[&[u8]]) -> ReadSource {
    let mut header = ProxyHeader::default();
    let mut taken = 0;
    for piece in pieces {
        let mut piece = piece.to_vec();
        let length = piece.len();
        let mut rest = &mut piece[..];
        let source = header.take(&mut rest).map_err(|_| ())?;
        taken += length - rest.len();
        assert!(taken <= PROXY_V1_BYTES_MAX.max(PROXY_V2_BYTES_MAX));
        if let Some(source) = source {
            return Ok(Some((format!("{source:?}"), taken)));
        }
        assert!(rest.is_empty());
    }
    Ok(None)
}

/// What a front makes of a request and of what follows it.
fn steps_of(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<protocol::reason::CloseReason>) {
    let config = FrontConfig::default();
    let mut pool = Buffers::default();
    let mut steps = Vec::new();
    let Some(mut front) = Front::of_first_bytes(*b"GET", &[]) else {
        unreachable!("a method of HTTP");
    };
    let mut out = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        loop {
            match front.next(&config, None, &mut rest, LOGIN_FRAME_BYTES_MAX, &mut pool) {
                Ok(Step::Wait) => break,
                Ok(Step::Done(_)) => unreachable!("only a PROXY header is ever done"),
                Ok(Step::Open(_)) => steps.push(vec![1]),
                Ok(Step::Message { text, bytes }) => {
                    assert!(bytes.len() <= LOGIN_FRAME_BYTES_MAX);
                    steps.push([&[2 + u8::from(text)], &bytes[..]].concat());
                }
                Ok(Step::Overhead(_)) => steps.push(vec![4]),
                Err(reason) => {
                    front.wrap(&mut out, true, &mut pool);
                    assert!(out.len() <= 16_384, "{} bytes of answers", out.len());
                    return (steps, Some(reason));
                }
            }
        }
        assert!(rest.is_empty());
        out.clear();
        front.wrap(&mut out, false, &mut pool);
        assert!(out.len() <= 16_384, "{} bytes of answers", out.len());
    }
    (steps, None)
}

/// A request with a message behind it, and headers of PROXY.
pub fn front_seeds() -> Vec<Vec<u8>> {
    let mut request = Vec::new();
    ClientEnd::new("localhost", [1; 16]).wrap(&[], &mut request);
    write_masked(Opcode::Ping, [1, 2, 3, 4], b"ping", &mut request);
    write_masked(Opcode::Binary, [1, 2, 3, 4], &[7; 40], &mut request);
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    v2.extend_from_slice(&[0x21, 0x11, 0, 12 + 4]);
    v2.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0x01, 0xbb]);
    v2.extend_from_slice(&[0x04, 0, 1, 0]);
    let mut v6 = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    v6.extend_from_slice(&[0x21, 0x21, 0, 36]);
    v6.extend_from_slice(&[1; 36]);
    let mut local = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    local.extend_from_slice(&[0x20, 0, 0, 0]);
    vec![
        cut_seed(&[0], &request),
        cut_seed(&[0], b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
        cut_seed(&[1], b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 443\r\nrest"),
        cut_seed(&[1], b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n"),
        cut_seed(&[1], b"PROXY UNKNOWN\r\n"),
        cut_seed(&[1], &v2),
        cut_seed(&[1], &v6),
        cut_seed(&[1], &local),
    ]
}
