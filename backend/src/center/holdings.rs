//! What the shards hold: releases, the lists that they send, their leases and the end of them.
//!
//! Invariant: a session leaves its shard only when that says so, when its lease has run out, or
//! when its client has come back elsewhere.

use protocol::control::{LiveSession, Rebuild, Release, Renewed, Revoke, to_shard};
use protocol::ids::{Fence, SessionId};
use protocol::limits::{ACCOUNT_BYTES_MAX, LABEL_BYTES_MAX};
use protocol::reason::CloseReason;
use protocol::time::{Now, Time};

use super::census::Counted;
use super::ledger::{Entry, ShardKey};
use super::moves::{ticket_of, told_of};
use super::shards::{Shard, ShardIndex};
use super::users::User;
use super::{Center, LEASE_MARGIN_MS, Restart};
use crate::link::{LinkFault, LinkId};

impl Center {
    pub(super) fn handle_release(&mut self, now: Now, index: ShardIndex, release: &Release) {
        let session = SessionId(release.session);
        let matches = |user: &User| {
            user.fence.0 == release.fence && user.shard == Some(index) && user.granted
        };
        if !self.users.by_session(session).is_some_and(matches) {
            self.counts.releases_ignored += 1;
            return;
        }
        self.shards.remove_session(index, session);
        if release.kept {
            let resume_ms = self.resume_ms_of(index);
            self.keep_or_end(now, session, resume_ms);
        } else {
            if let Some(user) = self.users.remove(session) {
                self.returning.insert(now.time, &user.account);
            }
            self.counts.released += 1;
        }
    }

    fn resume_ms_of(&self, index: ShardIndex) -> u32 {
        let shard = self.shards.by_index(index);
        shard.map_or(0, |shard| shard.resume_ms)
    }

    pub(super) fn handle_rebuild(
        &mut self,
        now: Now,
        link: LinkId,
        index: ShardIndex,
        rebuild: Rebuild,
    ) -> Result<(), LinkFault> {
        for live in rebuild.sessions {
            let (session, fence) = (SessionId(live.session), Fence(live.fence));
            if !self.shards.list(index, session) {
                return Err(LinkFault::Rebuild);
            }
            let user = user_of(index, live)?;
            if let Some(text) = self.ban_text(now, &user.account, &user.device) {
                self.shards.unlist(index, session);
                self.end_listed(index, session);
                self.revoke_with(link, session, fence, CloseReason::Banned, &text);
                continue;
            }
            match self.take_over(user) {
                Ok(()) => self.counts.rebuilt += 1,
                Err(reason) => {
                    self.shards.unlist(index, session);
                    self.revoke(link, session, fence, reason);
                }
            }
        }
        if !rebuild.last {
            return Ok(());
        }
        let Some(listed) = self.shards.end_list(index) else {
            return Err(LinkFault::Rebuild);
        };
        // What the shard does not list it does not hold: a grant, a release or a session on its
        // way there was lost with the link before.
        let resume_ms = self.resume_ms_of(index);
        for session in listed.vanished {
            self.counts.vanished += 1;
            self.keep_or_end(now, session, resume_ms);
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

    /// A shard says that it holds this session. May it keep it? If not, why it must close it.
    pub(super) fn take_over(&mut self, user: User) -> Result<(), CloseReason> {
        if user.fence.0 >= self.fence_next || user.session.0 >= self.session_next {
            // Granted by no center with this journal.
            return Err(CloseReason::Revoked);
        }
        let Some(shard) = user.shard else {
            return Err(CloseReason::Revoked);
        };
        let rival = self.users.by_account(&user.account);
        if let Some(known) = self.users.by_session(user.session) {
            if known.fence > user.fence && known.account == user.account {
                // It was moved away from there.
                return Err(CloseReason::Superseded);
            }
            let is_elsewhere = known.shard.is_some_and(|at| at != shard);
            if known.account != user.account
                || !known.granted
                || (known.fence == user.fence && is_elsewhere)
            {
                return Err(CloseReason::Revoked);
            }
        } else if rival.is_some_and(|rival| rival.fence >= user.fence)
            || (rival.is_none() && !self.has_room())
        {
            return Err(CloseReason::Revoked);
        }
        if let Some(rival) = self.users.by_account(&user.account) {
            let (session, fence, holder) = (rival.session, rival.fence, rival.shard);
            self.users.remove(session);
            if let Some(holder) =
                holder.filter(|holder| *holder != shard || session != user.session)
            {
                let reason = match session == user.session {
                    true => CloseReason::Superseded,
                    false => CloseReason::Revoked,
                };
                self.shards.remove_session(holder, session);
                if let Some(link) = self.shards.by_index(holder).and_then(|shard| shard.link) {
                    self.revoke(link, session, fence, reason);
                }
                self.drop_shard_if_empty(holder);
            }
        }
        self.shards.add_session(shard, user.session);
        self.users.insert(user);
        Ok(())
    }

    pub(super) fn revoke(
        &mut self,
        link: LinkId,
        session: SessionId,
        fence: Fence,
        reason: CloseReason,
    ) {
        self.revoke_with(link, session, fence, reason, "");
    }

    pub(super) fn revoke_with(
        &mut self,
        link: LinkId,
        session: SessionId,
        fence: Fence,
        reason: CloseReason,
        text: &str,
    ) {
        self.counts.revoked += 1;
        self.send(
            link,
            to_shard::Message::Revoke(Revoke {
                session: session.0,
                fence: fence.0,
                reason: u32::from(reason as u16),
                text: text.to_owned(),
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

    pub(super) fn lose_lease(&mut self, now: Now, index: ShardIndex) {
        let Some(shard) = self.shards.remove(index) else {
            return;
        };
        if let Some(link) = shard.link {
            self.forget_claims(link);
            self.closes.push_back((link, LinkFault::Lease));
        }
        self.counts.leases_lost += u64::from(!shard.sessions.is_empty());
        // In order, so that equal runs stay equal.
        let mut sessions: Vec<_> = shard.sessions.into_iter().collect();
        sessions.sort_unstable();
        for session in sessions {
            self.keep_or_end(now, session, shard.resume_ms);
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

/// A session as a shard lists it.
fn user_of(index: ShardIndex, live: LiveSession) -> Result<User, LinkFault> {
    let fits = live.session != 0
        && !live.account.is_empty()
        && live.account.len() <= ACCOUNT_BYTES_MAX
        && live.channel.len() <= LABEL_BYTES_MAX
        && live.device.len() <= LABEL_BYTES_MAX;
    if !fits {
        return Err(LinkFault::Rebuild);
    }
    Ok(User {
        account: live.account.into(),
        session: SessionId(live.session),
        fence: Fence(live.fence),
        shard: Some(index),
        slot: live.slot,
        generation: live.generation,
        granted: true,
        parked: live.parked,
        ticket: ticket_of(&live.ticket)?,
        channel: live.channel.into(),
        device: live.device.into(),
        client_version: live.client_version,
        told: Some(told_of(live.login_unix_ms, live.bindings, live.left)?),
        counted: Counted::default(),
        until: Time(0),
    })
}
