//! The configuration of center and game.
//!
//! Owns the keys of `role = "center"` and `role = "game"`, which share how
//! gateways reach them. Does not open files.

use std::net::SocketAddr;
use std::path::PathBuf;

use protocol::limits;
use uplink::PublicKey;

use super::common::{AdminConfig, LogConfig};
use super::map::WalkConfig;
use super::reader::{Reader, key, live};

/// `[listen]` of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendListenConfig {
    /// Where gateways come in (UDP port).
    pub quic: SocketAddr,
    /// Who it is to gateways.
    pub identity_file: PathBuf,
    /// The gateways that may connect.
    pub gateway_keys: Vec<PublicKey>,
}

/// Everything center is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CenterConfig {
    /// Its name in logs, metrics and to gateways.
    pub name: String,
    /// `[listen]`.
    pub listen: BackendListenConfig,
    /// Where the journal of sessions and fences lies.
    pub data_dir: PathBuf,
    /// A gateway that has not renewed for so long has closed its sessions.
    pub lease_ms: u64,
    /// Sessions in the user table.
    pub sessions_max: u32,
    /// `sessions_online_max`: who comes beyond waits.
    pub online_max: u32,
    /// `admission.busy_percent`: a busier shard lets nobody in; 0: however busy.
    pub busy_percent: u32,
    /// `[queue]`.
    pub queue: QueueConfig,
    /// How the journal is written.
    pub journal: JournalKind,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[queue]` of those who wait to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Places; 0: who would wait is refused.
    pub places_max: u32,
    /// How long a lost connection keeps its place.
    pub forgiven_ms: u64,
    /// How long after its end a session's player goes before others.
    pub returning_ms: u64,
}

/// How the journal is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalKind {
    /// io_uring where a probe finds it, else a thread.
    Auto,
    /// io_uring.
    Uring,
    /// A plain thread.
    Thread,
}

/// Everything a game process is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GameConfig {
    /// Its name in logs, metrics and to gateways.
    pub name: String,
    /// `[listen]`.
    pub listen: BackendListenConfig,
    /// `game.kind`.
    pub kind: GameKind,
    /// `game.group`: the group it serves.
    pub group: u16,
    /// Whether it is told the clients' addresses.
    pub client_addresses: bool,
    /// Sessions at a time.
    pub sessions_max: u32,
    /// Bytes that may wait for one session's acknowledgement.
    pub outbox_bytes: u32,
    /// Messages that may wait for one session's acknowledgement.
    pub outbox_messages: u32,
    /// How long sessions outlive the loss of their gateway's link.
    pub link_grace_ms: u64,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// What the game does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GameKind {
    /// Sends every request back.
    Echo,
    /// Players speak in channels.
    Chat,
    /// A map on which players see those near them, with `[map]`.
    Walk(WalkConfig),
}

impl BackendListenConfig {
    fn read(reader: &mut Reader<'_>, quic: &str, identity_file: &str) -> Self {
        let listen = Self {
            quic: reader.socket(key("listen.quic"), quic),
            identity_file: reader.path(key("listen.identity_file"), identity_file),
            gateway_keys: reader.public_keys(key("listen.gateway_keys")),
        };
        if listen.gateway_keys.is_empty() {
            reader.problem_at(
                "listen.gateway_keys",
                "no gateway could connect: give the key of each one's identity \
                 (`sallyport keygen identity` prints it)"
                    .to_owned(),
            );
        }
        listen
    }
}

impl CenterConfig {
    /// Reads all keys of the role.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        // A little over two full gateways, at about 750 bytes each.
        let sessions_max = reader.integer32(key("sessions_max"), Some(250_000), 1..=10_000_000);
        Self {
            name: reader.name(key("name"), Some("center")),
            data_dir: reader.path(key("data_dir"), "data"),
            // Long enough for a center that restarts or a standby that takes
            // over; also how long an account waits when its gateway vanished.
            lease_ms: reader.integer(key("lease_ms"), Some(15_000), 1_000..=600_000),
            sessions_max,
            // As many as there is room for, unless the games behind hold fewer.
            online_max: reader.integer32(
                live("sessions_online_max"),
                Some(sessions_max),
                1..=10_000_000,
            ),
            // At half of its time a shard still answers at once, and what the logins themselves
            // and the play after them cost finds room.
            busy_percent: reader.integer32(key("admission.busy_percent"), Some(50), 0..=100),
            queue: QueueConfig {
                // A popular evening; about 1 KiB each.
                places_max: reader.integer32(
                    live("queue.places_max"),
                    Some(200_000),
                    0..=2_000_000,
                ),
                // A tunnel, a changed network, an app that was put aside.
                forgiven_ms: reader.integer(live("queue.forgiven_ms"), Some(60_000), 0..=3_600_000),
                // Whoever was thrown out by a crash is back before those who come home.
                returning_ms: reader.integer(
                    live("queue.returning_ms"),
                    Some(300_000),
                    0..=86_400_000,
                ),
            },
            journal: reader.choice(
                key("journal"),
                "auto",
                &[
                    ("auto", JournalKind::Auto),
                    ("uring", JournalKind::Uring),
                    ("thread", JournalKind::Thread),
                ],
            ),
            listen: BackendListenConfig::read(reader, "0.0.0.0:7100", "center.identity"),
            admin: AdminConfig::read(reader, "127.0.0.1:7101"),
            log: LogConfig::read(reader),
        }
    }
}

impl GameConfig {
    /// Reads all keys of the role.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let name = reader.name(key("name"), Some("game"));
        let listen = BackendListenConfig::read(reader, "0.0.0.0:7200", "game.identity");
        let kinds = [
            ("echo", Some(GameKind::Echo)),
            ("walk", None),
            ("chat", Some(GameKind::Chat)),
        ];
        let kinds = kinds.each_ref().map(|(name, kind)| (*name, kind.as_ref()));
        let plain = reader.choice(key("game.kind"), "echo", &kinds);
        let group = reader.integer32(key("game.group"), Some(1), 1..=u32::from(u16::MAX));
        // A game without a map has none of its keys.
        let kind = plain
            .cloned()
            .unwrap_or_else(|| GameKind::Walk(WalkConfig::read(reader)));
        Self {
            name,
            listen,
            kind,
            group: u16::try_from(group).unwrap_or(u16::MAX),
            // A personal datum: only for a game that says what it is for.
            client_addresses: reader.boolean(key("game.client_addresses"), false),
            // As at center, so that a session that it granted finds room here.
            sessions_max: reader.integer32(
                key("sessions.sessions_max"),
                Some(250_000),
                1..=10_000_000,
            ),
            // What the client's own end keeps, so that neither is the tighter one.
            outbox_bytes: reader.integer32(
                key("sessions.outbox_bytes"),
                Some(limits::OUTBOX_BYTES_MAX as u32),
                limits::DECOMPRESSED_BYTES_MAX as u32..=1 << 26,
            ),
            outbox_messages: reader.integer32(
                key("sessions.outbox_messages"),
                Some(limits::OUTBOX_MESSAGES_MAX as u32),
                // Acknowledgements may wait for this many messages.
                limits::ACK_MESSAGES_MAX * 4..=1 << 20,
            ),
            // The clients of a lost gateway may come back elsewhere for the lease and
            // the resume time; after both center has given them up.
            link_grace_ms: reader.integer(
                key("sessions.link_grace_ms"),
                Some(backend::stub::LINK_GRACE_MS_DEFAULT),
                1_000..=600_000,
            ),
            admin: AdminConfig::read(reader, "127.0.0.1:7201"),
            log: LogConfig::read(reader),
        }
    }
}
