//! UDP through the proxy.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use impair::path::Conditions;
use impair::{Events, Settings};
use tokio::net::UdpSocket;

use crate::{settings, through};

/// Sends back what it gets, on a thread that ends with the tests; each answer is followed by the
/// port that the question came from.
fn echo() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let answer = [&buffer[..count], &from.port().to_le_bytes()].concat();
            let _ = socket.send_to(&answer, from);
        }
    });
    address
}

async fn client(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    socket
}

/// Sends a number; gives the port that the target saw.
async fn ask(socket: &UdpSocket, number: u32) -> u16 {
    socket.send(&number.to_le_bytes()).await.unwrap();
    let mut answer = [0; 6];
    assert_eq!(socket.recv(&mut answer).await.unwrap(), 6);
    assert_eq!(answer[..4], number.to_le_bytes());
    u16::from_le_bytes([answer[4], answer[5]])
}

#[test]
fn datagrams_arrive_late_and_each_client_has_a_port_of_its_own() {
    let target = echo();
    let impaired = || Settings {
        conditions: Conditions {
            delay_us: 20_000,
            ..Conditions::default()
        },
        ..settings(target)
    };
    let counts = through(impaired, async |address| {
        let (a, b) = (client(address).await, client(address).await);
        let began = Instant::now();
        let (from_a, from_b) = (ask(&a, 1).await, ask(&b, 2).await);
        assert!(began.elapsed() >= Duration::from_millis(80));
        assert_ne!(from_a, from_b);
        assert_eq!(ask(&a, 3).await, from_a);
    });
    assert_eq!((counts.flows, counts.datagrams, counts.passed), (2, 6, 6));
}

#[test]
fn loss_and_copies_are_seen_and_counted() {
    let target = echo();
    let impaired = || Settings {
        conditions: Conditions {
            loss: 200_000,
            duplicate: 200_000,
            ..Conditions::default()
        },
        ..settings(target)
    };
    const SENT: u32 = 500;
    let counts = through(impaired, async |address| {
        let socket = client(address).await;
        let (mut answered, mut copies) = (HashSet::new(), 0);
        let mut answer = [0; 6];
        for number in 0..SENT {
            socket.send(&number.to_le_bytes()).await.unwrap();
            // One at a time, so that no queue is ever full.
            let wait = Duration::from_millis(20);
            while let Ok(received) = tokio::time::timeout(wait, socket.recv(&mut answer)).await {
                received.unwrap();
                copies += u32::from(!answered.insert(answer[..4].to_vec()));
                if answer[..4] == number.to_le_bytes() {
                    break;
                }
            }
        }
        // Both ways: 64 % come through; of those at least 36 % as more than one.
        assert!((250..400).contains(&answered.len()), "{}", answered.len());
        assert!(copies > 20, "{copies}");
    });
    assert!(counts.lost > 50 && counts.duplicated > 50, "{counts}");
    let went = counts.passed + counts.lost - counts.duplicated;
    assert!(went.abs_diff(counts.datagrams) < 5, "{counts}");
}

#[test]
fn a_flow_goes_on_from_another_port() {
    let target = echo();
    let impaired = || Settings {
        events: Events {
            rebind_every: Some(Duration::from_millis(100)),
            ..Events::default()
        },
        ..settings(target)
    };
    let counts = through(impaired, async |address| {
        let socket = client(address).await;
        let first = ask(&socket, 0).await;
        let mut number = 1_u32;
        loop {
            socket.send(&number.to_le_bytes()).await.unwrap();
            number += 1;
            let mut answer = [0; 6];
            // What is under way while the port changes is lost, as it is in the field.
            let wait = Duration::from_millis(50);
            if let Ok(received) = tokio::time::timeout(wait, socket.recv(&mut answer)).await {
                received.unwrap();
                if u16::from_le_bytes([answer[4], answer[5]]) != first {
                    break;
                }
            }
        }
    });
    assert_eq!(counts.flows, 1);
    assert!(counts.rebinds >= 1);
}

#[test]
fn a_flow_falls_silent_before_it_is_cut() {
    let target = echo();
    let impaired = || Settings {
        events: Events {
            cut_every: Some(Duration::from_millis(100)),
            cut_silent: Duration::from_millis(300),
            ..Events::default()
        },
        ..settings(target)
    };
    let counts = through(impaired, async |address| {
        let socket = client(address).await;
        let first = ask(&socket, 0).await;
        let mut heard = Instant::now();
        loop {
            socket.send(&[0; 4]).await.unwrap();
            let mut answer = [0; 6];
            let wait = Duration::from_millis(10);
            if tokio::time::timeout(wait, socket.recv(&mut answer))
                .await
                .is_ok()
            {
                let silent = heard.elapsed();
                heard = Instant::now();
                if u16::from_le_bytes([answer[4], answer[5]]) != first {
                    assert!(silent >= Duration::from_millis(250), "{silent:?}");
                    break;
                }
            }
        }
    });
    assert!(counts.cuts >= 1 && counts.silenced > 0, "{counts}");
    assert!(counts.flows >= 2);
}
