//! In steady state a request and its reply allocate nothing, in the client's
//! core, the shard, and the backend's stream. A binary of its own with one
//! test, because the counting allocator sees every thread.

use std::alloc::System;
use std::sync::Arc;

use gateway::engine::ConnId;
use gateway::shard::{GroupConfig, Shard, ShardConfig};
use pasetors::keys::{AsymmetricKeyPair, Generate};
use pasetors::version4::V4;
use prost::Message as _;
use protocol::body::{Body, MessageHeader, MessageKind};
use protocol::check::Rate;
use protocol::cipher::RekeyPolicy;
use protocol::client::{Client, ClientConfig, Event, Shared};
use protocol::control::{self, ToBackend, ToShard, to_backend, to_shard};
use protocol::handshake::StaticKey;
use protocol::ids::{GroupId, Incarnation, MessageId, SessionId, ShardId};
use protocol::stream::{Delivery, OutboxLimits, StreamEnd};
use protocol::time::{Now, Time};
use protocol::token::{Claims, Verifier, issue};
use protocol::uplink::{self, Record};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GROUP: GroupId = GroupId(1);
const CENTER: usize = 0;
const GAME: usize = 1;
const CLIENTS: u32 = 64;
const OFF: Rate = Rate {
    per_second: 0,
    burst: 1,
};

struct Player {
    id: ConnId,
    client: Client,
    /// The backend's end.
    end: StreamEnd,
}

struct World {
    shard: Shard,
    now: Now,
    shared: Shared,
    players: Vec<Player>,
    /// Reused by every round, as a driver reuses its buffers.
    out: Vec<u8>,
    records: Vec<u8>,
    replies: Vec<u8>,
    replied: u64,
}

fn config() -> ShardConfig {
    ShardConfig {
        gateway: "gw-test".into(),
        shard: ShardId(0),
        boot: 7,
        key: StaticKey::from_secret([9; 32]),
        groups: vec![GroupConfig {
            group: GROUP,
            instances: 1,
        }],
        sessions_max: 1_000,
        connections_before_login_max: 1_000,
        handshake_timeout_ms: 5_000,
        login_timeout_ms: 10_000,
        heartbeat_interval_ms: 10_000,
        idle_timeout_ms: 30_000,
        frames: OFF,
        bytes: OFF,
        send_queue_bytes_max: 393_216,
        uplink_queue_bytes_max: 1 << 20,
        rekey: RekeyPolicy::default(),
        compress_bytes_min: 64,
    }
}

impl World {
    fn new() -> Self {
        let pair = AsymmetricKeyPair::<V4>::generate().expect("a key");
        let secret: [u8; 64] = pair.secret.as_bytes().try_into().expect("64 bytes");
        let public = pair.public.as_bytes().try_into().expect("32 bytes");
        let now = Now {
            time: Time(1_000_000),
            unix_ms: 1_790_000_000_000,
        };
        let verifier = Verifier::new("sallyport".into(), &[public]).expect("a usable key");
        let shard = Shard::new(config(), verifier, [3; 32], Arc::default(), now);
        let mut world = Self {
            shard,
            now,
            shared: Shared::default(),
            players: Vec::new(),
            out: Vec::new(),
            records: Vec::new(),
            replies: Vec::new(),
            replied: 0,
        };
        for (uplink, group) in [(CENTER, 0), (GAME, u32::from(GROUP.0))] {
            world.shard.handle_uplink_connected(uplink);
            let hello = control::BackendHello {
                version: uplink::VERSION,
                instance: format!("backend-{uplink}"),
                boot: 1,
                group,
                wants_address: false,
                lease_ms: 60_000,
            };
            world.control(to_shard::Message::Hello(hello), uplink);
        }
        for index in 0..CLIENTS {
            world.enter(index, &secret);
        }
        world
    }

    fn control(&mut self, message: to_shard::Message, uplink: usize) {
        let bytes = ToShard {
            message: Some(message),
        }
        .encode_to_vec();
        self.shard.handle_uplink_control(self.now, uplink, &bytes);
    }

    /// Logs one client in and opens its group.
    fn enter(&mut self, index: u32, secret: &[u8; 64]) {
        let claims = Claims {
            audience: "sallyport".into(),
            account: format!("account-{index}"),
            id: format!("token-{index}"),
            issued_unix_ms: self.now.unix_ms,
            expires_unix_ms: self.now.unix_ms + 30_000,
        };
        let config = ClientConfig {
            gateway_key: *StaticKey::from_secret([9; 32]).public(),
            token: issue(secret, &claims).expect("valid claims"),
            client_version: 1,
            channel: "test".into(),
            device: "test".into(),
            outbox: OutboxLimits::default(),
            rekey: RekeyPolicy::default(),
            compress_bytes_min: 64,
        };
        let id = ConnId {
            index,
            generation: 0,
        };
        self.shard.handle_accepted(self.now, id, None);
        let client = Client::connect(config, [index as u8 + 1; 32], self.now.time).expect("usable");
        let mut end = StreamEnd::backend(GROUP, Incarnation(5));
        end.attach();
        self.players.push(Player { id, client, end });
        while !self.players[index as usize].client.is_group_up(GROUP) {
            self.turn();
        }
    }

