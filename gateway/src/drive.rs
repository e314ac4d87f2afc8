//! The driver: threads with a core each, their sockets, their uplinks.
//!
//! It decides nothing about clients; it moves bytes and time between an engine,
//! the links, and the shard's core. Each shard is one pinned thread with one
//! blocking point, the reactor, which the engine wakes through its descriptor.

mod operator;
mod pace;
mod sockets;
mod uplinks;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::ids::ShardId;
use protocol::reason::DropReason;
use protocol::time::{Now, Time};
use protocol::token::Verifier;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Sleep;
use uplink::{DialTarget, Identity};

use crate::counters::Counters;
use crate::datagrams::Datagrams;
use crate::engine::epoll::EpollEngine;
use crate::engine::uring::UringEngine;
use crate::engine::{self, ClosedBy, ConnId, Engine, EngineConfig, EngineKind, Events, SendBuffer};
use crate::shard::{Action, DatagramConfig, Notice, Shard, ShardConfig};
use operator::{Ask, Desk};
pub use operator::{Busy, Operator};
use pace::Pace;
use sockets::bind;
use uplinks::Uplinks;

/// Events that one turn takes from the engine; bounds how long the uplinks and
/// timers wait behind clients: about a millisecond.
const EVENTS_PER_TURN: usize = 1_024;

/// Scheduler ticks between two looks at the sockets of the uplinks. tokio's
/// default of 61 is made for many small tasks; here a turn of the shard is one.
const EVENT_INTERVAL: u32 = 4;

/// What a gateway process is built from.
pub struct GatewayConfig {
    /// What each shard is built from; its index is filled in.
    pub shard: ShardConfig,
    /// How many shards; at least 1.
    pub shards: u32,
    /// Whether each shard's thread stays on one core.
    pub pin: bool,
    /// `None`: io_uring where it works, else epoll.
    pub engine: Option<EngineKind>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Whether clients may come over UDP too, at the same port.
    pub udp: bool,
    /// Connections at once, over all shards, for each of TCP and UDP.
    pub connections_max: u32,
    /// Audience of login tokens.
    pub audience: String,
    /// Public keys under which login tokens may be signed.
    pub token_keys: Vec<[u8; 32]>,
    /// Proves this gateway to backends.
    pub identity: Identity,
    /// Center.
    pub center: DialTarget,
    /// The instances of all groups, in the order of `shard.groups`.
    pub instances: Vec<DialTarget>,
}

impl std::fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("listen", &self.listen)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// Why a gateway can't start, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is in use.
    #[error(
        "{0} is taken by another process: `ss -ltunp` shows which; stop it or choose another port"
    )]
    PortTaken(SocketAddr),
    /// Any other failure of the listening socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// The engine was demanded and does not work here.
    #[error("engine = \"uring\" is demanded, but {0}")]
    UringUnavailable(String),
    /// An engine or thread can't be made.
    #[error("cannot start shard {shard}: {source}")]
    Shard {
        /// Which.
        shard: u32,
        /// The system's words.
        source: io::Error,
    },
    /// A token key is not an Ed25519 public key.
    #[error("a key in [token] keys is not an Ed25519 public key")]
    TokenKey,
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
}

/// A running gateway. Dropping it does not stop it; `drain` and `join` do.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    engine: EngineKind,
    shards: Vec<RunningShard>,
    stop: Arc<Stop>,
}

#[derive(Debug)]
struct RunningShard {
    counters: Arc<Counters>,
    status: Arc<Status>,
    ask: Ask,
    thread: JoinHandle<()>,
}

/// What a shard's thread tells the others.
#[derive(Debug, Default)]
struct Status {
    ready: AtomicBool,
}

/// How the others tell the shards to end.
#[derive(Debug, Default)]
struct Stop {
    draining: AtomicBool,
    now: AtomicBool,
    wake: Vec<Notify>,
}

