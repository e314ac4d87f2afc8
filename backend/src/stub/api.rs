//! What game logic is written against: the [`Game`] trait, and [`Context`] by which it answers.
//!
//! A game is called in the order in which things happen to a player, on one thread; it sees no
//! link, no number and no acknowledgement. Invariant: for each session `connected` comes once,
//! then any number of calls, then `disconnected` once.

use protocol::body::Lane;
pub use protocol::channel::{EVERYBODY, Filter};
use protocol::ids::{ChannelId, Fence, MessageId, SessionId};
use protocol::quality::Quality;
use protocol::reason::CloseReason;
use protocol::time::{Now, Time};
use protocol::uplink::ClientAddress;

use super::core::Core;

/// A player whose session has come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Player<'a> {
    /// The session.
    pub session: SessionId,
    /// Which claim of it; rises over all sessions of an account.
    pub fence: Fence,
    /// The account.
    pub account: &'a str,
    /// Distribution channel.
    pub channel: &'a str,
    /// Version of the game client.
    pub client_version: u32,
    /// Where the client is, if this process asked for it.
    pub address: Option<ClientAddress>,
    /// When the login was done, Unix ms.
    pub unix_ms: u64,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The session.
    pub session: SessionId,
    /// Why; `None` for a reason that this version does not know.
    pub reason: Option<CloseReason>,
    /// When, Unix ms.
    pub unix_ms: u64,
}

/// A message from a player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// From whom.
    pub session: SessionId,
    /// How it came.
    pub lane: Lane,
    /// The game's own type.
    pub message: MessageId,
    /// Its content.
    pub payload: &'a [u8],
}

/// A request to be answered; may be kept and answered later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// From whom.
    pub session: SessionId,
    /// The game's own type, repeated in the replies.
    pub message: MessageId,
    /// The client's number for it.
    pub(super) request: u32,
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session is not here (any more).
    #[error("the session is not here")]
    Gone,
    /// The payload does not fit into a frame.
    #[error("the payload does not fit into a frame")]
    TooLong,
    /// The player has acknowledged nothing for too long; its session ends with
    /// `outbox_overflow`.
    #[error("the player's outbox is full")]
    Full,
}

/// Why something about a channel or an attribute was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The session is not here (any more).
    #[error("the session is not here")]
    Gone,
    /// The session has as many channels, or attributes, as one may have.
    #[error("the session has as many of these as one may have")]
    TooManyOfSession,
    /// The process has as many channels as it may have, or a channel has used up its numbers.
    #[error("the process has as many channels as it may have")]
    TooMany,
    /// The payload does not fit into a frame.
    #[error("the payload does not fit into a frame")]
    TooLong,
}

/// What a game counts of its own, for `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GameCounts {
    /// Players on the map now.
    pub players: u64,
    /// Ticks done.
    pub ticks: u64,
    /// Ticks left out, because the one before them was done too late.
    pub ticks_skipped: u64,
    /// Time that ticks took, from their begin until their frames were handed over, microseconds.
    pub tick_us: u64,
    /// Of the longest one.
    pub tick_us_max: u64,
    /// Longest time that a tick began after it was due, microseconds.
    pub tick_late_us_max: u64,
    /// Snapshots of the whole map that are on disk.
    pub snapshots_written: u64,
    /// Snapshots of which a file could not be written.
    pub snapshots_failed: u64,
    /// Files that could not be read at the start.
    pub snapshots_unreadable: u64,
    /// Players put back where an earlier process had them.
    pub players_restored: u64,
    /// Moves that were malformed, off the map, or by one who is not on it.
    pub moves_refused: u64,
    /// Frames that their players were not sent, because these are on their way out.
    pub frames_unsent: u64,
}

/// Game logic. Everything has a default that ignores it, but an unanswered request stays so.
pub trait Game {
    /// A player has come.
    fn connected(&mut self, context: &mut Context<'_>, player: &Player<'_>) {
        let _ = (context, player);
    }

    /// A player has gone; nothing can be sent to it any more.
    fn disconnected(&mut self, context: &mut Context<'_>, departure: &Departure) {
        let _ = (context, departure);
    }

    /// A player sent a message that wants no answer.
    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        let _ = (context, message);
    }

    /// A player sent a request.
    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        let _ = (context, request, payload);
    }

    /// When `handle_timeout` is due, for a game that acts of its own accord. Asked for after
    /// every call.
    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// The time of `poll_timeout` has come. A game that does not move it on is called again at
    /// once.
    fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// Called in each turn of the process's loop, for a game with threads of its own: takes what
    /// they have done, and leaves `wakeup` with them, so that it is called when there is more.
    fn poll_background(&mut self, wakeup: &mut std::task::Context<'_>, context: &mut Context<'_>) {
        let _ = (wakeup, context);
    }

    /// How things stand, for a game that counts anything.
    fn counts(&self) -> GameCounts {
        GameCounts::default()
    }
}

/// What a game can do while it is called.
pub struct Context<'a> {
    pub(super) core: &'a mut Core,
    pub(super) now: Now,
}

