//! PROXY headers that the test writes: good ones, in pieces, none, bad ones, and
//! from where nobody is trusted.

use std::io::Read as _;
use std::time::Duration;

use protocol::reason::CloseReason;

use super::{TELLING, expect_address};
use crate::cluster::metrics::Calm;
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, Settings};

const REQUIRED: Settings = &[
    "listen.proxy_protocol=required",
    "listen.proxy_trusted=127.0.0.0/8",
];

/// Trusted are others than this host.
const ELSEWHERE: Settings = &[
    "listen.proxy_protocol=required",
    "listen.proxy_trusted=10.0.0.0/8,192.0.2.0/24",
];

/// A header of version 2: PROXY over TCP and IPv4, from 198.51.100.7:4711.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x0a\0\0\x01\x12\x67\x1b\x58";

/// The same with a checksum that is not its own.
const V2_WRONG_CRC: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc6\x33\x64\x07\x0a\0\0\x01\x12\x67\x1b\x58\x03\0\x04abcd";

fn login(cluster: &Cluster, mut raw: Raw, account: &str) -> Raw {
    raw.greet(&cluster.gateway_key);
    raw.login(&cluster.token(account));
    raw.round_trip(b"through a balancer");
    raw
}

#[test]
fn a_header_tells_the_clients_address_to_the_game() {
    let cluster = &Cluster::start(REQUIRED, &[], TELLING);
    for (account, header, address) in [
        (
            "one",
            &b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 7000\r\n"[..],
            "198.51.100.7:4711",
        ),
        (
            "one-of-six",
            b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 7000\r\n",
            "[2001:db8::7]:4711",
        ),
        ("two", V2, "198.51.100.7:4711"),
    ] {
        let mut raw = Raw::connect(cluster);
        raw.send(header);
        let raw = login(cluster, raw, account);
        expect_address(cluster, account, address);
        raw.logout();
    }
    // The balancer's own connection, as its health checks are.
    let mut raw = Raw::connect(cluster);
    let own = raw.stream.local_addr().expect("a socket").to_string();
    raw.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    let raw = login(cluster, raw, "check");
    expect_address(cluster, "check", &own);
    raw.logout();
}

#[test]
fn a_header_may_drip_and_the_hello_may_lie_behind_it_at_once() {
    let cluster = &Cluster::start(REQUIRED, &[], TELLING);
    let mut raw = Raw::connect(cluster);
    for byte in V2 {
        raw.send(&[*byte]);
    }
    let raw = login(cluster, raw, "drip");
    expect_address(cluster, "drip", "198.51.100.7:4711");
    raw.logout();

    let mut raw = Raw::connect(cluster);
    let (initiator, hello) = raw.hello(&cluster.gateway_key);
    raw.send(&[V2, &hello[..]].concat());
    let welcome = raw.next_frame().expect("WELCOME");
    initiator.welcome(&welcome).expect("a good WELCOME");
}

#[test]
fn without_a_good_header_nothing_is_read_and_nothing_said() {
    let cluster = &Cluster::start(REQUIRED, &[], &[]);
    let mut calm = Calm::before(cluster);
    let (_, hello) = Raw::connect(cluster).hello(&cluster.gateway_key);
    calm.closed(CloseReason::PeerClosed, 1);
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat();
    let bad: [&[u8]; 6] = [
        &hello,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROXY TCP4 198.51.100.7 10.0.0.1 4711\r\n",
        &too_long,
        V2_WRONG_CRC,
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    for bytes in bad {
        let mut raw = Raw::connect(cluster);
        raw.send(bytes);
        raw.expect_cut();
        calm.closed(CloseReason::BadProxyHeader, 1);
    }
    calm.over();
}

#[test]
fn a_header_from_an_untrusted_network_closes_the_connection() {
    let cluster = &Cluster::start(ELSEWHERE, &[], &[]);
    let mut calm = Calm::before(cluster);
    for header in [&b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 7000\r\n"[..], V2, b""] {
        let mut raw = Raw::connect(cluster);
        raw.send_or_gone(header);
        raw.expect_cut();
        calm.closed(CloseReason::ProxyUntrusted, 1);
    }
    calm.over();
}

#[test]
fn where_it_is_off_a_header_is_no_frame() {
    let cluster = &Cluster::start(&["listen.proxy_trusted=127.0.0.0/8"], &[], &[]);
    let mut calm = Calm::before(cluster);
    let mut raw = Raw::connect(cluster);
    raw.send(V2);
    raw.expect_reject(CloseReason::BadLength);
    calm.closed(CloseReason::BadLength, 1);
    // In capital letters it could be HTTP, and is told that it is none.
    let mut raw = Raw::connect(cluster);
    raw.send(b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 7000\r\n");
    let mut answer = String::new();
    raw.stream
        .read_to_string(&mut answer)
        .expect("an answer and the end");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    calm.closed(CloseReason::BadUpgrade, 1);
    calm.over();
}

#[test]
fn a_header_that_never_ends_is_cut_at_the_deadline_of_the_handshake() {
    let settings: Settings = &[
        "listen.proxy_protocol=required",
        "listen.proxy_trusted=127.0.0.0/8",
        "limits.handshake_timeout_ms=1000",
    ];
    let cluster = &Cluster::start(settings, &[], &[]);
    let mut calm = Calm::before(cluster);
    for sent in [&b""[..], b"PROXY ", &V2[..20]] {
        let mut raw = Raw::connect(cluster);
        raw.send(sent);
        raw.expect_cut();
        assert!(raw.age() >= Duration::from_millis(900), "{:?}", raw.age());
        calm.closed(CloseReason::HandshakeTimeout, 1);
    }
    // What the header took of the time is not given back.
    let mut raw = Raw::connect(cluster);
    raw.send(V2);
    raw.expect_cut();
    assert!(raw.age() < Duration::from_millis(2_500), "{:?}", raw.age());
    calm.closed(CloseReason::HandshakeTimeout, 1);
    calm.over();
}
