//! Which tickets center knows, and which of them were used: as the uplinks show it, keys included.
//! Who has copied what a client, a shard or center keeps knows no more.
//!
//! Invariant: a ticket counts as used only once center has been told of the one that took its
//! place, under the fence that its session has.

use std::collections::{BTreeMap, VecDeque};

use protocol::control::{Found, ToBackend, to_backend};
use protocol::ids::TicketId;
use protocol::ticket::Ticket;

/// Used tickets that a thief has at hand.
const USED_MAX: usize = 64;

/// All tickets.
#[derive(Debug, Default)]
pub struct Tickets {
    /// By link and number of a claim or a move: the ticket that it brings.
    asked: BTreeMap<(u64, u64), Ticket>,
    /// By session: its fence and its ticket.
    last: BTreeMap<u64, (u64, Ticket)>,
    /// Sessions, and tickets that led to them.
    used: VecDeque<(u64, Ticket)>,
    /// By link and number: questions that a plant has changed, with the ticket that was meant.
    revived: BTreeMap<(u64, u64), Ticket>,
}

fn ticket(key: &[u8]) -> Option<Ticket> {
    Some(Ticket::from_key(*key.as_array()?))
}

impl Tickets {
    /// Center hears something over a link.
    pub fn note_asked(&mut self, link: u64, message: &ToBackend) {
        match &message.message {
            Some(to_backend::Message::Claim(claim)) => {
                self.note_brought((link, claim.claim), &claim.ticket);
            }
            Some(to_backend::Message::Move(wanted)) => {
                self.note_brought((link, wanted.r#move), &wanted.next);
            }
            Some(to_backend::Message::Update(update)) => {
                self.note_told(update.session, update.fence, &update.ticket);
            }
            Some(to_backend::Message::Rebuild(rebuild)) => {
                for live in &rebuild.sessions {
                    self.note_told(live.session, live.fence, &live.ticket);
                }
            }
            _ => {}
        }
    }

    fn note_brought(&mut self, asked: (u64, u64), key: &[u8]) {
        if let Some(ticket) = ticket(key) {
            self.asked.insert(asked, ticket);
        }
    }

    /// What a shard tells under a fence of the past says nothing.
    fn note_told(&mut self, session: u64, fence: u64, key: &[u8]) {
        let is_current = self.last.get(&session).is_some_and(|last| last.0 == fence);
        if let Some(ticket) = ticket(key).filter(|_| is_current) {
            self.replace(session, fence, ticket);
        }
    }

    /// Center has given a session to who asked.
    pub fn note_given(&mut self, link: u64, number: u64, session: u64, fence: u64) {
        if let Some(ticket) = self.asked.remove(&(link, number)) {
            self.replace(session, fence, ticket);
        }
    }

    fn replace(&mut self, session: u64, fence: u64, ticket: Ticket) {
        let last = self.last.insert(session, (fence, ticket.clone()));
        let Some((_, before)) = last.filter(|(_, before)| *before != ticket) else {
            return;
        };
        if self.used.len() == USED_MAX {
            self.used.pop_front();
        }
        self.used.push_back((session, before));
    }

    /// How many used ones a thief can choose from.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// One of them, and its session.
    pub fn used_at(&self, at: usize) -> Option<(u64, Ticket)> {
        self.used.get(at).cloned()
    }

    /// A plant: the ticket that took this one's place, if it was used.
    pub fn revive(&self, id: u64) -> Option<u64> {
        let (session, _) = self.used.iter().rfind(|(_, used)| used.id().0 == id)?;
        Some(self.last.get(session)?.1.id().0)
    }

    /// A plant: a question for this ticket is asked for the one that took its place.
    pub fn revive_question(&mut self, link: u64, number: u64, id: &mut u64) {
        let meant = self
            .used
            .iter()
            .rfind(|(_, used)| used.id() == TicketId(*id));
        if let (Some((_, meant)), Some(revived)) = (meant, self.revive(*id)) {
            self.revived.insert((link, number), meant.clone());
            *id = revived;
        }
    }

    /// A plant: center's answer is one for the ticket that was meant.
    pub fn revive_answer(&mut self, link: u64, found: &mut Found) {
        if let Some(meant) = self.revived.remove(&(link, found.seek))
            && found.session != 0
        {
            found.ticket = meant.key().to_vec();
        }
    }
}
