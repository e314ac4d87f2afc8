//! How good a connection is, as the game's own client says, and a path that falls silent.

use std::time::{Duration, Instant};

use sallyport_client::{Event, Transport};

use super::{TRANSPORTS, ask, config, connect, until};
use crate::cluster::{Cluster, PATIENCE};
use crate::impair::Proxy;

#[tokio::test]
async fn it_knows_over_each_transport_how_far_the_gateway_is() {
    let cluster = Cluster::start(&["heartbeat.interval_ms=100"], &[], &[]);
    let proxy = Proxy::start(cluster.address(), &["--delay-ms", "20"]);
    for transport in TRANSPORTS {
        let config = config(&cluster, proxy.address, transport);
        let (client, _) = connect(&cluster, config, "ann").await;
        let client = client.expect("it gets in");
        let end = Instant::now() + PATIENCE;
        // The gateway's own figure comes a heartbeat later.
        while !client.quality().is_some_and(|quality| {
            quality.ours.round_trip_us >= 40_000 && quality.theirs.round_trip_us >= 40_000
        }) {
            let quality = client.quality();
            assert!(Instant::now() < end, "{transport:?}: {quality:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ask(&client, b"far").await;
        client.logout().await.expect("the gateway's word");
        assert_eq!(client.quality(), None);
    }
}

#[tokio::test]
async fn a_path_that_falls_silent_is_left_for_another() {
    let settings = &[
        "heartbeat.interval_ms=300",
        "heartbeat.idle_timeout_ms=1500",
    ];
    let cluster = Cluster::start(settings, &[], &[]);
    // Silent after 1.5 to 4.5 s, and cut when the test has long been over.
    let arguments = ["--cut-every", "3", "--cut-silent", "120"];
    let proxy = Proxy::start(cluster.address(), &arguments);
    let config = config(&cluster, proxy.address, Transport::WebSocket);
    let (client, logins) = connect(&cluster, config, "ann").await;
    let client = client.expect("it gets in");
    until(&client, "the silence", |event| {
        matches!(event, Event::Reconnecting { .. })
    })
    .await;
    until(&client, "the way back", |event| {
        matches!(event, Event::Resumed(_))
    })
    .await;
    ask(&client, b"here again").await;
    assert_eq!(logins.load(std::sync::atomic::Ordering::Relaxed), 1);
}
