//! The scenario `mixed`: what a live service sees at once. Each client sends requests on the
//! reliable lane and messages on the two others; a third of them is cut as in `reconnect-storm`;
//! and all of them leave at some time, with LOGOUT, and log in anew.
//!
//! The lane of a turn is a function of (client, turn), so that at any moment all lanes are in use,
//! and an answer names its turn without anything being remembered.
//!
//! Invariant: a client logs out only when its requests are answered, so that nothing of the
//! reliable lane may be missing afterwards.

use protocol::body::Lane;
use protocol::time::Time;

use super::{DUE_A_TURN, Fleet, Stage};
use crate::messages::WorkerPlan;
use crate::payload::Shape;
use crate::schedule::Schedule;

/// Turns after which the lanes of a client repeat: two requests and a message on each other lane.
const CYCLE: u32 = 4;
/// One client in so many is cut.
const CUT_ONE_IN: u32 = 3;
/// One client in so many leaves in each period.
const LEAVE_ONE_IN: f64 = 10.0;
/// Turns the order in which clients leave into another one than those of sends and of cuts.
const ORDER: u64 = 0x6c65_6176_6521;
/// Payloads from so many bytes on are compressed where that shrinks them, as `sallyport-client`
/// does.
pub(super) const COMPRESS_BYTES_MIN: usize = 256;

/// Whether a client is about to log out, to come back by a new login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leaving {
    #[default]
    No,
    /// As soon as its requests are answered.
    Wanted,
    /// LOGOUT is sent.
    Sent,
}

/// Turns on a lane among the first `phases` of a cycle that begins with its first.
const fn turns_before(lane: Lane, phases: u32) -> u32 {
    match lane {
        Lane::Reliable => phases.div_ceil(2),
        Lane::Sequenced => phases.saturating_add(2) / CYCLE,
        Lane::Unreliable => phases / CYCLE,
    }
}

/// The lane of a client's turn.
pub(super) const fn lane_of(client: u32, turn: u32) -> Lane {
    match (client % CYCLE + turn % CYCLE) % CYCLE {
        1 => Lane::Sequenced,
        3 => Lane::Unreliable,
        _ => Lane::Reliable,
    }
}

/// The how manieth of its lane a client's turn is, from 0.
pub(super) const fn number_of(client: u32, turn: u32) -> u32 {
    let (lane, first) = (lane_of(client, turn), client % CYCLE);
    turns_before(lane, turn.saturating_add(first)) - turns_before(lane, first)
}

/// The turn of a client that is the `number`th of this lane, from 0; `u32::MAX` if that is none.
pub(super) const fn turn_of(client: u32, lane: Lane, number: u32) -> u32 {
    let first = client % CYCLE;
    let nth = number as u64 + turns_before(lane, first) as u64;
    let cycle = CYCLE as u64;
    let phase = match lane {
        Lane::Reliable => nth * 2,
        Lane::Sequenced => nth * cycle + 1,
        Lane::Unreliable => nth * cycle + 3,
    };
    let turn = phase - first as u64;
    if turn < u32::MAX as u64 {
        turn as u32
    } else {
        u32::MAX
    }
}

/// Whether a client is one of those that are cut.
pub(super) const fn is_cut(client: u32) -> bool {
    client.is_multiple_of(CUT_ONE_IN)
}

/// When whom of this worker's clients leaves; `None` in other scenarios.
pub(super) fn leaves(plan: &WorkerPlan, start: Time) -> Option<Schedule> {
    let every_ms = plan.leave_every_ms?;
    let a_second = f64::from(plan.clients) / LEAVE_ONE_IN * 1e3 / every_ms as f64;
    Some(Schedule::new(
        start,
        a_second,
        plan.duration_ms,
        plan.clients,
        plan.first,
        plan.count,
        plan.seed ^ ORDER,
    ))
}

impl WorkerPlan {
    pub(super) fn is_mixed(&self) -> bool {
        self.leave_every_ms.is_some()
    }

    /// The lanes that its clients send on.
    pub(super) fn lanes(&self) -> &'static [Lane] {
        match self.lane.lane() {
            _ if self.is_mixed() => &[Lane::Reliable, Lane::Sequenced, Lane::Unreliable],
            Lane::Reliable => &[Lane::Reliable],
            Lane::Sequenced => &[Lane::Sequenced],
            Lane::Unreliable => &[Lane::Unreliable],
        }
    }

    /// The lane of a turn of one of its clients.
    pub(super) fn lane_of(&self, client: u32, turn: u32) -> Lane {
        if self.is_mixed() {
            lane_of(client, turn)
        } else {
            self.lane.lane()
        }
    }

    /// Which send on this lane a client makes in this turn; `None` if it sends on another then.
    pub(super) fn number_of(&self, client: u32, lane: Lane, turn: u32) -> Option<u32> {
        if self.is_mixed() {
            (lane_of(client, turn) == lane).then(|| number_of(client, turn))
        } else {
            Some(turn)
        }
    }

    /// The turn of a client's send of this number on this lane.
    pub(super) fn turn_of(&self, client: u32, lane: Lane, number: u32) -> u32 {
        if self.is_mixed() {
            turn_of(client, lane, number)
        } else {
            number
        }
    }

    /// What a client sends in this turn.
    pub(super) fn shape(&self, client: u32, lane: Lane, turn: u32) -> Shape {
        if self.is_mixed() && lane == Lane::Reliable {
            Shape::drawn(self.seed, client, turn)
        } else {
            Shape::random(self.payload_bytes)
        }
    }
}

impl Fleet {
    /// Those whose moment to leave has come begin to.
    pub(super) fn leave_due(&mut self, now: Time) {
        for _ in 0..DUE_A_TURN {
            let leaves = self.leaves.as_mut();
            let Some(index) = leaves.and_then(|leaves| leaves.poll_due(now)) else {
                return;
            };
            let slot = &mut self.slots[index as usize];
            // One that is away at the moment comes back as it was going to.
            if slot.stage == Stage::In
                && let Some(storm) = &mut slot.storm
                && storm.leaving == Leaving::No
            {
                storm.leaving = Leaving::Wanted;
                self.mark(index);
            }
        }
    }

    /// Logs a client out that wants to leave, once its requests are answered.
    pub(super) fn leave(&mut self, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        let (Some(storm), Some(client)) = (&mut slot.storm, &mut slot.client) else {
            return;
        };
        let is_ready = storm.leaving == Leaving::Wanted
            && slot.stage == Stage::In
            && slot.books.main.ledger.missing() == 0;
        if is_ready {
            storm.leaving = Leaving::Sent;
            client.logout(now);
            self.excuse_lossy(index);
        }
    }

    /// What is under way on the lossy lanes may be lost now.
    pub(super) fn excuse_lossy(&mut self, index: u32) {
        let excused = self.slots[index as usize].books.excuse_lossy();
        self.tally.outstanding = self.tally.outstanding.saturating_sub(excused);
    }
}

#[cfg(test)]
mod tests;
