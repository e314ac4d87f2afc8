//! On which core a process runs, and how much CPU it has used.
//!
//! Owns no process. Invariant: CPU is that of all threads together, user and
//! system, the threads that have ended included.

use std::fs;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread, and the threads and processes that it starts from now on,
/// on the `core`th of the cores that it may use.
///
/// # Errors
/// There is no such core.
pub fn pin(core: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let cpu = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .nth(core)
        .ok_or_else(|| io::Error::other(format!("there is no core {core} for this process")))?;
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// CPU seconds of a process so far, in steps of the system's clock tick (10 ms).
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds(process: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let ticks = ticks(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat is not understood"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// utime and stime, fields 14 and 15 of proc_pid_stat(5). The name before them
/// may hold anything, so they are counted from its closing parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests;
