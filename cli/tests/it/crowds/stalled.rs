//! Clients that make others send to them and do not read.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use protocol::body::{Body, Lane, MessageKind};
use protocol::reason::{CloseReason, DropReason};
use socket2::{Domain, Socket, Type};

use crate::cluster::metrics::Calm;
use crate::cluster::player::{Honest, percentile};
use crate::cluster::raw::{Raw, message};
use crate::cluster::{Cluster, PATIENCE, Settings};

/// How many of them at once.
const STALLED: usize = 20;

/// Bytes of each message: LZ4 can't shrink them.
const PAYLOAD_BYTES: usize = 16_384;

/// No rate stands in the way of what these tests are about, and little may wait
/// for the game, so that what is seen is what waits for the clients.
const SETTINGS: Settings = &[
    "limits.frames_per_second=0",
    "limits.bytes_per_second=0",
    "limits.uplink_queue_bytes=65536",
];

/// Memory that a stalled client may cost the gateway: its queue, in buffers that
/// grow by doubling, one being sent and one being filled.
const MEMORY_EACH_BYTES: u64 = 4 * 65_536;

/// The rest, however many they are: what one turn takes in (4 MiB) and copies on
/// its way, and QUIC's windows in both directions (5 MiB each). Up to 40 MB were
/// seen.
const MEMORY_SLACK_BYTES: u64 = 64 << 20;

/// What of that may stay, be it the first flood or the second: buffers that grew,
/// the ring's receive buffers, and pages of the allocator.
const MEMORY_KEPT_BYTES: u64 = 32 << 20;

/// A client with room for little in its socket.
fn narrow(cluster: &Cluster, account: &str) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8_192).expect("a socket");
    socket
        .connect(&cluster.address().into())
        .expect("the gateway accepts");
    let mut raw = Raw::over(TcpStream::from(socket));
    raw.greet(&cluster.gateway_key);
    raw.login(&cluster.token(account));
    raw
}

/// Bytes that do not compress.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    (0..PAYLOAD_BYTES)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

/// Sends until the gateway has closed the connection; whether it has.
fn send_all(raw: &mut Raw, frame: &[u8]) -> bool {
    match raw.stream.write_all(frame) {
        Ok(()) => true,
        Err(error) => {
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                "{error}"
            );
            false
        }
    }
}

/// Lets all of them send request after request, each acknowledging what is `lag`
/// behind, until the gateway has closed them all. The most memory that it had.
fn flood(cluster: &Cluster, raws: &mut Vec<Raw>, lag: Option<u32>) -> u64 {
    let noise = noise();
    let end = Instant::now() + PATIENCE;
    let mut rss_bytes = 0;
    let mut number = 0;
    while !raws.is_empty() {
        assert!(Instant::now() < end, "{} still send", raws.len());
        number += 1;
        let ack = lag.map_or(0, |lag| number - number.min(lag));
        let body = message(MessageKind::Request, Lane::Reliable, number, ack, &noise);
        raws.retain_mut(|raw| {
            let frame = raw.seal(0, &body);
            send_all(raw, &frame)
        });
        rss_bytes = rss_bytes.max(cluster.gateway.rss_bytes());
    }
    rss_bytes
}

#[test]
fn clients_that_do_not_read_are_closed_before_they_cost_much() {
    let cluster = Cluster::start(SETTINGS, &[], &[]);
    let honest = Honest::start(&cluster);
    let mut calm = Calm::before(&cluster);
    let held = cluster.gateway.holdings();
    let before_bytes = held.rss_bytes;
    let allowed_bytes = before_bytes + STALLED as u64 * MEMORY_EACH_BYTES + MEMORY_SLACK_BYTES;
    // What they still send, and what is on its way to them, meets nobody.
    calm.tolerate(DropReason::AfterClose);
    calm.tolerate(DropReason::SessionGone);
    calm.tolerate(DropReason::SessionAway);
    // They acknowledge what they never read, so that the game goes on sending.
    for wave in 0..2 {
        let mut raws: Vec<_> = (0..STALLED)
            .map(|index| narrow(&cluster, &format!("stalled-{wave}-{index}")))
            .collect();
        let rss_bytes = flood(&cluster, &mut raws, Some(8));
        println!("{before_bytes} bytes before, {rss_bytes} at most");
        assert!(rss_bytes <= allowed_bytes, "{rss_bytes} > {allowed_bytes}");
        calm.closed(CloseReason::SlowConsumer, STALLED as u64);
        calm.check();
        cluster.gateway.wait_back_within(held, MEMORY_KEPT_BYTES);
    }
    honest.round_trips(20);

    // These acknowledge nothing: the game ends it, and says so.
    let mut raws = vec![narrow(&cluster, "forgetful")];
    flood(&cluster, &mut raws, None);
    calm.closed(CloseReason::OutboxOverflow, 1);
    calm.check();
    let game = cluster.metrics("game");
    assert_eq!(
        game.value("sallyport_game_kicks_total{reason=\"outbox_overflow\"}"),
        1
    );
    let worst = honest.round_trips(20).into_iter().max();
    assert!(worst < Some(Duration::from_secs(1)), "{worst:?}");
    cluster.gateway.wait_back_within(held, MEMORY_KEPT_BYTES);
    honest.finish();
}

