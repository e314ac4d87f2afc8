//! Datagrams between clients and gateways, and what others do with them: they are lost, delayed,
//! doubled, held back and changed, replayed, sent from elsewhere, and made up.
//!
//! Invariant: a datagram that is not what an honest end wrote is marked so.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use impair::path::Fate;
use protocol::datagram::cookie::COOKIE_BYTES;
use protocol::datagram::hello::{self, Setup};
use protocol::datagram::{CID_BYTES, SETUP};
use protocol::handshake::HELLO_FRAME_BYTES;
use protocol::limits::DATAGRAM_BYTES_MAX;
use protocol::time::Time;

use super::World;
use super::event::Event;
use super::tcp::Direction;
use crate::flow::{self, Flow, Mark, REMEMBERED_MS, SealedLogs, Tampering};
use crate::plant::Plant;
use crate::proofs::Proofs;
use crate::rule::Step;

/// Datagrams that an attacker has at hand.
const RECORDED_MAX: usize = 16;

/// Datagrams in a thousand that it writes down.
const RECORD_PER_MILLE: u64 = 30;

/// Requests that a stranger sends at once.
const REQUESTS_MAX: u64 = 30;

/// A datagram that somebody has written down: to which gateway, from where, its bytes.
type Recorded = (usize, SocketAddr, Vec<u8>);

/// Everything of datagrams that is in no process.
#[derive(Debug, Default)]
pub struct Datagrams {
    pub flows: BTreeMap<u64, Flow>,
    next_flow: u64,
    /// Which flow has, or had, an address.
    by_address: BTreeMap<SocketAddr, u64>,
    addresses: u32,
    pub proofs: Proofs,
    pub logs: SealedLogs,
    recorded: VecDeque<Recorded>,
    /// Logins.
    pub logins: u64,
    /// Times that something came to where a client had moved.
    pub migrations: u64,
}

impl Datagrams {
    /// An address that nobody had before.
    fn address(&mut self) -> SocketAddr {
        self.addresses += 1;
        let [high, a, b, c] = self.addresses.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10 + high, a, b, c), 4_000))
    }

    /// The flow that has, or had, this address.
    pub fn flow_at(&mut self, address: SocketAddr) -> Option<(u64, &mut Flow)> {
        let number = *self.by_address.get(&address)?;
        Some((number, self.flows.get_mut(&number)?))
    }

    /// Notes what a shard's start hands to its socket; the public key of a handshake goes to
    /// `ephemeral`.
    ///
    /// # Errors
    /// `NoNonceTwice`.
    pub fn note_sealed(
        &mut self,
        shard: (usize, u32),
        to: SocketAddr,
        datagram: &[u8],
        ephemeral: impl FnOnce(&[u8]) -> Step,
    ) -> Step {
        let number = self.by_address.get(&to);
        let flow = number.and_then(|number| self.flows.get_mut(number));
        self.logs.note_sent(shard, datagram, flow, ephemeral)
    }

    /// Forgets those that were left long ago.
    fn forget(&mut self, now: Time) {
        let is_old = |flow: &Flow| {
            flow.closed_at
                .is_some_and(|at| now >= at.after_ms(REMEMBERED_MS))
        };
        let (by_address, logs) = (&mut self.by_address, &mut self.logs);
        self.flows.retain(|_, flow| {
            if !is_old(flow) {
                return true;
            }
            for address in &flow.addresses {
                by_address.remove(address);
            }
            logs.forget(flow);
            false
        });
    }
}

impl World {
    /// A client begins to send datagrams to a gateway.
    pub(super) fn open_flow(&mut self, client: usize, gateway: usize) -> u64 {
        let network = self.plan.network;
        let paths = std::array::from_fn(|_| flow::path(&network, &mut self.random));
        let datagrams = &mut self.datagrams;
        datagrams.forget(self.now);
        let address = datagrams.address();
        datagrams.next_flow += 1;
        let number = datagrams.next_flow;
        datagrams.by_address.insert(address, number);
        let flow = Flow::new(client, gateway, address, paths);
        datagrams.flows.insert(number, flow);
        number
    }

