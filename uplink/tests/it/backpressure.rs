//! A peer that does not read: what waits is seen, bounded, and not lost.

use std::future::poll_fn;
use std::task::Poll;

use protocol::limits::RECORD_BYTES_MAX;
use uplink::{LinkError, QUEUED_BYTES_MAX, StreamIndex};

use crate::harness::{Numbers, Pair, pair, push_record, read_all, within};

/// What the windows let one stream hold at the peer; `tls.rs` says why.
const STREAM_WINDOW_BYTES: usize = 1 << 20;

const APPENDED_BYTES: usize = 4 << 20;

#[tokio::test]
async fn a_peer_that_does_not_read_holds_back_data_but_not_control() {
    let Pair {
        mut gateway,
        mut backend,
        acceptor: _acceptor,
        dialer: _dialer,
    } = pair().await;
    let streams: Vec<StreamIndex> = StreamIndex::data().collect();
    let mut numbers = Numbers(21);
    let mut sent = vec![Vec::new(); streams.len()];
    for (stream, sent) in streams.iter().zip(&mut sent) {
        while sent.len() < APPENDED_BYTES {
            push_record(&mut numbers, sent);
        }
        gateway.buffer(*stream).extend_from_slice(sent);
    }

    // Data goes as far as the windows, and stays there.
    within(poll_fn(|cx| {
        assert!(gateway.poll_flush(cx).map(Result::unwrap).is_pending());
        let taken =
            |(stream, sent): (&StreamIndex, &Vec<u8>)| sent.len() - gateway.queued_bytes(*stream);
        let taken: Vec<usize> = streams.iter().zip(&sent).map(taken).collect();
        assert!(taken.iter().all(|&bytes| bytes <= STREAM_WINDOW_BYTES));
        match taken.iter().all(|&bytes| bytes >= STREAM_WINDOW_BYTES - 1) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }))
    .await;

    // What it would lose if it died now: whole records, none of them begun.
    for (stream, sent) in streams.iter().zip(&sent) {
        let untaken = gateway.untaken_records(*stream);
        let cut = gateway.queued_bytes(*stream) - untaken.len();
        assert!(sent.ends_with(untaken) && cut < RECORD_BYTES_MAX);
        for mut run in [untaken, &sent[..sent.len() - untaken.len()]] {
            while let Some(length) = protocol::uplink::length(run).unwrap() {
                run = run.get(length..).expect("a whole record");
            }
            assert!(run.is_empty());
        }
    }

    // Control still passes: its room is its own. The backend reads nothing but
    // what a tiny budget gives it, which is control, because that comes first.
    let control = StreamIndex::CONTROL;
    let message = b"still here";
    let out = gateway.buffer(control);
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(message);
    let mut received = vec![Vec::new(); streams.len()];
    let mut is_control_here = false;
    within(poll_fn(|cx| {
        assert!(gateway.poll_flush(cx).map(Result::unwrap).is_pending());
        assert_eq!(gateway.queued_bytes(control), 0);
        let read = backend.poll_read(cx, 14, &mut |stream, bytes| match stream.is_control() {
            true => {
                assert_eq!(bytes, message);
                is_control_here = true;
            }
            false => received[position(stream)].extend_from_slice(bytes),
        });
        match (is_control_here, read) {
            (true, _) => Poll::Ready(()),
            (false, Poll::Ready(read)) => {
                read.unwrap();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (false, Poll::Pending) => Poll::Pending,
        }
    }))
    .await;

    // When the peer reads again, everything arrives.
    within(poll_fn(|cx| {
        read_all(&mut backend, cx, &mut |stream, bytes| {
            received[position(stream)].extend_from_slice(bytes);
        })
        .unwrap();
        gateway.poll_flush(cx).map(Result::unwrap)
    }))
    .await;
    within(poll_fn(|cx| {
        read_all(&mut backend, cx, &mut |stream, bytes| {
            received[position(stream)].extend_from_slice(bytes);
        })
        .unwrap();
        match received.iter().zip(&sent).all(|(r, s)| r.len() >= s.len()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }))
    .await;
    assert!(received == sent);
}

fn position(stream: StreamIndex) -> usize {
    StreamIndex::data().position(|data| data == stream).unwrap()
}

#[tokio::test]
async fn an_owner_that_never_stops_appending_loses_the_link() {
    let mut pair = pair().await;
    let stream = StreamIndex::data().next().unwrap();
    let bytes = QUEUED_BYTES_MAX + 2 * STREAM_WINDOW_BYTES;
    pair.gateway.buffer(stream).resize(bytes, 0);
    let error = within(poll_fn(|cx| match pair.gateway.poll_flush(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(error),
        _ => Poll::Pending,
    }))
    .await;
    assert_eq!(error, LinkError::Overflow { stream });
}
