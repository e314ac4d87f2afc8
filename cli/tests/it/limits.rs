//! Limits of networks and accounts over real sockets: floods from one network, which others
//! do not feel, over each transport; guessed tokens; accounts that log in too often.
//!
//! Every address of 127/8 is this host's, so that a test can be in any network of it. Nobody
//! is exempt here.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::reason::{CloseReason, DropReason};
use socket2::{Domain, Socket as Plain, Type};

use crate::cluster::metrics::Calm;
use crate::cluster::player::{Honest, Player, percentile};
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE, Settings, wait_until};

/// Where those come from who are too many.
const BAD: [u8; 3] = [127, 1, 2];

/// What an honest login may take while others flood, on a machine that is busy with other
/// tests too.
const LOGIN_WITHIN: Duration = Duration::from_secs(5);

/// Logins that are timed, quiet, and again and again during a flood.
const LOGINS: usize = 20;

/// Between two of them: honest players keep within the limits, which are theirs too.
const LOGIN_PAUSE: Duration = Duration::from_millis(40);

/// Connections of a flood.
const FLOOD: u64 = 10_000;

/// A connection from an address of the bad network, if it comes about.
fn connect_from(cluster: &Cluster, host: u8) -> Option<TcpStream> {
    let [a, b, c] = BAD;
    let from: SocketAddr = (Ipv4Addr::new(a, b, c, host), 0).into();
    let socket = Plain::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // So that thousands of ends do not hold all the ports of an address.
    socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    socket.bind(&from.into()).ok()?;
    socket.connect(&cluster.address().into()).ok()?;
    Some(TcpStream::from(socket))
}

/// How long some new players take to log in.
fn logins(cluster: &Cluster, what: &str) -> Vec<Duration> {
    let login = |at| {
        let began = Instant::now();
        let player = Player::login(cluster, &format!("{what}-{at}"));
        let took = began.elapsed();
        player.logout();
        std::thread::sleep(LOGIN_PAUSE);
        took
    };
    (0..LOGINS).map(login).collect()
}

/// Does something bad again and again in threads, up to so many times, while honest players
/// log in; how often it was done, in what time, and how long the logins took.
fn during(
    cluster: &Cluster,
    times_max: u64,
    bad: impl Fn(u64) + Sync,
) -> (u64, Duration, Vec<Duration>) {
    let (times, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let (took, flooded) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let at = times.fetch_add(1, Ordering::Relaxed);
                    if at >= times_max {
                        return;
                    }
                    bad(at);
                }
            });
        }
        wait_until("the flood has begun", PATIENCE, || {
            times.load(Ordering::Relaxed) > 100
        });
        let mut took = Vec::new();
        while times.load(Ordering::Relaxed) < times_max && began.elapsed() < PATIENCE {
            took.extend(logins(cluster, &format!("during-{}", took.len())));
        }
        let flooded = began.elapsed();
        over.store(true, Ordering::Relaxed);
        (took, flooded)
    });
    (times.into_inner().min(times_max), flooded, took)
}

fn report(
    what: &str,
    quiet: Vec<Duration>,
    (times, flooded, took): (u64, Duration, Vec<Duration>),
) {
    let rate = times as f64 / flooded.as_secs_f64();
    let worst = took.iter().max().copied().unwrap_or_default();
    println!(
        "{what}: {times} in {flooded:?} ({rate:.0}/s); honest logins p50 {:?} quiet, {:?} \
         during, {worst:?} at worst",
        percentile(quiet, 50),
        percentile(took, 50),
    );
    assert!(worst < LOGIN_WITHIN, "{worst:?}");
}

const FLOODED: Settings = &[
    "limits.network_exempt=192.0.2.0/24",
    "limits.network_connections_max=64",
    "limits.network_connections_per_second=100",
    "limits.network_connections_burst=200",
];

#[test]
fn a_flood_of_connections_from_one_network_leaves_another_alone() {
    let cluster = Cluster::start(FLOODED, &[], &[]);
    let honest = Honest::start(&cluster);
    let quiet = logins(&cluster, "quiet");
    let held = std::sync::Mutex::new(Vec::new());
    let flood = during(&cluster, FLOOD, |at| {
        // Some keep what they get, so that the bound of open ones is reached too.
        if let Some(stream) = connect_from(&cluster, (at % 250) as u8 + 1)
            && at % 2 == 0
        {
            let mut held = held.lock().expect("no panic");
            if held.len() < 1_000 {
                held.push(stream);
            }
        }
    });
    let sent = flood.0;
    report("connections", quiet, flood);
    honest.round_trips(20);
    let metrics = cluster.metrics("gateway");
    let refused = metrics.closes(CloseReason::NetworkLimit);
    assert!(refused > 0, "of {sent}");
    let limited = |limit: &str| {
        metrics.value(&format!(
            "sallyport_gateway_limited_total{{limit=\"{limit}\"}}"
        ))
    };
    let (open, rate) = (limited("network_open"), limited("network_connections"));
    println!("{refused} refused: {open} too many open, {rate} too fast");
    assert_eq!(open + rate, refused);
    assert_eq!(metrics.value("sallyport_gateway_limits_forgotten_total"), 0);
    assert_eq!(metrics.closes(CloseReason::Full), 0);
    // Its places are free again when its connections are gone.
    drop(held);
    cluster.wait_metric("gateway", "sallyport_gateway_connections", |open| open == 1);
    honest.finish();
}

