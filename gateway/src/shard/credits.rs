//! What clients may send to a backend that does not keep up (PROTOCOL §6): who sends to one whose
//! queue is full gets no credit for that group, waits in the uplink's line, and is
//! given some when the queue has emptied to a half.
//!
//! It loses nothing that is reliable: what a client may not send stays in its outbox. Invariants:
//! a session stands once in the line of an uplink; of what is granted, at most half of
//! `uplink_queue_bytes_max` and one outbox has not come, or is older than `GRANT_MS`.

use protocol::body::{Body, CREDIT_UNLIMITED};
use protocol::limits::OUTBOX_BYTES_MAX;
use protocol::time::{Now, Time};

use super::connection::{Connection, Phase};
use super::story::Event;
use super::{Action, Shard};
use crate::engine::ConnId;

/// Bytes that a client in the line is given at a time: several messages of a player's, and little
/// enough for hundreds of players in half a queue.
const GRANT_BYTES: u32 = 8_192;

/// For how long, ms, what was granted and has not come counts against half a queue: it comes a round
/// trip later, or, from who has nothing more to say, never.
const GRANT_MS: u64 = 100;

/// Bytes beyond its credit that a session may send before reading from its client pauses: what an
/// honest one can have had on its way, at 5 Mbit/s and 100 ms. It bounds what all of
/// them together add to the queue.
const PAST_CREDIT_BYTES_MAX: i64 = 65_536;

/// What a session may send to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credit {
    /// Everything: its backend keeps up.
    #[default]
    Unlimited,
    /// So many bytes more.
    Left(u32),
    /// Nothing: it stands in the line. So many bytes came nevertheless.
    Waits(u32),
}

/// The sessions that wait for credit at one uplink.
#[derive(Debug, Default)]
pub struct Line {
    /// Their connections, who came first in front.
    waiting: std::collections::VecDeque<ConnId>,
    /// Since when `granted` counts.
    since: Time,
    /// Bytes that were granted since then and have not come.
    granted: usize,
}

impl Credit {
    /// What a CREDIT says of it, if there is anything to say.
    pub fn told(self) -> Option<u32> {
        match self {
            Self::Unlimited => None,
            Self::Left(left) => Some(left),
            Self::Waits(_) => Some(0),
        }
    }
}

impl Line {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes all of them out.
    pub fn take(&mut self) -> impl Iterator<Item = ConnId> + use<> {
        std::mem::take(&mut self.waiting).into_iter()
    }
}

impl Shard {
    /// Whether an unreliable message for this uplink is lost, because the backend does not keep up
    /// and its session has no credit.
    pub(super) fn is_beyond_credit(&self, credit: Credit, at: usize) -> bool {
        matches!(credit, Credit::Waits(_))
            && self.uplinks[at].waiting_bytes() > self.config.uplink_queue_bytes_max
    }

    /// A message of so many bytes went into the buffer of an uplink, to which the session is bound
    /// for the group at this index.
    pub(super) fn charge_credit(
        &mut self,
        now: Now,
        connection: &mut Connection,
        group: usize,
        at: usize,
        bytes: usize,
    ) {
        let uplink = &mut self.uplinks[at];
        let id = connection.id;
        let Phase::Session(session) = &mut connection.phase else {
            return;
        };
        let credit = &mut session.bindings[group].credit;
        let bytes = bytes as u32;
        let told = match *credit {
            Credit::Unlimited if uplink.waiting_bytes() <= self.config.uplink_queue_bytes_max => {
                return;
            }
            Credit::Unlimited => true,
            Credit::Left(left) => {
                // What has come is in the queue, where it is seen.
                uplink.line.granted = uplink.line.granted.saturating_sub(bytes.min(left) as usize);
                if bytes < left {
                    *credit = Credit::Left(left - bytes);
                    return;
                }
                false
            }
            Credit::Waits(past) => {
                let past = past.saturating_add(bytes);
                *credit = Credit::Waits(past);
                if i64::from(past) > PAST_CREDIT_BYTES_MAX && !connection.uplink_paused {
                    connection.uplink_paused = true;
                    self.counters.uplink_pauses.add(1);
                    self.actions.push_back(Action::Pause(id));
                }
                return;
            }
        };
        *credit = Credit::Waits(0);
        let group_id = self.config.groups[group].group;
        session
            .story
            .note(now.time, Event::CreditWithheld, group_id.0);
        uplink.line.waiting.push_back(id);
        let most = 2 * self.connections_open + 1;
        if self.uplinks[at].line.waiting.len() > most {
            self.clear_line(at);
        }
        self.counters.credits_withheld.add(1);
        if told {
            self.tell_credit(now, connection, group, 0);
        }
    }

