//! The `walk` game with its map spread over cores: a pinned thread for each partition.
//!
//! Owns the threads and the queues to them. The game's own thread (links, sessions, the
//! [roster](crate::map::Roster)) hands each partition one batch a tick and gets one back; what
//! the batches say is the map's business, and it is what [`crate::walk::Walk`] tells in one
//! thread. Two drivers run the same loop ([`worker`]): [`executor`] on glommio, [`thread`]
//! without, where io_uring is forbidden.
//!
//! # One tick in flight
//! A tick that is due before the last one has come back from every partition is left out and
//! counted, so no queue ever holds more than one batch, and a slow map is seen as such.
//!
//! Invariant: a batch costs one wake-up each way, and no allocation once it has grown.

mod executor;
mod restore;
mod rounds;
mod saver;
mod thread;
mod worker;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::task::Poll;

use protocol::body::Lane;
use protocol::time::Time;
use protocol::world::{CHANGES, POSITIONS};
use tokio::sync::mpsc;

use crate::journal;
use crate::map::Told;
use crate::map::{Frame, MapConfig, MapConfigError, Orders, PARTITIONS_MAX, Partition, Roster};
use crate::stub::{Context, Departure, Game, GameCounts, Message, Player, Request};
use crate::walk::desk::Desk;
use restore::{Restored, prepare, restore};
use rounds::{Rounds, Step};
use worker::{Done, Work, Workers};

/// What runs the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapDriver {
    /// glommio executors.
    Glommio,
    /// Plain threads.
    Threads,
}

impl MapDriver {
    /// Name for logs and configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Glommio => "glommio",
            Self::Threads => "threads",
        }
    }
}

/// What a spread `walk` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadConfig {
    /// The map's shape.
    pub map: MapConfig,
    /// Time between two ticks, ms.
    pub tick_ms: u16,
    /// Partitions, each on a thread; one at least, [`PARTITIONS_MAX`] at most.
    pub executors: usize,
    /// `None`: what the journal's probe says.
    pub driver: Option<MapDriver>,
    /// `None`: the map is forgotten when the process ends.
    pub snapshot: Option<SnapshotConfig>,
}

/// Where and how often a map is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Made if it is not there. Of one map alone.
    pub directory: PathBuf,
    /// From one round to the next, ms.
    pub interval_ms: u64,
}

/// Ids that a new process leaves out after the highest one it finds: more than players can have
/// come after the last snapshot.
const IDS_SKIPPED: u32 = 1 << 20;

/// Why a spread `walk` could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpreadError {
    /// The map's configuration breaks a rule.
    #[error(transparent)]
    Map(#[from] MapConfigError),
    /// The snapshots' directory cannot be used.
    #[error("{path}: {error}")]
    Snapshots {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A thread could not be had, or could not make its executor.
    #[error("the map's thread {index}: {error}")]
    Worker {
        /// Which partition's.
        index: usize,
        /// Why.
        error: io::Error,
    },
}

/// A partition's thread has ended by itself; the map cannot go on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerEnd {
    /// Which one.
    pub index: usize,
}

impl fmt::Display for WorkerEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the map's thread {} has ended by itself", self.index)
    }
}

impl std::error::Error for WorkerEnd {}

/// Tells of the first thread of a map that ends by itself.
#[derive(Debug)]
pub struct WorkerWatch(mpsc::Receiver<WorkerEnd>);

impl WorkerWatch {
    /// Waits for it. Never returns once the game has been dropped, which ends them all.
    pub async fn ended(&mut self) -> WorkerEnd {
        match self.0.recv().await {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }
}

/// The game. Its threads end when it is dropped.
#[derive(Debug)]
pub struct SpreadWalk {
    desk: Desk,
    roster: Roster,
    workers: Workers,
    driver: MapDriver,
    /// The batches that are here, by partition; all of them between two ticks.
    orders: Vec<Orders>,
    told: Vec<Told>,
    /// Partitions that have not answered.
    awaited: usize,
    /// When the tick that they look at began.
    begun: Time,
    rounds: Option<Rounds>,
    /// Snapshots that could not be read at the start.
    unreadable: u64,
}

impl SpreadWalk {
    /// Starts the threads. The second half is for whoever ends the process with the first of
    /// them.
    ///
    /// # Errors
    /// The configuration breaks a rule, or a thread cannot be had.
    pub fn start(mut config: SpreadConfig) -> Result<(Self, WorkerWatch), SpreadError> {
        let count = config.executors.clamp(1, PARTITIONS_MAX);
        let mut roster = Roster::new(config.map.clone(), count)?;
        let restored = match &mut config.snapshot {
            Some(snapshot) => {
                let unusable = |error| SpreadError::Snapshots {
                    path: snapshot.directory.clone(),
                    error,
                };
                let directory = prepare(&snapshot.directory).map_err(unusable)?;
                let restored = restore(&directory).map_err(unusable)?;
                snapshot.directory = directory;
                restored
            }
            None => Restored::default(),
        };
        let last_id = restored.players.values().map(|standing| standing.id).max();
        if let Some(last) = last_id {
            roster.skip_ids(last.saturating_add(IDS_SKIPPED));
        }
        let (driver, (workers, watch)) = match config.driver {
            Some(driver) => (driver, start_workers(&config, count, driver)?),
            None => start_probed(&config, count)?,
        };
        tracing::info!(
            driver = driver.label(),
            executors = count,
            players_known = restored.players.len(),
            "the map is ready"
        );
        let rounds = config
            .snapshot
            .as_ref()
            .map(|snapshot| Rounds::new(count, snapshot.interval_ms, restored.round));
        let game = Self {
            desk: Desk::new(config.tick_ms, restored.players),
            roster,
            workers,
            driver,
            orders: (0..count).map(|_| Orders::default()).collect(),
            told: (0..count).map(|_| Told::default()).collect(),
            awaited: 0,
            begun: Time(0),
            rounds,
            unreadable: restored.unreadable,
        };
        Ok((game, watch))
    }

