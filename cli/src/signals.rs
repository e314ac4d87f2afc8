//! What an operator tells a running process: drain, end now, reload.
//!
//! Owns SIGTERM, SIGINT and SIGHUP. Invariant: the second request to end is
//! obeyed at once, whatever the drain is waiting for.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// End in order: SIGTERM or Ctrl-C.
    Drain,
    /// End at once: the same again.
    EndNow,
    /// Read the configuration again: SIGHUP.
    Reload,
}

/// The three signals; to be made inside a tokio runtime.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// The same as a first SIGTERM, from the admin port.
    drain: Arc<Notify>,
    draining: bool,
}

impl Signals {
    /// Takes the signals over from their default actions.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            drain: Arc::default(),
            draining: false,
        })
    }

    /// How the admin port asks for an end in order.
    pub fn drain(&self) -> Arc<Notify> {
        Arc::clone(&self.drain)
    }

    /// Waits for the next one. Can be dropped and called again without loss.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => self.end(),
            _ = self.interrupt.recv() => self.end(),
            _ = self.hang_up.recv() => Request::Reload,
            () = self.drain.notified() => {
                self.draining = true;
                Request::Drain
            }
        }
    }

    fn end(&mut self) -> Request {
        if std::mem::replace(&mut self.draining, true) {
            Request::EndNow
        } else {
            Request::Drain
        }
    }
}
