//! A client's datagrams on their way: where it is, what the network and an attacker on the path
//! do to them, and what each end sealed.
//!
//! Losses, delays and doubles are those of `impair`'s paths. Invariant: it knows no key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use impair::path::{Path, Random as PathRandom};
use protocol::datagram::hello::{self, Setup};
use protocol::datagram::{CID_BYTES, SETUP};
use protocol::time::Time;

use crate::plan::Network;
use crate::random::Random;
use crate::rule::Step;
use crate::trace;
use crate::wire::{self, Sealed};

/// Datagrams that wait for a client that does not read; what the kernel's buffer holds.
pub const WAITING_MAX: usize = 64;

/// Time, ms, that a flow is remembered after its client has left it: the gateway may take the
/// longest idle timeout to notice, and sends until then.
pub const REMEMBERED_MS: u64 = 60_000;

/// What somebody on the path does to a client's next datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// An earlier one follows it.
    Replay,
    /// It comes from somewhere else too, before or after.
    Elsewhere {
        /// Before.
        first: bool,
    },
    /// It is held back for seconds.
    Hold,
    /// A bit of it is changed.
    Flip {
        /// Which, wrapped at its length.
        bit: u64,
    },
}

/// What is known of a datagram beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its sender had received something at the address that it comes from.
    pub answers: bool,
    /// It is not what an honest end wrote.
    pub is_changed: bool,
}

/// One client's way to a gateway.
#[derive(Debug)]
pub struct Flow {
    /// Whose.
    pub client: usize,
    /// Where to.
    pub gateway: usize,
    /// Where the client is now.
    pub address: SocketAddr,
    /// Where it was, and is.
    pub addresses: Vec<SocketAddr>,
    /// When the client left it.
    pub closed_at: Option<Time>,
    /// Something has come to `address`.
    pub has_heard: bool,
    /// Nothing gets through any more.
    pub is_cut: bool,
    /// Datagrams are held up until then.
    pub stalled_until: Time,
    /// What somebody will do to the next one.
    pub armed: Option<Tampering>,
    /// Somebody has changed something.
    pub was_tampered: bool,
    /// What the client has not read.
    pub waiting: VecDeque<(Vec<u8>, bool)>,
    /// To the gateway, and back.
    pub paths: [Path; 2],
    /// What the client sealed.
    pub sealed: Sealed,
    /// The ephemeral key in the client's INIT.
    ephemeral: Option<Vec<u8>>,
    /// The connection's name in what the client sent last.
    cid: Option<u64>,
    /// The gateway's connections, by their number in the logs.
    pub logs: BTreeSet<u64>,
    /// Hashes of what has come to the client.
    arrived: BTreeSet<u64>,
}

impl Flow {
    /// A way that begins.
    pub fn new(client: usize, gateway: usize, address: SocketAddr, paths: [Path; 2]) -> Self {
        Self {
            client,
            gateway,
            address,
            addresses: vec![address],
            closed_at: None,
            has_heard: false,
            is_cut: false,
            stalled_until: Time(0),
            armed: None,
            was_tampered: false,
            waiting: VecDeque::new(),
            paths,
            sealed: Sealed::default(),
            ephemeral: None,
            cid: None,
            logs: BTreeSet::new(),
            arrived: BTreeSet::new(),
        }
    }

    /// The client's datagrams come from this address from now on.
    pub fn migrate(&mut self, address: SocketAddr) {
        self.address = address;
        self.addresses.push(address);
        self.has_heard = false;
    }

    /// Notes what a client hands to its socket; the public key of its handshake goes to
    /// `ephemeral`, once.
    ///
    /// # Errors
    /// `NoNonceTwice`.
    pub fn note_sent(&mut self, datagram: &[u8], ephemeral: impl FnOnce(&[u8]) -> Step) -> Step {
        if let Some((_, Setup::Init { hello, .. })) = hello::decode(datagram) {
            let key = wire::ephemeral(hello).unwrap_or_default();
            if self.ephemeral.as_deref() != Some(key) {
                ephemeral(key)?;
                self.ephemeral = Some(key.to_vec());
            }
            return Ok(());
        }
        self.cid = cid(datagram);
        self.sealed.note_frame(frame(datagram))
    }

    /// Something reaches the client: whether the very same sealed datagram has come before, when
    /// the client had its keys.
    pub fn note_arrived(&mut self, datagram: &[u8], has_keys: bool) -> bool {
        self.has_heard = true;
        let is_sealed = datagram.first() != Some(&SETUP) && has_keys;
        is_sealed && !self.arrived.insert(trace::hash(datagram))
    }
}

/// A direction of a network, as it is now.
pub fn path(network: &Network, random: &mut Random) -> Path {
    Path::new(network.conditions(), PathRandom::new(random.bits()))
}

fn cid(datagram: &[u8]) -> Option<u64> {
    datagram.first_chunk().map(|cid| u64::from_le_bytes(*cid))
}

fn frame(datagram: &[u8]) -> &[u8] {
    datagram.get(CID_BYTES..).unwrap_or_default()
}

/// What gateways have sealed into datagrams, a log for each connection.
///
/// A connection is known by the id in its ACCEPT. It gets another one when its client has moved;
/// that one first shows up in a datagram to the client's new address.
#[derive(Debug, Default)]
pub struct SealedLogs {
    /// By start of a shard and id.
    names: BTreeMap<(usize, u32, u64), u64>,
    logs: BTreeMap<u64, Sealed>,
    next: u64,
}

impl SealedLogs {
    /// Notes what a shard hands to its socket, for the flow that has the address, if there is
    /// one; the public key of a handshake goes to `ephemeral`.
    ///
    /// # Errors
    /// `NoNonceTwice`.
    pub fn note_sent(
        &mut self,
        (shard, boot): (usize, u32),
        datagram: &[u8],
        flow: Option<&mut Flow>,
        ephemeral: impl FnOnce(&[u8]) -> Step,
    ) -> Step {
        if datagram.first() == Some(&SETUP) {
            let Some((_, Setup::Accept { cid, welcome })) = hello::decode(datagram) else {
                return Ok(());
            };
            // The same ACCEPT may be sent again.
            if !self.names.contains_key(&(shard, boot, cid.0)) {
                ephemeral(wire::ephemeral(welcome).unwrap_or_default())?;
                self.next += 1;
                self.names.insert((shard, boot, cid.0), self.next);
                self.logs.insert(self.next, Sealed::default());
                if let Some(flow) = flow {
                    flow.logs.insert(self.next);
                }
            }
            return Ok(());
        }
        let Some(cid) = cid(datagram) else {
            return Ok(());
        };
        let number = match self.names.get(&(shard, boot, cid)) {
            Some(number) => *number,
            None => {
                let before = flow.and_then(|flow| flow.cid);
                let number = before.and_then(|cid| self.names.get(&(shard, boot, cid)).copied());
                let Some(number) = number else {
                    return Ok(());
                };
                self.names.insert((shard, boot, cid), number);
                number
            }
        };
        match self.logs.get_mut(&number) {
            Some(log) => log.note_frame(frame(datagram)),
            None => Ok(()),
        }
    }

    /// A flow is forgotten, and its connections with it.
    pub fn forget(&mut self, flow: &Flow) {
        self.logs.retain(|number, _| !flow.logs.contains(number));
        self.names.retain(|_, number| !flow.logs.contains(number));
    }
}