    /// Takes those out of a line that have gone: a backend may not keep up for long, and clients
    /// come and go.
    fn clear_line(&mut self, at: usize) {
        let connections = &mut self.connections;
        let waiting = &mut self.uplinks[at].line.waiting;
        waiting.retain(|&id| Self::at(connections, id).is_some());
    }

    fn tell_credit(&mut self, now: Now, connection: &mut Connection, group: usize, bytes: u32) {
        let group = self.config.groups[group].group;
        self.lend_out(connection);
        connection.seal(now.time, &Body::Credit { group, bytes });
        self.counters.frames_sent.add(1);
        self.counters.credits_told.add(1);
    }

    /// Whether an uplink has room for those in its line.
    fn has_room(&self, at: usize) -> bool {
        self.uplinks[at].waiting_bytes() <= self.config.uplink_queue_bytes_max / 2
    }

    /// Gives credit to those in the lines of uplinks that have room.
    pub(super) fn grant_credits(&mut self, now: Now) {
        let half = self.config.uplink_queue_bytes_max / 2;
        for at in 0..self.uplinks.len() {
            let line = &mut self.uplinks[at].line;
            if line.waiting.is_empty() {
                continue;
            }
            if now.time >= line.since.after_ms(GRANT_MS) {
                line.since = now.time;
                line.granted = 0;
            }
            // Few enough for all that they can have.
            let unlimited = line.waiting.len() * OUTBOX_BYTES_MAX <= half;
            let bytes = if unlimited {
                OUTBOX_BYTES_MAX
            } else {
                GRANT_BYTES as usize
            };
            while self.has_room(at)
                && self.uplinks[at].line.granted < half
                && let Some(id) = self.uplinks[at].line.waiting.pop_front()
            {
                if self.grant_credit(now, id, at, unlimited) {
                    self.uplinks[at].line.granted += bytes;
                }
            }
        }
    }

    /// Gives it to one of them. Whether it still waited.
    fn grant_credit(&mut self, now: Now, id: ConnId, at: usize, unlimited: bool) -> bool {
        let Some(group) = self.uplinks[at].group else {
            return false;
        };
        let Some(mut connection) = self.take(id) else {
            return false;
        };
        let uplink = &self.uplinks[at];
        let binding = match &mut connection.phase {
            Phase::Session(session) => session.bindings.get_mut(group),
            _ => None,
        };
        let binding = binding.filter(|it| it.uplink == Some(at as u16) && uplink.holds(it));
        let waits = binding.filter(|it| matches!(it.credit, Credit::Waits(_)));
        let waited = waits.is_some();
        if let Some(binding) = waits {
            let bytes = if unlimited {
                binding.credit = Credit::Unlimited;
                CREDIT_UNLIMITED
            } else {
                binding.credit = Credit::Left(GRANT_BYTES);
                GRANT_BYTES
            };
            self.tell_credit(now, &mut connection, group, bytes);
        }
        self.connections[id.index as usize] = Some(connection);
        self.read_again(id);
        self.list_for_send(id);
        waited
    }

    /// Reads from a client again that had ignored its credit.
    pub(super) fn read_again(&mut self, id: ConnId) {
        if let Some(connection) = self.connection(id)
            && std::mem::take(&mut connection.uplink_paused)
            && !connection.rate_paused
        {
            self.actions.push_back(Action::Resume(id));
        }
    }

    /// When `grant_credits` has something to do.
    pub(super) fn credit_deadline(&self) -> Option<Time> {
        let due = (0..self.uplinks.len()).filter_map(|at| self.credit_due(at));
        due.min()
    }

    /// When those in the line of this uplink are given something, if it has room.
    pub(super) fn credit_due(&self, at: usize) -> Option<Time> {
        let line = &self.uplinks[at].line;
        if line.waiting.is_empty() || !self.has_room(at) {
            None
        } else if line.granted < self.config.uplink_queue_bytes_max / 2 {
            Some(Time(0))
        } else {
            Some(line.since.after_ms(GRANT_MS))
        }
    }
}
