//! The handshake (PROTOCOL §3): Noise NK by the `snow` crate, its frames, and
//! the keys that come out of it.
//!
//! `resume` has the handshake that a ticket replaces it with.
//!
//! Invariant: the ephemeral secret is passed in, used for one handshake, and
//! forgotten; no application data travels before the keys stand.

mod resume;

use std::cell::Cell;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use crate::cipher::{ChaChaPoly, Key};
use crate::dh::{self, X25519};
use crate::frame::{self, AAD_BYTES, FLAG_HANDSHAKE, Header};
use crate::limits::{FRAME_HEADER_BYTES, HANDSHAKE_FRAME_BYTES_MIN};
use crate::reason::CloseReason;
use crate::ticket::Ticket;
pub use resume::{NOISE_RESUME_NAME, RESUME_FRAME_BYTES, respond_resume, ticket_id};

/// The version of the protocol that this code speaks.
pub const VERSION: u8 = 1;

/// The Noise protocol name (revision 34, §8).
pub const NOISE_NAME: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";

const PROLOGUE_LABEL: &[u8; 14] = b"sallyport-nk-1";
const CLEAR_BYTES: usize = 4;
const TYPE_HELLO: u8 = 1;
const TYPE_WELCOME: u8 = 2;
const TYPE_REJECT: u8 = 3;
const NOISE_HELLO_BYTES: usize = 48;
const PARAMETERS_BYTES: usize = 24;
const NOISE_WELCOME_BYTES: usize = 32 + PARAMETERS_BYTES + 16;

/// Bytes of a HELLO frame.
pub const HELLO_FRAME_BYTES: usize = FRAME_HEADER_BYTES + CLEAR_BYTES + NOISE_HELLO_BYTES;

/// Bytes of a WELCOME frame.
pub const WELCOME_FRAME_BYTES: usize = FRAME_HEADER_BYTES + CLEAR_BYTES + NOISE_WELCOME_BYTES;

/// What the gateway tells a client in WELCOME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Largest frame that the gateway accepts, bytes.
    pub frame_bytes_max: u32,
    /// A client silent for so long, ms, sends PING.
    pub heartbeat_interval_ms: u32,
    /// Either side closes after hearing nothing for so long, ms.
    pub idle_timeout_ms: u32,
    /// Time, ms, from the accepted socket to a finished login.
    pub login_timeout_ms: u32,
    /// The gateway's calendar, Unix ms.
    pub unix_ms: u64,
}

impl Parameters {
    fn encode(&self) -> [u8; PARAMETERS_BYTES] {
        let mut out = [0; PARAMETERS_BYTES];
        out[..4].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        out[4..8].copy_from_slice(&self.heartbeat_interval_ms.to_le_bytes());
        out[8..12].copy_from_slice(&self.idle_timeout_ms.to_le_bytes());
        out[12..16].copy_from_slice(&self.login_timeout_ms.to_le_bytes());
        out[16..].copy_from_slice(&self.unix_ms.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; PARAMETERS_BYTES]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            frame_bytes_max: word(0),
            heartbeat_interval_ms: word(4),
            idle_timeout_ms: word(8),
            login_timeout_ms: word(12),
            unix_ms: u64::from(word(16)) | u64::from(word(20)) << 32,
        }
    }
}

/// The keys of a connection.
#[derive(Debug)]
pub struct Keys {
    /// Seals what the client sends.
    pub client: Key,
    /// Seals what the gateway sends.
    pub gateway: Key,
    /// The handshake hash `h` (Noise §5.2): the same on both sides, and on no
    /// other connection.
    pub hash: [u8; 32],
}

impl Keys {
    /// With which this connection's session can be resumed.
    pub fn ticket(&self) -> Ticket {
        Ticket::derive(&self.client, &self.gateway, &self.hash)
    }
}

/// The static key of a gateway.
#[derive(Clone)]
pub struct StaticKey {
    secret: [u8; 32],
    public: [u8; 32],
}

impl std::fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl StaticKey {
    /// The key pair that belongs to these 32 secret bytes.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self {
            public: dh::public_of(&secret),
            secret,
        }
    }

    /// What clients pin.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The 32 secret bytes, for storing them.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

/// The client's side, between HELLO and WELCOME.
pub struct Initiator {
    noise: Box<snow::HandshakeState>,
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Initiator")
    }
}

