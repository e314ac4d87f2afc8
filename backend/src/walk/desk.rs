//! The desk of the `walk` game: who may enter the map, whose moves count, when a tick is due.
//!
//! Owns the sessions that have a player on the map, and the time of the ticks; the players are
//! the roster's, which each call is given. It does not know where the map's nodes run.
//!
//! Invariant: a session has at most one player on the map, and none after it has gone.

use protocol::body::Lane;
use protocol::ids::{MessageId, SessionId};
use protocol::time::Time;
use protocol::world::{
    ABSENT, ENTER, Enter, Entry, MOVE, Move, REFUSED_FULL, REFUSED_HERE_ALREADY, REFUSED_MALFORMED,
    REFUSED_OUTSIDE, REFUSED_UNKNOWN, RETURNED,
};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::map::{MapError, Roster, Standing, Walker};
use crate::stub::{Context, GameCounts, Message, Request};

/// How long after its start a process remembers who stood on the map before, us: gateways open
/// their sessions again within seconds of its coming.
const REMEMBERED_US: u64 = 60_000_000;

/// Why a player was not put on the map, as its client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    text: &'static str,
}

/// A session's player.
#[derive(Debug, Clone, Copy)]
struct Here {
    walker: Walker,
    /// The last tick before it came. Frames of that one and of earlier ones are not for it.
    since: u32,
}

/// The core. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Desk {
    /// At most `players_max`, since each is on the map.
    walkers: FxHashMap<SessionId, Here>,
    /// Players of an earlier process whose sessions have not come yet.
    remembered: FxHashMap<SessionId, Standing>,
    /// Sessions that were told that they are not on the map; once each. They are here, so at most
    /// as many as the stub has.
    absent: FxHashSet<SessionId>,
    tick_ms: u16,
    /// While there is somebody.
    next_tick: Option<Time>,
    /// Without `players`, which the roster knows.
    pub(crate) counts: GameCounts,
    reply: Vec<u8>,
}

impl Desk {
    /// A desk without players, but with the memory of some. A tick takes at least 1 ms.
    pub(crate) fn new(tick_ms: u16, remembered: FxHashMap<SessionId, Standing>) -> Self {
        Self {
            walkers: FxHashMap::default(),
            remembered,
            absent: FxHashSet::default(),
            tick_ms: tick_ms.max(1),
            next_tick: None,
            counts: GameCounts::default(),
            reply: Vec::new(),
        }
    }

