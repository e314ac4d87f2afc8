//! What is appended at one end comes out at the other: whole, in order within a
//! stream, and unchanged.

use std::future::poll_fn;
use std::task::Poll;

use protocol::ids::SessionId;
use protocol::limits::CONTROL_BYTES_MAX;
use uplink::{Link, StreamIndex};

use crate::harness::{Numbers, Pair, pair, push_record, read_all, split_records, within};

const TRAFFIC_BYTES: usize = 8 << 20;

/// Bytes that an end lets wait on a stream before it stops appending.
const QUEUE_BYTES: usize = 256 << 10;

/// One stream's records as the gateway makes them and as they come back.
struct Lane {
    stream: StreamIndex,
    made: Numbers,
    expected: Numbers,
    appended_bytes: usize,
    returned_bytes: usize,
}

#[tokio::test]
async fn records_come_back_whole_and_in_order() {
    let Pair {
        mut gateway,
        mut backend,
        acceptor: _acceptor,
        dialer: _dialer,
    } = pair().await;
    let mut lanes: Vec<Lane> = StreamIndex::data()
        .zip(1..)
        .map(|(stream, seed)| Lane {
            stream,
            made: Numbers(seed),
            expected: Numbers(seed),
            appended_bytes: 0,
            returned_bytes: 0,
        })
        .collect();
    let lane_bytes = TRAFFIC_BYTES / lanes.len();
    let mut wanted = Vec::new();
    within(poll_fn(|cx| {
        for lane in &mut lanes {
            while lane.appended_bytes < lane_bytes
                && gateway.queued_bytes(lane.stream) < QUEUE_BYTES
            {
                let out = gateway.buffer(lane.stream);
                let before = out.len();
                push_record(&mut lane.made, out);
                lane.appended_bytes += out.len() - before;
            }
        }
        let _ = gateway.poll_flush(cx).map(Result::unwrap);
        echo(&mut backend, cx);
        read_all(&mut gateway, cx, &mut |stream, bytes| {
            let lane = lanes.iter_mut().find(|lane| lane.stream == stream).unwrap();
            lane.returned_bytes += bytes.len();
            for record in split_records(bytes) {
                wanted.clear();
                push_record(&mut lane.expected, &mut wanted);
                assert!(record == wanted, "a record came back changed");
            }
        })
        .unwrap();
        // Room may have come up in what was full before; go round until the
        // ends have registered for everything that they still wait for.
        match lanes.iter().all(|lane| lane.returned_bytes >= lane_bytes) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }))
    .await;
    for lane in &lanes {
        assert_eq!(lane.returned_bytes, lane.appended_bytes);
    }
}

/// One turn of a backend that sends back what it gets.
fn echo(backend: &mut Link, cx: &mut std::task::Context<'_>) {
    let mut received: Vec<(StreamIndex, Vec<u8>)> = Vec::new();
    read_all(backend, cx, &mut |stream, bytes| {
        received.push((stream, bytes.to_vec()));
    })
    .unwrap();
    for (stream, bytes) in received {
        if stream.is_control() {
            let length = bytes.len() as u32;
            backend
                .buffer(stream)
                .extend_from_slice(&length.to_le_bytes());
        }
        backend.buffer(stream).extend_from_slice(&bytes);
    }
    let _ = backend.poll_flush(cx).map(Result::unwrap);
}

#[tokio::test]
async fn control_messages_of_every_size_come_back_one_by_one() {
    let Pair {
        mut gateway,
        mut backend,
        acceptor: _acceptor,
        dialer: _dialer,
    } = pair().await;
    let sizes = [
        0,
        1,
        5_000,
        CONTROL_BYTES_MAX,
        20_000,
        0,
        CONTROL_BYTES_MAX - 1,
        7,
    ];
    let control = StreamIndex::CONTROL;
    for (size, fill) in sizes.into_iter().zip(1u8..) {
        let out = gateway.buffer(control);
        out.extend_from_slice(&(size as u32).to_le_bytes());
        out.resize(out.len() + size, fill);
    }
    let mut returned = Vec::new();
    within(poll_fn(|cx| {
        let _ = gateway.poll_flush(cx).map(Result::unwrap);
        echo(&mut backend, cx);
        read_all(&mut gateway, cx, &mut |stream, message| {
            assert!(stream.is_control());
            let fill = returned.len() as u8 + 1;
            assert!(message.iter().all(|&byte| byte == fill));
            returned.push(message.len());
        })
        .unwrap();
        match returned.len() == sizes.len() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }))
    .await;
    assert_eq!(returned, sizes);
}

#[tokio::test]
async fn a_read_stops_at_its_budget_and_serves_all_streams() {
    let Pair {
        mut gateway,
        mut backend,
        acceptor: _acceptor,
        dialer: _dialer,
    } = pair().await;
    let mut numbers = Numbers(9);
    for stream in StreamIndex::data() {
        while gateway.buffer(stream).len() < 200_000 {
            push_record(&mut numbers, gateway.buffer(stream));
        }
    }
    const BUDGET_BYTES: usize = 10_000;
    let mut seen = Vec::new();
    let mut reads = 0;
    within(poll_fn(|cx| {
        let _ = gateway.poll_flush(cx).map(Result::unwrap);
        loop {
            match backend.poll_read(cx, BUDGET_BYTES, &mut |stream, _| {
                if !seen.contains(&stream) {
                    seen.push(stream);
                }
            }) {
                Poll::Ready(read_bytes) => assert!(read_bytes.unwrap() <= BUDGET_BYTES),
                Poll::Pending => return Poll::Pending,
            }
            reads += 1;
            if seen.len() == 4 {
                return Poll::Ready(());
            }
        }
    }))
    .await;
    // A stream holds 200 KB, twenty budgets: in order of streams it would take
    // sixty reads to see the last one.
    assert!(reads < 40, "{reads} reads until each stream was served");
}

#[test]
fn a_session_always_has_the_same_data_stream() {
    let data: Vec<StreamIndex> = StreamIndex::data().collect();
    for session in 0..100 {
        let stream = StreamIndex::of_session(SessionId(session));
        assert!(data.contains(&stream) && !stream.is_control());
        assert_eq!(stream, StreamIndex::of_session(SessionId(session)));
    }
}
