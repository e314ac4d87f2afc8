//! What center's journal says: entries, packed into the journal's records.
//!
//! Entries: reserved blocks of session ids and fences, consumed token ids, attached and
//! detached shards, the lease time that shards were told, bans and their end. Sessions are not among them: after a
//! restart the shards tell them (`Rebuild`).
//!
//! Layout of an entry, little-endian: `type u8`, then
//! 1 `RESERVED`: sessions below u64, fences below u64;
//! 2 `TOKEN`: expires Unix ms u64, boot u64, shard u32, claim u64, length u8, id;
//! 3 `ATTACHED` and 4 `DETACHED`: boot u64, shard u32, length u8, gateway;
//! 5 `LEASE`: ms u32;
//! 6 `BAN`: key, until Unix ms u64, length u8, text; 7 `UNBAN`: key. A key is its type u8
//! (1 account, 2 device: length u8, text; 3 network: address 16 bytes big-endian, prefix u8).
//!
//! Invariant: replaying a prefix of what was written gives a state from which no id, fence or
//! token that was granted within that prefix is granted again.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::ids::ShardId;
use protocol::limits::{ACCOUNT_BYTES_MAX, BAN_TEXT_BYTES_MAX, LABEL_BYTES_MAX};
use protocol::network::Network;

use super::bans::{Ban, BanKey};
use crate::journal::RECORD_BYTES_MAX;

const RESERVED: u8 = 1;
const TOKEN: u8 = 2;
const ATTACHED: u8 = 3;
const DETACHED: u8 = 4;
const LEASE: u8 = 5;
const BAN: u8 = 6;
const UNBAN: u8 = 7;

const ACCOUNT: u8 = 1;
const DEVICE: u8 = 2;
const NETWORK: u8 = 3;

/// Bytes of a `TOKEN` entry beside its id.
pub(super) const TOKEN_BYTES: usize = 1 + 8 + 8 + 4 + 8 + 1;

/// No entry is longer.
pub(super) const ENTRY_BYTES_MAX: usize = TOKEN_BYTES + 255;

const _: () = assert!(2 + 1 + ACCOUNT_BYTES_MAX + 8 + 1 + BAN_TEXT_BYTES_MAX <= ENTRY_BYTES_MAX);
const _: () = assert!(LABEL_BYTES_MAX <= ACCOUNT_BYTES_MAX);

/// One process of one gateway, one of its shards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// Name of the gateway.
    pub gateway: Arc<str>,
    /// Which of its shards.
    pub shard: ShardId,
    /// Which start of the process.
    pub boot: u64,
}

/// By which claim a token was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenUse {
    /// When the token expires, Unix ms.
    pub expires_unix_ms: u64,
    /// Which start of the gateway's process; random, so it names the gateway too.
    pub boot: u64,
    /// Which of its shards.
    pub shard: ShardId,
    /// The shard's number for the claim.
    pub claim: u64,
}

/// One thing that the journal remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// Ids below these may have been granted.
    Reserved {
        sessions_below: u64,
        fences_below: u64,
    },
    /// This token id is used up.
    Token { used: TokenUse, id: &'a str },
    /// This shard may hold sessions.
    Attached(ShardKey),
    /// This shard holds none any more.
    Detached(ShardKey),
    /// Shards may live this long without center.
    Lease { ms: u32 },
    /// Somebody may not play.
    Ban {
        key: Cow<'a, BanKey>,
        ban: Cow<'a, Ban>,
    },
    /// And may again.
    Unban { key: Cow<'a, BanKey> },
}

impl Entry<'_> {
    /// Appends the entry to a record.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Reserved {
                sessions_below,
                fences_below,
            } => {
                out.push(RESERVED);
                out.extend_from_slice(&sessions_below.to_le_bytes());
                out.extend_from_slice(&fences_below.to_le_bytes());
            }
            Self::Token { used, id } => {
                out.push(TOKEN);
                out.extend_from_slice(&used.expires_unix_ms.to_le_bytes());
                out.extend_from_slice(&used.boot.to_le_bytes());
                out.extend_from_slice(&used.shard.0.to_le_bytes());
                out.extend_from_slice(&used.claim.to_le_bytes());
                write_text(id, out);
            }
            Self::Attached(key) => write_shard(ATTACHED, key, out),
            Self::Detached(key) => write_shard(DETACHED, key, out),
            Self::Lease { ms } => {
                out.push(LEASE);
                out.extend_from_slice(&ms.to_le_bytes());
            }
            Self::Ban { key, ban } => {
                out.push(BAN);
                write_key(key, out);
                out.extend_from_slice(&ban.until_unix_ms.to_le_bytes());
                write_text(&ban.text, out);
            }
            Self::Unban { key } => {
                out.push(UNBAN);
                write_key(key, out);
            }
        }
    }
}

/// Packs entries into as few records as their bound allows.
pub(super) fn pack<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    for entry in entries {
        if record.len() + ENTRY_BYTES_MAX > RECORD_BYTES_MAX {
            records.push(std::mem::take(&mut record));
        }
        entry.write(&mut record);
    }
    if !record.is_empty() {
        records.push(record);
    }
    records
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Accounts, token ids and names are checked on arrival and far shorter than 255 bytes.
    let length = text.len().min(255);
    out.push(length as u8);
    out.extend_from_slice(&text.as_bytes()[..length]);
}

