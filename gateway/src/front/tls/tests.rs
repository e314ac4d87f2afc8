use std::io::{Read as _, Write as _};

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;

const CHAIN: &[u8] = include_bytes!("../../../../tests/tls/first.pem");
const KEY: &[u8] = include_bytes!("../../../../tests/tls/first.key");
const OTHER_CHAIN: &[u8] = include_bytes!("../../../../tests/tls/second.pem");
const CA: &[u8] = include_bytes!("../../../../tests/tls/ca.pem");

fn shown() -> Shown {
    let shown = Shown::default();
    assert!(shown.show(Some(Certificate::from_pem(CHAIN, KEY).unwrap())));
    shown
}

fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(CA) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("gateway.test").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Gives the client bytes; what they carried.
fn received_by(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        // Nothing more for now is an error of its kind.
        let _ = client.reader().read_to_end(&mut plain);
    }
    plain
}

/// Gives the gateway's end bytes in pieces; what they carried, and how it ended.
/// What is kept never exceeds the bound, and nothing is taken after an end.
fn feed(
    tls: &mut Tls,
    bytes: &[u8],
    piece: usize,
    record_bytes_max: usize,
) -> (Vec<u8>, Option<CloseReason>) {
    let (mut pool, mut carried) = (Buffers::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        let mut piece = piece.to_vec();
        let mut data = &mut piece[..];
        loop {
            let mut plain = Vec::new();
            let next = tls.next(&mut data, record_bytes_max, &mut plain, &mut pool);
            carried.extend_from_slice(&plain);
            assert!(tls.kept.len() <= record_bytes_max);
            match next {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => {
                    assert!(tls.kept.is_empty());
                    return (carried, Some(reason));
                }
            }
        }
        assert!(data.is_empty());
    }
    (carried, None)
}

fn wrapped(tls: &mut Tls, plain: &[u8], last: bool) -> Vec<u8> {
    let mut bytes = plain.to_vec();
    tls.wrap(&mut bytes, last, &mut Buffers::default());
    bytes
}

/// Both ends past the handshake, which came in pieces.
fn open(version: &'static SupportedProtocolVersion, piece: usize) -> (Box<Tls>, ClientConnection) {
    let mut client = client(version);
    let first = sent_by(&mut client);
    assert_eq!(first[..2], FIRST_BYTES);
    let mut tls = shown().accept(&first[..3]).unwrap();
    let mut sent = first[3..].to_vec();
    while !tls.is_open() || client.is_handshaking() {
        let (carried, end) = feed(&mut tls, &sent, piece, STRANGERS_RECORD_BYTES_MAX);
        assert_eq!((carried, end), (vec![], None));
        let answer = wrapped(&mut tls, &[], false);
        assert!(!tls.has_answers());
        assert!(received_by(&mut client, &answer).is_empty());
        sent = sent_by(&mut client);
    }
    (tls, client)
}

#[test]
fn both_versions_carry_both_ways_however_they_are_cut() {
    for version in [&TLS13, &TLS12] {
        for piece in [1, 2, 7, 2_048, 100_000] {
            let (mut tls, mut client) = open(version, piece);
            for bytes in [1, 100, 16_384, 16_385, 70_000] {
                let plain = vec![bytes as u8; bytes];
                // In writes as small as rustls takes them at once.
                for part in plain.chunks(16_384) {
                    client.writer().write_all(part).unwrap();
                    let sent = sent_by(&mut client);
                    let (carried, end) = feed(&mut tls, &sent, piece, RECORD_BYTES_MAX);
                    assert_eq!((&carried[..], end), (part, None));
                }
                let sent = wrapped(&mut tls, &plain, false);
                let overhead = bytes.div_ceil(CONTENT_BYTES_MAX) * RECORD_OVERHEAD_BYTES;
                assert!(sent.len() <= bytes + overhead);
                assert_eq!(received_by(&mut client, &sent), plain);
            }
            assert!(tls.kept.is_empty() && wrapped(&mut tls, &[], false).is_empty());
        }
    }
}

