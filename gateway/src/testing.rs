//! What a shard needs around it where there are no sockets: a configuration,
//! tokens, clients, center and a game. Tests of the core, the allocation test and
//! the benches share it; the feature `testing` keeps it out of the binary.
//!
//! Deliberately not here: what is measured or expected, which is each user's.
//!
//! Invariant: between a [`Crowd`] and its shard are only vectors, and every
//! secret is fixed, so that a run is a function of its arguments.

mod backends;
mod crowd;

use std::sync::Arc;

use protocol::check::Rate;
use protocol::cipher::RekeyPolicy;
use protocol::client::ClientConfig;
use protocol::handshake::StaticKey;
use protocol::ids::{GroupId, ShardId};
use protocol::stream::OutboxLimits;
use protocol::time::{Now, Time};
use protocol::token::{Claims, Verifier, issue};

pub use self::backends::{Game, answer_of_center, control_messages, hello, to_shard_bytes};
pub use self::crowd::Crowd;
use crate::front::FrontConfig;
use crate::limits::{Limits, Usage};
use crate::shard::{ALL_VERSIONS, GroupConfig, ShardConfig};

/// The one group of the configuration.
pub const GROUP: GroupId = GroupId(1);
/// Uplinks of the shard, in its order.
pub const CENTER: usize = 0;
/// The game's, see [`CENTER`].
pub const GAME: usize = 1;
/// A rate that is not checked.
pub const RATE_OFF: Rate = Rate {
    per_second: 0,
    burst: 1,
};

const GATEWAY_SECRET: [u8; 32] = [9; 32];
const TOKEN_SEED: [u8; 32] = [5; 32];
const AUDIENCE: &str = "sallyport";
const TOKEN_LIFE_MS: u64 = 30_000;
const COMPRESS_BYTES_MIN: usize = 64;

/// When a test begins.
pub fn start() -> Now {
    Now {
        time: Time(1_000_000),
        unix_ms: 1_790_000_000_000,
    }
}

/// Bytes that LZ4 cannot shrink, the same ones each time.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// A shard for so many clients, of the default bounds but without rates.
pub fn shard_config(clients: usize) -> ShardConfig {
    ShardConfig {
        gateway: "gw-test".into(),
        shard: ShardId(0),
        boot: 7,
        key: StaticKey::from_secret(GATEWAY_SECRET),
        groups: vec![GroupConfig {
            group: GROUP,
            instances: vec![ALL_VERSIONS],
        }],
        sessions_max: clients,
        connections_before_login_max: clients,
        handshake_timeout_ms: 5_000,
        login_timeout_ms: 10_000,
        heartbeat_interval_ms: 10_000,
        idle_timeout_ms: 30_000,
        resume_ms: 0,
        frames: RATE_OFF,
        bytes: RATE_OFF,
        send_queue_bytes_max: 393_216,
        write_timeout_ms: 15_000,
        uplink_queue_bytes_max: 4 << 20,
        rekey: RekeyPolicy::default(),
        compress_bytes_min: COMPRESS_BYTES_MIN,
        version_min: 0,
        upgrade_address: Arc::default(),
        seal_channels_once: true,
        limits: Limits::default(),
        usage: Arc::new(Usage::new(64, [1, 2])),
        tickets: Arc::default(),
        front: FrontConfig::default(),
        datagrams: None,
    }
}

fn token_public() -> [u8; 32] {
    uplink::Identity::from_seed(TOKEN_SEED).public_key().0
}

/// Accepts what [`token`] issues.
///
/// # Panics
/// The key is unusable: a mistake here.
pub fn verifier() -> Verifier {
    Verifier::new(AUDIENCE.into(), &[token_public()]).expect("a usable key")
}

/// A token of the account with this number, good for half a minute.
///
/// # Panics
/// The claims are unusable: a mistake here.
pub fn token(number: u64, now: Now) -> String {
    let mut secret = [0; 64];
    secret[..32].copy_from_slice(&TOKEN_SEED);
    secret[32..].copy_from_slice(&token_public());
    let claims = Claims {
        audience: AUDIENCE.into(),
        account: format!("account-{number}"),
        id: format!("token-{number}"),
        issued_unix_ms: now.unix_ms,
        expires_unix_ms: now.unix_ms + TOKEN_LIFE_MS,
    };
    issue(&secret, &claims).expect("valid claims")
}

/// A client of [`shard_config`]'s gateway.
pub fn client_config(token: String) -> ClientConfig {
    ClientConfig {
        gateway_key: *StaticKey::from_secret(GATEWAY_SECRET).public(),
        token,
        client_version: 1,
        channel: "test".into(),
        device: "test".into(),
        outbox: OutboxLimits::default(),
        rekey: RekeyPolicy::default(),
        compress_bytes_min: COMPRESS_BYTES_MIN,
    }
}
