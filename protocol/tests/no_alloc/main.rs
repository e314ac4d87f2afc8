//! In steady state nothing on the way of a frame allocates. A binary of its own
//! with one test, because the counting allocator sees every thread.

use std::alloc::System;

use protocol::body::{Body, Lane, MessageHeader, MessageKind};
use protocol::buffers::Buffers;
use protocol::check::{self, ClockOffset};
use protocol::cipher::{Key, Opener, RekeyPolicy, Sealer};
use protocol::client::{Client, ClientConfig, Event, Shared};
use protocol::compress::Scratch;
use protocol::frame::Header;
use protocol::handshake::{Parameters, StaticKey, respond};
use protocol::ids::{GroupId, Incarnation, MessageId, SessionId};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::reassembly::Reassembly;
use protocol::stream::{Delivery, OutboxLimits, StreamEnd};
use protocol::time::Time;
use protocol::uplink::{self, Record};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GROUP: GroupId = GroupId(1);
const WARM_UP: u32 = 200;
const ROUNDS: u32 = 5_000;

/// Runs a round until it is warm, then counts.
fn assert_no_allocation(what: &str, mut round: impl FnMut()) {
    for _ in 0..WARM_UP {
        round();
    }
    let region = Region::new(GLOBAL);
    for _ in 0..ROUNDS {
        round();
    }
    let change = region.change();
    assert_eq!(
        (
            change.allocations,
            change.reallocations,
            change.deallocations
        ),
        (0, 0, 0),
        "{what}: in {ROUNDS} rounds"
    );
}

#[test]
fn a_frame_allocates_nothing() {
    // The counter counts at all.
    let region = Region::new(GLOBAL);
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(region.change().allocations, 1);

    frames_whole_and_cut();
    payloads();
    bombs();
    streams();
    records();
    a_client();
}

fn header(kind: MessageKind) -> MessageHeader {
    MessageHeader {
        kind,
        lane: Lane::Reliable,
        more: false,
        group: GROUP,
        number: 0,
        ack: 0,
        message: MessageId(1),
        request: 0,
    }
}

fn frames_whole_and_cut() {
    let key = Key([1; 32]);
    let now = Time(1_000_000);
    let mut sealer = Sealer::new(key.clone(), now, RekeyPolicy { frames: 100 });
    let mut opener = Opener::new(key);
    let mut clock = ClockOffset::new(now.wire_ms(), now);
    let (mut reassembly, mut pool) = (Reassembly::default(), Buffers::default());
    let mut bytes = Vec::new();
    let mut round_number = 0_usize;
    assert_no_allocation("sealing, reassembling and opening", || {
        bytes.clear();
        for _ in 0..3 {
            sealer.seal(now, 0, &mut bytes, |out| {
                let header = header(MessageKind::Message);
                Body::Message {
                    header,
                    payload: &[7; 100],
                }
                .encode(out);
            });
        }
        round_number += 1;
        let (first, second) = bytes.split_at_mut(round_number % 300);
        let mut opened = 0;
        for mut data in [first, second] {
            while let Ok(Some(frame)) = reassembly.next(&mut data, FRAME_BYTES_MAX, &mut pool) {
                let frame = check::open(frame, &mut opener, &mut clock, now).unwrap();
                assert!(matches!(Body::decode(frame.body), Ok(Body::Message { .. })));
                opened += 1;
            }
        }
        assert_eq!(opened, 3);
    });
}

fn payloads() {
    let mut scratch = Scratch::default();
    let payload = b"a payload that is worth its compression, ".repeat(30);
    let mut shorter = Vec::with_capacity(payload.len());
    assert_no_allocation("compressing and decompressing", || {
        shorter.clear();
        shorter.extend_from_slice(scratch.compress(&payload).unwrap());
        assert_eq!(scratch.decompress(&shorter), Ok(payload.as_slice()));
    });
}

fn bombs() {
    let mut scratch = Scratch::default();
    let mut bomb = [0xff; 1_000];
    assert_no_allocation("refusing bombs", || {
        for size in [u32::MAX, 1 << 30, 32_769, 32_768, 3] {
            bomb[..4].copy_from_slice(&size.to_le_bytes());
            assert!(scratch.decompress(&bomb).is_err());
        }
    });
}

fn agreed() -> (StreamEnd, StreamEnd) {
    let mut client = StreamEnd::client(GROUP);
    let mut backend = StreamEnd::backend(GROUP, Incarnation(1));
    backend.attach();
    assert!(client.handle_sync(&backend.poll_sync().unwrap()));
    assert!(backend.handle_sync(&client.poll_sync().unwrap()));
    (client, backend)
}

