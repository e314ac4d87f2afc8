//! A gateway's end of datagrams: which shard gets one, what it makes of it, what it sends.
//!
//! Invariant: each datagram is given to a core once, with the address that it came from.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use protocol::datagram::SETUP;
use protocol::datagram::cookie::{ADDRESS_BYTES, COOKIE_BYTES, Cookies};
use protocol::datagram::hello::{self, Setup};
use protocol::limits::DATAGRAM_BYTES_MAX;

use super::World;
use super::shard_turn::Tally;
use crate::flow::Mark;
use crate::plant::Plant;
use crate::rule::{Rule, Step, check};
use crate::trace;

/// Ids of connections from here on are the shard's to give.
pub const FIRST_INDEX: u32 = 4_096;

/// Datagrams of which a shard's surroundings remember that they came; one that comes again after
/// so many others is not judged.
const RECENT_MAX: usize = 65_536;

/// How often a plant strikes: every so many times.
const PLANT_EVERY: u64 = 20;

/// How many times what a gateway sends leaves under a plant: an INIT's answer is shorter by less.
const AMPLIFIED: usize = 50;

/// Hashes of the last things that came.
#[derive(Debug, Default)]
pub struct Recent {
    hashes: BTreeSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    /// Notes one; whether it came before.
    fn note(&mut self, bytes: &[u8]) -> bool {
        let hash = trace::hash(bytes);
        if !self.hashes.insert(hash) {
            return true;
        }
        self.order.push_back(hash);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        false
    }
}

/// Where the cookie of an INIT lies.
const COOKIE_AT: usize = 12;

impl World {
    /// The shard that the kernel gives a datagram to.
    pub(super) fn shard_of_datagram(
        &self,
        gateway: usize,
        from: SocketAddr,
        bytes: &[u8],
    ) -> usize {
        let named = bytes.first().map(|first| usize::from(*first));
        let number = match named {
            Some(named) if named < self.plan.shards => named,
            // A hash over both addresses; the gateway's is the same for all.
            _ => trace::hash(from.to_string().as_bytes()) as usize % self.plan.shards,
        };
        gateway * self.plan.shards + number
    }

    /// A datagram comes out of the network at a gateway.
    pub(super) fn datagram_up(
        &mut self,
        gateway: usize,
        from: SocketAddr,
        mut bytes: Vec<u8>,
        mark: Mark,
    ) -> Step {
        let shard = self.shard_of_datagram(gateway, from, &bytes);
        let misses_first = self.plant == Some(Plant::MissFirst);
        let host = &mut self.shards[shard];
        if host.core.is_none() {
            return Ok(());
        }
        let start = (gateway, host.boot);
        self.datagrams
            .proofs
            .note_came(start, from, bytes.len(), mark.answers);
        let is_setup = bytes.first() == Some(&SETUP);
        let came_before = !is_setup && host.recent.note(&bytes);
        if misses_first && !came_before && self.strikes(Plant::MissFirst, PLANT_EVERY) {
            return Ok(());
        }
        let has_cookie = match hello::decode(&bytes) {
            Some((nonce, Setup::Init { cookie, .. })) => {
                let was_given = self.datagrams.proofs.was_given(start, from, cookie);
                if self.plant == Some(Plant::SkipCookie) {
                    self.write_cookie(shard, from, nonce, &mut bytes);
                }
                was_given
            }
            _ => false,
        };
        let host = &mut self.shards[shard];
        let Some(core) = &mut host.core else {
            return Ok(());
        };
        let keeps = (core.connections(), core.sessions(), core.parked());
        let before = Tally::of(&host.counters);
        core.handle_datagram(host.clock.now(self.now), from, &mut bytes);
        let done = Tally::of(&host.counters).since(before);
        let kept = (core.connections(), core.sessions(), core.parked());
        check(
            kept.0 <= keeps.0 + usize::from(has_cookie),
            Rule::NothingUnproven,
            || format!("{from}, which has shown nothing, made a shard keep a connection"),
        )?;
        if came_before || mark.is_changed {
            let is_harmless = done.received == 0
                && done.forwarded == 0
                && (is_setup || (done.closes == 0 && kept == keeps))
                && (kept.1, kept.2) == (keeps.1, keeps.2);
            check(is_harmless, Rule::ForgeryIgnored, || {
                let what = if mark.is_changed {
                    "changed"
                } else {
                    "sent again"
                };
                format!("a datagram from {from} that was {what} was taken")
            })?;
        }
        check(
            is_setup || done.received + done.drops + done.after_close + done.closes > 0,
            Rule::DropsCounted,
            || format!("a datagram from {from} was not counted"),
        )?;
        self.shard_turn(shard)
    }

    /// A plant: an INIT gets the cookie that its sender was never given.
    fn write_cookie(&self, shard: usize, from: SocketAddr, nonce: u64, init: &mut [u8]) {
        let host = &self.shards[shard];
        let mut address = [0; ADDRESS_BYTES];
        if let SocketAddr::V4(from) = from {
            address[..16].copy_from_slice(&from.ip().to_ipv6_mapped().octets());
        }
        address[16..].copy_from_slice(&from.port().to_be_bytes());
        let unix_ms = host.clock.now(self.now).unix_ms;
        let cookie = Cookies::new(host.cookie_secret).make(unix_ms, &address, nonce);
        if let Some(place) = init.get_mut(COOKIE_AT..COOKIE_AT + COOKIE_BYTES) {
            place.copy_from_slice(&cookie);
        }
    }

    /// A shard hands a datagram to the kernel.
    pub(super) fn shard_sends_datagram(
        &mut self,
        shard: usize,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Step {
        let host = &self.shards[shard];
        let (start, boot) = ((host.gateway, host.boot), host.boot);
        let copies = match self.plant {
            Some(Plant::Amplify) => AMPLIFIED,
            _ => 1,
        };
        let mut altered = bytes.to_vec();
        if bytes.first() != Some(&SETUP)
            && self.strikes(Plant::ReuseDatagramNonce, PLANT_EVERY)
            && let Some(last) = altered.last_mut()
        {
            *last ^= 1;
        }
        check(bytes.len() <= DATAGRAM_BYTES_MAX, Rule::Bounded, || {
            format!("a gateway sends a datagram of {} bytes", bytes.len())
        })?;
        for _ in 0..copies {
            self.datagrams.proofs.note_went(start, to, bytes)?;
        }
        let sent = [bytes, &altered];
        for bytes in &sent[..1 + usize::from(altered != bytes)] {
            let book = &mut self.book;
            self.datagrams
                .note_sealed((shard, boot), to, bytes, |key| book.note_ephemeral(key))?;
        }
        self.send_down(to, bytes);
        Ok(())
    }
}
