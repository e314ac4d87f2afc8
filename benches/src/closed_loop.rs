//! A load in a closed loop: each connection has one request outstanding and
//! sends the next when its answer is there, so the server is as busy as the
//! slower of the two allows. It talks to an echo ([`Mode::Raw`]) or to a gateway
//! with an echoing game behind it ([`Mode::Gateway`]), over the gateway's own
//! I/O engines, on one thread. Or all connections hear what the first one says
//! ([`Mode::FanOutRaw`], [`Mode::FanOutGateway`]), which says the next when all have.
//!
//! Deliberately not here: latency. In a closed loop it only says how many
//! requests wait; `sallyport loadtest` measures it.
//!
//! Invariant: every answer is compared with its request, and a wrong or missing
//! one ends the run with an error.

mod gateway_talk;
mod members;
mod raw_talk;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gateway::engine::epoll::EpollEngine;
use gateway::engine::uring::UringEngine;
use gateway::engine::{Carries, ClosedBy, ConnId, Engine, EngineConfig, Events, SendBuffer, probe};
use loadtest::clock;
use protocol::buffers::Buffers;
use protocol::time::{Now, Time};
use serde::Serialize;

use self::gateway_talk::GatewayTalk;
use self::members::{Members, RawMembers};
use self::raw_talk::RawTalk;
use crate::cores;

/// Connects and logins in flight: as a load test's worker has.
const IN_FLIGHT_MAX: u32 = 256;
/// Connections from one source address: see `CLIENTS_PER_SOURCE` of loadtest.
const CONNECTIONS_PER_SOURCE: u32 = 8_000;
/// Events taken from the engine by one call.
const EVENTS_A_POLL: usize = 256;
/// Time for events in one turn, microseconds.
const EVENTS_US: u64 = 2_000;
/// The longest sleep; there is no timer that must be met more exactly.
const SLEEP: Duration = Duration::from_millis(5);
/// How long, ms, nothing may happen before the run is given up.
const STALL_MS: u64 = 20_000;
/// How often everybody's timers are looked at, ms. They are seconds long.
const SWEEP_MS: u64 = 500;

/// What it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Whatever sends back what it is sent.
    Raw,
    /// A gateway with an echoing game.
    Gateway,
    /// Whatever sends to everybody what anybody sends it.
    FanOutRaw,
    /// A gateway with the game `chat`: all are members of one channel.
    FanOutGateway,
}

/// Arguments of `closed-loop`.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// The server, on loopback.
    pub target: SocketAddr,
    /// What it is.
    #[arg(long, value_enum)]
    pub mode: Mode,
    /// Connections, each with one request outstanding.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub connections: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..=4_096))]
    pub payload_bytes: u16,
    /// Seconds of load before the window.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Seconds of the window.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// The process whose CPU is taken at both ends of the window.
    #[arg(long)]
    pub cpu_of: Option<u32>,
    /// The process behind it, likewise.
    #[arg(long)]
    pub cpu_of_backend: Option<u32>,
    /// The core to stay on, counted among those allowed.
    #[arg(long)]
    pub core: Option<usize>,
    /// The gateway's public key, base64url.
    #[arg(long, allow_hyphen_values = true, required_if_eq_any([("mode", "gateway"), ("mode", "fan-out-gateway")]))]
    pub key: Option<String>,
    /// The secret that signs tokens, base64url.
    #[arg(long, allow_hyphen_values = true, required_if_eq_any([("mode", "gateway"), ("mode", "fan-out-gateway")]))]
    pub token_key: Option<String>,
}

/// What was measured in the window.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Connections that took part, all of them.
    pub connections: u32,
    /// Its length.
    pub seconds: f64,
    /// Answers in it, each right.
    pub round_trips: u64,
    /// Bytes that came in it.
    pub received_bytes: u64,
    /// CPU seconds of `--cpu-of`.
    pub server_cpu_seconds: f64,
    /// CPU seconds of `--cpu-of-backend`.
    pub backend_cpu_seconds: f64,
    /// CPU seconds of this process.
    pub load_cpu_seconds: f64,
}

/// What a connection says, and what it makes of what it hears. All times are
/// those of the caller.
trait Talk {
    /// The connection stands.
    fn handle_connected(&mut self, index: u32, now: Now) -> io::Result<Heard>;

    /// Bytes arrived.
    fn handle_received(&mut self, index: u32, data: &mut [u8], now: Time) -> io::Result<Heard>;

    /// The next request; nothing is outstanding. Which line has something to send now.
    fn ask(&mut self, index: u32) -> io::Result<u32>;

    /// Appends what there is to send; `false` if that is nothing.
    fn poll_transmit(&mut self, index: u32, now: Time, out: &mut Vec<u8>) -> bool;

    /// Time has passed.
    fn handle_timeout(&mut self, index: u32, now: Time) -> io::Result<()>;
}

/// What bytes meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing whole, or nothing of interest.
    Nothing,
    /// From now on it can ask.
    Ready,
    /// The answer.
    Answer,
}

