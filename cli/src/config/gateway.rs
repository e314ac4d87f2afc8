//! The configuration of a gateway.
//!
//! Owns the keys of `role = "gateway"`, their defaults and why they are what
//! they are. Does not open key files and does not touch the machine: what
//! depends on it comes in as [`Machine`].

use std::net::SocketAddr;
use std::path::PathBuf;

use gateway::limits::Penalty;
use gateway::shard::Versions;
use ipnet::IpNet;
use protocol::limits;
use uplink::PublicKey;

use super::common::{AdminConfig, LogConfig, PeerConfig};
use super::reader::{Reader, key, live};
use super::{Machine, SPARE_DESCRIPTORS};

/// Everything a gateway is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its name in logs, metrics and to backends.
    pub name: String,
    /// `[listen]`.
    pub listen: GatewayListenConfig,
    /// `[engine]`.
    pub engine: EngineConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[heartbeat]`.
    pub heartbeat: HeartbeatConfig,
    /// `resume.time_ms`: how long a session waits for a client that was lost.
    pub resume_ms: u64,
    /// `rekey.frames`: frames under one key before the gateway changes it.
    pub rekey_frames: u64,
    /// `compression.bytes_min`: smaller payloads are not compressed.
    pub compression_bytes_min: u32,
    /// `channels.seal`: once for all members of a channel, not for each.
    pub seal_channels_once: bool,
    /// `[token]`.
    pub token: TokenConfig,
    /// `uplink.identity_file`: who it is to backends.
    pub identity_file: PathBuf,
    /// `[center]`.
    pub center: PeerConfig,
    /// `[versions]`.
    pub versions: VersionsConfig,
    /// `[[group]]`.
    pub groups: Vec<GroupConfig>,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[listen]` of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListenConfig {
    /// Where clients come in.
    pub tcp: SocketAddr,
    /// Whether they come over UDP too, at the same port.
    pub udp: bool,
    /// File with the X25519 secret whose public key the clients pin.
    pub key_file: PathBuf,
    /// Whether each connection begins with a PROXY header.
    pub proxy_required: bool,
    /// Who is believed what it says about a client's address.
    pub proxy_trusted: Vec<IpNet>,
    /// Origins of pages that may open a WebSocket; all, if it is empty.
    pub websocket_origins: Vec<String>,
    /// What is shown to clients that come over TLS; without it there is no TLS.
    pub tls: Option<TlsFiles>,
}

/// Where a certificate lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `listen.tls_cert_file`: PEM, the chain.
    pub certificate: PathBuf,
    /// `listen.tls_key_file`: PEM, its private key.
    pub key: PathBuf,
}

/// `[engine]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// Which one.
    pub kind: EngineKind,
    /// Shards; 0 takes one a core.
    pub shards: u32,
    /// Whether each shard stays on its core.
    pub pin: bool,
}

/// Which engine does the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// uring where a probe finds it, else epoll.
    Auto,
    /// io_uring, or the gateway does not start.
    Uring,
    /// epoll.
    Epoll,
}

/// `[limits]`; rates and bytes are for one connection, but where a network or an account is
/// named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Logged-in sessions of the whole process.
    pub sessions_max: u32,
    /// Connections that have not logged in, of the whole process.
    pub connections_before_login_max: u32,
    /// From accept to the end of the handshake.
    pub handshake_timeout_ms: u64,
    /// From accept to the login.
    pub login_timeout_ms: u64,
    /// Frames a second, sustained; 0 switches this limit off.
    pub frames_per_second: u32,
    /// Frames at once.
    pub frames_burst: u32,
    /// Bytes a second, sustained; 0 switches this limit off.
    pub bytes_per_second: u32,
    /// Bytes at once.
    pub bytes_burst: u32,
    /// What may wait to be sent to one client.
    pub send_queue_bytes: u32,
    /// How long what is sent may wait for a client to read it.
    pub write_timeout_ms: u64,
    /// What may wait for one backend in one shard.
    pub uplink_queue_bytes: u32,
    /// For frames above the two rates.
    pub rate_penalty: Penalty,
    /// Networks whose members share none of the limits of a network.
    pub network_exempt: Vec<IpNet>,
    /// Connections that a network (IPv4 /24, IPv6 /64) may have open; 0: any number.
    pub network_connections_max: u32,
    /// Connections a second from a network, sustained; 0 switches this limit off.
    pub network_connections_per_second: u32,
    /// Connections at once.
    pub network_connections_burst: u32,
    /// For connections above either.
    pub network_connections_penalty: Penalty,
    /// Handshakes a second of a network, sustained; 0 switches this limit off.
    pub network_handshakes_per_second: u32,
    /// Handshakes at once.
    pub network_handshakes_burst: u32,
    /// For handshakes above.
    pub network_handshakes_penalty: Penalty,
    /// Logins a minute of an account, sustained; 0 switches this limit off.
    pub account_logins_per_minute: u32,
    /// Logins at once.
    pub account_logins_burst: u32,
    /// For logins above.
    pub account_logins_penalty: Penalty,
}

