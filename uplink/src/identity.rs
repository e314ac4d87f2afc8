//! Identities: the ed25519 key that a process proves on its uplinks, and the
//! public keys that it expects of others.
//!
//! Owns the text form of both and their DER forms. It deliberately reads no
//! files and knows no certificates: keys are pinned (RFC 7250), nobody signs
//! them. Invariant: the seed appears in no `Debug` output and no error.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use rustls::crypto::ring::{default_provider, sign::any_eddsa_type};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;

/// Bytes of an ed25519 seed and of a public key (RFC 8032 §5.1.5).
const KEY_BYTES: usize = 32;

/// What stands before the seed in PKCS#8 version 1 (RFC 8410 §7): SEQUENCE,
/// version 0, algorithm 1.3.101.112, OCTET STRING in OCTET STRING.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What stands before the key in a SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why a text is not a key. Never contains the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// A character outside the base64url alphabet, or padding.
    #[error("a key is written in base64url without padding (A-Z a-z 0-9 - _), this text is not")]
    NotBase64Url,
    /// Decodes to another length than 32 bytes.
    #[error("a key has 32 bytes (43 characters of base64url), this text has {bytes} bytes")]
    Length {
        /// Bytes that the text decodes to.
        bytes: usize,
    },
}

fn decode_key(text: &str) -> Result<[u8; KEY_BYTES], KeyTextError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text.trim())
        .map_err(|_| KeyTextError::NotBase64Url)?;
    <[u8; KEY_BYTES]>::try_from(bytes.as_slice())
        .map_err(|_| KeyTextError::Length { bytes: bytes.len() })
}

/// An ed25519 public key; its text form is base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

impl PublicKey {
    /// The SubjectPublicKeyInfo that stands for the certificate in the
    /// handshake (RFC 7250 §3).
    pub(crate) fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0].concat()
    }

    /// The key in a SubjectPublicKeyInfo, if it is one of ed25519.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<Self> {
        let key = spki.strip_prefix(SPKI_PREFIX.as_slice())?;
        Some(Self(key.try_into().ok()?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        decode_key(text).map(Self)
    }
}

/// A secret ed25519 key with its public half.
#[derive(Clone)]
pub struct Identity {
    seed: [u8; KEY_BYTES],
    public_key: PublicKey,
    signing_key: Arc<dyn SigningKey>,
}

impl Identity {
    /// The identity of a seed. Every 32 bytes are a valid seed; where they come
    /// from decides how secret it is.
    pub fn from_seed(seed: [u8; KEY_BYTES]) -> Self {
        let pkcs8 = [PKCS8_PREFIX.as_slice(), &seed].concat();
        // Cannot fail for anything that a caller passes: the DER is constant
        // but for the seed, and every seed is a key (RFC 8032 §5.1.5).
        let signing_key = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))
            .expect("constant PKCS#8 around an ed25519 seed");
        let public_key = signing_key
            .public_key()
            .and_then(|spki| PublicKey::from_spki(spki.as_ref()))
            .expect("ring knows the public half of an ed25519 key");
        Self {
            seed,
            public_key,
            signing_key,
        }
    }

    /// A new identity from the system's random numbers.
    ///
    /// # Errors
    /// The system has none to give.
    pub fn generate() -> Result<Self, std::io::Error> {
        let mut seed = [0; KEY_BYTES];
        default_provider()
            .secure_random
            .fill(&mut seed)
            .map_err(|_| std::io::Error::other("the system's random number generator failed"))?;
        Ok(Self::from_seed(seed))
    }

    /// The identity in a key file's text: one line, base64url of the seed.
    ///
    /// # Errors
    /// The text is not that; the error does not repeat it.
    pub fn from_text(text: &str) -> Result<Self, KeyTextError> {
        decode_key(text).map(Self::from_seed)
    }

    /// The secret text form, for a key file and nothing else.
    pub fn secret_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.seed)
    }

    /// The public half, to be told to the other end.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// A key for another purpose, which tells nothing of the seed
    /// (HMAC-SHA-256, RFC 2104, as a pseudo-random function of the label).
    pub(crate) fn derived_key(&self, label: &str) -> [u8; KEY_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.seed);
        let tag = hmac::sign(&key, label.as_bytes());
        std::array::from_fn(|i| tag.as_ref()[i])
    }

    pub(crate) fn signing_key(&self) -> Arc<dyn SigningKey> {
        self.signing_key.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, secret)", self.public_key)
    }
}

#[cfg(test)]
mod tests;
