//! The tickets of those sessions of a whole gateway that wait for their clients, so that a shard to
//! which a client comes whose session waits in another one of the same process can answer its RESUME
//! without asking center whose ticket it is.
//!
//! Nothing is decided by what stands here: it stands in for center's answer to a seek, which
//! changes nothing either. Who has proved that it holds the ticket gets the session from center, and
//! only if that is the session's one ticket (`shard::moves`). Whose session still has its old
//! connection is not here: center is asked then.
//!
//! Invariant: an entry for each session that is parked in a shard, of about 100 bytes; none for
//! one that is played.

use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::ids::{SessionId, TicketId};
use protocol::ticket::Ticket;
use rustc_hash::FxHashMap;

/// Tables with a lock each: so many that shards hardly ever meet at one. A lock is held for one look-up.
const PARTS: usize = 64;

type Part = FxHashMap<TicketId, (SessionId, Ticket)>;

/// See the module.
pub struct Tickets(Box<[Mutex<Part>]>);

impl Default for Tickets {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    /// The session that this ticket was the one of, when its shard said so last.
    pub fn find(&self, id: TicketId) -> Option<(SessionId, Ticket)> {
        self.part(id).get(&id).cloned()
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let parts = self.0.iter();
        parts
            .map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    pub(crate) fn insert(&self, session: SessionId, ticket: &Ticket) {
        let id = ticket.id();
        self.part(id).insert(id, (session, ticket.clone()));
    }

    pub(crate) fn remove(&self, id: TicketId) {
        self.part(id).remove(&id);
    }

    /// Ids are the output of a hash, so any bits of them will do. No lock is poisoned: nothing panics
    /// under one.
    fn part(&self, id: TicketId) -> MutexGuard<'_, Part> {
        let part = &self.0[id.0 as usize % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
