//! The test vectors of `docs/vectors/` (their README has the format).
//!
//! Everything the protocol crate can be brought to do, it does: keys, frames and
//! tokens are its own, and the reason of a bad frame is what its checks say. Only
//! what no sender may send, and sequences that no test can count up to, is sealed
//! here by hand.

mod bad;
mod channels;
mod datagrams;
mod good;
mod seal;
mod side;
mod websocket;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::cipher::Key;
use protocol::handshake::{
    Initiator, Keys, Parameters, StaticKey, respond, respond_resume, ticket_id,
};
use protocol::reason::CloseReason;
use protocol::token::{Claims, Verifier, issue};
use serde::Serialize;

use crate::artifact::Artifact;

/// The key pair of the PASETO v4 test vectors: known to everyone.
const TOKEN_SECRET: [u8; 32] = [
    0xb4, 0xcb, 0xfb, 0x43, 0xdf, 0x4c, 0xe2, 0x10, 0x72, 0x7d, 0x95, 0x3e, 0x4a, 0x71, 0x33, 0x07,
    0xfa, 0x19, 0xbb, 0x7d, 0x9f, 0x85, 0x04, 0x14, 0x38, 0xd9, 0xe1, 0x1b, 0x94, 0x2a, 0x37, 0x74,
];
const TOKEN_PUBLIC: [u8; 32] = [
    0x1e, 0xb9, 0xdb, 0xbb, 0xbc, 0x04, 0x7c, 0x03, 0xfd, 0x70, 0x60, 0x4e, 0x00, 0x71, 0xf0, 0x98,
    0x7e, 0x16, 0xb2, 0x8b, 0x75, 0x72, 0x25, 0xc1, 0x1f, 0x00, 0x41, 0x5d, 0x0e, 0x20, 0xb1, 0xa2,
];

/// 2026-01-01T00:00:00Z, the moment at which all of this happens.
const UNIX_MS: u64 = 1_767_225_600_000;

const PARAMETERS: Parameters = Parameters {
    frame_bytes_max: 32_768,
    heartbeat_interval_ms: 30_000,
    idle_timeout_ms: 75_000,
    login_timeout_ms: 10_000,
    unix_ms: UNIX_MS,
};

const WELCOME: Welcome = Welcome {
    frame_bytes_max: PARAMETERS.frame_bytes_max,
    heartbeat_interval_ms: PARAMETERS.heartbeat_interval_ms,
    idle_timeout_ms: PARAMETERS.idle_timeout_ms,
    login_deadline_ms: PARAMETERS.login_timeout_ms,
    unix_ms: PARAMETERS.unix_ms,
};

const CLIENT_MS: u32 = 305_419_896;
const GATEWAY_MS: u32 = 2_596_069_104;

#[derive(Serialize)]
struct HandshakeFile {
    version: u32,
    handshake: Handshake,
}

#[derive(Serialize)]
struct Handshake {
    static_private: String,
    static_public: String,
    client_ephemeral_private: String,
    gateway_ephemeral_private: String,
    client_timestamp: u32,
    gateway_timestamp: u32,
    welcome: Welcome,
    hello_frame: String,
    welcome_frame: String,
    handshake_hash: String,
    client_key: String,
    gateway_key: String,
}

#[derive(Serialize)]
struct Welcome {
    frame_bytes_max: u32,
    heartbeat_interval_ms: u32,
    idle_timeout_ms: u32,
    login_deadline_ms: u32,
    unix_ms: u64,
}

#[derive(Serialize)]
struct ResumeFile {
    version: u32,
    resume: Resume,
}

#[derive(Serialize)]
struct Resume {
    /// What the ticket comes from: the keys of the connection before.
    client_key_before: String,
    gateway_key_before: String,
    handshake_hash_before: String,
    ticket_key: String,
    ticket_id: String,
    client_ephemeral_private: String,
    gateway_ephemeral_private: String,
    client_timestamp: u32,
    gateway_timestamp: u32,
    welcome: Welcome,
    resume_frame: String,
    welcome_frame: String,
    handshake_hash: String,
    client_key: String,
    gateway_key: String,
    next_ticket_key: String,
}

