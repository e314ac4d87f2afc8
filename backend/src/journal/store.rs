//! The files of one journal directory: lock, replay, truncation, and the two ends of a rewrite
//! (a new file beside the old one; its renaming). Plain system calls, for both drivers.
//!
//! It does not write records; the drivers do.
//!
//! Invariant: the file under [`JOURNAL_FILE`] has a complete header on disk, and `length` is
//! the end of its last good record.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::format::{self, HEADER_BYTES};
use super::{Batch, JournalError, Replay};

/// Name of the journal in its directory.
pub const JOURNAL_FILE: &str = "center.journal";

/// A rewrite in progress.
const REWRITE_FILE: &str = "center.journal.new";

/// Carries the lock, because the journal itself is replaced at a rewrite.
const LOCK_FILE: &str = "center.lock";

/// Largest file, bytes: it is read at once at the start. Center rewrites it long before.
pub const JOURNAL_FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Step from the salt of a file to that of its successor (odd, so that 2³² files differ).
const SALT_STEP: u32 = 0x9e37_79b9;

/// One open journal directory.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// Held until the process ends or drops it; the kernel frees it after a crash.
    _lock: File,
    /// The journal, writable; taken by the driver.
    pub(super) file: Option<File>,
    salt: u32,
    /// End of the last good record.
    pub(super) length: u64,
    /// A write failed: the file ends nobody knows where.
    pub(super) broken: bool,
}

impl Store {
    pub(super) fn open(dir: &Path, salt: u32) -> Result<(Self, Replay), JournalError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // A directory that a crash takes back would take the journal with it.
            let parent_synced = File::open(parent).and_then(|parent| parent.sync_all());
            parent_synced.map_err(at(parent))?;
        }
        let lock_path = dir.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(&lock_path)(error)),
        }
        let path = dir.join(JOURNAL_FILE);
        let mut store = Self {
            dir: dir.to_owned(),
            _lock: lock,
            file: None,
            salt,
            length: HEADER_BYTES as u64,
            broken: false,
        };
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut file = store.rewrite_file().map_err(at(dir))?;
                file.write_all(&format::header(salt)).map_err(at(dir))?;
                file.sync_data().map_err(at(dir))?;
                store.rewrite_publish().map_err(at(dir))?;
                store.file = Some(file);
                return Ok((store, Replay::default()));
            }
            Err(error) => return Err(at(&path)(error)),
        };
        let bytes = file.metadata().map_err(at(&path))?.len();
        if bytes > JOURNAL_FILE_BYTES_MAX {
            return Err(JournalError::TooLarge { path, bytes });
        }
        let mut content = Vec::with_capacity(bytes as usize);
        io::Read::read_to_end(&mut file, &mut content).map_err(at(&path))?;
        let contents = format::read(&content).map_err(|error| JournalError::Format {
            path: path.clone(),
            error,
        })?;
        store.salt = contents.salt;
        store.length = contents.good_bytes as u64;
        if contents.torn_bytes > 0 {
            file.set_len(store.length).map_err(at(&path))?;
            file.sync_all().map_err(at(&path))?;
        }
        store.file = Some(file);
        let replay = Replay {
            records: contents
                .records
                .iter()
                .map(|record| record.to_vec())
                .collect(),
            torn_bytes: contents.torn_bytes as u64,
        };
        Ok((store, replay))
    }

    /// The bytes that an append adds at `length`.
    pub(super) fn append_bytes(&self, batch: &Batch) -> io::Result<Vec<u8>> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        let mut bytes = Vec::new();
        for record in &batch.records {
            format::write_record(self.salt, record, &mut bytes);
        }
        self.check_length(self.length + bytes.len() as u64)?;
        Ok(bytes)
    }

    /// The whole content of the file that replaces the present one.
    pub(super) fn rewrite_bytes(&mut self, batch: &Batch) -> io::Result<Vec<u8>> {
        self.salt = self.salt.wrapping_add(SALT_STEP);
        let mut bytes = format::header(self.salt).to_vec();
        for record in &batch.records {
            format::write_record(self.salt, record, &mut bytes);
        }
        self.check_length(bytes.len() as u64)?;
        Ok(bytes)
    }

    /// A file to rewrite into. One that a crash left is overwritten.
    pub(super) fn rewrite_file(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(self.dir.join(REWRITE_FILE))
    }

    /// Puts the rewritten file, whose content is on disk, into the place of the journal.
    pub(super) fn rewrite_publish(&self) -> io::Result<()> {
        fs::rename(self.dir.join(REWRITE_FILE), self.dir.join(JOURNAL_FILE))?;
        // Without this the old name may come back after a crash, and with it old reservations.
        File::open(&self.dir)?.sync_all()
    }

    /// Gives the space of a failed rewrite back; on a full disk it may be what is missing.
    pub(super) fn rewrite_abandon(&self) {
        // Failing here leaves a file that the next rewrite overwrites.
        let _ = fs::remove_file(self.dir.join(REWRITE_FILE));
    }

    fn check_length(&self, length: u64) -> io::Result<()> {
        if length > JOURNAL_FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the journal is full",
            ));
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> JournalError {
    let path = path.to_owned();
    move |error| JournalError::Io {
        path: path.clone(),
        error,
    }
}
