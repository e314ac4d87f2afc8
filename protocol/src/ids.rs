//! Identifiers that cross crate borders, each a type of its own so that a
//! session can't be passed where a fence is meant.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A player's logical presence. Issued by center, never reused, never 0.
    SessionId(u64)
);
id!(
    /// Order of the claims that center granted; backends refuse a lower one.
    Fence(u64)
);
id!(
    /// The routing key of a message: which kind of backend it is for. Never 0
    /// for a game; 0 is center.
    GroupId(u16)
);
id!(
    /// One end of a reliable stream on the backend's side. A new one means
    /// that the end has no memory of the session.
    Incarnation(u64)
);
id!(
    /// The game's own message type.
    MessageId(u16)
);
id!(
    /// A channel of a group: its publisher's own name for it.
    ChannelId(u32)
);
id!(
    /// Index of a gateway's shard, from 0.
    ShardId(u32)
);
id!(
    /// The public name of a ticket: random, so that it tells nobody whose
    /// session it is for, nor that two are for the same one.
    TicketId(u64)
);
