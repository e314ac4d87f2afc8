//! The state behind its lock, with the clock, and who is woken by what.
//!
//! Invariant: nobody awaits while the lock is held, and time read under it never goes back.

use std::sync::{Mutex, PoisonError};

use protocol::time::Time;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::state::{Phase, State};

pub(crate) struct Link {
    state: Mutex<State>,
    origin: Instant,
    phase: watch::Sender<Phase>,
    /// There is something to send, or room to read.
    pub(crate) to_task: Notify,
    /// There are events.
    pub(crate) to_app: Notify,
}

impl Link {
    pub(crate) fn new(state: State) -> Self {
        Self {
            phase: watch::Sender::new(state.phase()),
            state: Mutex::new(state),
            origin: Instant::now(),
            to_task: Notify::new(),
            to_app: Notify::new(),
        }
    }

    /// Calls the state, and wakes those whom the outcome concerns.
    pub(crate) fn with<T>(&self, call: impl FnOnce(&mut State, Time) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let had_room = state.has_room();
        let outcome = call(&mut state, Time(self.origin.elapsed().as_micros() as u64));
        let phase = state.phase();
        // Of several who wait for events one is woken, and wakes the next.
        if state.has_events() || phase == Phase::Over {
            self.to_app.notify_one();
        }
        if (!had_room && state.has_room()) || phase == Phase::Over {
            self.to_task.notify_one();
        }
        drop(state);
        self.phase.send_if_modified(|old| {
            let is_new = *old != phase;
            *old = phase;
            is_new
        });
        outcome
    }

    /// Waits until it is in one of these, or over.
    pub(crate) async fn reach(&self, wanted: &[Phase]) {
        let mut phase = self.phase.subscribe();
        // Fails only without a sender, and that is here.
        let _ = phase
            .wait_for(|phase| wanted.contains(phase) || *phase == Phase::Over)
            .await;
    }

    /// A moment of the core's clock on this one.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.origin + std::time::Duration::from_micros(time.0)
    }
}
