//! Bytes that are no frames, or not whole ones, or too long.

use std::net::Shutdown;

use protocol::body::Body;
use protocol::frame::{self, FLAG_HANDSHAKE, Header};
use protocol::limits::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, HELLO_FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX,
};
use protocol::reason::CloseReason;

use super::with_neighbour;
use crate::cluster::raw::{Raw, encoded};

/// Bytes that look like nothing, the same in each run (SplitMix64).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A handshake frame with a good CRC around any body.
fn handshake_frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode_handshake(7, body, &mut out);
    out
}

/// The first three bytes of a frame.
fn with_length(length: usize, mut rest: Vec<u8>) -> Vec<u8> {
    rest[..3].copy_from_slice(&length.to_le_bytes()[..3]);
    rest
}

#[test]
fn garbage_instead_of_a_hello_is_rejected_by_its_first_fault() {
    with_neighbour(|cluster, calm| {
        let mut refused = |bytes: &[u8], reason| {
            let mut raw = Raw::connect(cluster);
            raw.send(bytes);
            raw.expect_reject(reason);
            calm.closed(reason, 1);
        };
        for seed in 0..50 {
            let mut bytes = noise(seed, 200);
            // One in 30,000 would be a legal length.
            bytes[2] |= 1;
            refused(&bytes, CloseReason::BadLength);
            // Now as if it were a frame, but for its flags …
            let mut bytes = with_length(200, bytes);
            bytes[3] = FLAG_HANDSHAKE << 1;
            refused(&bytes, CloseReason::BadFlags);
            // … its CRC …
            bytes[3] = FLAG_HANDSHAKE;
            bytes[4..8].fill(0);
            refused(&bytes, CloseReason::BadCrc);
            // … its version …
            frame::write_crc(&mut bytes);
            bytes[17] = 0xee;
            frame::write_crc(&mut bytes);
            refused(&bytes, CloseReason::BadVersion);
            // … and its message.
            bytes[16..20].copy_from_slice(&[1, 1, 0, 0]);
            frame::write_crc(&mut bytes);
            refused(&bytes, CloseReason::BadHandshake);
            // Of the right size, but no Noise.
            let mut body = vec![1, 1, 0, 0];
            body.extend(noise(seed, 48));
            refused(&handshake_frame(&body), CloseReason::BadHandshake);
        }
        refused(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            CloseReason::BadLength,
        );
    });
}

#[test]
fn garbage_in_a_session_is_told_by_its_first_fault() {
    with_neighbour(|cluster, calm| {
        for (seed, reason) in [
            CloseReason::BadLength,
            CloseReason::BadFlags,
            CloseReason::BadCrc,
            CloseReason::BadSeal,
        ]
        .into_iter()
        .enumerate()
        {
            let mut raw = Raw::logged_in(cluster, &format!("noise-{seed}"));
            let mut bytes = with_length(100, noise(seed as u64, 100));
            match reason {
                CloseReason::BadLength => bytes[2] = 0xff,
                CloseReason::BadFlags => bytes[3] = 0xf0,
                CloseReason::BadCrc => bytes[3] = 0,
                _ => {
                    bytes[3] = 0;
                    frame::write_crc(&mut bytes);
                }
            }
            raw.send(&bytes);
            raw.expect_close(reason);
            calm.closed(reason, 1);
        }
    });
}

#[test]
fn frames_that_are_cut_off_end_with_their_connection() {
    with_neighbour(|cluster, calm| {
        // A HELLO cut at each of its bytes, then the end of the stream.
        let (_, hello) = Raw::connect(cluster).hello(&cluster.gateway_key);
        calm.closed(CloseReason::PeerClosed, 1);
        for length in 0..hello.len() {
            let mut raw = Raw::connect(cluster);
            raw.send(&hello[..length]);
            raw.finish();
            raw.expect_end();
            calm.closed(CloseReason::PeerClosed, 1);
        }
        // A request cut in its header, in its body, and before its last byte.
        for (index, cut) in [3, FRAME_HEADER_BYTES, 40, 89].into_iter().enumerate() {
            let mut raw = Raw::logged_in(cluster, &format!("cut-{index}"));
            raw.round_trip(b"whole");
            let body = raw.request(&[7; 40]);
            let frame = raw.seal(0, &body);
            assert_eq!(frame.len(), 90);
            raw.send(&frame[..cut]);
            raw.finish();
            raw.expect_end();
            calm.closed(CloseReason::PeerClosed, 1);
        }
        // The same without a farewell: the whole socket goes.
        let mut raw = Raw::logged_in(cluster, "gone");
        let body = raw.request(b"never");
        let frame = raw.seal(0, &body);
        raw.send(&frame[..20]);
        raw.stream.shutdown(Shutdown::Both).expect("a socket");
        calm.closed(CloseReason::PeerClosed, 1);
    });
}

#[test]
fn lengths_outside_their_bounds_are_refused_before_the_frame_is_there() {
    // Only a header is sent: a gateway that waited for the rest would not answer.
    let header = |length: usize, flags| {
        Header {
            length: length as u32,
            flags,
            sequence: 0,
            timestamp_ms: 0,
            crc: 0,
        }
        .encode()
    };
    with_neighbour(|cluster, calm| {
        for length in [
            0,
            FRAME_HEADER_BYTES - 1,
            HELLO_FRAME_BYTES_MAX + 1,
            FRAME_BYTES_MAX,
            (1 << 24) - 1,
        ] {
            let mut raw = Raw::connect(cluster);
            raw.send(&header(length, FLAG_HANDSHAKE));
            raw.expect_reject(CloseReason::BadLength);
            calm.closed(CloseReason::BadLength, 1);
        }
        for length in [0, 15, 16, 32, LOGIN_FRAME_BYTES_MAX + 1, (1 << 24) - 1] {
            let mut raw = Raw::greeted(cluster);
            raw.send(&header(length, 0)[..length.clamp(3, 16)]);
            // From 16 on the whole frame is needed to see that it is too short.
            raw.send(&vec![0; if length == 32 { 16 } else { 0 }]);
            raw.expect_close(CloseReason::BadLength);
            calm.closed(CloseReason::BadLength, 1);
        }
        for length in [32, FRAME_BYTES_MAX + 1, (1 << 24) - 1] {
            let mut raw = Raw::logged_in(cluster, &format!("length-{length}"));
            raw.send(&header(length, 0));
            raw.send(&vec![0; if length == 32 { 16 } else { 0 }]);
            raw.expect_close(CloseReason::BadLength);
            calm.closed(CloseReason::BadLength, 1);
        }
        // The largest frame of all is none of these.
        let mut raw = Raw::logged_in(cluster, "largest");
        let payload = noise(1, protocol::limits::PAYLOAD_BYTES_MAX);
        let body = raw.request(&payload);
        let frame = raw.seal(0, &body);
        assert_eq!(frame.len(), FRAME_BYTES_MAX);
        raw.send(&frame);
        raw.expect_echo(protocol::body::MessageKind::Reply, &payload);
        raw.send_body(&Body::Logout);
        raw.expect_close(CloseReason::LoggedOut);
        calm.closed(CloseReason::LoggedOut, 1);
        assert_eq!(encoded(&Body::Logout), [3]);
    });
}
