//! Socket addresses as the bytes that the kernel reads and writes (`sockaddr_in`,
//! `sockaddr_in6`), for datagrams: no pointers here, so no unsafe code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the longer of the two.
pub(crate) const NAME_BYTES: usize = 28;

const V4_BYTES: u32 = 16;

/// The bytes of an address and how many of them count.
pub(crate) fn encode(address: SocketAddr) -> ([u8; NAME_BYTES], u32) {
    let mut name = [0; NAME_BYTES];
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&v4.ip().octets());
            (name, V4_BYTES)
        }
        SocketAddr::V6(v6) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
            name[8..24].copy_from_slice(&v6.ip().octets());
            name[24..].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (name, NAME_BYTES as u32)
        }
    }
}

/// The address in such bytes; `None` for another family.
pub(crate) fn decode(name: &[u8; NAME_BYTES]) -> Option<SocketAddr> {
    let word = |at: usize| [name[at], name[at + 1], name[at + 2], name[at + 3]];
    let port = u16::from_be_bytes([name[2], name[3]]);
    match i32::from(u16::from_ne_bytes([name[0], name[1]])) {
        libc::AF_INET => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(word(4))), port)),
        libc::AF_INET6 => {
            let ip: [u8; 16] = name[8..24].try_into().ok()?;
            Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(ip),
                port,
                u32::from_ne_bytes(word(4)),
                u32::from_ne_bytes(word(24)),
            )))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