#[test]
fn what_may_be_lost_is_lost_and_counted_until_the_client_reads_again() {
    let cluster = Cluster::start(SETTINGS, &[], &[]);
    let honest = Honest::start(&cluster);
    let mut calm = Calm::before(&cluster);
    let mut raw = narrow(&cluster, "dozing");
    let metrics = || cluster.metrics("gateway");
    let unread = || metrics().drops(DropReason::SendQueueFull);
    // It has heard of no credit, and the game is slower than it is.
    let untaken = || metrics().drops(DropReason::UplinkFull);
    let lost = || unread() + untaken();
    let body = message(MessageKind::Message, Lane::Unreliable, 0, 0, &noise());
    let end = Instant::now() + PATIENCE;
    let mut sent = 0;
    while unread() == 0 {
        assert!(Instant::now() < end, "nothing lost of {sent}");
        for _ in 0..20 {
            let frame = raw.seal(0, &body);
            raw.send(&frame);
            sent += 1;
        }
    }
    honest.round_trips(20);
    // It wakes up: what it gets and what was counted are all that it sent.
    raw.stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a socket");
    let mut received = 0;
    while received + lost() < sent {
        assert!(Instant::now() < end, "{received} received of {sent}");
        while raw.stream.peek(&mut [0]).is_ok() {
            raw.stream
                .set_read_timeout(Some(PATIENCE))
                .expect("a socket");
            let (_, body) = raw.next_body().expect("a frame");
            received += u64::from(matches!(Body::decode(&body), Ok(Body::Message { .. })));
            raw.stream
                .set_read_timeout(Some(Duration::from_millis(50)))
                .expect("a socket");
        }
    }
    raw.stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket");
    raw.round_trip(b"awake");
    assert_eq!(received + lost(), sent);
    calm.dropped(DropReason::SendQueueFull, unread());
    calm.dropped(DropReason::UplinkFull, untaken());
    calm.check();
    raw.logout();
    calm.closed(CloseReason::LoggedOut, 1);
    calm.check();
    honest.finish();
}

/// Clients in the crowd that reads nothing.
const THOUSAND: usize = 1_000;

/// What may wait for one of them.
const QUEUE_BYTES: u64 = 65_536;

const NARROW: Settings = &[
    "limits.frames_per_second=0",
    "limits.bytes_per_second=0",
    "limits.send_queue_bytes=65536",
    "limits.sessions_max=4000",
];

#[test]
fn a_thousand_that_do_not_read_cost_their_queues_and_nobody_else() {
    let cluster = Cluster::start(NARROW, &[], &[]);
    let honest = Honest::start(&cluster);
    let mut calm = Calm::before(&cluster);
    let mut raws: Vec<_> = (0..THOUSAND)
        .map(|index| narrow(&cluster, &format!("stalled-{index}")))
        .collect();
    let before_bytes = cluster.gateway.rss_bytes();
    let lost = || cluster.metrics("gateway").drops(DropReason::SendQueueFull);
    let body = message(MessageKind::Message, Lane::Unreliable, 0, 0, &noise());
    honest.take_latencies();
    let end = Instant::now() + PATIENCE;
    let (mut sent, mut rss_bytes) = (0, 0);
    let mut honest_latencies = Vec::new();
    // Until for most of them there is no room any more.
    while lost() < THOUSAND as u64 {
        assert!(Instant::now() < end, "{} lost of {sent}", lost());
        for raw in &mut raws {
            let frame = raw.seal(0, &body);
            raw.send(&frame);
            sent += 1;
        }
        // No faster than the game sends it back, so that it is the clients who are too slow.
        honest_latencies.extend(honest.round_trips(1));
        rss_bytes = rss_bytes.max(cluster.gateway.rss_bytes());
    }
    let latencies = honest_latencies;
    let (count, p99) = (latencies.len(), percentile(latencies, 99));
    println!(
        "{sent} sent, {before_bytes} bytes before, {rss_bytes} at most; p99 {p99:?} of {count}"
    );
    let allowed_bytes = before_bytes + THOUSAND as u64 * QUEUE_BYTES + MEMORY_SLACK_BYTES;
    assert!(rss_bytes <= allowed_bytes, "{rss_bytes} > {allowed_bytes}");
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
    drop(raws);
    cluster.wait_metric("gateway", "sallyport_gateway_sessions", |sessions| {
        sessions == 1
    });
    calm.tolerate(DropReason::SendQueueFull);
    calm.tolerate(DropReason::UplinkFull);
    calm.tolerate(DropReason::SessionAway);
    calm.closed(CloseReason::PeerClosed, THOUSAND as u64);
    calm.check();
    honest.finish();
}
