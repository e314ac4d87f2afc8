//! The backend's side of getting links: one UDP socket, many gateways.
//!
//! Owns the endpoint, the handshakes in progress and the counts of what was
//! refused. It hands links over and only remembers how many live. Invariants:
//! at most [`HANDSHAKES_MAX`] handshakes and [`LINKS_MAX`] links, each handshake
//! with a deadline; a peer that fails costs a counter and nothing else.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{ConnectionError, Endpoint, Incoming, VarInt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::dialer::is_wrong_key;
use crate::endpoint::{self, EndpointError};
use crate::greeting::{self, GreetingError};
use crate::identity::{Identity, PublicKey};
use crate::link::{CLOSE_DONE, CLOSE_GREETING, Link};
use crate::tls::{self, ClientPins};

/// Handshakes in progress. All shards of a few gateways may come at once after
/// a restart; an attempt holds some kilobytes for at most the deadline.
pub const HANDSHAKES_MAX: usize = 64;

/// Handshakes in progress from which a peer has to prove its address first (a
/// Retry, RFC 9000 §8.1.2): forged ones must not take the places of gateways.
const PROVEN_FROM_HANDSHAKES: usize = HANDSHAKES_MAX / 4;

/// Links alive or in their handshake: 16 gateways with 16 shards. It bounds the
/// memory of a backend's uplinks (see `Link::new`).
pub const LINKS_MAX: usize = 256;

/// Time from the first packet to all five streams.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);

/// At most one line a second about refused peers: they can cause them.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// What became of the attempts, each counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AcceptorCounters {
    /// Became links.
    pub links: u64,
    /// Refused for a key that is not in the list.
    pub wrong_keys: u64,
    /// Refused at [`HANDSHAKES_MAX`] or [`LINKS_MAX`].
    pub full: u64,
    /// Did not get done within the deadline.
    pub deadlines: u64,
    /// Opened the wrong streams.
    pub bad_greetings: u64,
    /// Failed otherwise: TLS, a peer that went away, one that refused us.
    pub failed: u64,
}

enum Refusal {
    Deadline,
    Greeting(GreetingError),
}

type Next = Pin<Box<dyn Future<Output = Option<Incoming>> + Send>>;
type Handshake = Pin<Box<dyn Future<Output = Result<Link, Refusal>> + Send>>;

/// Accepts gateways; polled by the backend's loop.
pub struct Acceptor {
    endpoint: Endpoint,
    pins: Arc<ClientPins>,
    /// The next attempt. Kept over polls, because its wake-up dies with it.
    next: Next,
    handshakes: Vec<(SocketAddr, Handshake)>,
    slots: Arc<Semaphore>,
    counters: AcceptorCounters,
    quiet_until: Option<Instant>,
}

