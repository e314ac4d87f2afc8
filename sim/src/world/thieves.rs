//! Those who connect with a ticket that somebody has used before them.
//!
//! Invariant: they take nothing that a client is owed: neither its account nor its place.

use super::World;
use super::phases::Phase;
use super::tcp::Direction;
use crate::plan::Fault;
use crate::rule::{Rule, Step, check};
use crate::thief::Thief;

/// Resumes in a thousand after which the used ticket is shown at once.
const AT_ONCE_PER_MILLE: u64 = 300;

/// Thieves in a thousand that say everything twice.
const TWICE_PER_MILLE: u64 = 200;

impl World {
    /// A client has come back: somebody may have had its ticket too.
    pub(super) fn thief_follows(&mut self) {
        let is_there = self.phase == Phase::Faults && self.plan.faults.contains(&Fault::Thief);
        if is_there && self.random.chance(AT_ONCE_PER_MILLE) {
            self.thief(self.tickets.used().saturating_sub(1));
        }
    }

    /// Somebody shows some ticket that was used.
    pub(super) fn some_thief(&mut self) {
        let at = self.random.index(self.tickets.used());
        self.thief(at);
    }

    /// Somebody shows the used ticket in this place, to any shard.
    fn thief(&mut self, at: usize) {
        let Some((session, ticket)) = self.tickets.used_at(at) else {
            return;
        };
        self.thieves += 1;
        let shard = self.random.index(self.shards.len());
        let transport = self.plan.stream(&mut self.random);
        let number = self.open_conn(None, shard, transport);
        if let Some(conn) = self.conns.get_mut(&number) {
            conn.thief = Some(Thief::new(session, ticket));
        }
    }

    /// Somebody without an account goes on: who has a ticket, with it; a stranger reads nothing
    /// but the end.
    pub(super) fn stranger_reads(&mut self, number: u64) -> Step {
        let (random, now) = (self.random.secret(), self.now);
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        let (mut out, mut is_in) = (Vec::new(), false);
        if let Some(thief) = &mut conn.thief {
            let ready = conn.down.ready();
            let mut bytes = conn.down.take(ready);
            match conn.web.as_mut().map(|web| web.unwrap(&mut bytes)) {
                Some(Ok(frames)) => bytes = frames,
                Some(Err(_)) => {
                    self.close_client_side(number);
                    return Ok(());
                }
                None => {}
            }
            is_in = thief.handle_received(now, &bytes, &mut out);
            if conn.web.as_ref().is_none_or(|web| web.is_open()) {
                out.extend(thief.begin(now, random));
            }
            let (session, was_late) = (thief.session, thief.was_late);
            check(!is_in || was_late, Rule::TicketOnce, || {
                format!("somebody came into session {session} by a ticket that was used")
            })?;
            if !out.is_empty() && self.random.chance(TWICE_PER_MILLE) {
                out.extend_from_within(..);
            }
            self.client_writes(number, &out);
        }
        let is_ended = self
            .conns
            .get(&number)
            .is_some_and(|conn| conn.down.is_ended());
        if is_ended || is_in {
            self.close_client_side(number);
        }
        self.pump(number, Direction::Down);
        Ok(())
    }

    /// Whether a shard has still to hear that center gave a session of its to another one.
    pub(super) fn is_late(&self, shard: usize, session: u64) -> bool {
        let core = self.shards[shard].core.as_ref();
        core.is_some_and(|core| {
            let mut live = core.live_sessions();
            live.any(|(_, id, fence)| id.0 == session && self.book.was_moved(session, fence.0))
        })
    }
}