#[derive(Serialize)]
struct FramesFile {
    version: u32,
    frames: Vec<good::Frame>,
    rekey: Vec<Rekey>,
}

#[derive(Serialize)]
struct Rekey {
    key: String,
    next: String,
}

#[derive(Serialize)]
struct TokenFile {
    version: u32,
    token: Token,
}

#[derive(Serialize)]
struct Token {
    secret: String,
    public: String,
    claims: String,
    token: String,
}

#[derive(Serialize)]
struct BadFile {
    version: u32,
    bad: Vec<bad::Bad>,
}

/// The files.
pub fn artifacts() -> anyhow::Result<Vec<Artifact>> {
    let (handshake, keys) = handshake()?;
    let (token, token_text) = token()?;
    let handshake_frames = [
        handshake.hello_frame.clone(),
        handshake.welcome_frame.clone(),
    ];
    Ok(vec![
        file(
            "docs/vectors/handshake.json",
            &HandshakeFile {
                version: 1,
                handshake,
            },
        )?,
        file(
            "docs/vectors/resume.json",
            &ResumeFile {
                version: 1,
                resume: resume(&keys)?,
            },
        )?,
        file(
            "docs/vectors/frames.json",
            &FramesFile {
                version: 1,
                frames: good::frames(&keys, &token_text)?,
                rekey: rekeys(&keys),
            },
        )?,
        file("docs/vectors/token.json", &TokenFile { version: 1, token })?,
        file(
            "docs/vectors/bad.json",
            &BadFile {
                version: 1,
                bad: bad::frames()?,
            },
        )?,
        file(
            "docs/vectors/websocket.json",
            &websocket::file(&handshake_frames)?,
        )?,
        file(
            "docs/vectors/datagrams.json",
            &datagrams::file(&bytes(&handshake_frames[0])?, &bytes(&handshake_frames[1])?)?,
        )?,
        file("docs/vectors/side.json", &side::file()?)?,
        file("docs/vectors/channels.json", &channels::file()?)?,
    ])
}

fn file(path: &'static str, content: &impl Serialize) -> anyhow::Result<Artifact> {
    let text = serde_json::to_string_pretty(content)?;
    Ok(Artifact::new(path, text + "\n"))
}

/// 32 bytes that rise from `first`: keys that nobody takes for real ones.
fn rising(first: u8) -> [u8; 32] {
    std::array::from_fn(|at| first.wrapping_add(at as u8))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    (0..hex.len())
        .step_by(2)
        .map(|at| {
            let byte = hex.get(at..at + 2).context("half a byte")?;
            Ok(u8::from_str_radix(byte, 16)?)
        })
        .collect()
}

fn closed(reason: CloseReason) -> anyhow::Error {
    anyhow!(
        "the protocol crate refused its own example: {}",
        reason.label()
    )
}

fn handshake() -> anyhow::Result<(Handshake, Keys)> {
    let gateway = StaticKey::from_secret(rising(0x00));
    let (client_ephemeral, gateway_ephemeral) = (rising(0x40), rising(0x80));
    let parameters = PARAMETERS;
    let (mut hello, mut welcome) = (Vec::new(), Vec::new());
    let initiator = Initiator::hello(gateway.public(), client_ephemeral, CLIENT_MS, &mut hello)
        .map_err(closed)?;
    let keys = respond(
        &gateway,
        gateway_ephemeral,
        &hello,
        GATEWAY_MS,
        &parameters,
        &mut welcome,
    )
    .map_err(closed)?;
    let (client_keys, _) = initiator.welcome(&welcome).map_err(closed)?;
    anyhow::ensure!(
        client_keys.hash == keys.hash,
        "the two sides of the handshake differ"
    );
    let handshake = Handshake {
        static_private: hex(gateway.secret()),
        static_public: hex(gateway.public()),
        client_ephemeral_private: hex(&client_ephemeral),
        gateway_ephemeral_private: hex(&gateway_ephemeral),
        client_timestamp: CLIENT_MS,
        gateway_timestamp: GATEWAY_MS,
        welcome: WELCOME,
        hello_frame: hex(&hello),
        welcome_frame: hex(&welcome),
        handshake_hash: hex(&keys.hash),
        client_key: hex(&keys.client.0),
        gateway_key: hex(&keys.gateway.0),
    };
    Ok((handshake, keys))
}

