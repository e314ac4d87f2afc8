//! How a link ends: by choice, and by a peer that breaks the rules.

use std::future::poll_fn;
use std::task::Poll;

use protocol::limits::{CONTROL_BYTES_MAX, RECORD_BYTES_MAX};
use uplink::{CLOSE_DONE, CLOSE_PROTOCOL, LinkError, StreamIndex};

use crate::harness::{Numbers, Pair, end_of, pair, push_record, read_all, within};

/// Sends `bytes` and returns how the backend's and the gateway's end died, and
/// the bytes that the backend had been handed before.
async fn killed_by(stream: StreamIndex, bytes: &[u8]) -> (LinkError, LinkError, usize) {
    let Pair {
        mut gateway,
        mut backend,
        acceptor: _acceptor,
        dialer: _dialer,
    } = pair().await;
    gateway.buffer(stream).extend_from_slice(bytes);
    let mut handed_bytes = 0;
    let error = within(poll_fn(|cx| {
        let _ = gateway.poll_flush(cx);
        match read_all(&mut backend, cx, &mut |_, units| {
            handed_bytes += units.len()
        }) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }))
    .await;
    // The error stays, whatever is called.
    assert_eq!(end_of(&mut backend).await, error);
    let other = end_of(&mut gateway).await;
    (error, other, handed_bytes)
}

#[tokio::test]
async fn a_record_length_out_of_bounds_closes_the_link() {
    let stream = StreamIndex::data().last().unwrap();
    for length in [RECORD_BYTES_MAX + 1, 0xFF_FFFF, 11, 0] {
        let mut bytes = Vec::new();
        push_record(&mut Numbers(3), &mut bytes);
        let good_bytes = bytes.len();
        bytes.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        bytes.resize(bytes.len() + 50, 0);
        let (error, other, handed_bytes) = killed_by(stream, &bytes).await;
        let length = length as u32;
        assert_eq!(error, LinkError::BadLength { stream, length });
        assert!(is_closed(&other, CLOSE_PROTOCOL), "{other}");
        assert_eq!(handed_bytes, good_bytes);
    }
}

#[tokio::test]
async fn a_control_length_out_of_bounds_closes_the_link() {
    let stream = StreamIndex::CONTROL;
    for length in [CONTROL_BYTES_MAX as u32 + 1, u32::MAX] {
        let (error, other, _) = killed_by(stream, &length.to_le_bytes()).await;
        assert_eq!(error, LinkError::BadLength { stream, length });
        assert!(is_closed(&other, CLOSE_PROTOCOL), "{other}");
    }
}

#[tokio::test]
async fn a_close_reaches_the_peer_with_its_reason() {
    let mut pair = pair().await;
    pair.backend.close(77, "maintenance");
    assert_eq!(
        end_of(&mut pair.gateway).await,
        LinkError::Closed {
            code: 77,
            reason: "maintenance".to_owned()
        }
    );
    assert_eq!(end_of(&mut pair.backend).await, LinkError::ClosedHere);
}

#[tokio::test]
async fn a_dropped_link_is_an_end_in_order() {
    let mut pair = pair().await;
    drop(pair.gateway);
    let error = end_of(&mut pair.backend).await;
    assert!(is_closed(&error, CLOSE_DONE), "{error}");
}

fn is_closed(error: &LinkError, wanted: u32) -> bool {
    matches!(error, LinkError::Closed { code, .. } if *code == u64::from(wanted))
}