/// `[heartbeat]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// A client that has sent nothing for so long sends PING.
    pub interval_ms: u64,
    /// Who has heard nothing for so long closes.
    pub idle_timeout_ms: u64,
}

/// `[token]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// The `aud` that tokens must carry.
    pub audience: String,
    /// Keys that may sign them.
    pub keys: Vec<PublicKey>,
    /// Files with more of these, one a file.
    pub key_files: Vec<PathBuf>,
}

/// `[versions]` of the game client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionsConfig {
    /// Older ones are sent away.
    pub minimum: u32,
    /// Where they get another one: the text of their CLOSE.
    pub upgrade_address: Option<String>,
}

/// One of a group's instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceConfig {
    /// Where it is.
    pub peer: PeerConfig,
    /// The client versions that it takes.
    pub versions: Versions,
}

/// `[[group]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// What messages are routed by.
    pub id: u16,
    /// For people.
    pub name: String,
    /// The processes that serve it.
    pub instances: Vec<InstanceConfig>,
}

impl GatewayConfig {
    /// Reads all keys of the role.
    pub fn read(reader: &mut Reader<'_>, machine: &Machine) -> Self {
        let name = reader.name(key("name"), Some("gateway"));
        let listen = GatewayListenConfig::read(reader);
        let engine = EngineConfig::read(reader);
        let gateway = Self {
            name,
            listen,
            engine,
            limits: LimitsConfig::read(reader, engine.kind, machine),
            heartbeat: HeartbeatConfig::read(reader),
            // A tunnel, a lift, a changed network: longer, and players of a game
            // would wonder about somebody who stands still.
            resume_ms: reader.integer(key("resume.time_ms"), Some(60_000), 0..=3_600_000),
            // 2^20 is the protocol's own bound; lower serves tests. Below 16 the
            // change of keys costs more than the frames.
            rekey_frames: reader.integer(
                live("rekey.frames"),
                Some(limits::REKEY_FRAMES),
                16..=limits::REKEY_FRAMES,
            ),
            // Below 64 bytes LZ4 hardly ever wins its own four bytes back.
            compression_bytes_min: reader.integer32(
                live("compression.bytes_min"),
                Some(64),
                1..=1 << 20,
            ),
            // A member could forge what others are sent, if it also controlled their
            // path: who minds that pays a seal a member.
            seal_channels_once: reader.choice(
                key("channels.seal"),
                "once",
                &[("once", true), ("each", false)],
            ),
            token: TokenConfig::read(reader),
            identity_file: reader.path(key("uplink.identity_file"), "gateway.identity"),
            center: PeerConfig::read(reader, "center"),
            versions: VersionsConfig::read(reader),
            groups: read_groups(reader),
            admin: AdminConfig::read(reader, "127.0.0.1:7001"),
            log: LogConfig::read(reader),
        };
        gateway.check_relations(reader);
        gateway
    }

