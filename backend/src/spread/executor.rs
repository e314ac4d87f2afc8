//! A partition on a glommio executor, pinned to its core.
//!
//! The tick has a task queue of its own, by whose latency class glommio preempts what else runs
//! on the executor. Does exactly what [`super::thread`] does.

use std::io;
use std::time::Duration;

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};

use super::worker::{Post, Ready, core_of};

/// Entries of each of an executor's three rings: a tick has none, a snapshot one or two.
const RING_ENTRIES: usize = 8;

/// Memory that an executor locks for storage, bytes: glommio's least. Snapshots use memory of
/// their own, so that many executors fit into the usual 8 MiB of locked memory.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// Share of the tick in the executor's time, when others want it too: the most there is.
const TICK_SHARES: usize = 1000;

/// How long anything else may go on while a tick waits: well under the shortest tick, 10 ms.
const TICK_LATENCY: Duration = Duration::from_millis(2);

/// Runs a partition until its game is gone.
pub(super) fn run(post: Post, ready: Ready) {
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
        let queue =
            glommio::executor().create_task_queue(shares, Latency::Matters(TICK_LATENCY), "tick");
        match glommio::spawn_local_into(post.drive(), queue) {
            Ok(ticks) => {
                let _ = ready.send(Ok(()));
                ticks.await;
            }
            Err(error) => {
                let _ = ready.send(Err(io::Error::other(error.to_string())));
            }
        }
    });
}
