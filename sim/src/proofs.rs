//! What addresses have shown to a gateway, as seen from outside: what came from each, what went
//! there, which cookies it was given, and whether somebody there has answered.
//!
//! It knows no key. Whoever writes a datagram after something has come to its address has shown
//! more than the gateway asks for, so a rule that is broken here is broken in earnest.
//!
//! Invariant: a start of a gateway knows nothing of what was shown to the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use protocol::datagram::hello::{self, Setup};

use crate::rule::{Rule, Step, check};

/// Which gateway, and which start of it.
pub type Start = (usize, u32);

#[derive(Debug, Default)]
struct Account {
    came_bytes: u64,
    went_bytes: u64,
    is_proven: bool,
}

/// All addresses.
#[derive(Debug, Default)]
pub struct Proofs {
    accounts: BTreeMap<(Start, SocketAddr), Account>,
    cookies: BTreeSet<(Start, SocketAddr, Vec<u8>)>,
}

impl Proofs {
    /// A datagram reaches a gateway. `answers`: something had come to that address before it was
    /// written there.
    pub fn note_came(&mut self, start: Start, from: SocketAddr, bytes: usize, answers: bool) {
        let account = self.accounts.entry((start, from)).or_default();
        account.came_bytes += bytes as u64;
        account.is_proven |= answers;
    }

    /// A gateway sends a datagram.
    ///
    /// # Errors
    /// More goes to an address that has shown nothing than came from there.
    pub fn note_went(&mut self, start: Start, to: SocketAddr, datagram: &[u8]) -> Step {
        if let Some((_, Setup::Retry { cookie })) = hello::decode(datagram) {
            self.cookies.insert((start, to, cookie.to_vec()));
        }
        let account = self.accounts.entry((start, to)).or_default();
        account.went_bytes += datagram.len() as u64;
        let (came, went) = (account.came_bytes, account.went_bytes);
        check(
            account.is_proven || went <= came,
            Rule::NothingUnproven,
            || {
                format!(
                    "{went} bytes went to {to}, which has shown nothing; {came} came from there"
                )
            },
        )
    }

    /// Whether this address was given this cookie.
    pub fn was_given(&self, start: Start, to: SocketAddr, cookie: &[u8]) -> bool {
        self.cookies.contains(&(start, to, cookie.to_vec()))
    }

    /// Another start of a gateway begins.
    pub fn forget(&mut self, gateway: usize) {
        self.accounts.retain(|((of, _), _), _| *of != gateway);
        self.cookies.retain(|((of, _), _, _)| *of != gateway);
    }
}
