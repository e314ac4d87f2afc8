//! What all members of a channel share (PROTOCOL §13): a key under which a message is sealed
//! once for all of them, and the filter that leaves some of them out.
//!
//! Deliberately not here: who is a member, who numbers, and when a key changes; those are the
//! shard's and the publisher's.
//!
//! Invariant: a `ChannelSealer` never seals twice with one (key, sequence): its sequence only
//! rises and it is neither `Clone` nor restorable. Its key leaves only through `key`, which is
//! for the members.

use crate::cipher::{self, Key, RekeyPolicy};
use crate::frame::{self, AAD_BYTES, FLAG_CHANNEL, Header};
use crate::ids::{ChannelId, MessageId, SessionId};
use crate::limits::{
    FRAME_HEADER_BYTES, REKEY_AGE_MS, REKEY_BYTES, REKEY_FRAMES, SEALED_FRAME_BYTES_MIN, TAG_BYTES,
};
use crate::time::Time;

/// The channel of everybody who has a session at its publisher. It is sealed for each.
pub const EVERYBODY: ChannelId = ChannelId(0);

/// A message to [`EVERYBODY`] of any game: what an operator tells all players, UTF-8.
pub const NOTICE: MessageId = MessageId(0xFFFF);

/// Bytes of the key's name, in the clear between header and sealed body.
pub const KEY_ID_BYTES: usize = 4;

/// The smallest frame for a channel.
const CHANNEL_FRAME_BYTES_MIN: usize = SEALED_FRAME_BYTES_MIN + KEY_ID_BYTES;

/// What is authenticated beside the body: header without CRC, and the key's name.
fn associated(frame: &[u8]) -> Option<[u8; AAD_BYTES + KEY_ID_BYTES]> {
    let mut bytes = [0; AAD_BYTES + KEY_ID_BYTES];
    bytes[..AAD_BYTES].copy_from_slice(frame.get(..AAD_BYTES)?);
    let id = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + KEY_ID_BYTES)?;
    bytes[AAD_BYTES..].copy_from_slice(id);
    Some(bytes)
}

/// Seals a channel's messages under one key: one epoch of the channel on one shard.
#[derive(Debug)]
pub struct ChannelSealer {
    id: u32,
    key: Key,
    sequence: u64,
    bytes: u64,
    since: Time,
    frames_max: u64,
}

impl ChannelSealer {
    /// A sealer at sequence 0 under a fresh key. `id` names it to the members.
    pub fn new(id: u32, key: Key, now: Time, policy: RekeyPolicy) -> Self {
        Self {
            id,
            key,
            sequence: 0,
            bytes: 0,
            since: now,
            frames_max: policy.frames.min(REKEY_FRAMES),
        }
    }

    /// The key's name.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The key, for members only.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Sequence of the next frame.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Since when it is used.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Whether it has sealed as much, or for as long, as one key may. There is no key phase:
    /// the next epoch takes its place.
    pub fn is_worn(&self, now: Time) -> bool {
        self.sequence >= self.frames_max
            || self.bytes >= REKEY_BYTES
            || now.us_since(self.since) >= REKEY_AGE_MS * 1_000
    }

    /// Appends one sealed frame to `out`; `write_body` appends the body in the clear.
    /// `flags` may hold `FLAG_COMPRESSED`.
    pub fn seal(
        &mut self,
        now: Time,
        flags: u8,
        out: &mut Vec<u8>,
        write_body: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        out.extend_from_slice(&self.id.to_le_bytes());
        write_body(out);
        let length = out.len() - start + TAG_BYTES;
        let header = Header {
            length: length as u32,
            flags: flags | FLAG_CHANNEL,
            sequence: self.sequence as u32,
            timestamp_ms: now.wire_ms(),
            crc: 0,
        };
        let (head, body) = out[start..].split_at_mut(FRAME_HEADER_BYTES + KEY_ID_BYTES);
        head[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        let mut aad = [0; AAD_BYTES + KEY_ID_BYTES];
        aad[..AAD_BYTES].copy_from_slice(&head[..AAD_BYTES]);
        aad[AAD_BYTES..].copy_from_slice(&head[FRAME_HEADER_BYTES..]);
        let tag = cipher::seal_in_place(&self.key, self.sequence, &aad, body);
        out.extend_from_slice(&tag);
        frame::write_crc(&mut out[start..]);
        self.sequence += 1;
        self.bytes += length as u64;
    }
}

/// Opens what a [`ChannelSealer`] sealed, at one member.
#[derive(Clone, Debug)]
pub struct ChannelOpener {
    id: u32,
    key: Key,
    next: u64,
}

impl ChannelOpener {
    /// For what is sealed from this sequence on.
    pub fn new(id: u32, key: Key, sequence: u64) -> Self {
        Self {
            id,
            key,
            next: sequence,
        }
    }

    /// The key's name.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Opens one frame in place, whose CRC has been checked; its body. `None`, and nothing
    /// has moved, where it does not verify or does not come after the last one: some may be
    /// missing, since not every member gets every message, but none comes twice.
    pub fn open<'a>(&mut self, header: &Header, frame: &'a mut [u8]) -> Option<&'a [u8]> {
        if frame.len() < CHANNEL_FRAME_BYTES_MIN || header.length as usize != frame.len() {
            return None;
        }
        let sequence = cipher::expand(self.next, header.sequence);
        if sequence < self.next {
            return None;
        }
        let aad = associated(frame)?;
        let sealed = frame.get_mut(FRAME_HEADER_BYTES + KEY_ID_BYTES..)?;
        let body = cipher::open_with(&self.key, sequence, &aad, sealed)?;
        self.next = sequence + 1;
        Some(body)
    }
}

/// The name of the key that a frame for a channel is sealed with.
pub fn key_id(frame: &[u8]) -> Option<u32> {
    let id = frame.get(FRAME_HEADER_BYTES..)?.first_chunk()?;
    Some(u32::from_le_bytes(*id))
}

/// Which members get a message: those for whom all of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Not this one, usually who said it; 0 leaves nobody out.
    pub except: SessionId,
    /// From this version of the game client on.
    pub version_min: u32,
    /// Up to this version.
    pub version_max: u32,
    /// Who has an attribute of this key with this value.
    pub attribute: Option<(u16, u32)>,
}

impl Filter {
    /// Everybody.
    pub const ALL: Self = Self {
        except: SessionId(0),
        version_min: 0,
        version_max: u32::MAX,
        attribute: None,
    };

    /// Everybody but one.
    pub fn but(session: SessionId) -> Self {
        Self {
            except: session,
            ..Self::ALL
        }
    }

    /// Whether a member gets it. `attribute` looks one up.
    pub fn passes(
        &self,
        session: SessionId,
        client_version: u32,
        attribute: impl FnOnce(u16) -> Option<u32>,
    ) -> bool {
        session != self.except
            && (self.version_min..=self.version_max).contains(&client_version)
            && self
                .attribute
                .is_none_or(|(key, value)| attribute(key) == Some(value))
    }
}

#[cfg(test)]
mod tests;
