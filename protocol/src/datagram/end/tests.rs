//! Two ends that talk in datagrams.

use super::*;
use crate::body::{Body, Lane, MessageHeader, MessageKind};
use crate::datagram::split;
use crate::ids::{GroupId, MessageId};
use crate::limits::FRAME_BYTES_MAX;
use crate::testing::Random;

fn ends() -> [End; 2] {
    let (client, gateway) = (Key([1; 32]), Key([2; 32]));
    let policy = RekeyPolicy { frames: 16 };
    let make = |seal: &Key, open: &Key| {
        let mut end = End::new(
            Cid::new(3, 0x1234_5678_9abc_def0),
            seal.clone(),
            open.clone(),
            policy,
            None,
            FRAME_BYTES_MAX,
            Time(0),
        );
        end.open_window(FRAME_BYTES_MAX);
        end
    };
    [make(&client, &gateway), make(&gateway, &client)]
}

fn message(lane: Lane, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = MessageHeader {
        kind: MessageKind::Message,
        lane,
        more: false,
        group: GroupId(1),
        number: 1,
        ack: 0,
        message: MessageId(2),
        request: 0,
    };
    Body::Message { header, payload }.encode(&mut out);
    out
}

/// One datagram from one end to the other; the bodies in it.
fn carry(from: &mut End, to: &mut End, now: Time) -> Option<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    if !from.write(now, DATAGRAM_BYTES_MAX, &mut out) {
        return None;
    }
    assert!(out.len() <= DATAGRAM_BYTES_MAX);
    let (cid, frame) = split(&mut out).expect("a datagram");
    assert_eq!(cid.shard(), 3);
    let opened = to.open(now, frame).expect("good");
    let mut bodies = Vec::new();
    for chunk in chunk::Chunks::new(opened.body) {
        match chunk.expect("ours") {
            Chunk::Body { bytes, .. } => bodies.push(bytes.to_vec()),
            Chunk::Data {
                flags,
                number,
                bytes,
            } => {
                if to.receive(now, flags, number, bytes) == Received::Message {
                    bodies.push(bytes.to_vec());
                }
                while let Some(message) = to.poll_message() {
                    bodies.push(message.expect("short").1);
                }
            }
            Chunk::Ack(ack) => to.handle_ack(now, &ack),
            Chunk::Challenge(token) => to.handle_challenge(token),
            Chunk::Response(_) | Chunk::NewCid(_) | Chunk::Padding(_) => {}
        }
    }
    Some(bodies)
}

#[test]
fn each_lane_goes_its_way() {
    let [mut client, mut gateway] = ends();
    let now = Time(0);
    let unreliable = message(Lane::Unreliable, b"here I am");
    let reliable = message(Lane::Reliable, b"an order");
    let long = message(Lane::Unreliable, &[9; 3_000]);
    for body in [&unreliable, &reliable, &long] {
        client.push(0, &[body]);
    }
    let mut bodies = Vec::new();
    while let Some(more) = carry(&mut client, &mut gateway, now) {
        bodies.extend(more);
    }
    assert_eq!(bodies, [unreliable, reliable, long]);
    assert!(
        client.queued_bytes() > 3_000,
        "it may have to be sent again"
    );
    while carry(&mut gateway, &mut client, now).is_some() {}
    assert_eq!(client.queued_bytes(), 0);
}

#[test]
fn what_waits_is_cut_into_datagrams_that_fit() {
    let [mut client, mut gateway] = ends();
    let mut random = Random(5);
    let mut wanted = [0; 2];
    for _ in 0..500 {
        let lane = if random.below(2) == 0 {
            Lane::Reliable
        } else {
            Lane::Sequenced
        };
        let payload = vec![1; random.below(1_400) as usize];
        client.push(0, &[&message(lane, &payload)]);
        wanted[0] += 1;
    }
    let mut now = Time(0);
    for _ in 0..10_000 {
        while let Some(bodies) = carry(&mut client, &mut gateway, now) {
            wanted[1] += bodies.len();
        }
        while carry(&mut gateway, &mut client, now).is_some() {}
        now = now.after_ms(30);
    }
    assert_eq!(wanted[0], wanted[1]);
    assert_eq!((client.queued_bytes(), gateway.missing()), (0, 0));
}

