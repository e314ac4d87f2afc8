//! The shards that may hold sessions: link, lease, sessions, and the list that each sends anew
//! over each link.
//!
//! Invariant: a shard is here from its hello until nothing can be live on it any more; an index
//! is reused only after its shard was removed with all its sessions.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::ids::SessionId;
use protocol::time::Time;

use super::ledger::ShardKey;
use crate::link::LinkId;

/// A shard's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ShardIndex(u32);

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) key: ShardKey,
    pub(super) link: Option<LinkId>,
    /// How long, ms, its sessions wait for their clients.
    pub(super) resume_ms: u32,
    /// From then on it holds no session any more.
    lease_until: Time,
    /// Granted to it, or about to be.
    pub(super) sessions: HashSet<SessionId>,
    /// What it has listed over this link so far; `None` when the list is complete.
    list: Option<HashSet<SessionId>>,
    /// Renewal that is answered when the list is complete.
    renewal: Option<u64>,
    /// Claims of its link that wait.
    pub(super) claims_waiting: usize,
    /// Logins that it takes until it says again how busy it is.
    pub(super) logins_left: u32,
}

impl Shard {
    /// Whether it has told all its sessions over its present link, or had when it was linked.
    pub(super) fn is_rebuilt(&self) -> bool {
        self.list.is_none()
    }
}

/// What a hello changed.
pub(super) struct LinkedUp {
    /// The shard was not known.
    pub(super) is_new: bool,
    /// The link that it had until now.
    pub(super) replaced: Option<LinkId>,
}

/// What the end of a list says.
pub(super) struct Listed {
    pub(super) key: ShardKey,
    /// Sessions that were thought to be there and are not. They are taken off the shard.
    pub(super) vanished: Vec<SessionId>,
    /// A renewal to answer now.
    pub(super) renewal: Option<u64>,
}

/// All shards.
#[derive(Debug, Default)]
pub(super) struct Shards {
    by_key: HashMap<ShardKey, ShardIndex>,
    by_link: HashMap<LinkId, ShardIndex>,
    slots: Vec<Option<Shard>>,
    free: Vec<ShardIndex>,
    /// No lease ends before this. Looked up anew when it has come, since leases only grow.
    earliest: Option<Time>,
}

impl Shards {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn contains(&self, key: &ShardKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// All keys, in the order of their slots: the same run gives the same journal.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ShardKey> {
        self.slots.iter().flatten().map(|shard| &shard.key)
    }

    /// All links, in the order of their shards' slots.
    pub(super) fn links(&self) -> Vec<LinkId> {
        let shards = self.slots.iter().flatten();
        shards.filter_map(|shard| shard.link).collect()
    }

    /// Sessions by gateway, in the order of their names.
    pub(super) fn by_gateway(&self) -> BTreeMap<&str, u64> {
        let mut gateways = BTreeMap::new();
        for shard in self.slots.iter().flatten() {
            *gateways.entry(&*shard.key.gateway).or_default() += shard.sessions.len() as u64;
        }
        gateways
    }

    pub(super) fn by_link(&self, link: LinkId) -> Option<ShardIndex> {
        self.by_link.get(&link).copied()
    }

    pub(super) fn by_index(&self, index: ShardIndex) -> Option<&Shard> {
        self.slots.get(index.0 as usize)?.as_ref()
    }

    pub(super) fn by_index_mut(&mut self, index: ShardIndex) -> Option<&mut Shard> {
        self.slots.get_mut(index.0 as usize)?.as_mut()
    }

    /// A hello has come. A shard that is known keeps the lease it has: a hello is no renewal.
    pub(super) fn link_up(
        &mut self,
        key: &ShardKey,
        link: LinkId,
        resume_ms: u32,
        lease_until: Time,
        logins_left: u32,
    ) -> LinkedUp {
        let known = self.by_key.get(key).copied();
        let index = known.unwrap_or_else(|| {
            self.earliest = Some(self.earliest.map_or(lease_until, |at| at.min(lease_until)));
            self.add(Shard {
                key: key.clone(),
                link: None,
                resume_ms,
                lease_until,
                sessions: HashSet::new(),
                list: None,
                renewal: None,
                claims_waiting: 0,
                logins_left,
            })
        });
        let mut replaced = None;
        if let Some(shard) = self.by_index_mut(index) {
            replaced = shard.link.replace(link);
            shard.resume_ms = resume_ms;
            shard.list = Some(HashSet::new());
            shard.renewal = None;
            shard.claims_waiting = 0;
            shard.logins_left = logins_left;
        }
        if let Some(older) = replaced {
            self.by_link.remove(&older);
        }
        self.by_link.insert(link, index);
        LinkedUp {
            is_new: known.is_none(),
            replaced,
        }
    }

