//! The side path of a connection over a stream (PROTOCOL §12): its keys, and whether it
//! carries datagrams both ways. Both ends run this.
//!
//! Not here: what goes over it, and when a client asks (`client/side`, the gateway's
//! `shard/side`).
//!
//! Invariant: a path carries only while an answer to its end's own challenge has come within
//! the last [`HOLD_MS`]; what was heard of the other end proves one direction only.

use crate::cipher::Key;
use crate::ticket::blake2s;
use crate::time::Time;

/// Bytes of the secret in SIDE.
pub const SECRET_BYTES: usize = 32;

/// How long, ms, an answer proves the path: what a path that has just been blocked can
/// swallow.
pub const HOLD_MS: u64 = 3_000;

/// Age, ms, of a proof from which on a path in use is proven anew. Three lost datagrams in a
/// row still leave time for a fourth.
pub const ASK_MS: u64 = 1_000;

const CLIENT_LABEL: &[u8] = b"sallyport-side-client-1";
const GATEWAY_LABEL: &[u8] = b"sallyport-side-gateway-1";

/// The keys of a side path.
#[derive(Debug)]
pub struct SideKeys {
    /// Seals what the client sends.
    pub client: Key,
    /// Seals what the gateway sends.
    pub gateway: Key,
}

impl SideKeys {
    /// Those that belong to this secret.
    pub fn derive(secret: &[u8; SECRET_BYTES]) -> Self {
        Self {
            client: Key(blake2s(&[CLIENT_LABEL, secret])),
            gateway: Key(blake2s(&[GATEWAY_LABEL, secret])),
        }
    }
}

/// Whether a path carries, as one end knows it.
#[derive(Debug, Default)]
pub struct Proof {
    /// Answers that came: the next challenge.
    serial: u64,
    proven_at: Option<Time>,
}

impl Proof {
    /// What to ask now: the same until it is answered.
    pub fn challenge(&self) -> [u8; 8] {
        self.serial.to_le_bytes()
    }

    /// Whether messages may go this way.
    pub fn holds(&self, now: Time) -> bool {
        self.proven_at.is_some_and(|at| now < at.after_ms(HOLD_MS))
    }

    /// From when on it is to be proven anew, if it is used.
    pub fn ask_at(&self) -> Option<Time> {
        self.proven_at.map(|at| at.after_ms(ASK_MS))
    }

    /// Whether that is now.
    pub fn is_old(&self, now: Time) -> bool {
        self.ask_at().is_none_or(|at| now >= at)
    }

    /// An answer came. Whether it was to what was asked.
    pub fn handle_response(&mut self, now: Time, token: [u8; 8]) -> bool {
        if token != self.challenge() {
            return false;
        }
        self.prove(now);
        true
    }

    /// The path was proven otherwise.
    pub fn prove(&mut self, now: Time) {
        self.serial = self.serial.wrapping_add(1);
        self.proven_at = Some(now);
    }
}

#[cfg(test)]
mod tests;
