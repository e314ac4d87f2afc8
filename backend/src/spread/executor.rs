//! A partition on a glommio executor, pinned to its core.
//!
//! The tick has a task queue of its own, and ten times the shares of that of the snapshots. Does
//! exactly what [`super::thread`] does.
//!
//! # A wake-up that glommio loses
//! glommio 0.9 (`LocalExecutor::run`) takes "preempted before the first task" for "nothing to do"
//! and goes to sleep beside a task that can run. An event that comes between its look at the
//! rings and its first task is enough, such as the eventfd of a wake-up that it has seen
//! already. A queue whose latency matters writes that eventfd for each wake-up, awake or not:
//! 10 of 80 runs of the tests stood still with it, none of 80 without, so neither queue has one
//! (nothing here runs long enough to be preempted). For what is left of the chance, whoever
//! waits for a partition nudges it ([`super::worker::Workers::nudge`]): any later wake-up makes
//! it go on.

use std::io;

use glommio::io::{BufferedFile, Directory};
use glommio::{GlommioError, Latency, LocalExecutorBuilder, Placement, Shares};

use super::saver::{Names, WriterEnds, warn};
use super::worker::{Post, Ready, core_of};
use crate::map::SnapshotWriter;

/// Entries of each of an executor's three rings: a tick has none, a snapshot one or two.
const RING_ENTRIES: usize = 8;

/// Memory that an executor locks for storage, bytes: glommio's least. Snapshots use memory of
/// their own, so that many executors fit into the usual 8 MiB of locked memory.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// Share of the tick in the executor's time, when others want it too: the most there is.
const TICK_SHARES: usize = 1000;

/// Share of the snapshots: a tenth of a core at most while there are ticks to do.
const SNAPSHOT_SHARES: usize = 100;

/// Runs a partition until its game is gone.
pub(super) fn run(post: Post, writer: Option<WriterEnds>, ready: Ready) {
    let placement = core_of(post.index()).map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_ENTRIES)
        .make();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            let _ = ready.send(Err(io::Error::other(error.to_string())));
            return;
        }
    };
    executor.run(async move {
        let shares = Shares::Static(TICK_SHARES);
        let queue = glommio::executor().create_task_queue(shares, Latency::NotImportant, "tick");
        let shares = Shares::Static(SNAPSHOT_SHARES);
        let snapshots =
            glommio::executor().create_task_queue(shares, Latency::NotImportant, "snapshot");
        let nudges = post.nudges();
        glommio::spawn_local(async move {
            loop {
                nudges.notified().await;
            }
        })
        .detach();
        let tasks = glommio::spawn_local_into(post.drive(), queue).and_then(|ticks| {
            let writer = writer.map(|ends| glommio::spawn_local_into(write_all(ends), snapshots));
            Ok((ticks, writer.transpose()?))
        });
        match tasks {
            Ok((ticks, writer)) => {
                let _ = ready.send(Ok(()));
                ticks.await;
                if let Some(writer) = writer {
                    // It ends with the ticks.
                    writer.await;
                }
            }
            Err(error) => {
                let _ = ready.send(Err(io::Error::other(error.to_string())));
            }
        }
    });
}

/// Writes snapshots until the ticks end.
async fn write_all(mut ends: WriterEnds) {
    let mut writer = SnapshotWriter::default();
    let mut file: Option<(BufferedFile, u64)> = None;
    let mut round = 0;
    let mut is_good = true;
    while let Some(slice) = ends.slices.recv().await {
        if let Some(begun) = slice.begins {
            round = begun;
            is_good = true;
            file = match BufferedFile::create(ends.names.unfinished()).await {
                Ok(file) => Some((file, 0)),
                Err(error) => {
                    warn(&ends.names, &error);
                    None
                }
            };
        }
        let is_last = slice.is_last;
        let bytes = writer.handle_slice(slice);
        if let Some((open, length)) = &mut file
            && is_good
        {
            let result = append(open, length, bytes).await;
            is_good = result.map_err(|error| warn(&ends.names, &error)).is_ok();
        }
        if is_last {
            let is_written = match file.take() {
                Some((open, _)) if is_good => {
                    let result = finish(open, &ends.names, round).await;
                    result.map_err(|error| warn(&ends.names, &error)).is_ok()
                }
                _ => false,
            };
            if ends.written.send(is_written).await.is_err() {
                return;
            }
        }
    }
}

async fn append(
    file: &BufferedFile,
    length: &mut u64,
    bytes: Vec<u8>,
) -> Result<(), GlommioError<()>> {
    let wanted = bytes.len();
    // A short write means that the disk is full; the next one would say so.
    if file.write_at(bytes, *length).await? != wanted {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    *length += wanted as u64;
    Ok(())
}

async fn finish(file: BufferedFile, names: &Names, round: u64) -> Result<(), GlommioError<()>> {
    file.fdatasync().await?;
    file.close().await?;
    glommio::io::rename(names.unfinished(), names.finished(round)).await?;
    let directory = Directory::open(&names.directory).await?;
    directory.sync().await?;
    directory.close().await
}
