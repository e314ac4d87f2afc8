//! Clients that come over TLS: good ones with frames and with WebSocket, what is no
//! TLS though it begins like it, and certificates that change.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use protocol::reason::{CloseReason, DropReason};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{TELLING, expect_address};
use crate::cluster::metrics::Calm;
use crate::cluster::player::Honest;
use crate::cluster::raw::{Raw, TLS12, TLS13};
use crate::cluster::{Cluster, PATIENCE, Settings, WITH_TLS, tls_file, wait_until};

/// A fatal alert of TLS in the clear: type, version, length, level.
const ALERT: [u8; 6] = [0x15, 3, 3, 0, 2, 2];

fn login(cluster: &Cluster, mut raw: Raw, account: &str) -> Raw {
    raw.greet(&cluster.gateway_key);
    raw.login(&cluster.token(account));
    raw
}

fn certificate(name: &str) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_file(tls_file(name));
    certificate.expect("a certificate").to_vec()
}

/// Sends bytes on a new connection and reads until its end.
fn answer(cluster: &Cluster, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(bytes).expect("the gateway takes it");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the end, in order");
    answer
}

#[test]
fn players_over_tls_play_beside_those_without_on_one_port() {
    let cluster = &Cluster::start(WITH_TLS, &[], &[]);
    let mut calm = Calm::before(cluster);
    let before = handshakes(cluster);
    let mut others = [
        login(cluster, Raw::connect(cluster), "tcp"),
        login(cluster, Raw::websocket(cluster), "ws"),
        login(cluster, Raw::tls(cluster, &TLS13), "tls"),
        login(cluster, Raw::tls(cluster, &TLS12), "old"),
        login(cluster, Raw::tls(cluster, &TLS13).upgraded(b"", ""), "wss"),
        login(
            cluster,
            Raw::tls(cluster, &TLS12).upgraded(b"", ""),
            "old wss",
        ),
    ];
    for bytes in [0, 1, 40, 100, 5_000, 16_300, 32_000] {
        // What LZ4 can't shrink, and what it can.
        let noise: Vec<u8> = (0..bytes as u64)
            .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        for raw in &mut others {
            raw.round_trip(&noise);
            raw.round_trip(&vec![7; bytes]);
        }
    }
    for raw in others {
        // With CLOSE, the close frame and the alert, or `logout` would not be content.
        raw.logout();
    }
    assert_eq!(handshakes(cluster) - before, 4);
    calm.closed(CloseReason::LoggedOut, 6);
    calm.over();
}

fn handshakes(cluster: &Cluster) -> u64 {
    let metrics = cluster.metrics("gateway");
    metrics.value("sallyport_gateway_tls_handshakes_total")
}

#[test]
fn a_handshake_may_come_byte_by_byte_and_records_in_any_pieces() {
    let cluster = &Cluster::start(WITH_TLS, &[], &[]);
    let mut stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (mut client, hello) = Raw::client_hello(&TLS13);
    for byte in hello {
        stream.write_all(&[byte]).expect("it is taken");
    }
    while client.is_handshaking() {
        client.read_tls(&mut stream).expect("the answer");
        client.process_new_packets().expect("a good one");
    }
    // Its Finished and a request of HTTP that is none, in one piece cut at every byte.
    client
        .writer()
        .write_all(b"PUT / HTTP/1.1\r\n\r\n")
        .expect("room");
    let mut records = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut records).expect("a vector");
    }
    for byte in records {
        stream.write_all(&[byte]).expect("it is taken");
    }
    while client.read_tls(&mut stream).expect("the answer") > 0 {
        client.process_new_packets().expect("good records");
    }
    let mut answer = String::new();
    client
        .reader()
        .read_to_string(&mut answer)
        .expect("the end is told");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[test]
