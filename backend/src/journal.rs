//! Center's journal: what must survive a crash, and nothing else.
//!
//! [`format`] is pure. [`store`] owns the files of one directory: exclusive lock, replay, the
//! steps of a rewrite that no ring speeds up. Two drivers write batches, each on a thread of
//! its own: [`uring`] through tokio-uring, [`thread`] with plain system calls where io_uring is
//! forbidden; [`probe`] chooses. What the records mean is `center::ledger`'s business.
//!
//! Invariant: a batch is reported as done only when it is on disk; after a failed write nothing
//! more is appended until a rewrite has replaced the file, since nobody knows what a failed
//! write or sync has left behind.

pub mod format;
mod store;
mod thread;
mod uring;

use std::io;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

pub use format::RECORD_BYTES_MAX;
use store::Store;
pub use store::{JOURNAL_FILE, JOURNAL_FILE_BYTES_MAX};

/// Batches on their way to the thread. One is in flight, and its owner collects the next one
/// itself, so there is never a second one.
const BATCHES_IN_FLIGHT_MAX: usize = 1;

/// Which driver writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalEngine {
    /// tokio-uring.
    Uring,
    /// Plain system calls.
    Thread,
}

impl JournalEngine {
    /// Name for logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Thread => "thread",
        }
    }
}

/// Chooses the driver: the ring where a small one can be made. The error says why not.
pub fn probe() -> (JournalEngine, Option<io::Error>) {
    match tokio_uring::uring_builder().build(2) {
        Ok(_ring) => (JournalEngine::Uring, None),
        Err(error) => (JournalEngine::Thread, Some(error)),
    }
}

/// One group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Rises by one with each batch; repeated in [`Done`].
    pub id: u64,
    /// Replace the file by these records (else append them).
    pub rewrite: bool,
    /// Each at most [`RECORD_BYTES_MAX`]. An append has exactly one.
    pub records: Vec<Vec<u8>>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Done {
    /// Of which batch.
    pub id: u64,
    /// Size of the file in bytes when the batch is on disk, or why it is not.
    pub result: Result<u64, io::Error>,
}

/// What an opened journal held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The records, in order.
    pub records: Vec<Vec<u8>>,
    /// Bytes of a torn record that were cut off. A crash leaves some; nobody was ever told
    /// that they were on disk.
    pub torn_bytes: u64,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process holds it.
    #[error("{} is in use by another center; stop it, or give this one a directory of its own", .0.display())]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The file is damaged, or none of ours.
    #[error("{}: {error}", .path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: format::FormatError,
    },
    /// The file is too large to be one of ours.
    #[error("{} has {bytes} bytes, at most {JOURNAL_FILE_BYTES_MAX} are read", .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// An open journal and the thread that writes it.
#[derive(Debug)]
pub struct Journal {
    batches: mpsc::Sender<Batch>,
    done: mpsc::Receiver<Done>,
}

impl Journal {
    /// Locks, reads and repairs the journal in `dir` (made if it is not there) and starts its
    /// thread. Blocks. `salt` must differ from start to start.
    pub fn open(
        dir: &Path,
        salt: u32,
        engine: JournalEngine,
    ) -> Result<(Self, Replay), JournalError> {
        let (store, replay) = Store::open(dir, salt)?;
        let (batches, batches_taken) = mpsc::channel(BATCHES_IN_FLIGHT_MAX);
        let (done_given, done) = mpsc::channel(BATCHES_IN_FLIGHT_MAX);
        let run = move || match engine {
            JournalEngine::Uring => uring::drive_journal(store, batches_taken, done_given),
            JournalEngine::Thread => thread::drive_journal(store, batches_taken, done_given),
        };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(run)
            .map_err(|error| JournalError::Io {
                path: dir.to_owned(),
                error,
            })?;
        Ok((Self { batches, done }, replay))
    }

    /// Hands a batch over. Gives it back while another one is in flight or the thread is gone.
    pub fn submit(&mut self, batch: Batch) -> Result<(), Batch> {
        self.batches
            .try_send(batch)
            .map_err(mpsc::error::TrySendError::into_inner)
    }

    /// The next finished batch; `None` when the thread is gone, which nothing but a bug of ours
    /// or of the ring's library causes. Dropping the future loses nothing.
    pub async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    /// As [`Journal::done`], for a loop that polls.
    pub fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Option<Done>> {
        self.done.poll_recv(cx)
    }

    /// Waits until what is in flight is written and the lock is given back.
    pub async fn close(self) {
        let Self { batches, mut done } = self;
        drop(batches);
        while done.recv().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;
