//! Sections that every role has: `[admin]`, `[log]`, and naming a peer.
//!
//! Owns their keys and defaults. Invariant: an admin port that others than
//! this host can reach always has a token.

use std::net::SocketAddr;
use std::path::PathBuf;

use uplink::PublicKey;

use super::reader::{Reader, key, live, live_secret};
use super::values::HostPort;

/// `[admin]`: metrics, health and figures over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The bearer token itself; meant for the environment.
    pub token: Option<String>,
    /// File with the bearer token in its first line.
    pub token_file: Option<PathBuf>,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged at least.
    pub level: tracing::level_filters::LevelFilter,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A process on the other end of an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it listens (QUIC).
    pub address: HostPort,
    /// The key of its identity.
    pub key: PublicKey,
}

/// What a bearer token has to be.
pub const BEARER_EXPECTED: &str = "a token of at least 16 letters without blanks is expected";

/// Whether a text can be a bearer token: short ones are guessed, and others
/// than visible ASCII cannot stand in a header.
pub fn usable_as_bearer(token: &str) -> bool {
    token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic())
}

impl AdminConfig {
    /// Reads `[admin]`; each role has a port of its own by default, so that all
    /// of them start on one host.
    pub fn read(reader: &mut Reader<'_>, default_listen: &str) -> Self {
        let admin = Self {
            listen: reader.socket(key("admin.listen"), default_listen),
            token: reader.optional_text(live_secret("admin.token")),
            token_file: reader.optional_path(live("admin.token_file")),
        };
        if admin.token.is_some() && admin.token_file.is_some() {
            reader.problem_at(
                "admin.token",
                "stands beside admin.token_file: remove one".into(),
            );
        }
        if admin
            .token
            .as_deref()
            .is_some_and(|token| !usable_as_bearer(token))
        {
            reader.problem_at("admin.token", BEARER_EXPECTED.into());
        }
        let guarded = admin.token.is_some() || admin.token_file.is_some();
        if !admin.listen.ip().is_loopback() && !guarded {
            reader.problem_at(
                "admin.listen",
                format!(
                    "{} can be reached from other hosts and has no token: set admin.token_file, \
                     or listen on 127.0.0.1",
                    admin.listen
                ),
            );
        }
        admin
    }
}

impl LogConfig {
    /// Reads `[log]`.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        use tracing::level_filters::LevelFilter as Level;
        Self {
            // `info` says once what was chosen and who came and went among
            // processes; nothing in it is per client.
            level: reader.choice(
                live("log.level"),
                "info",
                &[
                    ("error", Level::ERROR),
                    ("warn", Level::WARN),
                    ("info", Level::INFO),
                    ("debug", Level::DEBUG),
                    ("trace", Level::TRACE),
                ],
            ),
            format: reader.choice(
                key("log.format"),
                "text",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
        }
    }
}

impl PeerConfig {
    /// Reads the two keys below `prefix`.
    pub fn read(reader: &mut Reader<'_>, prefix: &str) -> Self {
        Self {
            address: reader.address(key(format!("{prefix}.address"))),
            key: reader.public_key(key(format!("{prefix}.key"))),
        }
    }
}
