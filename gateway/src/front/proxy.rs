//! The PROXY protocol, versions 1 and 2: the header with which a balancer says
//! whose connection it brings (HAProxy, "The PROXY protocol", revision 2022).
//!
//! The crate `ppp` reads a header that has come whole. Here is what a listener
//! needs beside that: the header comes in pieces, has a bound, and its checksum
//! is verified. Who may send one is not decided here.
//!
//! Invariant: no byte behind the header is taken, and no more than
//! [`PROXY_V2_BYTES_MAX`] are kept.

use std::net::{IpAddr, SocketAddr};

use ppp::v2::{Addresses, Command, TypeLengthValues};
use ppp::{v1, v2};

/// Bytes of the longest header of version 1: the specification's own bound.
pub const PROXY_V1_BYTES_MAX: usize = 107;

/// Bytes of the longest header of version 2 that is taken. It could say 65,551;
/// HAProxy's with every option (addresses, a unique id of 128 bytes, an authority
/// of 255, what it knows of a TLS client, the checksum) stays under 900. It
/// belongs to what a stranger can make us keep.
pub const PROXY_V2_BYTES_MAX: usize = 1_024;

/// Bytes of version 2 before its addresses: signature, command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// The type of the checksum over the header (§2.2.3), and its bytes.
const TLV_CRC32C: u8 = 0x03;
const CRC32C_BYTES: usize = 4;

/// Whose connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A client's, from this address.
    Client(SocketAddr),
    /// The balancer's own, as its health checks are, or one that it does not
    /// know an address for: the address of the socket stands.
    Balancer,
}

/// No header, a malformed one, one beyond its bound or with a wrong checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadProxyHeader;

/// What has come of one header.
#[derive(Debug, Default)]
pub struct ProxyHeader {
    partial: Vec<u8>,
}

impl ProxyHeader {
    /// Takes the header from the front of `data`; `None` until it is whole.
    pub fn take(&mut self, data: &mut &mut [u8]) -> Result<Option<Source>, BadProxyHeader> {
        let kept = self.partial.len();
        let (source, taken) = if kept == 0 {
            match parse(data)? {
                Some((source, bytes)) => (Some(source), bytes),
                None => {
                    // Exactly what was sent: the budget of a stranger counts.
                    self.partial = data.to_vec();
                    (None, data.len())
                }
            }
        } else {
            // What stands there is shorter than the bound, or it were whole or bad.
            let wanted = data.len().min(PROXY_V2_BYTES_MAX.saturating_sub(kept));
            self.partial.extend_from_slice(&data[..wanted]);
            match parse(&self.partial)? {
                Some((source, bytes)) => (Some(source), bytes.saturating_sub(kept)),
                None => (None, wanted),
            }
        };
        let (_, rest) = std::mem::take(data).split_at_mut(taken);
        *data = rest;
        Ok(source)
    }
}

/// Whose connection it is and how long the header was, or `None` while it is not
/// whole; never `None` for [`PROXY_V2_BYTES_MAX`] bytes.
fn parse(bytes: &[u8]) -> Result<Option<(Source, usize)>, BadProxyHeader> {
    if is_prefix(bytes, v2::PROTOCOL_PREFIX) {
        parse_v2(bytes)
    } else if is_prefix(bytes, b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err(BadProxyHeader)
    }
}

/// Whether `bytes` begin with `prefix`, as far as they go.
fn is_prefix(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes
        .iter()
        .zip(prefix)
        .all(|(byte, wanted)| byte == wanted)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Source, usize)>, BadProxyHeader> {
    let within = &bytes[..bytes.len().min(PROXY_V1_BYTES_MAX)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return match bytes.len() {
            0..PROXY_V1_BYTES_MAX => Ok(None),
            _ => Err(BadProxyHeader),
        };
    };
    let line = &bytes[..=end];
    let header = v1::Header::try_from(line).map_err(|_| BadProxyHeader)?;
    // `ppp` ends at the first carriage return; there must be nothing behind it.
    if header.header.len() != line.len() {
        return Err(BadProxyHeader);
    }
    let source = match header.addresses {
        v1::Addresses::Tcp4(pair) => Source::Client((pair.source_address, pair.source_port).into()),
        v1::Addresses::Tcp6(pair) => client(pair.source_address, pair.source_port),
        v1::Addresses::Unknown => Source::Balancer,
    };
    Ok(Some((source, line.len())))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Source, usize)>, BadProxyHeader> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., high, low] = *fixed;
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > PROXY_V2_BYTES_MAX {
        return Err(BadProxyHeader);
    }
    let Some(bytes) = bytes.get(..length) else {
        return Ok(None);
    };
    let header = v2::Header::try_from(bytes).map_err(|_| BadProxyHeader)?;
    check_tlvs(bytes, &header)?;
    let source = match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(pair)) => {
            Source::Client((pair.source_address, pair.source_port).into())
        }
        (Command::Proxy, Addresses::IPv6(pair)) => client(pair.source_address, pair.source_port),
        // A balancer's own connection, or one without an IP address (§2.2).
        (Command::Local, _) | (Command::Proxy, Addresses::Unspecified | Addresses::Unix(_)) => {
            Source::Balancer
        }
    };
    Ok(Some((source, length)))
}

/// Checks that the extensions are well formed, and the checksum where there is
/// one: over the whole header, with its own four bytes as zeros.
fn check_tlvs(bytes: &[u8], header: &v2::Header<'_>) -> Result<(), BadProxyHeader> {
    // `ppp` takes everything for addresses where the family is unspecified. Their
    // content is to be ignored then, so only what reads as extensions is one.
    let at = match header.addresses {
        Addresses::Unspecified => V2_FIXED_BYTES,
        known => V2_FIXED_BYTES + known.len(),
    };
    let tlvs = TypeLengthValues::from(&bytes[at..]);
    let mut value_at = at;
    for tlv in tlvs {
        let Ok(tlv) = tlv else {
            return match header.addresses {
                Addresses::Unspecified => Ok(()),
                _ => Err(BadProxyHeader),
            };
        };
        // Type and length take three bytes.
        value_at += 3;
        if tlv.kind == TLV_CRC32C {
            let told = <[u8; CRC32C_BYTES]>::try_from(&*tlv.value).map_err(|_| BadProxyHeader)?;
            let crc = crc32c::crc32c(&bytes[..value_at]);
            let crc = crc32c::crc32c_append(crc, &[0; CRC32C_BYTES]);
            let crc = crc32c::crc32c_append(crc, &bytes[value_at + CRC32C_BYTES..]);
            if crc != u32::from_be_bytes(told) {
                return Err(BadProxyHeader);
            }
        }
        value_at += tlv.value.len();
    }
    Ok(())
}

/// A balancer on IPv6 may tell an IPv4 client's address mapped.
fn client(ip: std::net::Ipv6Addr, port: u16) -> Source {
    Source::Client(SocketAddr::new(IpAddr::V6(ip).to_canonical(), port))
}

#[cfg(test)]
mod tests;
