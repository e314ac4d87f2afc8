//! A partition on a plain thread, pinned to its core where that is allowed.
//!
//! For hosts where io_uring is forbidden. Does exactly what [`super::executor`] does; snapshots
//! are written by another thread, of low priority, so that no tick waits for the disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::thread::Builder;

use rustix::thread::{CpuSet, sched_setaffinity};

use super::saver::{Names, WriterEnds, warn};
use super::worker::{Post, Ready, core_of};
use crate::map::SnapshotWriter;

/// Nice value of the thread that writes: anything else that wants the core has it.
const WRITER_NICE: i32 = 10;

/// Runs a partition until its game is gone.
pub(super) fn run(post: Post, writer: Option<WriterEnds>, ready: Ready) {
    if let Some(core) = core_of(post.index()) {
        let mut set = CpuSet::new();
        set.set(core);
        if let Err(error) = sched_setaffinity(None, &set) {
            // It works as well where the system puts it.
            tracing::debug!(%error, "cannot pin the map's thread");
        }
    }
    // It only parks and wakes: no sockets, no timers.
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let writer = writer.map(|ends| {
        Builder::new()
            .name(format!("map-file-{}", post.index()))
            .spawn(move || write_all(ends))
    });
    let writer = match writer.transpose() {
        Ok(writer) => writer,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    runtime.block_on(post.drive());
    if let Some(writer) = writer {
        // It ends with the ticks.
        let _ = writer.join();
    }
}

/// Writes snapshots until the ticks end.
fn write_all(mut ends: WriterEnds) {
    // Of this thread only; it works without.
    if let Err(error) = rustix::process::setpriority_process(None, WRITER_NICE) {
        tracing::debug!(%error, "cannot lower the priority of a snapshot's thread");
    }
    let mut writer = SnapshotWriter::default();
    let mut file: Option<File> = None;
    let mut round = 0;
    while let Some(slice) = ends.slices.blocking_recv() {
        if let Some(begun) = slice.begins {
            round = begun;
            let created = File::create(ends.names.unfinished());
            file = created.map_err(|error| warn(&ends.names, &error)).ok();
        }
        let is_last = slice.is_last;
        let bytes = writer.handle_slice(slice);
        if let Some(open) = &mut file
            && let Err(error) = open.write_all(&bytes)
        {
            warn(&ends.names, &error);
            file = None;
        }
        if is_last {
            let finished = file.take().map(|file| finish(&file, &ends.names, round));
            let is_written = match finished {
                Some(Ok(())) => true,
                Some(Err(error)) => {
                    warn(&ends.names, &error);
                    false
                }
                None => false,
            };
            if ends.written.blocking_send(is_written).is_err() {
                return;
            }
        }
    }
}

fn finish(file: &File, names: &Names, round: u64) -> io::Result<()> {
    file.sync_data()?;
    fs::rename(names.unfinished(), names.finished(round))?;
    File::open(&names.directory)?.sync_all()
}
