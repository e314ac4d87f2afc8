//! A network of addresses, as it is told between processes.
//!
//! Owns the form and the comparison. It does not read or write text: whoever talks to people
//! does. Invariant: the bits below the prefix are zero, so equal networks are equal values.

/// A network: the first `prefix` bits of an IPv6 address. An IPv4 network lies in
/// `::ffff:0:0/96` (RFC 4291 §2.5.5.2), so its prefix is 96 longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    bits: u128,
    prefix: u8,
}

impl Network {
    /// The network of this length around an address. `None` above 128 bits.
    pub fn new(address: u128, prefix: u8) -> Option<Self> {
        (prefix <= 128).then(|| Self {
            bits: address & mask(prefix),
            prefix,
        })
    }

    /// As it travels: 16 bytes of address and the prefix.
    pub fn from_wire(address: &[u8], prefix: u32) -> Option<Self> {
        let address = u128::from_be_bytes(address.try_into().ok()?);
        Self::new(address, u8::try_from(prefix).ok()?)
    }

    /// Its first address, as an IPv6 one.
    pub fn address(&self) -> u128 {
        self.bits
    }

    /// How many bits its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(prefix))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
