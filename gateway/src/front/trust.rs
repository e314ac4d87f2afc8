//! The networks whose members are believed what they say about a client's
//! address: balancers and reverse proxies.
//!
//! Invariant: an empty list trusts nobody.

use std::net::IpAddr;

use ipnet::IpNet;

/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(Vec<IpNet>);

impl Trust {
    /// Trusts these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether the address is in one of them. An IPv4 address that comes mapped
    /// into IPv6, as on a socket that serves both, is the IPv4 address.
    pub fn includes(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests;