fn write_shard(kind: u8, key: &ShardKey, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&key.boot.to_le_bytes());
    out.extend_from_slice(&key.shard.0.to_le_bytes());
    write_text(&key.gateway, out);
}

fn write_key(key: &BanKey, out: &mut Vec<u8>) {
    match key {
        BanKey::Account(account) => {
            out.push(ACCOUNT);
            write_text(account, out);
        }
        BanKey::Device(device) => {
            out.push(DEVICE);
            write_text(device, out);
        }
        BanKey::Network(network) => {
            out.push(NETWORK);
            out.extend_from_slice(&network.address().to_be_bytes());
            out.push(network.prefix());
        }
    }
}

/// A record that passed its checksum and yet cannot be understood: written by another version,
/// or by a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {record} of the journal has an unknown entry at its byte {at}")]
pub struct LedgerError {
    /// Which record, from 0.
    pub record: usize,
    /// Where in it.
    pub at: usize,
}

/// What a journal remembers, replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Session ids from here on were never granted.
    pub sessions_below: u64,
    /// Fences from here on were never granted.
    pub fences_below: u64,
    /// Used token ids.
    pub tokens: BTreeMap<Box<str>, TokenUse>,
    /// Shards that may hold sessions.
    pub attached: BTreeSet<ShardKey>,
    /// Lease time that these shards were told at most, ms.
    pub lease_ms: u32,
    /// Who may not play.
    pub bans: BTreeMap<BanKey, Ban>,
}

impl Default for Recovered {
    /// The state of a new journal. Neither 0 is ever granted.
    fn default() -> Self {
        Self {
            sessions_below: 1,
            fences_below: 1,
            tokens: BTreeMap::new(),
            attached: BTreeSet::new(),
            lease_ms: 0,
            bans: BTreeMap::new(),
        }
    }
}

impl Recovered {
    /// Replays the records of a journal.
    pub fn replay(records: &[Vec<u8>]) -> Result<Self, LedgerError> {
        let mut recovered = Self::default();
        for (record, bytes) in records.iter().enumerate() {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let at = bytes.len() - rest.len();
                let entry = read_entry(&mut rest).ok_or(LedgerError { record, at })?;
                recovered.apply(entry);
            }
        }
        Ok(recovered)
    }

    fn apply(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Reserved {
                sessions_below,
                fences_below,
            } => {
                self.sessions_below = self.sessions_below.max(sessions_below);
                self.fences_below = self.fences_below.max(fences_below);
            }
            Entry::Token { used, id } => {
                self.tokens.insert(id.into(), used);
            }
            Entry::Attached(key) => {
                self.attached.insert(key);
            }
            Entry::Detached(key) => {
                self.attached.remove(&key);
            }
            Entry::Lease { ms } => self.lease_ms = ms,
            Entry::Ban { key, ban } => {
                self.bans.insert(key.into_owned(), ban.into_owned());
            }
            Entry::Unban { key } => {
                self.bans.remove(&*key);
            }
        }
    }
}

fn read_entry<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let kind = take::<1>(rest)?[0];
    Some(match kind {
        RESERVED => Entry::Reserved {
            sessions_below: u64::from_le_bytes(take(rest)?),
            fences_below: u64::from_le_bytes(take(rest)?),
        },
        TOKEN => Entry::Token {
            used: TokenUse {
                expires_unix_ms: u64::from_le_bytes(take(rest)?),
                boot: u64::from_le_bytes(take(rest)?),
                shard: ShardId(u32::from_le_bytes(take(rest)?)),
                claim: u64::from_le_bytes(take(rest)?),
            },
            id: take_text(rest)?,
        },
        ATTACHED => Entry::Attached(take_shard(rest)?),
        DETACHED => Entry::Detached(take_shard(rest)?),
        LEASE => Entry::Lease {
            ms: u32::from_le_bytes(take(rest)?),
        },
        BAN => Entry::Ban {
            key: Cow::Owned(take_key(rest)?),
            ban: Cow::Owned(Ban {
                until_unix_ms: u64::from_le_bytes(take(rest)?),
                text: take_text(rest)?.into(),
            }),
        },
        UNBAN => Entry::Unban {
            key: Cow::Owned(take_key(rest)?),
        },
        _ => return None,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(take::<1>(rest)?[0]);
    let (text, left) = rest.split_at_checked(length)?;
    *rest = left;
    std::str::from_utf8(text).ok()
}

fn take_key(rest: &mut &[u8]) -> Option<BanKey> {
    Some(match take::<1>(rest)?[0] {
        ACCOUNT => BanKey::Account(take_text(rest)?.into()),
        DEVICE => BanKey::Device(take_text(rest)?.into()),
        NETWORK => {
            let address = u128::from_be_bytes(take(rest)?);
            BanKey::Network(Network::new(address, take::<1>(rest)?[0])?)
        }
        _ => return None,
    })
}

fn take_shard(rest: &mut &[u8]) -> Option<ShardKey> {
    let boot = u64::from_le_bytes(take(rest)?);
    let shard = ShardId(u32::from_le_bytes(take(rest)?));
    let gateway = take_text(rest)?.into();
    Some(ShardKey {
        gateway,
        shard,
        boot,
    })
}

#[cfg(test)]
mod tests;
