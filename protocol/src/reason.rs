//! Why a frame was lost and why a connection was closed: two closed enums that
//! every counter, log line, CLOSE frame and END record uses.
//!
//! Invariant: nothing is dropped and nothing closed without one of these.

/// Whose fault a lost frame or an ended connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of the peer: it broke the protocol or its limits.
    Peer,
    /// Of nobody: the network, the operator, the life of a session.
    Nobody,
    /// Ours: the gateway or a backend.
    Ours,
}

macro_rules! close_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal, $fault:ident, $text:literal;)*) => {
        /// Why a connection ended. The code is on the wire (CLOSE, REJECT, END).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum CloseReason { $(#[doc = $text] $name = $code,)* }

        impl CloseReason {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Label in metrics, logs and JSON.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Whose fault it was.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reason with this wire code.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

close_reasons! {
    BadLength = 1, "bad_length", Peer, "a frame's length is outside its bounds";
    BadFlags = 2, "bad_flags", Peer, "a frame has unknown flags, or HANDSHAKE at the wrong time";
    BadCrc = 3, "bad_crc", Peer, "the CRC of a frame does not match";
    BadHandshake = 4, "bad_handshake", Peer, "the handshake is malformed or fails to verify";
    BadVersion = 5, "bad_version", Peer, "the protocol version is not supported";
    BadSeal = 6, "bad_seal", Peer, "a frame does not verify under its key";
    SequenceRepeated = 7, "sequence_repeated", Peer, "a frame's sequence was seen before";
    SequenceSkipped = 8, "sequence_skipped", Peer, "frames are missing before this one";
    BadTimestamp = 9, "bad_timestamp", Peer, "too many reliable frames in a row are old or from the future";
    RateExceeded = 10, "rate_exceeded", Peer, "the connection went on sending far above its limit";
    BadCompression = 11, "bad_compression", Peer, "a payload does not decompress, or exceeds its bounds";
    BadBody = 12, "bad_body", Peer, "an authenticated body is malformed";
    KeyExhausted = 13, "key_exhausted", Peer, "the peer did not change its key in time";
    ProxyUntrusted = 14, "proxy_untrusted", Peer, "a connection that has to come through a balancer came from elsewhere";
    BadProxyHeader = 15, "bad_proxy_header", Peer, "the PROXY header is missing, malformed or too long";
    BadUpgrade = 16, "bad_upgrade", Peer, "an HTTP request is not one for a WebSocket that is taken here";
    BadWebsocket = 17, "bad_websocket", Peer, "a WebSocket frame is malformed, or a message is text";
    BadTls = 18, "bad_tls", Peer, "a TLS record is malformed, too long, or does not verify, or the handshake of TLS fails";
    HandshakeTimeout = 20, "handshake_timeout", Peer, "the handshake was not done before its deadline";
    LoginTimeout = 21, "login_timeout", Peer, "login was not done before its deadline";
    IdleTimeout = 22, "idle_timeout", Nobody, "nothing was heard for the idle timeout";
    SlowConsumer = 23, "slow_consumer", Peer, "the client does not read what it is sent";
    NetworkLimit = 24, "network_limit", Nobody, "too many connections or handshakes come from the client's network; come back later";
    AccountLimit = 25, "account_limit", Nobody, "the account logs in too often; come back later";
    BadToken = 30, "bad_token", Peer, "the token is malformed or its signature does not verify";
    TokenExpired = 31, "token_expired", Peer, "the token has expired, is not valid yet, or lives too long";
    TokenAudience = 32, "token_audience", Peer, "the token is for another audience";
    TokenReused = 33, "token_reused", Peer, "the token was used before";
    AlreadyOnline = 34, "already_online", Nobody, "the account has a live session";
    CenterUnavailable = 35, "center_unavailable", Ours, "center cannot be reached or cannot grant; try again";
    Full = 36, "full", Ours, "no room for another session or connection";
    TicketUnknown = 39, "ticket_unknown", Nobody, "the ticket is not known, was used, or its session has ended; log in again";
    LoggedOut = 40, "logged_out", Nobody, "the client logged out";
    LeaseLost = 41, "lease_lost", Ours, "the gateway lost its lease at center; come back to another one";
    Draining = 42, "draining", Ours, "the gateway is being shut down; come back to another one";
    Revoked = 43, "revoked", Ours, "center does not know this session any more; log in again";
    OutboxOverflow = 44, "outbox_overflow", Nobody, "a backend keeps more unacknowledged messages than the bound";
    Kicked = 45, "kicked", Nobody, "a backend or an operator ended the session";
    PeerClosed = 46, "peer_closed", Nobody, "the client closed or lost its connection";
    LinkLost = 47, "link_lost", Ours, "the backend lost the gateway for longer than it waits";
    Banned = 50, "banned", Nobody, "the account, the device or the network is banned";
    UpgradeRequired = 51, "upgrade_required", Nobody, "this version of the game client is not served; get another one";
    PlaceTaken = 52, "place_taken", Nobody, "the account took its place in the queue over another connection";
    Superseded = 60, "superseded", Nobody, "the session goes on in another connection";
    Replaced = 61, "replaced", Nobody, "the account logged in anew while nobody held the session";
    NotResumed = 62, "not_resumed", Nobody, "nobody came back to the session in time";
}

impl CloseReason {
    /// Whether a connection that ends for this reason leaves its session
    /// behind, to be resumed: all do but those for which the session ends.
    pub const fn leaves_session(self) -> bool {
        !matches!(
            self,
            Self::BadToken
                | Self::TokenExpired
                | Self::TokenAudience
                | Self::TokenReused
                | Self::AlreadyOnline
                | Self::TicketUnknown
                | Self::LoggedOut
                | Self::Revoked
                | Self::OutboxOverflow
                | Self::Kicked
                | Self::LinkLost
                | Self::Banned
                | Self::UpgradeRequired
                | Self::PlaceTaken
                | Self::Superseded
                | Self::Replaced
                | Self::NotResumed
        )
    }
}

macro_rules! drop_reasons {
    ($($name:ident, $label:literal, $fault:ident, $text:literal;)*) => {
        /// Why one frame or record was lost while its connection went on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $text] $name,)* }

        impl DropReason {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Label in metrics, logs and JSON.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Whose fault it was.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    BeforeLogin, "before_login", Peer, "a message came before login was done";
    TimestampOld, "timestamp_old", Peer, "an unreliable frame is too old";
    TimestampFuture, "timestamp_future", Peer, "an unreliable frame is from the future";
    RateUnreliable, "rate_unreliable", Peer, "an unreliable frame came above the connection's limit";
    UnknownKind, "unknown_kind", Peer, "this kind is not one that the peer may send";
    UnknownGroup, "unknown_group", Peer, "no such group is configured";
    GroupDown, "group_down", Ours, "the group's backend is away; reliable messages wait in the client's outbox";
    UplinkLost, "uplink_lost", Ours, "an unreliable message waited for a backend whose link died";
    AfterClose, "after_close", Nobody, "the connection is closing";
    SessionGone, "session_gone", Nobody, "a backend answered a session that has gone";
    WrongGroup, "wrong_group", Ours, "a backend spoke for a group that is not its own, or for a session bound elsewhere";
    BadRecord, "bad_record", Ours, "a backend's record is malformed";
    SendQueueFull, "send_queue_full", Peer, "a client reads too slowly for all that may be lost";
    Coalesced, "coalesced", Peer, "a client reads slowly, and a newer message of the same key took this one's place";
    StaleFence, "stale_fence", Nobody, "a record carries a fence below the session's";
    StreamRepeated, "stream_repeated", Nobody, "a reliable message came again after a resend";
    StreamGap, "stream_gap", Nobody, "a reliable message came before its predecessor";
    StreamNotSynced, "stream_not_synced", Nobody, "a reliable message came before both ends agreed where to go on";
    SequencedStale, "sequenced_stale", Nobody, "a newer sequenced message came first";
    SessionAway, "session_away", Nobody, "the client has not come back yet; reliable messages wait in the backend's outbox";
    DatagramMalformed, "datagram_malformed", Peer, "a datagram has none of the forms that there are";
    DatagramCrc, "datagram_crc", Nobody, "the CRC of a datagram does not match";
    DatagramSeal, "datagram_seal", Peer, "a datagram does not verify under its key";
    DatagramRepeated, "datagram_repeated", Nobody, "a datagram was received before";
    DatagramLate, "datagram_late", Nobody, "a datagram is older than the replay window";
    DatagramUnknown, "datagram_unknown", Nobody, "a datagram names a connection that is not here";
    DatagramUnsent, "datagram_unsent", Nobody, "the kernel did not take a datagram";
    BadCookie, "bad_cookie", Peer, "the cookie of an INIT is stale, or another address's";
    InitRepeated, "init_repeated", Nobody, "an INIT came again for a connection that stands, or while center is asked for its ticket";
    RateDatagram, "rate_datagram", Peer, "a datagram came above the connection's limit; what is reliable in it comes again";
    NetworkInit, "network_init", Nobody, "an INIT came above a limit of its network; the client asks again";
    UplinkFull, "uplink_full", Ours, "an unreliable frame came while its backend does not keep up";
    ReliableUnwrapped, "reliable_unwrapped", Peer, "a reliable body came outside of the reliable lane of its datagrams";
}

#[cfg(test)]
mod tests;
