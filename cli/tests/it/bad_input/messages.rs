//! Sealed frames whose inside is wrong: bombs, unknown and malformed bodies,
//! groups that do not exist, and more than a connection may send.

use protocol::body::{Body, ChannelHeader, ChannelNotice, Lane, MessageHeader, MessageKind};
use protocol::frame::FLAG_COMPRESSED;
use protocol::ids::{ChannelId, GroupId, MessageId, SessionId};
use protocol::limits::{DECOMPRESSED_BYTES_MAX, DECOMPRESSED_RATIO_MAX};
use protocol::reason::{CloseReason, DropReason};

use super::{with_neighbour, with_settings};
use crate::cluster::GROUP;
use crate::cluster::raw::{Raw, encoded, message, ping};

/// The payload of a compressed message: a declared size and a block.
fn compressed(size: u32, block: &[u8]) -> Vec<u8> {
    [&size.to_le_bytes(), block].concat()
}

/// An LZ4 block of one literal and one endless match: so many bytes of zeros.
fn zeros(length: usize) -> Vec<u8> {
    // Token: 1 literal, match of 15 + …; then the literal, and offset 1.
    let mut block = vec![0x1f, 0, 1, 0];
    // The last 5 bytes are literals by the format's rule, and a match is 4 longer.
    let mut left = length - 1 - 5 - 4 - 15;
    while left >= 255 {
        block.push(255);
        left -= 255;
    }
    block.push(left as u8);
    block.extend([0x50, 0, 0, 0, 0, 0]);
    block
}

#[test]
fn bombs_are_not_unpacked() {
    with_neighbour(|cluster, calm| {
        let largest = DECOMPRESSED_BYTES_MAX as u32;
        let ratio = DECOMPRESSED_RATIO_MAX;
        let bombs = [
            ("nothing", vec![]),
            ("half a size", vec![1, 0]),
            ("4 GiB", compressed(u32::MAX, &[0; 200])),
            ("one above the cap", compressed(largest + 1, &[7; 1_000])),
            ("above the ratio", compressed(largest, &zeros(32_768))),
            (
                "just above the ratio",
                compressed((20 * ratio + 1) as u32, &[7; 20]),
            ),
            ("a size without a block", compressed(1, &[])),
            ("more than declared", compressed(500, &zeros(1_000))),
            ("less than declared", compressed(800, &zeros(700))),
            (
                "a match before the start",
                compressed(100, &[0x0f, 9, 0, 80, 0x50, 1, 2, 3, 4, 5]),
            ),
            ("no block at all", compressed(300, &[0xff; 100])),
        ];
        for (what, payload) in &bombs {
            let mut raw = Raw::logged_in(cluster, what);
            let body = raw.request(payload);
            let frame = raw.seal(FLAG_COMPRESSED, &body);
            raw.send(&frame);
            raw.expect_close(CloseReason::BadCompression);
            calm.closed(CloseReason::BadCompression, 1);
        }
        // One that keeps to the rules is no bomb.
        let mut raw = Raw::logged_in(cluster, "honest zeros");
        let body = raw.request(&compressed(600, &zeros(600)));
        let frame = raw.seal(FLAG_COMPRESSED, &body);
        raw.send(&frame);
        raw.expect_echo(MessageKind::Reply, &[0; 600]);
        // A kind without a payload has nothing to unpack.
        let frame = raw.seal(FLAG_COMPRESSED, &encoded(&ping(1)));
        raw.send(&frame);
        raw.expect_close(CloseReason::BadBody);
        calm.closed(CloseReason::BadBody, 1);
    });
}

#[test]
fn however_many_bombs_come_none_takes_memory() {
    /// At once; each declares up to 4 GiB.
    const BOMBS: usize = 40;
    with_neighbour(|cluster, calm| {
        // A first one, so that the buffers of a client's life are there already.
        let mut first = Raw::logged_in(cluster, "first");
        first.round_trip(&[1; 30_000]);
        let mut raws: Vec<_> = (0..BOMBS)
            .map(|index| Raw::logged_in(cluster, &format!("bomber-{index}")))
            .collect();
        let before_bytes = cluster.gateway.rss_bytes();
        cluster.gateway.forget_peak();
        for (index, raw) in raws.iter_mut().enumerate() {
            // One from each of what is checked: what is declared, the ratio, what comes out.
            let payload = match index % 4 {
                0 => compressed(u32::MAX, &[0; 200]),
                1 => compressed(1 << 30, &zeros(32_768)),
                2 => compressed(DECOMPRESSED_BYTES_MAX as u32, &zeros(32_768)),
                // Its block goes on for 8 MB behind what it declares.
                _ => compressed(30_000, &zeros(8_000_000)),
            };
            let body = raw.request(&payload);
            let frame = raw.seal(FLAG_COMPRESSED, &body);
            raw.send(&frame);
        }
        for mut raw in raws {
            raw.expect_close(CloseReason::BadCompression);
            calm.closed(CloseReason::BadCompression, 1);
        }
        let peak_bytes = cluster.gateway.rss_bytes_peak();
        println!("{before_bytes} bytes before, {peak_bytes} at most");
        // Frames and the ring's receive buffers; a single bomb unpacked were more.
        let allowed_bytes = before_bytes + (7 << 20);
        assert!(
            peak_bytes <= allowed_bytes,
            "{peak_bytes} > {allowed_bytes}"
        );
        first.logout();
        calm.closed(CloseReason::LoggedOut, 1);
    });
}