    /// What runs the partitions.
    pub fn driver(&self) -> MapDriver {
        self.driver
    }

    /// Hands each partition its batch.
    fn begin_tick(&mut self, now: Time) {
        self.roster.handle_tick(&mut self.orders);
        let step = match &mut self.rounds {
            Some(rounds) => rounds.poll_step(now),
            None => Step::GoOn,
        };
        for index in 0..self.orders.len() {
            let work = Work {
                step,
                orders: std::mem::take(&mut self.orders[index]),
                told: std::mem::take(&mut self.told[index]),
            };
            // One that has ended never answers, and ends the process.
            self.workers.hand_over(index, work);
            self.awaited += 1;
        }
        self.begun = now;
        self.desk.handle_tick(now, &self.roster);
    }

    /// Sends what a partition has to tell, and keeps the batches for the next tick.
    fn end_part(&mut self, context: &mut Context<'_>, mut done: Done) {
        let tick = done.orders.tick();
        for (session, frame) in done.told.frames() {
            let (lane, message, bytes) = match frame {
                Frame::Changes(bytes) => (Lane::Reliable, CHANGES, bytes),
                Frame::Positions(bytes) => (Lane::Sequenced, POSITIONS, bytes),
            };
            // Full: its session ends, and `disconnected` follows.
            let is_sent = self.desk.is_for(session, tick)
                && context.push(session, lane, message, bytes).is_ok();
            self.desk.counts.frames_unsent += u64::from(!is_sent);
        }
        if let Some(rounds) = &mut self.rounds {
            rounds.handle_progress(done.index, done.progress);
        }
        done.told.clear();
        self.orders[done.index] = done.orders;
        self.told[done.index] = done.told;
        self.awaited -= 1;
        if self.awaited == 0 {
            let tick_us = context.now().time.us_since(self.begun);
            let counts = &mut self.desk.counts;
            counts.tick_us += tick_us;
            counts.tick_us_max = counts.tick_us_max.max(tick_us);
        }
    }
}

impl Game for SpreadWalk {
    fn connected(&mut self, context: &mut Context<'_>, player: &Player<'_>) {
        self.desk.restore(&mut self.roster, context, player.session);
    }

    fn disconnected(&mut self, _: &mut Context<'_>, departure: &Departure) {
        self.desk.leave(&mut self.roster, departure.session);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        self.desk.handle_message(&mut self.roster, context, message);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        self.desk
            .answer(&mut self.roster, context, request, payload);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.desk.poll_timeout()
    }

    fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now().time;
        if self.desk.late_us(now).is_none() {
            return;
        }
        if self.awaited > 0 {
            self.desk.skip_tick(now, &self.roster);
            self.workers.nudge();
        } else {
            self.begin_tick(now);
        }
    }

    fn poll_background(&mut self, wakeup: &mut std::task::Context<'_>, context: &mut Context<'_>) {
        while self.awaited > 0 {
            let Poll::Ready(Some(done)) = self.workers.poll_done(wakeup) else {
                break;
            };
            self.end_part(context, done);
        }
    }

    fn counts(&self) -> GameCounts {
        GameCounts {
            players: self.roster.players() as u64,
            snapshots_written: self.rounds.as_ref().map_or(0, |rounds| rounds.written),
            snapshots_failed: self.rounds.as_ref().map_or(0, |rounds| rounds.failures),
            snapshots_unreadable: self.unreadable,
            ..self.desk.counts
        }
    }
}

/// As the journal's probe says, and plain threads too where glommio wants what a ring does not
/// (locked memory).
fn start_probed(
    config: &SpreadConfig,
    count: usize,
) -> Result<(MapDriver, (Workers, WorkerWatch)), SpreadError> {
    let why = match journal::probe() {
        (journal::JournalEngine::Uring, _) => {
            match start_workers(config, count, MapDriver::Glommio) {
                Ok(started) => return Ok((MapDriver::Glommio, started)),
                Err(error) => error.to_string(),
            }
        }
        (journal::JournalEngine::Thread, error) => {
            error.map_or_else(String::new, |error| error.to_string())
        }
    };
    tracing::info!(%why, "no io_uring for the map: plain threads");
    let started = start_workers(config, count, MapDriver::Threads)?;
    Ok((MapDriver::Threads, started))
}

fn start_workers(
    config: &SpreadConfig,
    count: usize,
    driver: MapDriver,
) -> Result<(Workers, WorkerWatch), SpreadError> {
    let partitions = Partition::all(&config.map, count)?;
    let snapshots = config.snapshot.as_ref();
    let directory = snapshots.map(|snapshot| snapshot.directory.as_path());
    Workers::start(
        partitions,
        directory,
        move |post, writer, ready| match driver {
            MapDriver::Glommio => executor::run(post, writer, ready),
            MapDriver::Threads => thread::run(post, writer, ready),
        },
    )
}

#[cfg(test)]
mod tests;
