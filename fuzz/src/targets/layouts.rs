//! What is decoded by itself: bodies, chunks, setup datagrams, records, control messages, the
//! messages of the map, tokens, compressed payloads.
//!
//! What decodes has one encoding, the one that it came in; what does not decode leaves nothing.

use gateway::testing;
use prost::Message as _;
use protocol::body::{
    Body, ChannelHeader, ChannelNotice, Lane, Login, MessageHeader, MessageKind, QueuePosition,
    Sync, is_direct, patch_ack,
};
use protocol::channel::Filter;
use protocol::compress::Scratch;
use protocol::control::{self, ToBackend, ToShard, to_backend, to_shard};
use protocol::datagram::chunk::{Ack, Chunk, Chunks};
use protocol::datagram::cookie::{ADDRESS_BYTES, COOKIE_BYTES, Cookies};
use protocol::datagram::hello::{self, Setup};
use protocol::datagram::{Cid, split};
use protocol::handshake::{HELLO_FRAME_BYTES, RESUME_FRAME_BYTES};
use protocol::ids::{ChannelId, Fence, GroupId, Incarnation, MessageId, SessionId};
use protocol::limits::{
    ACCOUNT_BYTES_MAX, DATAGRAM_BYTES_MAX, DECOMPRESSED_BYTES_MAX, TOKEN_ID_BYTES_MAX,
    TOKEN_LIFE_MS_MAX,
};
use protocol::quality::{Ping, Pong, Quality};
use protocol::token;
use protocol::uplink::{self, ClientAddress, Open, Record};
use protocol::world::{
    Belief, Changes, Enter, Entered, Entry, Move, Placed, Point, Positions, VISIBLE_MAX, Width,
    begin_positions, encode_changes, put_position,
};

use super::vectors;
use crate::script::{Lines, Script, Way};

/// A body of a frame.
pub fn body(data: &[u8]) -> u64 {
    let mut way = Way::default();
    let direct = is_direct(data);
    match Body::decode(data) {
        Ok(body) => {
            let mut again = Vec::new();
            body.encode(&mut again);
            assert_eq!(again, data, "{body:?} has two encodings");
            if let Body::Message { header, payload } = body {
                assert_eq!(header.encoded_bytes() + payload.len(), data.len());
                patch_ack(&mut again, 7);
                let patched = MessageHeader { ack: 7, ..header };
                let header = patched;
                assert_eq!(Body::decode(&again), Ok(Body::Message { header, payload }));
                assert_eq!(direct, header.lane != Lane::Reliable);
            }
            way.note(u64::from(data[0]));
            way.note(u64::from(data[1..].first().copied().unwrap_or(0)));
        }
        Err(bad) => way.note(1 << 8 | matches!(bad, protocol::body::BadBody::Malformed) as u64),
    }
    way.value()
}

