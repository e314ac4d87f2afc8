//! The binary as scripts see it: exit codes, what is printed, what is refused.
//!
//! Everything runs the real executable; nothing in here links its modules.

mod bad_input;
mod channels;
mod client;
mod cluster;
mod config;
mod crowds;
mod datagrams;
mod dev;
mod docs;
mod door;
mod faults;
mod front;
mod help;
mod impair;
mod keys;
mod launch;
mod limits;
mod moves;
mod operator;
mod quality;
mod reload;
mod resume;
mod roles;

use std::path::Path;
use std::process::{Command, Output};

/// The binary in a directory, with an environment that no one else filled.
pub fn sallyport(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(cluster::binary());
    command.current_dir(directory).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SALLYPORT__") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub fn run(directory: &Path, arguments: &[&str]) -> Outcome {
    Outcome::of(
        sallyport(directory, arguments)
            .output()
            .expect("the binary starts"),
    )
}

/// How a run ended.
pub struct Outcome {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Outcome {
    /// Of a finished process.
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it exits by itself"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}
