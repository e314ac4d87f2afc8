//! Datagrams beside a connection over a stream: where they get through, where they do not, and
//! after a connection was lost.

use std::net::UdpSocket;
use std::time::Duration;

use sallyport_client::{Client, Event, Lane, Transport};

use super::{GROUP, MESSAGE, ask, config, connect, login, next, until};
use crate::cluster::{Cluster, PATIENCE};
use crate::impair::Proxy;

const OPENED: &str = "sallyport_gateway_side_paths_total";
const RECEIVED: &str = "sallyport_gateway_side_messages_received_total";
const SENT: &str = "sallyport_gateway_side_messages_sent_total";
const STREAMS: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

/// Sends a message that may get lost until one comes back.
async fn echo(client: &Client, lane: Lane, number: u32) {
    let payload = number.to_le_bytes();
    for _ in 0..50 {
        client.send(GROUP, lane, MESSAGE, &payload).expect("taken");
        let answer = async {
            let what = "an echo";
            until(client, what, |event| {
                matches!(event, Event::Message(message)
                    if message.lane == lane && message.payload == payload)
            })
            .await;
        };
        if tokio::time::timeout(PATIENCE / 50, answer).await.is_ok() {
            return;
        }
    }
    panic!("no message came back on {lane:?}");
}

/// Waits until the path carries.
async fn until_up(client: &Client) {
    let is_up = async {
        while !client.is_side_path_up() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, is_up).await;
    waited.expect("datagrams get through");
}

#[tokio::test]
async fn where_datagrams_get_through_the_unreliable_lanes_take_them() {
    let cluster = Cluster::start(&[], &[], &[]);
    for (count, transport) in (1..).zip(STREAMS) {
        let proxy = Proxy::start(cluster.address(), &["--delay-ms", "2"]);
        let config = config(&cluster, proxy.address, transport);
        let (client, _) = connect(&cluster, config, "ann").await;
        let client = client.expect("it gets in");
        until(&client, "the group", |event| {
            matches!(event, Event::GroupUp(_))
        })
        .await;
        until_up(&client).await;
        let before = cluster.metrics("gateway").value(RECEIVED);
        for number in 0..10 {
            let lanes = [Lane::Unreliable, Lane::Sequenced];
            echo(&client, lanes[number as usize % 2], number).await;
        }
        ask(&client, b"the reliable lane stays where it is").await;
        let metrics = cluster.metrics("gateway");
        assert!(metrics.value(RECEIVED) >= before + 10, "{transport:?}");
        assert!(metrics.value(SENT) > 0, "{transport:?}");
        assert_eq!(metrics.value(OPENED), count, "{transport:?}");
        client.logout().await.expect("the gateway's word");
    }
}

#[tokio::test]
async fn where_udp_is_blocked_nobody_notices() {
    let cluster = Cluster::start(&[], &[], &[]);
    for transport in STREAMS {
        let proxy = Proxy::start(cluster.address(), &["--protocol", "tcp"]);
        // Takes all datagrams and answers none, as a firewall does.
        let firewall = UdpSocket::bind(proxy.address).expect("the proxy has the TCP port only");
        firewall.set_nonblocking(true).expect("a socket");
        let config = config(&cluster, proxy.address, transport);
        let (client, _) = connect(&cluster, config, "ann").await;
        let client = client.expect("it gets in");
        until(&client, "the group", |event| {
            matches!(event, Event::GroupUp(_))
        })
        .await;
        for number in 0..10_u8 {
            for lane in [Lane::Unreliable, Lane::Sequenced] {
                client.send(GROUP, lane, MESSAGE, &[number]).expect("taken");
                // Over the stream nothing is lost.
                let Event::Message(message) = next(&client, "an echo").await else {
                    panic!("something happened");
                };
                assert_eq!((message.lane, message.payload), (lane, vec![number]));
            }
        }
        assert!(!client.is_side_path_up());
        let mut datagram = [0; 2_048];
        let asked = firewall.recv(&mut datagram).expect("it has asked");
        assert_eq!(asked, 1_200, "padded");
        client.logout().await.expect("the gateway's word");
    }
    let metrics = cluster.metrics("gateway");
    assert_eq!(
        (metrics.value(RECEIVED), metrics.value(SENT)),
        (0, 0),
        "no datagram came"
    );
}

#[tokio::test]
async fn a_port_that_refuses_datagrams_costs_nothing_but_them() {
    let cluster = Cluster::start(&[], &[], &[]);
    let proxy = Proxy::start(cluster.address(), &["--protocol", "tcp"]);
    let config = config(&cluster, proxy.address, Transport::Tcp);
    let (client, _) = connect(&cluster, config, "ann").await;
    let client = client.expect("it gets in");
    until(&client, "the group", |event| {
        matches!(event, Event::GroupUp(_))
    })
    .await;
    for number in 0..10 {
        echo(&client, Lane::Sequenced, number).await;
    }
    assert!(!client.is_side_path_up() && client.is_connected());
    client.logout().await.expect("the gateway's word");
}

#[tokio::test]
async fn who_comes_back_asks_anew() {
    let cluster = Cluster::start(&[], &[], &[]);
    for transport in STREAMS {
        let arguments = ["--cut-every", "0.4"];
        let proxy = Proxy::start(cluster.address(), &arguments);
        let before = cluster.metrics("gateway").value(OPENED);
        let config = config(&cluster, proxy.address, transport);
        let (client, _) = connect(&cluster, config, "ann").await;
        let client = client.expect("it gets in");
        until_up(&client).await;
        for _ in 0..2 {
            until(&client, "the way back", |event| {
                matches!(event, Event::Resumed(_))
            })
            .await;
            until_up(&client).await;
        }
        let opened = cluster.metrics("gateway").value(OPENED) - before;
        assert!(opened >= 3, "{opened}");
        let _ = client.logout().await;
    }
}

#[tokio::test]
async fn a_game_that_does_not_want_datagrams_has_none() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut config = config(&cluster, cluster.address(), Transport::Tcp);
    config.side_path = false;
    let (client, _) = connect(&cluster, config, "ann").await;
    let client = client.expect("it gets in");
    until(&client, "the group", |event| {
        matches!(event, Event::GroupUp(_))
    })
    .await;
    echo(&client, Lane::Unreliable, 1).await;
    assert_eq!(cluster.metrics("gateway").value(OPENED), 0);
    let over_udp = login(&cluster, Transport::Udp, "bob").await;
    echo(&over_udp, Lane::Unreliable, 1).await;
    assert_eq!(cluster.metrics("gateway").value(OPENED), 0);
}
