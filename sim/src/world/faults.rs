//! What goes wrong, and when. Faults are drawn one after the other until the
//! world heals; what they need to end by themselves (a restart, a pause) is
//! scheduled with them.
//!
//! Invariant: no fault outlasts `HEALED_MS_MAX` after the world has healed.

use protocol::time::Time;

use super::World;
use super::event::Event;
use super::links::Target;
use super::phases::Phase;
use crate::flow::{self, Flow};
use crate::plan::{Fault, Transport};
use crate::rule::Step;
use crate::wire::Tampering;

/// Time, ms, after healing by which every process runs again.
pub const HEALED_MS_MAX: u64 = 1_000;

/// Bytes of garbage that a stranger sends.
const GARBAGE_BYTES: u64 = 300;

impl World {
    pub(super) fn schedule_fault(&mut self) {
        if self.plan.faults.is_empty() {
            return;
        }
        let pause_us = 2_000 * self.plan.fault_pause_ms;
        let at = self.now + self.random.between(1, pause_us);
        if at < self.plan.heal_at {
            self.push(at, Event::Fault);
        }
    }

    /// A moment so many ms ahead, or soon after healing if that is earlier.
    pub(super) fn within(&mut self, low_ms: u64, high_ms: u64) -> Time {
        let wanted = self.now + 1_000 * self.random.between(low_ms, high_ms);
        let healed = self.plan.heal_at + self.random.below(1_000 * HEALED_MS_MAX);
        wanted.min(healed)
    }

    fn some_conn(&mut self) -> Option<u64> {
        let at = self.random.index(self.conns.len());
        self.conns.keys().nth(at).copied()
    }

    fn some_link(&mut self) -> Option<u64> {
        let at = self.random.index(self.links.len());
        self.links.keys().nth(at).copied()
    }

    pub(super) fn fault(&mut self) -> Step {
        if self.phase != Phase::Faults {
            return Ok(());
        }
        self.schedule_fault();
        let at = self.random.index(self.plan.faults.len());
        let fault = self.plan.faults[at];
        self.trace.event(self.now, "strikes", &[fault as u64], &[]);
        if self.trace.loud {
            eprintln!("{:>12} {fault:?}", self.now.0);
        }
        match fault {
            Fault::CutConnection => match self.struck_flow() {
                Some(flow) => flow.is_cut = true,
                None => {
                    if let Some(number) = self.some_conn() {
                        self.cut_connection(number);
                    }
                }
            },
            Fault::StallConnection => {
                let until = self.within(200, 14_000);
                if let Some(flow) = self.struck_flow() {
                    flow.stalled_until = until;
                } else if let Some(conn) = self.some_conn().and_then(|n| self.conns.get_mut(&n)) {
                    conn.stalled_until = until;
                }
            }
            Fault::CrashClient => {
                let client = self.random.index(self.clients.len());
                self.client_crash(client);
            }
            Fault::StopReading => {
                let client = self.random.index(self.clients.len());
                self.clients[client].is_reading = false;
                let until = self.within(500, 8_000);
                self.push(until, Event::ReadAgain { client });
            }
            Fault::CutLink => self.cut_some_link(Time(0)),
            Fault::Partition => {
                let until = self.within(200, 9_000);
                self.cut_some_link(until);
            }
            Fault::StallLink => {
                let until = self.within(50, 9_000);
                if let Some(link) = self.some_link().and_then(|n| self.links.get_mut(&n)) {
                    link.stalled_until = until;
                }
            }
            Fault::CrashGame => {
                let game = self.random.index(self.games.len());
                self.game_crash(game);
                let at = self.within(50, 6_000);
                self.push(at, Event::GameStart { game });
            }
            Fault::CrashCenter => {
                self.center_crash();
                let lease_ms = u64::from(self.plan.lease_ms);
                let at = if self.random.chance(600) {
                    self.within(20, lease_ms / 2)
                } else {
                    self.within(lease_ms, 3 * lease_ms)
                };
                self.push(at, Event::CenterStart);
            }
            Fault::CrashGateway => {
                let gateway = self.random.index(self.plan.gateways);
                self.gateway_stop(gateway);
            }
            Fault::DrainGateway => {
                let gateway = self.random.index(self.plan.gateways);
                self.gateway_drain(gateway)?;
            }
            Fault::PauseShard => {
                let shard = self.random.index(self.shards.len());
                let lease_ms = u64::from(self.plan.lease_ms);
                let until = self.within(50, 2 * lease_ms);
                // Never shorter: what waits for the end of a pause stays there.
                let paused_until = &mut self.shards[shard].paused_until;
                *paused_until = until.max(*paused_until);
            }
            Fault::PauseBackend => {
                let backend = self.random.index(1 + self.games.len());
                let lease_ms = u64::from(self.plan.lease_ms);
                let until = self.within(50, 2 * lease_ms);
                let paused_until = match backend.checked_sub(1) {
                    None => &mut self.center.paused_until,
                    Some(game) => &mut self.games[game].paused_until,
                };
                *paused_until = until.max(*paused_until);
            }
            Fault::Migrate => {
                if let Some(flow) = self.some_flow() {
                    self.migrate(flow);
                }
            }
            Fault::FailDisk => self.center.fails_next = true,
            Fault::Tamper => {
                let (kind, bit) = (self.random.below(4), self.random.bits());
                if let Some(flow) = self.struck_flow() {
                    flow.armed = Some(match kind {
                        0 => flow::Tampering::Replay,
                        1 => flow::Tampering::Elsewhere {
                            first: bit & 1 == 0,
                        },
                        2 => flow::Tampering::Hold,
                        _ => flow::Tampering::Flip { bit },
                    });
                    return Ok(());
                }
                let tampering = match kind {
                    0 => Tampering::Replay,
                    1 => Tampering::Double,
                    2 => Tampering::Swap,
                    _ => Tampering::Flip { bit },
                };
                if let Some(conn) = self.some_conn().and_then(|n| self.conns.get_mut(&n)) {
                    if !conn.recorded.is_empty() {
                        self.recorded.clone_from(&conn.recorded);
                    }
                    conn.attacker.armed = Some(tampering);
                }
            }
            Fault::Stranger if self.random.chance(500) => self.datagram_stranger(),
            Fault::Stranger => self.stranger(),
            Fault::Thief => self.some_thief(),
        }
        Ok(())
    }

