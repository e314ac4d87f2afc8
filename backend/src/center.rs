//! Center's core: the global user table and the claim of a session.
//!
//! Owns which account has which session, on which shard, under which fence; the leases of the
//! shards; the used token ids; what the journal must say before a claim is granted. It does not
//! touch files, links or clocks: `link_driver` and `journal` do.
//!
//! # Call order
//! [`Center::handle_link_up`] when a hello has come, then [`Center::handle_control`] for each
//! message, then once [`Center::handle_link_down`]. An error of the first two means: close that
//! link and call `handle_link_down`. [`Center::poll_append`] yields at most one batch until
//! [`Center::handle_durable`] or [`Center::handle_journal_failed`] answers it. After every
//! `handle_*`: `poll_send` and `poll_close` until `None`, and `poll_timeout` for when
//! [`Center::handle_timeout`] is due. Time only moves forward.
//!
//! # Leases
//! A shard that got no `Renewed` for the lease time after it *asked* for it closes its sessions.
//! Center counts from when it *answered*, and adds a margin; so when center frees an account,
//! the shard has closed it. That holds for a killed gateway too, since a new boot does not prove
//! that the old process is gone: after kill -9 its players wait for up to the lease. A gateway
//! that stops in order releases its sessions and nobody waits.
//!
//! # Restart
//! The journal remembers which shards were attached. Claims wait until each of them has told its
//! sessions (`Rebuild`) or its lease must have run out.
//!
//! # Invariants
//! At most one session of an account, across crashes, as far as shards keep to their lease.
//! A session id and a fence are granted once; fences rise. A token id is granted once. A grant
//! is sent only when what it uses up is on disk.

mod ledger;
mod shards;
mod tokens;
mod users;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use protocol::control::{
    BackendHello, Claim, ClaimGranted, ClaimRefusal, ClaimRefused, Rebuild, Release, Renewed,
    Revoke, ShardHello, ToBackend, ToShard, to_backend, to_shard,
};
use protocol::ids::{Fence, SessionId, ShardId};
use protocol::limits::{ACCOUNT_BYTES_MAX, TOKEN_ID_BYTES_MAX};
use protocol::time::{Now, Time};

use crate::journal::{Batch, RECORD_BYTES_MAX};
use crate::link::{LinkFault, LinkId, check_hello};
use ledger::{ENTRY_BYTES_MAX, Entry, TOKEN_BYTES};
pub use ledger::{LedgerError, Recovered, ShardKey, TokenUse};
use shards::{ShardIndex, Shards};
use tokens::UsedTokens;
use users::{User, Users};

/// Session ids and fences reserved in the journal at a time: few enough that crashes do not
/// use the numbers up, many enough that reserving is a rare entry.
pub const RESERVED_BLOCK: u64 = 65_536;

/// Sessions at a time, unless configured: a million take about 300 MB.
pub const SESSIONS_MAX_DEFAULT: usize = 1_000_000;

/// Token ids remembered: 65 s of logins at 15,000 a second.
pub const TOKENS_MAX: usize = 1_000_000;

/// Links and shards at a time.
pub const SHARDS_MAX: usize = 4_096;

/// Claims that wait for the end of a restart or for room in a batch: all that 20 shards may
/// have open at their login limit; more would wait beyond their clients' deadlines.
pub const CLAIMS_WAITING_MAX: usize = 20_000;

/// Of these, of one link: one shard cannot take the places of all others.
pub const CLAIMS_WAITING_PER_LINK_MAX: usize = 5_000;

/// Claims in one batch of the journal. Their token entries fit into one record.
const CLAIMS_PER_BATCH_MAX: usize = 8_192;
const _: () = assert!(CLAIMS_PER_BATCH_MAX * (TOKEN_BYTES + TOKEN_ID_BYTES_MAX) < RECORD_BYTES_MAX);

/// Lease unless configured, ms (DESIGN §3).
pub const LEASE_MS_DEFAULT: u32 = 15_000;

/// What center waits beyond the lease, ms: for the drift of two clocks and for the granularity
/// of the shard's own timer.
pub const LEASE_MARGIN_MS: u64 = 1_000;

/// Journal size, bytes, from which it is rewritten, unless its live state is more than half of it.
pub const JOURNAL_REWRITE_BYTES: u64 = 16 * 1024 * 1024;

