//! Deliberately broken behaviours, to show that each rule is really checked.
//!
//! They live in what surrounds the cores (wires, links, disk, game logic,
//! configuration, the application of a client), never in the cores: those are the ones that run in production.

use crate::rule::Rule;

macro_rules! plants {
    ($($(#[doc = $doc:literal])* $variant:ident, $name:literal, $rule:ident;)*) => {
        /// A broken behaviour.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Plant { $($(#[doc = $doc])* $variant,)* }

        impl Plant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The rule that it breaks.
            pub const fn rule(self) -> Rule {
                match self { $(Self::$variant => Rule::$rule,)* }
            }

            /// What it does.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*),)* }
            }
        }
    };
}

plants! {
    /// Center's refusal of a second login of an account is turned into a grant.
    DoubleGrant, "double-grant", OneLiveSession;
    /// A restarted center does not find its reservations of ids and fences.
    ForgetFenceJournal, "forget-fence-journal", IdsNeverRepeat;
    /// The game's logic is given a reliable message twice.
    RepeatDelivery, "repeat-delivery", ReliableExactlyOnce;
    /// A reliable message vanishes between the stub and the game's logic.
    LoseDelivery, "lose-delivery", ReliableExactlyOnce;
    /// A record of an unreliable message is doubled on an uplink.
    DuplicateRecord, "duplicate-record", UnreliableAtMostOnce;
    /// The game answers with a byte changed.
    CorruptPayload, "corrupt-payload", RepliesMatch;
    /// A gateway sends an altered frame under a sequence that it used before.
    ReuseNonce, "reuse-nonce", NoNonceTwice;
    /// Claims reach center under another token id, so that it cannot see a copy.
    ReuseToken, "reuse-token", TokenOnce;
    /// A ticket that was used reaches center as the one that took its place.
    ReviveTicket, "revive-ticket", TicketOnce;
    /// The game's logic hears of a player's coming twice.
    RepeatConnected, "repeat-connected", EventOnce;
    /// A record vanishes on an uplink that was never cut.
    DropRecordUncounted, "drop-record-uncounted", DropsCounted;
    /// Acknowledgements of the backend never reach clients.
    LeakOutbox, "leak-outbox", Bounded;
    /// The end of sessions is not told to center.
    LeakSession, "leak-session", Bounded;
    /// Replayed frames are taken out before the gateway can see them.
    HideTampering, "hide-tampering", TamperingCloses;
    /// Who comes back by a ticket is taken for somebody who stole it.
    SuspectResume, "suspect-resume", StrangersOutside;
    /// What a gateway sends to an address leaves many times over.
    Amplify, "amplify", NothingUnproven;
    /// Who asks for a connection over datagrams is taken for one with a cookie.
    SkipCookie, "skip-cookie", NothingUnproven;
    /// A datagram that was changed on its way is mended before anybody sees it.
    MendDatagram, "mend-datagram", ForgeryIgnored;
    /// A gateway does not see a datagram the first time that it comes.
    MissFirst, "miss-first", ForgeryIgnored;
    /// A gateway sends an altered datagram under a sequence that it used before.
    ReuseDatagramNonce, "reuse-datagram-nonce", NoNonceTwice;
    /// A control message of an uplink arrives cut short.
    CutControl, "cut-control", CoresAgree;
    /// One client's bytes stop for ever.
    StallForever, "stall-forever", Liveness;
    /// A claim reaches center with a place in the queue that its shard made up.
    JumpQueue, "jump-queue", QueueInOrder;
    /// Clients are not told where they are in the queue.
    HidePlaces, "hide-places", Liveness;
    /// A message to a channel passes over a member.
    SkipMember, "skip-member", ChannelsTrue;
    /// A gateway does not hear that a member has left a channel.
    KeepMember, "keep-member", ChannelsTrue;
    /// Who leaves a view on a map is not told of.
    LoseLeave, "lose-leave", ViewsExact;
    /// Who comes into a view is told twice.
    RepeatEnter, "repeat-enter", ViewEvents;
    /// A player is told of itself.
    SeeSelf, "see-self", ViewEvents;
    /// A place of somebody who is not in view is told.
    TellUnseen, "tell-unseen", ViewEvents;
    /// A map is run without its hysteresis.
    IgnoreHysteresis, "ignore-hysteresis", ViewsExact;
    /// A map is run with a seat a view less than it should have.
    LoseSeat, "lose-seat", ViewsExact;
    /// A client keeps what it saw before the game was started again.
    KeepView, "keep-view", ViewsExact;
    /// Who comes into view while the viewer crosses a node's border is not told of.
    LoseHandover, "lose-handover", ViewsExact;
    /// Where those are who walk or stop at a node's border is not told.
    LoseBorderPlaces, "lose-border-places", PlacesTrue;
    /// A player is told to be off the map.
    LeaveMap, "leave-map", PlacesTrue;
    /// Of a frame of places the one before is sent again.
    RepeatPlaces, "repeat-places", TicksRise;
    /// The adapter of a shard panics when it sees a certain frame.
    PanicOnFrame, "panic-on-frame", NoPanic;
}

impl Plant {
    /// The plant of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plant| plant.name() == name)
    }
}
