//! TLS around whatever a client speaks: records in, plaintext out, and back
//! (RFC 8446, RFC 5246), by rustls over buffers of our own.
//!
//! Deliberately not here: what the plaintext is, which is told apart by its first
//! bytes as without TLS; files; client certificates, tickets, 0-RTT, of which there
//! are none. Unlike the rest of a shard it draws random numbers by itself, since
//! rustls does.
//!
//! Invariants: rustls sees whole records only, none longer than the caller's
//! maximum. A session of rustls that has failed is dropped once its alert is out:
//! driven on, it may index past what it is given (0.23). What is kept between two
//! calls is one record, or one handshake message in pieces, within that maximum.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use protocol::buffers::Buffers;
use protocol::limits::{FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX};
use protocol::reason::CloseReason;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};

/// Type, version and length of a record (RFC 8446 §5.1).
const RECORD_HEADER_BYTES: usize = 5;

/// Bytes of the longest record: 2^14 of content, 256 for what seals it (§5.2), and
/// its header.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 14) + 256;

/// Bytes of the longest record of a stranger, or of its ClientHello in several:
/// the longest frame before login, with headers of WebSocket and TLS around it.
/// Browsers' ClientHellos have under 2 KiB, post-quantum key shares included.
const STRANGERS_RECORD_BYTES_MAX: usize = LOGIN_FRAME_BYTES_MAX + 512;

/// Bytes that a record adds at most to what it carries: header, explicit nonce of
/// TLS 1.2, content type, tag.
const RECORD_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + 8 + 1 + 16;

/// Content of a record that we send (rustls cuts there).
const CONTENT_BYTES_MAX: usize = 1 << 14;

/// Bytes of our closing alert, sealed by either version.
const CLOSE_NOTIFY_BYTES_MAX: usize = 2 + RECORD_OVERHEAD_BYTES;

/// A record of the handshake, from any version of TLS.
pub const FIRST_BYTES: [u8; 2] = [0x16, 0x03];

/// Why a certificate or its key can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// The first text has none.
    #[error("no certificate in PEM (-----BEGIN CERTIFICATE-----) is in the certificate's file")]
    NoCertificate,
    /// The second text has none.
    #[error(
        "no private key in PEM (PKCS #8, PKCS #1 or SEC 1, without a password) is in the key's file"
    )]
    NoKey,
    /// They do not belong together.
    #[error("the private key is not that of the first certificate")]
    OtherKey,
    /// Whatever else rustls says.
    #[error("it cannot be used: {0}")]
    Unusable(String),
}

/// A certificate with its key, ready to be shown.
#[derive(Clone)]
pub struct Certificate {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
}

impl Certificate {
    /// From PEM: the chain, the host's own certificate first, and its private key.
    ///
    /// # Errors
    /// Something is missing or does not fit.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| BadCertificate::NoCertificate)?;
        if chain.is_empty() {
            return Err(BadCertificate::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadCertificate::NoKey)?;
        let unusable = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                BadCertificate::OtherKey
            }
            error => BadCertificate::Unusable(error.to_string()),
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?
            .with_no_client_auth();
        let mut config = builder
            .with_single_cert(chain.clone(), key)
            .map_err(unusable)?;
        // A player who comes back resumes its session, not TLS: tickets would need a
        // clock and keys that all gateways share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            chain,
        })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// What a listener shows to clients that come over TLS; nothing, and there is no
/// TLS. All shards share one, and it changes while they run.
#[derive(Debug, Default)]
pub struct Shown(RwLock<Option<Certificate>>);

impl Shown {
    /// Shows this one from now on. Whether it is another one than before.
    pub fn show(&self, certificate: Option<Certificate>) -> bool {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // The key follows from the chain: they were checked against each other.
        let chain = |it: &Option<Certificate>| it.as_ref().map(|it| it.chain.clone());
        let changed = chain(&shown) != chain(&certificate);
        *shown = certificate;
        changed
    }

    /// TLS for a connection that begins like a record of a handshake, if there is
    /// any. The bytes in `taken` do not come again.
    pub fn accept(&self, taken: &[u8]) -> Option<Box<Tls>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let config = Arc::clone(&shown.as_ref()?.config);
        drop(shown);
        let session = UnbufferedServerConnection::new(config).ok()?;
        Some(Box::new(Tls {
            session: Some(session),
            kept: taken.to_vec(),
            seen: 0,
            out: Vec::new(),
            is_over: false,
        }))
    }
}

/// TLS of one connection.
pub struct Tls {
    /// None once it has failed.
    session: Option<UnbufferedServerConnection>,
    /// Bytes that were too few: first what rustls has seen and needs again, `seen`
    /// bytes, then the beginning of a record.
    kept: Vec<u8>,
    seen: usize,
    /// Records of the handshake, and alerts, that wait for the engine.
    out: Vec<u8>,
    /// Nothing is read any more: it has failed, or one of the two has said that
    /// nothing follows.
    is_over: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("is_open", &self.is_open())
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Bytes of the longest record that is taken, by the longest frame that is.
    pub const fn record_bytes_max(frame_bytes_max: usize) -> usize {
        if frame_bytes_max < FRAME_BYTES_MAX {
            STRANGERS_RECORD_BYTES_MAX
        } else {
            RECORD_BYTES_MAX
        }
    }

