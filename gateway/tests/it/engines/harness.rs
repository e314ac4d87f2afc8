//! An engine with a log of what it reported, and an echo on top.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use gateway::engine::{Carries, ClosedBy, ConnId, Engine, EngineConfig, Events, SendBuffer, probe};

/// Longer than anything here takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the uring variant is to run; if not, that the probe is helpful.
pub fn uring_is_here() -> bool {
    let forbidden = std::env::var_os("SALLYPORT_TEST_WITHOUT_URING").is_some_and(|v| v == "1");
    match probe() {
        Ok(()) => {
            assert!(!forbidden, "io_uring works although it should not");
            true
        }
        Err(unavailable) => {
            assert!(forbidden, "{unavailable}");
            let text = unavailable.to_string();
            assert!(text.contains("io_uring is forbidden"), "{text}");
            assert!(text.contains("epoll engine"), "{text}");
            false
        }
    }
}

/// What a connection did.
#[derive(Default)]
pub struct Story {
    pub peer: Option<SocketAddr>,
    pub connected: Option<Result<(), io::ErrorKind>>,
    pub received: Vec<u8>,
    /// Bytes of each `received`.
    pub pieces: Vec<usize>,
    /// Length and outcome of each send that came back.
    pub sent: Vec<(usize, Result<(), io::ErrorKind>)>,
    pub closed: Option<ClosedBy>,
    sending: bool,
}

/// Takes the events and checks the invariants of the contract.
#[derive(Default)]
pub struct Log {
    pub stories: HashMap<ConnId, Story>,
    /// In the order of arrival.
    pub accepted: Vec<ConnId>,
    largest: usize,
}

impl Log {
    fn open(&mut self, conn: ConnId) -> &mut Story {
        let story = self.stories.get_mut(&conn).expect("an id nobody gave out");
        assert!(story.closed.is_none(), "an event after closed");
        story
    }
}

impl Events for Log {
    fn accepted(&mut self, conn: ConnId, peer: Option<SocketAddr>) {
        let story = Story {
            peer,
            ..Story::default()
        };
        assert!(
            self.stories.insert(conn, story).is_none(),
            "an id came twice"
        );
        self.accepted.push(conn);
    }

    fn connected(&mut self, conn: ConnId, result: io::Result<()>) {
        let story = self.open(conn);
        assert!(story.connected.is_none());
        story.connected = Some(result.map_err(|e| e.kind()));
    }

    fn received(&mut self, conn: ConnId, data: &mut [u8]) {
        assert!(!data.is_empty());
        self.largest = self.largest.max(data.len());
        let story = self.open(conn);
        story.received.extend_from_slice(data);
        story.pieces.push(data.len());
        data.fill(0xee);
    }

    fn sent(&mut self, conn: ConnId, buf: SendBuffer, result: io::Result<()>) {
        let story = self.open(conn);
        assert!(std::mem::take(&mut story.sending), "a buffer came twice");
        story.sent.push((buf.len(), result.map_err(|e| e.kind())));
    }

    fn closed(&mut self, conn: ConnId, why: ClosedBy) {
        let story = self.open(conn);
        assert!(!story.sending, "closed before its buffer came back");
        story.closed = Some(why);
    }
}

pub struct Driven<E> {
    pub engine: E,
    pub log: Log,
    /// Send back what arrives.
    pub echo: bool,
    /// Events a poll.
    pub budget: usize,
}

impl<E: Engine> Driven<E> {
    pub fn new(connections_max: u32) -> Self {
        Self::with(&EngineConfig {
            connections_max,
            ..EngineConfig::default()
        })
    }

    pub fn with(config: &EngineConfig) -> Self {
        Driven {
            engine: E::new(config).expect("an engine"),
            log: Log::default(),
            echo: false,
            budget: 256,
        }
    }

    pub fn listen(&mut self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        self.engine.listen(listener).expect("listening");
        address
    }

    pub fn connect(&mut self, to: SocketAddr) -> ConnId {
        let conn = self
            .engine
            .connect(Carries::Stream, to, None)
            .expect("a connect begun");
        assert!(self.log.stories.insert(conn, Story::default()).is_none());
        conn
    }

    pub fn send(&mut self, conn: ConnId, buf: impl Into<SendBuffer>) {
        self.engine.send(conn, buf.into()).expect("a send taken");
        self.log.open(conn).sending = true;
    }

    /// One turn without sleeping; whether there is more at once.
    pub fn turn(&mut self) -> bool {
        self.engine
            .poll(&mut self.log, self.budget)
            .expect("a poll");
        if self.echo {
            for (conn, story) in &mut self.log.stories {
                if story.closed.is_none() && !story.sending && !story.received.is_empty() {
                    match self
                        .engine
                        .send(*conn, std::mem::take(&mut story.received).into())
                    {
                        Ok(()) => story.sending = true,
                        Err(_closing) => {}
                    }
                }
            }
        }
        self.engine.flush().expect("a flush")
    }

    /// Turns until `done`.
    #[track_caller]
    pub fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.turn();
            if done(self) {
                return;
            }
            assert!(Instant::now() < deadline, "it never came");
            self.engine
                .wait(Duration::from_millis(50))
                .expect("waiting");
        }
    }

    /// Turns until the engine has nothing to do for a moment.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            quiet = if self.turn() { 0 } else { quiet + 1 };
            self.engine.wait(Duration::from_millis(5)).expect("waiting");
        }
    }

    /// Accepts the next client.
    #[track_caller]
    pub fn accepted(&mut self, nth: usize) -> ConnId {
        self.until(|d| d.log.accepted.len() > nth);
        self.log.accepted[nth]
    }

    pub fn story(&self, conn: ConnId) -> &Story {
        &self.log.stories[&conn]
    }

    #[track_caller]
    pub fn closed(&mut self, conn: ConnId) -> ClosedBy {
        self.until(|d| d.story(conn).closed.is_some());
        self.story(conn).closed.expect("just seen")
    }
}

/// Bytes that differ everywhere, so that a loss, a repeat or an exchange shows.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