#[test]
fn unknown_flags_end_the_connection() {
    with_neighbour(|cluster, calm| {
        for bit in 3..8 {
            // Sealed with the flag, so that nothing but the flag is wrong.
            let mut raw = Raw::logged_in(cluster, &format!("flag-{bit}"));
            let frame = raw.seal(1 << bit, &encoded(&ping(1)));
            raw.send(&frame);
            raw.expect_close(CloseReason::BadFlags);
            calm.closed(CloseReason::BadFlags, 1);
        }
    });
}

#[test]
fn unknown_kinds_and_groups_are_dropped_and_the_session_goes_on() {
    with_neighbour(|cluster, calm| {
        let mut raw = Raw::logged_in(cluster, "curious");
        let not_a_clients = [
            Body::LoginOk {
                session: SessionId(1),
                unix_ms: 1,
            },
            Body::GroupDown { group: GROUP },
            Body::Credit {
                group: GROUP,
                bytes: 1,
            },
            Body::Side {
                cid: protocol::datagram::Cid(1),
                secret: &[1; 32],
            },
            Body::Channel {
                group: GROUP,
                channel: ChannelId(1),
                notice: ChannelNotice::Left,
            },
            Body::ChannelMessage {
                header: ChannelHeader {
                    lane: Lane::Reliable,
                    group: GROUP,
                    number: 1,
                    channel: ChannelId(1),
                    message: MessageId(1),
                },
                payload: b"forged",
            },
        ];
        let mut unknown: Vec<Vec<u8>> = not_a_clients.iter().map(encoded).collect();
        for kind in [MessageKind::Reply, MessageKind::Error] {
            unknown.push(message(kind, Lane::Reliable, 1, 0, b"\x01\x00not mine"));
        }
        for kind in [0, 21, 99, 255] {
            unknown.push([&[kind][..], b"whatever"].concat());
        }
        for body in &unknown {
            let frame = raw.seal(0, body);
            raw.send(&frame);
        }
        calm.dropped(DropReason::UnknownKind, unknown.len() as u64);
        raw.round_trip(b"still here");

        for group in [0, 2, u16::MAX] {
            let header = MessageHeader {
                kind: MessageKind::Request,
                lane: Lane::Reliable,
                more: false,
                group: GroupId(group),
                number: 1,
                ack: 0,
                message: MessageId(1),
                request: 1,
            };
            let payload = b"anybody?";
            raw.send_body(&Body::Message { header, payload });
            raw.send_body(&Body::Ack {
                group: GroupId(group),
                ack: 5,
            });
        }
        calm.dropped(DropReason::UnknownGroup, 6);
        raw.round_trip(b"and still");
        raw.logout();
        calm.closed(CloseReason::LoggedOut, 1);
    });
}

#[test]
fn malformed_bodies_end_the_session() {
    let bodies: &[(&str, &[u8])] = &[
        ("a PING cut short", &[5, 0, 1, 2, 3]),
        (
            "a PING too long",
            &[
                5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        ("a reserved byte", &[8, 1, 1, 0, 1, 0, 0, 0]),
        ("a LOGOUT with more", &[3, 0]),
        (
            "a lane that is none",
            &[16, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ),
        (
            "an undefined bit",
            &[16, 8, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ),
        (
            "MORE on a message",
            &[16, 4, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ),
        (
            "a header cut short",
            &[16, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        ),
        (
            "a SYNC with a flag",
            &[7, 2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        ),
        ("a CLOSE of no text", &[4, 0, 46, 0, 0, 0, 0, 0, 0xff, 0xfe]),
    ];
    with_neighbour(|cluster, calm| {
        for (what, body) in bodies {
            let mut raw = Raw::logged_in(cluster, what);
            let frame = raw.seal(0, body);
            raw.send(&frame);
            raw.expect_close(CloseReason::BadBody);
            calm.closed(CloseReason::BadBody, 1);
        }
    });
}

#[test]
fn what_comes_above_the_rate_is_lost_where_it_may_be_else_slowed_then_closed() {
    // So few at once that what one read brings is far above.
    let settings = &["limits.frames_per_second=120", "limits.frames_burst=40"];
    with_settings(settings, |cluster, calm| {
        let mut raw = Raw::logged_in(cluster, "hasty");
        let body = message(MessageKind::Message, Lane::Unreliable, 0, 0, b"x");
        let mut burst = Vec::new();
        for _ in 0..70 {
            burst.extend(raw.seal(0, &body));
        }
        raw.send(&burst);
        calm.tolerate(DropReason::RateUnreliable);
        raw.round_trip_after(MessageKind::Message, b"patient");
        let lost = cluster.metrics("gateway").drops(DropReason::RateUnreliable);
        // 40 at once, of which HELLO, LOGIN and SYNC were three; more while it waits.
        assert!((1..=33).contains(&lost), "{lost} of 70");
        let pauses = "sallyport_gateway_rate_pauses_total";
        assert!(
            cluster.metrics("gateway").value(pauses) > 0,
            "it was slowed"
        );
        raw.logout();
        calm.closed(CloseReason::LoggedOut, 1);

        // Whoever is told to wait and goes on is sent away.
        let mut raw = Raw::logged_in(cluster, "unstoppable");
        // The shortest frames there are, or a read would bring too few of them.
        let ack = encoded(&Body::Ack {
            group: GROUP,
            ack: 0,
        });
        let mut burst = Vec::new();
        for _ in 0..300 {
            burst.extend(raw.seal(0, &ack));
        }
        calm.tolerate(DropReason::AfterClose);
        raw.send(&burst);
        raw.expect_close(CloseReason::RateExceeded);
        calm.closed(CloseReason::RateExceeded, 1);
    });
}
