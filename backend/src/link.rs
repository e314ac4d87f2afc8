//! What every role shares about its links (one link is one uplink connection from one gateway
//! shard): their names, and the faults for which a link is closed.
//!
//! Pure; the driver that owns the connections is `link_driver`.

use protocol::control::ShardHello;

/// Bytes of a gateway's or an instance's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Names one link while it is up. The driver counts them up and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Why a link is closed. All but the last three are the peer's fault; it comes back and
/// starts anew. Other links never notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// The peer speaks another version.
    #[error("the peer speaks another version of the uplink")]
    Version,
    /// The gateway's name is empty or too long.
    #[error("the gateway's name is empty or longer than {NAME_BYTES_MAX} bytes")]
    Name,
    /// The first message was not a hello, or a later one was.
    #[error("a hello is missing or comes a second time")]
    Hello,
    /// A message could not be decoded, or is none of this version.
    #[error("a message cannot be read")]
    Unreadable,
    /// A message that this role does not take.
    #[error("a message for another role")]
    Role,
    /// A claim whose account or token id is empty or too long.
    #[error("a claim with an impossible account or token id")]
    Claim,
    /// A claim before the end of the shard's list of sessions.
    #[error("a claim before the end of the list of sessions")]
    ClaimEarly,
    /// A list of sessions with an impossible or repeated entry, or sent twice.
    #[error("a list of sessions with an impossible or repeated entry")]
    Rebuild,
    /// A ticket, or the instances of a session, outside of their bounds.
    #[error("a ticket or a session's instances outside of their bounds")]
    Session,
    /// A record with impossible content.
    #[error("a record cannot be read")]
    Record,
    /// The peer does not read what it is sent.
    #[error("the peer does not read")]
    Slow,
    /// The shard did not renew its lease in time.
    #[error("the shard's lease has run out")]
    Lease,
    /// The same shard has opened a newer link.
    #[error("the shard has opened a newer link")]
    Replaced,
    /// There are as many links as are allowed.
    #[error("too many links")]
    Full,
    /// This process ends.
    #[error("this process ends")]
    Shutdown,
}

impl LinkFault {
    /// All of them, for metrics.
    pub const ALL: [Self; 15] = [
        Self::Version,
        Self::Name,
        Self::Hello,
        Self::Unreadable,
        Self::Role,
        Self::Claim,
        Self::ClaimEarly,
        Self::Rebuild,
        Self::Session,
        Self::Record,
        Self::Slow,
        Self::Lease,
        Self::Replaced,
        Self::Full,
        Self::Shutdown,
    ];

    /// Label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Name => "name",
            Self::Hello => "hello",
            Self::Unreadable => "unreadable",
            Self::Role => "role",
            Self::Claim => "claim",
            Self::ClaimEarly => "claim_early",
            Self::Rebuild => "rebuild",
            Self::Session => "session",
            Self::Record => "record",
            Self::Slow => "slow",
            Self::Lease => "lease",
            Self::Replaced => "replaced",
            Self::Full => "full",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Checks the first message of a link.
pub fn check_hello(hello: &ShardHello) -> Result<(), LinkFault> {
    if hello.version != protocol::uplink::VERSION {
        return Err(LinkFault::Version);
    }
    if hello.gateway.is_empty() || hello.gateway.len() > NAME_BYTES_MAX {
        return Err(LinkFault::Name);
    }
    Ok(())
}