    /// A client has left: what still comes to its addresses is lost.
    pub(super) fn close_flow(&mut self, number: u64) {
        if let Some(flow) = self.datagrams.flows.get_mut(&number) {
            flow.closed_at = Some(self.now);
            flow.waiting.clear();
        }
    }

    /// The network is a better one from now on.
    pub(super) fn renew_paths(&mut self) {
        let network = self.plan.network;
        for flow in self.datagrams.flows.values_mut() {
            flow.armed = None;
            for path in &mut flow.paths {
                *path = flow::path(&network, &mut self.random);
            }
        }
    }

    /// A flow that a client has.
    pub(super) fn some_flow(&mut self) -> Option<u64> {
        let open = |flow: &&Flow| flow.closed_at.is_none();
        let count = self.datagrams.flows.values().filter(open).count();
        let at = self.random.index(count);
        let mut flows = self.datagrams.flows.iter();
        flows
            .by_ref()
            .filter(|(_, flow)| open(flow))
            .nth(at)
            .map(|(number, _)| *number)
    }

    /// A client's datagrams come from another address from now on.
    pub(super) fn migrate(&mut self, number: u64) {
        let address = self.datagrams.address();
        self.datagrams.by_address.insert(address, number);
        if let Some(flow) = self.datagrams.flows.get_mut(&number) {
            flow.migrate(address);
        }
    }

    /// What a client hands to its socket, through whoever is on the path.
    pub(super) fn send_up(&mut self, number: u64, bytes: &[u8]) {
        let records = self.random.chance(RECORD_PER_MILLE);
        let Some(flow) = self.datagrams.flows.get_mut(&number) else {
            return;
        };
        let (gateway, from) = (flow.gateway, flow.address);
        let mark = Mark {
            answers: flow.has_heard,
            is_changed: false,
        };
        match flow.armed.take() {
            None => self.travel(number, Direction::Up, bytes, mark),
            Some(Tampering::Flip { bit }) => {
                let (bytes, mark) = self.changed(number, bytes, mark, bit);
                self.travel(number, Direction::Up, &bytes, mark);
            }
            Some(Tampering::Hold) => {
                let after_us = self.random.between(500_000, 5_000_000);
                self.arrive_up(after_us, (gateway, from, bytes.to_vec()), mark);
            }
            Some(Tampering::Replay) => {
                self.travel(number, Direction::Up, bytes, mark);
                let at = self.random.index(self.datagrams.recorded.len());
                if let Some(earlier) = self.datagrams.recorded.get(at).cloned() {
                    let after_us = self.network_us();
                    self.arrive_up(after_us, earlier, Mark::default());
                }
            }
            Some(Tampering::Elsewhere { first }) => {
                let foreign = self.datagrams.address();
                let after_us = if first { 0 } else { 2 * self.network_us() };
                let copy = (gateway, foreign, bytes.to_vec());
                self.arrive_up(after_us, copy, Mark::default());
                self.travel(number, Direction::Up, bytes, mark);
            }
        }
        if records {
            let recorded = &mut self.datagrams.recorded;
            if recorded.len() == RECORDED_MAX {
                recorded.pop_front();
            }
            recorded.push_back((gateway, from, bytes.to_vec()));
        }
    }

    /// What a gateway hands to its socket for somebody's address.
    pub(super) fn send_down(&mut self, to: SocketAddr, bytes: &[u8]) {
        if let Some((number, flow)) = self.datagrams.flow_at(to)
            && flow.address == to
        {
            self.travel(number, Direction::Down, bytes, Mark::default());
        }
    }

    fn arrive_up(&mut self, after_us: u64, (gateway, from, bytes): Recorded, mark: Mark) {
        let event = Event::DatagramUp {
            gateway,
            from,
            bytes,
            mark,
        };
        self.after_us(after_us, event);
    }

