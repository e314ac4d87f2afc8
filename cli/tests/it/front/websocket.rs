//! Clients that come over WebSocket: good ones, HTTP that is none, frames that
//! break the rules, and addresses that proxies tell.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use protocol::body::MessageKind;
use protocol::limits::FRAME_BYTES_MAX;
use protocol::reason::CloseReason;
use protocol::websocket::{Opcode, write_masked};

use super::{TELLING, expect_address};
use crate::cluster::metrics::Calm;
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE, Settings};

fn login(cluster: &Cluster, mut raw: Raw, account: &str) -> Raw {
    raw.greet(&cluster.gateway_key);
    raw.login(&cluster.token(account));
    raw
}

fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(opcode, [0xaa, 0x55, 0x01, 0xfe], payload, &mut out);
    out
}

/// Writes past the client's own framing.
fn write(raw: &mut Raw, bytes: &[u8]) {
    raw.stream.write_all(bytes).expect("the gateway takes it");
}

/// Sends a request that is not granted; the status and the whole answer.
fn asks(cluster: &Cluster, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer and the end");
    (answer[9..12].to_owned(), answer)
}

/// A good request with something replaced.
fn request(from: &str, to: &str) -> String {
    let good = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Origin: https://game.example\r\n\r\n";
    assert!(good.contains(from), "{from}");
    good.replace(from, to)
}

#[test]
fn a_player_plays_over_websocket_beside_one_over_tcp() {
    let cluster = &Cluster::start(&[], &[], &[]);
    let mut calm = Calm::before(cluster);
    let mut raw = login(cluster, Raw::websocket(cluster), "browser");
    let mut other = Raw::logged_in(cluster, "native");
    for bytes in [0, 1, 40, 90, 100, 200, 5_000, 30_000] {
        let payload = vec![bytes as u8; bytes];
        raw.round_trip(&payload);
        other.round_trip(&payload);
    }
    raw.logout();
    other.logout();
    calm.closed(CloseReason::LoggedOut, 2);
    calm.over();
}

#[test]
fn the_close_code_is_the_reason() {
    let cluster = &Cluster::start(&[], &[], &[]);
    let mut calm = Calm::before(cluster);
    let mut raw = Raw::websocket(cluster);
    raw.greet(&cluster.gateway_key);
    raw.send_login("no token");
    raw.expect_close(CloseReason::BadToken);
    assert_eq!(raw.close_code(), Some(4_030));
    calm.closed(CloseReason::BadToken, 1);

    let mut raw = login(cluster, Raw::websocket(cluster), "leaves");
    raw.send_body(&protocol::body::Body::Logout);
    raw.expect_close(CloseReason::LoggedOut);
    assert_eq!(raw.close_code(), Some(1_000));
    calm.closed(CloseReason::LoggedOut, 1);

    // REJECT too is a message.
    let mut raw = Raw::websocket(cluster);
    let (_, mut hello) = raw.hello(&cluster.gateway_key);
    hello[30] ^= 1;
    raw.send(&hello);
    raw.expect_reject(CloseReason::BadCrc);
    assert_eq!(raw.close_code(), Some(4_003));
    calm.closed(CloseReason::BadCrc, 1);

    // The client's own close is answered by its like, without a frame before it. Another account
    // each time, since such a session waits for its client and a new login would end it.
    for (account, payload, code) in [
        ("closes", &b"\x03\xe8bye"[..], Some(1_000)),
        ("closes too", b"\x0f\xa1", Some(4_001)),
        ("closes mutely", b"", None),
    ] {
        let mut raw = login(cluster, Raw::websocket(cluster), account);
        write(&mut raw, &masked(Opcode::Close, payload));
        raw.expect_end();
        assert_eq!(raw.close_code(), code);
        calm.closed(CloseReason::PeerClosed, 1);
        calm.check();
    }
    calm.over();
}

#[test]
fn fragments_and_pings_are_as_the_rfc_says() {
    let cluster = &Cluster::start(&[], &[], &[]);
    let mut raw = login(cluster, Raw::websocket(cluster), "pieces");
    let body = raw.request(b"cut into three");
    let frame = raw.seal(0, &body);
    let mut bytes = Vec::new();
    for (at, piece) in frame.chunks(frame.len() / 3 + 1).enumerate() {
        let mut part = masked(
            if at == 0 {
                Opcode::Binary
            } else {
                Opcode::Continuation
            },
            piece,
        );
        part[0] = part[0] & 0x0f | if at == 2 { 0x80 } else { 0 };
        bytes.extend(part);
        bytes.extend(masked(Opcode::Ping, b"between"));
        bytes.extend(masked(Opcode::Pong, b"unasked"));
    }
    // Every cut that TCP could make, by one byte a write.
    for byte in bytes {
        write(&mut raw, &[byte]);
    }
    raw.expect_echo(MessageKind::Reply, b"cut into three");
    // Its own eyes: a pong is bytes 8a, length, payload.
    let mut raw = Raw::websocket(cluster);
    write(&mut raw, &masked(Opcode::Ping, b"are you there"));
    let mut pong = [0; 15];
    raw.stream.read_exact(&mut pong).expect("a pong");
    assert_eq!(pong, *b"\x8a\x0dare you there");
}

