//! The `walk` game: players enter a map, walk, and are told who is near.
//!
//! It joins the messages of [`protocol::world`] to a [`Map`], and decides when it is time for a
//! tick. Who sees whom is the map's business. Here everything runs in the caller's thread, under
//! whatever time it is told; [`crate::spread`] is the same game with its map on other cores. It believes whatever place a client tells, as long
//! as it is on the map: it shows the way of the frames, not how to judge a walk.
//!
//! # Call order
//! The calls of [`Game`], which does [`Walk::handle_tick`] when [`Walk::poll_timeout`] is due.
//! Time only moves forward.
//!
//! Invariant: a session has at most one player on the map, and none after it has gone.

pub(crate) mod desk;

use protocol::body::Lane;
use protocol::ids::{MessageId, SessionId};
use protocol::time::Time;
use protocol::world::{CHANGES, POSITIONS};
use rustc_hash::FxHashMap;

use crate::map::{Frame, Map, MapConfig, MapConfigError};
use crate::stub::{Context, Departure, Game, GameCounts, Message, Request};
use desk::Desk;

/// Time between ticks, ms, unless configured: what players take for fluent.
pub const TICK_MS_DEFAULT: u16 = 100;

/// The game, with the whole map in the caller's thread.
#[derive(Debug)]
pub struct Walk {
    desk: Desk,
    map: Map,
}

impl Walk {
    /// A game with an empty map. A tick takes at least 1 ms.
    ///
    /// # Errors
    /// The map's configuration breaks a rule.
    pub fn new(config: MapConfig, tick_ms: u16) -> Result<Self, MapConfigError> {
        Ok(Self {
            desk: Desk::new(tick_ms, FxHashMap::default()),
            map: Map::new(config)?,
        })
    }

    /// The map, to look at.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// When `handle_tick` is due.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.desk.poll_timeout()
    }

    /// Does a tick if it is time, and hands over what players are to be told.
    pub fn handle_tick(
        &mut self,
        now: Time,
        send: &mut impl FnMut(SessionId, Lane, MessageId, &[u8]),
    ) {
        if self.desk.late_us(now).is_none() {
            return;
        }
        self.map.handle_tick(&mut |session, frame| match frame {
            Frame::Changes(bytes) => send(session, Lane::Reliable, CHANGES, bytes),
            Frame::Positions(bytes) => send(session, Lane::Sequenced, POSITIONS, bytes),
        });
        self.desk.handle_tick(now, self.map.roster());
    }
}

impl Game for Walk {
    fn disconnected(&mut self, _: &mut Context<'_>, departure: &Departure) {
        self.desk.leave(self.map.roster_mut(), departure.session);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        let roster = self.map.roster_mut();
        self.desk.handle_message(roster, context, message);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        let roster = self.map.roster_mut();
        self.desk.answer(roster, context, request, payload);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.desk.poll_timeout()
    }

    fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let mut unsent = 0;
        self.handle_tick(
            context.now().time,
            &mut |session, lane, message, payload| {
                // Full: its session ends, and `disconnected` follows.
                let sent = match lane {
                    // Each has all who move in view: an older one is worth nothing.
                    Lane::Sequenced => context.push_latest(session, 0, message, payload),
                    _ => context.push(session, lane, message, payload),
                };
                unsent += u64::from(sent.is_err());
            },
        );
        self.desk.counts.frames_unsent += unsent;
    }

    fn counts(&self) -> GameCounts {
        GameCounts {
            players: self.map.players() as u64,
            ..self.desk.counts
        }
    }
}

#[cfg(test)]
mod tests;
