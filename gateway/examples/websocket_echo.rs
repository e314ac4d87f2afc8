//! A WebSocket server that echoes messages, text and binary: the gateway's own
//! front and engines with an application that conformance suites know how to ask.
//!
//!     websocket_echo [uring|epoll] [ADDRESS]
//!
//! Prints where it listens and runs until it is killed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use gateway::engine::epoll::EpollEngine;
use gateway::engine::uring::UringEngine;
use gateway::engine::{ClosedBy, ConnId, Engine, EngineConfig, Events, SendBuffer};
use gateway::front::{Front, FrontConfig, Step};
use protocol::buffers::Buffers;

/// The longest message of Autobahn's cases has 16 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

struct Conn {
    id: ConnId,
    front: Box<Front>,
    sending: bool,
    closing: bool,
    shut: bool,
}

#[derive(Default)]
struct Echo {
    config: FrontConfig,
    pool: Buffers,
    conns: Vec<Option<Conn>>,
    /// Connections that may have something to send.
    dirty: Vec<ConnId>,
}

impl Echo {
    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(id.index as usize)?.as_mut()?;
        (conn.id == id).then_some(conn)
    }

    fn send_all<E: Engine>(&mut self, engine: &mut E) {
        for id in std::mem::take(&mut self.dirty) {
            let Some(Some(conn)) = self.conns.get_mut(id.index as usize) else {
                continue;
            };
            if conn.id != id || conn.sending {
                continue;
            }
            let mut out = Vec::new();
            conn.front.wrap(&mut out, conn.closing, &mut self.pool);
            if !out.is_empty() {
                conn.sending = engine.send(id, out.into()).is_ok();
            } else if conn.closing && !std::mem::replace(&mut conn.shut, true) {
                engine.shutdown_write(id);
            }
        }
    }
}

impl Events for Echo {
    fn accepted(&mut self, id: ConnId, _peer: Option<SocketAddr>) {
        let index = id.index as usize;
        if index >= self.conns.len() {
            self.conns.resize_with(index + 1, || None);
        }
        self.conns[index] = Front::of_first_bytes(*b"GET", &[]).map(|front| Conn {
            id,
            front,
            sending: false,
            closing: false,
            shut: false,
        });
    }

    fn connected(&mut self, _: ConnId, _: io::Result<()>) {}

    fn received(&mut self, id: ConnId, mut data: &mut [u8]) {
        let Some(Some(conn)) = self.conns.get_mut(id.index as usize) else {
            return;
        };
        let Conn { front, closing, .. } = conn;
        while !*closing {
            let step = front.next(
                &self.config,
                None,
                &mut data,
                MESSAGE_BYTES_MAX,
                &mut self.pool,
            );
            match step {
                Ok(Step::Wait) => break,
                Ok(Step::Message { text, bytes }) => {
                    // It goes out as it came, once the front is free again.
                    let bytes = bytes.to_vec();
                    front.send(text, &bytes);
                }
                Ok(Step::Open(_) | Step::Overhead(_) | Step::Done(_)) => {}
                Err(reason) => {
                    front.end(reason);
                    *closing = true;
                }
            }
        }
        self.dirty.push(id);
    }

    fn sent(&mut self, id: ConnId, buffer: SendBuffer, _: io::Result<()>) {
        self.pool.give(buffer.into_own());
        if let Some(conn) = self.conn(id) {
            conn.sending = false;
            self.dirty.push(id);
        }
    }

    fn closed(&mut self, id: ConnId, _: ClosedBy) {
        if self.conn(id).is_some() {
            self.conns[id.index as usize] = None;
        }
    }
}

fn run<E: Engine>(listener: TcpListener) -> io::Result<()> {
    let mut engine = E::new(&EngineConfig {
        connections_max: 1_024,
        ..EngineConfig::default()
    })?;
    engine.listen(listener)?;
    let mut echo = Echo::default();
    loop {
        engine.poll(&mut echo, 1_024)?;
        echo.send_all(&mut engine);
        engine.wait(Duration::from_secs(1))?;
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let engine = arguments.next().unwrap_or_else(|| "epoll".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("listens on {}", listener.local_addr()?);
    match engine.as_str() {
        "uring" => run::<UringEngine>(listener),
        _ => run::<EpollEngine>(listener),
    }
}
