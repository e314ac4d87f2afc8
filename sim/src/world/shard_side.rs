//! The shards: a core each, driven as the real driver drives it, with the
//! counters compared at every call against what went in and came out.
//!
//! Invariant: a core is called only between `handle_*` and a whole turn, so
//! what it appended has left before anything else happens.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gateway::counters::Counters;
use gateway::engine::ConnId;
use gateway::front::FrontConfig;
use gateway::shard::{Action, GroupConfig, Notice, Shard, ShardConfig};
use protocol::check::Rate;
use protocol::cipher::RekeyPolicy;
use protocol::ids::ShardId;
use protocol::reason::{CloseReason, DropReason};
use protocol::time::Time;
use protocol::token::Verifier;
use protocol::uplink::{self, Record};

use super::client_side::{AUDIENCE, GROUP, TOKEN_SECRET};
use super::event::Event;
use super::tcp::Direction;
use super::walkers::MAP_GROUP;
use super::{World, is_due};
use crate::clock::Clock;
use crate::plan::Plan;
use crate::plant::Plant;
use crate::random::Random;
use crate::rule::{Rule, Step, Violation, check};

/// Rounds of a turn after which a core is taken for one that never rests.
const ROUNDS_MAX: usize = 10_000;

/// How often a plant on the wires strikes: every so many times.
const PLANT_EVERY: u64 = 50;

/// First and longest pause, ms, between two attempts to dial.
pub const DIAL_MS: (u64, u64) = (50, 1_000);

/// One uplink as its dialer sees it.
#[derive(Debug, Default)]
pub struct Dialer {
    /// The link that stands or is being made.
    pub link: Option<u64>,
    /// The next pause.
    pub backoff_ms: u64,
    /// Nothing gets there until then.
    pub blocked_until: Time,
}

/// One shard's process.
#[derive(Debug)]
pub struct ShardHost {
    /// Its gateway.
    pub gateway: usize,
    number: u32,
    /// Rises with each start.
    pub boot: u32,
    /// Its core while the process lives.
    pub core: Option<Shard>,
    pub clock: Clock,
    counters: Arc<Counters>,
    /// By index of `ConnId`: generation, and the connection that has it now.
    slots: Vec<(u32, Option<u64>)>,
    /// Not scheduled until then.
    pub paused_until: Time,
    wake_at: Option<Time>,
    pub dialers: Vec<Dialer>,
    forwarded_seen: u64,
}

/// What a shard has counted.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    handshakes: u64,
    received: u64,
    forwarded: u64,
    sent: u64,
    drops: u64,
    after_close: u64,
    closes: u64,
    too_slow: u64,
}

impl Tally {
    fn of(counters: &Counters) -> Self {
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
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            handshakes: self.handshakes - before.handshakes,
            received: self.received - before.received,
            forwarded: self.forwarded - before.forwarded,
            sent: self.sent - before.sent,
            drops: self.drops - before.drops,
            after_close: self.after_close - before.after_close,
            closes: self.closes - before.closes,
            too_slow: self.too_slow - before.too_slow,
        }
    }
}

impl ShardHost {
    pub(super) fn new(index: usize, plan: &Plan, random: &mut Random) -> Self {
        Self {
            gateway: index / plan.shards,
            number: (index % plan.shards) as u32,
            boot: 0,
            core: None,
            clock: Clock::start(Time(0), random),
            counters: Arc::default(),
            slots: Vec::new(),
            paused_until: Time(0),
            wake_at: None,
            dialers: Vec::new(),
            forwarded_seen: 0,
        }
    }

    /// Connections of this process, in the order of their slots.
    pub fn conns(&self) -> Vec<u64> {
        self.slots.iter().filter_map(|slot| slot.1).collect()
    }