#[test]
fn the_end_has_an_alert_once_and_nothing_is_taken_behind_the_peers() {
    for version in [&TLS13, &TLS12] {
        let (mut tls, mut client) = open(version, 9_999);
        client.writer().write_all(b"last words").unwrap();
        client.send_close_notify();
        let mut sent = sent_by(&mut client);
        sent.extend_from_slice(b"and something behind");
        let (carried, end) = feed(&mut tls, &sent, 9_999, RECORD_BYTES_MAX);
        assert_eq!(carried, b"last words");
        assert_eq!(end, Some(CloseReason::PeerClosed));
        assert_eq!(
            feed(&mut tls, &sent, 9_999, RECORD_BYTES_MAX),
            (vec![], None)
        );
        // CLOSE can still be said.
        let end = wrapped(&mut tls, b"why", true);
        assert_eq!(received_by(&mut client, &end), b"why");
        let state = client.process_new_packets().unwrap();
        assert!(state.peer_has_closed());
        assert!(wrapped(&mut tls, &[], true).is_empty());
    }
}

#[test]
fn what_is_too_long_is_refused_by_its_header() {
    let (mut tls, _) = open(&TLS13, 9_999);
    let long = [0x17, 3, 3, 0x12, 0x00];
    assert_eq!(
        feed(&mut tls, &long, 1, STRANGERS_RECORD_BYTES_MAX).1,
        Some(CloseReason::BadTls)
    );
    // In a session the protocol's own bound holds.
    let (mut tls, _) = open(&TLS13, 9_999);
    assert_eq!(feed(&mut tls, &long, 1, RECORD_BYTES_MAX).1, None);
    let (mut tls, _) = open(&TLS13, 9_999);
    let end = feed(&mut tls, &[0x17, 3, 3, 0x41, 0x01], 5, RECORD_BYTES_MAX).1;
    assert_eq!(end, Some(CloseReason::BadTls));
    assert!(!tls.is_open() && wrapped(&mut tls, b"nothing", true).is_empty());
}

#[test]
fn a_client_hello_in_pieces_is_put_together_up_to_the_bound() {
    // A handshake message of 60,000 bytes, 100 a record.
    let mut tls = shown().accept(&[]).unwrap();
    let mut bytes = vec![0x16, 3, 1, 0, 104, 1, 0, 0xea, 0x60];
    bytes.extend([0; 100]);
    for _ in 0..600 {
        bytes.extend([0x16, 3, 1, 0, 100]);
        bytes.extend([0; 100]);
    }
    let (_, end) = feed(&mut tls, &bytes, 2_048, STRANGERS_RECORD_BYTES_MAX);
    assert_eq!(end, Some(CloseReason::BadTls));
    assert!(tls.session.is_none());
    // A good one, a byte a record.
    let mut client = client(&TLS13);
    let hello = sent_by(&mut client);
    let mut tls = shown().accept(&[]).unwrap();
    let cut: Vec<u8> = hello[5..]
        .iter()
        .flat_map(|&byte| [0x16, 3, 1, 0, 1, byte])
        .collect();
    let (_, end) = feed(&mut tls, &cut, 2_048, STRANGERS_RECORD_BYTES_MAX);
    assert_eq!(end, None);
    let answer = wrapped(&mut tls, &[], false);
    received_by(&mut client, &answer);
    let sent = sent_by(&mut client);
    feed(&mut tls, &sent, 2_048, STRANGERS_RECORD_BYTES_MAX);
    assert!(tls.is_open());
}

