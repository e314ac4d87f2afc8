//! Claims: waiting, deciding, granting once the disk has them, refusing.
//!
//! Invariant: every claim that was taken is answered once, or its link has gone.

use std::sync::Arc;

use protocol::control::{Abandon, Claim, ClaimGranted, ClaimRefusal, ClaimRefused, to_shard};
use protocol::ids::{Fence, SessionId};
use protocol::limits::{ACCOUNT_BYTES_MAX, LABEL_BYTES_MAX, TOKEN_ID_BYTES_MAX};
use protocol::reason::CloseReason;
use protocol::time::{Now, Time};

use super::census::Counted;
use super::ledger::{Entry, TokenUse};
use super::moves::ticket_of;
use super::shards::ShardIndex;
use super::users::User;
use super::{
    CLAIMS_PER_BATCH_MAX, CLAIMS_WAITING_MAX, CLAIMS_WAITING_PER_LINK_MAX, Center,
    DEGRADED_RETRY_MS, FULL_RETRY_MS, PendingClaim, WaitingClaim,
};
use crate::link::{LinkFault, LinkId};

impl Center {
    pub(super) fn handle_claim(
        &mut self,
        now: Now,
        link: LinkId,
        index: ShardIndex,
        claim: Claim,
    ) -> Result<(), LinkFault> {
        let bounded = |text: &str, max| !text.is_empty() && text.len() <= max;
        if !bounded(&claim.account, ACCOUNT_BYTES_MAX)
            || !bounded(&claim.token_id, TOKEN_ID_BYTES_MAX)
            || claim.channel.len() > LABEL_BYTES_MAX
            || claim.device.len() > LABEL_BYTES_MAX
        {
            return Err(LinkFault::Claim);
        }
        Self::check_place(&claim)?;
        ticket_of(&claim.ticket)?;
        let Some(shard) = self.shards.by_index_mut(index) else {
            return Ok(());
        };
        if !shard.is_rebuilt() {
            return Err(LinkFault::ClaimEarly);
        }
        if shard.claims_waiting >= CLAIMS_WAITING_PER_LINK_MAX
            || self.waiting.len() >= CLAIMS_WAITING_MAX
        {
            self.refuse(link, claim.claim, ClaimRefusal::Full);
            return Ok(());
        }
        shard.claims_waiting += 1;
        self.waiting.push_back(WaitingClaim { link, claim });
        self.look_at_waiting(now);
        Ok(())
    }

    /// Whether something can be decided now: everybody has told what it holds, and the open batch
    /// has room.
    pub(super) fn can_decide(&self) -> bool {
        self.degraded.is_none()
            && self.restart.is_none()
            && self.open_claims.len() < CLAIMS_PER_BATCH_MAX
    }

    /// Decides on the waiting claims in order, as far as the open batch has room.
    pub(super) fn look_at_waiting(&mut self, now: Now) {
        self.tokens.forget(now.unix_ms);
        while self.degraded.is_some() || self.can_decide() {
            let Some(WaitingClaim { link, claim }) = self.waiting.pop_front() else {
                break;
            };
            let Some(index) = self.shards.by_link(link) else {
                continue;
            };
            if let Some(shard) = self.shards.by_index_mut(index) {
                shard.claims_waiting -= 1;
            }
            let number = claim.claim;
            if let Some(text) = self.ban_text(now, &claim.account, &claim.device) {
                self.refuse_banned(link, number, &text);
                continue;
            }
            if let Err(refusal) = self.decide(now, link, index, claim) {
                self.refuse(link, number, refusal);
            }
        }
        self.admit(now);
    }

