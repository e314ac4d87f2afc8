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

mod bans;
mod census;
mod claims;
mod door;
mod holdings;
mod ledger;
mod moves;
mod queue;
mod shards;
mod tokens;
mod users;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use protocol::control::{
    BackendHello, Claim, ClaimRefusal, ShardHello, ToBackend, ToShard, to_backend, to_shard,
};
use protocol::ids::{Fence, SessionId, ShardId};
use protocol::limits::TOKEN_ID_BYTES_MAX;
use protocol::time::{Now, Time};

use crate::journal::{Batch, RECORD_BYTES_MAX};
use crate::link::{LinkFault, LinkId, check_hello};
use bans::Bans;
pub use bans::{Ban, BanError, BanKey};
pub use census::Online;
pub use door::DoorSettings;
use ledger::{ENTRY_BYTES_MAX, Entry, TOKEN_BYTES};
pub use ledger::{LedgerError, Recovered, ShardKey, TokenUse};
use queue::{Queue, Returning};
use shards::Shards;
use tokens::UsedTokens;
use users::Users;

/// Session ids and fences reserved in the journal at a time: few enough that crashes do not
/// use the numbers up, many enough that reserving is a rare entry.
pub const RESERVED_BLOCK: u64 = 65_536;

/// Sessions at a time, unless configured: a million take about 750 MB (`users.rs`).
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
    /// Who is let in, and who waits.
    pub door: DoorSettings,
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
    /// Claims refused because of a ban.
    pub refused_banned: u64,
    /// Claims refused because their account took its place over another connection.
    pub refused_place_taken: u64,
    /// Claims that had to wait in the queue, each connection once.
    pub queued: u64,
    /// Of those who waited, so many that were let in.
    pub admitted: u64,
    /// How long these waited in all, ms.
    pub waited_ms: u64,
    /// Changes of position that were told.
    pub places_told: u64,
    /// Claims whose client or link went away before the answer.
    pub claims_abandoned: u64,
    /// Sessions released by their shard.
    pub released: u64,
    /// Releases of a session or fence that is not (any more) the shard's.
    pub releases_ignored: u64,
    /// Sessions taken over from a shard's list.
    pub rebuilt: u64,
    /// Sessions that a shard was told to close.
    pub revoked: u64,
    /// Sessions that ended because of a ban.
    pub banned: u64,
    /// Of the revoked ones, so many that nobody held when their account logged in anew.
    pub replaced: u64,
    /// Sessions that their shard did not list any more.
    pub vanished: u64,
    /// Tickets that a shard asked for.
    pub seeks: u64,
    /// Sessions that went to another shard.
    pub moved: u64,
    /// Moves that were refused: the ticket was used, or center could not say.
    pub moves_refused: u64,
    /// Leases that ran out with sessions.
    pub leases_lost: u64,
    /// Sessions that ended because their shard was lost and nobody else could go on with them.
    pub sessions_lost: u64,
    /// Sessions that stayed when their shard was lost or gave them up.
    pub orphaned: u64,
    /// Of these, so many to whom nobody came back.
    pub orphans_ended: u64,
    /// Batches on disk.
    pub batches: u64,
    /// Batches that failed.
    pub batches_failed: u64,
    /// Size of the journal, bytes.
    pub journal_bytes: u64,
    /// Sessions now, granted or about to be.
    pub sessions: u64,
    /// Of these, so many that no shard holds.
    pub orphans: u64,
    /// Shards now, those without a link included.
    pub shards: u64,
    /// Players who wait in the queue now.
    pub queue: u64,
    /// Places in it that are kept for those who are not connected.
    pub queue_away: u64,
    /// Claims waiting now.
    pub claims_waiting: u64,
    /// Bans now.
    pub bans: u64,
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
    /// Fences below this are reserved once it is on disk.
    fences_below: u64,
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
    queue: Queue,
    returning: Returning,
    /// When center was called last.
    now: Now,
    tokens: UsedTokens,
    bans: Bans,
    session_next: u64,
    fence_next: u64,
    /// Below these the journal has, or will have with the open batch, reserved.
    reserved: (u64, u64),
    /// Fences below this are reserved on disk.
    fences_durable_below: u64,
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
            queue: Queue::new(
                settings.door.places_max,
                settings.door.forgiven_ms,
                recovered.fences_below,
            ),
            returning: Returning::new(settings.door.returning_ms),
            now,
            tokens,
            bans: Bans::new(recovered.bans),
            session_next: recovered.sessions_below,
            fence_next: recovered.fences_below,
            // The first batch says it.
            reserved: (
                recovered.sessions_below + RESERVED_BLOCK,
                recovered.fences_below + RESERVED_BLOCK,
            ),
            fences_durable_below: recovered.fences_below,
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
            orphans: self.users.orphans() as u64,
            shards: self.shards.len() as u64,
            queue: self.queue.len() as u64,
            queue_away: self.queue.away() as u64,
            claims_waiting: self.waiting.len() as u64,
            bans: self.bans.len() as u64,
            tokens: self.tokens.len() as u64,
            degraded: self.degraded.is_some(),
            restarting: self.restart.is_some(),
            ..self.counts
        }
    }

    /// Who is online.
    pub fn online(&self) -> Online {
        let gateways = self.shards.by_gateway().into_iter();
        let mut gateways: Vec<_> = gateways
            .filter(|(_, sessions)| *sessions > 0)
            .map(|(gateway, sessions)| (Some(gateway.into()), sessions))
            .collect();
        if self.users.orphans() > 0 {
            gateways.push((None, self.users.orphans() as u64));
        }
        Online {
            versions: self.users.census().versions(),
            channels: self.users.census().channels(),
            gateways,
        }
    }

    /// Where the session of an account is. `None` also while its claim is not granted yet.
    pub fn seat_of(&self, account: &str) -> Option<Seat<'_>> {
        let user = self.users.by_account(account).filter(|user| user.granted)?;
        Some(Seat {
            session: user.session,
            fence: user.fence,
            shard: &self.shards.by_index(user.shard?)?.key,
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
        self.now = now;
        let key = ShardKey {
            gateway: hello.gateway.as_str().into(),
            shard: ShardId(hello.shard),
            boot: hello.boot,
        };
        if self.shards.len() >= SHARDS_MAX && !self.shards.contains(&key) {
            return Err(LinkFault::Full);
        }
        let lease_until = self.lease_end(now.time);
        let logins = self.settings.door.credit(0);
        let linked = self
            .shards
            .link_up(&key, link, hello.resume_ms, lease_until, logins);
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
                wants_load: self.settings.door.busy_permille_max > 0,
            }),
        );
        self.tell_networks(now, link);
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
        self.now = now;
        let outcome = match message.message {
            Some(to_backend::Message::Hello(_)) => Err(LinkFault::Hello),
            Some(to_backend::Message::Claim(claim)) => self.handle_claim(now, link, index, claim),
            Some(to_backend::Message::Release(release)) => {
                self.handle_release(now, index, &release);
                Ok(())
            }
            Some(to_backend::Message::Rebuild(rebuild)) => {
                self.handle_rebuild(now, link, index, rebuild)
            }
            Some(to_backend::Message::Renew(renew)) => {
                self.handle_renew(now, link, index, renew.renewal);
                Ok(())
            }
            Some(to_backend::Message::Abandon(abandon)) => {
                self.handle_abandon(now, link, index, &abandon);
                Ok(())
            }
            Some(to_backend::Message::Update(update)) => self.handle_update(index, update),
            Some(to_backend::Message::Seek(seek)) => self.handle_seek(link, index, &seek),
            Some(to_backend::Message::Move(wanted)) => self.handle_move(now, link, index, &wanted),
            Some(to_backend::Message::Load(load)) => {
                self.handle_load(index, &load);
                Ok(())
            }
            None => Err(LinkFault::Unreadable),
        };
        self.admit(now);
        outcome
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
        self.now = now;
        self.ready = true;
        self.fences_durable_below = in_flight.fences_below;
        self.counts.batches += 1;
        self.counts.journal_bytes = journal_bytes;
        if in_flight.rewrite {
            self.degraded = None;
            self.rewritten_bytes = journal_bytes;
        } else if journal_bytes > JOURNAL_REWRITE_BYTES.max(2 * self.rewritten_bytes) {
            self.rewrite_wanted = true;
        }
        for claim in in_flight.claims {
            self.grant(now, claim);
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
            self.forget_pending(pending.session);
            self.tokens.remove(&pending.token_id);
            self.refuse(pending.link, pending.claim, ClaimRefusal::Degraded);
        }
        self.look_at_waiting(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.tokens.forget(now.unix_ms);
        for index in self.shards.overdue(now.time) {
            self.lose_lease(now, index);
        }
        self.end_orphans(now);
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
        self.tell_places(now);
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
            fences_below: self.reserved.1,
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
        let orphan = self.users.next_orphan();
        let queue = self.queue.next();
        [
            self.shards.earliest(),
            restart,
            self.degraded,
            orphan,
            queue,
        ]
        .into_iter()
        .flatten()
        .min()
    }

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
        .chain(self.bans.iter().map(|(key, ban)| Entry::Ban {
            key: Cow::Borrowed(key),
            ban: Cow::Borrowed(ban),
        }))
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
