//! The global user table: account → session and back.
//!
//! Invariant: both indexes hold exactly the same users; an account and a session id occur once.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::ids::{Fence, SessionId};

use super::shards::ShardIndex;

/// One account that is online, or about to be.
#[derive(Debug)]
pub(super) struct User {
    pub(super) account: Arc<str>,
    pub(super) session: SessionId,
    pub(super) fence: Fence,
    pub(super) shard: ShardIndex,
    /// Where the shard keeps it: a hint, verified there.
    pub(super) slot: u32,
    pub(super) generation: u32,
    /// The claim is on disk and the shard was told.
    pub(super) granted: bool,
    /// No connection holds it: a new login may take its place.
    pub(super) parked: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Users {
    by_session: HashMap<SessionId, User>,
    by_account: HashMap<Arc<str>, SessionId>,
    users_max: usize,
}

impl Users {
    pub(super) fn new(users_max: usize) -> Self {
        Self {
            by_session: HashMap::new(),
            by_account: HashMap::new(),
            users_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_session.len()
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

    /// Adds a user. The caller has looked that neither account nor session is there.
    pub(super) fn insert(&mut self, user: User) {
        let account = Arc::clone(&user.account);
        assert!(self.by_account.insert(account, user.session).is_none());
        assert!(self.by_session.insert(user.session, user).is_none());
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<User> {
        let user = self.by_session.remove(&session)?;
        self.by_account.remove(&user.account);
        Some(user)
    }
}
