//! A shard's turn: what its core wants done is done until it rests, and its counters are compared
//! with what went in and came out.
//!
//! Invariant: a core is called only between `handle_*` and a whole turn, so
//! what it appended has left before anything else happens.

use std::net::SocketAddr;

use gateway::counters::Counters;
use gateway::shard::Shard;
use protocol::reason::{CloseReason, DropReason};
use protocol::time::Now;
use protocol::uplink::{self, Record};

use super::event::Event;
use super::shard_side::CONNECTIONS_MAX;
use super::{World, is_due};
use crate::rule::{Rule, Step, Violation, check};

/// Rounds of a turn after which a core is taken for one that never rests.
const ROUNDS_MAX: usize = 10_000;

/// What a shard has counted.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    pub handshakes: u64,
    pub received: u64,
    pub forwarded: u64,
    pub sent: u64,
    pub drops: u64,
    pub after_close: u64,
    pub closes: u64,
    pub too_slow: u64,
    pub entered: u64,
    /// CREDITs, which nobody asked for.
    pub credits: u64,
    /// Messages that wait for clients that read too slowly.
    pub backlog: u64,
}

impl Tally {
    pub fn of(counters: &Counters) -> Self {
        let after_close = counters.drops(DropReason::AfterClose);
        let drops: u64 = DropReason::ALL.iter().map(|&r| counters.drops(r)).sum();
        Self {
            handshakes: counters.handshakes.value(),
            received: counters.frames_received.value(),
            forwarded: counters.forwarded.value(),
            sent: counters.frames_sent.value(),
            drops: drops - after_close,
            after_close,
            closes: CloseReason::ALL.iter().map(|&r| counters.closes(r)).sum(),
            too_slow: counters.closes(CloseReason::SlowConsumer),
            entered: counters.logins.value() + counters.resumes.value(),
            credits: counters.credits_told.value(),
            backlog: counters.backlog_messages.value(),
        }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            handshakes: self.handshakes - before.handshakes,
            received: self.received - before.received,
            forwarded: self.forwarded - before.forwarded,
            sent: self.sent - before.sent,
            drops: self.drops - before.drops,
            after_close: self.after_close - before.after_close,
            closes: self.closes - before.closes,
            too_slow: self.too_slow - before.too_slow,
            entered: self.entered - before.entered,
            credits: self.credits - before.credits,
            backlog: self.backlog.wrapping_sub(before.backlog),
        }
    }
}

/// Records with a message body in a run, and all records.
pub fn count_records(mut run: &[u8]) -> (u64, u64) {
    let (mut data, mut all) = (0, 0);
    while let Ok(Some((_, record))) = uplink::next(&mut run) {
        all += 1;
        data += u64::from(matches!(record, Record::Data(_) | Record::Latest { .. }));
    }
    (data, all)
}

/// What a core has to send over datagrams: where to, and what.
fn take_datagrams(core: &mut Shard, now: Now) -> Vec<(SocketAddr, Vec<u8>)> {
    let (mut datagrams, mut run) = (Vec::new(), Vec::new());
    while let Some((to, segment_bytes)) = core.poll_datagrams(now, &mut run) {
        datagrams.extend(run.chunks(segment_bytes).map(|bytes| (to, bytes.to_vec())));
        run.clear();
    }
    datagrams
}

impl World {
    pub(super) fn shard_wake(&mut self, shard: usize) -> Step {
        if !is_due(self.shards[shard].wake_at, self.now) {
            return Ok(());
        }
        self.shards[shard].wake_at = None;
        self.shard_turn(shard)
    }