impl Context<'_> {
    /// Now.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Answers a request, for the last time.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn reply(&mut self, request: &Request, payload: &[u8]) -> Result<(), SendError> {
        self.core.reply(self.now, request, false, payload)
    }

    /// Answers a request; another answer follows.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn reply_more(&mut self, request: &Request, payload: &[u8]) -> Result<(), SendError> {
        self.core.reply(self.now, request, true, payload)
    }

    /// Answers a request with an error of the game's own. The text is cut to 256 bytes.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn reply_error(
        &mut self,
        request: &Request,
        code: u16,
        text: &str,
    ) -> Result<(), SendError> {
        self.core.reply_error(self.now, request, code, text)
    }

    /// Sends a player a message of the server's own accord. It costs that player only, and leaves
    /// with whatever else was sent in this turn.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn push(
        &mut self,
        session: SessionId,
        lane: Lane,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.core.push(self.now, session, lane, message, payload)
    }

    /// Makes a player a member of a channel, which begins with its first member. It gets what is
    /// published from now on; while its client is away it stays one, and what it misses of the
    /// reliable lane it is sent once it is back, as far as the tail goes
    /// ([`TAIL_MESSAGES_MAX`](super::TAIL_MESSAGES_MAX), [`TAIL_BYTES_MAX`](super::TAIL_BYTES_MAX)).
    ///
    /// # Errors
    /// It is no member. Who is one already stays one.
    pub fn join(&mut self, session: SessionId, channel: ChannelId) -> Result<(), ChannelError> {
        self.core.join(session, channel)
    }

    /// Takes a player out of a channel. What is published from now on it cannot read. A session
    /// that ends leaves all its channels.
    pub fn leave(&mut self, session: SessionId, channel: ChannelId) {
        self.core.leave(session, channel);
    }

    /// Sends one message to the members of a channel whom the filter lets through: one record to
    /// each gateway shard that holds some.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn publish(
        &mut self,
        channel: ChannelId,
        lane: Lane,
        filter: &Filter,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        self.core.publish(channel, lane, filter, message, payload)
    }

    /// The same to everybody who has a session here: from the first call on they are all members
    /// of [`EVERYBODY`].
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn publish_all(
        &mut self,
        lane: Lane,
        filter: &Filter,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        self.core.publish_all(lane, filter, message, payload)
    }

    /// Sends several players one message, as `push` does one. In the unreliable lane it goes
    /// once to each gateway shard that holds some of them.
    ///
    /// # Errors
    /// Nothing was sent. Players that are gone are passed over.
    pub fn send_list(
        &mut self,
        sessions: &[SessionId],
        lane: Lane,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        self.core
            .send_list(self.now, sessions, lane, message, payload)
    }

    /// Gives a session an attribute, by which filters can choose; 0 takes it away. The
    /// gateway keeps it with the session, under this group.
    ///
    /// # Errors
    /// It was not set.
    pub fn set_attribute(
        &mut self,
        session: SessionId,
        key: u16,
        value: u32,
    ) -> Result<(), ChannelError> {
        self.core.set_attribute(session, key, value)
    }

    /// An attribute of a session, if it has it.
    pub fn attribute(&self, session: SessionId, key: u16) -> Option<u32> {
        self.core.attribute(session, key)
    }

    /// Sends a player what only counts until the next of the same `key` (a place, a score): in the
    /// sequenced lane, and where the player reads too slowly the newest one takes the place of
    /// those that wait. `push` in the lanes that may lose leaves out the oldest then.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn push_latest(
        &mut self,
        session: SessionId,
        key: u32,
        message: MessageId,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.core
            .push_latest(self.now, session, key, message, payload)
    }

    /// How good a player's connection is: `ours` is what its gateway measured, `theirs` what
    /// the client says. `None` while the gateway has told nothing, or where the session is
    /// not here. It tells what a player would notice, with the client's heartbeats; a client
    /// can lie about all of it.
    pub fn quality(&self, session: SessionId) -> Option<Quality> {
        self.core.sessions.get(&session)?.quality
    }

    /// Ends a session. `disconnected` follows after this call of the game.
    pub fn kick(&mut self, session: SessionId, reason: CloseReason) {
        self.core.end_later(session, reason);
    }
}

/// Sends everything back: a request as its reply, a message as a push of the same id and lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct EchoGame;

/// Error code of [`EchoGame`] for what cannot be sent back in one frame.
const ECHO_TOO_LONG: u16 = 1;

impl Game for EchoGame {
    fn connected(&mut self, _: &mut Context<'_>, player: &Player<'_>) {
        let address = player.address.map(|address| address.to_string());
        tracing::debug!(
            session = player.session.0,
            account = player.account,
            address,
            "player connected"
        );
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        // One that is gone or full is told so by the stub; one that is too long was compressed
        // on its way here, and nobody waits for it.
        let _ = context.push(
            message.session,
            message.lane,
            message.message,
            message.payload,
        );
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        if context.reply(request, payload) == Err(SendError::TooLong) {
            let _ = context.reply_error(request, ECHO_TOO_LONG, "too long to be sent back");
        }
    }
}
