//! What a client tells its game.

use std::time::Duration;

use protocol::body::{Lane, QueuePosition};
use protocol::ids::{ChannelId, GroupId, MessageId, SessionId};

use crate::Error;

/// A message of the game.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which backend sent it.
    pub group: GroupId,
    /// How it came.
    pub lane: Lane,
    /// The game's own.
    pub id: MessageId,
    /// The request that it answers, where it is a reply that more follow; the last one is what
    /// [`Reply`](crate::Reply) gives.
    pub request: Option<u32>,
    /// The game's own.
    pub payload: Vec<u8>,
}

/// A message to the members of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelMessage {
    /// Which backend sent it.
    pub group: GroupId,
    /// In which of its channels.
    pub channel: ChannelId,
    /// How it came.
    pub lane: Lane,
    /// Its position in that lane of the channel, the same for all members; 0 in the unreliable
    /// lane.
    pub number: u32,
    /// The game's own.
    pub id: MessageId,
    /// The game's own.
    pub payload: Vec<u8>,
}

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message of the game.
    Message(Message),
    /// A message to the members of a channel.
    ChannelMessage(ChannelMessage),
    /// The backend has made this client a member of a channel.
    ChannelJoined(GroupId, ChannelId),
    /// It is no member any more.
    ChannelLeft(GroupId, ChannelId),
    /// So many reliable messages of a channel were missed for good: the client was away for
    /// longer than they are kept.
    ChannelLost(GroupId, ChannelId, u32),
    /// The backend of this group is there: its reliable messages flow.
    GroupUp(GroupId),
    /// It is away, as the gateway says to who sends something there. Reliable messages wait in
    /// the outbox; the others are refused.
    GroupDown(GroupId),
    /// The connection is lost, or an attempt to come back was in vain.
    Reconnecting {
        /// The attempt that comes next, from 1.
        attempt: u32,
        /// Until then.
        wait: Duration,
        /// What went wrong.
        why: Error,
    },
    /// Back in the session, with all that waited. `GroupUp` follows for each group.
    Resumed(SessionId),
    /// Back, but in another session: the backends know nothing of the last one, and what waited
    /// in the outboxes is lost.
    NewSession(SessionId),
    /// Others are let in before: where this client waits now, the last word only. `LoggedIn`
    /// follows by itself; over a lost connection it keeps its place for a while.
    Queued(QueuePosition),
    /// Let in, after `Queued`.
    LoggedIn(SessionId),
    /// It is over; nothing follows.
    Closed(Error),
}
