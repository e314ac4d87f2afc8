//! Clients that take their time: a byte a second, or for ever, at each step of
//! a connection.

use std::time::{Duration, Instant};

use protocol::body::Body;
use protocol::reason::CloseReason;

use crate::cluster::metrics::Calm;
use crate::cluster::player::Honest;
use crate::cluster::raw::{Raw, ping};
use crate::cluster::{Cluster, Settings};

/// Deadlines short enough for a test, a byte a second being slow by any of them.
const SETTINGS: Settings = &[
    "limits.handshake_timeout_ms=2000",
    "limits.login_timeout_ms=3000",
    "heartbeat.interval_ms=500",
    "heartbeat.idle_timeout_ms=3000",
];

/// Pause between two bytes.
const PERIOD: Duration = Duration::from_secs(1);

/// How much later than its deadline a connection may end.
const LATE: Duration = Duration::from_secs(1);

/// Sends a byte in each period until the gateway has something to say, at the
/// latest when `patience` is over; `bytes` is not finished by then.
fn drip(raw: &mut Raw, bytes: &[u8], patience: Duration) {
    let began = Instant::now();
    for byte in bytes {
        raw.send(&[*byte]);
        raw.stream.set_read_timeout(Some(PERIOD)).expect("a socket");
        // Looks without taking anything.
        if raw.stream.peek(&mut [0]).is_ok() {
            raw.stream
                .set_read_timeout(Some(LATE * 5))
                .expect("a socket");
            return;
        }
        assert!(began.elapsed() < patience, "nothing after {patience:?}");
    }
    panic!("all bytes were sent, and nothing has happened");
}

/// It took from `deadline` to a bit more.
fn check(what: &str, took: Duration, deadline_ms: u64) {
    let deadline = Duration::from_millis(deadline_ms);
    let range = deadline - Duration::from_millis(100)..deadline + LATE;
    assert!(range.contains(&took), "{what}: {took:?}, not {range:?}");
}

#[test]
fn a_byte_a_second_is_too_slow_at_each_step() {
    let cluster = &Cluster::start(SETTINGS, &[], &[]);
    let honest = Honest::start(cluster);
    let mut calm = Calm::before(cluster);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut raw = Raw::connect(cluster);
            let (_, hello) = raw.hello(&cluster.gateway_key);
            drip(&mut raw, &hello, PERIOD * 5);
            raw.expect_end();
            check("a HELLO", raw.age(), 2_000);
        });
        scope.spawn(|| {
            let mut raw = Raw::greeted(cluster);
            let login = raw.seal(0, &[1; 100]);
            drip(&mut raw, &login, PERIOD * 5);
            raw.expect_close(CloseReason::LoginTimeout);
            check("a LOGIN", raw.age(), 3_000);
        });
        scope.spawn(|| {
            let mut raw = Raw::logged_in(cluster, "slow");
            raw.round_trip(b"quick");
            let since = Instant::now();
            let body = raw.request(&[7; 100]);
            let frame = raw.seal(0, &body);
            drip(&mut raw, &frame, PERIOD * 6);
            raw.expect_close(CloseReason::IdleTimeout);
            check("a request", since.elapsed(), 3_000);
        });
    });
    calm.closed(CloseReason::HandshakeTimeout, 1);
    calm.closed(CloseReason::LoginTimeout, 1);
    calm.closed(CloseReason::IdleTimeout, 1);
    honest.round_trips(20);
    calm.over();
    honest.finish();
}

#[test]
fn who_never_finishes_is_sent_away_at_the_deadline() {
    let cluster = &Cluster::start(SETTINGS, &[], &[]);
    let honest = Honest::start(cluster);
    let mut calm = Calm::before(cluster);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut raw = Raw::connect(cluster);
            raw.expect_end();
            check("nothing", raw.age(), 2_000);
        });
        scope.spawn(|| {
            let mut raw = Raw::connect(cluster);
            let (_, hello) = raw.hello(&cluster.gateway_key);
            raw.send(&hello[..hello.len() - 1]);
            raw.expect_end();
            check("all but one byte", raw.age(), 2_000);
        });
        scope.spawn(|| {
            let mut raw = Raw::greeted(cluster);
            raw.expect_close(CloseReason::LoginTimeout);
            check("no LOGIN", raw.age(), 3_000);
        });
        scope.spawn(|| {
            // Alive, but not on its way anywhere.
            let mut raw = Raw::greeted(cluster);
            for stamp in 0..14 {
                raw.send_body(&ping(stamp));
                raw.expect(
                    "PONG",
                    |body| matches!(body, Body::Pong(pong) if pong.stamp == stamp),
                );
                std::thread::sleep(Duration::from_millis(200));
            }
            raw.expect_close(CloseReason::LoginTimeout);
            check("only PINGs", raw.age(), 3_000);
        });
        scope.spawn(|| {
            // Logged in, and then silent.
            let mut raw = Raw::logged_in(cluster, "silent");
            let since = Instant::now();
            raw.expect_close(CloseReason::IdleTimeout);
            check("silence", since.elapsed(), 3_000);
        });
    });
    calm.closed(CloseReason::HandshakeTimeout, 2);
    calm.closed(CloseReason::LoginTimeout, 2);
    calm.closed(CloseReason::IdleTimeout, 1);
    honest.round_trips(20);
    calm.over();
    honest.finish();
}
