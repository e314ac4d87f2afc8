//! Whoever cannot prove the pinned key does not get through the handshake; the
//! handshakes here run without sockets, on rustls alone.

use rustls::quic::{ClientConnection, ServerConnection, Version};

use super::*;

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

/// A public key without its secret: what a thief can copy from a handshake.
fn stolen(public: &Identity, thief: &Identity) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(public.public_key().spki())],
        thief.signing_key(),
    ))
}

fn pin(expected: &Identity) -> Arc<ServerPin> {
    Arc::new(ServerPin {
        expected: expected.public_key(),
        presented: Mutex::new(None),
    })
}

fn pins(allowed: &[&Identity]) -> Arc<ClientPins> {
    Arc::new(ClientPins {
        allowed: allowed.iter().map(|one| one.public_key()).collect(),
        refused: Mutex::new(None),
    })
}

/// Runs the handshake; the error names the end that refused.
fn shake_hands(
    client: rustls::ClientConfig,
    server: rustls::ServerConfig,
) -> Result<(), (&'static str, Error)> {
    let name = ServerName::try_from("sallyport").unwrap();
    let parameters = b"parameters".to_vec();
    let mut client =
        ClientConnection::new(Arc::new(client), Version::V1, name, parameters.clone()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server), Version::V1, parameters).unwrap();
    for _ in 0..8 {
        // QUIC carries the bytes of each key apart, so each call is handed over
        // by itself.
        loop {
            let mut bytes = Vec::new();
            let change = client.write_hs(&mut bytes);
            server.read_hs(&bytes).map_err(|error| ("server", error))?;
            if change.is_none() {
                break;
            }
        }
        loop {
            let mut bytes = Vec::new();
            let change = server.write_hs(&mut bytes);
            client.read_hs(&bytes).map_err(|error| ("client", error))?;
            if change.is_none() {
                break;
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    Ok(())
}

#[test]
fn two_ends_that_know_each_other_get_through() {
    let (gateway, backend) = (identity(1), identity(2));
    let done = shake_hands(
        client_tls(pin(&backend), certified_key(&gateway)),
        server_tls(pins(&[&identity(5), &gateway]), certified_key(&backend)),
    );
    assert_eq!(done, Ok(()));
}

#[test]
fn a_backend_without_the_secret_of_its_key_is_refused() {
    let (gateway, backend) = (identity(1), identity(2));
    let (end, error) = shake_hands(
        client_tls(pin(&backend), certified_key(&gateway)),
        server_tls(pins(&[&gateway]), stolen(&backend, &identity(3))),
    )
    .unwrap_err();
    let bad = Error::InvalidCertificate(CertificateError::BadSignature);
    assert_eq!((end, error), ("client", bad));
}

#[test]
fn a_gateway_without_the_secret_of_its_key_is_refused() {
    let (gateway, backend) = (identity(1), identity(2));
    let (end, error) = shake_hands(
        client_tls(pin(&backend), stolen(&gateway, &identity(3))),
        server_tls(pins(&[&gateway]), certified_key(&backend)),
    )
    .unwrap_err();
    let bad = Error::InvalidCertificate(CertificateError::BadSignature);
    assert_eq!((end, error), ("server", bad));
}

#[test]
fn wrong_keys_are_refused_and_remembered() {
    let (gateway, backend, stranger) = (identity(1), identity(2), identity(3));
    let pin = pin(&backend);
    let (end, error) = shake_hands(
        client_tls(pin.clone(), certified_key(&gateway)),
        server_tls(pins(&[&gateway]), certified_key(&stranger)),
    )
    .unwrap_err();
    assert_eq!((end, error), ("client", WRONG_KEY));
    assert_eq!(pin.take_presented(), Some(stranger.public_key()));
    assert_eq!(pin.take_presented(), None);

    let pins = pins(&[]);
    let (end, error) = shake_hands(
        client_tls(self::pin(&backend), certified_key(&gateway)),
        server_tls(pins.clone(), certified_key(&backend)),
    )
    .unwrap_err();
    assert_eq!((end, error), ("server", WRONG_KEY));
    assert_eq!(pins.take_refused(), Some(gateway.public_key()));
}

#[test]
fn a_gateway_without_any_key_is_refused() {
    let (gateway, backend) = (identity(1), identity(2));
    let mut client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pin(&backend))
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let (end, _) = shake_hands(
        client,
        server_tls(pins(&[&gateway]), certified_key(&backend)),
    )
    .unwrap_err();
    assert_eq!(end, "server");
}

#[test]
fn another_application_protocol_is_refused() {
    let (gateway, backend) = (identity(1), identity(2));
    let mut client = client_tls(pin(&backend), certified_key(&gateway));
    client.alpn_protocols = vec![b"sallyport-uplink-0".to_vec()];
    let (end, error) = shake_hands(
        client,
        server_tls(pins(&[&gateway]), certified_key(&backend)),
    )
    .unwrap_err();
    assert_eq!((end, error), ("server", Error::NoApplicationProtocol));
}
