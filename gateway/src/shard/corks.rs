//! What a client that comes back is told at once leaves in one piece: its LOGIN_OK waits for the
//! first word of a backend, the SYNC without which it can do nothing.
//!
//! It holds back no message that was ready by itself: whatever comes from a backend for the
//! connection, or its end, pulls the cork. Invariant: nothing waits here for longer than `CORK_US`.

use std::collections::VecDeque;

use protocol::time::{Now, Time};

use super::Shard;
use super::connection::{Connection, Phase};
use crate::engine::ConnId;

/// How long, microseconds, LOGIN_OK waits at most. A backend that keeps up answers OPEN within one, and
/// within some when this shard is busy all the time, which is when a send less counts: with 2 ms,
/// nearly all SYNCs came too late then.
pub(super) const CORK_US: u64 = 10_000;

/// Connections whose output waits, by until when; one for each return of the last `CORK_US`.
#[derive(Debug, Default)]
pub(super) struct Corks(VecDeque<(Time, ConnId)>);

impl Corks {
    /// When the oldest is pulled.
    pub(super) fn next(&self) -> Option<Time> {
        self.0.front().map(|&(until, _)| until)
    }
}

impl Shard {
    /// A connection has a session again, and some backend was told so.
    pub(super) fn cork(&mut self, now: Now, connection: &mut Connection) {
        let Phase::Session(session) = &connection.phase else {
            return;
        };
        let is_open = |binding: &super::connection::Binding| {
            let uplink = binding.uplink.map(usize::from);
            uplink.is_some_and(|at| self.uplinks[at].holds(binding))
        };
        if session.bindings.iter().any(is_open) {
            connection.corked = true;
            let until = Time(now.time.0 + CORK_US);
            self.corks.0.push_back((until, connection.id));
        }
    }

    /// Sends what no backend has followed in time.
    pub(super) fn pull_corks(&mut self, now: Now) {
        while let Some(&(until, id)) = self.corks.0.front()
            && until <= now.time
        {
            self.corks.0.pop_front();
            if let Some(connection) = self.connection(id)
                && std::mem::take(&mut connection.corked)
            {
                self.list_for_send(id);
            }
        }
    }
}
