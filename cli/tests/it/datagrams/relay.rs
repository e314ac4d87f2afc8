//! A path between a client and the gateway that loses, doubles and exchanges datagrams, keeps
//! what the client sent, and can change the address that the gateway sees.
//!
//! It ends when it is dropped.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bad luck, in thousandths; the same in each run.
#[derive(Clone, Copy, Default)]
pub struct Luck {
    /// Lost.
    pub loss: u64,
    /// Sent twice.
    pub double: u64,
    /// Kept until the next one has passed.
    pub late: u64,
}

struct State {
    /// The socket that the gateway sees.
    outer: UdpSocket,
    client: Option<SocketAddr>,
    luck: Luck,
    random: u64,
    /// What waits for the next one: towards the gateway, towards the client.
    held: [Option<Vec<u8>>; 2],
    recorded: Vec<Vec<u8>>,
}

impl State {
    fn chance(&mut self, permille: u64) -> bool {
        // xorshift64: enough for luck.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1_000 < permille
    }

    /// The datagrams that leave because this one came.
    fn pass(&mut self, way: usize, datagram: &[u8]) -> Vec<Vec<u8>> {
        let luck = self.luck;
        let mut out = Vec::new();
        if !self.chance(luck.loss) {
            if self.held[way].is_none() && self.chance(luck.late) {
                self.held[way] = Some(datagram.to_vec());
                return out;
            }
            out.push(datagram.to_vec());
            if self.chance(luck.double) {
                out.push(datagram.to_vec());
            }
        }
        out.extend(self.held[way].take());
        out
    }
}

/// See the module.
pub struct Relay {
    /// Where the client sends to.
    pub address: SocketAddr,
    gateway: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn outer(gateway: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(gateway).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

impl Relay {
    /// A path to this gateway.
    pub fn start(gateway: SocketAddr, luck: Luck) -> Self {
        let inner = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = inner.local_addr().expect("bound");
        let pause = Some(Duration::from_millis(1));
        inner.set_read_timeout(pause).expect("a socket");
        let state = Arc::new(Mutex::new(State {
            outer: outer(gateway),
            client: None,
            luck,
            random: 0x9e37_79b9_7f4a_7c15,
            held: [None, None],
            recorded: Vec::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 2_048];
            while !stopped.load(Ordering::Relaxed) {
                let came = inner.recv_from(&mut bytes);
                let mut state = shared.lock().expect("no panic there");
                if let Ok((length, from)) = came {
                    state.client = Some(from);
                    state.recorded.push(bytes[..length].to_vec());
                    for datagram in state.pass(0, &bytes[..length]) {
                        let _ = state.outer.send(&datagram);
                    }
                }
                while let Ok(length) = state.outer.recv(&mut bytes) {
                    for datagram in state.pass(1, &bytes[..length]) {
                        if let Some(client) = state.client {
                            let _ = inner.send_to(&datagram, client);
                        }
                    }
                }
            }
        });
        Self {
            address,
            gateway,
            state,
            stop,
            thread: Some(thread),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic there")
    }

    /// From now on the gateway sees another address.
    pub fn rebind(&self) {
        self.state().outer = outer(self.gateway);
    }

    /// What the client sent so far.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.state().recorded.clone()
    }

    /// Sends this to the gateway, from the address that it knows.
    pub fn send(&self, datagram: &[u8]) {
        self.state().outer.send(datagram).expect("sent");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
