//! A shard with clients and a backend around it, in memory: the real cores, and
//! between them only vectors. [`World::round`] has each client ask once and
//! tells how long the shard alone took.
//!
//! Deliberately not here: sockets, rings, QUIC, rates (they are off).
//!
//! Invariant: every request of a round is answered within it.

mod backends;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::engine::ConnId;
use gateway::shard::{GroupConfig, Shard, ShardConfig};
use protocol::body::MessageKind;
use protocol::check::Rate;
use protocol::cipher::RekeyPolicy;
use protocol::client::{Client, ClientConfig, Event, Shared};
use protocol::handshake::StaticKey;
use protocol::ids::{GroupId, MessageId, ShardId};
use protocol::stream::OutboxLimits;
use protocol::time::{Now, Time};
use protocol::token::{Claims, Verifier, issue};

use self::backends::{Game, answers_of_center, hello, to_shard_bytes};
use crate::Digest;
use crate::tiny::noise;

const GROUP: GroupId = GroupId(1);
/// Uplinks of the shard, in its order.
const CENTER: usize = 0;
const GAME: usize = 1;
const GATEWAY_SECRET: [u8; 32] = [9; 32];
const TOKEN_SEED: [u8; 32] = [5; 32];
const OFF: Rate = Rate {
    per_second: 0,
    burst: 1,
};
/// Microseconds between two rounds.
const STEP_US: u64 = 500;
/// Turns in which everybody must be in: five suffice.
const LOGIN_TURNS_MAX: usize = 20;
const COMPRESS_BYTES_MIN: usize = 64;

struct Player {
    id: ConnId,
    client: Client,
    /// What it sends in this turn.
    frames: Vec<u8>,
}

/// See the module.
pub struct World {
    shard: Shard,
    now: Now,
    shared: Shared,
    players: Vec<Player>,
    game: Game,
    payload: Vec<u8>,
    /// Records from the shard, and for it; reused as a driver does.
    records: Vec<u8>,
    replies: Vec<u8>,
    center: Vec<u8>,
    sends: Vec<(ConnId, Vec<u8>)>,
    replied: usize,
    digest: Digest,
}

fn config(clients: usize) -> ShardConfig {
    ShardConfig {
        gateway: "bench".into(),
        shard: ShardId(0),
        boot: 7,
        key: StaticKey::from_secret(GATEWAY_SECRET),
        groups: vec![GroupConfig {
            group: GROUP,
            instances: 1,
        }],
        sessions_max: clients as _,
        connections_before_login_max: clients as _,
        handshake_timeout_ms: 5_000,
        login_timeout_ms: 10_000,
        heartbeat_interval_ms: 10_000,
        idle_timeout_ms: 30_000,
        frames: OFF,
        bytes: OFF,
        send_queue_bytes_max: 393_216,
        uplink_queue_bytes_max: 4 << 20,
        rekey: RekeyPolicy::default(),
        compress_bytes_min: COMPRESS_BYTES_MIN,
    }
}

/// The secret that signs tokens, and its public half.
fn token_key() -> ([u8; 64], [u8; 32]) {
    let public = uplink::Identity::from_seed(TOKEN_SEED).public_key().0;
    let mut secret = [0; 64];
    secret[..32].copy_from_slice(&TOKEN_SEED);
    secret[32..].copy_from_slice(&public);
    (secret, public)
}

impl World {
    /// So many clients, logged in and with their group up.
    ///
    /// # Panics
    /// They do not get in.
    pub fn new(clients: usize, payload_bytes: usize) -> Self {
        let (secret, public) = token_key();
        let now = Now {
            time: Time(1_000_000),
            unix_ms: 1_790_000_000_000,
        };
        let verifier = Verifier::new("bench".into(), &[public]).expect("a usable key");
        let mut shard = Shard::new(config(clients), verifier, [3; 32], Arc::default(), now);
        for (uplink, group) in [(CENTER, 0), (GAME, u32::from(GROUP.0))] {
            shard.handle_uplink_connected(uplink);
            shard.handle_uplink_control(now, uplink, &hello(uplink, group));
        }
        let players = (0..clients as u32).map(|index| {
            let id = ConnId {
                index,
                generation: 0,
            };
            shard.handle_accepted(now, id, None);
            Player {
                id,
                client: client(index, &secret, now),
                frames: Vec::new(),
            }
        });
        let players = players.collect();
        let mut world = Self {
            shard,
            now,
            shared: Shared::default(),
            players,
            game: Game::new(GROUP, clients),
            payload: noise(payload_bytes),
            records: Vec::new(),
            replies: Vec::new(),
            center: Vec::new(),
            sends: Vec::new(),
            replied: 0,
            digest: Digest::default(),
        };
        for _ in 0..LOGIN_TURNS_MAX {
            if world.players.iter().all(|p| p.client.is_group_up(GROUP)) {
                return world;
            }
            world.turn();
        }
        panic!("not every client is in after {LOGIN_TURNS_MAX} turns");
    }

