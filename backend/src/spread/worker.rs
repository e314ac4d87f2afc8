//! What runs on a partition's thread, whichever driver it has: batches in, the partition's
//! ticks, batches out.
//!
//! It decides nothing; the partition does. Invariants: it takes the next batch only when it has
//! answered the last one; a thread that ends before the game does says so, even by a panic.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::rounds::{Progress, Step};
use super::saver::{Names, Saver, WriterEnds};
use super::{SpreadError, WorkerEnd, WorkerWatch};
use crate::map::{Handover, Orders, Partition, Told};

/// Batches on their way to a partition: there is never a second one.
const WORKS_MAX: usize = 1;

/// Time between two nudges of a thread that is to end: not long for whoever ends the game.
const NUDGE_EVERY: Duration = Duration::from_millis(5);

/// One tick for one partition.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) orders: Orders,
    /// Empty, to be filled.
    pub(super) told: Told,
    pub(super) step: Step,
}

/// A tick is done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) index: usize,
    /// As it came, to be filled again.
    pub(super) orders: Orders,
    pub(super) told: Told,
    pub(super) progress: Progress,
}

/// A partition and its ends of the queues.
pub(super) struct Post {
    partition: Partition,
    works: mpsc::Receiver<Work>,
    done: mpsc::Sender<Done>,
    /// To each partition.
    peers: Vec<mpsc::Sender<Handover>>,
    handovers: mpsc::Receiver<Handover>,
    /// Empty ones for the next; as many as have come, so at most one for each partition.
    spare: Vec<Handover>,
    saver: Option<Saver>,
    nudges: Arc<Notify>,
}

/// Says that a thread is ready, or why it will not be.
pub(super) type Ready = SyncSender<io::Result<()>>;

impl Post {
    pub(super) fn index(&self) -> usize {
        self.partition.index()
    }

    /// Where nudges come, for a driver that may have slept through the beginning of its work.
    pub(super) fn nudges(&self) -> Arc<Notify> {
        Arc::clone(&self.nudges)
    }

    /// Does what comes until the game is gone, or a peer.
    pub(super) async fn drive(mut self) {
        while let Some(mut work) = self.works.recv().await {
            if let Some(saver) = &mut self.saver {
                saver.handle_step(work.step, &mut self.partition);
            }
            self.partition.handle_orders(&work.orders);
            if self.exchange(&work.orders).await.is_none() {
                return;
            }
            let told = &mut work.told;
            self.partition
                .handle_tick(&mut |session, frame| told.push(session, frame));
            let done = Done {
                index: self.index(),
                orders: work.orders,
                told: work.told,
                progress: match &mut self.saver {
                    Some(saver) => saver.progress(&self.partition),
                    None => Progress::default(),
                },
            };
            if self.done.send(done).await.is_err() {
                return;
            }
            // After the answer, so that no tick waits for it.
            if let Some(saver) = &mut self.saver
                && !saver.copy(&mut self.partition)
            {
                return;
            }
        }
    }

    /// Hands views over to the other partitions, and takes theirs. `None`: a peer or the game is
    /// gone.
    async fn exchange(&mut self, orders: &Orders) -> Option<()> {
        for to in 0..self.peers.len() {
            if self.partition.has_handover(to) {
                let empty = self.spare.pop().unwrap_or_default();
                let handover = self.partition.take_handover(to, empty);
                self.peers[to].send(handover).await.ok()?;
            }
        }
        let awaited = (0..self.peers.len()).filter(|&from| orders.awaits(from));
        for _ in 0..awaited.count() {
            let mut handover = tokio::select! {
                handover = self.handovers.recv() => handover?,
                // Only their end comes meanwhile: the game does not wait for one that is dead.
                _ = self.works.recv() => return None,
            };
            self.partition.handle_handover(&handover);
            handover.clear();
            if self.spare.len() < self.peers.len() {
                self.spare.push(handover);
            }
        }
        Some(())
    }
}

/// The game's ends of the queues to all partitions.
#[derive(Debug)]
pub(super) struct Workers {
    works: Vec<mpsc::Sender<Work>>,
    done: mpsc::Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    nudges: Vec<Arc<Notify>>,
}

impl Workers {
    /// Starts a thread for each partition, on which `run` is called. Returns when all are ready.
    pub(super) fn start(
        partitions: Vec<Partition>,
        snapshots: Option<&Path>,
        run: impl Fn(Post, Option<WriterEnds>, Ready) + Copy + Send + 'static,
    ) -> Result<(Self, WorkerWatch), SpreadError> {
        let count = partitions.len();
        let (done_sender, done) = mpsc::channel(count);
        let (ends, watch) = mpsc::channel(count);
        let (peers, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(count)).unzip();
        let mut workers = Self {
            works: Vec::with_capacity(count),
            done,
            threads: Vec::with_capacity(count),
            nudges: (0..count).map(|_| Arc::default()).collect(),
        };
        let mut starts: Vec<Receiver<io::Result<()>>> = Vec::with_capacity(count);
        for (partition, handovers) in partitions.into_iter().zip(receivers) {
            let index = partition.index();
            let (work_sender, works) = mpsc::channel(WORKS_MAX);
            let (saver, writer) = snapshots
                .map(|directory| Saver::new(Names::new(directory, index)))
                .unzip();
            let post = Post {
                partition,
                works,
                done: done_sender.clone(),
                peers: peers.clone(),
                handovers,
                spare: Vec::new(),
                saver,
                nudges: Arc::clone(&workers.nudges[index]),
            };
            let (ready, started) = sync_channel(1);
            let farewell = Farewell {
                index,
                ends: ends.clone(),
            };
            let thread = Builder::new()
                .name(format!("map-{index}"))
                .spawn(move || {
                    let _farewell = farewell;
                    run(post, writer, ready);
                })
                .map_err(|error| SpreadError::Worker { index, error })?;
            workers.works.push(work_sender);
            workers.threads.push(thread);
            starts.push(started);
        }
        for (index, started) in starts.into_iter().enumerate() {
            let ready = started.recv();
            ready
                .unwrap_or_else(|_| Err(io::Error::other("it ended at its start")))
                .map_err(|error| SpreadError::Worker { index, error })?;
        }
        Ok((workers, WorkerWatch(watch)))
    }

    /// Gives a partition its next tick.
    pub(super) fn hand_over(&self, index: usize, work: Work) {
        // Refused only by one that has ended: its queue has room, since it has answered the last.
        let _ = self.works[index].try_send(work);
    }

    /// Wakes the partitions once more: for when one of them is late.
    pub(super) fn nudge(&self) {
        for nudges in &self.nudges {
            nudges.notify_one();
        }
    }

    /// The next partition that has done its tick.
    pub(super) fn poll_done(&mut self, wakeup: &mut Context<'_>) -> Poll<Option<Done>> {
        self.done.poll_recv(wakeup)
    }
}

impl Drop for Workers {
    /// Ends the threads, each after what it is at.
    fn drop(&mut self) {
        self.works.clear();
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::park_timeout(NUDGE_EVERY);
            self.nudge();
        }
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Tells of its thread's end, however that comes.
struct Farewell {
    index: usize,
    ends: mpsc::Sender<WorkerEnd>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens when the game has ended them all.
        let _ = self.ends.try_send(WorkerEnd { index: self.index });
    }
}

/// The core of a partition's thread, among those that the process may use: from the last one
/// on, since gateway shards on the same host begin with the first. `None`: the system does not
/// say.
pub(super) fn core_of(index: usize) -> Option<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    let cores: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .collect();
    let last = cores.len().checked_sub(1)?;
    Some(cores[last - index % cores.len()])
}