/// Pause, ms, between attempts to rewrite a journal that failed; also what refused claims are
/// told to wait.
pub const DEGRADED_RETRY_MS: u64 = 5_000;

/// What claims refused for lack of room are told to wait, ms.
const FULL_RETRY_MS: u32 = 2_000;

/// What center is told at its start.
#[derive(Debug, Clone)]
pub struct CenterSettings {
    /// Name told to the shards.
    pub instance: String,
    /// Drawn anew by each start of the process.
    pub boot: u64,
    /// How long a shard keeps its sessions without center, ms.
    pub lease_ms: u32,
    /// Sessions at a time.
    pub sessions_max: usize,
}

/// What has happened since the start, and how things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CenterCounts {
    /// Claims granted.
    pub granted: u64,
    /// Claims refused for a used token.
    pub refused_token_reused: u64,
    /// Claims refused because the account has a session.
    pub refused_already_online: u64,
    /// Claims refused because the journal cannot be written.
    pub refused_degraded: u64,
    /// Claims refused for lack of room.
    pub refused_full: u64,
    /// Claims whose link went away before the answer.
    pub claims_abandoned: u64,
    /// Sessions released by their shard.
    pub released: u64,
    /// Releases of a session or fence that is not (any more) the shard's.
    pub releases_ignored: u64,
    /// Sessions taken over from a shard's list.
    pub rebuilt: u64,
    /// Sessions that a shard was told to close.
    pub revoked: u64,
    /// Sessions freed because their shard did not list them any more.
    pub vanished: u64,
    /// Leases that ran out with sessions.
    pub leases_lost: u64,
    /// Sessions freed by that.
    pub sessions_lost: u64,
    /// Batches on disk.
    pub batches: u64,
    /// Batches that failed.
    pub batches_failed: u64,
    /// Size of the journal, bytes.
    pub journal_bytes: u64,
    /// Sessions now, granted or about to be.
    pub sessions: u64,
    /// Shards now, those without a link included.
    pub shards: u64,
    /// Claims waiting now.
    pub claims_waiting: u64,
    /// Token ids remembered now.
    pub tokens: u64,
    /// Whether the journal cannot be written now.
    pub degraded: bool,
    /// Whether claims wait for the end of a restart now.
    pub restarting: bool,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat<'a> {
    /// The session.
    pub session: SessionId,
    /// Under which claim.
    pub fence: Fence,
    /// On which shard.
    pub shard: &'a ShardKey,
    /// Where there: a hint, verified on arrival.
    pub slot: u32,
    /// Which use of that slot.
    pub generation: u32,
}

/// A claim that waits to be looked at.
#[derive(Debug)]
struct WaitingClaim {
    link: LinkId,
    claim: Claim,
}

/// A claim that is granted once its batch is on disk.
#[derive(Debug)]
struct PendingClaim {
    link: LinkId,
    claim: u64,
    session: SessionId,
    token_id: Arc<str>,
}

/// What waits for the disk.
#[derive(Debug)]
struct InFlight {
    id: u64,
    rewrite: bool,
    claims: Vec<PendingClaim>,
}

/// The wait after a restart.
#[derive(Debug)]
struct Restart {
    /// By then every lease given by the process before this one has run out.
    until: Time,
    /// Attached shards that have not told all their sessions.
    missing: BTreeSet<ShardKey>,
}

/// The core. See the module's documentation for the order of calls.
#[derive(Debug)]
pub struct Center {
    settings: CenterSettings,
    users: Users,
    shards: Shards,
    tokens: UsedTokens,
    session_next: u64,
    fence_next: u64,
    /// Below these the journal has, or will have with the open batch, reserved.
    reserved: (u64, u64),
    /// Lease time in the journal, while it is not the configured one.
    lease_recovered_ms: u32,
    restart: Option<Restart>,
    waiting: VecDeque<WaitingClaim>,
    /// Entries and claims of the batch that is being collected.
    open_entries: Vec<u8>,
    open_claims: Vec<PendingClaim>,
    in_flight: Option<InFlight>,
    batch_next: u64,
    /// The next batch is to be a rewrite.
    rewrite_wanted: bool,
    rewritten_bytes: u64,
    /// The first batch is on disk.
    ready: bool,
    /// The journal failed; when to try again.
    degraded: Option<Time>,
    sends: VecDeque<(LinkId, ToShard)>,
    closes: VecDeque<(LinkId, LinkFault)>,
    counts: CenterCounts,
}

