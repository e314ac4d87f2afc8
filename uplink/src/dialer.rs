//! The gateway's side of getting a link: dial, greet, and dial again.
//!
//! Owns the attempts at one backend and the pauses between them. It does not
//! own the link: it hands it over and is told by [`Dialer::lost`] when it died.
//! Invariant: at most one attempt or one link at a time, and after a failure
//! never less than half the current backoff of rest.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::{ConnectionError, Endpoint, TransportErrorCode};
use tokio::time::{Instant, Sleep};

use crate::greeting;
use crate::identity::{Identity, PublicKey};
use crate::link::{CLOSE_GREETING, Link};
use crate::tls::{self, ServerPin};

/// Pause after the first failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest pause. A backend that comes back is found well within the 15 s lease.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Time for one attempt, from the first packet to the greeting's answer. Short,
/// because a packet sent to a backend that is not up yet is lost, and quinn
/// repeats it later and later; far above the round trip of any link in use.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(2);

/// A link that lived so long proves the backend well: the next pause is short
/// again. One that dies sooner does not, or a backend that drops each link at
/// once would be dialled in a tight loop.
const PROVEN_AFTER: Duration = BACKOFF_MAX;

/// The server name for which TLS asks; keys are pinned, so it says nothing.
const SERVER_NAME: &str = "sallyport";

/// The backend to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialTarget {
    /// Its uplink address.
    pub address: SocketAddr,
    /// The key that it must prove.
    pub key: PublicKey,
}

/// Why an attempt failed, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No answer in time.
    #[error(
        "backend {address} does not answer; is it running there, and does a firewall let UDP through?"
    )]
    NoAnswer {
        /// The backend.
        address: SocketAddr,
    },
    /// Something answers there, but it is not the backend that was configured.
    #[error(
        "backend {address} has another key than configured: expected {expected}, it presented {}; \
         correct the key in the gateway's configuration, or the address",
        presented_text(presented)
    )]
    WrongBackendKey {
        /// The backend.
        address: SocketAddr,
        /// The configured key.
        expected: PublicKey,
        /// The presented key, if it was one of ed25519.
        presented: Option<PublicKey>,
    },
    /// The backend does not know this gateway.
    #[error(
        "backend {address} does not accept this gateway's key; add {ours} to the gateway keys in the backend's configuration"
    )]
    KeyNotAccepted {
        /// The backend.
        address: SocketAddr,
        /// The public key of this gateway.
        ours: PublicKey,
    },
    /// Not an uplink, or one of another version.
    #[error(
        "backend {address} does not speak sallyport-uplink-1; do gateway and backend run the same version?"
    )]
    OtherProtocol {
        /// The backend.
        address: SocketAddr,
    },
    /// The backend takes no more links now.
    #[error("backend {address} refuses more links for now")]
    Full {
        /// The backend.
        address: SocketAddr,
    },
    /// Everything else, in QUIC's or the system's words.
    #[error("cannot link to backend {address}: {detail}")]
    Other {
        /// The backend.
        address: SocketAddr,
        /// What was said.
        detail: String,
    },
}

fn presented_text(presented: &Option<PublicKey>) -> String {
    match presented {
        Some(key) => key.to_string(),
        None => "none of ed25519".to_owned(),
    }
}

/// What a dialer has to tell.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "rare, and moved once; a box would only be unpacked"
)]
pub enum Event {
    /// The link is up on both sides; it belongs to the caller now.
    Up(Link),
    /// An attempt failed; the next one begins by itself.
    Failed {
        /// Why.
        error: DialError,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
}

type Attempt = Pin<Box<dyn Future<Output = Result<Link, AttemptError>> + Send>>;

enum State {
    /// The next poll begins an attempt.
    Ready,
    Dialling(Attempt),
    Resting(Pin<Box<Sleep>>),
    Up {
        since: Instant,
    },
}

/// Keeps one backend linked; polled by the shard's loop.
pub struct Dialer {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    pin: Arc<ServerPin>,
    ours: PublicKey,
    target: DialTarget,
    backoff: Duration,
    random: u64,
    state: State,
}

impl Dialer {
    /// A dialer that begins with the first poll. `seed` draws the jitter of its
    /// pauses; give each dialer its own, so that the shards of a gateway do not
    /// all knock at the same moment.
    pub fn new(endpoint: Endpoint, identity: &Identity, target: DialTarget, seed: u64) -> Self {
        let (config, pin) = tls::client_config(identity, target.key);
        Self {
            endpoint,
            config,
            pin,
            ours: identity.public_key(),
            target,
            backoff: BACKOFF_MIN,
            random: seed,
            state: State::Ready,
        }
    }

    /// Whom it dials.
    pub fn target(&self) -> DialTarget {
        self.target
    }