    fn check_relations(&self, reader: &mut Reader<'_>) {
        let LimitsConfig {
            handshake_timeout_ms,
            login_timeout_ms,
            ..
        } = self.limits;
        if handshake_timeout_ms > login_timeout_ms {
            reader.problem_at(
                "limits.handshake_timeout_ms",
                format!("{handshake_timeout_ms} is above limits.login_timeout_ms, which also counts from accept"),
            );
        }
        let HeartbeatConfig {
            interval_ms,
            idle_timeout_ms,
        } = self.heartbeat;
        if idle_timeout_ms < interval_ms.saturating_mul(2) {
            reader.problem_at(
                "heartbeat.idle_timeout_ms",
                format!("{idle_timeout_ms} is under twice heartbeat.interval_ms: one late PING would end a session"),
            );
        }
    }
}

impl GatewayListenConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let tcp = reader.socket(key("listen.tcp"), "0.0.0.0:7000");
        // Not a guess by the first bytes: a client could send a header itself.
        let proxy_required = reader.choice(
            key("listen.proxy_protocol"),
            "off",
            &[("off", false), ("required", true)],
        );
        let listen = Self {
            tcp,
            // One port number for all transports; off where a firewall passes TCP only, and
            // where all clients are to come through a balancer of TCP.
            udp: reader.boolean(key("listen.udp"), !proxy_required),
            key_file: reader.path(key("listen.key_file"), "gateway.key"),
            proxy_required,
            proxy_trusted: reader.networks(live("listen.proxy_trusted"), &[]),
            websocket_origins: reader.origins(live("listen.websocket_origins")),
            tls: TlsFiles::read(reader),
        };
        if listen.proxy_required && listen.udp {
            reader.problem_at(
                "listen.udp",
                "datagrams have no PROXY header, so with listen.proxy_protocol = \"required\" \
                 clients could come past the balancer: set listen.udp = false, or run a second \
                 gateway for UDP"
                    .to_owned(),
            );
        }
        if listen.proxy_required && listen.proxy_trusted.is_empty() {
            reader.problem_at(
                "listen.proxy_protocol",
                "\"required\", and listen.proxy_trusted is empty: nobody could connect; \
                 name the networks of the balancers there"
                    .to_owned(),
            );
        }
        listen
    }
}

impl TlsFiles {
    /// Live: certificates are renewed every few weeks.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let [certificate, key] = ["listen.tls_cert_file", "listen.tls_key_file"].map(|path| {
            let file = reader.optional_path(live(path));
            (path, file)
        });
        match (certificate, key) {
            ((_, Some(certificate)), (_, Some(key))) => Some(Self { certificate, key }),
            ((_, None), (_, None)) => None,
            ((given, Some(_)), (missing, None)) | ((missing, None), (given, Some(_))) => {
                reader.problem_at(given, format!("TLS needs {missing} beside it"));
                None
            }
        }
    }
}

impl EngineConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            // The probe is right; the choice is there for tests and for kernels
            // whose io_uring is switched off later.
            kind: reader.choice(
                key("engine.kind"),
                "auto",
                &[
                    ("auto", EngineKind::Auto),
                    ("uring", EngineKind::Uring),
                    ("epoll", EngineKind::Epoll),
                ],
            ),
            shards: reader.integer32(key("engine.shards"), Some(0), 0..=256),
            // Off where other processes are pinned to the same cores.
            pin: reader.boolean(key("engine.pin"), true),
        }
    }
}