impl Center {
    /// A center that starts at `now` with what its journal remembers. Its first batch rewrites
    /// the journal: grant nothing, and better accept no link, before that is durable.
    pub fn new(now: Now, settings: CenterSettings, recovered: Recovered) -> Self {
        let mut tokens = UsedTokens::new(now.unix_ms, TOKENS_MAX);
        for (id, used) in recovered.tokens {
            tokens.insert(&Arc::from(id), used);
        }
        tokens.forget(now.unix_ms);
        // The lease that shards live by is the one they were told, not the one configured now.
        let lease_ms = recovered.lease_ms.max(settings.lease_ms);
        let restart = (!recovered.attached.is_empty()).then(|| Restart {
            until: now.time.after_ms(u64::from(lease_ms) + LEASE_MARGIN_MS),
            missing: recovered.attached,
        });
        Self {
            lease_recovered_ms: if restart.is_some() {
                lease_ms
            } else {
                settings.lease_ms
            },
            users: Users::new(settings.sessions_max),
            shards: Shards::default(),
            tokens,
            session_next: recovered.sessions_below,
            fence_next: recovered.fences_below,
            reserved: (recovered.sessions_below, recovered.fences_below),
            restart,
            waiting: VecDeque::new(),
            open_entries: Vec::new(),
            open_claims: Vec::new(),
            in_flight: None,
            batch_next: 1,
            rewrite_wanted: true,
            rewritten_bytes: 0,
            ready: false,
            degraded: None,
            sends: VecDeque::new(),
            closes: VecDeque::new(),
            counts: CenterCounts::default(),
            settings,
        }
    }

    /// Whether the first batch is on disk.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Counters and gauges.
    pub fn counts(&self) -> CenterCounts {
        CenterCounts {
            sessions: self.users.len() as u64,
            shards: self.shards.len() as u64,
            claims_waiting: self.waiting.len() as u64,
            tokens: self.tokens.len() as u64,
            degraded: self.degraded.is_some(),
            restarting: self.restart.is_some(),
            ..self.counts
        }
    }