/// One of each kind.
pub fn bodies() -> Vec<Vec<u8>> {
    let group = GroupId(1);
    let sync = |fresh| {
        Body::Sync(Sync {
            fresh,
            group,
            incarnation: Incarnation(5),
            next: 1,
            base: 1,
        })
    };
    let message = |kind, lane, number| MessageHeader {
        kind,
        lane,
        more: false,
        group,
        number,
        ack: 0,
        message: MessageId(1),
        request: if kind == MessageKind::Message { 0 } else { 9 },
    };
    let notice = |notice| Body::Channel {
        group,
        channel: ChannelId(1),
        notice,
    };
    let mut bodies = vec![
        Body::Login(Login {
            method: 1,
            client_version: 1,
            channel: "store",
            device: "device",
            credential: b"v4.public.",
        }),
        Body::LoginOk {
            session: SessionId(1),
            unix_ms: 1,
        },
        Body::Logout,
        Body::Close {
            reason: 46,
            retry_after_ms: 0,
            text: "bye",
        },
        Body::GroupDown { group },
        Body::Credit { group, bytes: 1 },
        Body::Attach,
        Body::Ack { group, ack: 1 },
        sync(false),
        sync(true),
        Body::Queue(QueuePosition {
            position: 1,
            seconds: u32::MAX,
            of: 2,
        }),
        Body::SideOpen,
        notice(ChannelNotice::Joined {
            incarnation: Incarnation(1),
            next: 1,
        }),
        notice(ChannelNotice::Key {
            id: 1,
            key: &[3; 32],
            sequence: 0,
        }),
        notice(ChannelNotice::Left),
        notice(ChannelNotice::CatchUp { next: 1 }),
        notice(ChannelNotice::Skip {
            from: 1,
            to: 2,
            lost: true,
        }),
        notice(ChannelNotice::CaughtUp { next: 2 }),
        Body::ChannelMessage {
            header: ChannelHeader {
                lane: Lane::Reliable,
                group,
                number: 1,
                channel: ChannelId(1),
                message: MessageId(1),
            },
            payload: b"payload",
        },
        Body::Side {
            cid: Cid(0x100),
            secret: &[3; 32],
        },
    ];
    for (kind, lane) in [
        (MessageKind::Message, Lane::Reliable),
        (MessageKind::Message, Lane::Unreliable),
        (MessageKind::Message, Lane::Sequenced),
        (MessageKind::Request, Lane::Reliable),
        (MessageKind::Reply, Lane::Reliable),
        (MessageKind::Error, Lane::Reliable),
    ] {
        let number = u32::from(lane != Lane::Unreliable);
        bodies.push(Body::Message {
            header: message(kind, lane, number),
            payload: b"\x01\x00payload",
        });
    }
    let mut encoded: Vec<Vec<u8>> = bodies
        .iter()
        .map(|body| {
            let mut out = Vec::new();
            body.encode(&mut out);
            out
        })
        .collect();
    for body in [Body::Ping(Ping::default()), Body::Pong(Pong::default())] {
        let mut out = Vec::new();
        body.encode(&mut out);
        encoded.push(out);
    }
    encoded
}

/// See [`bodies`].
pub fn body_seeds() -> Vec<Vec<u8>> {
    bodies()
}

/// The chunks of a datagram.
pub fn chunks(data: &[u8]) -> u64 {
    let mut way = Way::default();
    let mut again = Vec::new();
    for chunk in Chunks::new(data) {
        let Ok(chunk) = chunk else {
            way.note(1 << 8);
            assert!(data.starts_with(&again), "what came before it is read");
            return way.value();
        };
        let before = again.len();
        chunk.encode(&mut again);
        way.note(u64::from(again[before]));
    }
    assert_eq!(again, data, "chunks have two encodings");
    way.value()
}

/// One of each chunk, and all of them.
pub fn chunk_seeds() -> Vec<Vec<u8>> {
    let bodies = bodies();
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for chunk in [
        Chunk::Data {
            flags: 0,
            number: 0,
            bytes: &bodies[0],
        },
        Chunk::Data {
            flags: 1,
            number: 1,
            bytes: &bodies[3],
        },
        Chunk::Ack(Ack {
            next: 1,
            bitmap: 0b101,
            delay_us: 1_000,
        }),
        Chunk::Ack(Ack::default()),
        Chunk::Body {
            flags: 0,
            bytes: &bodies[10],
        },
        Chunk::Challenge([1; 8]),
        Chunk::Response([1; 8]),
        Chunk::NewCid(Cid(0x100)),
        Chunk::Padding(20),
    ] {
        let mut out = Vec::new();
        chunk.encode(&mut out);
        all.extend_from_slice(&out);
        seeds.push(out);
    }
    seeds.push(all);
    seeds
}

/// Of the vectors' datagrams the opened bodies are runs of chunks, too.
pub fn chunk_and_vector_seeds() -> Vec<Vec<u8>> {
    let mut seeds = chunk_seeds();
    seeds.extend(vectors().into_iter().filter(|bytes| bytes.len() < 200));
    seeds
}

const COOKIE_SECRET: [u8; 32] = [4; 32];
const COOKIE_ADDRESS: [u8; ADDRESS_BYTES] = [6; ADDRESS_BYTES];
const COOKIE_UNIX_MS: u64 = 1_790_000_000_000;
const COOKIE_NONCE: u64 = 77;

