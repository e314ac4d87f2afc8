//! A shard's end of client connections over streams: what its engine does.
//!
//! Invariant: a core has one buffer of a connection under way, and gets it back before it hears
//! that the connection is closed.

use std::net::{Ipv4Addr, SocketAddr};

use gateway::engine::{ConnId, SendBuffer};
use gateway::shard::{Action, Notice};

use super::World;
use super::event::Event;
use super::shard_turn::Tally;
use super::tcp::Direction;
use crate::plant::Plant;
use crate::rule::{Rule, Step, Violation, check};

/// How often a plant on the wires strikes: every so many times.
const PLANT_EVERY: u64 = 50;

impl World {
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
        let conn = self.conns.get(&number);
        let was_late = conn.is_some_and(|conn| {
            let thief = conn.thief.as_ref();
            thief.is_some_and(|thief| self.is_late(conn.shard, thief.session))
        });
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        if let Some(thief) = &mut conn.thief {
            thief.was_late |= was_late;
        }
        let host = &mut self.shards[conn.shard];
        let Some(core) = &mut host.core else {
            return Ok(());
        };
        let original = bytes.clone();
        let keeps = (core.sessions(), core.parked());
        let before = Tally::of(&host.counters);
        core.handle_received(host.clock.now(self.now), id, &mut bytes);
        let done = Tally::of(&host.counters).since(before);
        let processed = (done.handshakes + done.received) as usize;
        let local = conn.delivered.local_frames(&original, processed);
        let kept = (core.sessions(), core.parked());
        let is_suspect = self.plant == Some(Plant::SuspectResume) && conn.delivered.resumes;
        if conn.client.is_none() || is_suspect {
            let rule = match conn.thief {
                Some(_) => Rule::TicketOnce,
                None => Rule::StrangersOutside,
            };
            let is_outside = (kept == keeps && done.entered == 0) || was_late;
            return check(is_outside, rule, || {
                format!("a stranger changed the sessions of a shard, on connection {number}")
            });
        }
        if let Some(end) = conn.tampered_at {
            let is_closed = done.closes > 0 || done.after_close > 0;
            return check(
                conn.up.taken() < end || is_closed,
                Rule::TamperingCloses,
                || format!("connection {number} goes on behind a tampered frame"),
            );
        }
        // What waited for a slow client may be dropped with the connection.
        let fallen = (done.backlog as i64).min(0).unsigned_abs();
        let dropped_unsent = fallen.min(done.drops);
        let accounted = done.forwarded + done.drops - dropped_unsent + local;
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

    pub(super) fn shard_send(&mut self, shard: usize, id: ConnId, buffer: SendBuffer) -> Step {
        let number = self.shards[shard].conn_of(id);
        // What answers a request has no nonce.
        let strikes = !buffer.starts_with(b"HTTP") && self.strikes(Plant::ReuseNonce, PLANT_EVERY);
        let Some(conn) = number.and_then(|number| self.conns.get_mut(&number)) else {
            if let Some(core) = &mut self.shards[shard].core {
                core.handle_sent(id, buffer);
            }
            return Ok(());
        };
        let mut bytes = buffer.to_vec();
        if strikes {
            let mut again = buffer.to_vec();
            if let Some(last) = again.last_mut() {
                *last ^= 1;
            }
            bytes.extend_from_slice(&again);
        }
        let book = &mut self.book;
        conn.sealed[1].note(&bytes, |key| book.note_ephemeral(key))?;
        let start = (shard, self.shards[shard].boot);
        for (key, sequence, hash) in conn.sealed[1].take_for_channels() {
            self.talk.note_frame(start, key, sequence, hash)?;
        }
        conn.down.write(&bytes);
        conn.sending = Some(buffer);
        if let Some(number) = number {
            self.pump(number, Direction::Down);
        }
        Ok(())
    }

    pub(super) fn act(&mut self, shard: usize, action: Action) -> Step {
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
}
