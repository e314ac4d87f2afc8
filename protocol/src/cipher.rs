//! Sealing and opening frames (PROTOCOL §4): ChaCha20-Poly1305 (RFC 8439), the
//! nonce is the wire sequence, keys change by the phase bit.
//!
//! ring does the arithmetic, also for snow's handshakes ([`ChaChaPoly`]). Its key
//! is made anew for each frame: that is a copy of 32 bytes, while keeping it would
//! cost each connection 1 KiB (ADR 5).
//!
//! Invariant: a `Sealer` never seals twice with one (key, sequence): its
//! sequence only rises and it is neither `Clone` nor restorable.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use snow::types::Cipher;

use crate::frame::{self, AAD_BYTES, FLAG_KEY_PHASE, Header};
use crate::limits::{
    FRAME_HEADER_BYTES, KEY_FRAMES_MAX, REKEY_AGE_MS, REKEY_BYTES, REKEY_FRAMES, TAG_BYTES,
};
use crate::reason::CloseReason;
use crate::time::Time;

/// A 256-bit key of one direction of one connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// The key that follows this one: `REKEY` of the Noise specification §4.2.
    pub fn next(&self) -> Self {
        let mut block = [0; 32];
        // Sealing 32 bytes can't fail: the only error is a length above 256 GiB.
        let _tag =
            self.aead()
                .seal_in_place_separate_tag(nonce(u64::MAX), Aad::empty(), &mut block);
        Self(block)
    }

    fn aead(&self) -> LessSafeKey {
        match UnboundKey::new(&CHACHA20_POLY1305, &self.0) {
            Ok(key) => LessSafeKey::new(key),
            Err(_) => unreachable!("every key of 32 bytes is one"),
        }
    }
}

fn nonce(sequence: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sequence.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// The same cipher for snow.
pub(crate) struct ChaChaPoly(Key);

impl Default for ChaChaPoly {
    fn default() -> Self {
        Self(Key([0; 32]))
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Key(*key);
    }

    fn encrypt(&self, sequence: u64, ad: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let aead = self.0.aead();
        match aead.seal_in_place_separate_tag(nonce(sequence), Aad::from(ad), body) {
            Ok(tag) => rest[..TAG_BYTES].copy_from_slice(tag.as_ref()),
            Err(_) => unreachable!("no handshake has 256 GiB"),
        }
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        sequence: u64,
        ad: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let length = ciphertext.len().checked_sub(TAG_BYTES);
        let length = length.ok_or(snow::Error::Decrypt)?;
        let (body, tag) = ciphertext.split_at(length);
        let tag = Tag::try_from(tag).map_err(|_| snow::Error::Decrypt)?;
        let out = out.get_mut(..length).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(body);
        self.0
            .aead()
            .open_in_place_separate_tag(nonce(sequence), Aad::from(ad), tag, out, 0..)
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(length)
    }
}

/// When a sender changes its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeyPolicy {
    /// Frames under one key.
    pub frames: u64,
}

impl Default for RekeyPolicy {
    fn default() -> Self {
        Self {
            frames: REKEY_FRAMES,
        }
    }
}

/// The sending half of a connection's cipher.
#[derive(Debug)]
pub struct Sealer {
    key: Key,
    sequence: u64,
    key_frames: u64,
    key_bytes: u64,
    key_since: Time,
    phase: bool,
    rekey_frames: u64,
}

impl Sealer {
    /// A sealer at sequence 0 under a fresh key.
    pub fn new(key: Key, now: Time, policy: RekeyPolicy) -> Self {
        Self {
            key,
            sequence: 0,
            key_frames: 0,
            key_bytes: 0,
            key_since: now,
            phase: false,
            rekey_frames: policy.frames.min(REKEY_FRAMES),
        }
    }

    /// Sequence of the next frame; also the number of frames sealed so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Appends one sealed frame to `out`; `write_body` appends the body in the
    /// clear. `flags` may hold `FLAG_COMPRESSED`.
    pub fn seal(
        &mut self,
        now: Time,
        flags: u8,
        out: &mut Vec<u8>,
        write_body: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.key_frames >= self.rekey_frames
            || self.key_bytes >= REKEY_BYTES
            || now.us_since(self.key_since) >= REKEY_AGE_MS * 1_000
        {
            self.rekey(now);
        }
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        write_body(out);
        let length = out.len() - start + TAG_BYTES;
        let header = Header {
            length: length as u32,
            flags: flags | if self.phase { FLAG_KEY_PHASE } else { 0 },
            sequence: self.sequence as u32,
            timestamp_ms: now.wire_ms(),
            crc: 0,
        };
        let (head, body) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
        head.copy_from_slice(&header.encode());
        let tag = seal_in_place(&self.key, self.sequence, &head[..AAD_BYTES], body);
        out.extend_from_slice(&tag);
        frame::write_crc(&mut out[start..]);
        self.sequence += 1;
        self.key_frames += 1;
        self.key_bytes += length as u64;
    }

