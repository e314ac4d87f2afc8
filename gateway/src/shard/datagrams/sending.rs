//! What leaves a shard as datagrams, and when: the list of who has something, the timers, and
//! runs of datagrams that the kernel cuts apart.
//!
//! Not here: what came, and where the client is, which is the parent's.
//!
//! Invariant: a connection is in the list at most once, and has at most one timer that is its
//! own to act on.

use std::net::SocketAddr;

use protocol::datagram::CID_BYTES;
use protocol::limits::DATAGRAM_BYTES_MAX;
use protocol::time::{Now, Time};

use super::{DatagramSide, Datagrams, NEVER};
use crate::engine::ConnId;
use crate::shard::Shard;

/// Bytes handed out at once for one client: what one call to the kernel can cut into
/// datagrams (UDP_SEGMENT), and no more of a turn than that.
const BURST_BYTES: usize = 16 * DATAGRAM_BYTES_MAX;

impl Shard {
    /// After something was given to a connection, or came from it: what it has to send is
    /// sent this turn, and its timer is set.
    pub(super) fn after_datagrams(&mut self, now: Now, id: ConnId) {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        let (Some(datagrams), Some(side)) = (&mut connection.datagrams, &mut self.datagrams) else {
            return;
        };
        if datagrams.candidate.is_some() {
            // Each datagram from there lets one more go there.
            datagrams.end.ask();
        }
        if datagrams.end.can_write(now.time) && !datagrams.listed {
            datagrams.listed = true;
            side.to_send.push_back(id);
        }
        set_timer(side, datagrams, id);
    }

    /// A connection has datagrams to send.
    pub(in crate::shard) fn list_datagrams(&mut self, id: ConnId) {
        if let Some(connection) = Self::at(&mut self.connections, id)
            && let (Some(datagrams), Some(side)) = (&mut connection.datagrams, &mut self.datagrams)
            && !datagrams.listed
        {
            datagrams.listed = true;
            side.to_send.push_back(id);
        }
    }

    pub(in crate::shard) fn handle_datagram_timeouts(&mut self, now: Now) {
        let Some(side) = &mut self.datagrams else {
            return;
        };
        let mut due = std::mem::take(&mut side.due);
        side.timers.expire(now.time, &mut due);
        for id in due.drain(..) {
            let Some(datagrams) = Self::at(&mut self.connections, id)
                .and_then(|connection| connection.datagrams.as_mut())
            else {
                continue;
            };
            // One that was set before an earlier one has nothing to say: were it set
            // again, they would become more and more.
            if datagrams.timer > now.time {
                continue;
            }
            datagrams.timer = NEVER;
            datagrams.end.handle_timeout(now.time);
            if let Some(candidate) = datagrams.candidate
                && now.time >= candidate.until
            {
                datagrams.candidate = None;
                datagrams.end.set_challenge(None);
            }
            self.after_datagrams(now, id);
        }
        if let Some(side) = &mut self.datagrams {
            side.due = due;
        }
    }

    pub(in crate::shard) fn datagram_deadline(&self) -> Option<Time> {
        self.datagrams.as_ref().and_then(|side| side.timers.next())
    }

    /// Appends datagrams for one address to `out`, one behind the other. Returns the
    /// address and the length of each but the last, which may be shorter; `None` when
    /// there is nothing to send.
    pub fn poll_datagrams(&mut self, now: Now, out: &mut Vec<u8>) -> Option<(SocketAddr, usize)> {
        let side = self.datagrams.as_mut()?;
        if let Some((to, reply)) = side.replies.pop_front() {
            out.extend_from_slice(&reply);
            self.counters.datagrams_sent.add(1);
            self.counters.bytes_sent.add(reply.len() as u64);
            return Some((to, reply.len()));
        }
        while let Some((id, frame)) = self.datagrams.as_mut()?.shared.pop_front() {
            let Some(connection) = Self::at(&mut self.connections, id) else {
                continue;
            };
            if let Some(datagrams) = &connection.datagrams
                && let Some(to) = datagrams.address
            {
                out.extend_from_slice(&datagrams.end.cid.0.to_le_bytes());
                out.extend_from_slice(&frame);
                let bytes = CID_BYTES + frame.len();
                connection.traffic.sent(now.time, bytes);
                self.counters.datagrams_sent.add(1);
                self.counters.bytes_sent.add(bytes as u64);
                return Some((to, bytes));
            }
        }
        while let Some(id) = self.datagrams.as_mut()?.to_send.pop_front() {
            let Some(connection) = Self::at(&mut self.connections, id) else {
                continue;
            };
            let Some(datagrams) = &mut connection.datagrams else {
                continue;
            };
            datagrams.listed = false;
            if connection.corked && datagrams.side.is_none() {
                continue;
            }
            let (start, resent) = (out.len(), datagrams.end.resent());
            let credit = datagrams.candidate.map_or(BURST_BYTES, |it| it.credit);
            let mut room = credit.min(BURST_BYTES);
            let (mut segment, mut count) = (0, 0);
            // The kernel cuts what we hand over into pieces of one length, of which only the
            // last may be shorter. To an address in doubt goes one at a time.
            let mut bytes_max = DATAGRAM_BYTES_MAX.min(room);
            while datagrams.end.write(now.time, bytes_max, out) {
                let bytes = out.len() - start - count * segment;
                room -= bytes;
                segment = segment.max(bytes);
                count += 1;
                if bytes < segment || room < segment || datagrams.candidate.is_some() {
                    break;
                }
                bytes_max = segment;
            }
            let bytes = out.len() - start;
            self.counters
                .segments_resent
                .add(datagrams.end.resent() - resent);
            let to = match &mut datagrams.candidate {
                Some(candidate) => {
                    candidate.credit -= bytes;
                    Some(candidate.address)
                }
                None => datagrams.address,
            };
            if count > 0 && datagrams.candidate.is_none() && datagrams.end.can_write(now.time) {
                datagrams.listed = true;
                if let Some(side) = &mut self.datagrams {
                    side.to_send.push_back(id);
                }
            }
            if let (Some(side), Some(connection)) =
                (&mut self.datagrams, Self::at(&mut self.connections, id))
                && let Some(datagrams) = &mut connection.datagrams
            {
                connection.traffic.sent(now.time, bytes);
                set_timer(side, datagrams, id);
            }
            if count > 0
                && let Some(to) = to
            {
                self.counters.datagrams_sent.add(count as u64);
                self.counters.bytes_sent.add(bytes as u64);
                return Some((to, segment));
            }
        }
        None
    }
}

/// Sets a connection's timer to its next deadline, unless one fires before that.
fn set_timer(side: &mut DatagramSide, datagrams: &mut Datagrams, id: ConnId) {
    let challenge = datagrams.candidate.map(|candidate| candidate.until);
    let wanted = [datagrams.end.poll_timeout(), challenge]
        .into_iter()
        .flatten()
        .min();
    if let Some(at) = wanted
        && at < datagrams.timer
    {
        datagrams.timer = at;
        side.timers.insert(id, at);
    }
}
