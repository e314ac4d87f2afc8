//! Networks from which nobody may connect, as center tells them.
//!
//! Accounts and devices that are banned are center's: it refuses their claims and ends their
//! sessions. Invariant: at most `BANS_MAX` networks; looking an address up costs one look a
//! prefix length in use, however many networks there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use protocol::control::Networks;
use protocol::limits::BANS_MAX;
use protocol::network::Network;
use protocol::reason::CloseReason;
use protocol::time::Now;
use rustc_hash::FxHashMap;

use super::{SWEEP_PER_TURN, Shard};

/// The banned networks of a shard.
#[derive(Debug, Default)]
pub(super) struct BannedNetworks {
    /// By prefix length; until when, Unix ms, 0 without an end.
    by_prefix: BTreeMap<u8, FxHashMap<Network, u64>>,
    len: usize,
}

impl BannedNetworks {
    /// Whether an address is in one of them.
    pub(super) fn include(&self, now: Now, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.by_prefix.iter().any(|(&prefix, networks)| {
            let network = Network::new(address.to_bits(), prefix);
            let until = network.and_then(|network| networks.get(&network));
            until.is_some_and(|&until| until == 0 || now.unix_ms < until)
        })
    }

    fn insert(&mut self, network: Network, until_unix_ms: u64) {
        let networks = self.by_prefix.entry(network.prefix()).or_default();
        if self.len < BANS_MAX || networks.contains_key(&network) {
            self.len += usize::from(networks.insert(network, until_unix_ms).is_none());
        }
    }

    fn remove(&mut self, network: Network) {
        if let Some(networks) = self.by_prefix.get_mut(&network.prefix()) {
            self.len -= usize::from(networks.remove(&network).is_some());
            if networks.is_empty() {
                self.by_prefix.remove(&network.prefix());
            }
        }
    }
}

impl Shard {
    /// Whether somebody who is there may connect.
    pub(super) fn check_network(
        &self,
        now: Now,
        peer: Option<SocketAddr>,
    ) -> Result<(), CloseReason> {
        match peer {
            Some(peer) if self.banned.include(now, peer.ip()) => Err(CloseReason::Banned),
            _ => Ok(()),
        }
    }

    /// Center tells networks, all or what has changed.
    pub(super) fn handle_networks(&mut self, told: &Networks) {
        if told.first {
            self.banned = BannedNetworks::default();
        }
        for network in &told.networks {
            let key = Network::from_wire(&network.address, network.prefix);
            match key {
                Some(key) if network.lifted => self.banned.remove(key),
                Some(key) => {
                    self.banned.insert(key, network.until_unix_ms);
                    self.ban_sweep = Some(0);
                }
                None => {}
            }
        }
    }

    /// Closes those who are connected from a network that was banned meanwhile, some each turn.
    pub(super) fn sweep_banned(&mut self, now: Now) {
        let Some(from) = self.ban_sweep else {
            return;
        };
        let to = (from + SWEEP_PER_TURN).min(self.connections.len());
        for index in from..to {
            let connection = self.connections[index].as_ref();
            let banned = connection.filter(|it| self.check_network(now, it.peer).is_err());
            if let Some(id) = banned.map(|connection| connection.id) {
                self.close(now, id, CloseReason::Banned);
            }
        }
        self.ban_sweep = (to < self.connections.len()).then_some(to);
    }
}
