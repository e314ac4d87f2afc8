//! The datagrams that set a connection up: INIT (client), RETRY, ACCEPT and REFUSE
//! (gateway). All start with `SETUP`, a type, the version and the client's nonce.
//!
//! Invariant: an INIT is as long as a datagram may be and every answer is shorter, so
//! that nobody gains by asking in another's name.

use super::cookie::COOKIE_BYTES;
use super::{Cid, SETUP};
use crate::frame;
use crate::handshake::{HELLO_FRAME_BYTES, RESUME_FRAME_BYTES, VERSION, WELCOME_FRAME_BYTES};
use crate::limits::DATAGRAM_BYTES_MAX;

const INIT: u8 = 1;
const RETRY: u8 = 2;
const ACCEPT: u8 = 3;
const REFUSE: u8 = 4;

const HEAD_BYTES: usize = 12;
const RETRY_BYTES: usize = HEAD_BYTES + COOKIE_BYTES;

const _: () = assert!(HEAD_BYTES + COOKIE_BYTES + RESUME_FRAME_BYTES <= DATAGRAM_BYTES_MAX);
const _: () = assert!(HEAD_BYTES + 8 + WELCOME_FRAME_BYTES < DATAGRAM_BYTES_MAX);

/// A datagram that sets a connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup<'a> {
    /// The client wants a connection.
    Init {
        /// All zero where it has none yet.
        cookie: &'a [u8; COOKIE_BYTES],
        /// A HELLO or a RESUME frame.
        hello: &'a [u8],
    },
    /// Come again with this cookie.
    Retry {
        /// Good for some seconds, for this address and nonce.
        cookie: &'a [u8; COOKIE_BYTES],
    },
    /// The connection stands.
    Accept {
        /// Its name in what the client sends from now on.
        cid: Cid,
        /// A WELCOME frame.
        welcome: &'a [u8],
    },
    /// There is none to be had.
    Refuse {
        /// A REJECT frame.
        reject: &'a [u8],
    },
}

/// Reads a setup datagram and its nonce; `None` for anything else, an INIT that is not
/// padded or a version that is not this one among it.
pub fn decode(datagram: &[u8]) -> Option<(u64, Setup<'_>)> {
    let (head, rest) = datagram.split_first_chunk::<HEAD_BYTES>()?;
    let [setup, kind, version, zero, nonce @ ..] = *head;
    if setup != SETUP || version != VERSION || zero != 0 {
        return None;
    }
    let setup = match kind {
        INIT if datagram.len() == DATAGRAM_BYTES_MAX => {
            let (cookie, rest) = rest.split_first_chunk()?;
            let length = frame::length(rest)?;
            if ![HELLO_FRAME_BYTES, RESUME_FRAME_BYTES].contains(&length) {
                return None;
            }
            let (hello, padding) = rest.split_at_checked(length)?;
            if padding.iter().any(|&byte| byte != 0) {
                return None;
            }
            Setup::Init { cookie, hello }
        }
        RETRY if datagram.len() == RETRY_BYTES => Setup::Retry {
            cookie: rest.first_chunk()?,
        },
        ACCEPT => {
            let (cid, welcome) = rest.split_first_chunk()?;
            Setup::Accept {
                cid: Cid(u64::from_le_bytes(*cid)),
                welcome,
            }
        }
        REFUSE => Setup::Refuse { reject: rest },
        _ => return None,
    };
    Some((u64::from_le_bytes(nonce), setup))
}

/// Appends a setup datagram to `out`.
pub fn encode(nonce: u64, setup: &Setup<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let kind = match setup {
        Setup::Init { .. } => INIT,
        Setup::Retry { .. } => RETRY,
        Setup::Accept { .. } => ACCEPT,
        Setup::Refuse { .. } => REFUSE,
    };
    out.extend_from_slice(&[SETUP, kind, VERSION, 0]);
    out.extend_from_slice(&nonce.to_le_bytes());
    match setup {
        Setup::Init { cookie, hello } => {
            out.extend_from_slice(*cookie);
            out.extend_from_slice(hello);
            out.resize(start + DATAGRAM_BYTES_MAX, 0);
        }
        Setup::Retry { cookie } => out.extend_from_slice(*cookie),
        Setup::Accept { cid, welcome } => {
            out.extend_from_slice(&cid.0.to_le_bytes());
            out.extend_from_slice(welcome);
        }
        Setup::Refuse { reject } => out.extend_from_slice(reject),
    }
}

#[cfg(test)]
mod tests;