    fn add(&mut self, shard: Shard) -> ShardIndex {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ShardIndex(self.slots.len() as u32 - 1)
        });
        self.by_key.insert(shard.key.clone(), index);
        self.slots[index.0 as usize] = Some(shard);
        index
    }

    /// The link is gone; its shard stays.
    pub(super) fn link_down(&mut self, link: LinkId) -> Option<ShardIndex> {
        let index = self.by_link.remove(&link)?;
        let shard = self.by_index_mut(index)?;
        shard.link = None;
        shard.claims_waiting = 0;
        Some(index)
    }

    pub(super) fn remove(&mut self, index: ShardIndex) -> Option<Shard> {
        let shard = self.slots.get_mut(index.0 as usize)?.take()?;
        self.by_key.remove(&shard.key);
        if let Some(link) = shard.link {
            self.by_link.remove(&link);
        }
        self.free.push(index);
        Some(shard)
    }

    pub(super) fn add_session(&mut self, index: ShardIndex, session: SessionId) {
        if let Some(shard) = self.by_index_mut(index) {
            shard.sessions.insert(session);
        }
    }

    pub(super) fn remove_session(&mut self, index: ShardIndex, session: SessionId) {
        if let Some(shard) = self.by_index_mut(index) {
            shard.sessions.remove(&session);
        }
    }

    /// The shard lists a session. False if it did so before, or if its list had ended.
    pub(super) fn list(&mut self, index: ShardIndex, session: SessionId) -> bool {
        self.by_index_mut(index)
            .and_then(|shard| shard.list.as_mut())
            .is_some_and(|list| list.insert(session))
    }

    /// A listed session that the shard may not keep: it does not count, so that neither what
    /// is remembered of refused ones grows, nor a session of that id stays.
    pub(super) fn unlist(&mut self, index: ShardIndex, session: SessionId) {
        let shard = self.by_index_mut(index);
        if let Some(list) = shard.and_then(|shard| shard.list.as_mut()) {
            list.remove(&session);
        }
    }

    /// The list is complete. `None` if it was already.
    pub(super) fn end_list(&mut self, index: ShardIndex) -> Option<Listed> {
        let shard = self.by_index_mut(index)?;
        let list = shard.list.take()?;
        let mut vanished: Vec<SessionId> = shard.sessions.difference(&list).copied().collect();
        vanished.sort_unstable();
        for session in &vanished {
            shard.sessions.remove(session);
        }
        Some(Listed {
            key: shard.key.clone(),
            vanished,
            renewal: shard.renewal.take(),
        })
    }

    /// Prolongs a lease. False while the list is not complete: then the renewal waits for that.
    pub(super) fn renew(&mut self, index: ShardIndex, renewal: u64, lease_until: Time) -> bool {
        let Some(shard) = self.by_index_mut(index) else {
            return false;
        };
        if !shard.is_rebuilt() {
            shard.renewal = Some(renewal);
            return false;
        }
        shard.lease_until = shard.lease_until.max(lease_until);
        true
    }

    /// When to look for leases that have run out. May be too early, never too late.
    pub(super) fn earliest(&self) -> Option<Time> {
        self.earliest
    }

    /// The shards whose lease has run out.
    pub(super) fn overdue(&mut self, now: Time) -> Vec<ShardIndex> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let mut overdue = Vec::new();
        self.earliest = None;
        for (index, shard) in self.slots.iter().enumerate() {
            let Some(shard) = shard else { continue };
            if shard.lease_until <= now {
                overdue.push(ShardIndex(index as u32));
            } else {
                let until = shard.lease_until;
                self.earliest = Some(self.earliest.map_or(until, |at| at.min(until)));
            }
        }
        overdue
    }
}
