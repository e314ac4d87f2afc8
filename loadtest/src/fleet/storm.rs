//! The scenario `reconnect-storm`: every client is cut again and again, without a word to the
//! gateway, and comes back to its session; where that is refused it logs in anew. In `mixed` the
//! same happens to some.
//!
//! When to try again is decided by the client's own core (`protocol::client::comeback`). Cuts have
//! their moments as sends have: a seeded order, evenly spread, whatever happens.
//!
//! Invariant: a client that is away counts as one that is logged in until it is given up, and
//! what is sent meanwhile waits in its outbox or is due.

use protocol::client::Closed;
use protocol::client::comeback::{ATTEMPTS_MAX, Comeback, Next};
use protocol::reason::CloseReason;
use protocol::time::{Now, Time};
use rand_core::RngCore as _;

use super::mixed::{self, Leaving};
use super::{DUE_A_TURN, Fleet, Phase, Stage, landed};
use crate::args::Transport;
use crate::messages::WorkerPlan;
use crate::schedule::Schedule;

/// Turns the order of the cuts into another one than that of the sends.
const ORDER: u64 = 0x7375_6d6d_6572;

/// A client of a storm.
#[derive(Debug)]
pub(super) struct Return {
    comeback: Comeback,
    /// Cut, and not back yet.
    pub(super) is_away: bool,
    /// There is a session to come back to, as far as this client knows.
    has_session: bool,
    /// When it first set out to come back from where it is.
    set_out: Option<Time>,
    /// Sends of sessions that were lost.
    pub(super) base: u32,
    /// In `mixed`.
    pub(super) leaving: Leaving,
}

impl Default for Return {
    fn default() -> Self {
        Self {
            comeback: Comeback::new(ATTEMPTS_MAX),
            is_away: false,
            has_session: false,
            set_out: None,
            base: 0,
            leaving: Leaving::No,
        }
    }
}

impl Return {
    /// Whether what is sent while it is away waits in an outbox that leads somewhere.
    pub(super) fn keeps(&self) -> bool {
        self.is_away && self.has_session
    }

    /// Whether its LOGOUT is sent.
    pub(super) fn has_left(&self) -> bool {
        self.leaving == Leaving::Sent
    }

    /// Whether it sends no more before its next login.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving != Leaving::No
    }

    /// The wait is over.
    pub(super) fn set_out(&mut self, now: Time) {
        self.set_out.get_or_insert(now);
    }
}

/// When this worker's clients are cut; `None` in other scenarios.
pub(super) fn cuts(plan: &WorkerPlan, start: Time) -> Option<Schedule> {
    let every_ms = plan.cut_every_ms?;
    Some(Schedule::new(
        start,
        f64::from(plan.clients) * 1e3 / every_ms as f64,
        plan.duration_ms,
        plan.clients,
        plan.first,
        plan.count,
        plan.seed ^ ORDER,
    ))
}

impl Fleet {
    /// Cuts those whose moment has come.
    pub(super) fn cut_due(&mut self, now: Time) {
        for _ in 0..DUE_A_TURN {
            let Some(index) = self.cuts.as_mut().and_then(|cuts| cuts.poll_due(now)) else {
                return;
            };
            let slot = &self.slots[index as usize];
            let is_meant = !self.plan.is_mixed() || mixed::is_cut(self.plan.first + index);
            let is_leaving = slot.storm.as_deref().is_some_and(Return::is_leaving);
            // One that is still away from the last time is not there to be cut.
            if is_meant && !is_leaving && slot.stage == Stage::In {
                self.tally.mixed.cuts += 1;
                self.fall(index, Closed::ByClient(CloseReason::PeerClosed), now);
            }
        }
    }

    /// Whether the end of a connection is only that, for this client.
    pub(super) fn comes_back(&self, index: u32) -> bool {
        let slot = &self.slots[index as usize];
        let is_there = matches!(
            slot.stage,
            Stage::Connecting(_) | Stage::LoggingIn | Stage::In | Stage::LoggingOut
        );
        slot.storm.is_some() && slot.was_in && is_there
    }

