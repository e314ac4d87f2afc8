//! Center: its core, its disk, and what it grants, as the wire shows it.
//!
//! Invariant: a message of center leaves only while its process lives; a batch
//! that was reported durable is on the disk at the next start.

use backend::center::{Center, CenterSettings, DoorSettings, Recovered};
use backend::link::{LinkFault, LinkId};
use prost::Message as _;
use protocol::control::{ToBackend, to_backend, to_shard};
use protocol::time::Time;

use super::event::Event;
use super::tcp::Direction;
use super::{World, is_due};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::plant::Plant;
use crate::random::Random;
use crate::rule::{Rule, Step, Violation, check};

/// Center's process.
#[derive(Debug)]
pub struct CenterHost {
    /// Its core while it lives.
    pub core: Option<Center>,
    /// Rises with each start.
    pub boot: u32,
    clock: Clock,
    /// Its disk, which outlives it.
    pub disk: Disk,
    wake_at: Option<Time>,
    /// The next write fails.
    pub fails_next: bool,
    /// Not scheduled until then.
    pub paused_until: Time,
}

impl CenterHost {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            core: None,
            boot: 0,
            clock: Clock::start(Time(0), random),
            disk: Disk::default(),
            wake_at: None,
            fails_next: false,
            paused_until: Time(0),
        }
    }

    /// Whether links can be made.
    pub fn is_ready(&self) -> bool {
        self.core.as_ref().is_some_and(Center::is_ready)
    }
}

impl World {
    pub(super) fn center_start(&mut self) -> Step {
        if self.center.core.is_some() {
            return Ok(());
        }
        let salt = self.random.bits() as u32;
        let records = self.center.disk.open(salt).map_err(|error| {
            Violation::new(
                Rule::IdsNeverRepeat,
                format!("the journal is lost: {error}"),
            )
        })?;
        let mut recovered = Recovered::replay(&records).map_err(|error| {
            Violation::new(
                Rule::IdsNeverRepeat,
                format!("the journal is lost: {error}"),
            )
        })?;
        if self.plant == Some(Plant::ForgetFenceJournal) {
            recovered.sessions_below = 1;
            recovered.fences_below = 1;
        }
        let settings = CenterSettings {
            instance: "center".to_owned(),
            boot: self.random.bits(),
            lease_ms: self.plan.lease_ms,
            sessions_max: 1_000,
            door: self
                .plan
                .queue
                .map_or(DoorSettings::OPEN, |queue| DoorSettings {
                    online_max: queue.online_max,
                    busy_permille_max: 0,
                    places_max: 1_000,
                    forgiven_ms: queue.forgiven_ms,
                    returning_ms: queue.returning_ms,
                }),
        };
        self.center.boot += 1;
        self.center.clock = Clock::start(self.now, &mut self.random);
        self.center.wake_at = None;
        self.center.fails_next = false;
        self.center.paused_until = self.now;
        let now = self.center.clock.now(self.now);
        self.center.core = Some(Center::new(now, settings, recovered));
        self.center_turn()
    }

    /// The process dies in the middle of whatever it did.
    pub(super) fn center_crash(&mut self) {
        if self.center.core.take().is_none() {
            return;
        }
        self.line.note_center_died();
        self.center.disk.crash(&mut self.random);
        let silent = self.random.chance(300);
        self.cut_links(|link| link.target == super::links::Target::Center, silent);
    }

    pub(super) fn center_wake(&mut self, boot: u32) -> Step {
        if self.center.boot != boot || !is_due(self.center.wake_at, self.now) {
            return Ok(());
        }
        self.center.wake_at = None;
        let now = self.center.clock.now(self.now);
        if let Some(core) = &mut self.center.core {
            core.handle_timeout(now);
        }
        self.center_turn()
    }

    pub(super) fn center_disk(&mut self, boot: u32, batch: u64) -> Step {
        if self.center.boot != boot {
            return Ok(());
        }
        let now = self.center.clock.now(self.now);
        let Some(core) = &mut self.center.core else {
            return Ok(());
        };
        let fails = std::mem::take(&mut self.center.fails_next) && core.is_ready();
        if fails {
            self.center.disk.fail(&mut self.random);
            core.handle_journal_failed(now);
            self.line.note_degraded(self.now);
        } else {
            match self.center.disk.finish() {
                Some(bytes) => core.handle_durable(now, batch, bytes),
                None => {
                    core.handle_journal_failed(now);
                    self.line.note_degraded(self.now);
                }
            }
        }
        self.center_turn()
    }

    /// A control message over a link.
    pub(super) fn center_control(&mut self, number: u64, message: &[u8]) -> Step {
        let now = self.center.clock.now(self.now);
        let Some(core) = &mut self.center.core else {
            return Ok(());
        };
        let Some(link) = self.links.get_mut(&number) else {
            return Ok(());
        };
        if link.target_boot != self.center.boot {
            return Ok(());
        }
        let decoded = ToBackend::decode(message).map_err(|error| {
            Violation::new(Rule::CoresAgree, format!("center cannot read it: {error}"))
        })?;
        self.tickets.note_asked(number, &decoded);
        if let Some(to_backend::Message::Abandon(abandon)) = &decoded.message {
            let claim = abandon.claim;
            self.line
                .note_abandoned(self.now, number, claim, abandon.given_up);
        }
        if let Some(to_backend::Message::Claim(claim)) = &decoded.message {
            self.line.note_claim(number, claim);
            // Under the token's own name, whatever a plant made of it.
            let token = claim.token_id.splitn(3, '-').take(2).collect::<Vec<_>>();
            let by = (link.shard, self.shards[link.shard].boot);
            self.book
                .note_claim(number, by, claim.claim, &claim.account, &token.join("-"));
        }
        let result = match decoded.message {
            Some(to_backend::Message::Hello(hello)) if !link.is_greeted => {
                link.is_greeted = true;
                core.handle_link_up(now, LinkId(number), &hello)
            }
            _ => core.handle_control(now, LinkId(number), decoded),
        };
        result.map_err(|fault| {
            Violation::new(Rule::CoresAgree, format!("center refuses a shard: {fault}"))
        })?;
        self.center_turn()
    }

