//! What a dialer says when it gets no link, and what the acceptor counts.

use std::future::poll_fn;
use std::net::UdpSocket;
use std::task::Poll;

use uplink::{Acceptor, DialError, Dialer, Event, Identity};

use crate::harness::{
    Numbers, acceptor, backend_identity, dialer, gateway_identity, join, loopback, within,
};

/// The dialer's next event, while the acceptor does its part.
async fn next_event(dialer: &mut Dialer, acceptor: &mut Acceptor) -> Event {
    within(poll_fn(|cx| {
        let _ = acceptor.poll_link(cx);
        dialer.poll_link(cx)
    }))
    .await
}

async fn next_error(dialer: &mut Dialer, acceptor: &mut Acceptor) -> DialError {
    match next_event(dialer, acceptor).await {
        Event::Failed { error, .. } => error,
        Event::Up(link) => panic!("{link:?}"),
    }
}

#[tokio::test]
async fn a_backend_with_another_key_is_refused_and_both_keys_are_named() {
    let mut acceptor = acceptor();
    let address = acceptor.local_address().unwrap();
    let expected = Identity::from_seed([9; 32]).public_key();
    let mut dialer = dialer(&gateway_identity(), address, expected);
    let error = next_error(&mut dialer, &mut acceptor).await;
    let presented = Some(backend_identity().public_key());
    assert_eq!(
        error,
        DialError::WrongBackendKey {
            address,
            expected,
            presented
        }
    );
    let text = error.to_string();
    for key in [expected, backend_identity().public_key()] {
        assert!(text.contains(&key.to_string()), "{text}");
    }
    assert_eq!(acceptor.counters().links, 0);
}

#[tokio::test]
async fn a_gateway_with_another_key_is_refused_counted_and_told_which() {
    let mut acceptor = acceptor();
    let address = acceptor.local_address().unwrap();
    let stranger = Identity::from_seed([8; 32]);
    let mut dialer = dialer(&stranger, address, backend_identity().public_key());
    let error = next_error(&mut dialer, &mut acceptor).await;
    let ours = stranger.public_key();
    assert_eq!(error, DialError::KeyNotAccepted { address, ours });
    assert!(error.to_string().contains(&ours.to_string()));
    // The count may come a moment after the refusal.
    within(poll_fn(|cx| {
        let _ = acceptor.poll_link(cx);
        match acceptor.counters().wrong_keys {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }))
    .await;
    assert_eq!(acceptor.counters().wrong_keys, 1);
    assert_eq!(acceptor.counters().links, 0);
    // Somebody else's wrong key is nothing to a right one.
    let right = crate::harness::dialer(
        &gateway_identity(),
        address,
        backend_identity().public_key(),
    );
    let pair = join(acceptor, right).await;
    assert_eq!(pair.acceptor.counters().links, 1);
}

#[tokio::test]
async fn nobody_there_names_the_address() {
    // Bound and never answered.
    let silent = UdpSocket::bind(loopback()).unwrap();
    let address = silent.local_addr().unwrap();
    let mut dialer = dialer(
        &gateway_identity(),
        address,
        backend_identity().public_key(),
    );
    let event = within(poll_fn(|cx| dialer.poll_link(cx))).await;
    let Event::Failed { error, retry_in } = event else {
        panic!("{event:?}");
    };
    assert_eq!(error, DialError::NoAnswer { address });
    assert!(error.to_string().contains(&address.to_string()));
    assert!(retry_in <= uplink::BACKOFF_MIN);
}

#[tokio::test]
async fn a_taken_port_is_called_taken() {
    let first = acceptor();
    let address = first.local_address().unwrap();
    let second = Acceptor::bind(address, &backend_identity(), &[]);
    let error = second.err().unwrap().to_string();
    assert!(error.contains("is taken") && error.contains(&address.to_string()));
}

#[tokio::test]
async fn garbage_packets_harm_nobody() {
    let acceptor = acceptor();
    let address = acceptor.local_address().unwrap();
    let socket = UdpSocket::bind(loopback()).unwrap();
    let mut numbers = Numbers(11);
    for _ in 0..500 {
        let bytes = (numbers.next() % 1_400) as usize;
        let packet: Vec<u8> = (0..bytes).map(|_| numbers.next() as u8).collect();
        // The kernel may refuse some; that is as good as lost.
        let _ = socket.send_to(&packet, address);
    }
    let dialer = dialer(
        &gateway_identity(),
        address,
        backend_identity().public_key(),
    );
    let pair = join(acceptor, dialer).await;
    assert_eq!(pair.acceptor.counters().links, 1);
}