    /// When a tick is due.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.next_tick
    }

    /// Whether it is time for a tick; says how late it is, microseconds.
    pub(crate) fn late_us(&self, now: Time) -> Option<u64> {
        let due = self.next_tick.filter(|&due| due <= now)?;
        Some(now.us_since(due))
    }

    /// A tick has begun, and takes place.
    pub(crate) fn handle_tick(&mut self, now: Time, roster: &Roster) {
        let late_us = self.late_us(now).unwrap_or(0);
        if now.0 > REMEMBERED_US && !self.remembered.is_empty() {
            self.remembered = FxHashMap::default();
        }
        self.counts.ticks += 1;
        self.counts.tick_late_us_max = self.counts.tick_late_us_max.max(late_us);
        self.counts.ticks_skipped += self.pass_on(late_us, roster);
    }

    /// A tick is due, but the one before is not done: it does not take place.
    pub(crate) fn skip_tick(&mut self, now: Time, roster: &Roster) {
        let late_us = self.late_us(now).unwrap_or(0);
        self.counts.ticks_skipped += 1 + self.pass_on(late_us, roster);
    }

    /// Sets the next tick: at the steady rate, not a tick after this one was done; those that
    /// were missed are left out, since a late process must not be made later. Says how many.
    fn pass_on(&mut self, late_us: u64, roster: &Roster) -> u64 {
        let interval_us = u64::from(self.tick_ms) * 1_000;
        let missed = late_us / interval_us;
        self.next_tick = self
            .next_tick
            .filter(|_| !roster.is_empty())
            .map(|due| due + (missed + 1) * interval_us);
        missed
    }

    pub(super) fn enter(
        &mut self,
        roster: &mut Roster,
        now: Time,
        session: SessionId,
        payload: &[u8],
    ) -> Result<Entry, Refusal> {
        let refusal = |code, text| Refusal { code, text };
        let Ok(enter) = Enter::decode(payload) else {
            return Err(refusal(REFUSED_MALFORMED, "malformed"));
        };
        if self.walkers.contains_key(&session) {
            return Err(refusal(REFUSED_HERE_ALREADY, "on the map already"));
        }
        let walker =
            roster
                .handle_enter(session, enter.tag, enter.at)
                .map_err(|error| match error {
                    MapError::Full | MapError::Gone => refusal(REFUSED_FULL, "the map is full"),
                    MapError::Outside => refusal(REFUSED_OUTSIDE, "not on the map"),
                })?;
        Ok(self.admit(roster, now, session, walker))
    }

    fn admit(&mut self, roster: &Roster, now: Time, session: SessionId, walker: Walker) -> Entry {
        let since = roster.tick();
        self.walkers.insert(session, Here { walker, since });
        self.absent.remove(&session);
        let next = now.after_ms(self.tick_ms.into());
        self.next_tick.get_or_insert(next);
        let config = roster.layout().config();
        Entry {
            id: walker.id(),
            tick: since,
            map_width_units: config.width_units,
            map_height_units: config.height_units,
            view_units: config.view_units,
            hysteresis_units: config.hysteresis_units,
            // Checked with the configuration.
            visible_max: config.visible_max as u16,
            tick_ms: self.tick_ms,
        }
    }

    /// A session has come: if its player stood on the map of an earlier process, it stands there
    /// again, and its client is told.
    pub(crate) fn restore(
        &mut self,
        roster: &mut Roster,
        context: &mut Context<'_>,
        session: SessionId,
    ) {
        let Some(standing) = self.remembered.remove(&session) else {
            return;
        };
        // Full, or not on the map as it is configured now: its next move is answered.
        if let Ok(walker) = roster.handle_enter(session, standing.tag, standing.at) {
            let entry = self.admit(roster, context.now().time, session, walker);
            self.counts.players_restored += 1;
            self.reply.clear();
            entry.encode(&mut self.reply);
            // One that can't be told any more is going; `disconnected` follows.
            let _ = context.push(session, Lane::Reliable, RETURNED, &self.reply);
        }
    }

    /// A message that wants no answer. Who moves without being on the map is told so, once:
    /// after a restart its client cannot know.
    pub(crate) fn handle_message(
        &mut self,
        roster: &mut Roster,
        context: &mut Context<'_>,
        message: &Message<'_>,
    ) {
        let session = message.session;
        self.step(roster, session, message.message, message.payload);
        if message.message == MOVE
            && !self.walkers.contains_key(&session)
            && self.absent.insert(session)
        {
            let _ = context.push(session, Lane::Reliable, ABSENT, &[]);
        }
    }

    pub(super) fn step(
        &mut self,
        roster: &mut Roster,
        session: SessionId,
        message: MessageId,
        payload: &[u8],
    ) {
        let done = message == MOVE
            && match (Move::decode(payload), self.walkers.get(&session)) {
                (Ok(step), Some(here)) => roster.handle_move(here.walker, step.at).is_ok(),
                _ => false,
            };
        self.counts.moves_refused += u64::from(!done);
    }

    /// A request.
    pub(crate) fn answer(
        &mut self,
        roster: &mut Roster,
        context: &mut Context<'_>,
        request: &Request,
        payload: &[u8],
    ) {
        let answer = if request.message == ENTER {
            self.enter(roster, context.now().time, request.session, payload)
        } else {
            Err(Refusal {
                code: REFUSED_UNKNOWN,
                text: "no such request",
            })
        };
        // A player that can't be answered any more is going; `disconnected` follows.
        let _ = match answer {
            Ok(entry) => {
                self.reply.clear();
                entry.encode(&mut self.reply);
                context.reply(request, &self.reply)
            }
            Err(refusal) => context.reply_error(request, refusal.code, refusal.text),
        };
    }

    /// A session is gone.
    pub(crate) fn leave(&mut self, roster: &mut Roster, session: SessionId) {
        self.absent.remove(&session);
        if let Some(here) = self.walkers.remove(&session) {
            // It is on the map, as all walkers are.
            let _ = roster.handle_leave(here.walker);
        }
    }

    /// Whether a frame of a tick is for the player that the session has now: it may have gone,
    /// and come again, while partitions looked.
    pub(crate) fn is_for(&self, session: SessionId, tick: u32) -> bool {
        let here = self.walkers.get(&session);
        here.is_some_and(|here| tick.wrapping_sub(here.since) as i32 > 0)
    }
}