#[test]
fn pings_keep_no_session_alive_and_cost_their_rate() {
    let settings: Settings = &[
        "heartbeat.interval_ms=500",
        "heartbeat.idle_timeout_ms=1500",
        "limits.frames_per_second=100",
        "limits.frames_burst=200",
    ];
    let cluster = &Cluster::start(settings, &[], &[]);
    let mut calm = Calm::before(cluster);
    let mut raw = login(cluster, Raw::websocket(cluster), "pings");
    let mut writer = raw.stream.try_clone().expect("a socket");
    let pinging = std::thread::spawn(move || {
        // Until the gateway has had enough.
        while writer.write_all(&masked(Opcode::Ping, b"")).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    raw.expect_close(CloseReason::IdleTimeout);
    assert_eq!(raw.close_code(), Some(4_022));
    drop(raw);
    pinging.join().expect("a thread");
    calm.closed(CloseReason::IdleTimeout, 1);
    calm.tolerate(protocol::reason::DropReason::AfterClose);

    let mut raw = Raw::websocket(cluster);
    raw.greet(&cluster.gateway_key);
    let flood = masked(Opcode::Ping, b"").repeat(2_000);
    write(&mut raw, &flood);
    raw.expect_close(CloseReason::RateExceeded);
    calm.closed(CloseReason::RateExceeded, 1);
    calm.check();
}

#[test]
fn what_is_no_frame_closes_with_the_right_code() {
    let cluster = &Cluster::start(&[], &[], &[]);
    let mut calm = Calm::before(cluster);
    let two = {
        let mut raw = Raw::connect(cluster);
        let hello = raw.hello(&cluster.gateway_key).1;
        raw.finish();
        raw.expect_end();
        calm.closed(CloseReason::PeerClosed, 1);
        [&hello[..], &hello].concat()
    };
    for (bytes, reason, code) in [
        (
            masked(Opcode::Text, b"hello"),
            CloseReason::BadWebsocket,
            1_003,
        ),
        (
            masked(Opcode::Text, b"\xff"),
            CloseReason::BadWebsocket,
            1_007,
        ),
        (vec![0x82, 1, 7], CloseReason::BadWebsocket, 1_002),
        (
            vec![0xc2, 0x80, 0, 0, 0, 0],
            CloseReason::BadWebsocket,
            1_002,
        ),
        (
            vec![0x83, 0x80, 0, 0, 0, 0],
            CloseReason::BadWebsocket,
            1_002,
        ),
        (
            masked(Opcode::Continuation, b"of nothing"),
            CloseReason::BadWebsocket,
            1_002,
        ),
        // More than a HELLO may have, told before a byte of it has come.
        (
            vec![0x82, 0xfe, 2, 1, 0, 0, 0, 0],
            CloseReason::BadLength,
            1_009,
        ),
        (masked(Opcode::Binary, b""), CloseReason::BadLength, 4_001),
        (
            masked(Opcode::Binary, &[3, 0, 0]),
            CloseReason::BadLength,
            4_001,
        ),
        (masked(Opcode::Binary, &two), CloseReason::BadLength, 4_001),
        (
            masked(Opcode::Binary, &two[..60]),
            CloseReason::BadLength,
            4_001,
        ),
    ] {
        let mut raw = Raw::websocket(cluster);
        write(&mut raw, &bytes);
        raw.expect_reject(reason);
        assert_eq!(raw.close_code(), Some(code), "{bytes:?}");
        calm.closed(reason, 1);
    }
    // In a session the maximum is that of a frame.
    let mut raw = login(cluster, Raw::websocket(cluster), "too-long");
    write(
        &mut raw,
        &masked(Opcode::Binary, &vec![0; FRAME_BYTES_MAX + 1]),
    );
    raw.expect_close(CloseReason::BadLength);
    assert_eq!(raw.close_code(), Some(1_009));
    calm.closed(CloseReason::BadLength, 1);
    calm.tolerate(protocol::reason::DropReason::AfterClose);
    calm.over();
}

#[test]
fn http_that_is_no_upgrade_is_told_what_to_do() {
    let cluster = &Cluster::start(
        &["listen.websocket_origins=https://game.example,http://localhost:8080"],
        &[],
        &[],
    );
    let mut calm = Calm::before(cluster);
    let long = format!("X: {}\r\nOrigin", "y".repeat(5_000));
    for (request, status, says) in [
        (
            request("Upgrade: websocket\r\n", ""),
            "426",
            "new WebSocket(",
        ),
        (
            request("Version: 13", "Version: 12"),
            "426",
            "Sec-WebSocket-Version: 13",
        ),
        (request("GET", "POST"), "405", "Allow: GET"),
        (request("Host: x\r\n", ""), "400", "Host"),
        (
            request("dGhlIHNhbXBsZSBub25jZQ==", "x"),
            "400",
            "Sec-WebSocket-Key",
        ),
        (
            request("Origin: ", "Sec-WebSocket-Protocol: chat\r\nOrigin: "),
            "400",
            "sallyport.1",
        ),
        (
            request("game.example", "evil.example"),
            "403",
            "websocket_origins",
        ),
        (request("Origin", &long), "431", "4096"),
        (
            "GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(),
            "400",
            "HTTP/1.1",
        ),
    ] {
        let (got, answer) = asks(cluster, &request);
        assert_eq!(got, status, "{answer}");
        assert!(answer.contains(says), "{answer}");
        calm.closed(CloseReason::BadUpgrade, 1);
    }
    calm.tolerate(protocol::reason::DropReason::AfterClose);
    calm.over();
}

#[test]
fn a_request_that_drips_is_cut_at_the_deadline() {
    let cluster = &Cluster::start(&["limits.handshake_timeout_ms=1000"], &[], &[]);
    let mut calm = Calm::before(cluster);
    for sent in ["G", "GE", "GET", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut raw = Raw::connect(cluster);
        raw.send(sent.as_bytes());
        raw.expect_cut();
        assert!(raw.age() >= Duration::from_millis(900), "{:?}", raw.age());
        calm.closed(CloseReason::HandshakeTimeout, 1);
    }
    // The upgrade gives no time back either.
    let mut raw = Raw::websocket(cluster);
    raw.expect_cut();
    assert!(raw.age() < Duration::from_millis(2_500), "{:?}", raw.age());
    calm.closed(CloseReason::HandshakeTimeout, 1);
    // Cut in the middle of its first three bytes, it is the same request.
    let stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
    stream.set_nodelay(true).expect("a socket");
    let mut raw = Raw::over(stream);
    for piece in request("https", "http").as_bytes().chunks(2) {
        raw.send(piece);
    }
    let mut answer = [0; 12];
    raw.stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, *b"HTTP/1.1 101");
    drop(raw);
    calm.closed(CloseReason::PeerClosed, 1);
    calm.over();
}

#[test]
fn addresses_in_http_count_only_from_trusted_proxies() {
    let trusting = &Cluster::start(
        &["listen.proxy_trusted=127.0.0.0/8,10.0.0.0/8"],
        &[],
        TELLING,
    );
    let wary = &Cluster::start(&[], &[], TELLING);
    for (cluster, account, headers, address) in [
        (
            trusting,
            "forwarded",
            "X-Forwarded-For: 6.6.6.6, 198.51.100.7, 10.1.1.1\r\n",
            Some("198.51.100.7:0"),
        ),
        (
            trusting,
            "real",
            "X-Real-IP: 198.51.100.8\r\n",
            Some("198.51.100.8:0"),
        ),
        (trusting, "untold", "", None),
        (
            wary,
            "forged",
            "X-Forwarded-For: 198.51.100.7\r\nX-Real-IP: 198.51.100.8\r\n",
            None,
        ),
    ] {
        let stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
        let own = stream.local_addr().expect("a socket").to_string();
        let mut raw = Raw::over_websocket_with(stream, b"", headers);
        raw.greet(&cluster.gateway_key);
        raw.login(&cluster.token(account));
        expect_address(cluster, account, address.unwrap_or(&own));
        raw.logout();
    }
}

#[test]
fn a_websocket_may_come_behind_a_proxy_header() {
    let settings: Settings = &[
        "listen.proxy_protocol=required",
        "listen.proxy_trusted=127.0.0.0/8",
    ];
    let cluster = &Cluster::start(settings, &[], TELLING);
    let stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
    let header = b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 7000\r\n";
    // The client behind the balancer is no proxy: what it says of itself is ignored.
    let forged = "X-Forwarded-For: 9.9.9.9\r\n";
    let mut raw = Raw::over_websocket_with(stream, header, forged);
    raw.greet(&cluster.gateway_key);
    raw.login(&cluster.token("both"));
    raw.round_trip(b"through both");
    expect_address(cluster, "both", "198.51.100.7:4711");
    raw.logout();
}
