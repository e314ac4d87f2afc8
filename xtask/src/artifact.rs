//! A file that is generated and checked in.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// What a file of the repository should hold.
pub struct Artifact {
    /// From the repository's root.
    path: &'static str,
    content: String,
}

impl Artifact {
    /// A file, by its path from the repository's root, and its content.
    pub fn new(path: &'static str, content: String) -> Self {
        Self { path, content }
    }

    /// The path from the repository's root.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Whether the file holds exactly this.
    pub fn is_current(&self) -> anyhow::Result<bool> {
        match fs::read_to_string(absolute(self.path)) {
            Ok(content) => Ok(content == self.content),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path)),
        }
    }

    /// Writes the file.
    pub fn write(&self) -> anyhow::Result<()> {
        fs::write(absolute(self.path), &self.content)
            .with_context(|| format!("writing {}", self.path))
    }
}

/// Reads a file by its path from the repository's root.
pub fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(absolute(path)).with_context(|| format!("reading {path}"))
}

/// The path of a file of the repository, wherever this was started.
pub fn absolute(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