    /// A connection is over, or none came about; the client waits for its next attempt.
    pub(super) fn fall(&mut self, index: u32, closed: Closed, now: Time) {
        let random = self.rng.next_u64();
        self.set_group_up(index, false);
        self.excuse_lossy(index);
        let slot = &mut self.slots[index as usize];
        self.closes.extend(slot.conn.take());
        self.closes.extend(std::mem::take(&mut slot.side).conn);
        slot.is_sending = false;
        slot.has_more = false;
        slot.websocket = None;
        let Some(storm) = slot.storm.as_mut() else {
            return;
        };
        let was_in = matches!(slot.stage, Stage::In | Stage::LoggingOut);
        if was_in {
            storm.is_away = true;
        } else {
            self.in_flight -= landed(&mut slot.waits);
        }
        let mut retry_after_ms = 0;
        if let Some(client) = slot.client.as_mut() {
            client.handle_disconnected(&mut |_| {});
            retry_after_ms = client.retry_after_ms();
            if !client.can_resume() {
                slot.client = None;
            }
        }
        if slot.client.is_none() && storm.has_session {
            storm.has_session = false;
            let ledger = &mut slot.books.main.ledger;
            storm.base = ledger.sent();
            let missing = ledger.give_up();
            self.tally.lost += missing;
            self.tally.outstanding = self.tally.outstanding.saturating_sub(missing);
        }
        if slot.client.is_none() && matches!(self.phase, Phase::LoggingOut { .. }) {
            // That was what it wanted.
            storm.is_away = false;
            return self.bury(index);
        }
        if slot.client.is_none() && was_in && storm.leaving == Leaving::Sent {
            storm.comeback = Comeback::new(ATTEMPTS_MAX);
            slot.stage = Stage::Queued;
            return self.queue.push_back(index);
        }
        let closed = Some(closed);
        match storm
            .comeback
            .handle_end(now, closed, retry_after_ms, random)
        {
            Next::Again { wait_ms, .. } => slot.stage = Stage::Waiting(now.after_ms(wait_ms)),
            Next::Final | Next::GaveUp { .. } => self.give_up(index),
        }
    }

    /// A client that never comes back.
    pub(super) fn give_up(&mut self, index: u32) {
        if let Some(storm) = &mut self.slots[index as usize].storm
            && std::mem::take(&mut storm.is_away)
        {
            self.tally.never_back += 1;
            self.bury(index);
        }
    }

    /// A connection stands again: the way back into the session, or a new login.
    pub(super) fn begin_return(&mut self, index: u32, now: Now) -> Result<(), &'static str> {
        let mut ephemeral = [0; 32];
        self.rng.fill_bytes(&mut ephemeral);
        let slot = &mut self.slots[index as usize];
        if let Some(client) = slot.client.as_mut().filter(|client| client.can_resume()) {
            let begun = match self.plan.transport {
                Transport::Tcp | Transport::Ws => client.resume(ephemeral, now.time),
                Transport::Udp => client.resume_datagrams(ephemeral, now.time),
            };
            return begun.map_err(|reason| reason.label());
        }
        // Each login has a token of its own.
        slot.attempts += 1;
        let client = self.new_client(index, now)?;
        self.slots[index as usize].client = Some(Box::new(client));
        Ok(())
    }

    /// In a session, for the first time or again.
    pub(super) fn note_session(&mut self, index: u32, now: Time, is_resume: bool) {
        let slot = &mut self.slots[index as usize];
        let Some(storm) = slot.storm.as_mut() else {
            return;
        };
        storm.comeback.handle_in(now);
        storm.has_session = true;
        if !std::mem::take(&mut storm.is_away) {
            return;
        }
        let set_out = storm.set_out.take();
        let leaving = std::mem::take(&mut storm.leaving);
        slot.stage = Stage::In;
        self.in_flight -= landed(&mut slot.waits);
        if is_resume {
            self.tally.resumes += 1;
            if leaving != Leaving::No {
                // Its LOGOUT was not sent or did not arrive.
                storm.leaving = Leaving::Wanted;
            }
        } else if leaving == Leaving::Sent {
            self.tally.mixed.logouts += 1;
        } else {
            self.tally.relogins += 1;
        }
        // Who left was not on its way back.
        if let Some(set_out) = set_out {
            self.tally.back.record(now.us_since(set_out));
        }
        if matches!(self.phase, Phase::LoggingOut { .. }) {
            self.log_out_one(index, now);
        }
        self.mark(index);
    }
}