fn whatever_begins_like_tls_and_is_none_is_told_so_and_harms_nobody() {
    const TIMEOUT: Settings = &[
        "limits.handshake_timeout_ms=1000",
        "listen.tls_cert_file=gateway.pem",
        "listen.tls_key_file=gateway-tls.key",
    ];
    let cluster = &Cluster::start(TIMEOUT, &[], &[]);
    let honest = Honest::start(cluster);
    let mut calm = Calm::before(cluster);
    // What comes behind the bytes that ended it.
    calm.tolerate(DropReason::AfterClose);
    let (_, hello) = Raw::client_hello(&TLS13);
    let mut flipped = hello.clone();
    flipped[5] ^= 0x40;
    let mut old = hello.clone();
    // Its length, and within it the version and what follows.
    old[43] = 0xff;
    let twice = [&hello[..], &hello[..]].concat();
    let mut noise = vec![0x16, 3, 1, 2, 0];
    noise.extend((0..512_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
    let long = [&[0x16, 3, 1, 0x40, 0][..], &[0; 2_000]].concat();
    let mut pieces = vec![0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
    for _ in 0..100 {
        pieces.extend([0x16, 3, 1, 0, 100]);
        pieces.extend([0; 100]);
    }
    let empty = [&[0x16, 3, 1, 0, 1, 1][..], &[0x16, 3, 1, 0, 0].repeat(10)].concat();
    let data_first = [&[0x17, 3, 3, 0, 40][..], &[1; 40]].concat();
    let data_first = [&hello[..], &data_first].concat();
    for (what, bytes, is_told) in [
        ("another message", &flipped, true),
        ("a session id of 255 bytes", &old, true),
        ("the same again", &twice, true),
        ("noise", &noise, false),
        ("too long a record", &long, false),
        ("too long a message", &pieces, false),
        ("empty records", &empty, true),
        ("data before the end of the handshake", &data_first, true),
    ] {
        let answer = answer(cluster, bytes);
        if is_told {
            let alert = answer.len().checked_sub(7).map(|at| &answer[at..at + 6]);
            let in_the_clear = alert == Some(&ALERT[..]);
            // After our ServerHello it is sealed, type 23, and 24 bytes in all.
            let sealed = answer.len().checked_sub(24).map(|at| &answer[at..at + 5]);
            let is_sealed = sealed == Some(&[0x17, 3, 3, 0, 19][..]);
            assert!(in_the_clear || is_sealed, "{what}: {answer:x?}");
        } else {
            assert!(answer.is_empty(), "{what}: {answer:x?}");
        }
        calm.closed(CloseReason::BadTls, 1);
        calm.check();
    }
    // What stops half-way meets the deadline, which counts from the accept.
    std::thread::scope(|scope| {
        for length in [1, 4, hello.len() - 1, hello.len()] {
            let begun = &hello[..length];
            scope.spawn(move || {
                let began = Instant::now();
                answer(cluster, begun);
                assert!(began.elapsed() > Duration::from_millis(900));
            });
        }
    });
    calm.closed(CloseReason::HandshakeTimeout, 4);
    honest.round_trips(20);
    calm.over();
    honest.finish();
}

#[test]
fn a_session_ends_with_what_breaks_its_records() {
    let cluster = &Cluster::start(WITH_TLS, &[], &[]);
    let mut calm = Calm::before(cluster);
    for (account, bytes) in [
        ("forged", [&[0x17, 3, 3, 0, 40][..], &[9; 40]].concat()),
        ("greeting", Raw::client_hello(&TLS13).1),
        ("long", vec![0x17, 3, 3, 0x41, 1]),
        ("no type", vec![0x99, 3, 3, 0, 1, 0]),
    ] {
        let mut raw = login(cluster, Raw::tls(cluster, &TLS13), account);
        raw.round_trip(b"good until now");
        raw.stream.write_all(&bytes).expect("it is taken");
        let mut rest = Vec::new();
        raw.stream.read_to_end(&mut rest).expect("the end");
        // At most an alert, which nobody could read as something of the session.
        assert!(rest.len() <= 24, "{account}: {rest:x?}");
        calm.closed(CloseReason::BadTls, 1);
        calm.check();
    }
    // The client's own end, and what it says behind.
    let mut raw = login(cluster, Raw::tls(cluster, &TLS13), "leaves");
    raw.close_tls();
    raw.send_or_gone(&[0x17; 100]);
    raw.expect_close(CloseReason::PeerClosed);
    calm.closed(CloseReason::PeerClosed, 1);
    calm.tolerate(DropReason::AfterClose);
    calm.over();
}

#[test]
fn a_balancer_may_stand_before_tls_and_tell_the_address() {
    const BEHIND: Settings = &[
        "listen.proxy_protocol=required",
        "listen.proxy_trusted=127.0.0.0/8",
        "listen.tls_cert_file=gateway.pem",
        "listen.tls_key_file=gateway-tls.key",
    ];
    let cluster = &Cluster::start(BEHIND, &[], TELLING);
    let header = b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 7000\r\n";
    let behind = || {
        let mut stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
        stream.write_all(header).expect("it is taken");
        stream
    };
    let raw = login(cluster, Raw::over_tls(behind(), &TLS13), "frames");
    expect_address(cluster, "frames", "198.51.100.7:4711");
    raw.logout();
    let raw = Raw::over_tls(behind(), &TLS12).upgraded(b"", "");
    let raw = login(cluster, raw, "websocket");
    expect_address(cluster, "websocket", "198.51.100.7:4711");
    raw.logout();
    // Within TLS there is no such header, and no TLS.
    for inner in [&header[..], &Raw::client_hello(&TLS13).1] {
        let mut raw = Raw::over_tls(behind(), &TLS13);
        raw.send(inner);
        while raw.next_frame().is_some() {}
    }
    cluster.wait_metric("gateway", "sallyport_gateway_connections", |open| open == 0);
    let metrics = cluster.metrics("gateway");
    assert_eq!(metrics.closes(CloseReason::BadUpgrade), 1);
    assert_eq!(metrics.closes(CloseReason::BadLength), 1);
}

#[test]
fn without_a_certificate_there_is_no_tls() {
    let cluster = &Cluster::start(&[], &[], &[]);
    let mut calm = Calm::before(cluster);
    let answer = answer(cluster, &Raw::client_hello(&TLS13).1);
    // REJECT, as for any other length that is none.
    assert_eq!(answer[..3], [20, 0, 0]);
    calm.closed(CloseReason::BadLength, 1);
    calm.over();
}

#[test]
fn a_certificate_is_renewed_while_players_play() {
    let cluster = &Cluster::start(WITH_TLS, &[], &[]);
    let shows = || {
        let mut raw = Raw::tls(cluster, &TLS13);
        raw.greet(&cluster.gateway_key);
        raw.certificate()
    };
    let put = |from: &str, to: &str| {
        fs::copy(tls_file(from), cluster.path().join(to)).expect("a file");
    };
    let said = |what: &str| {
        wait_until(what, PATIENCE, || cluster.gateway.log().contains(what));
    };
    let mut player = login(cluster, Raw::tls(cluster, &TLS13), "stays");
    player.round_trip(b"before");
    assert_eq!(shows(), certificate("first.pem"));

    // Half of it: refused, and said what is wrong.
    put("second.pem", "gateway.pem");
    cluster.gateway.reload();
    said("not reloaded");
    said("the private key is not that of the first certificate");
    assert_eq!(shows(), certificate("first.pem"));
    fs::remove_file(cluster.path().join("gateway-tls.key")).expect("it was there");
    cluster.gateway.reload();
    said("gateway-tls.key: no such file; it is to hold the private key of TLS in PEM");
    assert_eq!(shows(), certificate("first.pem"));

    put("second.key", "gateway-tls.key");
    cluster.gateway.reload();
    said("another certificate is shown from now on");
    assert_eq!(shows(), certificate("second.pem"));
    player.round_trip(b"under the old one, to the end");
    player.logout();
    cluster.gateway.reload();
    said("nothing has changed");
}
