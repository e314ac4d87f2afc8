//! Thousands of strangers who begin TLS, and what they cost.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use protocol::reason::CloseReason;

use crate::cluster::metrics::Calm;
use crate::cluster::player::Honest;
use crate::cluster::raw::{Raw, TLS13};
use crate::cluster::{Cluster, PATIENCE, Settings};

const SETTINGS: Settings = &[
    "listen.tls_cert_file=gateway.pem",
    "listen.tls_key_file=gateway-tls.key",
    "limits.handshake_timeout_ms=15000",
    "limits.login_timeout_ms=15000",
    "limits.connections_before_login_max=4000",
];

/// Strangers at once: enough that what each costs shows beside the pages of pools.
const COUNT: usize = 2_000;

/// What one may cost in user memory, bytes, half-way through a handshake and behind it: rustls'
/// session, and what it keeps of the other end.
const MEMORY_EACH_BYTES: u64 = 8_192;

/// Pools, the ring's receive buffers, pages of the allocator.
const KEPT_BYTES: u64 = 16 << 20;

/// Half-way: the gateway has answered a ClientHello, and waits.
fn half_open(cluster: &Cluster, hello: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(hello).expect("it is taken");
    stream.read_exact(&mut [0; 100]).expect("its flight");
    stream
}

/// Lets a crowd be there and go; what each cost the gateway.
fn cost<T>(cluster: &Cluster, calm: &mut Calm<'_>, crowd: impl Fn() -> T) -> u64 {
    let before_bytes = cluster.gateway.rss_bytes();
    let crowd: Vec<T> = (0..COUNT).map(|_| crowd()).collect();
    let bytes = cluster.gateway.rss_bytes().saturating_sub(before_bytes);
    drop(crowd);
    calm.closed(CloseReason::PeerClosed, COUNT as u64);
    calm.check();
    bytes / COUNT as u64
}

#[test]
fn strangers_over_tls_cost_little_half_way_and_behind_it() {
    let cluster = Cluster::start(SETTINGS, &[], &[]);
    let honest = Honest::start(&cluster);
    honest.round_trips(50);
    let mut calm = Calm::before(&cluster);
    // The same for all: nobody has to finish it.
    let (_, hello) = Raw::client_hello(&TLS13);
    // The first crowd grows the pools.
    for is_judged in [false, true] {
        let half = cost(&cluster, &mut calm, || half_open(&cluster, &hello));
        println!("{half} bytes each half-way");
        assert!(!is_judged || half <= MEMORY_EACH_BYTES, "{half}");
    }
    let open = cost(&cluster, &mut calm, || Raw::tls(&cluster, &TLS13));
    println!("{open} bytes each behind the handshake");
    assert!(open <= MEMORY_EACH_BYTES, "{open}");
    honest.round_trips(50);
    calm.over_within(KEPT_BYTES);
    honest.finish();
}