    /// Whether the handshake is done and has not been undone.
    pub fn is_open(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| !session.is_handshaking())
    }

    /// Whether something waits beside what the caller has.
    pub fn has_answers(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes the next record from the front of `data` and writes what it carried
    /// into `plain`, which is empty before: nothing, if it was TLS's own. `false`
    /// when `data` is used up.
    ///
    /// # Errors
    /// Why the connection has to be closed; what the peer is to be told waits.
    pub fn next(
        &mut self,
        data: &mut &mut [u8],
        record_bytes_max: usize,
        plain: &mut Vec<u8>,
        pool: &mut Buffers,
    ) -> Result<bool, CloseReason> {
        if self.is_over || data.is_empty() {
            *data = &mut [];
            return Ok(false);
        }
        let mut kept = std::mem::take(&mut self.kept);
        let result = self.next_with(&mut kept, data, record_bytes_max, plain, pool);
        if kept.is_empty() {
            pool.give(kept);
        } else {
            self.kept = kept;
        }
        if result.is_err() {
            self.release(pool);
        }
        result
    }

    fn next_with(
        &mut self,
        kept: &mut Vec<u8>,
        data: &mut &mut [u8],
        record_bytes_max: usize,
        plain: &mut Vec<u8>,
        pool: &mut Buffers,
    ) -> Result<bool, CloseReason> {
        loop {
            let begun = &kept[self.seen..];
            let known = match begun.is_empty() {
                true => record_bytes(data),
                false => record_bytes(begun),
            };
            let wanted = known.unwrap_or(RECORD_HEADER_BYTES);
            if self.seen + wanted > record_bytes_max {
                self.fail();
                return Err(CloseReason::BadTls);
            }
            let missing = wanted - begun.len();
            let whole = known.is_some() && missing <= data.len();
            if whole && kept.is_empty() {
                let (record, rest) = std::mem::take(data).split_at_mut(wanted);
                *data = rest;
                let used = self.process(record, plain)?;
                self.seen = wanted - used;
                kept.extend_from_slice(&record[used..]);
                return Ok(true);
            }
            let here = missing.min(data.len());
            let (piece, rest) = std::mem::take(data).split_at_mut(here);
            *data = rest;
            // Strangers get no buffer that was grown for others.
            if kept.capacity() == 0 && record_bytes_max == RECORD_BYTES_MAX {
                *kept = pool.take();
            }
            kept.extend_from_slice(piece);
            if whole {
                let used = self.process(kept, plain)?;
                kept.drain(..used);
                self.seen = kept.len();
                return Ok(true);
            }
            if piece.len() < missing {
                return Ok(false);
            }
            // The header is whole now and says more.
        }
    }

    /// Lets rustls see bytes that end with a record. How many it is done with.
    fn process(&mut self, mut bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, CloseReason> {
        let Some(session) = &mut self.session else {
            return Err(CloseReason::BadTls);
        };
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = session.process_tls_records(bytes);
            let mut end = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.is_over = true;
                    end = Some(Err(CloseReason::PeerClosed));
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    end = Some(Ok(()));
                }
                // 0-RTT is off, and there may be states that we do not know of.
                Ok(_) | Err(_) => end = Some(Err(CloseReason::BadTls)),
            }
            used += discard;
            bytes = &mut bytes[discard..];
            match end {
                None => {}
                Some(Ok(())) => return Ok(used),
                Some(Err(reason)) => {
                    if reason == CloseReason::BadTls {
                        self.fail();
                    }
                    return Err(reason);
                }
            }
        }
    }

    /// Takes the alert out, and forgets the session.
    fn fail(&mut self) {
        self.is_over = true;
        let Some(mut session) = self.session.take() else {
            return;
        };
        // What waits is handed out before anything is read, so nothing is.
        while session.wants_write() {
            match session.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.out),
                _ => return,
            }
        }
    }

    /// Turns plaintext that waits into records, behind those of the handshake; the
    /// closing alert behind the `last` ones.
    pub fn wrap(&mut self, bytes: &mut Vec<u8>, last: bool, pool: &mut Buffers) {
        if bytes.is_empty() && self.out.is_empty() && !(last && self.is_open()) {
            return;
        }
        // rustls takes it ill if it has to complain behind its own closing alert.
        self.is_over |= last;
        let mut out = pool.take();
        // Its memory goes: after the handshake hardly anything comes.
        out.extend_from_slice(&std::mem::take(&mut self.out));
        if self.is_open() && self.seal(bytes, last, &mut out).is_none() {
            // Its keys are worn out, or rustls and we do not agree.
            self.fail();
        }
        pool.give(std::mem::replace(bytes, out));
    }

    fn seal(&mut self, bytes: &[u8], last: bool, out: &mut Vec<u8>) -> Option<()> {
        let session = self.session.as_mut()?;
        loop {
            // What is kept has to be shown again, but not what it has not seen.
            let state = session.process_tls_records(&mut self.kept[..self.seen]);
            match state.state.ok()? {
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let mut at = out.len();
                    let records = bytes.len().div_ceil(CONTENT_BYTES_MAX);
                    // One more, for an answer to an update of keys.
                    let room = bytes.len() + (records + 2) * RECORD_OVERHEAD_BYTES;
                    out.resize(at + room + CLOSE_NOTIFY_BYTES_MAX, 0);
                    at += traffic.encrypt(bytes, &mut out[at..]).ok()?;
                    if last {
                        at += traffic.queue_close_notify(&mut out[at..]).ok()?;
                    }
                    out.truncate(at);
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Gives the buffer back, for a connection that ends.
    pub fn release(&mut self, pool: &mut Buffers) {
        self.seen = 0;
        pool.give(std::mem::take(&mut self.kept));
    }
}

/// Bytes of the record that begins here, if that many are there to tell.
fn record_bytes(begun: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low, ..] = begun else {
        return None;
    };
    Some(RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])))
}

/// Appends what rustls wants to send.
fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let at = out.len();
    // It tells the size only by refusing less.
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(&mut [])
    else {
        return;
    };
    out.resize(at + required_size, 0);
    if data.encode(&mut out[at..]).is_err() {
        out.truncate(at);
    }
}

#[cfg(test)]
mod tests;
