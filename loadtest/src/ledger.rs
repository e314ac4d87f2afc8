//! The books of one client: which of its sends have been answered. Decides what
//! is lost, doubled or out of order. Does not look at content.
//!
//! Invariant: each send is counted as answered at most once, and at the end
//! every one is answered or lost.

/// Unanswered sends below an answered one that a client remembers singly. In
/// reach only where a server loses many replies; the oldest is then lost for
/// good, and counted.
pub const HOLES_MAX: usize = 4_096;

/// What a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The first answer, and none of a later send came before.
    InOrder,
    /// The first answer, after that of a later send.
    Late,
    /// This send had its answer.
    Doubled,
    /// No such send was made.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Sends made; the next one has this sequence.
    sent: u32,
    /// One above the highest answered sequence.
    next: u32,
    /// Unanswered sequences below `next`, rising. Empty unless something is wrong.
    holes: Vec<u32>,
    /// Holes that were given up at the bound.
    given_up: u32,
}

impl Ledger {
    /// Sends made so far.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Notes a send and returns its sequence, from 0.
    pub fn send(&mut self) -> u32 {
        let sequence = self.sent;
        self.sent += 1;
        sequence
    }

    /// Sends that are not answered, those given up included.
    pub fn missing(&self) -> u64 {
        u64::from(self.sent - self.next) + self.holes.len() as u64 + u64::from(self.given_up)
    }

    /// Those of them that were made before the send of this sequence.
    pub fn missing_before(&self, sequence: u32) -> u64 {
        let holes = self.holes.partition_point(|hole| *hole < sequence);
        let later = sequence.min(self.sent).saturating_sub(self.next);
        // The oldest of all are given up first.
        let given_up = if sequence > 0 { self.given_up } else { 0 };
        u64::from(later) + holes as u64 + u64::from(given_up)
    }

    /// What has no answer will have none; how much that is.
    pub fn give_up(&mut self) -> u64 {
        let missing = self.missing();
        self.next = self.sent;
        self.holes = Vec::new();
        self.given_up = 0;
        missing
    }

    /// An answer to this sequence came.
    pub fn handle_reply(&mut self, sequence: u32) -> Reply {
        if sequence >= self.sent {
            return Reply::Unknown;
        }
        if sequence >= self.next {
            for skipped in self.next..sequence {
                if self.holes.len() == HOLES_MAX {
                    self.holes.remove(0);
                    self.given_up += 1;
                }
                self.holes.push(skipped);
            }
            self.next = sequence + 1;
            return Reply::InOrder;
        }
        match self.holes.binary_search(&sequence) {
            Ok(at) => {
                self.holes.remove(at);
                Reply::Late
            }
            Err(_) => Reply::Doubled,
        }
    }
}

#[cfg(test)]
mod tests;
