//! The networks whose members are believed what they say about a client's
//! address: balancers and reverse proxies.
//!
//! Invariant: an empty list trusts nobody.

use std::net::{IpAddr, SocketAddr};

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

    /// Where the client is, as proxies tell it in HTTP, if `peer` is a trusted one:
    /// of the addresses in X-Forwarded-For the last that is not a trusted proxy's
    /// own. Each proxy appends whom it saw, so what stands before that address is
    /// only the client's word. Without that header, X-Real-IP.
    pub fn client_behind(
        &self,
        peer: IpAddr,
        forwarded: &[&str],
        real: Option<&str>,
    ) -> Option<SocketAddr> {
        if !self.includes(peer) {
            return None;
        }
        if forwarded.is_empty() {
            return real.and_then(parse);
        }
        let mut client = None;
        for entry in forwarded.iter().rev() {
            // "unknown" and the like end what we know.
            let Some(address) = parse(entry) else {
                break;
            };
            client = Some(address);
            if !self.includes(address.ip()) {
                break;
            }
        }
        client
    }
}

/// An address with or without a port; port 0 where there is none.
fn parse(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let without_port = bare.unwrap_or(text).parse::<IpAddr>().map(|ip| (ip, 0));
    let (ip, port) = match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), address.port()),
        Err(_) => without_port.ok()?,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests;
