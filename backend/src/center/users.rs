//! The global user table: account → session and back, ticket → session, and the sessions that
//! no shard holds.
//!
//! Invariant: the indexes hold exactly the same users; an account and a session id occur once,
//! and a session has one ticket.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use protocol::control::Instance;
use protocol::ids::{Fence, SessionId, TicketId};
use protocol::ticket::Ticket;
use protocol::time::Time;

use super::census::{Census, Counted};
use super::shards::ShardIndex;

/// One account that is online, or about to be.
///
/// Memory of a session with one binding, on 64 bits: this struct 200 bytes, its three indexes
/// about 110, account, channel and device 16 bytes each and their allocations' heads 64, the
/// binding 40 and its name 24, the shard's own set 20, the spare room of the tables half of all
/// that again: about 750 bytes.
#[derive(Debug)]
pub(super) struct User {
    pub(super) account: Arc<str>,
    pub(super) session: SessionId,
    pub(super) fence: Fence,
    /// Who holds it. Nobody does where the shard was lost or has given it up.
    pub(super) shard: Option<ShardIndex>,
    /// Where the shard keeps it: a hint, verified there.
    pub(super) slot: u32,
    pub(super) generation: u32,
    /// The claim is on disk and the shard was told.
    pub(super) granted: bool,
    /// No connection holds it: a new login may take its place.
    pub(super) parked: bool,
    /// What its client comes back with.
    pub(super) ticket: Option<Ticket>,
    pub(super) channel: Box<str>,
    pub(super) device: Box<str>,
    pub(super) client_version: u32,
    /// What its shard has told of it since the claim.
    pub(super) told: Option<Told>,
    /// Set by the table.
    pub(super) counted: Counted,
    /// When it ends while nobody holds it.
    pub(super) until: Time,
}

/// What only the shard of a session knows until it tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) login_unix_ms: u64,
    pub(super) bindings: Vec<Instance>,
    pub(super) left: Vec<Instance>,
}

impl User {
    /// Whether another shard could go on with it. One whose bindings were never told may be open
    /// at an instance that nobody else knows of; elsewhere its messages would be lost.
    pub(super) fn is_movable(&self) -> bool {
        self.granted && self.told.is_some() && self.ticket.is_some()
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Users {
    by_session: HashMap<SessionId, User>,
    by_account: HashMap<Arc<str>, SessionId>,
    /// Two sessions whose tickets have one id cost one of them its way back.
    by_ticket: HashMap<TicketId, SessionId>,
    /// Those that nobody holds, by when they end.
    orphans: BTreeSet<(Time, SessionId)>,
    census: Census,
    users_max: usize,
}

impl Users {
    pub(super) fn new(users_max: usize) -> Self {
        Self {
            by_session: HashMap::new(),
            by_account: HashMap::new(),
            by_ticket: HashMap::new(),
            orphans: BTreeSet::new(),
            census: Census::default(),
            users_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }

    pub(super) fn census(&self) -> &Census {
        &self.census
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.users_max
    }

    pub(super) fn by_account(&self, account: &str) -> Option<&User> {
        self.by_session.get(self.by_account.get(account)?)
    }

    pub(super) fn by_session(&self, session: SessionId) -> Option<&User> {
        self.by_session.get(&session)
    }

    pub(super) fn by_session_mut(&mut self, session: SessionId) -> Option<&mut User> {
        self.by_session.get_mut(&session)
    }

    pub(super) fn by_ticket(&self, ticket: TicketId) -> Option<&User> {
        self.by_session.get(self.by_ticket.get(&ticket)?)
    }

    /// Adds a user. The caller has looked that neither account nor session is there.
    pub(super) fn insert(&mut self, mut user: User) {
        user.counted = self.census.enter(user.client_version, &user.channel);
        let account = Arc::clone(&user.account);
        assert!(self.by_account.insert(account, user.session).is_none());
        if let Some(ticket) = &user.ticket {
            self.by_ticket.insert(ticket.id(), user.session);
        }
        assert!(self.by_session.insert(user.session, user).is_none());
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<User> {
        let user = self.by_session.remove(&session)?;
        self.by_account.remove(&user.account);
        self.orphans.remove(&(user.until, session));
        self.census.leave(user.counted);
        if let Some(ticket) = &user.ticket {
            self.forget_ticket(ticket.id(), session);
        }
        Some(user)
    }

    /// The session's one ticket is now this.
    pub(super) fn set_ticket(&mut self, session: SessionId, ticket: Ticket) {
        let id = ticket.id();
        let Some(user) = self.by_session.get_mut(&session) else {
            return;
        };
        if let Some(old) = user.ticket.replace(ticket) {
            self.forget_ticket(old.id(), session);
        }
        self.by_ticket.insert(id, session);
    }

    fn forget_ticket(&mut self, ticket: TicketId, session: SessionId) {
        if self.by_ticket.get(&ticket) == Some(&session) {
            self.by_ticket.remove(&ticket);
        }
    }

    /// Nobody holds the session any more; it waits for its client.
    pub(super) fn orphan(&mut self, session: SessionId, until: Time) {
        if let Some(user) = self.by_session.get_mut(&session) {
            user.shard = None;
            user.parked = true;
            user.until = until;
            self.orphans.insert((until, session));
        }
    }

    /// A shard holds it (again).
    pub(super) fn adopt(&mut self, session: SessionId, shard: ShardIndex) {
        if let Some(user) = self.by_session.get_mut(&session) {
            self.orphans.remove(&(user.until, session));
            user.shard = Some(shard);
            user.parked = false;
        }
    }

    /// The sessions that were opened on this device, in their order. Looks at all: it is asked
    /// when somebody bans a device.
    pub(super) fn of_device(&self, device: &str) -> Vec<SessionId> {
        let users = self.by_session.values();
        let mut sessions: Vec<_> = users
            .filter(|user| &*user.device == device)
            .map(|user| user.session)
            .collect();
        sessions.sort_unstable();
        sessions
    }

    pub(super) fn orphans(&self) -> usize {
        self.orphans.len()
    }

    /// When the next one that nobody holds ends.
    pub(super) fn next_orphan(&self) -> Option<Time> {
        self.orphans.first().map(|(until, _)| *until)
    }

    /// Removes the one that ends first, if that is by `until`; that.
    pub(super) fn end_orphan(&mut self, until: Time) -> Option<User> {
        let first = self.orphans.first().filter(|(at, _)| *at <= until);
        let (_, session) = first.copied()?;
        self.remove(session)
    }
}