#[test]
fn what_fails_is_told_by_an_alert_and_never_driven_again() {
    let mut tls = shown().accept(&[]).unwrap();
    let hello = sent_by(&mut client(&TLS13));
    // Twice: the second one is no message that may come now.
    let (_, end) = feed(&mut tls, &hello, 9_999, STRANGERS_RECORD_BYTES_MAX);
    assert_eq!(end, None);
    let (_, end) = feed(&mut tls, &hello, 9_999, STRANGERS_RECORD_BYTES_MAX);
    assert_eq!(end, Some(CloseReason::BadTls));
    let out = wrapped(&mut tls, b"not this", true);
    // A record of type 21, in the clear or sealed as type 23, is the last one.
    assert!(out.len() > 7 && tls.session.is_none());
    for _ in 0..3 {
        assert_eq!(
            feed(&mut tls, &hello, 1, RECORD_BYTES_MAX),
            (vec![], None),
            "nothing is read"
        );
        assert!(wrapped(&mut tls, b"nor this", true).is_empty());
    }
    // A ClientHello that is cut short gets its alert in the clear.
    let mut short = hello.clone();
    short.truncate(100);
    short[3..5].copy_from_slice(&[0, 95]);
    short[6..9].copy_from_slice(&[0, 0, 91]);
    let mut tls = shown().accept(&[]).unwrap();
    let (_, end) = feed(&mut tls, &short, 9_999, STRANGERS_RECORD_BYTES_MAX);
    assert_eq!(end, Some(CloseReason::BadTls));
    let alert = wrapped(&mut tls, &[], true);
    assert_eq!((alert[0], alert.len(), alert[5]), (0x15, 7, 2), "fatal");
}

#[test]
fn updates_of_keys_are_answered_by_one_however_many_come() {
    let (mut tls, mut client) = open(&TLS13, 9_999);
    for round in 0..30 {
        client.refresh_traffic_keys().unwrap();
        let sent = sent_by(&mut client);
        assert_eq!(
            feed(&mut tls, &sent, 9_999, RECORD_BYTES_MAX),
            (vec![], None),
            "{round}"
        );
    }
    assert!(!tls.has_answers());
    let sent = wrapped(&mut tls, b"under new keys", false);
    assert!(sent.len() <= 14 + 2 * RECORD_OVERHEAD_BYTES);
    assert_eq!(received_by(&mut client, &sent), b"under new keys");
    client.writer().write_all(b"and back").unwrap();
    let sent = sent_by(&mut client);
    assert_eq!(feed(&mut tls, &sent, 3, RECORD_BYTES_MAX).0, b"and back");
    // Without end, rustls ends it.
    let mut end = None;
    for _ in 0..100 {
        client.refresh_traffic_keys().unwrap();
        let sent = sent_by(&mut client);
        end = end.or(feed(&mut tls, &sent, 9_999, RECORD_BYTES_MAX).1);
    }
    assert_eq!(end, Some(CloseReason::BadTls));
}

#[test]
fn certificates_and_keys_have_to_be_there_and_fit() {
    let error = |chain, key| Certificate::from_pem(chain, key).map(|_| ()).unwrap_err();
    assert_eq!(error(b"", KEY), BadCertificate::NoCertificate);
    assert_eq!(error(KEY, KEY), BadCertificate::NoCertificate);
    assert_eq!(error(CHAIN, b"no key"), BadCertificate::NoKey);
    assert_eq!(error(CHAIN, CHAIN), BadCertificate::NoKey);
    assert_eq!(error(OTHER_CHAIN, KEY), BadCertificate::OtherKey);
    let cut = [&CHAIN[..200], b"\n-----END CERTIFICATE-----\n"].concat();
    assert!(matches!(
        error(&cut, KEY),
        BadCertificate::Unusable(_) | BadCertificate::NoCertificate
    ));
}

#[test]
fn what_is_shown_can_change_and_vanish() {
    let shown = shown();
    assert!(!shown.show(Some(Certificate::from_pem(CHAIN, KEY).unwrap())));
    assert!(shown.accept(&[]).is_some());
    assert!(shown.show(None));
    assert!(shown.accept(&[]).is_none());
}

