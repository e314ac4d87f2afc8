//! Log lines on standard error, as text or JSON.
//!
//! Owns the one subscriber of the process. Invariant: nothing but log lines
//! and errors goes to standard error, results go to standard output.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat};

/// Changes the level of the running process.
pub struct LogLevel(reload::Handle<LevelFilter, Registry>);

/// Starts logging; once a process.
///
/// # Errors
/// A subscriber exists already.
pub fn start(config: LogConfig) -> anyhow::Result<LogLevel> {
    let (level, handle) = reload::Layer::new(config.level);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(level)
        .with(lines)
        .try_init()?;
    Ok(LogLevel(handle))
}

impl LogLevel {
    /// Takes a new level over.
    pub fn set(&self, level: LevelFilter) {
        // Fails only once the subscriber is gone, at the end of the process.
        let _ = self.0.modify(|current| *current = level);
    }
}
