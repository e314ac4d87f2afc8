//! Frames that were changed on their way, or come again, too early, too late.

use protocol::body::{Body, Lane, MessageKind};
use protocol::frame::{self, FLAG_HANDSHAKE, FLAGS_KNOWN};
use protocol::limits::{
    FRAME_HEADER_BYTES, HELLO_FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX, SEALED_FRAME_BYTES_MIN,
    TAG_BYTES,
};
use protocol::reason::CloseReason;

use super::with_neighbour;
use crate::cluster::raw::{Raw, encoded, message, ping};

/// The frame with one bit flipped, and so long that its length field is right
/// again where that has grown: what is missing comes as zeros.
fn flipped(frame: &[u8], bit: usize, length_max: usize) -> Vec<u8> {
    let mut bad = frame.to_vec();
    bad[bit / 8] ^= 1 << (bit % 8);
    let length = frame::length(&bad).expect("three bytes");
    if (bad.len()..=length_max).contains(&length) {
        bad.resize(length, 0);
    }
    bad
}

/// Makes the CRC right again, over as much as the length field says.
fn with_crc(mut frame: Vec<u8>) -> Vec<u8> {
    let length = frame::length(&frame).expect("three bytes").min(frame.len());
    if length >= FRAME_HEADER_BYTES {
        frame::write_crc(&mut frame[..length]);
    }
    frame
}

/// What a length field is found to be at once, if anything.
fn bad_length(frame: &[u8], min: usize, max: usize) -> bool {
    let length = frame::length(frame).expect("three bytes");
    !(min..=max).contains(&length)
}

#[test]
fn every_flipped_bit_of_a_hello_is_found() {
    with_neighbour(|cluster, calm| {
        let mut refused = |bytes: &[u8], reason| {
            let mut raw = Raw::connect(cluster);
            raw.send(bytes);
            raw.expect_reject(reason);
            calm.closed(reason, 1);
        };
        let (_, hello) = Raw::connect(cluster).hello(&cluster.gateway_key);
        for bit in 0..hello.len() * 8 {
            let bad = flipped(&hello, bit, HELLO_FRAME_BYTES_MAX);
            let is_bad_length = bad_length(&bad, 20, HELLO_FRAME_BYTES_MAX);
            let (by_noise, with_good_crc) = match bit / 8 {
                _ if is_bad_length => (CloseReason::BadLength, CloseReason::BadLength),
                3..8 => (CloseReason::BadFlags, CloseReason::BadFlags),
                17 => (CloseReason::BadCrc, CloseReason::BadVersion),
                _ => (CloseReason::BadCrc, CloseReason::BadHandshake),
            };
            refused(&bad, by_noise);
            // Somebody on the way can make the CRC right, but not the rest.
            if !(12..16).contains(&(bit / 8)) {
                refused(&with_crc(bad), with_good_crc);
            }
        }
        calm.closed(CloseReason::PeerClosed, 1);
    });
}

#[test]
fn every_flipped_bit_of_a_sealed_frame_is_found() {
    with_neighbour(|cluster, calm| {
        let body = encoded(&Body::Logout);
        let bits = (FRAME_HEADER_BYTES + body.len() + TAG_BYTES) * 8;
        for bit in 0..bits {
            for crc_is_good in [false, true] {
                let byte = bit / 8;
                if crc_is_good && (12..16).contains(&byte) {
                    continue;
                }
                let mut raw = Raw::greeted(cluster);
                let good = raw.seal(0, &body);
                let mut bad = flipped(&good, bit, LOGIN_FRAME_BYTES_MAX);
                let flags = bad[3];
                if crc_is_good {
                    bad = with_crc(bad);
                }
                let reason = if bad_length(&bad, SEALED_FRAME_BYTES_MIN, LOGIN_FRAME_BYTES_MAX) {
                    CloseReason::BadLength
                } else if flags & FLAG_HANDSHAKE != 0 || flags & !FLAGS_KNOWN != 0 {
                    CloseReason::BadFlags
                } else if crc_is_good {
                    CloseReason::BadSeal
                } else {
                    CloseReason::BadCrc
                };
                raw.send(&bad);
                raw.expect_close(reason);
                calm.closed(reason, 1);
            }
        }
    });
}

