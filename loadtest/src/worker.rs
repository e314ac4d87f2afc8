//! The driver of a worker process: joins a fleet to an I/O engine and to the
//! parent's pipe. The only place here that sleeps.
//!
//! Invariant: a worker ends when its stdin closes, whatever it is doing.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use gateway::engine::epoll::EpollEngine;
use gateway::engine::uring::UringEngine;
use gateway::engine::{ClosedBy, ConnId, Engine, EngineConfig, EngineKind, Events, SendBuffer};
use protocol::time::Time;
use protocol::token::Issuer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock;
use crate::fleet::{Command, Fleet, IN_FLIGHT_MAX, Milestone};
use crate::messages::{FromWorker, LINE_BYTES_MAX, Outcome, ToWorker};
use crate::plan;

/// Events taken from the engine by one call.
const EVENTS_A_POLL: usize = 256;
/// Time, microseconds, for events in one turn; what is due waits no longer. More
/// than what one turn's sends cause, or completions and replies would pile up
/// for as long as sends go on, and count as the server's latency.
const EVENTS_US: u64 = 2_000;
/// Connects begun in one turn; each costs two system calls.
const CONNECTS_A_TURN: usize = 32;
/// How often the parent's pipe is looked at, microseconds.
const INBOX_US: u64 = 10_000;
/// How often the parent is told, microseconds.
const PROGRESS_US: u64 = 500_000;
/// Connections of a worker beside its clients': attempts in flight, and as many that are closing
/// while their clients connect again.
pub const CONNECTIONS_SPARE: u32 = 2 * IN_FLIGHT_MAX;

/// Entry of the hidden subcommand: reads the plan from stdin, reports on stdout.
/// Returns the exit code.
pub fn worker_main() -> u8 {
    // The parent may be killed with no chance to close the pipe in order.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let _ = plan::raise_open_files();
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(input) => serve(input, &mut io::stdout().lock()),
        Err(_) => crate::EXIT_UNABLE,
    }
}

/// Runs a worker on the calling thread until its work is done or `input` ends.
/// Returns the exit code.
pub fn serve(input: OwnedFd, output: &mut dyn Write) -> u8 {
    // Sends are due at exact moments; the default slack is 50 µs.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    match Inbox::new(input).and_then(|inbox| work(inbox, output)) {
        Ok(()) => crate::EXIT_GOOD,
        Err(error) => {
            let outcome = Outcome {
                unable: Some(format!("a worker failed: {error}")),
                ..Outcome::default()
            };
            let _ = write_line(output, &FromWorker::Final(Box::new(outcome)));
            crate::EXIT_UNABLE
        }
    }
}

fn work(mut inbox: Inbox, output: &mut dyn Write) -> io::Result<()> {
    let plan = loop {
        poll(&mut [PollFd::new(&inbox.input, PollFlags::IN)], None)?;
        match inbox.read()? {
            Read::Message(ToWorker::Plan(plan)) => break *plan,
            Read::Message(_) | Read::Nothing => {}
            Read::Ended => return Ok(()),
        }
    };
    let issuer = plan::decode_key::<64>(&plan.token_secret)
        .and_then(|secret| Issuer::new(&secret).ok())
        .ok_or_else(|| {
            io::Error::other("--token-key must be a secret of `sallyport keygen token`")
        })?;
    let config = EngineConfig {
        connections_max: plan.count * plan.sockets_a_client() + CONNECTIONS_SPARE,
        ..EngineConfig::default()
    };
    let mut secret = [0; 32];
    plan::fill_random(&mut secret)?;
    let uring = plan.uring;
    let fleet = Fleet::new(plan, issuer, secret, clock::time());
    if uring {
        drive::<UringEngine>(&config, fleet, inbox, output)
    } else {
        drive::<EpollEngine>(&config, fleet, inbox, output)
    }
}

struct Sink<'a>(&'a mut Fleet);

impl Events for Sink<'_> {
    fn accepted(&mut self, _conn: ConnId, _peer: Option<std::net::SocketAddr>) {}

    fn connected(&mut self, conn: ConnId, result: io::Result<()>) {
        // After an error `closed` follows and says the same.
        if result.is_ok() {
            self.0.handle_connected(conn, clock::now());
        }
    }

    fn received(&mut self, conn: ConnId, data: &mut [u8]) {
        // Read here, not once a turn: it ends a latency.
        self.0.handle_received(conn, data, clock::time());
    }

    fn sent(&mut self, conn: ConnId, buf: SendBuffer, _result: io::Result<()>) {
        self.0.handle_sent(conn, buf.into_own());
    }

    fn closed(&mut self, conn: ConnId, why: ClosedBy) {
        self.0.handle_closed(conn, why, clock::time());
    }
}