    /// One turn: clients' bytes in, records to the backend, replies out.
    fn turn(&mut self) {
        let Self {
            shard,
            now,
            shared,
            players,
            out,
            records,
            replies,
            replied,
        } = self;
        let now = *now;
        for player in players.iter_mut() {
            out.clear();
            if player.client.poll_transmit(now.time, shared, out) {
                shard.handle_received(now, player.id, out);
            }
        }
        shard.handle_timeout(now);
        records.clear();
        let mut answers = Vec::new();
        shard.poll_uplink(|at, stream, bytes| {
            if stream > 0 {
                records.extend_from_slice(bytes);
            } else if at == CENTER {
                answers.extend(answers_of_center(bytes));
            }
            bytes.clear();
        });
        replies.clear();
        echo(records, players, now, replies);
        if !replies.is_empty() {
            shard.handle_uplink_records(now, GAME, replies);
        }
        while let Some((to, mut buffer)) = shard.poll_send() {
            let player = &mut players[to.index as usize];
            player.client.handle_received(now.time, &mut buffer, shared, &mut |event| {
                if matches!(event, Event::Message(header, _) if header.kind == MessageKind::Reply) {
                    *replied += 1;
                }
            });
            shard.handle_sent(to, buffer);
        }
        while shard.poll_action().is_some() {}
        for message in answers {
            self.control(message, CENTER);
        }
    }

    fn round(&mut self, payload: &[u8]) {
        let before = self.replied;
        for player in &mut self.players {
            player
                .client
                .request(GROUP, MessageId(1), payload)
                .expect("room in the outbox");
        }
        self.now.time = self.now.time + 500;
        self.turn();
        assert_eq!(
            self.replied - before,
            u64::from(CLIENTS),
            "every request was answered"
        );
    }
}

/// What center answers to a run of control messages.
fn answers_of_center(bytes: &[u8]) -> Vec<to_shard::Message> {
    let mut rest = bytes;
    let mut answers = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (message, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
        rest = tail;
        match ToBackend::decode(message)
            .expect("the shard's messages")
            .message
        {
            Some(to_backend::Message::Claim(claim)) => {
                let session = u64::from(claim.slot) + 1;
                let granted = control::ClaimGranted {
                    claim: claim.claim,
                    session,
                    fence: session,
                };
                answers.push(to_shard::Message::ClaimGranted(granted));
            }
            Some(to_backend::Message::Renew(renew)) => {
                answers.push(to_shard::Message::Renewed(control::Renewed {
                    renewal: renew.renewal,
                }));
            }
            _ => {}
        }
    }
    answers
}

/// What a backend stub does with a run of records.
fn echo(records: &[u8], players: &mut [Player], now: Now, replies: &mut Vec<u8>) {
    let mut run = records;
    while let Some((session, record)) = uplink::next(&mut run).expect("the shard's records") {
        let end = &mut players[session.0 as usize - 1].end;
        match record {
            Record::Open(_) => {}
            Record::Data(body) => match Body::decode(body).expect("the client's bodies") {
                Body::Sync(sync) => assert!(end.handle_sync(&sync)),
                Body::Message { header, payload } => {
                    let delivery = end.handle_message(header.number, header.ack, now.time);
                    assert_eq!(delivery, Delivery::Deliver);
                    let reply = MessageHeader {
                        kind: MessageKind::Reply,
                        ..header
                    };
                    end.push(reply, payload, OutboxLimits::default())
                        .expect("room");
                }
                _ => {}
            },
            other => panic!("not for a backend in this test: {other:?}"),
        }
        send(session, end, replies);
    }
}

fn send(session: SessionId, end: &mut StreamEnd, replies: &mut Vec<u8>) {
    if let Some(sync) = end.poll_sync() {
        uplink::encode_data(session, replies, |out| Body::Sync(sync).encode(out));
    }
    while let Some(message) = end.poll_transmit() {
        uplink::encode_data(session, replies, |out| out.extend_from_slice(message));
    }
}

#[test]
fn a_round_trip_allocates_nothing() {
    let mut world = World::new();
    let random: Vec<u8> = (0..64_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let text = b"walk north, walk north, walk north, walk north, walk north, walk north".repeat(4);
    for payload in [&random, &text] {
        for _ in 0..200 {
            world.round(payload);
        }
        let region = Region::new(GLOBAL);
        for _ in 0..500 {
            world.round(payload);
        }
        let change = region.change();
        assert_eq!(
            (
                change.allocations,
                change.reallocations,
                change.deallocations
            ),
            (0, 0, 0),
            "in {} round trips of {} bytes",
            500 * CLIENTS,
            payload.len()
        );
    }
}
