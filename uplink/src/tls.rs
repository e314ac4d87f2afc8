//! The TLS and QUIC settings of an uplink.
//!
//! TLS 1.3 with raw public keys (RFC 7250) on both sides, each compared with
//! the keys that this process was told to expect; no X.509, no authorities, no
//! resumption and no 0-RTT (early data can be replayed, and a reconnect is rare
//! enough to pay for its round trip). Every bound of the transport stands here
//! with its reason. Invariant: no handshake completes with a key that was not
//! configured, and only ed25519 signatures are accepted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::limits::UPLINK_STREAMS;
use protocol::uplink::ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use crate::identity::{Identity, PublicKey};

/// How long a peer may be silent before the link is given up. Four missed
/// keep-alives: one lost packet, or a stall of a second, is nobody's death; yet
/// a dead backend is noticed in a third of the 15 s lease.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How often an end that has nothing to say shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Round trip that is assumed before one is measured; quinn repeats the first
/// packet after three of them. Its default of 333 ms would make a gateway wait
/// a second for a backend that came up right after the packet was lost.
const ROUND_TRIP_INITIAL: Duration = Duration::from_millis(100);

/// Bytes that a peer may send on one stream ahead of our reading. One round
/// trip's worth: 1 MiB in 10 ms are 100 MB/s a stream.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// The same for all streams together: their sum, so that data streams that
/// nobody reads can never take the room of the control stream.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * (1 + UPLINK_STREAMS as u32);

/// Bytes kept for sending again until the peer has acknowledged them; the same
/// sum for the same reason.
const SEND_WINDOW_BYTES: u64 = CONNECTION_WINDOW_BYTES as u64;

/// Payload of a UDP packet before discovery: what every path carries (RFC 9000
/// §14). A larger start is answered by loss where the path is narrower.
const MTU_INITIAL_BYTES: u16 = 1_200;

/// Largest payload that discovery tries. Loopback and jumbo frames carry it;
/// elsewhere a dozen lost probes find the path's own size. On loopback it halves
/// the CPU of a busy link against 1,472 (740 → 320 ns for a record of 92 bytes
/// there and back, both ends). Bounded by the kernel, see below.
pub(crate) const MTU_BYTES_MAX: u16 = 6_500;

/// Packets that quinn gives the kernel as one (`MAX_TRANSMIT_SEGMENTS`), and
/// what the kernel takes as one. More is refused with EMSGSIZE, which quinn
/// takes for a lost probe: the packets vanish, and with them the link (measured
/// with 8,952).
const SEGMENTS_MAX: usize = 10;
const SEGMENTED_BYTES_MAX: usize = 65_507;

const _: () = assert!(MTU_BYTES_MAX as usize * SEGMENTS_MAX <= SEGMENTED_BYTES_MAX);
const _: () = assert!(IDLE_TIMEOUT.as_millis() >= 3 * KEEP_ALIVE.as_millis());

/// The key that the gateway expects of one backend, and what it got instead.
#[derive(Debug)]
pub(crate) struct ServerPin {
    expected: PublicKey,
    presented: Mutex<Option<PublicKey>>,
}