    /// One turn, and more until the core rests.
    pub(super) fn shard_turn(&mut self, shard: usize) -> Step {
        for _ in 0..ROUNDS_MAX {
            let now = self.shards[shard].clock.now(self.now);
            let Some(mut core) = self.shards[shard].core.take() else {
                return Ok(());
            };
            core.handle_timeout(now);
            let sends: Vec<_> = std::iter::from_fn(|| core.poll_send()).collect();
            let datagrams = take_datagrams(&mut core, now);
            let actions: Vec<_> = std::iter::from_fn(|| core.poll_action()).collect();
            let mut records = Vec::new();
            core.poll_uplink(|at, stream, bytes| {
                records.push((at, stream, std::mem::take(bytes)));
            });
            for at in 0..core.uplinks() {
                let link = self.shards[shard].dialers[at].link;
                let queued = link
                    .and_then(|link| self.links.get(&link))
                    .map_or(0, |link| link.queued_bytes);
                core.handle_uplink_queued(at, queued);
            }
            let is_over = core.poll_timeout().is_none_or(|due| due > now.time);
            self.shards[shard].core = Some(core);
            let is_idle = sends.is_empty()
                && datagrams.is_empty()
                && actions.is_empty()
                && records.is_empty();
            self.check_forwarded(shard, &records)?;
            for (at, stream, bytes) in records {
                self.shard_link_write(shard, at, stream, bytes)?;
            }
            for (id, buffer) in sends {
                self.shard_send(shard, id, buffer)?;
            }
            for (to, bytes) in datagrams {
                self.shard_sends_datagram(shard, to, &bytes)?;
            }
            for action in actions {
                self.act(shard, action)?;
            }
            if is_idle && is_over {
                self.shard_set_timer(shard);
                return self.check_shard(shard);
            }
        }
        Err(Violation::new(Rule::Bounded, "a shard's turn does not end"))
    }

    /// What is counted as forwarded is what left.
    fn check_forwarded(&mut self, shard: usize, records: &[(usize, u8, Vec<u8>)]) -> Step {
        let host = &mut self.shards[shard];
        let forwarded = host.counters.forwarded.value();
        let expected = forwarded - host.forwarded_seen;
        host.forwarded_seen = forwarded;
        let left: u64 = records
            .iter()
            .filter(|(_, stream, _)| *stream != 0)
            .map(|(_, _, run)| count_records(run).0)
            .sum();
        check(left == expected, Rule::DropsCounted, || {
            format!("{expected} messages were counted as forwarded, {left} left")
        })
    }

    fn check_shard(&self, shard: usize) -> Step {
        let host = &self.shards[shard];
        let Some(core) = &host.core else {
            return Ok(());
        };
        let conns = host.conns().len();
        let (connections, sessions) = (core.connections(), core.sessions());
        let over_datagrams = connections.checked_sub(conns);
        check(
            over_datagrams.is_some_and(|count| count <= CONNECTIONS_MAX as usize)
                && sessions <= connections,
            Rule::Bounded,
            || {
                format!(
                    "a shard keeps {connections} connections and {sessions} sessions, \
                     {conns} are open"
                )
            },
        )
    }

    fn shard_set_timer(&mut self, shard: usize) {
        let host = &mut self.shards[shard];
        let Some(due) = host.core.as_ref().and_then(Shard::poll_timeout) else {
            return;
        };
        let at = host.clock.global(due).max(self.now + 1);
        if host.wake_at.is_none_or(|wake_at| at < wake_at) {
            host.wake_at = Some(at);
            self.push(at, Event::ShardWake { shard });
        }
    }

    /// Records from a backend: each is sealed for a client or counted.
    pub(super) fn shard_records(&mut self, shard: usize, at: usize, run: &[u8]) -> Step {
        let host = &mut self.shards[shard];
        let Some(core) = &mut host.core else {
            return Ok(());
        };
        let (data, _) = count_records(run);
        let before = Tally::of(&host.counters);
        core.handle_uplink_records(host.clock.now(self.now), at, run);
        let done = Tally::of(&host.counters).since(before);
        check(
            // What goes to channels is one record for any number of members.
            self.plan.channels
                || (done.sent - done.credits + done.drops + done.too_slow)
                    .wrapping_add(done.backlog)
                    == data,
            Rule::DropsCounted,
            || {
                format!(
                    "of {data} records {} were sealed and {} dropped",
                    done.sent, done.drops
                )
            },
        )?;
        self.shard_turn(shard)
    }

    /// A control message from a backend.
    pub(super) fn shard_control(&mut self, shard: usize, at: usize, message: &[u8]) -> Step {
        let host = &mut self.shards[shard];
        let Some(core) = &mut host.core else {
            return Ok(());
        };
        core.handle_uplink_control(host.clock.now(self.now), at, message);
        self.shard_turn(shard)
    }
}
