//! Clients that wait in center's queue, and how busy this shard is: the gateway's end of center's
//! door.
//!
//! The order is center's; a shard only passes positions on. Invariant: a client that waits makes
//! the shard keep nothing beyond its connection; a position that does not fit into what waits for
//! it is left out, and the next one is as good.

use std::num::NonZero;

use protocol::body::{Body, QueuePosition};
use protocol::control::{Load, Places, to_backend};
use protocol::reason::DropReason;
use protocol::time::{Now, Time};

use super::Shard;
use super::connection::{PendingLogin, Phase};
use super::uplinks::CENTER;

/// Time, ms, between two reports of how busy the shard is.
const REPORT_MS: u64 = 1_000;

/// Bytes that wait for a client from which on it is told no position: some 15 of them.
const WAITING_BYTES_MAX: usize = 1_024;

/// The reports of a shard.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// When the next one is due; none while center wants none.
    due: Option<Time>,
    since: Time,
    busy_us: u64,
}

impl Report {
    /// Center is there.
    pub(super) fn begin(&mut self, now: Time, is_wanted: bool) {
        self.due = is_wanted.then_some(now);
    }

    /// Center is gone.
    pub(super) fn end(&mut self) {
        self.due = None;
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.due
    }

    /// How busy it was since the last report, thousandths, if one is due. `busy_us` in all.
    fn take(&mut self, now: Time, busy_us: u64) -> Option<u32> {
        let since = std::mem::replace(&mut self.since, now);
        if self.due.is_none_or(|due| now < due) {
            self.since = since;
            return None;
        }
        self.due = Some(now.after_ms(REPORT_MS));
        let busy = busy_us.saturating_sub(std::mem::replace(&mut self.busy_us, busy_us));
        let permille = (busy * 1_000).checked_div(now.us_since(since)).unwrap_or(0);
        Some(permille.min(1_000) as u32)
    }
}

impl Shard {
    /// Connections that strangers may hold: all but those with a session, or waiting for one.
    pub(super) fn before_login(&self) -> usize {
        self.connections_open - self.sessions.len() - self.queued
    }

    /// Center says where claims are in its queue.
    pub(super) fn handle_places(&mut self, now: Now, places: &Places) {
        for placed in &places.placed {
            let Some(id) = self.claims.get(&placed.claim).copied() else {
                continue;
            };
            let Some(mut connection) = self.take(id) else {
                continue;
            };
            if let Phase::Claiming(pending) = &mut connection.phase {
                let place = NonZero::new(placed.place);
                self.queued += usize::from(pending.place.is_none() && place.is_some());
                pending.place = place.or(pending.place);
            }
            if connection.queued_bytes() > WAITING_BYTES_MAX {
                self.counters.drop_frame(DropReason::SendQueueFull);
            } else {
                self.lend_out(&mut connection);
                let position = QueuePosition {
                    position: placed.position,
                    seconds: placed.seconds,
                    of: places.of,
                };
                connection.seal(now.time, &Body::Queue(position));
                self.counters.frames_sent.add(1);
            }
            self.connections[id.index as usize] = Some(connection);
            self.list_for_send(id);
        }
        self.counters.queued.set(self.queued as u64);
    }

    /// A claim was answered, or its connection is gone.
    pub(super) fn leave_queue(&mut self, pending: &PendingLogin) {
        self.queued -= usize::from(pending.place.is_some());
        self.counters.queued.set(self.queued as u64);
    }

    /// Tells center how busy this shard is, if that is due.
    pub(super) fn report_load(&mut self, now: Now) {
        let busy_us = self.counters.busy_us.value();
        if let Some(busy_permille) = self.report.take(now.time, busy_us) {
            let load = to_backend::Message::Load(Load { busy_permille });
            self.uplinks[CENTER].control(load);
        }
    }
}
