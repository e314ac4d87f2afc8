//! Center's disk: a file of which what was synced survives a crash, and what
//! was being written is lost, torn, or there after all. The file's format is
//! the real one; the steps are those of `backend::journal::store`.
//!
//! Invariant: what `finish` reported stays readable, whatever comes after it.

use backend::journal::{Batch, format};

use crate::random::Random;

#[derive(Debug)]
struct Writing {
    rewrite: bool,
    /// The new file, or what is appended.
    bytes: Vec<u8>,
    salt: u32,
}

/// One disk.
#[derive(Debug, Default)]
pub struct Disk {
    /// Empty before the first start.
    file: Vec<u8>,
    salt: u32,
    writing: Option<Writing>,
    /// A write failed: nothing is appended until a rewrite.
    broken: bool,
}

impl Disk {
    /// Reads the journal at the start of a process and cuts a torn end off.
    ///
    /// # Errors
    /// What the format says: a bug, since only crashes happen here.
    pub fn open(&mut self, salt: u32) -> Result<Vec<Vec<u8>>, format::FormatError> {
        self.broken = false;
        if self.file.is_empty() {
            self.salt = salt;
            self.file = format::header(salt).to_vec();
            return Ok(Vec::new());
        }
        let contents = format::read(&self.file)?;
        let records = contents.records.iter().map(|r| r.to_vec()).collect();
        let good_bytes = contents.good_bytes;
        self.salt = contents.salt;
        self.file.truncate(good_bytes);
        Ok(records)
    }

    /// Begins to write a batch.
    pub fn submit(&mut self, batch: &Batch) {
        let salt = if batch.rewrite {
            self.salt.wrapping_add(1)
        } else {
            self.salt
        };
        let mut bytes = if batch.rewrite {
            format::header(salt).to_vec()
        } else {
            Vec::new()
        };
        for record in &batch.records {
            format::write_record(salt, record, &mut bytes);
        }
        self.writing = Some(Writing {
            rewrite: batch.rewrite,
            bytes,
            salt,
        });
    }

    /// The batch is on disk: the file's bytes now. `None` where nothing may be
    /// appended after a failure.
    pub fn finish(&mut self) -> Option<u64> {
        let writing = self.writing.take()?;
        if writing.rewrite {
            self.file = writing.bytes;
            self.salt = writing.salt;
            self.broken = false;
        } else if self.broken {
            return None;
        } else {
            self.file.extend_from_slice(&writing.bytes);
        }
        Some(self.file.len() as u64)
    }

    /// The write fails, and leaves a part of it.
    pub fn fail(&mut self, random: &mut Random) {
        if let Some(writing) = self.writing.take()
            && !writing.rewrite
            && !self.broken
        {
            let part = random.index(writing.bytes.len() + 1);
            self.file.extend_from_slice(&writing.bytes[..part]);
            self.broken = true;
        }
    }

    /// The process is gone in the middle of whatever it did.
    pub fn crash(&mut self, random: &mut Random) {
        let Some(writing) = self.writing.take() else {
            return;
        };
        if writing.rewrite {
            // Renamed or not: both files are whole.
            if random.chance(500) {
                self.file = writing.bytes;
                self.salt = writing.salt;
            }
        } else if !self.broken {
            let mut tail = writing.bytes;
            match random.below(4) {
                // Nothing reached the disk, or a prefix, or everything.
                0 => tail.clear(),
                1 => tail.truncate(random.index(tail.len())),
                2 => {}
                // The length did, a block in the middle did not.
                _ => {
                    let from = random.index(tail.len());
                    let to = (from + 16).min(tail.len());
                    tail[from..to].fill(0);
                }
            }
            self.file.extend_from_slice(&tail);
        }
    }

    /// The file, for the digest.
    pub fn bytes(&self) -> &[u8] {
        &self.file
    }
}
