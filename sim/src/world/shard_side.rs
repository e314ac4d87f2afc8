//! The shards' processes: they start, are drained, end and die. What goes through them is in
//! `shard_wire` and `shard_turn`.
//!
//! Invariant: a process that starts knows nothing of the one before.

use std::sync::Arc;

use gateway::counters::Counters;
use gateway::engine::ConnId;
use gateway::front::FrontConfig;
use gateway::limits::{Limits, Usage};
use gateway::shard::{ALL_VERSIONS, DatagramConfig, GroupConfig, Shard, ShardConfig};
use gateway::tickets::Tickets;
use protocol::check::Rate;
use protocol::cipher::RekeyPolicy;
use protocol::ids::ShardId;
use protocol::time::Time;
use protocol::token::Verifier;

use super::World;
use super::client_side::{AUDIENCE, GROUP, TOKEN_SECRET};
use super::event::Event;
use super::shard_datagrams::{FIRST_INDEX, Recent};
use super::walkers::MAP_GROUP;
use crate::clock::Clock;
use crate::plan::Plan;
use crate::random::Random;
use crate::rule::Step;

/// First and longest pause, ms, between two attempts to dial.
pub const DIAL_MS: (u64, u64) = (50, 1_000);

/// Sessions of a shard, and its connections over datagrams.
pub const CONNECTIONS_MAX: u32 = 1_000;

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
    pub(super) counters: Arc<Counters>,
    /// By index of `ConnId`: generation, and the connection that has it now.
    pub(super) slots: Vec<(u32, Option<u64>)>,
    /// Not scheduled until then.
    pub paused_until: Time,
    pub(super) wake_at: Option<Time>,
    pub dialers: Vec<Dialer>,
    pub(super) forwarded_seen: u64,
    /// What its gateway makes cookies with.
    pub(super) cookie_secret: [u8; 32],
    /// Sealed datagrams that came.
    pub(super) recent: Recent,
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
            cookie_secret: [0; 32],
            recent: Recent::default(),
        }
    }

    /// Connections of this process, in the order of their slots.
    pub fn conns(&self) -> Vec<u64> {
        self.slots.iter().filter_map(|slot| slot.1).collect()
    }

    pub(super) fn occupy(&mut self, conn: u64) -> ConnId {
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

    pub(super) fn conn_of(&self, id: ConnId) -> Option<u64> {
        let slot = self.slots.get(id.index as usize)?;
        slot.1.filter(|_| slot.0 == id.generation)
    }
}

/// The groups, in the order of the games.
fn groups(plan: &Plan) -> Vec<GroupConfig> {
    let echo = GroupConfig {
        group: GROUP,
        instances: vec![ALL_VERSIONS; plan.games],
    };
    let map = plan.map.as_ref().map(|map| GroupConfig {
        group: MAP_GROUP,
        instances: vec![ALL_VERSIONS; map.instances],
    });
    std::iter::once(echo).chain(map).collect()
}

impl World {
    pub(super) fn gateway_start(&mut self, gateway: usize) {
        let shards = gateway * self.plan.shards..(gateway + 1) * self.plan.shards;
        // They start and end together.
        if self.shards[shards.start].core.is_some() {
            return;
        }
        self.datagrams.proofs.forget(gateway);
        let cookie_secret = self.random.secret();
        let tickets = Arc::new(Tickets::default());
        for shard in shards {
            self.shard_start(shard, cookie_secret, Arc::clone(&tickets));
        }
    }

    fn shard_start(&mut self, shard: usize, cookie_secret: [u8; 32], tickets: Arc<Tickets>) {
        let plan = &self.plan;
        let (heartbeat, idle) = (plan.idle_timeout_ms / 3, plan.idle_timeout_ms);
        let config = ShardConfig {
            gateway: format!("gateway-{}", self.shards[shard].gateway),
            shard: ShardId(self.shards[shard].number),
            boot: self.random.bits(),
            key: self.key.clone(),
            groups: groups(plan),
            sessions_max: CONNECTIONS_MAX as usize,
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
            write_timeout_ms: 15_000,
            uplink_queue_bytes_max: plan.uplink_queue_bytes_max,
            rekey: RekeyPolicy {
                frames: plan.rekey_frames,
            },
            compress_bytes_min: plan.compress_bytes_min,
            version_min: 0,
            upgrade_address: Arc::default(),
            seal_channels_once: true,
            // Networks have no part in these worlds; accounts may log in as they like.
            limits: Limits::default(),
            usage: Arc::new(Usage::new(64, [0, 0])),
            tickets,
            front: FrontConfig::default(),
            datagrams: Some(DatagramConfig {
                cookie_secret,
                first_index: FIRST_INDEX,
                connections_max: CONNECTIONS_MAX,
            }),
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
        host.cookie_secret = cookie_secret;
        host.recent = Recent::default();
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
}
