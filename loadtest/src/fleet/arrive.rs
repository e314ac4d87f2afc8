//! The scenario `login-storm`: clients set out one after the other, each gets in, now or after it
//! has waited in the gateway's queue, asks one thing, stays a while and logs out.
//!
//! It judges the queue by what players would complain of: that somebody who set out after they
//! were told that they wait got in long before them, or that a short cut cost them their place.
//!
//! Invariant: a client is cut once at most, and only while it waits.

use protocol::body::QueuePosition;
use protocol::time::Time;

use super::{DUE_A_TURN, Fleet, GROUP_UP_MS, Phase, QUEUE_MS, Stage};
use crate::messages::{LoginStorm, Queued, WorkerPlan};

/// One client in so many is cut while it waits, without a word to the gateway, and comes back.
const CUT_ONE_IN: u32 = 20;

/// How long, ms, these stay away: what a phone takes from one network to another.
const AWAY_MS: u64 = 200;

/// Time, ms, by which somebody who came later may get in before somebody else: two shards tell
/// their clients each in its own time.
const OVERTAKEN_MS: u64 = 2_000;

/// A client of a storm of logins.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    set_out: Option<Time>,
    /// When it was first told that it waits.
    queued: Option<Time>,
    /// The position that it was told last.
    told: u32,
    is_cut: bool,
    /// When, after a cut, it was told again that it waits, or was in.
    back: Option<Time>,
    entered: Option<Time>,
}

impl Arrival {
    /// Whether it has not set out.
    pub(super) fn is_ahead(&self) -> bool {
        self.set_out.is_none()
    }

    /// Whether it was there to be let in at this moment.
    fn is_waiting_at(&self, at: Time) -> bool {
        !self.is_cut || self.back.is_some_and(|back| back < at)
    }
}

impl WorkerPlan {
    fn storm(&self) -> LoginStorm {
        self.login_storm.unwrap_or_default()
    }

    /// How long, ms, clients may wait without one of them being told that it moves.
    pub(crate) fn queue_ms(&self) -> u64 {
        QUEUE_MS + self.storm().stay_ms
    }
}

impl Fleet {
    /// Those whose moment has come set out; the storm is over when all have been in and have left,
    /// or were given up.
    pub(super) fn advance_storm(&mut self, now: Time) {
        for _ in 0..DUE_A_TURN {
            let Some(index) = self.schedule.as_mut().and_then(|it| it.poll_due(now)) else {
                break;
            };
            // A rate that does not divide the clients leaves a second turn to some.
            if let Some(arrival) = &mut self.slots[index as usize].arrival
                && arrival.is_ahead()
            {
                arrival.set_out = Some(now);
                self.queue.push_back(index);
            }
        }
        if self.tally.ever_in == 0 && self.unable.is_some() {
            return self.finish();
        }
        if self.arriving > 0 && now >= self.connect_deadline {
            self.give_up_arriving();
        }
        if self.arriving == 0 && self.tally.logged_in == 0 {
            self.end_window(now, now);
        }
    }

    /// What a client of the storm does next.
    pub(super) fn take_part(&mut self, index: u32, now: Time) {
        let number = self.plan.first + index;
        let stay_ms = self.plan.storm().stay_ms;
        let slot = &mut self.slots[index as usize];
        let Some(arrival) = &mut slot.arrival else {
            return;
        };
        if slot.stage == Stage::LoggingIn && slot.waits {
            if number.is_multiple_of(CUT_ONE_IN) && !arrival.is_cut {
                arrival.is_cut = true;
                self.cut_waiting(index, now);
            }
            return;
        }
        let (Stage::In, Some(entered)) = (slot.stage, arrival.entered) else {
            return;
        };
        let book = &mut slot.books.main;
        if book.due == 0 {
            if slot.group_up {
                book.due = 1;
                self.pending += 1;
                self.mark(index);
            } else if now >= entered.after_ms(GROUP_UP_MS) {
                self.tally.error("group_not_up");
                self.log_out_one(index, now);
            }
            return;
        }
        let is_answered = book.waiting() == 0 && book.ledger.missing() == 0;
        let is_over = now >= entered.after_ms(stay_ms);
        let is_lost = now >= entered.after_ms(stay_ms + self.plan.drain_ms);
        if (is_answered && is_over) || is_lost {
            self.log_out_one(index, now);
        }
    }

