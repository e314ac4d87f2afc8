//! Who may not play: accounts, devices and networks, until when, and what the player is told.
//!
//! Owns the list and what a ban does at once: center refuses claims, lists and moves of banned
//! accounts and devices and ends their sessions; of networks it only tells the shards, which see
//! addresses. A ban whose time is over does nothing and is forgotten when room is needed.
//!
//! Invariant: at most [`BANS_MAX`] entries, and each is in the journal or in a batch on its way
//! there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use protocol::control::{BannedNetwork, Networks, to_shard};
use protocol::ids::{Fence, SessionId};
use protocol::limits::{ACCOUNT_BYTES_MAX, BAN_TEXT_BYTES_MAX, BANS_MAX, LABEL_BYTES_MAX};
use protocol::network::Network;
use protocol::reason::CloseReason;
use protocol::time::Now;

use super::ledger::Entry;
use super::shards::ShardIndex;
use super::{Center, ClaimRefusal};
use crate::link::LinkId;

/// Networks told in one message: 40 KB.
const NETWORKS_PER_MESSAGE: usize = 1_000;

/// Whom a ban is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BanKey {
    /// One account, 1 to 64 bytes.
    Account(Box<str>),
    /// The device that LOGIN names, 1 to 64 bytes. It is the client's word.
    Device(Box<str>),
    /// Everybody who connects from there.
    Network(Network),
}

/// The rest of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// When it ends, Unix ms; 0: not by itself.
    pub until_unix_ms: u64,
    /// What the player is told, at most [`BAN_TEXT_BYTES_MAX`] bytes.
    pub text: Box<str>,
}

impl Ban {
    fn is_over(&self, unix_ms: u64) -> bool {
        self.until_unix_ms != 0 && self.until_unix_ms <= unix_ms
    }
}

/// A ban was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    /// The key or the text is outside of its bounds.
    #[error("an account or a device has 1 to 64 bytes, the text at most {BAN_TEXT_BYTES_MAX}")]
    Bounds,
    /// The list is full.
    #[error("there are {BANS_MAX} bans, which is the most there can be: lift some")]
    Full,
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Bans(BTreeMap<BanKey, Ban>);

impl Bans {
    pub(super) fn new(recovered: BTreeMap<BanKey, Ban>) -> Self {
        Self(recovered)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&BanKey, &Ban)> {
        self.0.iter()
    }

    /// The ban that keeps this account, or who plays on this device, out.
    pub(super) fn of(&self, unix_ms: u64, account: &str, device: &str) -> Option<&Ban> {
        if self.0.is_empty() {
            return None;
        }
        let keys = [
            BanKey::Account(account.into()),
            BanKey::Device(device.into()),
        ];
        keys.iter()
            .filter_map(|key| self.0.get(key))
            .find(|ban| !ban.is_over(unix_ms))
    }

    fn insert(&mut self, unix_ms: u64, key: BanKey, ban: Ban) -> Result<(), BanError> {
        if self.0.len() >= BANS_MAX && !self.0.contains_key(&key) {
            // What is over is still in the journal until that is rewritten, and harmless there.
            self.0.retain(|_, ban| !ban.is_over(unix_ms));
            if self.0.len() >= BANS_MAX {
                return Err(BanError::Full);
            }
        }
        self.0.insert(key, ban);
        Ok(())
    }
}

fn network_of(key: &BanKey, ban: Option<&Ban>) -> Option<BannedNetwork> {
    let BanKey::Network(network) = key else {
        return None;
    };
    Some(BannedNetwork {
        address: network.address().to_be_bytes().to_vec(),
        prefix: u32::from(network.prefix()),
        until_unix_ms: ban.map_or(0, |ban| ban.until_unix_ms),
        lifted: ban.is_none(),
    })
}