/// A datagram before its connection is known.
pub fn setup(data: &[u8]) -> u64 {
    let mut way = Way::default();
    if let Some((cid, frame)) = split(&mut data.to_vec()) {
        assert!(cid.shard() != 0xff && frame.len() + 8 == data.len());
        way.note(1);
    }
    let Some((nonce, message)) = hello::decode(data) else {
        return way.value();
    };
    let mut again = Vec::new();
    hello::encode(nonce, &message, &mut again);
    assert_eq!(again, data, "a setup datagram has two encodings");
    match message {
        Setup::Init { cookie, .. } => {
            assert_eq!(data.len(), DATAGRAM_BYTES_MAX);
            let cookies = Cookies::new(COOKIE_SECRET);
            let good = cookies.is_good(COOKIE_UNIX_MS, &COOKIE_ADDRESS, nonce, cookie);
            let made = cookies.make(COOKIE_UNIX_MS, &COOKIE_ADDRESS, nonce);
            assert_eq!(good, *cookie == made, "a cookie that nobody made");
            way.note(2 + u64::from(good));
        }
        Setup::Retry { .. } => way.note(4),
        Setup::Accept { .. } => way.note(5),
        Setup::Refuse { .. } => way.note(6),
    }
    way.value()
}

/// One of each, an INIT with a good cookie among them.
pub fn setup_seeds() -> Vec<Vec<u8>> {
    let first = |length: usize| {
        let mut frame = vec![8; length];
        frame[..3].copy_from_slice(&[length as u8, 0, 0]);
        frame
    };
    let (hello, resume) = (first(HELLO_FRAME_BYTES), first(RESUME_FRAME_BYTES));
    let made = Cookies::new(COOKIE_SECRET).make(COOKIE_UNIX_MS, &COOKIE_ADDRESS, COOKIE_NONCE);
    let messages = [
        Setup::Init {
            cookie: &made,
            hello: &hello,
        },
        Setup::Init {
            cookie: &[0; COOKIE_BYTES],
            hello: &resume,
        },
        Setup::Retry { cookie: &made },
        Setup::Accept {
            cid: Cid(0x300),
            welcome: &[9; 92],
        },
        Setup::Refuse { reject: &[9; 20] },
    ];
    messages
        .iter()
        .map(|message| {
            let mut out = Vec::new();
            hello::encode(COOKIE_NONCE, message, &mut out);
            out
        })
        .collect()
}

/// A run of records of the uplink.
pub fn records(data: &[u8]) -> u64 {
    let mut way = Way::default();
    let mut run = data;
    let mut again = Vec::new();
    loop {
        match uplink::next(&mut run) {
            Ok(Some((session, record))) => {
                uplink::encode(session, &record, &mut again);
                assert_eq!(again.len() + run.len(), data.len());
                way.note(match record {
                    Record::Data(_) => 1,
                    Record::Open(_) => 2,
                    Record::End { .. } => 3,
                    Record::Kick { .. } => 4,
                    Record::Gone => 5,
                    Record::Quality(_) => 6,
                    Record::Join { .. } => 8,
                    Record::Leave { .. } => 9,
                    Record::Publish { .. } => 10,
                    Record::List { .. } => 11,
                    Record::Attribute { .. } => 12,
                    Record::Latest { .. } => 13,
                });
            }
            Ok(None) => break,
            Err(_) => {
                way.note(7);
                break;
            }
        }
    }
    assert!(data.starts_with(&again), "a record has two encodings");
    way.value()
}

/// One of each, and all.
pub fn record_seeds() -> Vec<Vec<u8>> {
    let body = &bodies()[10];
    let open = Open {
        fence: Fence(1),
        unix_ms: 1,
        client_version: 1,
        address: Some(ClientAddress {
            ip: [1; 16],
            port: 7,
        }),
        away: false,
        account: "alice",
        channel: "store",
    };
    let records = [
        Record::Data(body),
        Record::Latest { key: 1, body },
        Record::Open(open),
        Record::Open(Open {
            address: None,
            away: true,
            ..open
        }),
        Record::End {
            fence: Fence(1),
            reason: 40,
            unix_ms: 1,
        },
        Record::Kick {
            fence: Fence(1),
            reason: 45,
        },
        Record::Gone,
        Record::Quality(Quality::default()),
        Record::Join {
            channel: ChannelId(1),
            incarnation: Incarnation(1),
            next: 1,
        },
        Record::Leave {
            channel: ChannelId(1),
        },
        Record::Publish {
            filter: Filter {
                attribute: Some((1, 2)),
                ..Filter::but(SessionId(1))
            },
            body,
        },
        Record::Attribute { key: 1, value: 2 },
    ];
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for record in &records {
        let mut out = Vec::new();
        uplink::encode(SessionId(1), record, &mut out);
        all.extend_from_slice(&out);
        seeds.push(out);
    }
    seeds.push(all);
    seeds
}