impl Gateway {
    /// Binds the port, makes the engines and starts the shards.
    ///
    /// # Errors
    /// `StartError`; nothing is left running.
    pub fn start(config: GatewayConfig) -> Result<Self, StartError> {
        let engine = choose_engine(config.engine)?;
        let (address, listeners, sockets) = bind(&config)?;
        let mut cookie_secret = [0; 32];
        fill_random(&mut cookie_secret).map_err(StartError::Random)?;
        let connections_max = config.connections_max.div_ceil(config.shards).max(1);
        // The shards share tables with times in them.
        let origin = Instant::now();
        let stop = Arc::new(Stop {
            wake: (0..config.shards).map(|_| Notify::new()).collect(),
            ..Default::default()
        });
        let mut shards = Vec::new();
        let mut sockets = sockets.into_iter();
        for (index, listener) in (0..config.shards).zip(listeners) {
            let verifier = Verifier::new(config.audience.clone(), &config.token_keys)
                .ok_or(StartError::TokenKey)?;
            let mut seed = [0; 32];
            fill_random(&mut seed).map_err(StartError::Random)?;
            let counters = Arc::new(Counters::default());
            let status = Arc::new(Status::default());
            let (ask, desk) = operator::channel();
            let setup = Setup {
                index,
                core: config.pin.then_some(index as usize),
                config: ShardConfig {
                    shard: ShardId(index),
                    datagrams: config.udp.then_some(DatagramConfig {
                        cookie_secret,
                        first_index: connections_max,
                        connections_max,
                    }),
                    ..config.shard.clone()
                },
                verifier,
                seed,
                counters: Arc::clone(&counters),
                status: Arc::clone(&status),
                stop: Arc::clone(&stop),
                origin,
                listener,
                socket: sockets.next(),
                engine: EngineConfig {
                    connections_max,
                    ..EngineConfig::default()
                },
                identity: config.identity.clone(),
                targets: std::iter::once(config.center)
                    .chain(config.instances.iter().copied())
                    .collect(),
                desk,
            };
            // The engine is made on the thread that uses it; its failure is
            // told through this channel.
            let (started, result) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new()
                .name(format!("gw-{index}"))
                .spawn(move || match engine {
                    EngineKind::Uring => run::<UringEngine>(setup, &started),
                    EngineKind::Epoll => run::<EpollEngine>(setup, &started),
                })
                .map_err(|source| StartError::Shard {
                    shard: index,
                    source,
                })?;
            shards.push(RunningShard {
                counters,
                status,
                ask,
                thread,
            });
            let outcome = result
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
            if let Err(source) = outcome {
                let gateway = Self {
                    address,
                    engine,
                    shards,
                    stop,
                };
                gateway.stop();
                gateway.join();
                return Err(StartError::Shard {
                    shard: index,
                    source,
                });
            }
        }
        tracing::info!(%address, engine = engine.as_str(), shards = config.shards, "gateway listens");
        Ok(Self {
            address,
            engine,
            shards,
            stop,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which engine was chosen.
    pub fn engine(&self) -> EngineKind {
        self.engine
    }

    /// The counters of each shard.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.shards
            .iter()
            .map(|shard| Arc::clone(&shard.counters))
            .collect()
    }

    /// What operators ask and tell the shards, from another thread.
    pub fn operator(&self) -> Operator {
        Operator {
            shards: self.shards.iter().map(|shard| shard.ask.clone()).collect(),
            stop: Arc::clone(&self.stop),
        }
    }

    /// Whether clients can log in on every shard.
    pub fn is_ready(&self) -> bool {
        self.shards
            .iter()
            .all(|shard| shard.status.ready.load(Ordering::Relaxed))
    }

    /// Readiness for another thread to ask.
    pub fn readiness(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let statuses: Vec<_> = self
            .shards
            .iter()
            .map(|shard| Arc::clone(&shard.status))
            .collect();
        move || {
            statuses
                .iter()
                .all(|status| status.ready.load(Ordering::Relaxed))
        }
    }

    /// How many shards there are, and how many of them have ended: by `drain`
    /// or `stop`, or because something is broken, which the log says.
    pub fn shards_ended(&self) -> (usize, usize) {
        let ended = self
            .shards
            .iter()
            .filter(|shard| shard.thread.is_finished())
            .count();
        (self.shards.len(), ended)
    }

    /// Stops accepting and tells every client to go elsewhere; `join` waits
    /// until they have gone, a few seconds at most.
    pub fn drain(&self) {
        self.stop.draining.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Ends at once; clients see their connections break.
    pub fn stop(&self) {
        self.stop.now.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        for notify in &self.stop.wake {
            notify.notify_one();
        }
    }

    /// Waits until every shard has ended.
    pub fn join(self) {
        for shard in self.shards {
            if shard.thread.join().is_err() {
                tracing::error!("a shard's thread panicked");
            }
        }
    }
}

fn choose_engine(wanted: Option<EngineKind>) -> Result<EngineKind, StartError> {
    match (wanted, engine::probe()) {
        (Some(EngineKind::Epoll), _) => Ok(EngineKind::Epoll),
        (_, Ok(())) => Ok(EngineKind::Uring),
        (Some(EngineKind::Uring), Err(why)) => Err(StartError::UringUnavailable(why.to_string())),
        (None, Err(why)) => {
            tracing::warn!(%why, "io_uring does not work here; the epoll engine is used, which costs more CPU");
            Ok(EngineKind::Epoll)
        }
    }
}

fn fill_random(out: &mut [u8]) -> io::Result<()> {
    let filled = rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty())?;
    if filled == out.len() {
        Ok(())
    } else {
        Err(io::Error::other("too few random bytes"))
    }
}

/// A second descriptor of what wakes us.
fn watch(wake: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "unsound only for types that do not own their descriptor; OwnedFd does"
    )]
    AsyncFd::with_interest(wake.try_clone_to_owned()?, tokio::io::Interest::READABLE)
}

