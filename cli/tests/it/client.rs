//! The Rust client against real processes: over each transport, cut off, thrown out, refused.

mod cut;
mod quality;
mod queue;
mod refused;
mod side;

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sallyport_client::{
    Client, Config, Error, Event, GroupId, Lane, MessageId, SendError, Transport,
};

use crate::cluster::{self, Cluster, PATIENCE};
use crate::dev::dev;

#[path = "../../../clients/rust/examples/echo.rs"]
#[allow(dead_code)] // Its `main` is for a program.
mod example;

const GROUP: GroupId = cluster::GROUP;
const MESSAGE: MessageId = MessageId(7);
const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::WebSocket];
const CONNECTED: &str = "sallyport_game_connected_total";
const PARKED: &str = "sallyport_gateway_sessions_parked";

fn config(cluster: &Cluster, address: SocketAddr, transport: Transport) -> Config {
    let key = URL_SAFE_NO_PAD.encode(cluster.gateway_key);
    let mut config = Config::new(address.to_string(), &key).expect("a key");
    config.transport = transport;
    config.channel = String::from("tests");
    config
}

/// A client of this account, and how often it has asked for a token.
async fn connect(
    cluster: &Cluster,
    config: Config,
    account: &str,
) -> (Result<Client, Error>, Arc<AtomicU32>) {
    let logins = Arc::new(AtomicU32::new(0));
    let mut tokens = cluster.token_source(account);
    let counted = Arc::clone(&logins);
    let client = Client::connect(config, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        ready(Ok::<_, Infallible>(tokens()))
    });
    (client.await, logins)
}

/// One that gets in, with its group up.
async fn login(cluster: &Cluster, transport: Transport, account: &str) -> Client {
    let config = config(cluster, cluster.address(), transport);
    let (client, _) = connect(cluster, config, account).await;
    let client = client.expect("it gets in");
    until(&client, "the group", |event| {
        matches!(event, Event::GroupUp(_))
    })
    .await;
    client
}

async fn next(client: &Client, what: &str) -> Event {
    let event = tokio::time::timeout(PATIENCE, client.recv()).await;
    let event = event.unwrap_or_else(|_| panic!("not in time: {what}"));
    event.unwrap_or_else(|| panic!("it ended before: {what}"))
}

/// Receives until the event that is looked for; that.
async fn until(client: &Client, what: &str, mut is_it: impl FnMut(&Event) -> bool) -> Event {
    loop {
        let event = next(client, what).await;
        if is_it(&event) {
            return event;
        }
    }
}

/// Asks and is answered.
async fn ask(client: &Client, payload: &[u8]) {
    let reply = client.request(GROUP, MESSAGE, payload, PATIENCE);
    let reply = reply.expect("room").await.expect("a reply");
    assert_eq!(reply, payload);
}

#[tokio::test]
async fn a_game_is_played_over_each_transport_and_left() {
    let cluster = Cluster::start(&[], &[], &[]);
    for transport in TRANSPORTS {
        let client = login(&cluster, transport, "ann").await;
        assert!(client.is_connected() && client.session().is_some());
        let replies: Vec<_> = (0..200_u32)
            .map(|number| {
                let payload = number.to_le_bytes().repeat(1 + number as usize);
                let reply = client.request(GROUP, MESSAGE, &payload, PATIENCE);
                (payload, reply.expect("room"))
            })
            .collect();
        for (payload, reply) in replies {
            assert_eq!(reply.await.expect("a reply"), payload, "{transport:?}");
        }
        for (number, lane) in [Lane::Reliable, Lane::Unreliable, Lane::Sequenced]
            .into_iter()
            .enumerate()
        {
            client
                .send(GROUP, lane, MESSAGE, &[number as u8])
                .expect("taken");
            let event = next(&client, "an echo").await;
            let Event::Message(message) = event else {
                panic!("{event:?}");
            };
            assert_eq!((message.group, message.lane), (GROUP, lane));
            assert_eq!((message.id, message.request), (MESSAGE, None));
            assert_eq!(message.payload, [number as u8]);
        }
        client.logout().await.expect("the gateway's word");
        let last = next(&client, "the end").await;
        assert!(matches!(last, Event::Closed(Error::LoggedOut)), "{last:?}");
        assert!(client.recv().await.is_none() && client.recv().await.is_none());
        let refused = client.send(GROUP, Lane::Reliable, MESSAGE, b"");
        assert!(matches!(refused, Err(Error::NotTaken(_))), "{refused:?}");
        assert!(matches!(client.logout().await, Ok(())), "once is enough");
        cluster.wait_metric("game", "sallyport_game_sessions", |sessions| sessions == 0);
    }
    assert_eq!(cluster.metrics("game").value(CONNECTED), 3);
}

#[tokio::test]
async fn what_nobody_receives_waits_and_nothing_more_is_read() {
    // More than waits for the game and comes with one read; less than the game's outbox on top.
    const ALL: u32 = 1_500;
    let cluster = Cluster::start(&[], &[], &[]);
    for transport in [Transport::Tcp, Transport::WebSocket] {
        // An account each: what one has used up of its rate stays with it.
        let client = login(&cluster, transport, &format!("{transport:?}")).await;
        for number in 0..ALL {
            while let Err(error) =
                client.send(GROUP, Lane::Reliable, MESSAGE, &number.to_le_bytes())
            {
                let is_full = matches!(error, Error::NotTaken(SendError::OutboxFull));
                assert!(is_full, "{error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let behind = client.request(GROUP, MESSAGE, b"behind", Duration::from_millis(300));
        let unread = behind.expect("room").await;
        assert!(matches!(unread, Err(Error::NoReply)), "{unread:?}");
        for number in 0..ALL {
            let event = next(&client, "an echo").await;
            let Event::Message(message) = event else {
                panic!("{event:?}");
            };
            assert_eq!(message.payload, number.to_le_bytes(), "{transport:?}");
        }
        ask(&client, b"here").await;
        client.logout().await.expect("the gateway's word");
    }
}

#[tokio::test]
async fn a_handle_that_is_dropped_takes_its_connection_along() {
    let cluster = Cluster::start(&[], &[], &[]);
    let client = login(&cluster, Transport::Tcp, "ann").await;
    ask(&client, b"here").await;
    let waiting = client
        .request(GROUP, MESSAGE, b"never answered", PATIENCE)
        .expect("room");
    drop(client);
    assert!(matches!(waiting.await, Err(Error::SessionLost)));
    // The session stays for its time.
    tokio::task::yield_now().await;
    cluster.wait_metric("gateway", PARKED, |parked| parked == 1);
    cluster.wait_metric("gateway", "sallyport_gateway_connections", |open| open == 0);
}

#[tokio::test]
async fn the_example_runs_against_dev() {
    let (_process, words, _) = dev(&[]);
    for transport in ["tcp", "udp", "ws"] {
        let mut words = words[1..].to_vec();
        words.extend(["--transport", transport].map(String::from));
        let events = example::play(&words).await.expect("it plays");
        let echoes = events
            .iter()
            .filter(|event| matches!(event, Event::Message(_)));
        assert_eq!(echoes.count(), 5);
    }
}