const GUESSED: Settings = &[
    "limits.network_exempt=192.0.2.0/24",
    "limits.network_handshakes_per_second=50",
    "limits.network_handshakes_burst=100",
    "limits.network_handshakes_penalty=drop",
    "limits.network_connections_per_second=100",
    "limits.network_connections_burst=200",
];

#[test]
fn guessed_tokens_leave_honest_logins_alone() {
    let cluster = Cluster::start(GUESSED, &[], &[]);
    let honest = Honest::start(&cluster);
    let quiet = logins(&cluster, "quiet");
    let guesses = AtomicU64::new(0);
    let flood = during(&cluster, FLOOD, |at| {
        let Some(stream) = connect_from(&cluster, (at % 250) as u8 + 1) else {
            return;
        };
        // A whole guess where it is let in: HELLO, and a token that is none.
        let mut raw = Raw::over(stream);
        if raw.try_greet(&cluster.gateway_key) {
            raw.send_login("v4.public.guess");
            guesses.fetch_add(1, Ordering::Relaxed);
        }
    });
    report("guesses", quiet, flood);
    honest.round_trips(20);
    let metrics = cluster.metrics("gateway");
    let refused = metrics.closes(CloseReason::NetworkLimit);
    let (guessed, bad) = (guesses.into_inner(), metrics.closes(CloseReason::BadToken));
    println!("{guessed} guesses had a handshake, {bad} were looked at, {refused} were refused");
    assert!(refused > 0 && bad > 0);
    honest.finish();
}

#[test]
fn a_network_has_one_bound_over_all_transports() {
    let cluster = Cluster::start(
        &[
            "limits.network_exempt=192.0.2.0/24",
            "limits.network_connections_max=3",
            "limits.network_connections_penalty=disconnect",
            "engine.shards=2",
        ],
        &[],
        &[],
    );
    let mut calm = Calm::before(&cluster);
    let mut tcp = Player::login(&cluster, "tcp");
    let udp = Player::login_udp(&cluster, "udp");
    let mut web = Raw::websocket(&cluster);
    web.greet(&cluster.gateway_key);
    web.login(&cluster.token("web"));
    // The fourth, on whichever shard.
    for _ in 0..4 {
        let mut raw = Raw::connect(&cluster);
        raw.expect_reject(CloseReason::NetworkLimit);
    }
    calm.closed(CloseReason::NetworkLimit, 4);
    let mut refused = Player::connect_udp(&cluster, "late", cluster.address());
    refused.wait("the refusal", |seen| seen.closed.is_some());
    calm.closed(CloseReason::NetworkLimit, 1);
    calm.check();
    tcp.round_trip(b"undisturbed");
    web.logout();
    calm.closed(CloseReason::LoggedOut, 1);
    cluster.wait_metric("gateway", "sallyport_gateway_connections", |open| open == 2);
    let last = Player::login(&cluster, "last");
    for player in [tcp, udp, last] {
        player.logout();
        calm.closed(CloseReason::LoggedOut, 1);
    }
    calm.tolerate(DropReason::AfterClose);
    calm.check();
}

#[test]
fn an_account_that_logs_in_too_often_is_told_and_others_are_not() {
    let cluster = Cluster::start(
        &[
            "limits.account_logins_per_minute=1",
            "limits.account_logins_burst=3",
        ],
        &[],
        &[],
    );
    let mut calm = Calm::before(&cluster);
    for _ in 0..3 {
        let raw = Raw::logged_in(&cluster, "often");
        raw.logout();
        calm.closed(CloseReason::LoggedOut, 1);
    }
    let mut raw = Raw::greeted(&cluster);
    raw.send_login(&cluster.token("often"));
    raw.expect_close(CloseReason::AccountLimit);
    calm.closed(CloseReason::AccountLimit, 1);
    let mut other = Raw::logged_in(&cluster, "seldom");
    other.round_trip(b"hello");
    other.logout();
    calm.closed(CloseReason::LoggedOut, 1);
    calm.check();
}
