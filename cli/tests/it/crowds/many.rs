//! Thousands of connections that never get as far as a login.

use std::time::Duration;

use protocol::reason::CloseReason;

use super::child::{Crowd, Gone};
use crate::cluster::metrics::Calm;
use crate::cluster::player::{Honest, percentile};
use crate::cluster::{Cluster, Settings};

/// The deadline of a handshake while sockets drip, as by default; while they are
/// silent it is longer, so that the first of so many are still there when the
/// last ones come, on a busy machine too.
const DRIPPING_TIMEOUT: Duration = Duration::from_secs(5);
const SILENT_TIMEOUT: Duration = Duration::from_secs(8);

/// How much later the last one may be gone.
const LATE: Duration = Duration::from_secs(1);

/// Room for the crowds beside the honest one, which may hurry.
const DRIPPING: Settings = &[
    "limits.handshake_timeout_ms=5000",
    "limits.connections_before_login_max=5100",
    "limits.frames_per_second=0",
];
const SILENT: Settings = &[
    "limits.handshake_timeout_ms=8000",
    "limits.connections_before_login_max=16000",
];

/// What a connection that has not logged in may cost the gateway in user
/// memory, bytes, and what the whole may be off by: pools and the allocator's
/// pages, once for all.
const MEMORY_EACH_BYTES: u64 = 1_024;
const MEMORY_SLACK_BYTES: u64 = 4 << 20;

/// Time between two round trips of the honest one, so short that a percentile is
/// more than the few that met the coming or the going of the crowd.
const PAUSE: Duration = Duration::from_millis(3);

/// What the gateway may keep of a crowd, for the next one: pools and tables that
/// have grown, and the ring's receive buffers, all of which it has used now.
const KEPT_BYTES: u64 = 16 << 20;

/// Honest round trips that are measured before.
const QUIET: usize = 500;

/// Below this a percentile says more about the machine than about the gateway.
const NOISE: Duration = Duration::from_millis(20);

/// Crowds that are tried for a good percentile: what else runs on the machine
/// makes it worse, never better.
const ATTEMPTS: usize = 3;

/// Lets a crowd live its life, and returns how it ended and the most memory
/// that the gateway had meanwhile.
fn live(cluster: &Cluster, count: usize, period: Duration) -> (Gone, u64) {
    let crowd = Crowd::connect(cluster, count, period);
    let gateway = &cluster.gateway;
    // All of them and the honest one.
    cluster.wait_metric("gateway", "sallyport_gateway_connections", |open| {
        open == count as u64 + 1
    });
    let mut rss_bytes = gateway.rss_bytes();
    loop {
        rss_bytes = rss_bytes.max(gateway.rss_bytes());
        if let Some(gone) = crowd.poll_gone(Duration::from_millis(20)) {
            return (gone, rss_bytes);
        }
    }
}

/// All were gone when their time was up, neither sooner nor much later.
fn check_gone(gone: &Gone, count: usize, deadline: Duration) {
    assert_eq!(gone.count, count);
    assert!(gone.first >= deadline - LATE, "{:?}", gone.first);
    assert!(gone.last <= deadline + LATE, "{:?}", gone.last);
}

#[test]
fn five_thousand_dripping_sockets_are_gone_and_nobody_waits_for_them() {
    const COUNT: usize = 5_000;
    let cluster = Cluster::start_alone(DRIPPING);
    let honest = Honest::with_pause(&cluster, PAUSE);
    let mut calm = Calm::before(&cluster);
    let mut measured = Vec::new();
    for _ in 0..ATTEMPTS {
        let quiet = percentile(honest.round_trips(QUIET), 99);
        let (gone, _) = live(&cluster, COUNT, Duration::from_secs(1));
        let latencies = honest.take_latencies();
        let round_trips = latencies.len();
        let dripping = percentile(latencies, 99);
        println!("p99 {quiet:?} in quiet, {dripping:?} of {round_trips} while they drip");
        check_gone(&gone, COUNT, DRIPPING_TIMEOUT);
        assert!(round_trips > QUIET, "{round_trips} round trips meanwhile");
        calm.closed(CloseReason::HandshakeTimeout, COUNT as u64);
        calm.check();
        measured.push((quiet, dripping));
        if dripping <= NOISE.max(quiet * 2) {
            calm.over_within(KEPT_BYTES);
            honest.finish();
            return;
        }
    }
    panic!("the honest one had to wait each time: {measured:?}");
}

#[test]
fn fifteen_thousand_silent_connections_cost_little_and_leave_nothing() {
    const COUNT: usize = 15_000;
    let cluster = Cluster::start_alone(SILENT);
    let honest = Honest::start(&cluster);
    honest.round_trips(50);
    let mut calm = Calm::before(&cluster);
    let gateway = &cluster.gateway;
    let before_bytes = gateway.rss_bytes();
    let allowed_bytes = before_bytes + COUNT as u64 * MEMORY_EACH_BYTES + MEMORY_SLACK_BYTES;
    // Twice: what the first one left behind would show in the second.
    for wave in 0..2 {
        let (gone, rss_bytes) = live(&cluster, COUNT, Duration::ZERO);
        println!(
            "wave {wave}: {before_bytes} bytes before, {rss_bytes} with {COUNT}, {} a connection; \
             gone after {:?} to {:?}",
            rss_bytes.saturating_sub(before_bytes) / COUNT as u64,
            gone.first,
            gone.last
        );
        check_gone(&gone, COUNT, SILENT_TIMEOUT);
        assert!(rss_bytes <= allowed_bytes, "{rss_bytes} > {allowed_bytes}");
        calm.closed(CloseReason::HandshakeTimeout, COUNT as u64);
        calm.check();
    }
    assert!(honest.take_latencies().len() > 100, "it went on");
    calm.over_within(KEPT_BYTES);
    honest.finish();
}