    /// Where the session of an account is. `None` also while its claim is not granted yet.
    pub fn seat_of(&self, account: &str) -> Option<Seat<'_>> {
        let user = self.users.by_account(account).filter(|user| user.granted)?;
        Some(Seat {
            session: user.session,
            fence: user.fence,
            shard: &self.shards.by_index(user.shard)?.key,
            slot: user.slot,
            generation: user.generation,
        })
    }

    /// A link's hello has come.
    ///
    /// # Errors
    /// The link is to be closed.
    pub fn handle_link_up(
        &mut self,
        now: Now,
        link: LinkId,
        hello: &ShardHello,
    ) -> Result<(), LinkFault> {
        check_hello(hello)?;
        let key = ShardKey {
            gateway: hello.gateway.as_str().into(),
            shard: ShardId(hello.shard),
            boot: hello.boot,
        };
        if self.shards.len() >= SHARDS_MAX && !self.shards.contains(&key) {
            return Err(LinkFault::Full);
        }
        let lease_until = self.lease_end(now.time);
        let linked = self.shards.link_up(&key, link, lease_until);
        if linked.is_new {
            self.journal(&Entry::Attached(key));
        }
        if let Some(older) = linked.replaced {
            self.forget_claims(older);
            self.closes.push_back((older, LinkFault::Replaced));
        }
        self.send(
            link,
            to_shard::Message::Hello(BackendHello {
                version: protocol::uplink::VERSION,
                instance: self.settings.instance.clone(),
                boot: self.settings.boot,
                group: 0,
                wants_address: false,
                lease_ms: self.settings.lease_ms,
            }),
        );
        Ok(())
    }

    /// A control message has come.
    ///
    /// # Errors
    /// The link is to be closed.
    pub fn handle_control(
        &mut self,
        now: Now,
        link: LinkId,
        message: ToBackend,
    ) -> Result<(), LinkFault> {
        let Some(index) = self.shards.by_link(link) else {
            // A link that was closed a moment ago: what still arrives of it says nothing.
            return Ok(());
        };
        match message.message {
            Some(to_backend::Message::Hello(_)) => Err(LinkFault::Hello),
            Some(to_backend::Message::Claim(claim)) => self.handle_claim(now, link, index, claim),
            Some(to_backend::Message::Release(release)) => {
                self.handle_release(index, &release);
                Ok(())
            }
            Some(to_backend::Message::Rebuild(rebuild)) => {
                self.handle_rebuild(now, link, index, rebuild)
            }
            Some(to_backend::Message::Renew(renew)) => {
                self.handle_renew(now, link, index, renew.renewal);
                Ok(())
            }
            None => Err(LinkFault::Unreadable),
        }
    }

    /// A link is gone. Its shard keeps its sessions until its lease has run out.
    pub fn handle_link_down(&mut self, link: LinkId) {
        let Some(index) = self.shards.link_down(link) else {
            return;
        };
        self.forget_claims(link);
        self.drop_shard_if_empty(index);
    }

    /// The batch is on disk; the file has now `journal_bytes`.
    pub fn handle_durable(&mut self, now: Now, batch: u64, journal_bytes: u64) {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.id == batch) else {
            return;
        };
        self.ready = true;
        self.counts.batches += 1;
        self.counts.journal_bytes = journal_bytes;
        if in_flight.rewrite {
            self.degraded = None;
            self.rewritten_bytes = journal_bytes;
        } else if journal_bytes > JOURNAL_REWRITE_BYTES.max(2 * self.rewritten_bytes) {
            self.rewrite_wanted = true;
        }
        for claim in in_flight.claims {
            self.grant(claim);
        }
        self.look_at_waiting(now);
    }

    /// The batch in flight could not be written. Nothing of it was promised to anybody.
    pub fn handle_journal_failed(&mut self, now: Now) {
        self.counts.batches_failed += 1;
        self.degraded = Some(now.time.after_ms(DEGRADED_RETRY_MS));
        // The next batch says everything anew.
        self.open_entries.clear();
        self.rewrite_wanted = false;
        let in_flight = self.in_flight.take().map(|in_flight| in_flight.claims);
        let open = std::mem::take(&mut self.open_claims);
        for pending in in_flight.into_iter().flatten().chain(open) {
            if let Some(user) = self.users.remove(pending.session) {
                self.shards.remove_session(user.shard, user.session);
                self.drop_shard_if_empty(user.shard);
            }
            self.tokens.remove(&pending.token_id);
            self.refuse(pending.link, pending.claim, ClaimRefusal::Degraded);
        }
        self.look_at_waiting(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.tokens.forget(now.unix_ms);
        for index in self.shards.overdue(now.time) {
            self.lose_lease(index);
        }
        if self
            .restart
            .as_ref()
            .is_some_and(|restart| restart.until <= now.time)
        {
            self.end_restart();
        }
        if self.degraded.is_some_and(|retry_at| retry_at <= now.time) {
            self.rewrite_wanted = self.in_flight.is_none();
            self.degraded = Some(now.time.after_ms(DEGRADED_RETRY_MS));
        }
        self.look_at_waiting(now);
    }

    /// The next message to send.
    pub fn poll_send(&mut self) -> Option<(LinkId, ToShard)> {
        self.sends.pop_front()
    }

    /// The next link to close, after what was sent to it. It is unknown to center already;
    /// `handle_link_down` for it does no harm.
    pub fn poll_close(&mut self) -> Option<(LinkId, LinkFault)> {
        self.closes.pop_front()
    }

    /// The next batch for the journal, while none is in flight.
    pub fn poll_append(&mut self) -> Option<Batch> {
        if self.in_flight.is_some() {
            return None;
        }
        let rewrite = std::mem::take(&mut self.rewrite_wanted);
        let records = if rewrite {
            self.open_entries.clear();
            ledger::pack(self.live_entries())
        } else if self.degraded.is_none() && !self.open_entries.is_empty() {
            vec![std::mem::take(&mut self.open_entries)]
        } else {
            return None;
        };
        let id = self.batch_next;
        self.batch_next += 1;
        self.in_flight = Some(InFlight {
            id,
            rewrite,
            claims: std::mem::take(&mut self.open_claims),
        });
        Some(Batch {
            id,
            rewrite,
            records,
        })
    }

    /// When `handle_timeout` is due. It may find nothing to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        let restart = self.restart.as_ref().map(|restart| restart.until);
        [self.shards.earliest(), restart, self.degraded]
            .into_iter()
            .flatten()
            .min()
    }

    // Claims.

    fn handle_claim(
        &mut self,
        now: Now,
        link: LinkId,
        index: ShardIndex,
        claim: Claim,
    ) -> Result<(), LinkFault> {
        let bounded = |text: &str, max| !text.is_empty() && text.len() <= max;
        if !bounded(&claim.account, ACCOUNT_BYTES_MAX)
            || !bounded(&claim.token_id, TOKEN_ID_BYTES_MAX)
        {
            return Err(LinkFault::Claim);
        }
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

    /// Decides on the waiting claims in order, as far as the open batch has room.
    fn look_at_waiting(&mut self, now: Now) {
        self.tokens.forget(now.unix_ms);
        while self.degraded.is_some()
            || (self.restart.is_none() && self.open_claims.len() < CLAIMS_PER_BATCH_MAX)
        {
            let Some(WaitingClaim { link, claim }) = self.waiting.pop_front() else {
                return;
            };
            let Some(index) = self.shards.by_link(link) else {
                continue;
            };
            if let Some(shard) = self.shards.by_index_mut(index) {
                shard.claims_waiting -= 1;
            }
            let number = claim.claim;
            if let Err(refusal) = self.decide(now, link, index, claim) {
                self.refuse(link, number, refusal);
            }
        }
    }

    fn decide(
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
        if self
            .tokens
            .is_used_by_another(now.unix_ms, &claim.token_id, &used)
        {
            return Err(ClaimRefusal::TokenReused);
        }
        if self.tokens.is_full() || self.users.is_full() {
            return Err(ClaimRefusal::Full);
        }
        // From here on the token is used up, whatever comes out: the first claim that names it
        // consumes it, so a copy of it is worthless.
        let token_id: Arc<str> = claim.token_id.into();
        self.tokens.insert(&token_id, used);
        let id = &token_id;
        self.journal(&Entry::Token { used, id });
        if self.users.by_account(&claim.account).is_some() {
            return Err(ClaimRefusal::AlreadyOnline);
        }
        let (session, fence) = self.reserve();
        let user = User {
            account: claim.account.into(),
            session,
            fence,
            shard,
            slot: claim.slot,
            generation: claim.generation,
            granted: false,
        };
        self.users.insert(user);
        self.shards.add_session(shard, session);
        self.open_claims.push(PendingClaim {
            link,
            claim: claim.claim,
            session,
            token_id,
        });
        Ok(())
    }

    /// The next session id and fence; reserves a block where the last one is used up. The
    /// reservation is in the same batch as the claim, or in an earlier one.
    fn reserve(&mut self) -> (SessionId, Fence) {
        if self.session_next >= self.reserved.0 || self.fence_next >= self.reserved.1 {
            self.reserved = (
                self.session_next + RESERVED_BLOCK,
                self.fence_next + RESERVED_BLOCK,
            );
            self.journal(&Entry::Reserved {
                sessions_below: self.reserved.0,
                fences_below: self.reserved.1,
            });
        }
        let reserved = (SessionId(self.session_next), Fence(self.fence_next));
        self.session_next += 1;
        self.fence_next += 1;
        reserved
    }

    /// The claim's batch is on disk.
    fn grant(&mut self, pending: PendingClaim) {
        let Some(user) = self.users.by_session_mut(pending.session) else {
            // A list of sessions meanwhile told of a higher fence, or the shard has gone.
            self.counts.claims_abandoned += 1;
            return;
        };
        let (shard, fence) = (user.shard, user.fence);
        if self.shards.by_link(pending.link) != Some(shard) {
            self.users.remove(pending.session);
            self.shards.remove_session(shard, pending.session);
            self.drop_shard_if_empty(shard);
            self.counts.claims_abandoned += 1;
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

    fn refuse(&mut self, link: LinkId, claim: u64, refusal: ClaimRefusal) {
        let (count, retry_after_ms) = match refusal {
            ClaimRefusal::TokenReused => (&mut self.counts.refused_token_reused, 0),
            ClaimRefusal::AlreadyOnline => (&mut self.counts.refused_already_online, 0),
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
                }),
            );
        }
    }

    /// The waiting claims of a link that is gone.
    fn forget_claims(&mut self, link: LinkId) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.link != link);
        self.counts.claims_abandoned += (before - self.waiting.len()) as u64;
    }

    // Sessions that shards hold.

    fn handle_release(&mut self, index: ShardIndex, release: &Release) {
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

    fn handle_rebuild(
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
            };
            if self.take_over(user) {
                self.counts.rebuilt += 1;
            } else {
                self.shards.unlist(index, session);
                self.revoke(link, session, Fence(live.fence));
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
    fn take_over(&mut self, user: User) -> bool {
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
                self.revoke(link, session, fence);
            }
            self.drop_shard_if_empty(shard);
        } else if self.users.is_full() {
            return false;
        }
        self.shards.add_session(user.shard, user.session);
        self.users.insert(user);
        true
    }

    fn revoke(&mut self, link: LinkId, session: SessionId, fence: Fence) {
        self.counts.revoked += 1;
        self.send(
            link,
            to_shard::Message::Revoke(Revoke {
                session: session.0,
                fence: fence.0,
            }),
        );
    }

    // Leases.

    fn handle_renew(&mut self, now: Now, link: LinkId, index: ShardIndex, renewal: u64) {
        let lease_until = self.lease_end(now.time);
        // Before it has told all its sessions a shard's lease is not prolonged, so that the wait
        // after a restart, which counts on leases running out, is right.
        if self.shards.renew(index, renewal, lease_until) {
            self.send(link, to_shard::Message::Renewed(Renewed { renewal }));
        }
    }

    fn lease_end(&self, now: Time) -> Time {
        now.after_ms(u64::from(self.settings.lease_ms) + LEASE_MARGIN_MS)
    }

    fn lose_lease(&mut self, index: ShardIndex) {
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
    fn drop_shard_if_empty(&mut self, index: ShardIndex) {
        let is_empty = |shard: &shards::Shard| shard.link.is_none() && shard.sessions.is_empty();
        if !self.shards.by_index(index).is_some_and(is_empty) {
            return;
        }
        let Some(shard) = self.shards.remove(index) else {
            return;
        };
        self.detach(shard.key);
    }

    /// The shard holds nothing any more, unless a restart still waits for it to say so.
    fn detach(&mut self, key: ShardKey) {
        let is_missing = |restart: &Restart| restart.missing.contains(&key);
        if !self.restart.as_ref().is_some_and(is_missing) {
            self.journal(&Entry::Detached(key));
        }
    }

    /// Everybody has told its sessions, or has lost them.
    fn end_restart(&mut self) {
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

    // Journal and links.

    /// Puts an entry into the open batch. Where it does not fit, the batch becomes a rewrite,
    /// which says everything; so links that come and go cannot make it grow.
    fn journal(&mut self, entry: &Entry<'_>) {
        if self.degraded.is_some() && self.in_flight.is_none() {
            // The rewrite that ends this state will say it.
            return;
        }
        if self.open_entries.len() + ENTRY_BYTES_MAX > RECORD_BYTES_MAX {
            self.open_entries.clear();
            self.rewrite_wanted = true;
        }
        entry.write(&mut self.open_entries);
    }

    /// Everything that the journal must remember.
    fn live_entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let missing = self.restart.iter().flat_map(|restart| &restart.missing);
        let lease_ms = self.lease_recovered_ms;
        [
            Entry::Reserved {
                sessions_below: self.reserved.0,
                fences_below: self.reserved.1,
            },
            Entry::Lease { ms: lease_ms },
        ]
        .into_iter()
        .chain(self.shards.keys().map(|key| Entry::Attached(key.clone())))
        .chain(missing.map(|key| Entry::Attached(key.clone())))
        .chain(
            self.tokens
                .iter()
                .map(|(id, used)| Entry::Token { used, id }),
        )
    }

    fn send(&mut self, link: LinkId, message: to_shard::Message) {
        let message = ToShard {
            message: Some(message),
        };
        self.sends.push_back((link, message));
    }
}

#[cfg(test)]
mod tests;
