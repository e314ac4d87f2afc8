//! Writes the journal through tokio-uring, on a thread of its own.
//!
//! Writing and syncing go through the ring; making and renaming files, once in many megabytes,
//! are plain calls. Does exactly what [`super::thread`] does.

use std::io;

use tokio::sync::mpsc;
use tokio_uring::fs::File;

use super::store::Store;
use super::{Batch, Done};

/// One write or one sync is under way at a time.
const RING_ENTRIES: u32 = 8;

/// Writes batches until the journal is closed.
pub(super) fn drive_journal(
    store: Store,
    mut batches: mpsc::Receiver<Batch>,
    done: mpsc::Sender<Done>,
) {
    let runtime = match tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES)) {
        Ok(runtime) => runtime,
        Err(error) => {
            // The probe made a ring a moment ago, so this is rare; center goes degraded.
            drop(store);
            if let Some(batch) = batches.blocking_recv() {
                let outcome = Done {
                    id: batch.id,
                    result: Err(error),
                };
                // Nobody waits any more: nothing to tell.
                let _ = done.blocking_send(outcome);
            }
            return;
        }
    };
    runtime.block_on(write_all(store, batches, done));
}

async fn write_all(mut store: Store, mut batches: mpsc::Receiver<Batch>, done: mpsc::Sender<Done>) {
    let mut file = store.file.take().map(File::from_std);
    while let Some(batch) = batches.recv().await {
        let result = if batch.rewrite {
            rewrite(&mut store, &mut file, &batch).await
        } else {
            append(&mut store, file.as_ref(), &batch).await
        };
        let outcome = Done {
            id: batch.id,
            result: result.map(|()| store.length),
        };
        if done.send(outcome).await.is_err() {
            break;
        }
    }
    // The lock goes before `done` does, so that who waits for the end finds it free.
    drop(file);
    drop(store);
    drop(done);
}

async fn append(store: &mut Store, file: Option<&File>, batch: &Batch) -> io::Result<()> {
    let bytes = store.append_bytes(batch)?;
    let length = bytes.len() as u64;
    let result = match file {
        Some(file) => write_synced(file, bytes, store.length).await,
        None => Err(io::Error::other("the journal is not open")),
    };
    match result {
        Ok(()) => store.length += length,
        Err(_) => store.broken = true,
    }
    result
}

async fn rewrite(store: &mut Store, file: &mut Option<File>, batch: &Batch) -> io::Result<()> {
    let result = rewrite_steps(store, batch).await;
    match result {
        Ok(rewritten) => {
            *file = Some(rewritten);
            store.broken = false;
            Ok(())
        }
        Err(error) => {
            store.broken = true;
            store.rewrite_abandon();
            Err(error)
        }
    }
}

async fn rewrite_steps(store: &mut Store, batch: &Batch) -> io::Result<File> {
    let bytes = store.rewrite_bytes(batch)?;
    let length = bytes.len() as u64;
    let file = File::from_std(store.rewrite_file()?);
    write_synced(&file, bytes, 0).await?;
    store.rewrite_publish()?;
    store.length = length;
    Ok(file)
}

async fn write_synced(file: &File, bytes: Vec<u8>, offset: u64) -> io::Result<()> {
    let (result, _bytes) = file.write_all_at(bytes, offset).await;
    result?;
    file.sync_data().await
}
