//! The game of the group with maps: that of production, and notes of what it was told and when it
//! did a tick. It changes nothing of what the game hears or says.
//!
//! Invariant: a tick is noted after everything that it saw, and before anything else.

use std::collections::BTreeSet;

use backend::map::{MapConfig, MapConfigError};
use backend::stub::{Context, Departure, Game, Message, Player, Request};
use backend::walk::Walk;
use protocol::ids::SessionId;
use protocol::time::Time;
use protocol::world::{ENTER, Enter, MOVE, Move};

use super::Heard;

/// The game.
#[derive(Debug)]
pub struct WalkGame {
    walk: Walk,
    sessions: BTreeSet<SessionId>,
    next_life: u32,
    /// What it heard since the world looked.
    pub heard: Vec<Heard>,
}

impl WalkGame {
    /// A game with an empty map, whose stays are numbered from `next_life`.
    ///
    /// # Errors
    /// The map breaks a rule of maps.
    pub fn new(config: MapConfig, tick_ms: u16, next_life: u32) -> Result<Self, MapConfigError> {
        Ok(Self {
            walk: Walk::new(config, tick_ms)?,
            sessions: BTreeSet::new(),
            next_life,
            heard: Vec::new(),
        })
    }

    /// Sessions that are here, on the map or not.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.iter().copied().collect()
    }
}

impl Game for WalkGame {
    fn connected(&mut self, context: &mut Context<'_>, player: &Player<'_>) {
        self.sessions.insert(player.session);
        self.heard.push(Heard::Connected {
            session: player.session,
            fence: player.fence,
            account: player.account.to_owned(),
            life: self.next_life,
        });
        self.next_life += 1;
        self.walk.connected(context, player);
    }

    fn disconnected(&mut self, context: &mut Context<'_>, departure: &Departure) {
        let session = departure.session;
        self.sessions.remove(&session);
        self.heard.push(Heard::Disconnected { session });
        self.walk.disconnected(context, departure);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        if message.message == MOVE
            && let Ok(step) = Move::decode(message.payload)
        {
            self.heard.push(Heard::Moved {
                session: message.session,
                lane: message.lane,
                step,
            });
        }
        self.walk.message(context, message);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        if request.message == ENTER
            && let Ok(enter) = Enter::decode(payload)
        {
            self.heard.push(Heard::Entered {
                session: request.session,
                enter,
            });
        }
        self.walk.request(context, request, payload);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.walk.poll_timeout()
    }

    fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let before = self.walk.map().tick();
        self.walk.handle_timeout(context);
        let tick = self.walk.map().tick();
        if tick != before {
            self.heard.push(Heard::Ticked { tick });
        }
    }
}