impl LimitsConfig {
    fn read(reader: &mut Reader<'_>, kind: EngineKind, machine: &Machine) -> Self {
        // The ring's direct descriptors are not counted by the open-file limit,
        // epoll's are.
        let uring = machine.uring && kind != EngineKind::Epoll;
        let by_files = machine
            .open_files
            .saturating_sub(SPARE_DESCRIPTORS)
            .clamp(1, 110_000);
        let sessions = if uring {
            110_000
        } else {
            u32::try_from(by_files).unwrap_or(110_000)
        };
        Self {
            sessions_max: reader.integer32(
                live("limits.sessions_max"),
                Some(sessions),
                1..=1_000_000,
            ),
            // At about 1 KiB each this bounds what strangers can take to 32 MiB,
            // and two connects of everybody at once still fit on most hosts.
            connections_before_login_max: reader.integer32(
                live("limits.connections_before_login_max"),
                Some(sessions.min(32_768)),
                1..=1_000_000,
            ),
            // Two round trips of a bad mobile network, with one lost packet each.
            handshake_timeout_ms: reader.integer(
                live("limits.handshake_timeout_ms"),
                Some(5_000),
                100..=60_000,
            ),
            login_timeout_ms: reader.integer(
                live("limits.login_timeout_ms"),
                Some(10_000),
                100..=120_000,
            ),
            // 60 turns a second, each with an input and three other messages. At
            // once a client may send its whole outbox again (1,024 messages), and
            // then go on.
            frames_per_second: reader.integer32(
                live("limits.frames_per_second"),
                Some(240),
                0..=10_000_000,
            ),
            frames_burst: reader.integer32(
                live("limits.frames_burst"),
                Some(1_200),
                1..=10_000_000,
            ),
            // 240 frames of 1 KiB, rounded up; the burst takes a whole outbox
            // (256 KiB and its frame headers), and one largest frame has to fit.
            bytes_per_second: reader.integer32(
                live("limits.bytes_per_second"),
                Some(262_144),
                0..=1 << 30,
            ),
            bytes_burst: reader.integer32(
                live("limits.bytes_burst"),
                Some(12 * FRAME_BYTES_MAX),
                FRAME_BYTES_MAX..=1 << 30,
            ),
            // A backend that sends its whole outbox again (256 KiB and the frame
            // headers) must not make its client look slow; 1,000 clients that
            // stall hold 384 MiB at most. One largest frame has to fit.
            send_queue_bytes: reader.integer32(
                live("limits.send_queue_bytes"),
                Some(12 * FRAME_BYTES_MAX),
                FRAME_BYTES_MAX..=1 << 26,
            ),
            // A phone that is out of reach for this long has lost its connection: it resumes.
            write_timeout_ms: reader.integer(
                live("limits.write_timeout_ms"),
                Some(15_000),
                100..=600_000,
            ),
            // About 100 ms of a shard's busiest traffic to one backend, which
            // covers a short stall of it and is still memory nobody misses.
            uplink_queue_bytes: reader.integer32(
                live("limits.uplink_queue_bytes"),
                Some(4 << 20),
                1 << 16..=1 << 30,
            ),
            rate_penalty: penalty(reader, "limits.rate_penalty", "delay"),
            // What comes over loopback is this host's own: load tests, health checks, a proxy
            // that hides its clients.
            network_exempt: reader
                .networks(live("limits.network_exempt"), &["127.0.0.0/8", "::1/128"]),
            // A provider may put thousands of players behind one network, and after an outage
            // they all come at once. An eighth of what may be there before login.
            network_connections_max: reader.integer32(
                live("limits.network_connections_max"),
                Some(4_096),
                0..=1_000_000,
            ),
            network_connections_per_second: reader.integer32(
                live("limits.network_connections_per_second"),
                Some(256),
                0..=1_000_000,
            ),
            network_connections_burst: reader.integer32(
                live("limits.network_connections_burst"),
                Some(4_096),
                1..=1_000_000,
            ),
            // Said to nobody: an answer costs more than the refusal.
            network_connections_penalty: penalty(
                reader,
                "limits.network_connections_penalty",
                "drop",
            ),
            // A twentieth of what one core can do (4,000 logins a second).
            network_handshakes_per_second: reader.integer32(
                live("limits.network_handshakes_per_second"),
                Some(200),
                0..=1_000_000,
            ),
            network_handshakes_burst: reader.integer32(
                live("limits.network_handshakes_burst"),
                Some(4_096),
                1..=1_000_000,
            ),
            network_handshakes_penalty: penalty(
                reader,
                "limits.network_handshakes_penalty",
                "disconnect",
            ),
            // A player who logs in anew each second is none; the burst is for one whose
            // network fails again and again and whose sessions do not wait.
            account_logins_per_minute: reader.integer32(
                live("limits.account_logins_per_minute"),
                Some(60),
                0..=60_000,
            ),
            account_logins_burst: reader.integer32(
                live("limits.account_logins_burst"),
                Some(20),
                1..=60_000,
            ),
            account_logins_penalty: penalty(reader, "limits.account_logins_penalty", "disconnect"),
        }
    }
}