    /// The flow that a fault strikes, where it does not strike a stream.
    fn struck_flow(&mut self) -> Option<&mut Flow> {
        let number = self.some_flow()?;
        let is_struck = self.conns.is_empty() || self.random.chance(500);
        self.datagrams.flows.get_mut(&number).filter(|_| is_struck)
    }

    /// Cuts the links between a shard and a backend; no new one before `until`.
    fn cut_some_link(&mut self, until: Time) {
        let Some(link) = self.some_link().and_then(|number| self.links.get(&number)) else {
            return;
        };
        let (shard, uplink) = (link.shard, link.uplink);
        if let Some(dialer) = self.shards[shard].dialers.get_mut(uplink) {
            dialer.blocked_until = until;
        }
        let silent = self.random.chance(500);
        self.cut_links(|link| link.shard == shard && link.uplink == uplink, silent);
    }

    pub(super) fn schedule_cut(&mut self, client: usize) {
        let mean_us = 1_000 * self.plan.cut_every_ms;
        let at = self.now + self.random.between(mean_us / 2, mean_us * 3 / 2);
        if at < self.plan.heal_at {
            self.push(at, Event::Cut { client });
        }
    }

    /// In a long run: a stream breaks. Datagrams come from another address, and those on their way
    /// to the old one are lost; or none gets through any more, until the client begins anew.
    pub(super) fn cut_client(&mut self, client: usize) {
        self.schedule_cut(client);
        self.cuts += 1;
        match (self.clients[client].flow, self.clients[client].conn) {
            (Some(flow), _) if self.random.chance(500) => self.migrate(flow),
            (Some(flow), _) => {
                if let Some(flow) = self.datagrams.flows.get_mut(&flow) {
                    flow.is_cut = true;
                }
            }
            (None, Some(conn)) => self.cut_connection(conn),
            (None, None) => {}
        }
    }

    fn cut_connection(&mut self, number: u64) {
        let told = self.random.below(4);
        let (client_us, shard_us) = (self.random.below(2_000_000), self.random.below(2_000_000));
        if let Some(conn) = self.conns.get_mut(&number) {
            conn.is_cut = true;
        }
        // Both sides hear of it, one, or none: then its idle timeout finds out.
        if told & 1 == 0 {
            self.after_us(client_us, Event::ClientTold { conn: number });
        }
        if told & 2 == 0 {
            self.after_us(shard_us, Event::ShardTold { conn: number });
        }
    }

    fn stranger(&mut self) {
        let recorded = self
            .some_conn()
            .and_then(|number| self.conns.get(&number))
            .map(|conn| conn.recorded.clone());
        let script = match self.random.below(4) {
            0 => recorded.unwrap_or_default(),
            1 => self.recorded.clone(),
            2 => {
                let bytes = self.random.below(GARBAGE_BYTES);
                (0..bytes).map(|_| self.random.bits() as u8).collect()
            }
            _ => Vec::new(),
        };
        let shard = self.random.index(self.shards.len());
        let number = self.open_conn(None, shard, Transport::Stream);
        if let Some(conn) = self.conns.get_mut(&number) {
            conn.script = script;
        }
    }

    /// Until when the process that an event is for is not scheduled.
    pub(super) fn paused_until(&self, event: &Event) -> Option<Time> {
        use super::tcp::Direction;
        let backend = match event {
            Event::CenterWake { .. } | Event::CenterDisk { .. } => Some(Target::Center),
            Event::GameWake { game } | Event::GameAct { game, .. } => Some(Target::Game(*game)),
            Event::LinkTargetTold { link }
            | Event::Chunk {
                link,
                direction: Direction::Up,
                ..
            } => self.links.get(link).map(|link| link.target),
            _ => None,
        };
        match backend {
            Some(Target::Center) => {
                return self.center.core.as_ref().map(|_| self.center.paused_until);
            }
            Some(Target::Game(game)) => {
                let host = &self.games[game];
                return host.core.as_ref().map(|_| host.paused_until);
            }
            None => {}
        }
        let of_conn = |conn: &u64| self.conns.get(conn).map(|conn| conn.shard);
        let of_link = |link: &u64| self.links.get(link).map(|link| link.shard);
        let shard = match event {
            Event::Accept { conn }
            | Event::Sent { conn }
            | Event::ShardTold { conn }
            | Event::ShardRead { conn }
            | Event::Segment {
                conn,
                direction: Direction::Up,
                ..
            } => of_conn(conn),
            Event::DatagramUp {
                gateway,
                from,
                bytes,
                ..
            } => Some(self.shard_of_datagram(*gateway, *from, bytes)),
            Event::ShardWake { shard } | Event::Dial { shard, .. } => Some(*shard),
            Event::LinkUp { link }
            | Event::LinkShardTold { link }
            | Event::Chunk {
                link,
                direction: Direction::Down,
                ..
            } => of_link(link),
            _ => None,
        };
        // Of the process that runs now: one that died takes its pause along.
        let host = shard.map(|shard| &self.shards[shard])?;
        host.core.as_ref().map(|_| host.paused_until)
    }
}