/// The connection of `before` is lost, and another one resumes its session.
fn resume(before: &Keys) -> anyhow::Result<Resume> {
    let ticket = before.ticket();
    let (client_ephemeral, gateway_ephemeral) = (rising(0xc0), rising(0x20));
    let (mut frame, mut welcome) = (Vec::new(), Vec::new());
    let initiator =
        Initiator::resume(&ticket, client_ephemeral, CLIENT_MS, &mut frame).map_err(closed)?;
    let keys = respond_resume(
        &ticket,
        gateway_ephemeral,
        &frame,
        GATEWAY_MS,
        &PARAMETERS,
        &mut welcome,
    )
    .map_err(closed)?;
    let (client_keys, _) = initiator.welcome(&welcome).map_err(closed)?;
    anyhow::ensure!(
        client_keys.ticket() == keys.ticket() && ticket_id(&frame) == Some(ticket.id()),
        "the two sides of the resume differ"
    );
    Ok(Resume {
        client_key_before: hex(&before.client.0),
        gateway_key_before: hex(&before.gateway.0),
        handshake_hash_before: hex(&before.hash),
        ticket_key: hex(ticket.key()),
        ticket_id: hex(&ticket.id().0.to_le_bytes()),
        client_ephemeral_private: hex(&client_ephemeral),
        gateway_ephemeral_private: hex(&gateway_ephemeral),
        client_timestamp: CLIENT_MS,
        gateway_timestamp: GATEWAY_MS,
        welcome: WELCOME,
        resume_frame: hex(&frame),
        welcome_frame: hex(&welcome),
        handshake_hash: hex(&keys.hash),
        client_key: hex(&keys.client.0),
        gateway_key: hex(&keys.gateway.0),
        next_ticket_key: hex(keys.ticket().key()),
    })
}

fn rekeys(keys: &Keys) -> Vec<Rekey> {
    [
        Key([0; 32]),
        Key([0xff; 32]),
        keys.client.clone(),
        keys.client.next(),
    ]
    .iter()
    .map(|key| Rekey {
        key: hex(&key.0),
        next: hex(&key.next().0),
    })
    .collect()
}

fn token() -> anyhow::Result<(Token, String)> {
    let mut secret = [0; 64];
    secret[..32].copy_from_slice(&TOKEN_SECRET);
    secret[32..].copy_from_slice(&TOKEN_PUBLIC);
    let claims = Claims {
        audience: "example".to_owned(),
        account: "alice".to_owned(),
        id: "0f5c2ad1".to_owned(),
        issued_unix_ms: UNIX_MS,
        expires_unix_ms: UNIX_MS + 60_000,
    };
    let text = issue(&secret, &claims)?;
    let verifier = Verifier::new(claims.audience.clone(), &[TOKEN_PUBLIC])
        .context("the public token key is unusable")?;
    let verified = verifier.verify(text.as_bytes(), UNIX_MS).map_err(closed)?;
    anyhow::ensure!(verified == claims, "the token says something else");
    let signed = text
        .strip_prefix("v4.public.")
        .context("the token is not a v4.public one")?;
    let signed = URL_SAFE_NO_PAD.decode(signed)?;
    let (payload, _signature) = signed
        .split_last_chunk::<64>()
        .context("the token has no signature")?;
    let token = Token {
        secret: hex(&secret),
        public: hex(&TOKEN_PUBLIC),
        claims: String::from_utf8(payload.to_vec())?,
        token: text.clone(),
    };
    Ok((token, text))
}
