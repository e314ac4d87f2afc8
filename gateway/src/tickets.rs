//! The tickets of a whole gateway, so that a shard to which a client comes whose session is on
//! another one of the same process can answer its RESUME without asking center whose ticket it is.
//!
//! Nothing is decided by what stands here: it stands in for center's answer to a seek, which
//! changes nothing either. Who has proved that it holds the ticket gets the session from center, and
//! only if that is the session's one ticket (`shard::moves`).
//!
//! Invariant: of two shards or more, each has one entry in here for each ticket in its own table, so
//! there are as many as the gateway has sessions at most, and each takes about 100 bytes.

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
    /// For a gateway of one shard, which has them all in its own table: nothing stands here.
    pub fn of_one_shard() -> Self {
        Self(Box::default())
    }

    /// The session that this ticket was the one of, when its shard said so last.
    pub fn find(&self, id: TicketId) -> Option<(SessionId, Ticket)> {
        self.part(id)?.get(&id).cloned()
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
        if let Some(mut part) = self.part(id) {
            part.insert(id, (session, ticket.clone()));
        }
    }

    pub(crate) fn remove(&self, id: TicketId) {
        if let Some(mut part) = self.part(id) {
            part.remove(&id);
        }
    }

    /// Ids are the output of a hash, so any bits of them will do. No lock is poisoned: nothing panics
    /// under one.
    fn part(&self, id: TicketId) -> Option<MutexGuard<'_, Part>> {
        let at = (id.0 as usize).checked_rem(self.0.len())?;
        Some(self.0[at].lock().unwrap_or_else(PoisonError::into_inner))
    }
}
