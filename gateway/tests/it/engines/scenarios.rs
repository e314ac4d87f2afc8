//! The scenarios that need no process of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gateway::engine::{Carries, ClosedBy, ConnId, Engine, EngineConfig};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::harness::{Driven, PATIENCE, pattern};

/// More than the socket buffers of both ends hold, so that a send cannot end
/// while the peer does not read.
const STALLING_BYTES: usize = 32 << 20;

pub fn echoes_every_size<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let address = server.listen();
    server.echo = true;
    let client = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        for (seed, len) in [1, 2, 63, 64, 1_000, 4_096, 4_097, 10_000, 65_536, 300_000]
            .into_iter()
            .enumerate()
        {
            let bytes = pattern(seed as u64, len);
            let mut writer = socket.try_clone().unwrap();
            let sent = bytes.clone();
            let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
            let mut back = vec![0; len];
            socket.read_exact(&mut back).unwrap();
            writing.join().unwrap();
            assert!(back == bytes, "{len} bytes came back changed");
        }
        socket.local_addr().unwrap()
    });
    let conn = server.accepted(0);
    assert_eq!(server.closed(conn), ClosedBy::Peer);
    let peer = client.join().unwrap();
    assert_eq!(server.story(conn).peer, Some(peer));
    assert_eq!(server.engine.connections(), 0);
}

pub fn a_mebibyte_each_way<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let address = server.listen();
    server.echo = true;
    let client = std::thread::spawn(move || {
        let bytes = pattern(7, 1 << 20);
        let mut socket = TcpStream::connect(address).unwrap();
        let mut writer = socket.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = std::thread::spawn(move || {
            for chunk in sent.chunks(1_000) {
                writer.write_all(chunk).unwrap();
            }
        });
        let mut back = vec![0; bytes.len()];
        for chunk in back.chunks_mut(3_000) {
            socket.read_exact(chunk).unwrap();
        }
        writing.join().unwrap();
        assert!(back == bytes, "a mebibyte came back changed");
    });
    let conn = server.accepted(0);
    server.closed(conn);
    client.join().unwrap();
}

/// Both ends are engines here, so connecting is tested as well.
pub fn a_thousand_at_once<E: Engine>() {
    echo_among_engines::<E>(1_000, 100, &EngineConfig::default());
}

/// Receives must start again when the buffers run out.
pub fn few_and_small_buffers_lose_nothing<E: Engine>() {
    let config = EngineConfig {
        receive_buffers: 1,
        receive_buffer_bytes: 64,
        ..EngineConfig::default()
    };
    echo_among_engines::<E>(100, 20_000, &config);
}

/// A receive that finds no buffer starts again when there is one, not in every
/// turn: else a thousand clients that send at once cost a thousand starts a turn.
pub fn starved_receives_start_when_there_are_buffers<E: Engine>() {
    let (clients, buffers) = (1_000, 16);
    let config = EngineConfig {
        receive_buffers: buffers,
        ..EngineConfig::default()
    };
    let starved = echo_among_engines::<E>(clients, 100, &config);
    assert!(starved <= 5 * clients as u64, "{starved} starved receives");
}

/// How many receives of the server found no buffer.
fn echo_among_engines<E: Engine>(clients: usize, bytes: usize, config: &EngineConfig) -> u64 {
    let config = EngineConfig {
        connections_max: clients as u32,
        ..config.clone()
    };
    let mut server = Driven::<E>::with(&config);
    // A turn ends before all completions are taken, as a busy shard's does.
    server.budget = 64;
    let mut client = Driven::<E>::with(&config);
    let address = server.listen();
    server.echo = true;
    let conns: Vec<ConnId> = (0..clients).map(|_| client.connect(address)).collect();
    let all = |client: &Driven<E>, done: &dyn Fn(ConnId) -> bool| {
        let _ = client;
        conns.iter().all(|conn| done(*conn))
    };
    client.until(|client| {
        server.turn();
        all(client, &|conn| client.story(conn).connected == Some(Ok(())))
    });
    for (seed, conn) in conns.iter().enumerate() {
        client.send(*conn, pattern(seed as u64, bytes));
    }
    client.until(|client| {
        server.turn();
        all(client, &|conn| client.story(conn).received.len() >= bytes)
    });
    for (seed, conn) in conns.iter().enumerate() {
        assert!(client.story(*conn).received == pattern(seed as u64, bytes));
        assert_eq!(client.story(*conn).sent, [(bytes, Ok(()))]);
        client.engine.close(*conn);
    }
    client.until(|client| {
        server.turn();
        all(client, &|conn| {
            client.story(conn).closed == Some(ClosedBy::Local)
        })
    });
    server.until(|server| server.engine.connections() == 0);
    assert_eq!(server.log.accepted.len(), clients);
    assert_eq!(server.engine.counters().accepted, clients as u64);
    assert_eq!(client.engine.connections(), 0);
    server.engine.counters().receive_starved
}