/// What a client sends in a good conversation: its handshake, and records after it.
fn conversation(version: &'static SupportedProtocolVersion) -> (Box<Tls>, Vec<Vec<u8>>) {
    let mut client = client(version);
    let first = sent_by(&mut client);
    let mut tls = shown().accept(&[]).unwrap();
    feed(&mut tls, &first, 9_999, STRANGERS_RECORD_BYTES_MAX);
    let answer = wrapped(&mut tls, &[], false);
    received_by(&mut client, &answer);
    let second = sent_by(&mut client);
    (tls, vec![first, second])
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Twice(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        any::<usize>().prop_map(Mutation::Cut),
        (
            any::<usize>(),
            proptest::collection::vec(any::<u8>(), 1..40)
        )
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        any::<usize>().prop_map(Mutation::Twice),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let length = bytes.len().max(1);
    match mutation {
        Mutation::Flip(at, bit) => {
            if let Some(byte) = bytes.get_mut(at % length) {
                *byte ^= 1 << bit;
            }
        }
        Mutation::Cut(at) => bytes.truncate(at % length),
        Mutation::Insert(at, more) => {
            let at = at % length;
            bytes.splice(
                at.min(bytes.len())..at.min(bytes.len()),
                more.iter().copied(),
            );
        }
        Mutation::Twice(at) => {
            let tail = bytes[(at % length).min(bytes.len())..].to_vec();
            bytes.extend(tail);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        headed in any::<bool>(),
        piece in 1..700_usize,
    ) {
        let mut tls = shown().accept(&[]).unwrap();
        let mut sent = Vec::new();
        if headed {
            // A record's header that fits, so that rustls sees the rest.
            sent.extend([0x16, 3, 1]);
            sent.extend((bytes.len() as u16).to_be_bytes());
        }
        sent.extend(bytes);
        let (carried, _) = feed(&mut tls, &sent, piece, STRANGERS_RECORD_BYTES_MAX);
        prop_assert!(carried.is_empty());
        wrapped(&mut tls, b"x", true);
        feed(&mut tls, &sent, piece, STRANGERS_RECORD_BYTES_MAX);
    }

    #[test]
    fn no_mutation_of_a_handshake_does_harm(
        old in any::<bool>(),
        stage in 0..2_usize,
        mutations in proptest::collection::vec(mutation(), 1..4),
        piece in 1..2_500_usize,
    ) {
        let version = if old { &TLS12 } else { &TLS13 };
        let (mut tls, mut flights) = conversation(version);
        if stage == 0 {
            tls = shown().accept(&[]).unwrap();
        }
        let flight = &mut flights[stage];
        for mutation in &mutations {
            mutate(flight, mutation);
        }
        let (carried, end) = feed(&mut tls, flight, piece, STRANGERS_RECORD_BYTES_MAX);
        prop_assert!(carried.is_empty());
        prop_assert_eq!(end == Some(CloseReason::BadTls), tls.session.is_none());
        wrapped(&mut tls, &[], true);
        // Whatever still comes.
        feed(&mut tls, flight, piece, STRANGERS_RECORD_BYTES_MAX);
        wrapped(&mut tls, &[], true);
    }

    #[test]
    fn no_mutation_of_a_session_does_harm(
        old in any::<bool>(),
        mutations in proptest::collection::vec(mutation(), 1..4),
        piece in 1..2_500_usize,
    ) {
        let (mut tls, mut client) = open(if old { &TLS12 } else { &TLS13 }, 9_999);
        let mut sent = Vec::new();
        for length in [5, 900, 40] {
            client.writer().write_all(&vec![7; length]).unwrap();
            sent.extend(sent_by(&mut client));
        }
        let good = sent.clone();
        for mutation in &mutations {
            mutate(&mut sent, mutation);
        }
        let (carried, _) = feed(&mut tls, &sent, piece, RECORD_BYTES_MAX);
        // Nothing is carried that was not said.
        prop_assert!(carried.iter().all(|&byte| byte == 7) && carried.len() <= 945);
        wrapped(&mut tls, b"answer", true);
        feed(&mut tls, &good, piece, RECORD_BYTES_MAX);
        wrapped(&mut tls, &[], true);
    }
}