    /// Through the network.
    fn travel(&mut self, number: u64, direction: Direction, bytes: &[u8], mark: Mark) {
        let corrupt_per_mille = self.plan.network.corrupt_per_mille;
        let is_stalled = self.is_stalled_for_ever();
        let Some(flow) = self.datagrams.flows.get_mut(&number) else {
            return;
        };
        if flow.is_cut || (flow.client == 0 && is_stalled) {
            return;
        }
        let (gateway, address, stalled_until) = (flow.gateway, flow.address, flow.stalled_until);
        let fate = flow.paths[direction as usize].handle_datagram(self.now, bytes.len());
        let Fate::Arrives { at, again, .. } = fate else {
            return;
        };
        for at in [Some(at), again].into_iter().flatten() {
            let (mut bytes, mut mark) = (bytes.to_vec(), mark);
            if self.random.chance(corrupt_per_mille) {
                let bit = self.random.bits();
                (bytes, mark) = self.changed(number, &bytes, mark, bit);
            }
            let event = match direction {
                Direction::Up => Event::DatagramUp {
                    gateway,
                    from: address,
                    bytes,
                    mark,
                },
                Direction::Down => Event::DatagramDown {
                    to: address,
                    bytes,
                    is_changed: mark.is_changed,
                },
            };
            self.push(at.max(stalled_until), event);
        }
    }

    /// A datagram with a bit changed, of its setting up or of its frame: the connection id is not
    /// authenticated, and says nothing to a client.
    fn changed(&mut self, number: u64, bytes: &[u8], mark: Mark, bit: u64) -> (Vec<u8>, Mark) {
        let mark = Mark {
            is_changed: true,
            ..mark
        };
        let mut changed = bytes.to_vec();
        if self.plant == Some(Plant::MendDatagram) {
            return (changed, mark);
        }
        let is_setup = bytes.first() == Some(&SETUP);
        let from = if is_setup { 0 } else { CID_BYTES };
        let bit = bit % (8 * bytes.len().saturating_sub(from) as u64).max(1);
        if let Some(byte) = changed.get_mut(from + (bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
        // Setting up is not authenticated: it may fail, and is tried again.
        if is_setup && let Some(flow) = self.datagrams.flows.get_mut(&number) {
            flow.was_tampered = true;
        }
        (changed, mark)
    }

    /// Somebody sends datagrams of his own, or of others.
    pub(super) fn datagram_stranger(&mut self) {
        let gateway = self.random.index(self.plan.gateways);
        let from = self.datagrams.address();
        let mut cookie = [0; COOKIE_BYTES];
        let kind = self.random.below(4);
        if kind == 3 {
            cookie = std::array::from_fn(|_| self.random.bits() as u8);
        }
        for at in 0..self.random.between(1, REQUESTS_MAX) {
            let bytes = match kind {
                0 => {
                    let at = self.random.index(self.datagrams.recorded.len());
                    match self.datagrams.recorded.get(at) {
                        Some((_, _, bytes)) => bytes.clone(),
                        None => return,
                    }
                }
                1 => {
                    let bytes = self.random.below(DATAGRAM_BYTES_MAX as u64 + 100);
                    let mut garbage: Vec<u8> =
                        (0..bytes).map(|_| self.random.bits() as u8).collect();
                    if let Some(first) = garbage.first_mut() {
                        *first = if self.random.chance(500) { SETUP } else { 0 };
                    }
                    garbage
                }
                _ => {
                    let mut init = Vec::new();
                    let mut hello = [0; HELLO_FRAME_BYTES];
                    hello[0] = HELLO_FRAME_BYTES as u8;
                    let setup = Setup::Init {
                        cookie: &cookie,
                        hello: &hello,
                    };
                    hello::encode(self.random.bits(), &setup, &mut init);
                    init
                }
            };
            self.arrive_up(10 * at, (gateway, from, bytes), Mark::default());
        }
    }
}