    /// Loses the connection of a client that waits.
    fn cut_waiting(&mut self, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        self.closes.extend(slot.conn.take());
        slot.client = None;
        slot.websocket = None;
        slot.is_sending = false;
        slot.has_more = false;
        slot.waits = false;
        // Its next login has a token of its own.
        slot.attempts += 1;
        slot.stage = Stage::Waiting(now.after_ms(AWAY_MS));
        self.tally.queued.cut += 1;
    }

    /// A client is told where it is in the queue.
    pub(super) fn note_position(&mut self, index: u32, position: QueuePosition, now: Time) {
        let slot = &mut self.slots[index as usize];
        let queued = &mut self.tally.queued;
        queued.position_max = queued.position_max.max(position.position);
        let Some(arrival) = &mut slot.arrival else {
            return;
        };
        if arrival.queued.is_none() {
            arrival.queued = Some(now);
            queued.waited += 1;
        }
        if arrival.is_cut && arrival.back.is_none() {
            arrival.back = Some(now);
            // Others who were cut and before it may have come back in the meantime.
            let cut_at_most = self.plan.clients / CUT_ONE_IN + 1;
            if position.position > arrival.told.saturating_add(cut_at_most) {
                self.tally.error("place_lost");
            }
        }
        arrival.told = position.position;
    }

    /// A client of the storm is in.
    pub(super) fn note_arrival(&mut self, index: u32, now: Time) {
        let Some(arrival) = &mut self.slots[index as usize].arrival else {
            return;
        };
        arrival.entered = Some(now);
        if arrival.is_cut {
            arrival.back.get_or_insert(now);
        }
        if let Some(queued) = arrival.queued {
            self.tally.waits.record(now.us_since(queued));
        }
    }

    /// What became of the queue.
    pub(super) fn queued(&mut self) -> Option<Queued> {
        self.plan.login_storm?;
        let arrivals: Vec<&Arrival> = self
            .slots
            .iter()
            .filter_map(|slot| slot.arrival.as_deref())
            .collect();
        let overtaken = overtaken(&arrivals);
        self.tally.errors_add("overtaken", overtaken);
        Some(self.tally.queued)
    }

    /// Whether clients come by themselves in this phase, each in its time.
    pub(super) fn is_storming(&self) -> bool {
        self.plan.login_storm.is_some() && self.phase == Phase::Running
    }
}

/// How many were overtaken: they knew that they wait when somebody set out who then got in long
/// before them.
fn overtaken(arrivals: &[&Arrival]) -> u64 {
    let mut later: Vec<(Time, Time)> = arrivals
        .iter()
        .filter_map(|arrival| arrival.set_out.zip(arrival.entered))
        .collect();
    later.sort_unstable();
    // The earliest to get in of those at this place in the order or behind it.
    let mut first_in = vec![Time(u64::MAX); later.len() + 1];
    for at in (0..later.len()).rev() {
        first_in[at] = first_in[at + 1].min(later[at].1);
    }
    let is_overtaken = |arrival: &&&Arrival| {
        let (Some(queued), Some(entered)) = (arrival.queued, arrival.entered) else {
            return false;
        };
        let at = later.partition_point(|(set_out, _)| *set_out <= queued);
        let first = first_in[at];
        first < entered
            && entered.us_since(first) > OVERTAKEN_MS * 1_000
            && arrival.is_waiting_at(first)
    };
    arrivals.iter().filter(is_overtaken).count() as u64
}

#[cfg(test)]
mod tests;