/// What a shard's thread is started with.
struct Setup {
    index: u32,
    core: Option<usize>,
    config: ShardConfig,
    verifier: Verifier,
    seed: [u8; 32],
    counters: Arc<Counters>,
    status: Arc<Status>,
    stop: Arc<Stop>,
    origin: Instant,
    listener: TcpListener,
    socket: Option<UdpSocket>,
    engine: EngineConfig,
    identity: Identity,
    targets: Vec<DialTarget>,
    desk: Desk,
}

fn run<E: Engine>(setup: Setup, started: &std::sync::mpsc::SyncSender<io::Result<()>>) {
    if let Some(core) = setup.core {
        pin(core);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build();
    let index = setup.index;
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let driver = ShardDriver::<E>::new(setup)?;
            // The receiver waits; if it is gone, so is the gateway.
            let _ = started.send(Ok(()));
            driver.drive().await
        })
    });
    if let Err(error) = outcome {
        tracing::error!(shard = index, %error, "shard ended");
        let _ = started.try_send(Err(error));
    }
}

/// Keeps this thread on one core. Without the right to do so it stays movable.
fn pin(core: usize) {
    let allowed = match rustix::thread::sched_getaffinity(None) {
        Ok(allowed) => allowed,
        Err(_) => return,
    };
    let cores: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    let mut set = rustix::thread::CpuSet::new();
    if let Some(&cpu) = cores.get(core % cores.len().max(1)) {
        set.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::debug!(%error, "cannot pin the shard's thread");
        }
    }
}

/// One shard with everything around it.
struct ShardDriver<E: Engine> {
    index: usize,
    shard: Shard,
    engine: E,
    /// A second descriptor of what the engine wakes us by.
    wake: AsyncFd<OwnedFd>,
    /// The UDP socket, where there is one, and a second descriptor of what wakes us for it.
    datagrams: Option<(Datagrams, AsyncFd<OwnedFd>)>,
    uplinks: Uplinks,
    desk: Desk,
    clock: Clock,
    counters: Arc<Counters>,
    status: Arc<Status>,
    stop: Arc<Stop>,
    draining: bool,
    pace: Pace,
    sleep: Pin<Box<Sleep>>,
    sleep_until: Option<Time>,
}

/// Reads both clocks.
struct Clock {
    origin: Instant,
}

impl Clock {
    /// Not before `at`: a microsecond short of it the engine would still rest.
    fn time_of(&self, at: Instant) -> Time {
        Time(at.saturating_duration_since(self.origin).as_micros() as u64 + 1)
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            time: Time(self.origin.elapsed().as_micros() as u64),
            unix_ms: unix.as_millis() as u64,
        }
    }
}