#[derive(Clone, Copy, Default)]
struct Line {
    conn: Option<ConnId>,
    is_ready: bool,
    is_dirty: bool,
    is_sending: bool,
    /// There is more behind the buffer on its way.
    has_more: bool,
}

/// Everything but the engine.
struct Loop<T> {
    talk: T,
    target: SocketAddr,
    lines: Vec<Line>,
    /// By the engine's index.
    by_conn: Vec<u32>,
    /// Lines with something to send.
    dirty: Vec<u32>,
    buffers: Buffers,
    /// Lines that were begun, and those that can ask.
    begun: u32,
    ready: u32,
    is_asking: bool,
    /// It does not sleep: whom a server has to wake differs with the receivers' pace.
    is_restless: bool,
    round_trips: u64,
    received_bytes: u64,
    /// When a line last became ready or got an answer.
    advanced_at: Time,
    sweep_at: Time,
    failure: Option<io::Error>,
}

/// Runs to the end of the window.
///
/// # Errors
/// The server cannot be reached, closes, answers wrongly or not at all.
pub fn run(args: &Args) -> io::Result<Outcome> {
    if !matches!(args.target.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
        return Err(io::Error::other("the target must be in 127.0.0.0/8"));
    }
    for seconds in [args.warm_up, args.seconds] {
        if !(0.0..=600.0).contains(&seconds) {
            return Err(io::Error::other("a time must be between 0 and 600 s"));
        }
    }
    loadtest::plan::raise_open_files()?;
    if let Some(core) = args.core {
        cores::pin(core)?;
    }
    match args.mode {
        Mode::Raw => on_an_engine(args, RawTalk::new(args)),
        Mode::Gateway => on_an_engine(args, GatewayTalk::new(args)?),
        Mode::FanOutRaw => on_an_engine(args, RawMembers::new(args)),
        Mode::FanOutGateway => on_an_engine(args, Members::new(args)?),
    }
}

fn on_an_engine(args: &Args, talk: impl Talk) -> io::Result<Outcome> {
    if probe().is_ok() {
        drive::<UringEngine, _>(args, talk)
    } else {
        drive::<EpollEngine, _>(args, talk)
    }
}

fn drive<E: Engine, T: Talk>(args: &Args, talk: T) -> io::Result<Outcome> {
    let mut engine = E::new(&EngineConfig {
        connections_max: args.connections,
        ..EngineConfig::default()
    })?;
    let mut lines = Loop {
        talk,
        target: args.target,
        lines: vec![Line::default(); args.connections as usize],
        by_conn: vec![0; args.connections as usize],
        dirty: Vec::new(),
        buffers: Buffers::default(),
        begun: 0,
        ready: 0,
        is_asking: false,
        is_restless: matches!(args.mode, Mode::FanOutRaw | Mode::FanOutGateway),
        round_trips: 0,
        received_bytes: 0,
        advanced_at: clock::time(),
        sweep_at: clock::time().after_ms(SWEEP_MS),
        failure: None,
    };
    while lines.ready < args.connections {
        lines.turn(&mut engine)?;
    }
    lines.start_asking()?;
    let load_until = |lines: &mut Loop<T>, engine: &mut E, end: Time| -> io::Result<()> {
        while clock::time() < end {
            lines.turn(engine)?;
        }
        Ok(())
    };
    let begin = clock::time() + us(args.warm_up);
    load_until(&mut lines, &mut engine, begin)?;
    let before = Marks::take(args, &lines)?;
    load_until(&mut lines, &mut engine, before.at + us(args.seconds))?;
    let after = Marks::take(args, &lines)?;
    Ok(Outcome {
        connections: args.connections,
        seconds: after.at.us_since(before.at) as f64 / 1e6,
        round_trips: after.round_trips - before.round_trips,
        received_bytes: after.received_bytes - before.received_bytes,
        server_cpu_seconds: after.server_cpu_seconds - before.server_cpu_seconds,
        backend_cpu_seconds: after.backend_cpu_seconds - before.backend_cpu_seconds,
        load_cpu_seconds: after.load_cpu_seconds - before.load_cpu_seconds,
    })
}

/// What is read at either end of the window.
struct Marks {
    at: Time,
    round_trips: u64,
    received_bytes: u64,
    server_cpu_seconds: f64,
    backend_cpu_seconds: f64,
    load_cpu_seconds: f64,
}

impl Marks {
    fn take<T>(args: &Args, lines: &Loop<T>) -> io::Result<Self> {
        let cpu_of = |process: Option<u32>| process.map_or(Ok(0.0), cores::cpu_seconds);
        Ok(Self {
            at: clock::time(),
            round_trips: lines.round_trips,
            received_bytes: lines.received_bytes,
            server_cpu_seconds: cpu_of(args.cpu_of)?,
            backend_cpu_seconds: cpu_of(args.cpu_of_backend)?,
            load_cpu_seconds: cpu_of(Some(std::process::id()))?,
        })
    }
}

