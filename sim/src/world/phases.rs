//! The course of a run: faults, healing, quiet, leaving, and what must be true
//! before the next part begins.
//!
//! Invariant: phases only move forward, each in bounded time.

use std::collections::BTreeMap;

use gateway::shard::Shard;
use protocol::reason::{CloseReason, DropReason};
use protocol::time::Time;

use super::World;
use super::client_side::GROUP;
use super::event::Event;
use super::walkers::MAP_GROUP;
use crate::rule::{Rule, Step, Violation, check};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Things go wrong.
    Faults,
    /// Nothing goes wrong any more; applications still send.
    Healed,
    /// Applications have stopped sending.
    Quiet,
    /// Everybody logs out.
    Leaving,
    /// Nothing is left.
    Over,
}

/// Time between healing and quiet, ms.
const HEALED_MS: u64 = 3_000;

fn tell(role: &str, index: usize, what: &str, label: &str, count: u64) {
    if count > 0 {
        eprintln!("{role} {index} {what} {label} {count}");
    }
}

/// Pause between two looks, ms.
const LOOK_MS: u64 = 500;

/// What the slowest recovery takes beyond the configured deadlines, ms: pauses
/// before dialling and coming back, an acknowledgement that waits, retransmissions,
/// a degraded center's pause, a second round of most of it.
const RECOVERY_MS: u64 = 45_000;

impl World {
    pub(super) fn heal(&mut self) {
        self.phase = Phase::Healed;
        let network = &mut self.plan.network;
        network.loss_per_mille = 0;
        network.repeat_per_mille = 0;
        network.reorder_per_mille = 0;
        network.corrupt_per_mille = 0;
        for conn in self.conns.values_mut() {
            conn.attacker.armed = None;
        }
        self.renew_paths();
        self.after_us(1_000 * HEALED_MS, Event::Quiet);
    }

    pub(super) fn quiet(&mut self) -> Step {
        self.phase = Phase::Quiet;
        self.after_us(1_000 * LOOK_MS, Event::Look);
        self.walkers_stop()
    }

    /// When the world must be at rest.
    fn rest_by(&self) -> Time {
        let plan = &self.plan;
        let deadlines_ms = 2 * u64::from(plan.lease_ms)
            + 2 * u64::from(plan.idle_timeout_ms)
            + u64::from(plan.login_timeout_ms)
            + 2 * u64::from(plan.resume_ms)
            + plan.link_grace_ms
            + plan.queue.map_or(0, |queue| queue.forgiven_ms);
        plan.heal_at
            .after_ms(HEALED_MS + deadlines_ms + RECOVERY_MS)
    }

    pub(super) fn look(&mut self) -> Step {
        let unfinished = match self.phase {
            Phase::Quiet => {
                // Some come in, or are let in again, only now.
                self.walkers_stop()?;
                self.unsettled().or_else(|| self.views_unsettled())
            }
            Phase::Leaving => self.left_over(),
            _ => return Ok(()),
        };
        match (unfinished, self.phase) {
            (None, Phase::Quiet) => {
                self.phase = Phase::Leaving;
                for client in 0..self.clients.len() {
                    self.client_leaves(client)?;
                }
            }
            (None, _) => {
                self.check_links()?;
                self.tell_counters();
                self.phase = Phase::Over;
                return Ok(());
            }
            (Some(violation), _) => {
                check(self.now < self.rest_by(), violation.rule, || {
                    format!("long after the last fault: {}", violation.detail)
                })?;
            }
        }
        self.after_us(1_000 * LOOK_MS, Event::Look);
        Ok(())
    }

