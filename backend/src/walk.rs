//! The `walk` game: players enter a map, walk, and are told who is near.
//!
//! It joins the messages of [`protocol::world`] to a [`Map`], and decides when it is time for a
//! tick. Who sees whom is the map's business. It believes whatever place a client tells, as long
//! as it is on the map: it shows the way of the frames, not how to judge a walk.
//!
//! # Call order
//! The calls of [`Game`], which does [`Walk::handle_tick`] when [`Walk::poll_timeout`] is due.
//! Time only moves forward.
//!
//! Invariant: a session has at most one player on the map, and none after it has gone.

use protocol::body::Lane;
use protocol::ids::{MessageId, SessionId};
use protocol::time::Time;
use protocol::world::{
    CHANGES, ENTER, Enter, Entry, MOVE, Move, POSITIONS, REFUSED_FULL, REFUSED_HERE_ALREADY,
    REFUSED_MALFORMED, REFUSED_OUTSIDE, REFUSED_UNKNOWN,
};
use rustc_hash::FxHashMap;

use crate::map::{Frame, Map, MapConfig, MapConfigError, MapError, Walker};
use crate::stub::{Context, Departure, Game, GameCounts, Message, Request};

/// Time between ticks, ms, unless configured: what players take for fluent.
pub const TICK_MS_DEFAULT: u16 = 100;

/// Why a player was not put on the map, as its client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    code: u16,
    text: &'static str,
}

/// The game.
#[derive(Debug)]
pub struct Walk {
    map: Map,
    /// At most `players_max`, since each is on the map.
    walkers: FxHashMap<SessionId, Walker>,
    tick_ms: u16,
    /// While there is somebody.
    next_tick: Option<Time>,
    /// Without `players`, which the map knows.
    counts: GameCounts,
    reply: Vec<u8>,
}

impl Walk {
    /// A game with an empty map. A tick takes at least 1 ms.
    ///
    /// # Errors
    /// The map's configuration breaks a rule.
    pub fn new(config: MapConfig, tick_ms: u16) -> Result<Self, MapConfigError> {
        Ok(Self {
            map: Map::new(config)?,
            walkers: FxHashMap::default(),
            tick_ms: tick_ms.max(1),
            next_tick: None,
            counts: GameCounts::default(),
            reply: Vec::new(),
        })
    }

    /// The map, to look at.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// When `handle_tick` is due.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.next_tick
    }

    /// Does a tick if it is time, and hands over what players are to be told.
    pub fn handle_tick(
        &mut self,
        now: Time,
        send: &mut impl FnMut(SessionId, Lane, MessageId, &[u8]),
    ) {
        let Some(due) = self.next_tick.filter(|&due| due <= now) else {
            return;
        };
        self.map.handle_tick(&mut |session, frame| match frame {
            Frame::Changes(bytes) => send(session, Lane::Reliable, CHANGES, bytes),
            Frame::Positions(bytes) => send(session, Lane::Sequenced, POSITIONS, bytes),
        });
        self.counts.ticks += 1;
        // At the steady rate, not a tick after this one was done; those that were missed are
        // left out, since a late process must not be made later.
        let interval_us = u64::from(self.tick_ms) * 1_000;
        let missed = now.us_since(due) / interval_us;
        self.counts.ticks_skipped += missed;
        self.next_tick = (!self.map.is_empty()).then_some(due + (missed + 1) * interval_us);
    }

    fn enter(&mut self, now: Time, session: SessionId, payload: &[u8]) -> Result<Entry, Refusal> {
        let refusal = |code, text| Refusal { code, text };
        let Ok(enter) = Enter::decode(payload) else {
            return Err(refusal(REFUSED_MALFORMED, "malformed"));
        };
        if self.walkers.contains_key(&session) {
            return Err(refusal(REFUSED_HERE_ALREADY, "on the map already"));
        }
        let walker = self
            .map
            .handle_enter(session, enter.tag, enter.at)
            .map_err(|error| match error {
                MapError::Full | MapError::Gone => refusal(REFUSED_FULL, "the map is full"),
                MapError::Outside => refusal(REFUSED_OUTSIDE, "not on the map"),
            })?;
        self.walkers.insert(session, walker);
        let next = now.after_ms(self.tick_ms.into());
        self.next_tick.get_or_insert(next);
        let config = self.map.layout().config();
        Ok(Entry {
            id: walker.id(),
            tick: self.map.tick(),
            map_width_units: config.width_units,
            map_height_units: config.height_units,
            view_units: config.view_units,
            hysteresis_units: config.hysteresis_units,
            // Checked with the configuration.
            visible_max: config.visible_max as u16,
            tick_ms: self.tick_ms,
        })
    }

    fn step(&mut self, session: SessionId, message: MessageId, payload: &[u8]) {
        let done = message == MOVE
            && match (Move::decode(payload), self.walkers.get(&session)) {
                (Ok(step), Some(&walker)) => self.map.handle_move(walker, step.at).is_ok(),
                _ => false,
            };
        self.counts.moves_refused += u64::from(!done);
    }

    fn leave(&mut self, session: SessionId) {
        if let Some(walker) = self.walkers.remove(&session) {
            // It is on the map, as all walkers are.
            let _ = self.map.handle_leave(walker);
        }
    }
}

impl Game for Walk {
    fn disconnected(&mut self, _: &mut Context<'_>, departure: &Departure) {
        self.leave(departure.session);
    }

    fn message(&mut self, _: &mut Context<'_>, message: &Message<'_>) {
        self.step(message.session, message.message, message.payload);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        let answer = if request.message == ENTER {
            self.enter(context.now().time, request.session, payload)
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

    fn poll_timeout(&self) -> Option<Time> {
        self.next_tick
    }

    fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let mut unsent = 0;
        self.handle_tick(
            context.now().time,
            &mut |session, lane, message, payload| {
                // Full: its session ends, and `disconnected` follows.
                let sent = context.push(session, lane, message, payload);
                unsent += u64::from(sent.is_err());
            },
        );
        self.counts.frames_unsent += unsent;
    }

    fn counts(&self) -> GameCounts {
        GameCounts {
            players: self.map.players() as u64,
            ..self.counts
        }
    }
}

#[cfg(test)]
mod tests;