pub fn peer_ends_in_order<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let address = server.listen();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let conn = server.accepted(0);
    assert_eq!(server.closed(conn), ClosedBy::Peer);
    assert_eq!(server.story(conn).received, b"last words");
    assert_eq!(
        client.read(&mut [0; 1]).unwrap(),
        0,
        "closed on our side too"
    );
}

pub fn peer_resets<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let address = server.listen();
    let client = TcpStream::connect(address).unwrap();
    let conn = server.accepted(0);
    server.settle();
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(
        server.closed(conn),
        ClosedBy::Error(ErrorKind::ConnectionReset)
    );
}

pub fn close_cancels_a_send<E: Engine>() {
    let mut server = Driven::<E>::new(1);
    let address = server.listen();
    let client = TcpStream::connect(address).unwrap();
    let conn = server.accepted(0);
    server.send(conn, pattern(1, STALLING_BYTES));
    // In the same turn: nothing of it may have been submitted yet.
    server.engine.close(conn);
    assert_eq!(server.closed(conn), ClosedBy::Local);
    let sent = &server.story(conn).sent;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, STALLING_BYTES, "the same buffer");
    assert!(sent[0].1.is_err());
    drop(client);
}

pub fn a_stalled_reader_keeps_its_send<E: Engine>() {
    let mut server = Driven::<E>::new(1);
    let address = server.listen();
    let mut client = TcpStream::connect(address).unwrap();
    let conn = server.accepted(0);
    let bytes = pattern(2, STALLING_BYTES);
    server.send(conn, bytes.clone());
    server.settle();
    assert!(server.story(conn).sent.is_empty(), "nobody has read it");
    // Others and this one's other direction go on.
    client.write_all(b"still here").unwrap();
    server.until(|s| s.story(conn).received == b"still here");
    let mut some = vec![0; 1 << 20];
    client.read_exact(&mut some).unwrap();
    assert!(some == bytes[..some.len()]);
    server.settle();
    assert!(server.story(conn).sent.is_empty());
    server.engine.close(conn);
    assert_eq!(server.closed(conn), ClosedBy::Local);
    assert_eq!(server.story(conn).sent[0].0, STALLING_BYTES);
    // Its slot serves the next one.
    let next = TcpStream::connect(address).unwrap();
    let again = server.accepted(1);
    assert_eq!(again.index, conn.index);
    assert_ne!(again.generation, conn.generation);
    drop((client, next));
}