fn streams() {
    let (mut client, mut backend) = agreed();
    let now = Time(5);
    assert_no_allocation("a message there and its answer back", || {
        let limits = OutboxLimits::default();
        client
            .push(header(MessageKind::Request), &[1; 100], limits)
            .unwrap();
        carry(&mut client, &mut backend, now);
        backend
            .push(header(MessageKind::Reply), &[2; 100], limits)
            .unwrap();
        carry(&mut backend, &mut client, now);
    });
    // One direction only: acknowledgements by themselves, some messages under way.
    let (mut client, mut backend) = agreed();
    assert_no_allocation("messages in one direction", || {
        client
            .push(
                header(MessageKind::Message),
                &[1; 100],
                OutboxLimits::default(),
            )
            .unwrap();
        carry(&mut client, &mut backend, now);
        if let Some(ack) = backend.poll_ack(now) {
            client.handle_ack(ack - 3);
        }
    });
}

fn carry(from: &mut StreamEnd, to: &mut StreamEnd, now: Time) {
    while let Some(message) = from.poll_transmit() {
        let Ok(Body::Message { header, .. }) = Body::decode(message) else {
            panic!("no message in an outbox");
        };
        let delivery = to.handle_message(header.number, header.ack, now);
        assert_eq!(delivery, Delivery::Deliver);
    }
}

fn records() {
    let mut run = Vec::new();
    assert_no_allocation("records of an uplink", || {
        run.clear();
        for session in 1..10 {
            uplink::encode(SessionId(session), &Record::Data(&[3; 100]), &mut run);
        }
        let mut rest = run.as_slice();
        let mut count = 0;
        while let Ok(Some((_, Record::Data(_)))) = uplink::next(&mut rest) {
            count += 1;
        }
        assert_eq!(count, 9);
    });
}

/// A logged-in client that asks, and the other side that answers.
fn a_client() {
    let now = Time(7_000_000);
    let key = StaticKey::from_secret([1; 32]);
    let config = ClientConfig {
        gateway_key: *key.public(),
        token: "token".to_owned(),
        client_version: 1,
        channel: String::new(),
        device: String::new(),
        outbox: OutboxLimits::default(),
        rekey: RekeyPolicy::default(),
        compress_bytes_min: 256,
    };
    let mut client = Client::connect(config, [2; 32], now).unwrap();
    let mut shared = Shared::default();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    client.poll_transmit(now, &mut shared, &mut up);
    let parameters = Parameters {
        frame_bytes_max: FRAME_BYTES_MAX as u32,
        heartbeat_interval_ms: 30_000,
        idle_timeout_ms: 75_000,
        login_timeout_ms: 10_000,
        unix_ms: 0,
    };
    let keys = respond(&key, [3; 32], &up, now.wire_ms(), &parameters, &mut down).unwrap();
    let mut sealer = Sealer::new(keys.gateway, now, RekeyPolicy::default());
    let mut opener = Opener::new(keys.client);
    let mut clock = ClockOffset::new(Header::decode(&up).unwrap().timestamp_ms, now);
    let mut backend = StreamEnd::backend(GROUP, Incarnation(1));
    backend.attach();
    let login_ok = Body::LoginOk {
        session: SessionId(1),
        unix_ms: 0,
    };
    sealer.seal(now, 0, &mut down, |out| login_ok.encode(out));
    let sync = Body::Sync(backend.poll_sync().unwrap());
    sealer.seal(now, 0, &mut down, |out| sync.encode(out));

    let (mut pool, mut reassembly) = (Buffers::default(), Reassembly::default());
    let mut answered = 0_u32;
    assert_no_allocation("a client's round trip", || {
        client.handle_received(now, &mut down, &mut shared, &mut |event| {
            answered += u32::from(matches!(event, Event::Message(..)));
        });
        down.clear();
        up.clear();
        client.request(GROUP, MessageId(1), &[5; 100]).unwrap();
        while client.poll_transmit(now, &mut shared, &mut up) {}
        let mut data = up.as_mut_slice();
        while let Ok(Some(frame)) = reassembly.next(&mut data, FRAME_BYTES_MAX, &mut pool) {
            let opened = check::open(frame, &mut opener, &mut clock, now).unwrap();
            match Body::decode(opened.body) {
                Ok(Body::Sync(sync)) => assert!(backend.handle_sync(&sync)),
                Ok(Body::Message { header, payload }) => {
                    let delivery = backend.handle_message(header.number, header.ack, now);
                    assert_eq!(delivery, Delivery::Deliver);
                    let reply = MessageHeader {
                        kind: MessageKind::Reply,
                        ..header
                    };
                    backend
                        .push(reply, payload, OutboxLimits::default())
                        .unwrap();
                }
                _ => {}
            }
        }
        while let Some(message) = backend.poll_transmit() {
            sealer.seal(now, 0, &mut down, |out| out.extend_from_slice(message));
        }
    });
    assert_eq!(answered, WARM_UP + ROUNDS - 1);
}