    /// Changes the key before the next frame.
    pub fn rekey(&mut self, now: Time) {
        self.key = self.key.next();
        self.phase = !self.phase;
        self.key_frames = 0;
        self.key_bytes = 0;
        self.key_since = now;
    }
}

/// The receiving half of a connection's cipher, for an ordered transport.
#[derive(Debug)]
pub struct Opener {
    key: Key,
    expected: u64,
    key_frames: u64,
    phase: bool,
}

impl Opener {
    /// An opener that expects sequence 0 under a fresh key.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            expected: 0,
            key_frames: 0,
            phase: false,
        }
    }

    /// Opens one frame in place, whose length, flags and CRC have been checked,
    /// and returns its body. Nothing of this opener moves unless the frame
    /// verifies and is the one that comes next.
    ///
    /// # Errors
    /// `BadSeal`, `SequenceRepeated`, `SequenceSkipped`, `KeyExhausted`.
    pub fn open<'a>(
        &mut self,
        header: &Header,
        frame: &'a mut [u8],
    ) -> Result<&'a mut [u8], CloseReason> {
        let sequence = expand(self.expected, header.sequence);
        let phase = header.flags & FLAG_KEY_PHASE != 0;
        let next_key = (phase != self.phase).then(|| self.key.next());
        let body = open_in_place(next_key.as_ref().unwrap_or(&self.key), sequence, frame)?;
        if sequence < self.expected {
            return Err(CloseReason::SequenceRepeated);
        }
        if sequence > self.expected {
            return Err(CloseReason::SequenceSkipped);
        }
        if let Some(key) = next_key {
            self.key = key;
            self.phase = phase;
            self.key_frames = 0;
        } else if self.key_frames >= KEY_FRAMES_MAX {
            return Err(CloseReason::KeyExhausted);
        }
        self.key_frames += 1;
        self.expected += 1;
        Ok(body)
    }

    /// Sequence of the next frame; also the number of frames opened so far.
    pub fn sequence(&self) -> u64 {
        self.expected
    }

    /// Phase of the peer's key; flips when the peer rekeys.
    pub fn phase(&self) -> bool {
        self.phase
    }
}

/// Seals a body in place; its tag.
pub(crate) fn seal_in_place(
    key: &Key,
    sequence: u64,
    aad: &[u8],
    body: &mut [u8],
) -> [u8; TAG_BYTES] {
    let mut bytes = [0; TAG_BYTES];
    match key
        .aead()
        .seal_in_place_separate_tag(nonce(sequence), Aad::from(aad), body)
    {
        Ok(tag) => bytes.copy_from_slice(tag.as_ref()),
        // Only a body above 256 GiB fails; frames end at 32 KiB. What goes out
        // instead reveals nothing and does not verify.
        Err(_) => body.fill(0),
    }
    bytes
}

/// Opens a body with its tag in place.
pub(crate) fn open_with<'a>(
    key: &Key,
    sequence: u64,
    aad: &[u8],
    sealed: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    key.aead()
        .open_in_place(nonce(sequence), Aad::from(aad), sealed)
        .ok()
}

/// Opens a frame in place under a key and a sequence; its body.
///
/// # Errors
/// `BadLength`, `BadSeal`.
pub(crate) fn open_in_place<'a>(
    key: &Key,
    sequence: u64,
    frame: &'a mut [u8],
) -> Result<&'a mut [u8], CloseReason> {
    if frame.len() < FRAME_HEADER_BYTES + TAG_BYTES {
        return Err(CloseReason::BadLength);
    }
    let (head, sealed) = frame.split_at_mut(FRAME_HEADER_BYTES);
    open_with(key, sequence, &head[..AAD_BYTES], sealed).ok_or(CloseReason::BadSeal)
}

/// The 64-bit sequence nearest to `expected` whose low half is `wire`
/// (as RFC 9000 appendix A.3 does for packet numbers).
pub fn expand(expected: u64, wire: u32) -> u64 {
    let distance = wire.wrapping_sub(expected as u32) as i32;
    expected
        .checked_add_signed(i64::from(distance))
        .unwrap_or(u64::from(wire))
}

#[cfg(test)]
mod tests;
