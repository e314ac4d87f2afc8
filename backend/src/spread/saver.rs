//! The tick's end of snapshots: copies a partition's players slice by slice, between ticks, and
//! hands the slices to whoever writes them.
//!
//! It never waits: a slice goes only when the last one has been taken, so a slow disk makes
//! snapshots slow and nothing else. The copy is done after a tick's frames are on their way, and
//! takes as long as some thousand players do.
//!
//! Invariant: one slice at most waits for the writer.

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::rounds::{Progress, Step};
use crate::map::{Partition, Slice};

/// What waits for the writer, beside what it is at.
const SLICES_MAX: usize = 1;

/// The writer's ends.
pub(super) struct WriterEnds {
    pub(super) slices: mpsc::Receiver<Slice>,
    /// Whether a file is on disk.
    pub(super) written: mpsc::Sender<bool>,
    pub(super) names: Names,
}

/// What the files of a partition are called.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) directory: PathBuf,
    index: usize,
}

impl Names {
    pub(super) fn new(directory: &Path, index: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            index,
        }
    }

    /// While it is written.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.directory
            .join(format!("map-{}.unfinished", self.index))
    }

    /// In the place of the round before the last one.
    pub(super) fn finished(&self, round: u64) -> PathBuf {
        let (index, parity) = (self.index, round % 2);
        self.directory
            .join(format!("map-{index}.{parity}.snapshot"))
    }
}

/// The tick's ends.
pub(super) struct Saver {
    slices: mpsc::Sender<Slice>,
    written: mpsc::Receiver<bool>,
    /// To stand at the next slice's begin.
    begins: Option<u64>,
    is_ending: bool,
}

impl Saver {
    pub(super) fn new(names: Names) -> (Self, WriterEnds) {
        let (slice_sender, slices) = mpsc::channel(SLICES_MAX);
        let (written_sender, written) = mpsc::channel(1);
        let saver = Self {
            slices: slice_sender,
            written,
            begins: None,
            is_ending: false,
        };
        let writer = WriterEnds {
            slices,
            written: written_sender,
            names,
        };
        (saver, writer)
    }

    /// What the game wants in this tick. Before the partition's tick.
    pub(super) fn handle_step(&mut self, step: Step, partition: &mut Partition) {
        match step {
            Step::GoOn => {}
            Step::Begin(round) => {
                partition.begin_snapshot();
                self.begins = Some(round);
            }
            Step::End => self.is_ending = true,
        }
    }

    /// What there is to tell the game. After the partition's tick.
    pub(super) fn progress(&mut self, partition: &Partition) -> Progress {
        Progress {
            is_copied: partition.is_copied(),
            is_written: self.written.try_recv().ok(),
        }
    }

    /// Copies a slice, if a snapshot is under way and the last slice has been taken. False: the
    /// writer is no more.
    pub(super) fn copy(&mut self, partition: &mut Partition) -> bool {
        if !partition.is_in_snapshot() {
            return true;
        }
        let place = match self.slices.try_reserve() {
            Ok(place) => place,
            Err(error) => return matches!(error, TrySendError::Full(())),
        };
        let mut players = Vec::new();
        partition.copy_slice(&mut players);
        let is_last = self.is_ending && partition.end_snapshot();
        if self.begins.is_none() && players.is_empty() && !is_last {
            return true;
        }
        self.is_ending &= !is_last;
        place.send(Slice {
            begins: self.begins.take(),
            players,
            is_last,
        });
        true
    }
}

/// A snapshot could not be written. Once a round at most.
pub(super) fn warn(names: &Names, error: &dyn std::fmt::Display) {
    let path = names.unfinished();
    tracing::warn!(path = %path.display(), %error, "cannot write a snapshot of the map");
}