impl ServerPin {
    /// The wrong key that was presented since the last call.
    pub(crate) fn take_presented(&self) -> Option<PublicKey> {
        self.presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The keys of gateways that a backend accepts, and the last other one.
#[derive(Debug)]
pub(crate) struct ClientPins {
    allowed: Vec<PublicKey>,
    refused: Mutex<Option<PublicKey>>,
}

impl ClientPins {
    /// The key that was refused last, since the last call.
    pub(crate) fn take_refused(&self) -> Option<PublicKey> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Settings of a gateway for one backend, and where the wrong key of an
/// impostor (or of a wrong configuration) can be read.
pub(crate) fn client_config(
    identity: &Identity,
    server: PublicKey,
) -> (quinn::ClientConfig, Arc<ServerPin>) {
    let pin = Arc::new(ServerPin {
        expected: server,
        presented: Mutex::new(None),
    });
    let tls = client_tls(pin.clone(), certified_key(identity));
    let quic = QuicClientConfig::try_from(tls).expect("the provider has QUIC's initial suite");
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport_config(0)));
    (config, pin)
}

/// Settings of a backend that accepts the gateways `allowed`, and where the key
/// of a refused one can be read.
pub(crate) fn server_config(
    identity: &Identity,
    allowed: &[PublicKey],
) -> (quinn::ServerConfig, Arc<ClientPins>) {
    let pins = Arc::new(ClientPins {
        allowed: allowed.to_vec(),
        refused: Mutex::new(None),
    });
    let tls = server_tls(pins.clone(), certified_key(identity));
    let quic = QuicServerConfig::try_from(tls).expect("the provider has QUIC's initial suite");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    config
        .transport_config(Arc::new(transport_config(STREAMS)))
        // Gateways have fixed addresses; one that appears elsewhere dials anew.
        .migration(false)
        // The acceptor takes or refuses each attempt at once; these bound what
        // waits between two of its turns.
        .max_incoming(crate::acceptor::HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES * crate::acceptor::HANDSHAKES_MAX as u64);
    (config, pins)
}

fn client_tls(pin: Arc<ServerPin>, own: Arc<CertifiedKey>) -> rustls::ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider's suites are those of TLS 1.3")
        .dangerous() // rustls' word for: not X.509
        .with_custom_certificate_verifier(pin)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own)));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_sni = false;
    tls
}

fn server_tls(pins: Arc<ClientPins>, own: Arc<CertifiedKey>) -> rustls::ServerConfig {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider's suites are those of TLS 1.3")
        .with_client_cert_verifier(pins)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls
}

/// Streams that a gateway may open on a link: the control stream and the data
/// streams. A backend may open none.
const STREAMS: u32 = 1 + UPLINK_STREAMS as u32;

/// Bytes kept of an attempt that has not been taken or refused yet: a few
/// packets of the largest size, the first flight of a handshake.
const INCOMING_BUFFER_BYTES: u64 = 16_384;

fn transport_config(peer_streams: u32) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_BYTES_MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(peer_streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(
            IDLE_TIMEOUT.as_millis() as u32,
        ))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(ROUND_TRIP_INITIAL)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        // Nothing travels in QUIC datagrams; None refuses them, so that a peer
        // cannot make us buffer any.
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .initial_mtu(MTU_INITIAL_BYTES)
        .mtu_discovery_config(Some(mtu));
    config
}

/// ring, with the two suites that matter: AES-128-GCM where the machine has
/// instructions for it, ChaCha20-Poly1305 where it has not.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    })
}

/// With raw public keys the "certificate" is the SubjectPublicKeyInfo alone.
fn certified_key(identity: &Identity) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(identity.public_key().spki())],
        identity.signing_key(),
    ))
}

/// The end of a handshake with a wrong key; the peer sees `access_denied`.
const WRONG_KEY: Error =
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

fn verify_signature(
    message: &[u8],
    spki: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(
        message,
        &SubjectPublicKeyInfoDer::from(spki.as_ref()),
        signature,
        &ring::default_provider().signature_verification_algorithms,
    )
}

impl ServerCertVerifier for ServerPin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = PublicKey::from_spki(end_entity);
        if presented == Some(self.expected) {
            return Ok(ServerCertVerified::assertion());
        }
        *self
            .presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = presented;
        Err(WRONG_KEY)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            PeerIncompatible::Tls13RequiredForQuic,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for ClientPins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let presented = PublicKey::from_spki(end_entity);
        if presented.is_some_and(|key| self.allowed.contains(&key)) {
            return Ok(ClientCertVerified::assertion());
        }
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = presented;
        Err(WRONG_KEY)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            PeerIncompatible::Tls13RequiredForQuic,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
