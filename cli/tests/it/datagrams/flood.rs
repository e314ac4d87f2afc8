//! Floods of INIT datagrams: whoever sends them costs the gateway no memory without a cookie, and
//! with one no more than its bound on connections before login allows.

use std::time::{Duration, Instant};

use protocol::datagram::cookie::COOKIE_BYTES;
use protocol::datagram::hello::{self, Setup};
use protocol::reason::CloseReason;

use super::{CONNECTIONS, DATAGRAMS, RECEIVED, SENT, answer, cookie, init};
use crate::cluster::player::udp_socket;
use crate::cluster::{Cluster, PATIENCE};

/// Connections that the gateway takes before login, as the settings say.
const BEFORE_LOGIN_MAX: u64 = 256;

/// What a metric and the allocator may grow by meanwhile, whatever comes.
const NOISE_BYTES: u64 = 4 << 20;

/// A connection that nobody has used: its ciphers, its end of the datagrams, its ACCEPT.
const UNUSED_BYTES: u64 = 4 << 10;

/// Sends so many INITs without a cookie, each some from one address, and takes the answers.
fn flood_without_cookie(cluster: &Cluster, count: u64) {
    const AT_ONCE: u64 = 32;
    let (_, init) = init(cluster, &[0; COOKIE_BYTES]);
    for _ in 0..count / AT_ONCE {
        let socket = udp_socket(cluster.address());
        for _ in 0..AT_ONCE {
            socket.send(&init).expect("sent");
        }
        // The flood is as quick as the gateway, so that the kernel loses little of it.
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a socket");
        let mut retry = [0; 2_048];
        for _ in 0..AT_ONCE {
            let Ok(length) = socket.recv(&mut retry) else {
                break;
            };
            assert!(length < 40, "a RETRY of {length} bytes");
        }
    }
}

#[test]
fn inits_without_a_cookie_leave_no_byte_behind() {
    const INITS: u64 = 30_000;
    let cluster = Cluster::start(&[], &[], &[]);
    flood_without_cookie(&cluster, INITS / 10);
    let before_bytes = cluster.gateway.rss_bytes();
    cluster.gateway.forget_peak();
    flood_without_cookie(&cluster, INITS);
    let grown_bytes = cluster.gateway.rss_bytes_peak() - before_bytes;
    let metrics = cluster.metrics("gateway");
    let came = metrics.value(DATAGRAMS);
    assert!(came > INITS, "{came} of the datagrams came");
    assert_eq!(metrics.value(CONNECTIONS), 0);
    // 36 MB came, from a thousand addresses.
    assert!(grown_bytes < NOISE_BYTES, "grown by {grown_bytes} bytes");
    let (sent, received) = (metrics.value(SENT), metrics.value(RECEIVED));
    assert!(sent * 30 < received, "{sent} bytes for {received}");
}

#[test]
fn cookies_without_a_sealed_datagram_are_bounded_and_forgotten() {
    const REFUSED: u64 = 1_500;
    let settings = &[
        "limits.connections_before_login_max=256",
        "limits.handshake_timeout_ms=4000",
    ];
    let cluster = Cluster::start(settings, &[], &[]);
    flood_without_cookie(&cluster, 1_000);
    let before_bytes = cluster.gateway.rss_bytes();
    cluster.gateway.forget_peak();
    let (mut accepted, mut refused, mut most) = (0, 0, 0);
    let end = Instant::now() + 3 * PATIENCE;
    // Those that were taken first may be forgotten meanwhile.
    while refused < REFUSED {
        assert!(
            Instant::now() < end,
            "{accepted} accepted, {refused} refused"
        );
        let socket = udp_socket(cluster.address());
        let good = cookie(&cluster, &socket);
        socket.send(&init(&cluster, &good).1).expect("sent");
        let answer = answer(&socket);
        match hello::decode(&answer) {
            Some((_, Setup::Accept { .. })) => accepted += 1,
            _ => refused += 1,
        }
        if (accepted + refused) % 128 == 0 {
            most = most.max(cluster.metrics("gateway").value(CONNECTIONS));
        }
    }
    let grown_bytes = cluster.gateway.rss_bytes_peak() - before_bytes;
    assert!(
        (128..=BEFORE_LOGIN_MAX).contains(&most),
        "{most} connections"
    );
    assert!(
        grown_bytes < BEFORE_LOGIN_MAX * UNUSED_BYTES + NOISE_BYTES,
        "{accepted} accepted have cost {grown_bytes} bytes"
    );
    cluster.wait_metric("gateway", CONNECTIONS, |count| count == 0);
    let metrics = cluster.metrics("gateway");
    // Some have the port of one before them, and got its ACCEPT again.
    let forgotten = metrics.closes(CloseReason::HandshakeTimeout);
    assert!(
        (BEFORE_LOGIN_MAX..=accepted).contains(&forgotten),
        "{forgotten} of {accepted} were forgotten"
    );
    let (sent, received) = (metrics.value(SENT), metrics.value(RECEIVED));
    assert!(sent <= received, "{sent} bytes for {received}");
}
