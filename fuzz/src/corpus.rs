//! The inputs that runs begin with: those that the targets make themselves, and what once found
//! a bug, in `corpus/`, one folder a target.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// Where the committed inputs of a target lie.
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// The inputs of a target, in a fixed order.
///
/// # Errors
/// A file cannot be read.
pub fn load(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = (target.seeds)();
    let folder = folder(target);
    if folder.is_dir() {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
        files.sort();
        for file in files {
            inputs.push(fs::read(file)?);
        }
    }
    Ok(inputs)
}

/// Writes an input that crashed a target into `folder`, and says where.
///
/// # Errors
/// It cannot be written.
pub fn save(folder: &Path, target: &Target, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut way = crate::script::Way::default();
    for &byte in input {
        way.note(u64::from(byte));
    }
    let path = folder.join(format!("{}-{:016x}", target.name, way.value()));
    fs::write(&path, input)?;
    Ok(path)
}