    pub(super) fn decide(
        &mut self,
        now: Now,
        link: LinkId,
        shard: ShardIndex,
        claim: Claim,
    ) -> Result<(), ClaimRefusal> {
        if self.degraded.is_some() {
            return Err(ClaimRefusal::Degraded);
        }
        let Some(key) = self.shards.by_index(shard).map(|shard| &shard.key) else {
            return Err(ClaimRefusal::Full);
        };
        let used = TokenUse {
            expires_unix_ms: claim.token_expires_unix_ms,
            boot: key.boot,
            shard: key.shard,
            claim: claim.claim,
        };
        // The token of a claim that had its place before a restart was used up for that.
        if claim.place == 0
            && self
                .tokens
                .is_used_by_another(now.unix_ms, &claim.token_id, &used)
        {
            return Err(ClaimRefusal::TokenReused);
        }
        // A login in place of the account's own session makes them no more.
        let is_online = self.users.by_account(&claim.account).is_some();
        let waits = !is_online && self.must_wait(shard, &claim);
        if waits && !self.queue.takes(&claim.account) {
            return Err(ClaimRefusal::Full);
        }
        if self.tokens.is_full() || !(waits || self.has_room()) {
            return Err(ClaimRefusal::Full);
        }
        // From here on the token is used up, whatever comes out: the first claim that names it
        // consumes it, so a copy of it is worthless.
        if claim.place == 0 {
            let token_id: Arc<str> = claim.token_id.as_str().into();
            self.tokens.insert(&token_id, used);
            let id = &token_id;
            self.journal(&Entry::Token { used, id });
        }
        if waits {
            self.enqueue(now, link, claim);
            return Ok(());
        }
        self.seat(link, shard, claim)
    }

    /// Gives a claim whose token is used up a session, once that is on disk.
    pub(super) fn seat(
        &mut self,
        link: LinkId,
        shard: ShardIndex,
        claim: Claim,
    ) -> Result<(), ClaimRefusal> {
        if !self.replace_parked(&claim.account) {
            return Err(ClaimRefusal::AlreadyOnline);
        }
        // Whoever gets in some other way waits no more.
        if let Some(waiting) = self.queue.remove(&claim.account) {
            self.refuse(waiting.link, waiting.claim.claim, ClaimRefusal::PlaceTaken);
        }
        self.take_login(shard);
        let (session, fence) = self.reserve();
        if self.open_entries.is_empty() {
            // Who waited has used its token up long ago, and yet is granted with a batch: one that
            // comes after the reservation of these numbers.
            self.journal(&Entry::Reserved {
                sessions_below: self.reserved.0,
                fences_below: self.reserved.1,
            });
        }
        let user = User {
            account: claim.account.into(),
            session,
            fence,
            shard: Some(shard),
            slot: claim.slot,
            generation: claim.generation,
            granted: false,
            parked: false,
            // It was looked at when the claim came.
            ticket: ticket_of(&claim.ticket).unwrap_or_default(),
            channel: claim.channel.into(),
            device: claim.device.into(),
            client_version: claim.client_version,
            told: None,
            counted: Counted::default(),
            until: Time(0),
        };
        self.users.insert(user);
        self.shards.add_session(shard, session);
        self.open_claims.push(PendingClaim {
            link,
            claim: claim.claim,
            session,
            token_id: claim.token_id.into(),
        });
        Ok(())
    }

    /// Whether the account has no session, or had one that nobody held: then its shard is told
    /// to end it. Should its client have come back this moment, the new login wins, and backends
    /// go by the fence until the shard has heard of it.
    fn replace_parked(&mut self, account: &str) -> bool {
        let Some(user) = self.users.by_account(account) else {
            return true;
        };
        let (session, fence) = (user.session, user.fence);
        let Some(index) = user.shard else {
            self.users.remove(session);
            self.counts.replaced += 1;
            return true;
        };
        let link = self.shards.by_index(index).and_then(|shard| shard.link);
        // A shard without a link would not hear of it.
        let Some(link) = link.filter(|_| user.parked) else {
            return false;
        };
        self.users.remove(session);
        self.shards.remove_session(index, session);
        self.revoke(link, session, fence, CloseReason::Replaced);
        self.counts.replaced += 1;
        true
    }

    /// The next session id and fence. Where their block is a new one, its reservation is in the
    /// same batch as the claim, or in an earlier one.
    pub(super) fn reserve(&mut self) -> (SessionId, Fence) {
        let reserved = (SessionId(self.session_next), Fence(self.fence_next));
        self.session_next += 1;
        self.fence_next += 1;
        self.reserve_ahead();
        reserved
    }

