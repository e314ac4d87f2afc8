//! The stateless cookie: who sends it back can receive at the address that it was
//! made for, and until then the gateway has kept nothing.
//!
//! A cookie is a period of time and a keyed BLAKE2s (RFC 7693 §2.9) over that
//! period, the address and the client's nonce. All shards of a gateway have the same
//! secret, since the kernel may give the two INITs of one client to two of them.
//!
//! Invariant: making and checking one changes nothing.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac};
use blake2::{Blake2sMac, Blake2sMac256};

/// Bytes of a cookie: the period, then the tag.
pub const COOKIE_BYTES: usize = 4 + TAG_BYTES;

/// Bytes of an address as it goes into a cookie: IPv6, mapped where it is IPv4,
/// then the port.
pub const ADDRESS_BYTES: usize = 18;

const TAG_BYTES: usize = 16;

/// Length of a period, ms. A cookie is good in its own and the next one, so for 10 to
/// 20 s: longer than any client retries, too short to collect them.
const PERIOD_MS: u64 = 10_000;

/// Periods under one key: an hour. What has been learnt of a key is worth no more.
const PERIODS_PER_KEY: u64 = 360;

/// Makes and checks cookies.
#[derive(Clone)]
pub struct Cookies {
    secret: [u8; 32],
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies(…)")
    }
}

impl Cookies {
    /// From a secret that was drawn at random when the process started.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The cookie of an address and a nonce now.
    pub fn make(
        &self,
        unix_ms: u64,
        address: &[u8; ADDRESS_BYTES],
        nonce: u64,
    ) -> [u8; COOKIE_BYTES] {
        let period = unix_ms / PERIOD_MS;
        let mut cookie = [0; COOKIE_BYTES];
        cookie[..4].copy_from_slice(&(period as u32).to_le_bytes());
        let tag = self.mac(period, address, nonce).finalize_fixed();
        cookie[4..].copy_from_slice(&tag);
        cookie
    }

    /// Whether this is the cookie of this address and nonce, of this period or the
    /// one before.
    pub fn is_good(
        &self,
        unix_ms: u64,
        address: &[u8; ADDRESS_BYTES],
        nonce: u64,
        cookie: &[u8; COOKIE_BYTES],
    ) -> bool {
        let now = unix_ms / PERIOD_MS;
        let age = (now as u32).wrapping_sub(u32::from_le_bytes([
            cookie[0], cookie[1], cookie[2], cookie[3],
        ]));
        let Some(period) = now.checked_sub(u64::from(age)).filter(|_| age <= 1) else {
            return false;
        };
        self.mac(period, address, nonce)
            .verify_slice(&cookie[4..])
            .is_ok()
    }

    fn mac(&self, period: u64, address: &[u8; ADDRESS_BYTES], nonce: u64) -> Blake2sMac<U16> {
        let mut key = <Blake2sMac256 as Mac>::new(&self.secret.into());
        key.update(b"sallyport-cookie-key");
        key.update(&(period / PERIODS_PER_KEY).to_le_bytes());
        let mut mac = <Blake2sMac<U16> as Mac>::new(&key.finalize_fixed());
        mac.update(&period.to_le_bytes());
        mac.update(address);
        mac.update(&nonce.to_le_bytes());
        mac
    }
}

#[cfg(test)]
mod tests;
