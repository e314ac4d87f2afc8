//! The queue at center as the wire shows it: who was told a place when, and who was let in.
//!
//! It knows nothing of how center keeps the order. A place is an account's, from the first time that
//! it is told until the account is let in, gives it up, or has been away for too long.
//!
//! Invariant: of two in a lane, the one that was told its place first has the lower `order`.

use std::collections::BTreeMap;

use protocol::control::{Claim, ClaimRefusal, ClaimRefused, Places};
use protocol::time::Time;

use crate::rule::{Rule, Step, check};

/// Places from here on are behind those of all returning players.
pub const NEW: u64 = 1 << 62;

/// How long, ms, a grant may be on its way to the disk and from it: who came back to its place
/// meanwhile was not there when it was decided.
const DECIDED_MS: u64 = 2_000;

/// How long, ms, after a failed write nothing is said about the order: who was let in is refused then, and comes
/// again as if it had not been there.
const DEGRADED_MS: u64 = 10_000;

/// By so much, ms, a place may be kept longer or shorter than configured: clocks drift, and center looks now and then.
const SLACK_MS: u64 = 2_000;

/// A claim, as center knows it: over which link, and its number there.
type Asked = (u64, u64);

#[derive(Clone, Copy, Debug)]
enum Presence {
    /// It waits, since.
    Waiting(Asked, Time),
    /// Its client was lost then.
    Away(Time),
    /// Its shard was lost then, which tells it again.
    Unlinked(Time),
    /// Another connection of the account takes the place at this very moment, or is let in from it.
    Taken(Time),
    /// Center was lost; its shard tells it again.
    Limbo,
}

#[derive(Clone, Copy, Debug)]
struct Stay {
    order: u64,
    place: u64,
    presence: Presence,
}