    /// The claim's batch is on disk.
    pub(super) fn grant(&mut self, now: Now, pending: PendingClaim) {
        let known = self.users.by_session(pending.session);
        let banned = known.and_then(|user| self.ban_text(now, &user.account, &user.device));
        let Some(user) = self.users.by_session_mut(pending.session) else {
            // A list of sessions meanwhile told of a higher fence, or the shard has gone.
            self.counts.claims_abandoned += 1;
            return;
        };
        let (shard, fence) = (user.shard, user.fence);
        if shard.is_none() || self.shards.by_link(pending.link) != shard {
            self.forget_pending(pending.session);
            self.counts.claims_abandoned += 1;
            return;
        }
        if let Some(text) = banned {
            self.forget_pending(pending.session);
            self.refuse_banned(pending.link, pending.claim, &text);
            return;
        }
        user.granted = true;
        self.counts.granted += 1;
        self.send(
            pending.link,
            to_shard::Message::ClaimGranted(ClaimGranted {
                claim: pending.claim,
                session: pending.session.0,
                fence: fence.0,
            }),
        );
    }

    /// A claim will not be granted; what was noted of it goes.
    pub(super) fn forget_pending(&mut self, session: SessionId) {
        if let Some(user) = self.users.remove(session)
            && let Some(shard) = user.shard
        {
            self.shards.remove_session(shard, session);
            self.drop_shard_if_empty(shard);
        }
    }

    pub(super) fn refuse(&mut self, link: LinkId, claim: u64, refusal: ClaimRefusal) {
        self.refuse_with(link, claim, refusal, "");
    }

    pub(super) fn refuse_with(
        &mut self,
        link: LinkId,
        claim: u64,
        refusal: ClaimRefusal,
        text: &str,
    ) {
        let (count, retry_after_ms) = match refusal {
            ClaimRefusal::TokenReused => (&mut self.counts.refused_token_reused, 0),
            ClaimRefusal::AlreadyOnline => (&mut self.counts.refused_already_online, 0),
            ClaimRefusal::PlaceTaken => (&mut self.counts.refused_place_taken, 0),
            ClaimRefusal::Banned => (&mut self.counts.refused_banned, 0),
            ClaimRefusal::Full => (&mut self.counts.refused_full, FULL_RETRY_MS),
            ClaimRefusal::Degraded | ClaimRefusal::Unspecified => {
                (&mut self.counts.refused_degraded, DEGRADED_RETRY_MS as u32)
            }
        };
        *count += 1;
        if self.shards.by_link(link).is_some() {
            self.send(
                link,
                to_shard::Message::ClaimRefused(ClaimRefused {
                    claim,
                    refusal: refusal.into(),
                    retry_after_ms,
                    text: text.to_owned(),
                }),
            );
        }
    }

    /// The client of a waiting claim is gone. Clients give up in about the order
    /// in which they came, so the search ends near the front.
    pub(super) fn handle_abandon(
        &mut self,
        now: Now,
        link: LinkId,
        index: ShardIndex,
        abandon: &Abandon,
    ) {
        let claim = abandon.claim;
        if self.queue.leave(now.time, link, claim, abandon.given_up) {
            self.counts.claims_abandoned += 1;
            return;
        }
        let is_it = |waiting: &WaitingClaim| waiting.link == link && waiting.claim.claim == claim;
        let Some(at) = self.waiting.iter().position(is_it) else {
            return;
        };
        self.waiting.remove(at);
        self.counts.claims_abandoned += 1;
        if let Some(shard) = self.shards.by_index_mut(index) {
            shard.claims_waiting -= 1;
        }
    }

    /// The waiting claims of a link that is gone.
    pub(super) fn forget_claims(&mut self, link: LinkId) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.link != link);
        self.counts.claims_abandoned += (before - self.waiting.len()) as u64;
        self.queue.leave_all(self.now.time, link);
    }
}