    /// Goes on with the attempt or the pause. `Pending` while there is nothing
    /// to tell, also while the link that it handed over has not been reported
    /// [`lost`](Self::lost); only then is `cx` not kept.
    pub fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match &mut self.state {
                State::Up { .. } => return Poll::Pending,
                State::Ready => {
                    self.pin.take_presented();
                    self.state = State::Dialling(self.attempt());
                }
                State::Resting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = State::Ready;
                }
                State::Dialling(attempt) => {
                    let event = match ready!(attempt.as_mut().poll(cx)) {
                        Ok(link) => {
                            let since = Instant::now();
                            self.state = State::Up { since };
                            Event::Up(link)
                        }
                        Err(error) => Event::Failed {
                            error: self.classify(error),
                            retry_in: self.rest(),
                        },
                    };
                    return Poll::Ready(event);
                }
            }
        }
    }

    /// The link that was handed over is dead: dial again, after a pause. Poll
    /// afterwards. Without effect if there is no such link.
    pub fn lost(&mut self) {
        if let State::Up { since } = self.state {
            if since.elapsed() >= PROVEN_AFTER {
                self.backoff = BACKOFF_MIN;
            }
            self.rest();
        }
    }

    fn attempt(&self) -> Attempt {
        let endpoint = self.endpoint.clone();
        let config = self.config.clone();
        let target = self.target;
        Box::pin(async move {
            tokio::time::timeout(ATTEMPT_DEADLINE, async move {
                let connection = endpoint
                    .connect_with(config, target.address, SERVER_NAME)
                    .map_err(|error| AttemptError::Other(error.to_string()))?
                    .await?;
                let streams = greeting::offer(&connection).await?;
                Ok(Link::new(connection, target.key, streams, None))
            })
            .await
            .unwrap_or(Err(AttemptError::Deadline))
        })
    }

    /// Begins a pause of half the backoff and up to as much again by chance,
    /// and doubles the backoff for the next time.
    fn rest(&mut self) -> Duration {
        let half = self.backoff / 2;
        self.random = next_random(self.random);
        let part = (self.random >> 32) as u32;
        let pause = half + half.mul_f64(f64::from(part) / f64::from(u32::MAX));
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.state = State::Resting(Box::pin(tokio::time::sleep(pause)));
        pause
    }

    fn classify(&self, error: AttemptError) -> DialError {
        let address = self.target.address;
        let error = match error {
            AttemptError::Deadline => return DialError::NoAnswer { address },
            AttemptError::Other(detail) => return DialError::Other { address, detail },
            AttemptError::Connection(error) => error,
        };
        match &error {
            ConnectionError::TimedOut => DialError::NoAnswer { address },
            ConnectionError::TransportError(failure) if is_wrong_key(failure.code) => {
                DialError::WrongBackendKey {
                    address,
                    expected: self.target.key,
                    presented: self.pin.take_presented(),
                }
            }
            ConnectionError::ConnectionClosed(close) if is_wrong_key(close.error_code) => {
                DialError::KeyNotAccepted {
                    address,
                    ours: self.ours,
                }
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                DialError::Full { address }
            }
            ConnectionError::VersionMismatch => DialError::OtherProtocol { address },
            ConnectionError::ConnectionClosed(close) if is_other_protocol(close.error_code) => {
                DialError::OtherProtocol { address }
            }
            ConnectionError::TransportError(failure) if is_other_protocol(failure.code) => {
                DialError::OtherProtocol { address }
            }
            ConnectionError::ApplicationClosed(close)
                if close.error_code.into_inner() == u64::from(CLOSE_GREETING) =>
            {
                DialError::OtherProtocol { address }
            }
            other => DialError::Other {
                address,
                detail: other.to_string(),
            },
        }
    }
}

/// Why an attempt failed, before it is told in the operator's terms.
enum AttemptError {
    Deadline,
    Connection(ConnectionError),
    Other(String),
}

impl From<ConnectionError> for AttemptError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl From<greeting::GreetingError> for AttemptError {
    fn from(error: greeting::GreetingError) -> Self {
        match error {
            greeting::GreetingError::Connection(error) => Self::Connection(error),
            greeting::GreetingError::Rule(rule) => Self::Other(rule.to_owned()),
        }
    }
}

/// TLS alert `access_denied`, with which a pinned key is refused (`tls.rs`).
pub(crate) fn is_wrong_key(code: TransportErrorCode) -> bool {
    code == TransportErrorCode::crypto(49)
}

/// TLS alerts of a peer that wants another application protocol, or has no raw
/// public key: `handshake_failure`, `unsupported_certificate`,
/// `unsupported_extension`, `no_application_protocol`.
fn is_other_protocol(code: TransportErrorCode) -> bool {
    [40, 43, 110, 120]
        .map(TransportErrorCode::crypto)
        .contains(&code)
}

/// SplitMix64 (Steele, Lea, Flood 2014); its quality is far above the need.
fn next_random(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