/// A control message, in either direction. Protobuf has many encodings of one message; what one
/// decodes to has to survive the next.
pub fn control(data: &[u8]) -> u64 {
    let mut way = Way::default();
    if let Ok(message) = ToBackend::decode(data) {
        assert_eq!(
            ToBackend::decode(&*message.encode_to_vec()).as_ref(),
            Ok(&message)
        );
        way.note(match message.message {
            None => 0,
            Some(message) => 1 + kind_of(&message),
        });
    }
    if let Ok(message) = ToShard::decode(data) {
        assert_eq!(
            ToShard::decode(&*message.encode_to_vec()).as_ref(),
            Ok(&message)
        );
        way.note(match message.message {
            None => 10,
            Some(to_shard::Message::Hello(_)) => 11,
            Some(to_shard::Message::ClaimGranted(_)) => 12,
            Some(to_shard::Message::ClaimRefused(_)) => 13,
            Some(_) => 14,
        });
    }
    way.value()
}

fn kind_of(message: &to_backend::Message) -> u64 {
    match message {
        to_backend::Message::Hello(_) => 1,
        to_backend::Message::Claim(_) => 2,
        to_backend::Message::Release(_) => 3,
        to_backend::Message::Rebuild(_) => 4,
        to_backend::Message::Seek(_) => 6,
        to_backend::Message::Move(_) => 7,
        _ => 5,
    }
}

/// What shards and backends tell each other.
pub fn control_seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::backends::to_center_messages();
    seeds.extend(super::backends::to_shard_messages());
    seeds
}

/// The messages of the map, and a client's belief under a run of them.
pub fn world(data: &[u8]) -> u64 {
    let mut way = Way::default();
    let mut belief = Belief::default();
    let mut script = Script::new(data);
    let mut again = Vec::new();
    while !script.is_over() {
        let what = script.u8();
        let bytes = script.piece();
        again.clear();
        match what {
            0 => {
                let Ok(enter) = Enter::decode(bytes) else {
                    continue;
                };
                enter.encode(&mut again);
            }
            1 => {
                let Ok(entry) = Entry::decode(bytes) else {
                    continue;
                };
                entry.encode(&mut again);
            }
            2 => {
                let Ok(step) = Move::decode(bytes) else {
                    continue;
                };
                step.encode(&mut again);
            }
            3 => {
                let Ok(positions) = Positions::decode(bytes) else {
                    continue;
                };
                let width = width_of(bytes[0]);
                begin_positions(&mut again, width, positions.tick);
                for placed in positions.iter() {
                    put_position(&mut again, width, placed);
                }
                let known = belief.handle_positions(&positions);
                way.count(known as u64);
            }
            _ => {
                let Ok(changes) = Changes::decode(bytes) else {
                    continue;
                };
                let enters: Vec<Entered> = changes.enters().collect();
                let leaves: Vec<u32> = changes.leaves().collect();
                let rests: Vec<Placed> = changes.rests().collect();
                let width = width_of(bytes[0]);
                encode_changes(&mut again, width, changes.tick, &enters, &leaves, &rests);
                let outcome = belief.handle_changes(&changes);
                way.note(u64::from(outcome.is_ok()));
                if outcome.is_ok() {
                    assert!(rests.iter().all(|rest| belief.of(rest.id).is_some()));
                }
            }
        }
        assert_eq!(again, bytes, "a message of the map has two encodings");
        way.note(u64::from(what));
        let seen = belief.seen();
        assert!(seen.len() <= VISIBLE_MAX);
        assert!(seen.is_sorted_by(|one, next| one.id < next.id));
        way.count(seen.len() as u64);
    }
    way.value()
}

fn width_of(byte: u8) -> Width {
    match byte {
        2 => Width::Narrow,
        _ => Width::Wide,
    }
}

