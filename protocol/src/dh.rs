//! X25519 (RFC 7748) for the handshakes, which are most of what a login costs a
//! gateway: two products with a point of the client's and one with the base point.
//!
//! Where the processor has what graviola asks for, its code is used (s2n-bignum's
//! assembler, proven to compute the function in constant time), which takes half
//! the time; elsewhere that of snow, curve25519-dalek. ADR 6 has the figures.
//!
//! Invariant: both give the same answers, and a shared secret of zeros, to which a
//! point of small order leads, is an error: it would depend on nobody's key.

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Dh, Random};

const KEY_BYTES: usize = 32;

/// A key pair for snow: static by `set`, ephemeral by `generate`.
#[derive(Default)]
pub(crate) struct X25519 {
    secret: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = public_of(&self.secret);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        random.try_fill_bytes(&mut self.secret)?;
        self.public = public_of(&self.secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow hands over a buffer of its longest key.
        let public = public.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = shared(&self.secret, public).ok_or(snow::Error::Dh)?;
        out.get_mut(..KEY_BYTES)
            .ok_or(snow::Error::Dh)?
            .copy_from_slice(&shared);
        Ok(())
    }
}

/// The public key of a secret one.
pub(crate) fn public_of(secret: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    if fast::is_available() {
        fast::public_of(secret)
    } else {
        portable::public_of(secret)
    }
}

/// What two keys have in common; `None` if it is zeros.
fn shared(secret: &[u8; KEY_BYTES], public: &[u8; KEY_BYTES]) -> Option<[u8; KEY_BYTES]> {
    if fast::is_available() {
        fast::shared(secret, public)
    } else {
        portable::shared(secret, public)
    }
}

#[cfg(target_arch = "x86_64")]
mod fast {
    use std::arch::is_x86_feature_detected;

    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};

    use super::KEY_BYTES;

    /// graviola panics where one of these is missing. They are looked up once and
    /// then remembered by the standard library.
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("avx")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("adx")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("pclmulqdq")
    }

    pub(super) fn public_of(secret: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
        StaticPrivateKey::from_array(secret).public_key().as_bytes()
    }

    pub(super) fn shared(
        secret: &[u8; KEY_BYTES],
        public: &[u8; KEY_BYTES],
    ) -> Option<[u8; KEY_BYTES]> {
        StaticPrivateKey::from_array(secret)
            .diffie_hellman(&PublicKey::from_array(public))
            .ok()
            .map(|shared| shared.0)
    }
}

/// graviola's assembler for other processors asks for more than they all have.
#[cfg(not(target_arch = "x86_64"))]
mod fast {
    pub(super) use super::portable::{public_of, shared};

    pub(super) fn is_available() -> bool {
        false
    }
}

mod portable {
    use super::*;

    fn of(secret: &[u8; KEY_BYTES]) -> Option<Box<dyn Dh>> {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519)?;
        dh.set(secret);
        Some(dh)
    }

    pub(super) fn public_of(secret: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
        of(secret)
            .and_then(|dh| dh.pubkey().first_chunk().copied())
            .unwrap_or_default()
    }

    pub(super) fn shared(
        secret: &[u8; KEY_BYTES],
        public: &[u8; KEY_BYTES],
    ) -> Option<[u8; KEY_BYTES]> {
        let mut shared = [0; KEY_BYTES];
        of(secret)?.dh(public, &mut shared).ok()?;
        // In one piece, so that the time tells nothing of where the first bit is.
        let any = shared.iter().fold(0, |any, byte| any | byte);
        (any != 0).then_some(shared)
    }
}

#[cfg(test)]
mod tests;
