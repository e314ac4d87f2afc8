//! TCP through the proxy.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use impair::path::Conditions;
use impair::{Events, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{settings, through};

/// A server that sends back what it gets, on a thread that ends with the tests.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

async fn send_and_receive(stream: &mut TcpStream, payload: &[u8]) {
    let (mut read, mut write) = stream.split();
    let mut back = vec![0; payload.len()];
    let (sent, received) = tokio::join!(write.write_all(payload), read.read_exact(&mut back));
    sent.unwrap();
    received.unwrap();
    assert!(back == payload);
}

#[test]
fn a_stream_arrives_whole_in_order_and_late() {
    let target = echo();
    let impaired = || Settings {
        conditions: Conditions {
            delay_us: 30_000,
            jitter_us: 10_000,
            loss: 20_000,
            bytes_per_second: 4_000_000,
            ..Conditions::default()
        },
        ..settings(target)
    };
    let counts = through(impaired, async |address| {
        let payload: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        send_and_receive(&mut stream, &payload).await;
        // A quarter of a second at the rate, and the delay twice.
        assert!(began.elapsed() >= Duration::from_millis(250 + 40));
        // The end of the stream passes too.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    });
    assert_eq!(counts.stream_bytes, 2_000_000);
    assert_eq!(counts.connections, 1);
    assert!(counts.stream_stalls > 0);
}

#[test]
fn a_cut_resets_both_ends() {
    let target = echo();
    let impaired = || Settings {
        events: Events {
            cut_every: Some(Duration::from_millis(200)),
            ..Events::default()
        },
        ..settings(target)
    };
    let counts = through(impaired, async |address| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        loop {
            let ended = stream.write_all(b"still here").await.is_err()
                || stream.read(&mut [0; 64]).await.is_err();
            if ended {
                break;
            }
        }
        assert!(began.elapsed() >= Duration::from_millis(100));
        // The next connection works.
        let mut stream = TcpStream::connect(address).await.unwrap();
        send_and_receive(&mut stream, b"again").await;
    });
    assert!(counts.cuts >= 1);
}

#[test]
fn connections_beyond_the_bound_are_refused() {
    let target = echo();
    let impaired = || Settings {
        flows_max: 1,
        ..settings(target)
    };
    let counts = through(impaired, async |address| {
        let mut first = TcpStream::connect(address).await.unwrap();
        send_and_receive(&mut first, b"in").await;
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(second.read(&mut [0]).await.is_err());
        drop(first);
        // There is room again once the proxy has seen the end of the first.
        loop {
            let mut third = TcpStream::connect(address).await.unwrap();
            let sent = third.write_all(b"in").await;
            if sent.is_ok() && third.read_exact(&mut [0; 2]).await.is_ok() {
                break;
            }
        }
    });
    assert!(counts.refused >= 1);
}

#[test]
fn a_target_that_is_not_there_is_a_reset() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = nobody.local_addr().unwrap();
    drop(nobody);
    let counts = through(
        || settings(target),
        async |address| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert!(stream.read(&mut [0]).await.is_err());
        },
    );
    assert_eq!(counts.refused, 1);
}