fn drive<E: Engine>(
    config: &EngineConfig,
    mut fleet: Fleet,
    mut inbox: Inbox,
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut engine = E::new(config)?;
    let (mut inbox_at, mut progress_at) = (Time(0), clock::time() + PROGRESS_US);
    loop {
        let events_until = clock::time() + EVENTS_US;
        while engine.poll(&mut Sink(&mut fleet), EVENTS_A_POLL)? >= EVENTS_A_POLL
            && clock::time() < events_until
        {}
        let now = clock::time();
        fleet.handle_turn(now);
        start_connects(&mut engine, &mut fleet, now);
        while let Some(command) = fleet.poll_command(now) {
            match command {
                Command::Send(conn, buf) => {
                    if let Err(buf) = engine.send(conn, buf.into()) {
                        fleet.handle_refused(conn, buf.into_own());
                    }
                }
                Command::Close(conn) => engine.close(conn),
            }
        }
        match fleet.poll_milestone() {
            Some(Milestone::Ready) => {
                write_line(output, &FromWorker::Ready(fleet.progress(now)))?;
            }
            Some(Milestone::Drained) => {
                write_line(output, &FromWorker::Drained(fleet.progress(now)))?;
            }
            Some(Milestone::Done) => {
                return write_line(output, &FromWorker::Final(Box::new(fleet.outcome())));
            }
            None => {}
        }
        if now >= progress_at {
            progress_at = now + PROGRESS_US;
            write_line(output, &FromWorker::Progress(fleet.progress(now)))?;
        }
        if now >= inbox_at {
            inbox_at = now + INBOX_US;
            loop {
                match inbox.read()? {
                    Read::Message(ToWorker::Start { at_us }) => fleet.handle_start(Time(at_us)),
                    Read::Message(ToWorker::Finish) => fleet.handle_finish(now),
                    Read::Message(ToWorker::Plan(_)) => {}
                    Read::Nothing => break,
                    Read::Ended => return Ok(()),
                }
            }
        }
        if engine.flush()? {
            continue;
        }
        let now = clock::time();
        let sleep_us = fleet.poll_timeout(now).us_since(now);
        if sleep_us > 0 {
            sleep(&mut engine, Duration::from_micros(sleep_us))?;
        }
    }
}

fn start_connects<E: Engine>(engine: &mut E, fleet: &mut Fleet, now: Time) {
    for _ in 0..CONNECTS_A_TURN {
        let Some(connect) = fleet.poll_connect(now) else {
            break;
        };
        match engine.connect(connect.carries, connect.to, connect.from) {
            Ok(conn) => fleet.handle_connecting(&connect, conn),
            Err(error) => fleet.handle_connect_error(&connect, &error, now),
        }
    }
}

/// Sleeps until the engine has something or the time has passed.
fn sleep<E: Engine>(engine: &mut E, timeout: Duration) -> io::Result<()> {
    if engine.kind() == EngineKind::Uring {
        return engine.wait(timeout);
    }
    // The epoll engine waits in whole milliseconds, which sends a second apart
    // by tens of microseconds would all inherit as latency.
    let fd = engine.wake_fd();
    let timeout = Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn write_line(output: &mut dyn Write, message: &FromWorker) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

enum Read {
    Message(ToWorker),
    Nothing,
    Ended,
}

/// The parent's lines, read without blocking.
struct Inbox {
    input: OwnedFd,
    bytes: Vec<u8>,
}

impl Inbox {
    fn new(input: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&input)?;
        rustix::fs::fcntl_setfl(&input, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self {
            input,
            bytes: Vec::new(),
        })
    }

    fn read(&mut self) -> io::Result<Read> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Ok(Read::Message(serde_json::from_slice(&line)?));
            }
            if self.bytes.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a line of the parent is too long"));
            }
            let mut chunk = [0; 4_096];
            match rustix::io::read(&self.input, &mut chunk) {
                Ok(0) => return Ok(Read::Ended),
                Ok(read) => self.bytes.extend_from_slice(&chunk[..read]),
                Err(rustix::io::Errno::AGAIN) => return Ok(Read::Nothing),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