impl Acceptor {
    /// Listens on `address` for gateways with one of the keys `allowed`. To be
    /// called in the runtime of the thread that will poll it.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        allowed: &[PublicKey],
    ) -> Result<Self, EndpointError> {
        let (config, pins) = tls::server_config(identity, allowed);
        let endpoint = endpoint::server_endpoint(address, config, identity)?;
        Ok(Self {
            next: next_of(&endpoint),
            endpoint,
            pins,
            handshakes: Vec::with_capacity(HANDSHAKES_MAX),
            slots: Arc::new(Semaphore::new(LINKS_MAX)),
            counters: AcceptorCounters::default(),
            quiet_until: None,
        })
    }

    /// Where it listens; the port is a real one even if 0 was asked for.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// What became of the attempts so far.
    pub fn counters(&self) -> AcceptorCounters {
        self.counters
    }

    /// Goes on with all handshakes; yields a link that has become ready. Poll
    /// until it is pending.
    pub fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Link> {
        self.begin_all(cx);
        let mut position = 0;
        while position < self.handshakes.len() {
            match self.handshakes[position].1.as_mut().poll(cx) {
                Poll::Pending => position += 1,
                Poll::Ready(result) => {
                    let (address, _) = self.handshakes.swap_remove(position);
                    match result {
                        Ok(link) => {
                            self.counters.links += 1;
                            return Poll::Ready(link);
                        }
                        Err(refusal) => self.count(address, refusal),
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Takes no more links and ends those that live, with `reason`.
    pub fn close(&mut self, reason: &str) {
        self.handshakes.clear();
        self.endpoint
            .close(VarInt::from_u32(CLOSE_DONE), reason.as_bytes());
    }

    /// The endpoint, for waiting until everything has been told the peers
    /// ([`Endpoint::wait_idle`]).
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Takes or refuses what has come; at most so many a poll, so that a flood
    /// cannot hold the loop.
    fn begin_all(&mut self, cx: &mut Context<'_>) {
        for _ in 0..HANDSHAKES_MAX {
            match self.next.as_mut().poll(cx) {
                Poll::Pending => return,
                // The endpoint is closed: nothing comes any more.
                Poll::Ready(None) => {
                    self.next = Box::pin(std::future::pending());
                    return;
                }
                Poll::Ready(Some(incoming)) => {
                    self.next = next_of(&self.endpoint);
                    self.begin(incoming);
                }
            }
        }
        // The new `next` has not been polled, so nobody else would wake us.
        cx.waker().wake_by_ref();
    }

    fn begin(&mut self, incoming: Incoming) {
        if self.handshakes.len() >= PROVEN_FROM_HANDSHAKES && incoming.may_retry() {
            // Costs an honest gateway a round trip, and keeps nothing here.
            // Fails only for one that has proven it, which was just asked.
            let _ = incoming.retry();
            return;
        }
        let slot = match self.slots.clone().try_acquire_owned() {
            Ok(slot) if self.handshakes.len() < HANDSHAKES_MAX => slot,
            _ => {
                self.counters.full += 1;
                incoming.refuse();
                return;
            }
        };
        let address = incoming.remote_address();
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let handshake = async move {
            let connection = incoming.await?;
            let Some(peer) = peer_key(&connection) else {
                // The verifier has let nobody through without a key.
                return Err(Refusal::Greeting(GreetingError::Rule("no key")));
            };
            match greeting::answer(&connection).await {
                Ok(streams) => Ok(Link::new(connection, peer, streams, Some(slot))),
                Err(error) => {
                    if let GreetingError::Rule(rule) = error {
                        connection.close(VarInt::from_u32(CLOSE_GREETING), rule.as_bytes());
                    }
                    Err(Refusal::Greeting(error))
                }
            }
        };
        let handshake = async move {
            tokio::time::timeout(HANDSHAKE_DEADLINE, handshake)
                .await
                .unwrap_or(Err(Refusal::Deadline))
        };
        self.handshakes.push((address, Box::pin(handshake)));
    }

    fn count(&mut self, address: SocketAddr, refusal: Refusal) {
        let mut key = None;
        let why = match refusal {
            Refusal::Deadline
            | Refusal::Greeting(GreetingError::Connection(ConnectionError::TimedOut)) => {
                self.counters.deadlines += 1;
                "no complete handshake in time".to_owned()
            }
            Refusal::Greeting(GreetingError::Rule(rule)) => {
                self.counters.bad_greetings += 1;
                rule.to_owned()
            }
            Refusal::Greeting(GreetingError::Connection(ConnectionError::TransportError(
                error,
            ))) if is_wrong_key(error.code) => {
                self.counters.wrong_keys += 1;
                key = self.pins.take_refused();
                "its key is not among the gateway keys of this configuration".to_owned()
            }
            Refusal::Greeting(GreetingError::Connection(error)) => {
                self.counters.failed += 1;
                error.to_string()
            }
        };
        let now = Instant::now();
        if self.quiet_until.is_none_or(|until| now >= until) {
            self.quiet_until = Some(now + LOG_PAUSE);
            let key = key.map(|key| key.to_string());
            tracing::warn!(%address, key, why, "refused an uplink");
        }
    }
}

impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Self {
        Self::Greeting(GreetingError::Connection(error))
    }
}

fn next_of(endpoint: &Endpoint) -> Next {
    let endpoint = endpoint.clone();
    Box::pin(async move { endpoint.accept().await })
}

fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let certificates = connection
        .peer_identity()?
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .ok()?;
    PublicKey::from_spki(certificates.first()?)
}

#[cfg(test)]
mod tests;