fn penalty(reader: &mut Reader<'_>, path: &str, default: &str) -> Penalty {
    let choices = [
        ("delay", Penalty::Delay),
        ("drop", Penalty::Drop),
        ("disconnect", Penalty::Disconnect),
    ];
    reader.choice(live(path), default, &choices)
}

/// [`limits::FRAME_BYTES_MAX`] in the width of these keys.
const FRAME_BYTES_MAX: u32 = limits::FRAME_BYTES_MAX as u32;

impl HeartbeatConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            // Mobile networks forget an idle mapping after 30 s at the earliest;
            // the timeout lets two heartbeats in a row get lost.
            interval_ms: reader.integer(live("heartbeat.interval_ms"), Some(10_000), 100..=600_000),
            idle_timeout_ms: reader.integer(
                live("heartbeat.idle_timeout_ms"),
                Some(30_000),
                200..=1_800_000,
            ),
        }
    }
}

impl TokenConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let token = Self {
            audience: reader.text(live("token.audience"), "sallyport"),
            keys: reader.public_keys(live("token.keys")),
            key_files: reader.paths(live("token.key_files")),
        };
        if token.keys.is_empty() && token.key_files.is_empty() {
            reader.problem_at(
                "token.keys",
                "nobody could log in: give at least one key that signs tokens \
                 (`sallyport keygen token` prints it), here or in token.key_files"
                    .to_owned(),
            );
        }
        token
    }
}

impl VersionsConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let versions = Self {
            // Every version is let in until somebody says which are too old.
            minimum: reader.integer32(live("versions.minimum"), Some(0), 0..=u32::MAX),
            upgrade_address: reader.optional_text(live("versions.upgrade_address")),
        };
        let address = versions.upgrade_address.as_deref();
        if versions.minimum > 0 && address.is_none() {
            reader.problem_at(
                "versions.minimum",
                "who is sent away must be told where to get another version: set \
                 versions.upgrade_address"
                    .to_owned(),
            );
        }
        if address.is_some_and(|address| address.len() > limits::REASON_TEXT_BYTES_MAX) {
            reader.problem_at(
                "versions.upgrade_address",
                format!("longer than {} bytes", limits::REASON_TEXT_BYTES_MAX),
            );
        }
        versions
    }
}

impl InstanceConfig {
    fn read(reader: &mut Reader<'_>, prefix: &str) -> Self {
        Self {
            peer: PeerConfig::read(reader, prefix),
            versions: reader.versions(live(format!("{prefix}.client_versions"))),
        }
    }
}

fn read_groups(reader: &mut Reader<'_>) -> Vec<GroupConfig> {
    let count = reader.tables("group");
    if count == 0 {
        reader.problem_at(
            "group",
            "at least one [[group]] is needed, or there is nobody to route to".into(),
        );
    }
    if count > limits::GROUPS_MAX {
        reader.problem_at(
            "group",
            format!("{count} groups, at most {}", limits::GROUPS_MAX),
        );
    }
    let mut groups: Vec<GroupConfig> = Vec::with_capacity(count);
    for index in 0..count {
        let prefix = format!("group.{index}");
        let id = reader.integer32(key(format!("{prefix}.id")), None, 1..=u32::from(u16::MAX));
        let id = u16::try_from(id).unwrap_or(u16::MAX);
        let name = reader.name(key(format!("{prefix}.name")), None);
        if groups.iter().any(|group| group.id == id) {
            reader.problem_at(
                &format!("{prefix}.id"),
                format!("{id} is also the id of another group"),
            );
        }
        let path = format!("{prefix}.instances");
        let instances: Vec<InstanceConfig> = (0..reader.tables(&path))
            .map(|instance| InstanceConfig::read(reader, &format!("{path}.{instance}")))
            .collect();
        if instances.is_empty() {
            reader.problem_at(
                &prefix,
                "no instances: write instances = [{ address = \"HOST:PORT\", key = \"…\" }]".into(),
            );
        }
        groups.push(GroupConfig {
            id,
            name,
            instances,
        });
    }
    groups
}