#[test]
fn a_flipped_bit_in_each_part_of_a_request_ends_the_session_with_its_reason() {
    with_neighbour(|cluster, calm| {
        let parts = [
            ("length", 16, CloseReason::BadLength, CloseReason::BadLength),
            ("flags", 3 * 8, CloseReason::BadFlags, CloseReason::BadFlags),
            (
                "phase",
                3 * 8 + 2,
                CloseReason::BadCrc,
                CloseReason::BadSeal,
            ),
            ("sequence", 4 * 8, CloseReason::BadCrc, CloseReason::BadSeal),
            (
                "timestamp",
                8 * 8,
                CloseReason::BadCrc,
                CloseReason::BadSeal,
            ),
            ("crc", 12 * 8, CloseReason::BadCrc, CloseReason::BadCrc),
            ("kind", 16 * 8, CloseReason::BadCrc, CloseReason::BadSeal),
            ("payload", 36 * 8, CloseReason::BadCrc, CloseReason::BadSeal),
            ("tag", 60 * 8, CloseReason::BadCrc, CloseReason::BadSeal),
        ];
        for (part, bit, by_noise, by_hand) in parts {
            for (crc_is_good, reason) in [(false, by_noise), (true, by_hand)] {
                let mut raw = Raw::logged_in(cluster, &format!("{part}-{crc_is_good}"));
                raw.round_trip(b"before");
                let body = raw.request(b"a payload of some bytes");
                let mut bad = raw.seal(0, &body);
                bad[bit / 8] ^= 1 << (bit % 8);
                if crc_is_good && part != "crc" {
                    bad = with_crc(bad);
                }
                raw.send(&bad);
                raw.expect_close(reason);
                calm.closed(reason, 1);
            }
        }
    });
}

#[test]
fn repeated_skipped_and_old_sequences_end_the_session() {
    with_neighbour(|cluster, calm| {
        let mut ends = |raw: &mut Raw, frame: &[u8], reason| {
            raw.send(frame);
            raw.expect_close(reason);
            calm.closed(reason, 1);
        };
        let mut raw = Raw::logged_in(cluster, "repeats");
        let body = raw.request(b"once");
        let frame = raw.seal(0, &body);
        raw.send(&frame);
        raw.expect_echo(MessageKind::Reply, b"once");
        ends(&mut raw, &frame, CloseReason::SequenceRepeated);

        let mut raw = Raw::logged_in(cluster, "skips");
        let _never_sent = raw.seal(0, &encoded(&ping(1)));
        let next = raw.seal(0, &encoded(&ping(2)));
        ends(&mut raw, &next, CloseReason::SequenceSkipped);

        let mut raw = Raw::logged_in(cluster, "old");
        let old = raw.seal(0, &encoded(&ping(1)));
        raw.send(&old);
        for round in 0..20_u8 {
            raw.round_trip(&[round]);
        }
        ends(&mut raw, &old, CloseReason::SequenceRepeated);

        // Before login and in the other lanes it is no different.
        let mut raw = Raw::greeted(cluster);
        let frame = raw.seal(0, &encoded(&ping(1)));
        raw.send(&frame);
        raw.expect(
            "PONG",
            |body| matches!(body, Body::Pong(pong) if pong.stamp == 1),
        );
        ends(&mut raw, &frame, CloseReason::SequenceRepeated);

        let mut raw = Raw::logged_in(cluster, "unreliable");
        let body = message(MessageKind::Message, Lane::Unreliable, 0, 0, b"x");
        let _never_sent = raw.seal(0, &body);
        let next = raw.seal(0, &body);
        ends(&mut raw, &next, CloseReason::SequenceSkipped);

        // A frame of another connection fits nowhere.
        let mut other = Raw::logged_in(cluster, "other");
        let foreign = other.seal(0, &encoded(&ping(1)));
        let mut raw = Raw::logged_in(cluster, "own");
        ends(&mut raw, &foreign, CloseReason::BadSeal);
        drop(other);
        calm.closed(CloseReason::PeerClosed, 1);
    });
}
