//! `sallyport check` and `sallyport config --effective`.
//!
//! Owns judging a configuration without starting anything. Invariant: what
//! `check` calls good, the role starts with on a machine that allows it, once
//! the key files exist.

use gateway::engine;

use crate::Verdict;
use crate::args::{ConfigArguments, RoleArguments};
use crate::config::{self, Machine, Overrides};
use crate::doctor;
use crate::keys::{self, KeyFileError};
use crate::output::{print, say};

/// `check`: all problems of the file, 1 if there are any.
///
/// # Errors
/// The file cannot be read.
pub fn check(arguments: &RoleArguments) -> anyhow::Result<Verdict> {
    let file = &arguments.config;
    // A missing file is not a finding about a configuration.
    std::fs::metadata(file)
        .map_err(|error| anyhow::anyhow!("{}: cannot read it: {error}", file.display()))?;
    let overrides = Overrides::of_process(&arguments.set);
    let loaded = match config::load(file, &overrides, &machine()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return Ok(Verdict::Wrong);
        }
    };
    let mut verdict = Verdict::Good;
    for problem in keys::check(&loaded.role) {
        let is_missing = matches!(
            problem,
            KeyFileError::Missing { .. } | KeyFileError::TlsMissing { .. }
        );
        if is_missing {
            eprintln!("warning: {problem}");
        } else {
            eprintln!("{problem}");
            verdict = Verdict::Wrong;
        }
    }
    if verdict == Verdict::Good {
        say!("{}: good, role {}", file.display(), loaded.role.name());
    }
    Ok(verdict)
}

/// `config --effective`.
///
/// # Errors
/// The configuration is not valid.
pub fn effective(arguments: &ConfigArguments) -> anyhow::Result<Verdict> {
    let overrides = Overrides::of_process(&arguments.role.set);
    let loaded = config::load(&arguments.role.config, &overrides, &machine())?;
    print(format_args!("{}", config::render(&loaded.entries)));
    Ok(Verdict::Good)
}

/// What defaults depend on, on this machine.
pub fn machine() -> Machine {
    Machine {
        uring: engine::probe().is_ok(),
        open_files: doctor::open_files().0,
    }
}
