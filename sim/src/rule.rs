//! The rules that a run checks, and how a broken one is told.

use std::fmt;

/// What must never happen, or must happen in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// No two live sessions of one account: not on two shards, not at center,
    /// and no backend processes for a lower fence after a higher one.
    OneLiveSession,
    /// Session ids and fences are granted once; fences rise.
    IdsNeverRepeat,
    /// Reliable lanes: in order, no loss, no repeat while client process and
    /// backend instance live; at least once across an instance's death.
    ReliableExactlyOnce,
    /// The other lanes: never repeated; the sequenced one never goes back.
    UnreliableAtMostOnce,
    /// A reply belongs to a request that was asked, and nothing changes content.
    RepliesMatch,
    /// Never two different frames under one key and nonce.
    NoNonceTwice,
    /// A token id never yields two sessions.
    TokenOnce,
    /// A ticket that was used opens nothing and changes nothing, copied or repeated, once
    /// center knows of its use. (A shard that center gave a session away from may not know it
    /// yet: the fence keeps it from backends.)
    TicketOnce,
    /// A game hears of a session's coming and going once each.
    EventOnce,
    /// Every frame or record that vanished is in a counter.
    DropsCounted,
    /// Queues, outboxes and tables keep to their bounds, and are empty when
    /// there is nothing left to do.
    Bounded,
    /// A connection with frames that were replayed, reordered or changed is
    /// closed at once.
    TamperingCloses,
    /// Who has recorded a connection, by which a client came back among them, changes no
    /// session by it.
    StrangersOutside,
    /// To an address that has shown nothing no more is sent than came from it,
    /// and nothing is kept of an INIT without a cookie that was given to it.
    NothingUnproven,
    /// A datagram that was changed, or comes again, changes nothing.
    ForgeryIgnored,
    /// Who waits in the queue is let in before all who came later in the same lane, and after who
    /// returns; its place outlasts a short cut, and a restart of center.
    QueueInOrder,
    /// A member hears each message of a channel once and in order, as it was said, or is told how
    /// many it has missed; nobody else hears it.
    ChannelsTrue,
    /// On a map only who is not in view comes into it, and only who is in it
    /// moves, stops or leaves it; nobody sees itself.
    ViewEvents,
    /// Views hold whom brute force says, after each tick of the map: radius,
    /// hysteresis and seats.
    ViewsExact,
    /// Everybody is seen only where it was, on the map, never earlier than it
    /// was seen before; and in the end where it stands.
    PlacesTrue,
    /// Each lane's frames of a map are of ticks that rise.
    TicksRise,
    /// Honest processes never take each other's messages for malformed.
    CoresAgree,
    /// Once faults have ended, everybody gets in and everything is answered.
    Liveness,
    /// Nothing panics.
    NoPanic,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::OneLiveSession,
        Self::IdsNeverRepeat,
        Self::ReliableExactlyOnce,
        Self::UnreliableAtMostOnce,
        Self::RepliesMatch,
        Self::NoNonceTwice,
        Self::TokenOnce,
        Self::TicketOnce,
        Self::EventOnce,
        Self::DropsCounted,
        Self::Bounded,
        Self::TamperingCloses,
        Self::StrangersOutside,
        Self::NothingUnproven,
        Self::ForgeryIgnored,
        Self::QueueInOrder,
        Self::ChannelsTrue,
        Self::ViewEvents,
        Self::ViewsExact,
        Self::PlacesTrue,
        Self::TicksRise,
        Self::CoresAgree,
        Self::Liveness,
        Self::NoPanic,
    ];

    /// Its name in outputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneLiveSession => "one-live-session",
            Self::IdsNeverRepeat => "ids-never-repeat",
            Self::ReliableExactlyOnce => "reliable-exactly-once",
            Self::UnreliableAtMostOnce => "unreliable-at-most-once",
            Self::RepliesMatch => "replies-match",
            Self::NoNonceTwice => "no-nonce-twice",
            Self::TokenOnce => "token-once",
            Self::TicketOnce => "ticket-once",
            Self::EventOnce => "event-once",
            Self::DropsCounted => "drops-counted",
            Self::Bounded => "bounded",
            Self::TamperingCloses => "tampering-closes",
            Self::StrangersOutside => "strangers-outside",
            Self::NothingUnproven => "nothing-unproven",
            Self::ForgeryIgnored => "forgery-ignored",
            Self::QueueInOrder => "queue-in-order",
            Self::ChannelsTrue => "channels-true",
            Self::ViewEvents => "view-events",
            Self::ViewsExact => "views-exact",
            Self::PlacesTrue => "places-true",
            Self::TicksRise => "ticks-rise",
            Self::CoresAgree => "cores-agree",
            Self::Liveness => "liveness",
            Self::NoPanic => "no-panic",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// This rule is broken.
    pub fn new(rule: Rule, detail: impl Into<String>) -> Self {
        Self {
            rule,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}", self.rule, self.detail)
    }
}

/// What a step of the world yields.
pub type Step = Result<(), Violation>;

/// Fails with `rule` unless `holds`.
pub fn check(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Step {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(rule, detail()))
    }
}