/// More than the sockets hold, so that what the kernel has not taken goes on later.
pub fn one_buffer_goes_to_many<E: Engine>() {
    const READERS: usize = 8;
    let mut server = Driven::<E>::new(READERS as u32);
    let address = server.listen();
    let mut clients: Vec<TcpStream> = (0..READERS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let conns: Vec<ConnId> = (0..READERS).map(|nth| server.accepted(nth)).collect();
    let bytes: Arc<[u8]> = pattern(3, STALLING_BYTES).into();
    for conn in &conns {
        server.send(*conn, Arc::clone(&bytes));
    }
    // One goes in the middle of it.
    server.settle();
    server.engine.close(conns[0]);
    assert_eq!(server.closed(conns[0]), ClosedBy::Local);
    let expected = Arc::clone(&bytes);
    let readers = thread::spawn(move || {
        let mut all = vec![0; STALLING_BYTES];
        for client in &mut clients[1..] {
            client.read_exact(&mut all).unwrap();
            assert!(all == *expected);
        }
    });
    let done =
        |server: &Driven<E>, conn: &ConnId| server.story(*conn).sent == [(STALLING_BYTES, Ok(()))];
    server.until(|server| conns[1..].iter().all(|conn| done(server, conn)));
    readers.join().unwrap();
    assert_eq!(Arc::strong_count(&bytes), 1, "every reference came back");
}

pub fn pause_stops_and_resume_loses_nothing<E: Engine>() {
    let config = EngineConfig {
        connections_max: 8,
        receive_buffers: 32,
        ..EngineConfig::default()
    };
    let mut server = Driven::<E>::with(&config);
    let address = server.listen();
    let bytes = pattern(3, STALLING_BYTES);
    let sent = bytes.clone();
    let client = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(&sent).unwrap();
    });
    let conn = server.accepted(0);
    for _ in 0..3 {
        let before = server.story(conn).received.len();
        server.until(|s| s.story(conn).received.len() > before);
        server.engine.pause(conn);
        let paused = server.story(conn).received.len();
        server.settle();
        let late = server.story(conn).received.len() - paused;
        assert!(late <= 32 * 4_096, "{late} bytes after pause");
        server.settle();
        assert_eq!(server.story(conn).received.len(), paused + late);
        // More than once, and undone at once: only the last word counts.
        server.engine.resume(conn);
        server.engine.pause(conn);
        server.engine.resume(conn);
    }
    assert_eq!(server.closed(conn), ClosedBy::Peer);
    assert!(server.story(conn).received == bytes);
    client.join().unwrap();
}

pub fn full_keeps_the_backlog<E: Engine>() {
    let mut server = Driven::<E>::new(4);
    let address = server.listen();
    server.echo = true;
    let mut clients: Vec<TcpStream> = (0..12)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.write_all(&[at as u8; 16]).unwrap();
    }
    for round in 1..=3 {
        server.until(|s| s.log.accepted.len() >= 4 * round);
        server.settle();
        assert_eq!(server.log.accepted.len(), 4 * round, "no room for more");
        assert_eq!(server.engine.connections(), 4);
        assert!(server.engine.counters().accept_full >= round as u64);
        for at in 4 * (round - 1)..4 * round {
            let conn = server.log.accepted[at];
            server.until(|s| !s.story(conn).sent.is_empty());
            server.engine.close(conn);
        }
        server.until(|s| {
            s.log.accepted[..4 * round]
                .iter()
                .all(|c| s.story(*c).closed.is_some())
        });
    }
    // Each was served, in whatever order.
    for (at, client) in clients.iter_mut().enumerate() {
        let mut back = [0; 16];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, [at as u8; 16]);
    }
}

pub fn a_stale_id_matches_nothing<E: Engine>() {
    let mut server = Driven::<E>::new(1);
    let address = server.listen();
    let mut last = None::<ConnId>;
    for nth in 0..20 {
        let mut client = TcpStream::connect(address).unwrap();
        let conn = server.accepted(nth);
        if let Some(stale) = last {
            assert_eq!(stale.index, conn.index);
            assert_ne!(stale.generation, conn.generation);
            assert!(server.engine.send(stale, vec![1].into()).is_err());
            server.engine.pause(stale);
            server.engine.shutdown_write(stale);
            server.engine.close(stale);
        }
        client.write_all(b"x").unwrap();
        server.until(|s| s.story(conn).received == b"x");
        server.send(conn, b"y".to_vec());
        server.until(|s| !s.story(conn).sent.is_empty());
        client.read_exact(&mut [0; 1]).unwrap();
        server.engine.close(conn);
        server.engine.close(conn);
        assert_eq!(server.closed(conn), ClosedBy::Local);
        last = Some(conn);
    }
    let nobody = ConnId {
        index: 77,
        generation: 0,
    };
    assert!(server.engine.send(nobody, vec![1].into()).is_err());
    server.engine.close(nobody);
    server.settle();
}

