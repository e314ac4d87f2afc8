//! What a client does when a connection has ended or none came about: try again, and after what
//! time, or let it be. The async client and the load test ask this same type.
//!
//! Knows no connection; whether the next one resumes or logs in is what [`super::Client::can_resume`]
//! says. Call order: `handle_in` at each login and resume, `handle_end` at each end or failed
//! attempt. Time only moves forward.
//!
//! Invariant: every wait is bounded, and so is the number of attempts between two connections
//! that held.

use super::Closed;
use crate::reason::CloseReason;
use crate::time::Time;

/// The first wait is drawn from 0 to this many ms; each further one from twice as much. A
/// client that is cut alone is back before its player has noticed; a crowd is spread.
pub const BACKOFF_MS: u64 = 250;

/// Most that a wait is drawn from, ms: what a gateway of 20,000 clients needs to let all in.
pub const BACKOFF_MS_MAX: u64 = 15_000;

/// Longest time, ms, that a gateway may ask for. It is authenticated, so this only keeps a
/// mistake of an operator from locking players out for weeks.
pub const RETRY_AFTER_MS_MAX: u64 = 300_000;

/// How long, ms, a connection that the gateway closes has to have held for the waits to begin
/// anew: one that is let in and thrown out again and again must not come at full speed.
pub const STEADY_MS: u64 = 10_000;

/// Attempts until the first login. Somebody waits for it, and the address may be wrong.
pub const FIRST_ATTEMPTS_MAX: u32 = 5;

/// Attempts to come back, unless the application says otherwise: about two minutes at a
/// gateway that refuses at once, twice as long as a session waits by default.
pub const ATTEMPTS_MAX: u32 = 20;

const _: () = assert!(BACKOFF_MS < BACKOFF_MS_MAX && FIRST_ATTEMPTS_MAX <= ATTEMPTS_MAX);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again.
    Again {
        /// Which attempt this will be since the last connection that held, from 1.
        attempt: u32,
        /// How long to wait before it.
        wait_ms: u64,
    },
    /// Another attempt would end like this one, or would throw somebody else out.
    Final,
    /// So many attempts in a row were in vain.
    GaveUp {
        /// How many.
        attempts: u32,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Comeback {
    attempts_max: u32,
    /// Since the last connection that held.
    attempts: u32,
    /// Failures so far: which address is next.
    turn: u32,
    /// In a session since.
    in_since: Option<Time>,
    was_in: bool,
}

impl Comeback {
    /// Of a client that begins. `attempts_max` is for those after the first login.
    pub fn new(attempts_max: u32) -> Self {
        Self {
            attempts_max,
            attempts: 0,
            turn: 0,
            in_since: None,
            was_in: false,
        }
    }

    /// Which of so many addresses to try: the same one while it lets this client in.
    pub fn address(&self, count: usize) -> usize {
        self.turn as usize % count.max(1)
    }

    /// Logged in, or back in the session.
    pub fn handle_in(&mut self, now: Time) {
        self.in_since = Some(now);
        self.was_in = true;
    }

    /// A connection has ended, or (`None`) none came about. `retry_after_ms` is what the gateway
    /// asked for, `random` any 64 random bits.
    pub fn handle_end(
        &mut self,
        now: Time,
        closed: Option<Closed>,
        retry_after_ms: u32,
        random: u64,
    ) -> Next {
        let in_since = self.in_since.take();
        let was_lost = closed.is_some_and(|closed| {
            matches!(
                closed,
                Closed::ByClient(CloseReason::PeerClosed | CloseReason::IdleTimeout)
            )
        });
        let held = in_since.is_some_and(|since| was_lost || now >= since.after_ms(STEADY_MS));
        if held {
            self.attempts = 0;
        }
        // Who was let in here is let in again, but for a gateway that goes.
        let goes = matches!(closed, Some(Closed::ByGateway(Some(CloseReason::Draining))));
        if in_since.is_none() || goes {
            self.turn = self.turn.wrapping_add(1);
        }
        if closed.is_some_and(|closed| self.is_final(closed, in_since.is_some())) {
            return Next::Final;
        }
        self.attempts += 1;
        let attempts_max = if self.was_in {
            self.attempts_max
        } else {
            // The first attempt was none of these.
            FIRST_ATTEMPTS_MAX - 1
        };
        if self.attempts > attempts_max {
            return Next::GaveUp {
                attempts: self.attempts,
            };
        }
        let doublings = (self.attempts - 1).min(u64::BITS / 2);
        let window_ms = (BACKOFF_MS << doublings).min(BACKOFF_MS_MAX);
        let drawn_ms = (u128::from(random) * u128::from(window_ms + 1)) >> 64;
        Next::Again {
            attempt: self.attempts,
            wait_ms: u64::from(retry_after_ms).min(RETRY_AFTER_MS_MAX) + drawn_ms as u64,
        }
    }

    /// Whether another attempt would end in the same way; `was_open`: it ended in a session.
    fn is_final(&self, closed: Closed, was_open: bool) -> bool {
        let (Closed::ByGateway(Some(reason)) | Closed::ByClient(reason)) = closed else {
            return false;
        };
        match reason {
            // The same account is played elsewhere: two that come back would take turns.
            CloseReason::Superseded | CloseReason::Replaced | CloseReason::PlaceTaken => true,
            CloseReason::LoggedOut | CloseReason::Kicked => true,
            // A fresh token comes from the same place.
            CloseReason::BadToken | CloseReason::TokenAudience => true,
            // The key or the version does not fit. Once it did, what says so now is not the
            // gateway: before the keys stand nothing is authenticated.
            CloseReason::BadHandshake | CloseReason::BadVersion => !self.was_in,
            CloseReason::Banned | CloseReason::UpgradeRequired => was_open || !self.was_in,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
