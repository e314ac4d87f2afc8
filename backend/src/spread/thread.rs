//! A partition on a plain thread, pinned to its core where that is allowed.
//!
//! For hosts where io_uring is forbidden. Does exactly what [`super::executor`] does.

use rustix::thread::{CpuSet, sched_setaffinity};

use super::worker::{Post, Ready, core_of};

/// Runs a partition until its game is gone.
pub(super) fn run(post: Post, ready: Ready) {
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
    let _ = ready.send(Ok(()));
    runtime.block_on(post.drive());
}
