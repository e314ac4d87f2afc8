//! The games of the simulation, and what they note of everything they hear, for the world to
//! check: an echo, and the map of production.
//!
//! Invariant: a game notes something before it acts on it.

pub mod echo;
pub mod walk;

use std::collections::BTreeSet;

use backend::stub::{Context, Departure, Game, Message, Player, Request};
use protocol::body::Lane;
use protocol::ids::{ChannelId, Fence, SessionId};
use protocol::time::Time;
use protocol::world::{Enter, Move};

use echo::EchoGame;
use walk::WalkGame;

/// What the logic heard or did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A player came.
    Connected {
        /// The session.
        session: SessionId,
        /// Its claim.
        fence: Fence,
        /// Whose.
        account: String,
        /// This stay's number over the run.
        life: u32,
    },
    /// A player went.
    Disconnected {
        /// The session.
        session: SessionId,
    },
    /// A player sent something.
    Received {
        /// The session.
        session: SessionId,
        /// Which stay.
        life: u32,
        /// How it came.
        lane: Lane,
        /// Its content.
        payload: Vec<u8>,
    },
    /// A player asked to be put on the map.
    Entered {
        /// The session.
        session: SessionId,
        /// What it asked for.
        enter: Enter,
    },
    /// A player told where it is.
    Moved {
        /// The session.
        session: SessionId,
        /// How it came.
        lane: Lane,
        /// What it told.
        step: Move,
    },
    /// A message went to a channel.
    Published {
        /// Which start of the game: the number of its first stay.
        process: u32,
        /// To which.
        channel: ChannelId,
        /// How.
        lane: Lane,
        /// Who is a member.
        members: BTreeSet<SessionId>,
    },
    /// A player was taken out of a channel.
    Left {
        /// See `Published`.
        process: u32,
        /// Of which.
        channel: ChannelId,
        /// Who.
        session: SessionId,
    },
    /// The map did a tick.
    Ticked {
        /// Its number.
        tick: u32,
    },
}

/// The game of one process.
#[derive(Debug)]
pub enum Logic {
    /// Of the first group.
    Echo(EchoGame),
    /// Of the group with maps.
    Walk(Box<WalkGame>),
}

impl Logic {
    /// What it heard since it was asked last.
    pub fn take_heard(&mut self) -> Vec<Heard> {
        std::mem::take(match self {
            Self::Echo(game) => &mut game.heard,
            Self::Walk(game) => &mut game.heard,
        })
    }

    /// The echo, if it is one.
    pub fn echo(&self) -> Option<&EchoGame> {
        match self {
            Self::Echo(game) => Some(game),
            Self::Walk(_) => None,
        }
    }

    /// The echo, if it is one.
    pub fn echo_mut(&mut self) -> Option<&mut EchoGame> {
        match self {
            Self::Echo(game) => Some(game),
            Self::Walk(_) => None,
        }
    }

    /// Sessions that the logic believes are here.
    pub fn sessions(&self) -> Vec<SessionId> {
        match self {
            Self::Echo(game) => game.sessions(),
            Self::Walk(game) => game.sessions(),
        }
    }

    fn game(&mut self) -> &mut dyn Game {
        match self {
            Self::Echo(game) => game,
            Self::Walk(game) => game.as_mut(),
        }
    }
}

impl Game for Logic {
    fn connected(&mut self, context: &mut Context<'_>, player: &Player<'_>) {
        self.game().connected(context, player);
    }

    fn disconnected(&mut self, context: &mut Context<'_>, departure: &Departure) {
        self.game().disconnected(context, departure);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        self.game().message(context, message);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        self.game().request(context, request, payload);
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self {
            Self::Echo(game) => game.poll_timeout(),
            Self::Walk(game) => game.poll_timeout(),
        }
    }

    fn handle_timeout(&mut self, context: &mut Context<'_>) {
        self.game().handle_timeout(context);
    }
}
