//! The client's end of TLS, by rustls, with the tests' CA as the only root.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

pub use rustls::version::{TLS12, TLS13};

use super::Raw;
use crate::cluster::{Cluster, tls_file};

/// A version of TLS.
pub type Version = &'static SupportedProtocolVersion;

/// TLS past its handshake.
pub struct Tls {
    connection: ClientConnection,
    has_ended: bool,
}

impl Tls {
    /// One whose handshake has not begun.
    pub fn client(version: Version) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(tls_file("ca.pem")).expect("a file") {
            let certificate = certificate.expect("a certificate");
            roots.add(certificate).expect("a good one");
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version of the provider")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("gateway.test").expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        client.set_buffer_limit(None);
        client
    }

    /// Whether the gateway has said that nothing follows.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Records that carry these bytes.
    pub fn wrap(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let connection = &mut self.connection;
        connection.writer().write_all(bytes).expect("it takes all");
        while connection.wants_write() {
            connection.write_tls(&mut out).expect("a vector takes all");
        }
        out
    }

    /// What the gateway's records carried.
    pub fn unwrap(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).expect("a slice");
            let state = self.connection.process_new_packets();
            self.has_ended |= state.expect("good records").peer_has_closed();
            // That there is no more for now is an error of its kind.
            let _ = self.connection.reader().read_to_end(&mut plain);
        }
        plain
    }
}

impl Raw {
    /// Within TLS, to the gateway.
    pub fn tls(cluster: &Cluster, version: Version) -> Self {
        let stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
        Self::over_tls(stream, version)
    }

    /// The same over a socket that the test has made.
    pub fn over_tls(stream: TcpStream, version: Version) -> Self {
        let mut raw = Self::over(stream);
        let mut client = Tls::client(version);
        while client.is_handshaking() || client.wants_write() {
            let handshake = client.complete_io(&mut raw.stream);
            handshake.expect("the gateway does the handshake of TLS");
        }
        raw.tls = Some(Tls {
            connection: client,
            has_ended: false,
        });
        raw
    }

    /// Says that nothing follows.
    pub fn close_tls(&mut self) {
        let tls = self.tls.as_mut().expect("it came over TLS");
        tls.connection.send_close_notify();
        let bytes = tls.wrap(b"");
        self.send_or_gone(&bytes);
    }

    /// The certificate that the gateway has shown.
    pub fn certificate(&self) -> Vec<u8> {
        let tls = self.tls.as_ref().expect("it came over TLS");
        let chain = tls.connection.peer_certificates();
        chain.expect("a chain")[0].to_vec()
    }

    /// The beginning of a handshake, and what it takes to go on.
    pub fn client_hello(version: Version) -> (ClientConnection, Vec<u8>) {
        let mut client = Tls::client(version);
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a vector takes all");
        (client, hello)
    }
}