impl Center {
    /// Bans somebody, at once: sessions end, claims that wait are refused. The number of the
    /// batch that brings it to the disk; it is promised once that is durable.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn handle_ban(&mut self, now: Now, key: BanKey, ban: Ban) -> Result<u64, BanError> {
        let fits = match &key {
            BanKey::Account(account) => (1..=ACCOUNT_BYTES_MAX).contains(&account.len()),
            BanKey::Device(device) => (1..=LABEL_BYTES_MAX).contains(&device.len()),
            BanKey::Network(_) => true,
        };
        if !fits || ban.text.len() > BAN_TEXT_BYTES_MAX {
            return Err(BanError::Bounds);
        }
        self.bans.insert(now.unix_ms, key.clone(), ban.clone())?;
        self.journal(&Entry::Ban {
            key: Cow::Borrowed(&key),
            ban: Cow::Borrowed(&ban),
        });
        match &key {
            _ if ban.is_over(now.unix_ms) => {}
            BanKey::Account(account) => {
                let session = self.users.by_account(account).map(|user| user.session);
                self.turn_away(account, &ban.text);
                self.end_banned(session, &ban.text);
            }
            BanKey::Device(device) => {
                for account in self.queue.of_device(device) {
                    self.turn_away(&account, &ban.text);
                }
                let sessions = self.users.of_device(device);
                self.end_banned(sessions, &ban.text);
            }
            BanKey::Network(_) => {}
        }
        self.tell_network(&key, Some(&ban));
        Ok(self.batch_next)
    }

    /// Lifts a ban. The number of the batch that brings it to the disk; `None` if there was no
    /// such ban.
    pub fn handle_unban(&mut self, key: &BanKey) -> Option<u64> {
        self.bans.0.remove(key)?;
        self.journal(&Entry::Unban {
            key: Cow::Borrowed(key),
        });
        self.tell_network(key, None);
        Some(self.batch_next)
    }

    /// The bans that are in force.
    pub fn bans(&self, now: Now) -> impl Iterator<Item = (&BanKey, &Ban)> {
        self.bans
            .iter()
            .filter(move |(_, ban)| !ban.is_over(now.unix_ms))
    }

    /// Ends sessions that are held, or that nobody holds. One whose shard has no link stays
    /// until that has one and lists it, or has lost its lease: it may be live there.
    fn end_banned(&mut self, sessions: impl IntoIterator<Item = SessionId>, text: &str) {
        for session in sessions {
            let Some(user) = self.users.by_session(session) else {
                continue;
            };
            let fence = user.fence;
            if !user.granted {
                // Its claim is on the way to the disk, and is looked at again from there.
                continue;
            }
            let Some(index) = user.shard else {
                self.users.remove(session);
                self.counts.banned += 1;
                continue;
            };
            if let Some(link) = self.shards.by_index(index).and_then(|shard| shard.link) {
                self.users.remove(session);
                self.shards.remove_session(index, session);
                self.revoke_banned(link, session, fence, text);
            }
        }
    }

    fn revoke_banned(&mut self, link: LinkId, session: SessionId, fence: Fence, text: &str) {
        self.counts.banned += 1;
        self.revoke_with(link, session, fence, CloseReason::Banned, text);
    }

    /// A shard lists a session whose player is banned: it ends.
    pub(super) fn end_listed(&mut self, index: ShardIndex, session: SessionId) {
        if self
            .users
            .by_session(session)
            .is_some_and(|user| user.shard == Some(index))
        {
            self.users.remove(session);
            self.shards.remove_session(index, session);
        }
        self.counts.banned += 1;
    }

    /// What a banned player is told, if it is one.
    pub(super) fn ban_text(&self, now: Now, account: &str, device: &str) -> Option<Box<str>> {
        let ban = self.bans.of(now.unix_ms, account, device)?;
        Some(ban.text.clone())
    }

    /// Refuses a claim of somebody who is banned.
    pub(super) fn refuse_banned(&mut self, link: LinkId, claim: u64, text: &str) {
        self.refuse_with(link, claim, ClaimRefusal::Banned, text);
    }

    /// Tells a shard that has just come all the networks that are banned.
    pub(super) fn tell_networks(&mut self, now: Now, link: LinkId) {
        let banned = self.bans(now);
        let mut networks: Vec<_> = banned
            .filter_map(|(key, ban)| network_of(key, Some(ban)))
            .collect();
        let mut first = true;
        while first || !networks.is_empty() {
            let rest = networks.split_off(networks.len().min(NETWORKS_PER_MESSAGE));
            self.send(
                link,
                to_shard::Message::Networks(Networks {
                    first: std::mem::take(&mut first),
                    networks: std::mem::replace(&mut networks, rest),
                }),
            );
        }
    }

    fn tell_network(&mut self, key: &BanKey, ban: Option<&Ban>) {
        let Some(network) = network_of(key, ban) else {
            return;
        };
        for link in self.shards.links() {
            self.send(
                link,
                to_shard::Message::Networks(Networks {
                    first: false,
                    networks: vec![network.clone()],
                }),
            );
        }
    }
}