    /// What is not yet as it must be once faults have ended.
    fn unsettled(&self) -> Option<Violation> {
        let late = |detail: String| Some(Violation::new(Rule::Liveness, detail));
        let counts = self.center.core.as_ref().map(|core| core.counts());
        let is_full = self.plan.queue.is_some_and(|queue| {
            counts.is_some_and(|counts| counts.sessions >= queue.online_max as u64)
        });
        // Whom center lets in at most, and who waits meanwhile.
        let mut online: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for host in &self.clients {
            let (playing, waiting) = online.entry(&host.account).or_default();
            *playing += usize::from(host.session().is_some());
            *waiting += usize::from(host.is_queued);
        }
        let is_right = |(playing, waiting): (usize, usize)| {
            playing == 1 || (playing == 0 && waiting == 1 && is_full)
        };
        if let Some((account, (count, waiting))) =
            online.iter().find(|(_, counts)| !is_right(**counts))
        {
            let count = format!("{count} ({waiting} waiting)");
            return late(format!("{count} clients are logged in as {account}"));
        }
        for (client, host) in self.clients.iter().enumerate() {
            let (Some(core), Some(attempt), Some(session)) =
                (&host.core, host.attempt, host.session())
            else {
                continue;
            };
            let is_map_up = self.plan.map.is_none() || core.is_group_up(MAP_GROUP);
            if !core.is_group_up(GROUP) || !is_map_up {
                return late(format!("a group is not up for client {client}"));
            }
            let sent = self
                .games
                .iter()
                .filter_map(|game| game.core.as_ref()?.game().echo()?.sent_reliable(session))
                .max();
            if let Some(what) = self.book.undone(attempt, sent) {
                return late(format!("client {client}: {what}"));
            }
            let echoes = self.games.iter().filter_map(|game| game.core.as_ref());
            let unheard = echoes
                .filter_map(|core| core.game().echo())
                .filter(|echo| echo.sent_reliable(session).is_some())
                .find_map(|echo| {
                    echo.channels_of(session)
                        .find_map(|channel| self.talk.unheard(session, echo.process, channel))
                });
            if let Some(what) = unheard {
                return late(format!("client {client}: {what}"));
            }
            if core.outbox_messages() > 0 {
                return Some(Violation::new(
                    Rule::Bounded,
                    format!(
                        "client {client} keeps {} messages that were processed",
                        core.outbox_messages()
                    ),
                ));
            }
        }
        None
    }

    /// For somebody who looks at a seed: what the processes that live counted.
    pub(super) fn tell_counters(&self) {
        if !self.trace.loud {
            return;
        }
        for (shard, host) in self.shards.iter().enumerate() {
            let Some(core) = &host.core else { continue };
            for &reason in CloseReason::ALL {
                tell(
                    "shard",
                    shard,
                    "closes",
                    reason.label(),
                    core.counters().closes(reason),
                );
            }
            for &reason in DropReason::ALL {
                tell(
                    "shard",
                    shard,
                    "drops",
                    reason.label(),
                    core.counters().drops(reason),
                );
            }
        }
        for (game, host) in self.games.iter().enumerate() {
            let Some(core) = &host.core else { continue };
            let counts = core.counts();
            for (reason, count) in CloseReason::ALL.iter().zip(counts.kicks) {
                tell("game", game, "kicks", reason.label(), count);
            }
            for (reason, count) in DropReason::ALL.iter().zip(counts.drops) {
                tell("game", game, "drops", reason.label(), count);
            }
        }
        eprintln!("{:#?}", self.center.core.as_ref().map(|core| core.counts()));
    }

    /// What is still there after everybody has left.
    fn left_over(&self) -> Option<Violation> {
        let left = |what: &str, count: usize| {
            (count > 0).then(|| Violation::new(Rule::Bounded, format!("{count} {what} are left")))
        };
        let cores = || self.shards.iter().filter_map(|host| host.core.as_ref());
        let counts = self.center.core.as_ref().map(|core| core.counts());
        let of_games = |count: fn(&backend::stub::StubCounts) -> u64| {
            self.games
                .iter()
                .filter_map(|game| game.core.as_ref())
                .map(|core| count(&core.counts()) as usize)
                .sum()
        };
        left(
            "connections of shards",
            cores().map(Shard::connections).sum(),
        )
        .or_else(|| left("sessions of shards", cores().map(Shard::sessions).sum()))
        .or_else(|| left("parked sessions", cores().map(Shard::parked).sum()))
        .or_else(|| {
            let sessions = counts.map_or(0, |counts| counts.sessions);
            left("sessions at center", sessions as usize)
        })
        .or_else(|| {
            let waiting = counts.map_or(0, |counts| counts.claims_waiting);
            left("claims at center", waiting as usize)
        })
        .or_else(|| {
            let places = counts.map_or(0, |counts| counts.queue + counts.queue_away);
            left("places in the queue", places as usize)
        })
        .or_else(|| left("sessions of games", of_games(|counts| counts.sessions)))
        .or_else(|| left("detached sessions", of_games(|counts| counts.detached)))
    }
}