pub fn shutdown_follows_the_send<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let address = server.listen();
    let client = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        socket.write_all(b"after your end").unwrap();
        all
    });
    let conn = server.accepted(0);
    let bytes = pattern(4, 4 << 20);
    server.send(conn, bytes.clone());
    server.engine.shutdown_write(conn);
    assert!(server.engine.send(conn, vec![1].into()).is_err());
    assert_eq!(server.closed(conn), ClosedBy::Peer);
    assert_eq!(server.story(conn).received, b"after your end");
    assert_eq!(server.story(conn).sent, [(bytes.len(), Ok(()))]);
    assert!(client.join().unwrap() == bytes);
}

pub fn refused_sends_come_back<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let address = server.listen();
    let client = TcpStream::connect(address).unwrap();
    let conn = server.accepted(0);
    assert_eq!(server.engine.send(conn, vec![].into()), Err(vec![].into()));
    server.send(conn, pattern(5, STALLING_BYTES));
    assert_eq!(
        server.engine.send(conn, vec![1, 2].into()),
        Err(vec![1, 2].into())
    );
    server.engine.close(conn);
    assert_eq!(
        server.engine.send(conn, vec![3].into()),
        Err(vec![3].into())
    );
    server.closed(conn);
    assert_eq!(
        server.engine.send(conn, vec![4].into()),
        Err(vec![4].into())
    );
    drop(client);
}

pub fn refused_connect_is_reported<E: Engine>() {
    // A port that was just ours and that nobody listens on.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap();
    let mut client = Driven::<E>::new(8);
    let conn = client.connect(address);
    assert_eq!(
        client.closed(conn),
        ClosedBy::Error(ErrorKind::ConnectionRefused)
    );
    assert_eq!(
        client.story(conn).connected,
        Some(Err(ErrorKind::ConnectionRefused))
    );
    assert_eq!(client.engine.connections(), 0);
}

pub fn connects_from_a_given_address<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let mut client = Driven::<E>::new(8);
    let address = server.listen();
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let conn = client
        .engine
        .connect(Carries::Stream, address, Some(from))
        .unwrap();
    client.log.stories.insert(conn, Default::default());
    client.until(|c| c.story(conn).connected == Some(Ok(())));
    let accepted = server.accepted(0);
    let peer = server.story(accepted).peer.expect("a peer address");
    assert_eq!(peer.ip(), from);
    assert_ne!(peer.port(), 0);
    // Not ours: told at once or by an event, and no slot is lost.
    let foreign = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let refused = client
        .engine
        .connect(Carries::Stream, address, Some(foreign));
    assert!(refused.is_err());
    assert_eq!(client.engine.connections(), 1);
}

pub fn close_while_connecting<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let mut client = Driven::<E>::new(1);
    let address = server.listen();
    for _ in 0..10 {
        let conn = client.connect(address);
        assert!(
            client.engine.send(conn, vec![1].into()).is_err(),
            "not connected"
        );
        let full = client.engine.connect(Carries::Stream, address, None);
        assert!(full.is_err(), "full");
        client.engine.close(conn);
        assert_eq!(client.closed(conn), ClosedBy::Local);
        assert_eq!(client.story(conn).connected, None);
    }
}

/// Each send is one datagram and each datagram one event, however many wait.
pub fn datagrams_stay_apart<E: Engine>() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = server.local_addr().unwrap();
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let mut client = Driven::<E>::new(8);
    let conn = client
        .engine
        .connect(Carries::Datagrams, to, Some(from))
        .unwrap();
    client.log.stories.insert(conn, Default::default());
    client.until(|c| c.story(conn).connected == Some(Ok(())));
    let mut bytes = [0; 2_048];
    for length in [1, 600, 1_200] {
        client.send(conn, vec![length as u8; length]);
        client.until(|c| c.story(conn).sent.last() == Some(&(length, Ok(()))));
        let (received, peer) = server.recv_from(&mut bytes).unwrap();
        assert_eq!((received, peer.ip()), (length, from));
        for answer in [length, 40, 40] {
            server.send_to(&bytes[..answer.min(length)], peer).unwrap();
        }
    }
    client.until(|c| c.story(conn).pieces.len() == 9);
    assert_eq!(
        client.story(conn).pieces,
        [1, 1, 1, 600, 40, 40, 1_200, 40, 40]
    );
    client.engine.close(conn);
    assert_eq!(client.closed(conn), ClosedBy::Local);
}

