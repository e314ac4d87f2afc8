//! When the clients over datagrams want to be looked at: they acknowledge within
//! milliseconds and send again what was lost, which no sweep over all of them is
//! quick enough for.
//!
//! Owns the order of deadlines, not their meaning: who is due looks at its own again.
//! A deadline that moved back is not taken out; the client is looked at in vain. So the heap
//! is as long as the clients have had deadlines in the time until the farthest of them.
//!
//! Invariant: a client is in the heap at most once for each of its deadlines that was
//! earlier than those before it, and the earliest of them is in `set`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use protocol::time::Time;

const NEVER: Time = Time(u64::MAX);

/// See the module.
#[derive(Debug)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, u32)>>,
    /// By client: the earliest of its deadlines in the heap.
    set: Vec<Time>,
}

impl Timers {
    pub(super) fn new(clients: u32) -> Self {
        Self {
            heap: BinaryHeap::new(),
            set: vec![NEVER; clients as usize],
        }
    }

    /// The client wants to be looked at then.
    pub(super) fn set(&mut self, index: u32, at: Time) {
        let set = &mut self.set[index as usize];
        if at < *set {
            *set = at;
            self.heap.push(Reverse((at, index)));
        }
    }

    /// The next client whose time has come.
    pub(super) fn poll_due(&mut self, now: Time) -> Option<u32> {
        while let Some(&Reverse((at, index))) = self.heap.peek()
            && at <= now
        {
            self.heap.pop();
            let set = &mut self.set[index as usize];
            // Set before an earlier one, which has come already.
            if *set == at {
                *set = NEVER;
                return Some(index);
            }
        }
        None
    }

    /// When the next one comes.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests;