#[test]
fn a_challenge_leaves_by_itself_when_it_is_told_to_and_else_with_what_leaves() {
    let [mut client, _] = ends();
    let write = |client: &mut End| {
        let mut out = Vec::new();
        client
            .write(Time(0), DATAGRAM_BYTES_MAX, &mut out)
            .then_some(out.len())
    };
    client.ask();
    assert_eq!(write(&mut client), None, "none is set");
    client.set_challenge(Some([7; 8]));
    client.pad();
    assert_eq!(write(&mut client), Some(DATAGRAM_BYTES_MAX));
    assert_eq!(write(&mut client), None);
    client.ask();
    let asks = write(&mut client).expect("a challenge");
    assert_eq!(asks, ENVELOPE_BYTES + SHORT_BYTES);
    client.push(0, &[&message(Lane::Unreliable, b"x")]);
    let both = write(&mut client).expect("a message");
    client.set_challenge(None);
    client.push(0, &[&message(Lane::Unreliable, b"x")]);
    assert_eq!(write(&mut client), Some(both - SHORT_BYTES));
}

#[test]
fn an_address_in_doubt_gets_no_more_than_it_may() {
    let [_, mut gateway] = ends();
    gateway.set_challenge(Some([7; 8]));
    gateway.push(0, &[&message(Lane::Reliable, &[1; 500])]);
    for bytes_max in 0..300 {
        let mut out = Vec::new();
        gateway.ask();
        let wrote = gateway.write(Time(0), bytes_max, &mut out);
        assert!(out.len() <= bytes_max);
        assert_eq!(wrote, !out.is_empty());
        if bytes_max >= 56 {
            assert!(wrote, "{bytes_max}");
        }
    }
}

#[test]
fn a_broken_datagram_is_dropped_with_its_reason_and_moves_nothing() {
    let [mut client, mut gateway] = ends();
    client.push(0, &[&message(Lane::Reliable, b"x")]);
    let mut out = Vec::new();
    assert!(client.write(Time(0), DATAGRAM_BYTES_MAX, &mut out));
    let broken = |at: usize, bit: u8| {
        let mut bytes = out.clone();
        bytes[at] ^= bit;
        bytes
    };
    let mut judge = |mut bytes: Vec<u8>| {
        let (_, frame) = split(&mut bytes).expect("long enough");
        gateway.open(Time(0), frame).map(|opened| opened.newest)
    };
    assert_eq!(judge(broken(8, 1)), Err(DropReason::DatagramMalformed));
    assert_eq!(judge(broken(11, 1)), Err(DropReason::DatagramMalformed));
    assert_eq!(judge(broken(11, 2)), Err(DropReason::DatagramMalformed));
    assert_eq!(judge(broken(20, 1)), Err(DropReason::DatagramCrc));
    assert_eq!(judge(broken(40, 1)), Err(DropReason::DatagramCrc));
    let mut forged = broken(40, 1);
    frame::write_crc(&mut forged[CID_BYTES..]);
    assert_eq!(judge(forged), Err(DropReason::DatagramSeal));
    // The id lies outside of what is sealed: it may change without the sender.
    assert_eq!(judge(broken(3, 1)), Ok(true));
    assert_eq!(judge(out.clone()), Err(DropReason::DatagramRepeated));
    assert_eq!(split(&mut [0; 7]), None);
    assert_eq!(split(&mut [0xff; 100]), None);
    assert_eq!(split(&mut [0; DATAGRAM_BYTES_MAX + 1]), None);
}

#[test]
fn a_datagram_that_would_be_empty_is_none() {
    for lane in [Lane::Unreliable, Lane::Reliable] {
        let [mut client, mut gateway] = ends();
        let now = Time(0);
        client.push(0, &[&message(lane, &[9; 900])]);
        let mut out = Vec::new();
        assert!(!client.write(now, 640, &mut out), "it does not fit");
        assert!(out.is_empty());
        assert_eq!(
            carry(&mut client, &mut gateway, now).map(|bodies| bodies.len()),
            Some(1)
        );
        // No sequence was used up by the one that was not written.
        assert_eq!((gateway.expected(), gateway.missing()), (1, 0));
    }
}
