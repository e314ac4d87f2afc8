//! The scenario `reconnect-storm`: every client is cut again and again, without a word to the
//! gateway, and comes back to its session; where that is refused it logs in anew.
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

use super::{DUE_A_TURN, Fleet, Phase, Stage};
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
}

impl Default for Return {
    fn default() -> Self {
        Self {
            comeback: Comeback::new(ATTEMPTS_MAX),
            is_away: false,
            has_session: false,
            set_out: None,
            base: 0,
        }
    }
}

impl Return {
    /// Whether what is sent now waits in an outbox that leads somewhere.
    pub(super) fn can_send(&self) -> bool {
        self.is_away && self.has_session
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
            // One that is still away from the last time is not there to be cut.
            if self.slots[index as usize].stage == Stage::In {
                self.fall(index, Closed::ByClient(CloseReason::PeerClosed), now);
            }
        }
    }

    /// Whether the end of a connection is only that, for this client.
    pub(super) fn comes_back(&self, index: u32) -> bool {
        let slot = &self.slots[index as usize];
        let is_there = matches!(
            slot.stage,
            Stage::Connecting(_) | Stage::LoggingIn | Stage::In
        );
        slot.storm.is_some()
            && slot.was_in
            && is_there
            && !matches!(self.phase, Phase::LoggingOut { .. })
    }

    /// A connection is over, or none came about; the client waits for its next attempt.
    pub(super) fn fall(&mut self, index: u32, closed: Closed, now: Time) {
        let random = self.rng.next_u64();
        self.set_group_up(index, false);
        let slot = &mut self.slots[index as usize];
        self.closes.extend(slot.conn.take());
        slot.is_sending = false;
        slot.has_more = false;
        slot.websocket = None;
        let Some(storm) = slot.storm.as_mut() else {
            return;
        };
        if slot.stage == Stage::In {
            storm.is_away = true;
            self.away += 1;
        } else {
            self.in_flight -= 1;
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
            storm.base = slot.ledger.sent();
            let missing = slot.ledger.give_up();
            self.tally.lost += missing;
            self.tally.outstanding = self.tally.outstanding.saturating_sub(missing);
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
            self.away -= 1;
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
        let set_out = storm.set_out.take().unwrap_or(now);
        slot.stage = Stage::In;
        self.in_flight -= 1;
        self.away -= 1;
        if is_resume {
            self.tally.resumes += 1;
        } else {
            self.tally.relogins += 1;
        }
        self.tally.back.record(now.us_since(set_out));
        self.mark(index);
    }
}
