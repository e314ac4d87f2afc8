//! The steady clock that the drivers pass to the core.

use std::time::{Duration, Instant};

use protocol::time::Time;

/// A clock that began when the proxy did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        Time(self.origin.elapsed().as_micros() as u64)
    }

    pub(crate) fn instant(&self, time: Time) -> tokio::time::Instant {
        (self.origin + Duration::from_micros(time.0)).into()
    }
}
