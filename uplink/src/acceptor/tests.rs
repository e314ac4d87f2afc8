//! Peers with a right key and wrong manners.

use std::future::poll_fn;

use quinn::Connection;

use super::*;

async fn acceptor_and_peer() -> (Acceptor, Connection, Endpoint) {
    let (backend, gateway) = (Identity::from_seed([2; 32]), Identity::from_seed([1; 32]));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut acceptor = Acceptor::bind(address, &backend, &[gateway.public_key()]).unwrap();
    let (config, _pin) = tls::client_config(&gateway, backend.public_key());
    let endpoint = endpoint::client_endpoint().unwrap();
    let address = acceptor.local_address().unwrap();
    let mut connecting = endpoint.connect_with(config, address, "x").unwrap();
    let connection = poll_fn(|cx| {
        assert!(acceptor.poll_link(cx).is_pending());
        Pin::new(&mut connecting).poll(cx)
    })
    .await
    .unwrap();
    (acceptor, connection, endpoint)
}

/// Polls until every attempt has been decided.
async fn decide(acceptor: &mut Acceptor) -> AcceptorCounters {
    poll_fn(|cx| {
        assert!(acceptor.poll_link(cx).is_pending());
        match acceptor.handshakes.is_empty() {
            true => Poll::Ready(acceptor.counters()),
            false => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn wrong_stream_indices_are_refused() {
    for indices in [[0, 1, 2, 3, 5], [0, 1, 2, 3, 3]] {
        let (mut acceptor, connection, _endpoint) = acceptor_and_peer().await;
        let mut streams = Vec::new();
        for index in indices {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            send.write_all(&[index]).await.unwrap();
            streams.push((send, receive));
        }
        let counters = decide(&mut acceptor).await;
        assert_eq!((counters.bad_greetings, counters.links), (1, 0));
        assert_eq!(acceptor.slots.available_permits(), LINKS_MAX);
    }
}

#[tokio::test]
async fn a_peer_that_opens_nothing_is_dropped_at_the_deadline() {
    let (mut acceptor, connection, _endpoint) = acceptor_and_peer().await;
    let counters = decide(&mut acceptor).await;
    assert_eq!((counters.deadlines, counters.links), (1, 0));
    assert_eq!(acceptor.slots.available_permits(), LINKS_MAX);
    connection.closed().await;
}

#[tokio::test]
async fn a_full_backend_refuses_at_once() {
    let (backend, gateway) = (Identity::from_seed([2; 32]), Identity::from_seed([1; 32]));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut acceptor = Acceptor::bind(address, &backend, &[gateway.public_key()]).unwrap();
    acceptor.slots.forget_permits(LINKS_MAX);
    let target = crate::DialTarget {
        address: acceptor.local_address().unwrap(),
        key: backend.public_key(),
    };
    let endpoint = endpoint::client_endpoint().unwrap();
    let mut dialer = crate::Dialer::new(endpoint, &gateway, target, 1);
    let event = poll_fn(|cx| {
        assert!(acceptor.poll_link(cx).is_pending());
        dialer.poll_link(cx)
    })
    .await;
    assert!(
        matches!(
            &event,
            crate::Event::Failed {
                error: crate::DialError::Full { .. },
                ..
            }
        ),
        "{event:?}"
    );
    assert_eq!(acceptor.counters().full, 1);
}
