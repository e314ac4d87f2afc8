//! A table of fixed size: who has how much of a limit in use. One for the networks and one
//! for the accounts of a whole gateway, shared by its shards.
//!
//! Does not know what is counted. Invariants: its memory is taken when it is made; a look at
//! one key costs a look at the 16 places of its set, whatever is in the others; whoever must
//! make room in a set is the one furthest from its limits.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Mutex, PoisonError};

use protocol::time::Time;

/// Places of a set. With 16, sets filled at random to three quarters hardly ever overflow.
const WAYS: usize = 16;

/// What is kept of one network or account: 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// Whose; 0 is nobody's.
    key: u64,
    /// Open connections.
    pub open: u32,
    /// Times that it was above a limit, since it came into the table.
    pub above: u32,
    /// For each rate, when the whole of its burst is there again (the theoretical arrival
    /// time of GCRA, ITU-T I.371). In the past: all of it is.
    pub full_at: [Time; 3],
}

/// See the module.
pub(super) struct Table {
    sets: Box<[Mutex<[Slot; WAYS]>]>,
    /// Where a key lies is secret, or somebody with many addresses could choose those that
    /// share a set with a victim.
    secret: [u64; 2],
}

impl Table {
    /// Room for at least so many keys, and for a power of two.
    pub fn new(places: usize, secret: [u64; 2]) -> Self {
        let sets = places.div_ceil(WAYS).next_power_of_two();
        let empty = || Mutex::new([Slot::default(); WAYS]);
        Self {
            sets: std::iter::repeat_with(empty).take(sets).collect(),
            secret,
        }
    }

    /// A key for a name.
    pub fn key_of(&self, name: &[u8]) -> u64 {
        self.hash(|hasher| hasher.write(name)).max(1)
    }

    /// Works on the place of a key, which it gets if it has none. `worth` is how much of its
    /// limits somebody has in use; of those in a full set the one with the least is
    /// forgotten. Whether that was anything comes with the result.
    pub fn with<R>(
        &self,
        key: u64,
        worth: impl Fn(&Slot) -> u64,
        work: impl FnOnce(&mut Slot) -> R,
    ) -> (R, bool) {
        let mut set = self.set(key);
        let at = set.iter().position(|slot| slot.key == key);
        let (at, forgot) = at.map_or_else(
            || {
                let worth = |slot: &Slot| if slot.key == 0 { 0 } else { worth(slot) };
                let least = (0..WAYS).min_by_key(|&at| worth(&set[at])).unwrap_or(0);
                let forgot = worth(&set[least]) > 0;
                set[least] = Slot {
                    key,
                    ..Slot::default()
                };
                (least, forgot)
            },
            |at| (at, false),
        );
        (work(&mut set[at]), forgot)
    }

    /// Works on the place of a key that has one.
    pub fn with_known<R>(&self, key: u64, work: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let mut set = self.set(key);
        set.iter_mut().find(|slot| slot.key == key).map(work)
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Looks at everybody who has a place, a set at a time.
    pub fn look(&self, mut see: impl FnMut(u64, &Slot)) {
        for set in &self.sets {
            let set = set.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in set.iter().filter(|slot| slot.key != 0) {
                see(slot.key, slot);
            }
        }
    }

    fn set(&self, key: u64) -> std::sync::MutexGuard<'_, [Slot; WAYS]> {
        let hash = self.hash(|hasher| hasher.write_u64(key));
        let set = &self.sets[hash as usize & (self.sets.len() - 1)];
        // What a panic could leave behind is a count that is off by one.
        set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SipHash behind a secret beginning.
    fn hash(&self, write: impl FnOnce(&mut DefaultHasher)) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret[0]);
        hasher.write_u64(self.secret[1]);
        write(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