    /// One request of each client, its reply, and the time in the shard.
    ///
    /// # Panics
    /// A reply is missing.
    pub fn round(&mut self) -> Duration {
        for player in &mut self.players {
            player
                .client
                .request(GROUP, MessageId(1), &self.payload)
                .expect("room in the outbox");
        }
        self.now.time = self.now.time + STEP_US;
        self.replied = 0;
        let spent = self.turn();
        assert_eq!(
            self.replied,
            self.players.len(),
            "every request was answered"
        );
        spent
    }

    /// Clients' bytes in, records to the backends, their answers in, frames out.
    fn turn(&mut self) -> Duration {
        let now = self.now;
        for player in &mut self.players {
            player.frames.clear();
            player
                .client
                .poll_transmit(now.time, &mut self.shared, &mut player.frames);
        }
        self.records.clear();
        self.replies.clear();
        self.center.clear();

        let begin = Instant::now();
        for player in &mut self.players {
            if !player.frames.is_empty() {
                self.shard
                    .handle_received(now, player.id, &mut player.frames);
            }
        }
        self.shard.handle_timeout(now);
        let (records, center) = (&mut self.records, &mut self.center);
        self.shard.poll_uplink(|uplink, stream, bytes| {
            if stream > 0 {
                records.extend_from_slice(bytes);
            } else if uplink == CENTER {
                center.extend_from_slice(bytes);
            }
            bytes.clear();
        });
        let mut spent = begin.elapsed();

        self.game.echo(&self.records, now.time, &mut self.replies);

        let begin = Instant::now();
        if !self.replies.is_empty() {
            self.shard.handle_uplink_records(now, GAME, &self.replies);
        }
        while let Some(send) = self.shard.poll_send() {
            self.sends.push(send);
        }
        spent += begin.elapsed();

        self.hand_over(now);

        let begin = Instant::now();
        for (to, buffer) in self.sends.drain(..) {
            self.shard.handle_sent(to, buffer);
        }
        while self.shard.poll_action().is_some() {}
        spent += begin.elapsed();

        for answer in answers_of_center(&self.center) {
            self.shard
                .handle_uplink_control(now, CENTER, &to_shard_bytes(answer));
        }
        spent
    }

    /// Gives the shard's frames to the clients.
    fn hand_over(&mut self, now: Now) {
        for (to, buffer) in &mut self.sends {
            let (replied, digest) = (&mut self.replied, &mut self.digest);
            self.players[to.index as usize].client.handle_received(
                now.time,
                buffer,
                &mut self.shared,
                &mut |event| {
                    if let Event::Message(header, payload) = event
                        && header.kind == MessageKind::Reply
                    {
                        *replied += 1;
                        digest.update(&header.request.to_le_bytes());
                        digest.update(payload);
                    }
                },
            );
        }
    }
}

fn client(index: u32, secret: &[u8; 64], now: Now) -> Client {
    let claims = Claims {
        audience: "bench".into(),
        account: format!("account-{index}"),
        id: format!("token-{index}"),
        issued_unix_ms: now.unix_ms,
        expires_unix_ms: now.unix_ms + 30_000,
    };
    let config = ClientConfig {
        gateway_key: *StaticKey::from_secret(GATEWAY_SECRET).public(),
        token: issue(secret, &claims).expect("valid claims"),
        client_version: 1,
        channel: "bench".into(),
        device: "bench".into(),
        outbox: OutboxLimits::default(),
        rekey: RekeyPolicy::default(),
        compress_bytes_min: COMPRESS_BYTES_MIN,
    };
    let mut ephemeral = [7; 32];
    ephemeral[..4].copy_from_slice(&index.to_le_bytes());
    Client::connect(config, ephemeral, now.time).expect("a usable key")
}

/// What the clients were answered in `rounds` rounds.
pub fn digest(clients: usize, payload_bytes: usize, rounds: usize) -> Digest {
    let mut world = World::new(clients, payload_bytes);
    for _ in 0..rounds {
        world.round();
    }
    world.digest
}
