//! What the shards hold: releases, the lists that they send, their leases and the end of them.
//!
//! Invariant: a session leaves the table only when its shard says so or its lease has run out.

use protocol::control::{LiveSession, Rebuild, Release, Renewed, Revoke, to_shard};
use protocol::ids::{Fence, SessionId};
use protocol::limits::ACCOUNT_BYTES_MAX;
use protocol::reason::CloseReason;
use protocol::time::{Now, Time};

use super::ledger::{Entry, ShardKey};
use super::shards::{Shard, ShardIndex};
use super::users::User;
use super::{Center, LEASE_MARGIN_MS, Restart};
use crate::link::{LinkFault, LinkId};

impl Center {
    pub(super) fn handle_release(&mut self, index: ShardIndex, release: &Release) {
        let session = SessionId(release.session);
        let matches =
            |user: &User| user.fence.0 == release.fence && user.shard == index && user.granted;
        if !self.users.by_session(session).is_some_and(matches) {
            self.counts.releases_ignored += 1;
            return;
        }
        self.users.remove(session);
        self.shards.remove_session(index, session);
        self.counts.released += 1;
    }

    pub(super) fn handle_rebuild(
        &mut self,
        now: Now,
        link: LinkId,
        index: ShardIndex,
        rebuild: Rebuild,
    ) -> Result<(), LinkFault> {
        for live in rebuild.sessions {
            let session = SessionId(live.session);
            let fits = live.session != 0
                && !live.account.is_empty()
                && live.account.len() <= ACCOUNT_BYTES_MAX;
            if !fits || !self.shards.list(index, session) {
                return Err(LinkFault::Rebuild);
            }
            let user = User {
                account: live.account.as_str().into(),
                session,
                fence: Fence(live.fence),
                shard: index,
                slot: live.slot,
                generation: live.generation,
                granted: true,
                parked: live.parked,
            };
            if self.take_over(user) {
                self.counts.rebuilt += 1;
            } else {
                self.shards.unlist(index, session);
                self.revoke(link, session, Fence(live.fence), CloseReason::Revoked);
            }
        }
        if !rebuild.last {
            return Ok(());
        }
        let Some(listed) = self.shards.end_list(index) else {
            return Err(LinkFault::Rebuild);
        };
        // What the shard does not list it does not hold: a grant that was lost with the link
        // before, or a release.
        for session in listed.vanished {
            self.users.remove(session);
            self.counts.vanished += 1;
        }
        if let Some(renewal) = listed.renewal {
            self.handle_renew(now, link, index, renewal);
        }
        if let Some(restart) = &mut self.restart {
            restart.missing.remove(&listed.key);
            if restart.missing.is_empty() {
                self.end_restart();
                self.look_at_waiting(now);
            }
        }
        Ok(())
    }

    /// A shard says that it holds this session. Returns whether it may keep it.
    pub(super) fn take_over(&mut self, user: User) -> bool {
        if user.fence.0 >= self.fence_next || user.session.0 >= self.session_next {
            // Granted by no center with this journal.
            return false;
        }
        if let Some(known) = self.users.by_session_mut(user.session) {
            let is_same = known.account == user.account
                && known.fence == user.fence
                && known.shard == user.shard
                && known.granted;
            if is_same {
                (known.slot, known.generation) = (user.slot, user.generation);
                known.parked = user.parked;
            }
            return is_same;
        }
        if let Some(rival) = self.users.by_account(&user.account) {
            if rival.fence >= user.fence {
                return false;
            }
            let (session, fence, shard) = (rival.session, rival.fence, rival.shard);
            self.users.remove(session);
            self.shards.remove_session(shard, session);
            if let Some(link) = self.shards.by_index(shard).and_then(|shard| shard.link) {
                self.revoke(link, session, fence, CloseReason::Revoked);
            }
            self.drop_shard_if_empty(shard);
        } else if self.users.is_full() {
            return false;
        }
        self.shards.add_session(user.shard, user.session);
        self.users.insert(user);
        true
    }

    /// A shard tells what has become of a session.
    pub(super) fn handle_update(&mut self, index: ShardIndex, live: &LiveSession) {
        let user = self.users.by_session_mut(SessionId(live.session));
        // One that was replaced or revoked a moment ago is told of in vain.
        if let Some(user) =
            user.filter(|user| user.shard == index && user.fence.0 == live.fence && user.granted)
        {
            (user.slot, user.generation) = (live.slot, live.generation);
            user.parked = live.parked;
        }
    }

    pub(super) fn revoke(
        &mut self,
        link: LinkId,
        session: SessionId,
        fence: Fence,
        reason: CloseReason,
    ) {
        self.counts.revoked += 1;
        self.send(
            link,
            to_shard::Message::Revoke(Revoke {
                session: session.0,
                fence: fence.0,
                reason: u32::from(reason as u16),
            }),
        );
    }

    pub(super) fn handle_renew(&mut self, now: Now, link: LinkId, index: ShardIndex, renewal: u64) {
        let lease_until = self.lease_end(now.time);
        // Before it has told all its sessions a shard's lease is not prolonged, so that the wait
        // after a restart, which counts on leases running out, is right.
        if self.shards.renew(index, renewal, lease_until) {
            self.send(link, to_shard::Message::Renewed(Renewed { renewal }));
        }
    }

    pub(super) fn lease_end(&self, now: Time) -> Time {
        now.after_ms(u64::from(self.settings.lease_ms) + LEASE_MARGIN_MS)
    }

    pub(super) fn lose_lease(&mut self, index: ShardIndex) {
        let Some(shard) = self.shards.remove(index) else {
            return;
        };
        if let Some(link) = shard.link {
            self.forget_claims(link);
            self.closes.push_back((link, LinkFault::Lease));
        }
        self.counts.leases_lost += u64::from(!shard.sessions.is_empty());
        self.counts.sessions_lost += shard.sessions.len() as u64;
        for session in shard.sessions {
            self.users.remove(session);
        }
        self.detach(shard.key);
    }

    /// Nothing is lost with a shard that holds nothing and is not linked.
    pub(super) fn drop_shard_if_empty(&mut self, index: ShardIndex) {
        let is_empty = |shard: &Shard| shard.link.is_none() && shard.sessions.is_empty();
        if !self.shards.by_index(index).is_some_and(is_empty) {
            return;
        }
        let Some(shard) = self.shards.remove(index) else {
            return;
        };
        self.detach(shard.key);
    }

    /// The shard holds nothing any more, unless a restart still waits for it to say so.
    pub(super) fn detach(&mut self, key: ShardKey) {
        let is_missing = |restart: &Restart| restart.missing.contains(&key);
        if !self.restart.as_ref().is_some_and(is_missing) {
            self.journal(&Entry::Detached(key));
        }
    }

    /// Everybody has told its sessions, or has lost them.
    pub(super) fn end_restart(&mut self) {
        let Some(restart) = self.restart.take() else {
            return;
        };
        for key in restart.missing {
            if !self.shards.contains(&key) {
                self.journal(&Entry::Detached(key));
            }
        }
        if self.lease_recovered_ms != self.settings.lease_ms {
            self.lease_recovered_ms = self.settings.lease_ms;
            self.journal(&Entry::Lease {
                ms: self.settings.lease_ms,
            });
        }
    }
}