/// A view that others enter, move in, rest in and leave.
pub fn world_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for width in [Width::Narrow, Width::Wide] {
        let placed = |id| Placed {
            id,
            at: Point { x: 10, y: id },
        };
        let entered = |id| Entered {
            id,
            tag: 1,
            at: Point { x: 1, y: 2 },
        };
        let mut come = Vec::new();
        encode_changes(&mut come, width, 1, &[entered(1), entered(2)], &[], &[]);
        let mut moved = Vec::new();
        begin_positions(&mut moved, width, 2);
        put_position(&mut moved, width, placed(1));
        let mut go = Vec::new();
        encode_changes(&mut go, width, 3, &[], &[2], &[placed(1)]);
        let script = Lines::default().piece(4, &come).piece(3, &moved);
        seeds.push(script.piece(4, &go).done());
    }
    let (mut enter, mut step) = (Vec::new(), Vec::new());
    Enter {
        tag: 1,
        at: Point { x: 1, y: 2 },
    }
    .encode(&mut enter);
    Move {
        step: 1,
        at: Point { x: 1, y: 2 },
    }
    .encode(&mut step);
    seeds.push(Lines::default().piece(0, &enter).piece(2, &step).done());
    seeds
}

/// A token, and the claims in one.
pub fn token(data: &[u8]) -> u64 {
    let now = testing::start();
    let mut way = Way::default();
    let claims = match data.split_first() {
        // The signature of what nobody signed never verifies, so claims are tried by themselves.
        Some((b'{', _)) => std::str::from_utf8(data).ok().map(token::decode),
        _ => Some(testing::verifier().verify(data, now.unix_ms)),
    };
    match claims {
        None => {}
        Some(Err(reason)) => way.note(reason as u64),
        Some(Ok(claims)) => {
            assert!((1..=ACCOUNT_BYTES_MAX).contains(&claims.account.len()));
            assert!((1..=TOKEN_ID_BYTES_MAX).contains(&claims.id.len()));
            way.note(1 << 16);
            if data[0] != b'{' {
                let life = claims.expires_unix_ms - claims.issued_unix_ms;
                assert!((1..=TOKEN_LIFE_MS_MAX).contains(&life));
            }
        }
    }
    way.value()
}

/// A good token, one of an hour ago, and good claims.
pub fn token_seeds() -> Vec<Vec<u8>> {
    let claims = r#"{"aud":"sallyport","sub":"alice","jti":"1","iat":"2026-01-01T00:00:00Z","exp":"2026-01-01T00:01:00Z"}"#;
    let now = testing::start();
    let mut earlier = now;
    earlier.unix_ms -= 3_600_000;
    let tokens = [now, earlier].map(|now| testing::token(1, now).into_bytes());
    let mut seeds = vec![claims.into()];
    seeds.extend(tokens);
    seeds
}

/// A payload to decompress, and the same as one to compress.
pub fn compression(data: &[u8]) -> u64 {
    let mut way = Way::default();
    let mut scratch = Scratch::default();
    match scratch.decompress(data) {
        Ok(bytes) => {
            assert!(bytes.len() <= DECOMPRESSED_BYTES_MAX);
            way.count(bytes.len() as u64);
        }
        Err(_) => way.note(100),
    }
    if let Some(shorter) = scratch.compress(data) {
        let shorter = shorter.to_vec();
        assert!(shorter.len() < data.len());
        assert_eq!(scratch.decompress(&shorter), Ok(data));
        way.note(101);
    }
    way.value()
}

/// Payloads, compressed and not.
pub fn compression_seeds() -> Vec<Vec<u8>> {
    let mut scratch = Scratch::default();
    let mut seeds = vec![vec![7; 300], b"abcabcabcabcabcabcabcabcabcabc".to_vec()];
    for at in 0..2 {
        let shorter = scratch.compress(&seeds[at]).map(<[u8]>::to_vec);
        seeds.extend(shorter);
    }
    seeds.extend(vectors().into_iter().filter(|bytes| bytes.len() < 128));
    seeds
}

/// Claims of sessions that a shard may tell, as its control messages.
pub fn live_session(session: u64) -> control::LiveSession {
    control::LiveSession {
        session,
        fence: session,
        account: format!("account-{session}"),
        ..control::LiveSession::default()
    }
}

/// A message to center, encoded.
pub fn to_backend_bytes(message: to_backend::Message) -> Vec<u8> {
    let message = Some(message);
    ToBackend { message }.encode_to_vec()
}
