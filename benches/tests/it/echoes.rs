//! Both echo servers under a short closed loop, and with more bytes than a
//! buffer holds; and both servers that send what they hear to everybody.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use benches::closed_loop::{Args, Mode, run};
use benches::echo::{self, Serve};
use benches::fanout;

const CONNECTIONS: u32 = 20;
/// More, since closing takes a moment.
const CONNECTIONS_MAX: u32 = 100;

/// A server on its own thread.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(serve: Serve) -> Self {
        let listener = echo::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || serve(listener, CONNECTIONS_MAX, &stopped).unwrap());
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn load(target: SocketAddr, mode: Mode) -> Args {
    Args {
        target,
        mode,
        connections: CONNECTIONS,
        payload_bytes: 64,
        warm_up: 0.0,
        seconds: 0.05,
        cpu_of: Some(std::process::id()),
        cpu_of_backend: None,
        core: None,
        key: None,
        token_key: None,
    }
}

/// Every message reaches every member.
fn check_fan_out(serve: Serve) {
    let server = Server::start(serve);
    let outcome = run(&load(server.address, Mode::FanOutRaw)).unwrap();
    assert!(outcome.round_trips >= u64::from(CONNECTIONS));
}

fn check(serve: Serve) {
    let server = Server::start(serve);
    // Twice: the second time in slots that were used before.
    for _ in 0..2 {
        let outcome = run(&load(server.address, Mode::Raw)).unwrap();
        assert!(outcome.round_trips > 0);
        large(server.address);
    }
}

/// More than the buffers of both sockets hold comes back in order.
fn large(address: SocketAddr) {
    let sent: Vec<u8> = (0..4_000_000_u32).map(|at| (at / 7) as u8).collect();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent).unwrap());
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).unwrap();
        assert!(back == sent, "the same bytes in order");
    });
}

#[test]
fn writes_to_all() {
    check_fan_out(fanout::write::serve);
}

#[test]
fn epoll() {
    check(echo::epoll::serve);
}

#[test]
fn ring() {
    if std::env::var_os("SALLYPORT_TEST_WITHOUT_URING").is_some_and(|value| value == "1") {
        let listener = echo::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = echo::ring::serve(listener, 1, &AtomicBool::new(true));
        assert!(refused.is_err(), "io_uring works although it should not");
        return;
    }
    check(echo::ring::serve);
    check_fan_out(fanout::ring::serve);
}
