//! When the partitions of a map write snapshots.
//!
//! Owns the round: all partitions begin it in the same tick, and none ends its file before all
//! have copied their nodes. So a player that goes from one to another meanwhile is in at least
//! one of the files. It knows no file.
//!
//! # Two generations
//! The files of a round replace those of the round before the last one, never of the last, and a
//! round that failed anywhere is done again under its number. Whatever moment a crash picks, the
//! last whole round is on disk.
//!
//! Invariant: a round begins when the last one is over everywhere.

use protocol::time::Time;

/// What a partition is to do about snapshots in a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Step {
    /// What it is at.
    #[default]
    GoOn,
    /// Begin the snapshot of this round.
    Begin(u64),
    /// End it: every partition has copied its nodes.
    End,
}

/// What a partition has done about snapshots since its last tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// It has copied all its nodes.
    pub is_copied: bool,
    /// Its file is on disk (or is not: false).
    pub is_written: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting,
    Copying,
    Ending,
}

/// The core. [`Rounds::poll_step`] before each tick, [`Rounds::handle_progress`] with what each
/// partition says after it.
#[derive(Debug)]
pub struct Rounds {
    interval_us: u64,
    round: u64,
    phase: Phase,
    begins: Time,
    /// By partition: done with this phase.
    done: Vec<bool>,
    failed: bool,
    /// Rounds that are on disk.
    pub written: u64,
    /// Rounds that are not, because a file of theirs could not be written.
    pub failures: u64,
}

impl Rounds {
    /// Begins with this round after one interval, ms.
    pub fn new(partitions: usize, interval_ms: u64, round: u64) -> Self {
        Self {
            interval_us: interval_ms * 1_000,
            round,
            phase: Phase::Resting,
            begins: Time(interval_ms * 1_000),
            done: vec![false; partitions],
            failed: false,
            written: 0,
            failures: 0,
        }
    }

    /// What all partitions are to do in the tick that begins.
    pub fn poll_step(&mut self, now: Time) -> Step {
        let all_done = self.done.iter().all(|done| *done);
        match self.phase {
            Phase::Resting if now >= self.begins => {
                self.enter(Phase::Copying);
                self.failed = false;
                self.begins = Time(now.0 + self.interval_us);
                Step::Begin(self.round)
            }
            Phase::Copying if all_done => {
                self.enter(Phase::Ending);
                Step::End
            }
            _ => Step::GoOn,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.done.fill(false);
    }

    /// What a partition says after a tick.
    pub fn handle_progress(&mut self, partition: usize, progress: Progress) {
        match self.phase {
            Phase::Copying => self.done[partition] |= progress.is_copied,
            Phase::Ending => {
                let Some(is_written) = progress.is_written else {
                    return;
                };
                self.failed |= !is_written;
                self.done[partition] = true;
                if self.done.iter().all(|done| *done) {
                    self.end();
                }
            }
            Phase::Resting => {}
        }
    }

    fn end(&mut self) {
        self.enter(Phase::Resting);
        if self.failed {
            self.failures += 1;
        } else {
            self.written += 1;
            self.round += 1;
        }
    }
}