impl<E: Engine> ShardDriver<E> {
    fn new(setup: Setup) -> io::Result<Self> {
        let clock = Clock {
            origin: setup.origin,
        };
        let mut engine = E::new(&setup.engine)?;
        engine.listen(setup.listener)?;
        let wake = watch(engine.wake_fd())?;
        let datagrams = match setup.socket {
            Some(socket) => {
                let datagrams = Datagrams::new(engine.kind(), socket)?;
                let wake = watch(datagrams.wake_fd())?;
                Some((datagrams, wake))
            }
            None => None,
        };
        let jitter = setup.config.boot.rotate_left(setup.index);
        let uplinks = Uplinks::new(&setup.identity, &setup.targets, jitter)?;
        let shard = Shard::new(
            setup.config,
            setup.verifier,
            setup.seed,
            Arc::clone(&setup.counters),
            clock.now(),
        );
        Ok(Self {
            index: setup.index as usize,
            shard,
            engine,
            wake,
            datagrams,
            uplinks,
            desk: setup.desk,
            clock,
            counters: setup.counters,
            status: setup.status,
            stop: setup.stop,
            draining: false,
            pace: Pace::default(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            sleep_until: None,
        })
    }

    async fn drive(mut self) -> io::Result<()> {
        let stop = Arc::clone(&self.stop);
        let mut notified = Box::pin(stop.wake[self.index].notified());
        loop {
            let started = Instant::now();
            let busy = self.turn()?;
            self.counters.turns.add(1);
            self.counters
                .busy_us
                .add(started.elapsed().as_micros() as u64);
            if self.is_over() {
                self.uplinks.close().await;
                return Ok(());
            }
            if busy {
                // Lets QUIC's tasks run; the sockets are looked at in between.
                tokio::task::yield_now().await;
                self.poll_uplinks_once().await;
                continue;
            }
            if let Some(wait) = self.pace() {
                // What this turn appended leaves before the wait.
                self.poll_uplinks_once().await;
                tokio::task::yield_now().await;
                std::thread::sleep(wait);
                // The first looks at the sockets, the second lets QUIC read them.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                self.poll_uplinks_once().await;
                continue;
            }
            self.set_sleep();
            poll_fn(|cx| {
                let mut awake = self.poll_uplinks(cx);
                if let Poll::Ready(Ok(mut guard)) = self.wake.poll_read_ready(cx) {
                    guard.clear_ready();
                    awake = true;
                }
                if let Some((_, wake)) = &self.datagrams
                    && let Poll::Ready(Ok(mut guard)) = wake.poll_read_ready(cx)
                {
                    guard.clear_ready();
                    awake = true;
                }
                if self.sleep_until.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
                    self.sleep_until = None;
                    awake = true;
                }
                if notified.as_mut().poll(cx).is_ready() {
                    notified.set(stop.wake[self.index].notified());
                    awake = true;
                }
                if awake {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }

    /// One turn: what arrived goes into the core, what it wants goes out.
    /// Whether there is more to do already.
    fn turn(&mut self) -> io::Result<bool> {
        let now = self.clock.now();
        let mut sink = Sink {
            shard: &mut self.shard,
            now,
        };
        let mut events = self.engine.poll(&mut sink, EVENTS_PER_TURN)?;
        if let Some((datagrams, _)) = &mut self.datagrams {
            events += datagrams.poll(EVENTS_PER_TURN, |from, data| {
                self.shard.handle_datagram(now, from, data);
            })?;
        }
        if self.stop.draining.load(Ordering::Relaxed) && !self.draining {
            self.draining = true;
            self.engine.stop_listening();
            self.shard.handle_drain();
        }
        self.shard.handle_timeout(now);
        while let Some((conn, buffer)) = self.shard.poll_send() {
            if let Err(buffer) = self.engine.send(conn, buffer) {
                // The connection is ending; `closed` follows.
                self.shard.handle_sent(conn, buffer);
            }
        }
        self.send_datagrams(now);
        while let Some(action) = self.shard.poll_action() {
            self.act(action);
        }
        self.uplinks.collect(&mut self.shard);
        let counts = self.engine.counters();
        self.counters.accept_full.set(counts.accept_full);
        self.counters.accept_failed.set(counts.accept_failed);
        let starved = self.datagrams.as_ref().map_or(0, |(it, _)| it.starved());
        self.counters
            .receive_starved
            .set(counts.receive_starved + starved);
        self.status
            .ready
            .store(self.shard.is_ready(), Ordering::Relaxed);
        let mut more = self.desk.turn(&mut self.shard, now);
        more |= self.engine.flush()?;
        if let Some((datagrams, _)) = &mut self.datagrams {
            more |= datagrams.is_full() || datagrams.prepare_sleep()?;
        }
        Ok(more
            || events >= EVENTS_PER_TURN
            || self.shard.poll_timeout().is_some_and(|at| at <= now.time))
    }

    /// What the core has for clients over datagrams, in few calls.
    fn send_datagrams(&mut self, now: Now) {
        let Some((datagrams, _)) = &mut self.datagrams else {
            return;
        };
        while let Some(out) = datagrams.room() {
            match self.shard.poll_datagrams(now, out) {
                Some((to, segment_bytes)) => datagrams.queue(to, segment_bytes),
                None => break,
            }
        }
        for _ in 0..datagrams.flush() {
            self.counters.drop_frame(DropReason::DatagramUnsent);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Close(conn) => self.engine.close(conn),
            Action::ShutdownWrite(conn) => self.engine.shutdown_write(conn),
            Action::Pause(conn) => self.engine.pause(conn),
            Action::Resume(conn) => self.engine.resume(conn),
            Action::CloseUplink(uplink) => self.uplinks.refuse(uplink),
            Action::Notice(notice) => self.log(&notice),
        }
    }

    fn log(&self, notice: &Notice) {
        let shard = self.index;
        match notice {
            Notice::UplinkUp { uplink, instance } => {
                let address = self.uplinks.address(*uplink);
                tracing::info!(shard, instance, %address, "uplink is up");
            }
            Notice::UplinkRefused { uplink, why } => {
                let address = self.uplinks.address(*uplink);
                tracing::error!(shard, %address, why, "uplink refused");
            }
            Notice::LeaseLost => {
                tracing::error!(
                    shard,
                    "center did not renew the lease in time: all sessions are closed"
                );
            }
        }
    }

    /// Gives the links what was appended and takes what came. Whether anything
    /// came.
    fn poll_uplinks(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let now = self.clock.now();
        self.uplinks.poll(cx, now, &mut self.shard)
    }

    async fn poll_uplinks_once(&mut self) {
        poll_fn(|cx| {
            self.poll_uplinks(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// How long to wait before the next turn, if the load makes that pay.
    fn pace(&mut self) -> Option<Duration> {
        let frames = self.counters.frames_received.value() + self.counters.frames_sent.value();
        self.pace.wait(self.clock.now().time, frames)
    }

    fn set_sleep(&mut self) {
        let engine = self.engine.poll_timeout().map(|at| self.clock.time_of(at));
        let wanted = [self.shard.poll_timeout(), engine]
            .into_iter()
            .flatten()
            .min();
        if wanted != self.sleep_until
            && let Some(at) = wanted
        {
            let deadline = self.clock.origin + Duration::from_micros(at.0);
            self.sleep.as_mut().reset(deadline.into());
        }
        self.sleep_until = wanted;
    }

    fn is_over(&self) -> bool {
        self.stop.now.load(Ordering::Relaxed) || (self.draining && self.shard.connections() == 0)
    }
}

/// Hands the engine's events to the core.
struct Sink<'a> {
    shard: &'a mut Shard,
    now: Now,
}

impl Events for Sink<'_> {
    fn accepted(&mut self, conn: ConnId, peer: Option<SocketAddr>) {
        self.shard.handle_accepted(self.now, conn, peer);
    }

    fn connected(&mut self, _conn: ConnId, _result: io::Result<()>) {}

    fn received(&mut self, conn: ConnId, data: &mut [u8]) {
        self.shard.handle_received(self.now, conn, data);
    }

    fn sent(&mut self, conn: ConnId, buffer: SendBuffer, _result: io::Result<()>) {
        self.shard.handle_sent(conn, buffer);
    }

    fn closed(&mut self, conn: ConnId, _why: ClosedBy) {
        self.shard.handle_closed(self.now, conn);
    }
}