/// Nobody there: the peer's kernel says so when the first datagram has come.
pub fn datagrams_to_nobody_are_refused<E: Engine>() {
    let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .unwrap();
    let mut client = Driven::<E>::new(8);
    let conn = client
        .engine
        .connect(Carries::Datagrams, address, None)
        .unwrap();
    client.log.stories.insert(conn, Default::default());
    client.until(|c| c.story(conn).connected == Some(Ok(())));
    client.send(conn, vec![1; 100]);
    assert_eq!(
        client.closed(conn),
        ClosedBy::Error(ErrorKind::ConnectionRefused)
    );
}

pub fn two_listeners_share_the_last_slots<E: Engine>() {
    let mut server = Driven::<E>::new(2);
    let (one, two) = (server.listen(), server.listen());
    server.settle();
    let second = TcpStream::connect(two).unwrap();
    server.accepted(0);
    let first = TcpStream::connect(one).unwrap();
    server.accepted(1);
    drop((first, second));
    server.until(|s| s.engine.connections() == 0);
}

pub fn stops_to_listen<E: Engine>() {
    let mut server = Driven::<E>::new(8);
    let address = server.listen();
    let mut before = TcpStream::connect(address).unwrap();
    let conn = server.accepted(0);
    server.engine.stop_listening();
    server.settle();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Those inside are served on, and all slots are free for connecting.
    before.write_all(b"hello").unwrap();
    server.until(|s| s.story(conn).received == b"hello");
    assert_eq!(server.engine.connections(), 1);
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..7 {
        server.connect(other.local_addr().unwrap());
    }
    assert_eq!(server.engine.connections(), 8);
}

pub fn tells_the_peer_over_ipv6<E: Engine>() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        // A host without IPv6; the address conversion has a unit test.
        return;
    };
    let mut server = Driven::<E>::new(8);
    let mut client = Driven::<E>::new(8);
    let address = listener.local_addr().unwrap();
    server.engine.listen(listener).unwrap();
    let conn = client.connect(address);
    client.until(|c| c.story(conn).connected == Some(Ok(())));
    let accepted = server.accepted(0);
    let peer = server.story(accepted).peer.expect("a peer address");
    assert_eq!(peer.ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
}

/// The loop of the shard's driver: asleep in tokio, woken by `wake_fd`, whose
/// edge comes once. With a budget this small, polls leave something behind.
pub fn wakes_a_reactor<E: Engine>() {
    let mut server = Driven::<E>::new(64);
    server.budget = 2;
    let address = server.listen();
    server.echo = true;
    let clients: Vec<_> = (0..4)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut socket = TcpStream::connect(address).unwrap();
                for round in 0..200 {
                    let bytes = pattern(seed * 1_000 + round, 64);
                    socket.write_all(&bytes).unwrap();
                    let mut back = [0; 64];
                    socket.read_exact(&mut back).unwrap();
                    assert!(back[..] == bytes);
                }
            })
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let wake = server.engine.wake_fd().try_clone_to_owned().unwrap();
        #[expect(
            deprecated,
            reason = "unsound only for types that do not own their descriptor; OwnedFd does"
        )]
        let wake = AsyncFd::with_interest(wake, Interest::READABLE).unwrap();
        loop {
            let more = server.turn();
            let gone = server.log.stories.values().filter(|s| s.closed.is_some());
            if gone.count() == 4 {
                break;
            }
            if !more {
                let woken = tokio::time::timeout(Duration::from_secs(20), wake.readable()).await;
                woken.expect("never woken").unwrap().clear_ready();
            }
        }
    });
    for client in clients {
        client.join().unwrap();
    }
}

/// Accepts, receives, sends and connects are in flight when the engine goes.
pub fn drops_in_the_middle_of_everything<E: Engine>() {
    let mut server = Driven::<E>::new(64);
    let address = server.listen();
    let mut clients: Vec<TcpStream> = (0..10)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for nth in 0..10 {
        let conn = server.accepted(nth);
        server.send(conn, pattern(6, STALLING_BYTES / 8));
    }
    server.turn();
    server.connect(address);
    drop(server);
    for client in &mut clients {
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut rest = Vec::new();
        // An end or a reset, but an end.
        if let Err(error) = client.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}
