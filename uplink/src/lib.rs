//! The uplink: one QUIC connection between a gateway shard and a backend
//! instance, seen from both ends.
//!
//! Owns identities (pinned ed25519 keys), the TLS and QUIC settings, the five
//! streams of a link and how their bytes become whole records, reconnecting on
//! the gateway's side and accepting on the backend's. It does not know what a
//! record or a control message means; that is [`protocol`].
//!
//! Everything is polled by the loop that owns it ([`Link::poll_read`],
//! [`Link::poll_flush`], [`Dialer::poll_link`], [`Acceptor::poll_link`]) inside
//! a tokio current-thread runtime, so that a record never changes threads. The
//! only tasks are quinn's own.
//!
//! Invariant: a [`Link`] exists only between two ends that have each proved a
//! key which the other was told to expect, with all five streams open.

#![forbid(unsafe_code)]

mod acceptor;
mod dialer;
mod endpoint;
mod framing;
mod greeting;
mod identity;
mod link;
mod tls;

pub use acceptor::{Acceptor, AcceptorCounters, HANDSHAKES_MAX, LINKS_MAX};
pub use dialer::{BACKOFF_MAX, BACKOFF_MIN, DialError, DialTarget, Dialer, Event};
pub use endpoint::{EndpointError, client_endpoint};
pub use identity::{Identity, KeyTextError, PublicKey};
pub use link::{
    CLOSE_DONE, CLOSE_FULL, CLOSE_GREETING, CLOSE_PROTOCOL, Link, LinkError, QUEUED_BYTES_MAX,
    StreamIndex,
};
pub use tls::IDLE_TIMEOUT;
