//! Connections that are lost, sessions that are lost, backends that go.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sallyport_client::{Client, Error, Event, Lane, Reply, SendError, SessionId, Transport};

use super::{GROUP, MESSAGE, TRANSPORTS, ask, config, connect, login, next, until};
use crate::cluster::{Cluster, PATIENCE, Settings};
use crate::impair::Proxy;

/// Sends requests and messages until it has come back so often; every answer is exact.
async fn play_through(client: &Client, resumes: u32) {
    let (mut resumed, mut sent, mut echoed) = (0, 0_u32, 0_u32);
    while resumed < resumes || echoed < sent {
        if resumed < resumes && sent - echoed < 32 {
            for _ in 0..8 {
                let taken = client.send(GROUP, Lane::Reliable, MESSAGE, &sent.to_le_bytes());
                taken.expect("room in the outbox");
                sent += 1;
            }
        }
        ask(client, &sent.to_le_bytes()).await;
        // What came before the reply is here.
        while echoed < sent {
            match next(client, "an echo").await {
                Event::Message(message) => {
                    assert_eq!(message.payload, echoed.to_le_bytes(), "each once, in order");
                    echoed += 1;
                }
                Event::Resumed(session) => {
                    assert_eq!(Some(session), client.session());
                    resumed += 1;
                }
                Event::NewSession(_) | Event::Closed(_) => panic!("the session is lost"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_is_cut_again_and_again_misses_nothing() {
    let cluster = Cluster::start(&[], &[], &[]);
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let arguments = ["--protocol", "tcp", "--delay-ms", "3", "--cut-every", "0.2"];
        let proxy = Proxy::start(cluster.address(), &arguments);
        let config = config(&cluster, proxy.address, transport);
        let (client, logins) = connect(&cluster, config, "ann").await;
        let client = client.expect("it gets in");
        play_through(&client, 5).await;
        assert_eq!(logins.load(Ordering::Relaxed), 1, "tickets lead back");
        // Between two cuts there may be no time for it.
        let _ = client.logout().await;
    }
}

/// Clients of a gateway that is killed under them and started again, each with a request that
/// waits meanwhile.
async fn outlive_gateway(
    gateway: Settings,
    before_it_is_back: impl Fn(&Cluster),
    check: impl AsyncFn(&Client, Event, Outlived),
) {
    let mut cluster = Cluster::start(gateway, &["lease_ms=1000"], &[]);
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        let client = login(&cluster, transport, &format!("{transport:?}")).await;
        ask(&client, b"before").await;
        let session = client.session();
        clients.push((client, session));
    }
    cluster.gateway.kill();
    let mut outlived = Vec::new();
    for (client, session) in &clients {
        let event = next(client, "the loss").await;
        assert!(
            matches!(event, Event::Reconnecting { attempt: 1, .. }),
            "{event:?}"
        );
        assert!(!client.is_connected() && client.session().is_some());
        let reply = client.request(GROUP, MESSAGE, b"into the void", PATIENCE);
        outlived.push(Outlived {
            session: *session,
            reply: reply.expect("it waits in the outbox"),
        });
    }
    before_it_is_back(&cluster);
    cluster.gateway.start();
    cluster.wait_ready();
    for ((client, _), outlived) in clients.iter().zip(outlived) {
        let event = until(client, "the way back", |event| {
            matches!(event, Event::NewSession(_) | Event::Resumed(_))
        });
        check(client, event.await, outlived).await;
        ask(client, b"after").await;
    }
    for (client, _) in clients {
        client.logout().await.expect("the gateway's word");
    }
}

/// What a client had before.
struct Outlived {
    session: Option<SessionId>,
    reply: Reply,
}

#[tokio::test]
async fn a_gateway_that_was_killed_costs_nobody_the_session() {
    let at_once = |_: &Cluster| {};
    outlive_gateway(&[], at_once, async |client, event, outlived| {
        assert!(matches!(event, Event::Resumed(_)), "{event:?}");
        assert_eq!(client.session(), outlived.session);
        let reply = outlived.reply.await.expect("it was sent again");
        assert_eq!(reply, b"into the void");
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_keeps_no_session_brings_a_new_one() {
    let when_they_ended = |cluster: &Cluster| {
        cluster.wait_metric("center", "sallyport_center_sessions", |left| left == 0);
    };
    let settings = &["resume.time_ms=0"];
    outlive_gateway(
        settings,
        when_they_ended,
        async |client, event, outlived| {
            assert!(matches!(event, Event::NewSession(_)), "{event:?}");
            assert!(client.session().is_some() && client.session() != outlived.session);
            assert!(matches!(outlived.reply.await, Err(Error::SessionLost)));
        },
    )
    .await;
}

#[tokio::test]
async fn what_does_not_fit_while_the_backend_is_away_is_refused_and_the_rest_arrives() {
    let mut cluster = Cluster::start(&[], &[], &[]);
    let client = login(&cluster, Transport::Tcp, "ann").await;
    ask(&client, b"before").await;
    cluster.game.kill();
    cluster.wait_metric("gateway", "sallyport_gateway_uplinks_up", |up| up == 1);
    // One request whose time runs out, and as many messages as fit beside it.
    let late = client.request(GROUP, MESSAGE, b"late", Duration::from_millis(50));
    assert!(matches!(late.expect("room").await, Err(Error::NoReply)));
    let event = next(&client, "the loss of the backend").await;
    assert!(matches!(event, Event::GroupDown(GROUP)), "{event:?}");
    let lost = client.send(GROUP, Lane::Unreliable, MESSAGE, b"lost");
    assert!(matches!(lost, Err(Error::NotTaken(SendError::NotUp))));
    let mut sent = 0_u32;
    let refused = loop {
        match client.send(GROUP, Lane::Reliable, MESSAGE, &sent.to_le_bytes()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, Error::NotTaken(SendError::OutboxFull)),
        "{refused}"
    );
    assert!(sent >= 1_000, "{sent}");
    cluster.game.start();
    until(&client, "the backend", |event| {
        matches!(event, Event::GroupUp(GROUP))
    })
    .await;
    for expected in 0..sent {
        let event = next(&client, "an echo").await;
        let Event::Message(message) = event else {
            panic!("{event:?}");
        };
        assert_eq!(message.payload, expected.to_le_bytes());
    }
    ask(&client, b"after").await;
    client.logout().await.expect("the gateway's word");
}
