//! Figures of this process from `/proc/self` (proc(5)).
//!
//! Owns parsing; keeps nothing between calls. A figure that cannot be read is
//! absent, never 0.

use std::fs;

/// Resident memory, bytes.
pub fn rss_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Open descriptors.
pub fn open_files() -> Option<usize> {
    // The listing itself holds one.
    Some(
        fs::read_dir("/proc/self/fd")
            .ok()?
            .count()
            .saturating_sub(1),
    )
}

/// CPU of the whole process, user and system, ended threads included.
pub fn cpu_seconds() -> Option<f64> {
    seconds(&fs::read_to_string("/proc/self/stat").ok()?).map(|(_, seconds)| seconds)
}

/// CPU of the threads at present whose name begins with one of `prefixes`.
pub fn thread_cpu_seconds(prefixes: &[&str]) -> Option<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc/self/task").ok()? {
        // Threads may end while the directory is read.
        let Ok(stat) = entry.and_then(|entry| fs::read_to_string(entry.path().join("stat"))) else {
            continue;
        };
        if let Some((name, seconds)) = seconds(&stat)
            && prefixes.iter().any(|prefix| name.starts_with(prefix))
        {
            sum += seconds;
        }
    }
    Some(sum)
}

/// Name and CPU time out of a `stat` line. The name may contain blanks and
/// parentheses, so the last parenthesis ends it.
fn seconds(stat: &str) -> Option<(&str, f64)> {
    let (head, fields) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // Fields 14 and 15 (utime, stime); what follows the name starts with 3.
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some((name, (user + system) as f64 / ticks as f64))
}
