//! Writes the journal with plain system calls, on a thread of its own.
//!
//! For hosts where io_uring is forbidden. Does exactly what [`super::uring`] does.

use std::io;
use std::os::unix::fs::FileExt as _;

use tokio::sync::mpsc;

use super::store::Store;
use super::{Batch, Done};

/// Writes batches until the journal is closed.
pub(super) fn drive_journal(
    mut store: Store,
    mut batches: mpsc::Receiver<Batch>,
    done: mpsc::Sender<Done>,
) {
    while let Some(batch) = batches.blocking_recv() {
        let result = if batch.rewrite {
            rewrite(&mut store, &batch)
        } else {
            append(&mut store, &batch)
        };
        let outcome = Done {
            id: batch.id,
            result: result.map(|()| store.length),
        };
        if done.blocking_send(outcome).is_err() {
            break;
        }
    }
    // The lock goes before `done` does, so that who waits for the end finds it free.
    drop(store);
    drop(done);
}

fn append(store: &mut Store, batch: &Batch) -> io::Result<()> {
    let bytes = store.append_bytes(batch)?;
    let result = match &store.file {
        Some(file) => file
            .write_all_at(&bytes, store.length)
            .and_then(|()| file.sync_data()),
        None => Err(io::Error::other("the journal is not open")),
    };
    match result {
        Ok(()) => store.length += bytes.len() as u64,
        Err(_) => store.broken = true,
    }
    result
}

fn rewrite(store: &mut Store, batch: &Batch) -> io::Result<()> {
    let result = (|| {
        let bytes = store.rewrite_bytes(batch)?;
        let file = store.rewrite_file()?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        store.rewrite_publish()?;
        store.file = Some(file);
        store.length = bytes.len() as u64;
        store.broken = false;
        Ok(())
    })();
    if result.is_err() {
        store.broken = true;
        store.rewrite_abandon();
    }
    result
}
