//! Reads the snapshots of a map at the start of its game.
//!
//! A file that is torn, foreign or unreadable is left out with a warning and counted; the game
//! starts all the same. Invariant: of a player that stands in several files, the latest round
//! counts, and in it the latest tick.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use protocol::ids::SessionId;
use rustc_hash::FxHashMap;

use crate::map::{PLAYERS_MAX, SNAPSHOT_BYTES_MAX, Snapshot, Standing};

/// What the snapshots say.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub(super) players: FxHashMap<SessionId, Standing>,
    /// The one to write next.
    pub(super) round: u64,
    /// Files that are not good.
    pub(super) unreadable: u64,
}

/// Makes the directory if it is not there, and gives its whole path: glommio does not find a
/// relative one (`Directory::open` passes no descriptor for it to begin at).
pub(super) fn prepare(directory: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    fs::canonicalize(directory)
}

/// Reads what lies in the directory.
pub(super) fn restore(directory: &Path) -> io::Result<Restored> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "snapshot") {
            files.push(path);
        }
    }
    // So that equal directories are read alike.
    files.sort();
    let mut restored = Restored::default();
    // Round and tick by session.
    let mut found: FxHashMap<SessionId, (u64, Standing)> = FxHashMap::default();
    let mut last = None;
    for path in files {
        if let Err(why) = read(&path, &mut found, &mut last) {
            restored.unreadable += 1;
            tracing::warn!(path = %path.display(), %why, "left a snapshot of the map out");
        }
    }
    restored.round = last.map_or(0, |round: u64| round + 1);
    // Older ones are of partitions that are no more.
    found.retain(|_, (round, _)| *round + 1 >= last.unwrap_or(0));
    restored.players = found
        .into_iter()
        .map(|(session, (_, standing))| (session, standing))
        .collect();
    Ok(restored)
}

fn read(
    path: &Path,
    found: &mut FxHashMap<SessionId, (u64, Standing)>,
    last: &mut Option<u64>,
) -> Result<(), String> {
    let bytes = read_bounded(path).map_err(|error| error.to_string())?;
    let snapshot = Snapshot::decode(&bytes).map_err(|error| error.to_string())?;
    *last = (*last).max(Some(snapshot.round));
    for standing in snapshot.players() {
        let is_new = !found.contains_key(&standing.session);
        if is_new && found.len() >= PLAYERS_MAX as usize {
            return Err("more players than a map holds".to_owned());
        }
        let entry = found
            .entry(standing.session)
            .or_insert((snapshot.round, standing));
        if (snapshot.round, standing.tick) > (entry.0, entry.1.tick) {
            *entry = (snapshot.round, standing);
        }
    }
    Ok(())
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SNAPSHOT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SNAPSHOT_BYTES_MAX {
        return Err(io::Error::other("longer than a snapshot can be"));
    }
    Ok(bytes)
}