fn us(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

impl<T: Talk> Loop<T> {
    /// Events, what they lead to, and a sleep if nothing is to be done.
    fn turn<E: Engine>(&mut self, engine: &mut E) -> io::Result<()> {
        let until = clock::time() + EVENTS_US;
        while engine.poll(self, EVENTS_A_POLL)? >= EVENTS_A_POLL && clock::time() < until {}
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let now = clock::time();
        if now >= self.advanced_at.after_ms(STALL_MS) {
            let ready = self.ready;
            let problem =
                format!("nothing was answered for {STALL_MS} ms; {ready} connections could ask");
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
        self.connect_some(engine)?;
        if now >= self.sweep_at {
            self.sweep_at = now.after_ms(SWEEP_MS);
            for index in 0..self.begun {
                self.talk.handle_timeout(index, now)?;
                self.mark(index);
            }
        }
        while let Some(index) = self.dirty.pop() {
            self.send(engine, index, now)?;
        }
        let has_more = engine.flush()?;
        if !has_more && (!self.is_restless || !self.is_asking) {
            engine.wait(SLEEP)?;
        }
        Ok(())
    }

    fn connect_some<E: Engine>(&mut self, engine: &mut E) -> io::Result<()> {
        while (self.begun as usize) < self.lines.len() && self.begun - self.ready < IN_FLIGHT_MAX {
            let index = self.begun;
            let source = Ipv4Addr::new(127, 0, 0, 1 + (index / CONNECTIONS_PER_SOURCE) as u8);
            let conn = engine.connect(Carries::Stream, self.target, Some(IpAddr::V4(source)))?;
            self.by_conn[conn.index as usize] = index;
            self.lines[index as usize].conn = Some(conn);
            self.begun += 1;
        }
        Ok(())
    }

    fn send<E: Engine>(&mut self, engine: &mut E, index: u32, now: Time) -> io::Result<()> {
        let line = &mut self.lines[index as usize];
        line.is_dirty = false;
        let Some(conn) = line.conn else {
            return Ok(());
        };
        if line.is_sending {
            line.has_more = true;
            return Ok(());
        }
        let mut buffer = self.buffers.take();
        if !self.talk.poll_transmit(index, now, &mut buffer) {
            self.buffers.give(buffer);
            return Ok(());
        }
        line.is_sending = true;
        engine
            .send(conn, buffer.into())
            .map_err(|_| io::Error::other("the engine takes no more to send"))
    }

    fn mark(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        if !line.is_dirty {
            line.is_dirty = true;
            self.dirty.push(index);
        }
    }

    fn start_asking(&mut self) -> io::Result<()> {
        self.is_asking = true;
        for index in 0..self.lines.len() as u32 {
            let index = self.talk.ask(index)?;
            self.mark(index);
        }
        Ok(())
    }

    fn index_of(&self, conn: ConnId) -> Option<u32> {
        let index = *self.by_conn.get(conn.index as usize)?;
        (self.lines[index as usize].conn == Some(conn)).then_some(index)
    }

    fn fail(&mut self, error: io::Error) {
        self.failure.get_or_insert(error);
    }

    fn heard(&mut self, index: u32, heard: Heard, now: Time) -> io::Result<()> {
        match heard {
            Heard::Nothing => {}
            Heard::Ready => {
                self.advanced_at = now;
                let line = &mut self.lines[index as usize];
                if !std::mem::replace(&mut line.is_ready, true) {
                    self.ready += 1;
                }
            }
            Heard::Answer => {
                self.advanced_at = now;
                self.round_trips += 1;
                if self.is_asking {
                    let asker = self.talk.ask(index)?;
                    self.mark(asker);
                }
            }
        }
        self.mark(index);
        Ok(())
    }
}

impl<T: Talk> Events for Loop<T> {
    fn accepted(&mut self, _conn: ConnId, _peer: Option<SocketAddr>) {}

    fn connected(&mut self, conn: ConnId, result: io::Result<()>) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        let now = clock::now();
        let done = result
            .and_then(|()| self.talk.handle_connected(index, now))
            .and_then(|heard| self.heard(index, heard, now.time));
        if let Err(error) = done {
            self.fail(error);
        }
    }

    fn received(&mut self, conn: ConnId, data: &mut [u8]) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        self.received_bytes += data.len() as u64;
        let now = clock::time();
        let done = self
            .talk
            .handle_received(index, data, now)
            .and_then(|heard| self.heard(index, heard, now));
        if let Err(error) = done {
            self.fail(error);
        }
    }

    fn sent(&mut self, conn: ConnId, buf: SendBuffer, _result: io::Result<()>) {
        self.buffers.give(buf.into_own());
        if let Some(index) = self.index_of(conn) {
            let line = &mut self.lines[index as usize];
            line.is_sending = false;
            if std::mem::take(&mut line.has_more) {
                self.mark(index);
            }
        }
    }

    fn closed(&mut self, conn: ConnId, why: ClosedBy) {
        if self.index_of(conn).is_some() {
            self.fail(io::Error::other(format!(
                "a connection was closed: {why:?}"
            )));
        }
    }
}