    fn occupy(&mut self, conn: u64) -> ConnId {
        let index = match self.slots.iter().position(|slot| slot.1.is_none()) {
            Some(index) => index,
            None => {
                self.slots.push((0, None));
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[index];
        *slot = (slot.0 + 1, Some(conn));
        ConnId {
            index: index as u32,
            generation: slot.0,
        }
    }

    fn conn_of(&self, id: ConnId) -> Option<u64> {
        let slot = self.slots.get(id.index as usize)?;
        slot.1.filter(|_| slot.0 == id.generation)
    }
}

/// The groups, in the order of the games.
fn groups(plan: &Plan) -> Vec<GroupConfig> {
    let echo = GroupConfig {
        group: GROUP,
        instances: plan.games,
    };
    let map = plan.map.as_ref().map(|map| GroupConfig {
        group: MAP_GROUP,
        instances: map.instances,
    });
    std::iter::once(echo).chain(map).collect()
}

/// Records with a message body in a run, and all records.
pub fn count_records(mut run: &[u8]) -> (u64, u64) {
    let (mut data, mut all) = (0, 0);
    while let Ok(Some((_, record))) = uplink::next(&mut run) {
        all += 1;
        data += u64::from(matches!(record, Record::Data(_)));
    }
    (data, all)
}

impl World {
    pub(super) fn gateway_start(&mut self, gateway: usize) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].gateway == gateway && self.shards[shard].core.is_none() {
                self.shard_start(shard);
            }
        }
    }

    fn shard_start(&mut self, shard: usize) {
        let plan = &self.plan;
        let (heartbeat, idle) = (plan.idle_timeout_ms / 3, plan.idle_timeout_ms);
        let config = ShardConfig {
            gateway: format!("gateway-{}", self.shards[shard].gateway),
            shard: ShardId(self.shards[shard].number),
            boot: self.random.bits(),
            key: self.key.clone(),
            groups: groups(plan),
            sessions_max: 1_000,
            connections_before_login_max: 200,
            handshake_timeout_ms: plan.login_timeout_ms,
            login_timeout_ms: plan.login_timeout_ms,
            heartbeat_interval_ms: heartbeat,
            idle_timeout_ms: idle,
            resume_ms: plan.resume_ms,
            frames: Rate {
                per_second: plan.frames_per_second,
                burst: 2 * plan.frames_per_second,
            },
            bytes: Rate {
                per_second: 1_000_000,
                burst: 2_000_000,
            },
            send_queue_bytes_max: plan.send_queue_bytes_max,
            uplink_queue_bytes_max: plan.uplink_queue_bytes_max,
            rekey: RekeyPolicy {
                frames: plan.rekey_frames,
            },
            compress_bytes_min: plan.compress_bytes_min,
            front: FrontConfig::default(),
            datagrams: None,
        };
        let public = std::array::from_fn(|at| TOKEN_SECRET[32 + at]);
        let verifier = Verifier::new(AUDIENCE.to_owned(), &[public]);
        let seed = self.random.secret();
        let clock = Clock::start(self.now, &mut self.random);
        let host = &mut self.shards[shard];
        host.boot += 1;
        host.clock = clock;
        host.counters = Arc::default();
        host.slots.clear();
        host.wake_at = None;
        host.paused_until = self.now;
        host.forwarded_seen = 0;
        let now = clock.now(self.now);
        host.core = verifier
            .map(|verifier| Shard::new(config, verifier, seed, Arc::clone(&host.counters), now));
        let uplinks = 1 + self.games.len();
        host.dialers = (0..uplinks).map(|_| Dialer::default()).collect();
        let boot = host.boot;
        for uplink in 0..uplinks {
            self.after_us(
                100,
                Event::Dial {
                    shard,
                    uplink,
                    boot,
                },
            );
        }
    }

    /// A gateway's process ends, drained or not.
    pub(super) fn gateway_stop(&mut self, gateway: usize) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].gateway == gateway {
                self.shard_crash(shard);
            }
        }
        let at = self.within(50, 6_000);
        self.push(at, Event::GatewayStart { gateway });
    }

    /// A gateway is told to end.
    pub(super) fn gateway_drain(&mut self, gateway: usize) -> Step {
        for shard in 0..self.shards.len() {
            let host = &mut self.shards[shard];
            if host.gateway == gateway
                && let Some(core) = &mut host.core
            {
                core.handle_drain();
                self.shard_turn(shard)?;
            }
        }
        let at = self.within(1_000, 3_000);
        self.push(at, Event::GatewayStop { gateway });
        Ok(())
    }

    /// A shard's process dies. Who was connected hears of it, or not.
    pub(super) fn shard_crash(&mut self, shard: usize) {
        let host = &mut self.shards[shard];
        if host.core.take().is_none() {
            return;
        }
        let silent = self.random.chance(300);
        let conns = self.shards[shard].conns();
        self.shards[shard].slots.clear();
        for number in conns {
            let after_us = self.network_us();
            if let Some(conn) = self.conns.get_mut(&number) {
                conn.is_cut = true;
                conn.shard_open = false;
                conn.sending = None;
                if !silent {
                    self.after_us(after_us, Event::ClientTold { conn: number });
                }
            }
            self.forget_conn(number);
        }
        self.cut_links(|link| link.shard == shard, silent);
    }

    /// A connection reaches the gateway's port.
    pub(super) fn accept(&mut self, number: u64) -> Step {
        let after_us = self.network_us();
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        let shard = conn.shard;
        let host = &mut self.shards[shard];
        if host.core.is_none() {
            self.after_us(after_us, Event::Refused { conn: number });
            return Ok(());
        }
        let id = host.occupy(number);
        conn.id = Some(id);
        conn.shard_open = true;
        conn.shard_boot = host.boot;
        let peer = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), number as u16));
        if let Some(core) = &mut host.core {
            core.handle_accepted(host.clock.now(self.now), id, Some(peer));
        }
        self.after_us(after_us, Event::Established { conn: number });
        if self
            .conns
            .get(&number)
            .is_some_and(|conn| !conn.client_open)
        {
            // The client went away meanwhile.
            self.pump(number, Direction::Up);
        }
        self.shard_turn(shard)
    }

    /// Reads what a connection has for the shard.
    pub(super) fn shard_read(&mut self, number: u64) -> Step {
        loop {
            let Some(conn) = self.conns.get_mut(&number) else {
                return Ok(());
            };
            let (Some(id), true, false) = (conn.id, conn.shard_open, conn.is_paused) else {
                return Ok(());
            };
            let shard = conn.shard;
            let ready = conn.up.ready();
            if ready == 0 {
                if conn.up.is_ended() {
                    self.shard_side_closed(number, id);
                    return self.shard_turn(shard);
                }
                break;
            }
            let part = if self.random.chance(200) {
                1 + self.random.index(ready)
            } else {
                ready
            };
            let bytes = conn.up.take(part);
            self.shard_received(number, id, bytes)?;
            self.shard_turn(shard)?;
        }
        self.pump(number, Direction::Up);
        match self.conns.get(&number).and_then(|conn| conn.client) {
            Some(client) if self.clients[client].conn == Some(number) => self.client_flush(client),
            _ => Ok(()),
        }
    }

    fn shard_received(&mut self, number: u64, id: ConnId, mut bytes: Vec<u8>) -> Step {
        if self.plant == Some(Plant::PanicOnFrame) && self.now.ms() > 4_000 {
            panic!("planted: a frame of {} bytes", bytes.len());
        }
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        let host = &mut self.shards[conn.shard];
        let Some(core) = &mut host.core else {
            return Ok(());
        };
        let original = bytes.clone();
        let before = Tally::of(&host.counters);
        core.handle_received(host.clock.now(self.now), id, &mut bytes);
        let done = Tally::of(&host.counters).since(before);
        let processed = (done.handshakes + done.received) as usize;
        let local = conn.delivered.local_frames(&original, processed);
        if conn.client.is_none() {
            return Ok(());
        }
        if let Some(end) = conn.tampered_at {
            let is_closed = done.closes > 0 || done.after_close > 0;
            return check(
                conn.up.taken() < end || is_closed,
                Rule::TamperingCloses,
                || format!("connection {number} goes on behind a tampered frame"),
            );
        }
        let accounted = done.forwarded + done.drops + local;
        // A frame that closes the connection is in the counter of closes.
        let closing = done.received.saturating_sub(accounted);
        check(
            accounted <= done.received && closing <= done.closes.min(1),
            Rule::DropsCounted,
            || {
                format!(
                    "of {} frames {} were forwarded, {} dropped, {local} answered",
                    done.received, done.forwarded, done.drops
                )
            },
        )
    }

    /// The engine has closed a connection.
    fn shard_side_closed(&mut self, number: u64, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&number) else {
            return;
        };
        conn.shard_open = false;
        conn.is_paused = false;
        let sending = conn.sending.take();
        let host = &mut self.shards[conn.shard];
        if let Some(slot) = host.slots.get_mut(id.index as usize)
            && slot.1 == Some(number)
        {
            slot.1 = None;
        }
        if let Some(core) = &mut host.core {
            if let Some(buffer) = sending {
                core.handle_sent(id, buffer);
            }
            core.handle_closed(host.clock.now(self.now), id);
        }
        // Bytes that still come are answered with a reset.
        let is_cut = self.conns.get(&number).is_some_and(|conn| conn.is_cut);
        let after_us = self.network_us();
        if !is_cut {
            self.after_us(after_us, Event::ClientTold { conn: number });
        }
        self.forget_conn(number);
    }

    /// The shard's side hears that a connection is broken.
    pub(super) fn shard_told(&mut self, number: u64) -> Step {
        let Some(conn) = self.conns.get(&number).filter(|conn| conn.shard_open) else {
            return Ok(());
        };
        let (Some(id), shard) = (conn.id, conn.shard) else {
            return Ok(());
        };
        self.shard_side_closed(number, id);
        self.shard_turn(shard)
    }

    /// A buffer has gone.
    pub(super) fn sent(&mut self, number: u64) -> Step {
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        let (Some(id), shard, true) = (conn.id, conn.shard, conn.shard_open) else {
            return Ok(());
        };
        let Some(buffer) = conn.sending.take() else {
            return Ok(());
        };
        if let Some(core) = &mut self.shards[shard].core {
            core.handle_sent(id, buffer);
        }
        self.shard_turn(shard)
    }

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
            let is_idle = sends.is_empty() && actions.is_empty() && records.is_empty();
            self.check_forwarded(shard, &records)?;
            for (at, stream, bytes) in records {
                self.shard_link_write(shard, at, stream, bytes)?;
            }
            for (id, buffer) in sends {
                self.shard_send(shard, id, buffer)?;
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
        check(
            core.connections() == conns && core.sessions() <= conns,
            Rule::Bounded,
            || {
                format!(
                    "a shard keeps {} connections and {} sessions, {conns} are open",
                    core.connections(),
                    core.sessions()
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

    fn shard_send(&mut self, shard: usize, id: ConnId, buffer: Vec<u8>) -> Step {
        let number = self.shards[shard].conn_of(id);
        let strikes = self.strikes(Plant::ReuseNonce, PLANT_EVERY);
        let Some(conn) = number.and_then(|number| self.conns.get_mut(&number)) else {
            if let Some(core) = &mut self.shards[shard].core {
                core.handle_sent(id, buffer);
            }
            return Ok(());
        };
        let mut bytes = buffer.clone();
        if strikes {
            let mut again = buffer.clone();
            if let Some(last) = again.last_mut() {
                *last ^= 1;
            }
            bytes.extend_from_slice(&again);
        }
        let book = &mut self.book;
        conn.sealed[1].note(&bytes, |key| book.note_ephemeral(key))?;
        conn.down.write(&bytes);
        conn.sending = Some(buffer);
        if let Some(number) = number {
            self.pump(number, Direction::Down);
        }
        Ok(())
    }

    fn act(&mut self, shard: usize, action: Action) -> Step {
        let conn_of = |world: &Self, id| world.shards[shard].conn_of(id);
        match action {
            Action::Close(id) => {
                if let Some(number) = conn_of(self, id) {
                    self.shard_side_closed(number, id);
                }
            }
            Action::ShutdownWrite(id) => {
                if let Some(number) = conn_of(self, id)
                    && let Some(conn) = self.conns.get_mut(&number)
                {
                    conn.down.shut();
                    self.pump(number, Direction::Down);
                }
            }
            Action::Pause(id) => {
                if let Some(conn) = conn_of(self, id).and_then(|n| self.conns.get_mut(&n)) {
                    conn.is_paused = true;
                }
            }
            Action::Resume(id) => {
                if let Some(number) = conn_of(self, id)
                    && let Some(conn) = self.conns.get_mut(&number)
                {
                    conn.is_paused = false;
                    self.after_us(1, Event::ShardRead { conn: number });
                }
            }
            Action::CloseUplink(at) => {
                return Err(Violation::new(
                    Rule::CoresAgree,
                    format!("a shard refused uplink {at}"),
                ));
            }
            Action::Notice(Notice::UplinkRefused { uplink, why }) => {
                return Err(Violation::new(
                    Rule::CoresAgree,
                    format!("a shard refused uplink {uplink}: {why}"),
                ));
            }
            Action::Notice(_) => {}
        }
        Ok(())
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
            done.sent + done.drops + done.too_slow == data,
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
