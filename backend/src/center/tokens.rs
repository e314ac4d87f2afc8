//! The token ids that were used, remembered until no clock can take the token for valid.
//!
//! Invariant: an id whose token expires after the horizon is in the set if it was used; one
//! that expires until then counts as used, whatever it is, because it may have been forgotten.
//! So neither a full memory nor a calendar that is set back makes a used token good again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ledger::TokenUse;
use protocol::limits::{TOKEN_CLOCK_TOLERANCE_MS, TOKEN_LIFE_MS_MAX};

/// How far ahead an expiry may lie, ms: ten times the longest life of a token, so that clocks
/// that differ by minutes do no harm. It bounds how long an id is kept.
const TOKEN_AHEAD_MS_MAX: u64 = 10 * TOKEN_LIFE_MS_MAX;

/// Used token ids.
#[derive(Debug)]
pub(super) struct UsedTokens {
    used: HashMap<Arc<str>, TokenUse>,
    /// Ids by the second in which they can be forgotten.
    by_second: BTreeMap<u64, Vec<Arc<str>>>,
    /// Tokens that expire until then were forgotten, Unix ms.
    horizon_unix_ms: u64,
    used_max: usize,
}

impl UsedTokens {
    pub(super) fn new(unix_ms: u64, used_max: usize) -> Self {
        Self {
            used: HashMap::new(),
            by_second: BTreeMap::new(),
            horizon_unix_ms: unix_ms.saturating_sub(TOKEN_CLOCK_TOLERANCE_MS),
            used_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.used.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.used.len() >= self.used_max
    }

    /// Was this id used by another claim, or may it have been? An expiry so far ahead that the
    /// id would be forgotten too early counts as used: no honest token has it. The same claim
    /// may come again: its shard lost the link before it got an answer.
    pub(super) fn is_used_by_another(&self, unix_ms: u64, id: &str, by: &TokenUse) -> bool {
        by.expires_unix_ms <= self.horizon_unix_ms
            || by.expires_unix_ms > unix_ms.saturating_add(TOKEN_AHEAD_MS_MAX)
            || self.used.get(id).is_some_and(|used| used != by)
    }

    /// Remembers an id.
    pub(super) fn insert(&mut self, id: &Arc<str>, by: TokenUse) {
        self.used.insert(Arc::clone(id), by);
        self.by_second
            .entry(second(by.expires_unix_ms))
            .or_default()
            .push(Arc::clone(id));
    }

    /// Takes an id back whose claim was not granted. It stays in `by_second` until its time,
    /// at most a batch of them for each failed write.
    pub(super) fn remove(&mut self, id: &str) {
        self.used.remove(id);
    }

    /// Forgets what has expired for every clock within the tolerance.
    pub(super) fn forget(&mut self, unix_ms: u64) {
        let horizon = unix_ms.saturating_sub(TOKEN_CLOCK_TOLERANCE_MS);
        self.horizon_unix_ms = self.horizon_unix_ms.max(horizon);
        while let Some(entry) = self.by_second.first_entry()
            && entry.key().saturating_mul(1_000) <= self.horizon_unix_ms
        {
            for id in entry.remove() {
                // One that was taken back may have come again with a later expiry.
                let used = self.used.get(&id);
                if used.is_some_and(|used| used.expires_unix_ms <= self.horizon_unix_ms) {
                    self.used.remove(&id);
                }
            }
        }
    }

    /// Everything remembered, in an order that depends on nothing but what was put in.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, TokenUse)> {
        self.by_second
            .values()
            .flatten()
            .filter_map(|id| self.used.get_key_value(id))
            .map(|(id, used)| (&**id, *used))
    }
}

/// The second by whose begin the token has expired.
fn second(expires_unix_ms: u64) -> u64 {
    expires_unix_ms.div_ceil(1_000)
}

#[cfg(test)]
mod tests;
