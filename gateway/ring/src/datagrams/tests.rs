//! Over real sockets: many at once, cut ones, and several of one send.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::{DatagramRing, Outgoing, RECEIVE_BYTES, ReceiveBatch, send_many};

fn sockets() -> (UdpSocket, UdpSocket) {
    let socket = || UdpSocket::bind("127.0.0.1:0").expect("a socket");
    (socket(), socket())
}

/// `None` where io_uring is forbidden on purpose.
fn ring(socket: &UdpSocket) -> Option<DatagramRing> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let socket = socket.try_clone().expect("a descriptor");
    match DatagramRing::new(socket.into(), 8, wake.as_fd()) {
        Ok(ring) => Some(ring),
        Err(error) => {
            let forbidden = std::env::var_os("SALLYPORT_TEST_WITHOUT_URING");
            assert!(forbidden.is_some_and(|v| v == "1"), "{error}");
            None
        }
    }
}

#[test]
fn a_ring_receives_more_than_it_has_buffers() {
    let (ours, theirs) = sockets();
    let Some(mut ring) = ring(&ours) else {
        return;
    };
    let to = ours.local_addr().expect("bound");
    ring.submit().expect("submitted");
    let mut seen = Vec::new();
    for turn in 0..10u8 {
        for at in 0..10u8 {
            theirs.send_to(&[turn, at], to).expect("sent");
        }
        let until = (usize::from(turn) + 1) * 10;
        while seen.len() < until {
            ring.submit().expect("submitted");
            ring.reap(64, |from, datagram| {
                assert_eq!(from, theirs.local_addr().expect("bound"));
                seen.push([datagram[0], datagram[1]]);
                datagram.fill(0xee);
            });
        }
    }
    let wanted: Vec<[u8; 2]> = (0..10)
        .flat_map(|turn| (0..10).map(move |at| [turn, at]))
        .collect();
    assert_eq!(seen, wanted);
    assert!(ring.starved() > 0, "ten at once into eight buffers");
}

#[test]
fn what_is_too_long_is_empty_to_both() {
    let (ours, theirs) = sockets();
    let to = ours.local_addr().expect("bound");
    let long = vec![7; RECEIVE_BYTES + 1];
    theirs.send_to(&long, to).expect("sent");
    theirs.send_to(b"short", to).expect("sent");
    let mut seen = Vec::new();
    let mut batch = ReceiveBatch::default();
    let count = batch.receive(ours.as_fd(), |_, datagram| seen.push(datagram.to_vec()));
    assert_eq!(
        (count.expect("two"), seen),
        (2, vec![vec![], b"short".to_vec()])
    );
    let Some(mut ring) = ring(&ours) else {
        return;
    };
    theirs.send_to(&long, to).expect("sent");
    theirs.send_to(b"short", to).expect("sent");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        ring.submit().expect("submitted");
        ring.reap(64, |_, datagram| seen.push(datagram.to_vec()));
    }
    assert_eq!(seen, vec![vec![], b"short".to_vec()]);
}

#[test]
fn a_batch_goes_to_many_and_is_cut_where_it_says() {
    let (ours, theirs) = sockets();
    theirs
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("an option");
    let to = theirs.local_addr().expect("bound");
    let long: Vec<u8> = (0..2_500).map(|at| (at / 1_000) as u8).collect();
    let batch = [
        Outgoing {
            to,
            bytes: b"one",
            segment_bytes: 3,
        },
        Outgoing {
            to,
            bytes: &long,
            segment_bytes: 1_000,
        },
    ];
    assert_eq!(send_many(ours.as_fd(), &batch).expect("sent"), 2);
    let mut buffer = [0; 2_048];
    let mut lengths = Vec::new();
    for _ in 0..4 {
        let length = theirs.recv(&mut buffer).expect("received");
        lengths.push(length);
        if length > 3 {
            assert!(buffer[..length].iter().all(|byte| *byte == buffer[0]));
        }
    }
    assert_eq!(lengths, [3, 1_000, 1_000, 500]);
}

#[test]
fn nothing_to_receive_is_no_datagram() {
    let (ours, _) = sockets();
    let error = ReceiveBatch::default()
        .receive(ours.as_fd(), |_, _| panic!("nobody sent"))
        .expect_err("nothing there");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}
