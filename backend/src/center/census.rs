//! Who is online, counted: by client version and by distribution channel.
//!
//! Invariant: a user is counted once, from being put into the table until being taken out of it,
//! under the names that it had then. Clients choose both names, so only so many are told
//! apart; the others count together.

use std::sync::Arc;

/// Names told apart at a time, of versions and of channels each: more series than an operator
/// looks at, and few enough to be looked through with each login.
const NAMES_MAX: usize = 64;

/// Who is online, at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Online {
    /// Sessions by the client's version; `None`: further versions together.
    pub versions: Vec<(Option<u32>, u64)>,
    /// Sessions by the client's distribution channel; `None`: further ones together.
    pub channels: Vec<(Option<Arc<str>>, u64)>,
    /// Sessions by the gateway that holds them; `None`: those that nobody holds.
    pub gateways: Vec<(Option<Arc<str>>, u64)>,
}

/// Where a user is counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    version: Option<u8>,
    channel: Option<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Census {
    versions: Tally<u32>,
    channels: Tally<Arc<str>>,
}

impl Census {
    pub(super) fn enter(&mut self, version: u32, channel: &str) -> Counted {
        Counted {
            version: self.versions.enter(|known| *known == version, || version),
            channel: self
                .channels
                .enter(|known| **known == *channel, || channel.into()),
        }
    }

    pub(super) fn leave(&mut self, counted: Counted) {
        self.versions.leave(counted.version);
        self.channels.leave(counted.channel);
    }

    pub(super) fn versions(&self) -> Vec<(Option<u32>, u64)> {
        self.versions.all()
    }

    pub(super) fn channels(&self) -> Vec<(Option<Arc<str>>, u64)> {
        self.channels.all()
    }
}

/// Counts under names; a name that nobody has any more makes room for another.
#[derive(Debug)]
struct Tally<K> {
    names: Vec<(K, u64)>,
    others: u64,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            others: 0,
        }
    }
}

impl<K: Clone + Ord> Tally<K> {
    /// Counts one more of this name, which `is` and `make` mean; where.
    fn enter(&mut self, is: impl Fn(&K) -> bool, make: impl FnOnce() -> K) -> Option<u8> {
        let live = |(name, count): &(K, u64)| *count > 0 && is(name);
        if let Some(at) = self.names.iter().position(live) {
            self.names[at].1 += 1;
            return Some(at as u8);
        }
        let free = self.names.iter().position(|(_, count)| *count == 0);
        match free {
            Some(at) => self.names[at] = (make(), 1),
            None if self.names.len() < NAMES_MAX => self.names.push((make(), 1)),
            None => {
                self.others += 1;
                return None;
            }
        }
        Some(free.unwrap_or(self.names.len() - 1) as u8)
    }

    fn leave(&mut self, at: Option<u8>) {
        match at {
            Some(at) => self.names[usize::from(at)].1 -= 1,
            None => self.others -= 1,
        }
    }

    /// All of them, in the order of their names, the others last if there are any.
    fn all(&self) -> Vec<(Option<K>, u64)> {
        let named = self.names.iter().filter(|(_, count)| *count > 0);
        let mut all: Vec<_> = named
            .map(|(name, count)| (Some(name.clone()), *count))
            .collect();
        all.sort_unstable();
        if self.others > 0 {
            all.push((None, self.others));
        }
        all
    }
}

#[cfg(test)]
mod tests;