impl Initiator {
    /// Appends the HELLO frame to `out`. `ephemeral` is the secret X25519
    /// key of this handshake: fresh, secret, never used again.
    ///
    /// # Errors
    /// `BadHandshake` if the pinned key is not a usable public key.
    pub fn hello(
        gateway: &[u8; 32],
        ephemeral: [u8; 32],
        timestamp_ms: u32,
        out: &mut Vec<u8>,
    ) -> Result<Self, CloseReason> {
        let clear = [TYPE_HELLO, VERSION, 0, 0];
        let head = Header {
            length: HELLO_FRAME_BYTES as u32,
            flags: FLAG_HANDSHAKE,
            sequence: 0,
            timestamp_ms,
            crc: 0,
        }
        .encode();
        let prologue = prologue(&head, &clear);
        let mut noise = builder(NOISE_NAME, ephemeral)?
            .prologue(&prologue)
            .and_then(|b| b.remote_public_key(gateway))
            .and_then(snow::Builder::build_initiator)
            .map_err(|_| CloseReason::BadHandshake)?;
        let mut body = [0; CLEAR_BYTES + NOISE_HELLO_BYTES];
        body[..CLEAR_BYTES].copy_from_slice(&clear);
        noise
            .write_message(&[], &mut body[CLEAR_BYTES..])
            .map_err(|_| CloseReason::BadHandshake)?;
        frame::encode_handshake(timestamp_ms, &body, out);
        Ok(Self {
            noise: Box::new(noise),
        })
    }

    /// Reads the gateway's answer.
    ///
    /// # Errors
    /// The reason in a REJECT, or what is wrong with the WELCOME.
    pub fn welcome(mut self, frame: &[u8]) -> Result<(Keys, Parameters), CloseReason> {
        let (kind, clear, message) = open_handshake(frame)?;
        match kind {
            TYPE_WELCOME => {}
            TYPE_REJECT => {
                let code = u16::from_le_bytes([clear[2], clear[3]]);
                return Err(CloseReason::from_code(code).unwrap_or(CloseReason::BadHandshake));
            }
            _ => return Err(CloseReason::BadHandshake),
        }
        if clear[1] != VERSION {
            return Err(CloseReason::BadVersion);
        }
        // Room for whatever a WELCOME of a later version may carry.
        let mut payload = [0; 512];
        if message.len() > payload.len() {
            return Err(CloseReason::BadHandshake);
        }
        let length = self
            .noise
            .read_message(message, &mut payload)
            .map_err(|_| CloseReason::BadHandshake)?;
        let parameters = payload[..length]
            .first_chunk()
            .map(Parameters::decode)
            .ok_or(CloseReason::BadHandshake)?;
        Ok((keys(&mut self.noise)?, parameters))
    }
}

/// The gateway's side, all of it: reads a HELLO frame (whose length has been
/// checked), appends the WELCOME frame to `out`, and returns the keys.
///
/// # Errors
/// `BadFlags`, `BadCrc`, `BadVersion`, `BadHandshake`; nothing was appended.
pub fn respond(
    gateway: &StaticKey,
    ephemeral: [u8; 32],
    hello: &[u8],
    timestamp_ms: u32,
    parameters: &Parameters,
    out: &mut Vec<u8>,
) -> Result<Keys, CloseReason> {
    let (kind, clear, message) = open_handshake(hello)?;
    if clear[1] != VERSION {
        return Err(CloseReason::BadVersion);
    }
    if kind != TYPE_HELLO || message.len() != NOISE_HELLO_BYTES {
        return Err(CloseReason::BadHandshake);
    }
    let prologue = prologue(hello, &clear);
    let mut noise = builder(NOISE_NAME, ephemeral)?
        .prologue(&prologue)
        .and_then(|b| b.local_private_key(&gateway.secret))
        .and_then(snow::Builder::build_responder)
        .map_err(|_| CloseReason::BadHandshake)?;
    noise
        .read_message(message, &mut [])
        .map_err(|_| CloseReason::BadHandshake)?;
    write_welcome(&mut noise, timestamp_ms, parameters, out)
}