    pub(super) fn center_link_down(&mut self, number: u64) -> Step {
        self.line.note_link_down(self.now, number);
        if let Some(core) = &mut self.center.core {
            core.handle_link_down(LinkId(number));
        }
        self.center_turn()
    }

    fn center_turn(&mut self) -> Step {
        loop {
            let Some(core) = &mut self.center.core else {
                return Ok(());
            };
            let sends: Vec<_> = std::iter::from_fn(|| core.poll_send()).collect();
            let closes: Vec<_> = std::iter::from_fn(|| core.poll_close()).collect();
            let batch = core.poll_append();
            if sends.is_empty() && closes.is_empty() && batch.is_none() {
                break;
            }
            for (LinkId(number), message) in sends {
                if let Some(to_shard::Message::Revoke(revoke)) = &message.message {
                    self.revoked.insert((revoke.session, revoke.fence));
                }
                if let Some(to_shard::Message::Moved(moved)) = &message.message
                    && let Some(live) = &moved.session
                {
                    let (session, fence) = (live.session, live.fence);
                    self.tickets
                        .note_given(number, moved.r#move, session, fence);
                    self.book.note_moved(session, &live.account, fence)?;
                    self.check_one_live_session(None)?;
                }
                match &message.message {
                    Some(to_shard::Message::Places(places)) => {
                        let forgiven_ms = self.plan.queue.map_or(0, |queue| queue.forgiven_ms);
                        self.line
                            .note_places(self.now, number, places, forgiven_ms)?;
                    }
                    Some(to_shard::Message::ClaimRefused(refused)) => {
                        self.line.note_refused(self.now, number, refused);
                    }
                    _ => {}
                }
                if let Some(to_shard::Message::ClaimGranted(granted)) = &message.message {
                    self.line.note_granted(self.now, number, granted.claim)?;
                    let (session, fence) = (granted.session, granted.fence);
                    self.tickets
                        .note_given(number, granted.claim, session, fence);
                    let account = self
                        .book
                        .note_grant(number, granted.claim, session, fence)?;
                    self.check_one_live_session(Some(&account))?;
                }
                let bytes = message.encode_to_vec();
                let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
                framed.extend_from_slice(&bytes);
                self.link_write(number, Direction::Down, 0, framed)?;
            }
            for (LinkId(number), fault) in closes {
                check(
                    matches!(fault, LinkFault::Lease | LinkFault::Replaced),
                    Rule::CoresAgree,
                    || format!("center closes a link: {fault}"),
                )?;
                self.line.note_link_down(self.now, number);
                self.close_link_from_target(number);
            }
            if let Some(batch) = batch {
                self.center.disk.submit(&batch);
                let after_us = self.random.between(1, 2 * self.plan.disk_us);
                let boot = self.center.boot;
                self.after_us(
                    after_us,
                    Event::CenterDisk {
                        boot,
                        batch: batch.id,
                    },
                );
            }
        }
        if let Some(due) = self.center.core.as_ref().and_then(Center::poll_timeout) {
            let at = self.center.clock.global(due).max(self.now + 1);
            if self.center.wake_at.is_none_or(|wake_at| at < wake_at) {
                self.center.wake_at = Some(at);
                let boot = self.center.boot;
                self.push(at, Event::CenterWake { boot });
            }
        }
        Ok(())
    }

    /// A target closes a link; its shard hears of it a little later.
    fn close_link_from_target(&mut self, number: u64) {
        if let Some(link) = self.links.get_mut(&number) {
            link.is_cut = true;
            link.target_open = false;
            link.queued_bytes = 0;
            let after_us = self.plan.link_delay_us;
            self.after_us(after_us, Event::LinkShardTold { link: number });
        }
    }

    /// No two shards that run have a live session of one account; and where
    /// center is about to grant `account`, none has. One that center has told its
    /// shard to end, or given to another one, does not count: the fence keeps it from
    /// backends.
    pub(super) fn check_one_live_session(&self, account: Option<&str>) -> Step {
        let mut live = std::collections::BTreeMap::new();
        for (shard, host) in self.shards.iter().enumerate() {
            // One that is not scheduled closes its sessions before it does
            // anything else; until then the fence keeps it from backends.
            if host.paused_until >= self.now {
                continue;
            }
            for (whose, session, fence) in host.core.iter().flat_map(|core| core.live_sessions()) {
                if self.revoked.contains(&(session.0, fence.0))
                    || self.book.was_moved(session.0, fence.0)
                {
                    continue;
                }
                check(account != Some(whose), Rule::OneLiveSession, || {
                    format!("center grants {whose}, whose session {session} lives")
                })?;
                let other = live.insert(whose, (shard, session));
                check(other.is_none(), Rule::OneLiveSession, || {
                    format!("{whose} has sessions {session} on shard {shard}, and {other:?}")
                })?;
            }
        }
        Ok(())
    }
}