impl Stay {
    fn is_new(&self) -> bool {
        self.place >= NEW
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Line {
    claims: BTreeMap<Asked, Claim>,
    stays: BTreeMap<String, Stay>,
    orders: u64,
    /// The order of each place that was ever told.
    given: BTreeMap<u64, u64>,
    degraded_until: Time,
    /// Clients that were let in from a place in it.
    pub admitted: u64,
}

impl Line {
    /// A claim reaches center.
    pub fn note_claim(&mut self, link: u64, claim: &Claim) {
        self.claims.insert((link, claim.claim), claim.clone());
    }

    /// Center tells where claims are.
    ///
    /// # Errors
    /// `QueueInOrder`: a place that should be kept is another one now.
    pub fn note_places(&mut self, now: Time, link: u64, places: &Places, forgiven_ms: u64) -> Step {
        for placed in &places.placed {
            let asked = (link, placed.claim);
            let Some(claim) = self.claims.get(&asked) else {
                continue;
            };
            check(
                (1..=places.of).contains(&placed.position),
                Rule::QueueInOrder,
                || {
                    format!(
                        "{} is number {} of {}",
                        claim.account, placed.position, places.of
                    )
                },
            )?;
            let waiting = Presence::Waiting(asked, now);
            let known = self.stays.get_mut(&claim.account);
            let is_kept = match known.as_ref().map(|stay| stay.presence) {
                None => false,
                Some(Presence::Waiting(..)) => true,
                Some(Presence::Taken(since)) => since == now,
                Some(Presence::Limbo) => claim.place != 0,
                Some(Presence::Unlinked(_)) if claim.place != 0 => true,
                Some(Presence::Away(since) | Presence::Unlinked(since)) => {
                    let away_ms = now.us_since(since) / 1_000;
                    if away_ms + SLACK_MS < forgiven_ms {
                        true
                    } else if away_ms > forgiven_ms + SLACK_MS {
                        false
                    } else {
                        known
                            .as_ref()
                            .is_some_and(|stay| stay.place == placed.place)
                    }
                }
            };
            match known {
                Some(stay) if is_kept => {
                    check(stay.place == placed.place, Rule::QueueInOrder, || {
                        format!("the place of {} is another one", claim.account)
                    })?;
                    if !matches!(stay.presence, Presence::Waiting(same, _) if same == asked) {
                        stay.presence = waiting;
                    }
                }
                _ => {
                    // A grant that was lost on its way leaves its claim where it was.
                    let is_told_again = claim.place == placed.place;
                    let given = self.given.get(&placed.place).filter(|_| is_told_again);
                    let order = given.copied().unwrap_or(self.orders + 1);
                    self.orders = self.orders.max(order);
                    self.given.insert(placed.place, order);
                    let stay = Stay {
                        order,
                        place: placed.place,
                        presence: waiting,
                    };
                    self.stays.insert(claim.account.clone(), stay);
                }
            }
        }
        Ok(())
    }

    /// Center grants a claim.
    ///
    /// # Errors
    /// `QueueInOrder`: somebody waits who comes before.
    pub fn note_granted(&mut self, now: Time, link: u64, claim: u64) -> Step {
        let Some(claim) = self.claims.remove(&(link, claim)) else {
            return Ok(());
        };
        let asked = (link, claim.claim);
        let is_its = |stay: &Stay| matches!(stay.presence, Presence::Waiting(at, _) if at == asked);
        let Some(stay) = self.stays.remove(&claim.account) else {
            return Ok(());
        };
        if !is_its(&stay) {
            // It got in some other way, and has no place any more.
            return Ok(());
        }
        self.admitted += 1;
        if now < self.degraded_until {
            return Ok(());
        }
        for (account, other) in &self.stays {
            let Presence::Waiting(_, since) = other.presence else {
                continue;
            };
            let was_there = now.us_since(since) > DECIDED_MS * 1_000;
            let is_before = (other.is_new(), other.order) < (stay.is_new(), stay.order);
            check(!(was_there && is_before), Rule::QueueInOrder, || {
                format!(
                    "{} was let in before {account}, who waits for longer",
                    claim.account
                )
            })?;
        }
        Ok(())
    }

    /// Center refuses a claim.
    pub fn note_refused(&mut self, now: Time, link: u64, refused: &ClaimRefused) {
        // Another connection of the account has its place from now on, or is let in.
        let is_taken = refused.refusal() == ClaimRefusal::PlaceTaken;
        let kept = is_taken.then_some(Presence::Taken(now));
        self.end(link, refused.claim, kept);
    }

    /// The client of a claim has gone.
    pub fn note_abandoned(&mut self, now: Time, link: u64, claim: u64, given_up: bool) {
        self.end(link, claim, (!given_up).then_some(Presence::Away(now)));
    }

    fn end(&mut self, link: u64, claim: u64, kept: Option<Presence>) {
        let asked = (link, claim);
        // It may have been let in already, which will be told.
        let Some(claim) = self.claims.get(&asked) else {
            return;
        };
        let Some(stay) = self.stays.get_mut(&claim.account) else {
            return;
        };
        if matches!(stay.presence, Presence::Waiting(at, _) if at == asked) {
            match kept {
                Some(presence) => stay.presence = presence,
                None => drop(self.stays.remove(&claim.account)),
            }
        }
    }

    /// Center has lost a link.
    pub fn note_link_down(&mut self, now: Time, link: u64) {
        let lost: Vec<_> = self
            .claims
            .range((link, 0)..=(link, u64::MAX))
            .map(|(asked, _)| *asked)
            .collect();
        for (link, claim) in lost {
            self.end(link, claim, Some(Presence::Unlinked(now)));
        }
    }

    /// Center's process has gone, and with it all places of those who are away.
    pub fn note_center_died(&mut self) {
        self.claims.clear();
        self.stays.retain(|_, stay| match stay.presence {
            Presence::Away(_) | Presence::Taken(_) => false,
            _ => {
                stay.presence = Presence::Limbo;
                true
            }
        });
    }

    /// A write of the journal has failed.
    pub fn note_degraded(&mut self, now: Time) {
        self.degraded_until = now.after_ms(DEGRADED_MS);
    }
}