/// The second message, which ends the handshake: both patterns have the same.
fn write_welcome(
    noise: &mut snow::HandshakeState,
    timestamp_ms: u32,
    parameters: &Parameters,
    out: &mut Vec<u8>,
) -> Result<Keys, CloseReason> {
    let mut body = [0; CLEAR_BYTES + NOISE_WELCOME_BYTES];
    body[..CLEAR_BYTES].copy_from_slice(&[TYPE_WELCOME, VERSION, 0, 0]);
    noise
        .write_message(&parameters.encode(), &mut body[CLEAR_BYTES..])
        .map_err(|_| CloseReason::BadHandshake)?;
    let keys = keys(noise)?;
    frame::encode_handshake(timestamp_ms, &body, out);
    Ok(keys)
}

/// Appends a REJECT frame: an answer to a HELLO that failed.
pub fn reject(reason: CloseReason, timestamp_ms: u32, out: &mut Vec<u8>) {
    let [low, high] = (reason as u16).to_le_bytes();
    frame::encode_handshake(timestamp_ms, &[TYPE_REJECT, VERSION, low, high], out);
}

/// The reason in a REJECT frame; `None` if this is none.
pub fn read_reject(frame: &[u8]) -> Option<CloseReason> {
    let (kind, clear, _) = open_handshake(frame).ok()?;
    let code = u16::from_le_bytes([clear[2], clear[3]]);
    (kind == TYPE_REJECT).then(|| CloseReason::from_code(code).unwrap_or(CloseReason::BadHandshake))
}

/// Checks flags and CRC of a handshake frame; returns type, clear bytes, and
/// the Noise message.
fn open_handshake(frame: &[u8]) -> Result<(u8, [u8; CLEAR_BYTES], &[u8]), CloseReason> {
    let header = Header::decode(frame).ok_or(CloseReason::BadLength)?;
    if frame.len() < HANDSHAKE_FRAME_BYTES_MIN || header.length as usize != frame.len() {
        return Err(CloseReason::BadLength);
    }
    if header.flags != FLAG_HANDSHAKE || header.sequence != 0 {
        return Err(CloseReason::BadFlags);
    }
    if frame::crc(frame) != header.crc {
        return Err(CloseReason::BadCrc);
    }
    let (clear, message) = frame[FRAME_HEADER_BYTES..]
        .split_first_chunk::<CLEAR_BYTES>()
        .ok_or(CloseReason::BadLength)?;
    Ok((clear[0], *clear, message))
}

fn prologue(
    header: &[u8],
    clear: &[u8; CLEAR_BYTES],
) -> [u8; PROLOGUE_LABEL.len() + AAD_BYTES + CLEAR_BYTES] {
    let mut out = [0; PROLOGUE_LABEL.len() + AAD_BYTES + CLEAR_BYTES];
    let (label, rest) = out.split_at_mut(PROLOGUE_LABEL.len());
    label.copy_from_slice(PROLOGUE_LABEL);
    rest[..AAD_BYTES].copy_from_slice(&header[..AAD_BYTES]);
    rest[AAD_BYTES..].copy_from_slice(clear);
    out
}

fn keys(noise: &mut snow::HandshakeState) -> Result<Keys, CloseReason> {
    let hash = noise
        .get_handshake_hash()
        .try_into()
        .map_err(|_| CloseReason::BadHandshake)?;
    let (client, gateway) = noise.dangerously_get_raw_split();
    Ok(Keys {
        client: Key(client),
        gateway: Key(gateway),
        hash,
    })
}

fn builder<'a>(name: &str, ephemeral: [u8; 32]) -> Result<snow::Builder<'a>, CloseReason> {
    let parameters = name.parse().map_err(|_| CloseReason::BadHandshake)?;
    Ok(snow::Builder::with_resolver(
        parameters,
        Box::new(EphemeralResolver(Cell::new(Some(ephemeral)))),
    ))
}

/// snow's own hash; keys are multiplied and payloads sealed by what does that everywhere else. The one
/// random value that the pattern needs, the ephemeral secret, is the one that was passed in.
struct EphemeralResolver(Cell<Option<[u8; 32]>>);

impl CryptoResolver for EphemeralResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Ephemeral(self.0.take())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::default())),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::new(ChaChaPoly::default())),
            _ => None,
        }
    }
}

/// Gives its secret out once; a second request fails instead of repeating it.
struct Ephemeral(Option<[u8; 32]>);

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        match (self.0.take(), out.len()) {
            (Some(secret), 32) => {
                out.copy_from_slice(&secret);
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

#[cfg(test)]
mod tests;
