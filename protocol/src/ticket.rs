//! Tickets (PROTOCOL §7): what lets a client come back to its session. Both
//! ends derive one from the keys of each connection, so that none is ever sent,
//! and none can be lost on its way.
//!
//! It does not know whether a ticket is still good: who holds the session does.
//! Invariant: the id says nothing of the key, of the session, or of other ids.

use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};

use crate::cipher::Key;
use crate::ids::TicketId;

const KEY_LABEL: &[u8] = b"sallyport-ticket-key-1";
const ID_LABEL: &[u8] = b"sallyport-ticket-id-1";

/// The key of one resume, and the name under which it is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    id: TicketId,
    key: [u8; 32],
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.id)
    }
}

impl Ticket {
    /// The ticket that a connection with these keys and this handshake hash
    /// brings.
    pub fn derive(client: &Key, gateway: &Key, hash: &[u8; 32]) -> Self {
        Self::from_key(blake2s(&[KEY_LABEL, &client.0, &gateway.0, hash]))
    }

    /// The ticket with this key.
    pub fn from_key(key: [u8; 32]) -> Self {
        let digest = blake2s(&[ID_LABEL, &key]);
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self {
            id: TicketId(u64::from_le_bytes(id)),
            key,
        }
    }

    /// Its public name.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// The secret.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

/// BLAKE2s-256 (RFC 7693) of the parts, one behind the other.
pub(crate) fn blake2s(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    if let Some(mut hash) = DefaultResolver.resolve_hash(&HashChoice::Blake2s) {
        for part in parts {
            hash.input(part);
        }
        hash.result(&mut out);
    }
    out
}

#[cfg(test)]
mod tests;
