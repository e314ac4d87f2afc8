//! The door: who gets a session at once and who waits for one, by how many may play and by how
//! busy the shards are.
//!
//! The order of those who wait is `queue`'s. Invariants: while somebody waits, nobody who comes
//! later in the same lane gets a session before; between two reports of a shard no more logins
//! are let in there than its busy time has room for.

use protocol::control::{Claim, ClaimRefusal, Load, Places, to_shard};
use protocol::time::Now;

use super::Center;
use super::queue::Queue;
use super::shards::ShardIndex;
use crate::link::{LinkFault, LinkId};

/// What a login costs a shard, µs: half of what DESIGN §12 demands, so that what comes with
/// it (first messages, the binding) is in it too.
const LOGIN_COST_US: u64 = 500;

/// How long, ms, a shard's report counts: it reports once a second.
const LOAD_MS: u64 = 1_000;

/// How the door is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorSettings {
    /// Sessions at a time, those that wait for their client included; who comes beyond waits.
    pub online_max: usize,
    /// A shard that is busier, thousandths of its time, lets nobody in; 0: however busy.
    pub busy_permille_max: u32,
    /// Places in the queue, those kept for lost connections included; 0: who would wait is refused.
    pub places_max: usize,
    /// How long a lost connection keeps its place, ms.
    pub forgiven_ms: u64,
    /// How long after its end a session's player goes before others, ms.
    pub returning_ms: u64,
}

impl DoorSettings {
    /// A door at which nobody waits: for clusters that do not need one.
    pub const OPEN: Self = Self {
        online_max: usize::MAX,
        busy_permille_max: 0,
        places_max: 0,
        forgiven_ms: 0,
        returning_ms: 0,
    };

    /// Logins that a shard takes until its next report if it is so busy.
    pub(super) fn credit(&self, busy_permille: u32) -> u32 {
        let room = self.busy_permille_max.saturating_sub(busy_permille);
        (u64::from(room) * LOAD_MS / LOGIN_COST_US) as u32
    }
}

impl Center {
    /// A shard says how busy it is.
    pub(super) fn handle_load(&mut self, index: ShardIndex, load: &Load) {
        let credit = self.settings.door.credit(load.busy_permille);
        if let Some(shard) = self.shards.by_index_mut(index) {
            shard.logins_left = credit;
        }
    }

    /// The operator sets the door anew. Who is online stays, and so does who waits.
    pub fn handle_door(&mut self, now: Now, door: DoorSettings) {
        self.settings.door = door;
        self.queue.set_bounds(door.places_max, door.forgiven_ms);
        self.returning.set_kept(door.returning_ms);
        self.admit(now);
    }

    /// Whether a claim that comes now has to wait.
    pub(super) fn must_wait(&self, index: ShardIndex, claim: &Claim) -> bool {
        let shard = self.shards.by_index(index);
        let is_busy = self.settings.door.busy_permille_max > 0
            && shard.is_none_or(|shard| shard.logins_left == 0);
        // Who waited before center was started anew goes by its old place.
        self.settings.door.places_max > 0
            && (claim.place != 0 || self.queue.len() > 0 || self.is_full() || is_busy)
    }

    fn is_full(&self) -> bool {
        self.users.len() >= self.settings.door.online_max || self.users.is_full()
    }

    /// Uses up one of the logins that a shard takes.
    pub(super) fn take_login(&mut self, index: ShardIndex) {
        if let Some(shard) = self.shards.by_index_mut(index) {
            shard.logins_left = shard.logins_left.saturating_sub(1);
        }
    }

    /// Puts a claim, whose token is used up, into the queue, and tells it where it is.
    pub(super) fn enqueue(&mut self, now: Now, link: LinkId, claim: Claim) {
        let number = claim.claim;
        let is_returning = self.returning.includes(now.time, &claim.account);
        self.counts.queued += 1;
        if let Some((older, claim)) = self.queue.enter(now, link, claim, is_returning) {
            self.refuse(older, claim, ClaimRefusal::PlaceTaken);
        }
        let placed = self.queue.first_word(now.time, link, number);
        let of = self.queue.len() as u32;
        self.send(
            link,
            to_shard::Message::Places(Places {
                placed: placed.into_iter().collect(),
                of,
            }),
        );
    }

    /// Lets in who may, in order. A shard that is too busy keeps those behind its next player
    /// waiting too: shards have an equal share of all, and the order comes first.
    pub(super) fn admit(&mut self, now: Now) {
        while self.can_decide()
            && !self.is_full()
            && let Some((place, link)) = self.queue.first()
        {
            let index = self.shards.by_link(link);
            if self.settings.door.busy_permille_max > 0
                && let Some(index) = index
                && self
                    .shards
                    .by_index(index)
                    .is_some_and(|shard| shard.logins_left == 0)
            {
                return;
            }
            let (Some(waiting), Some(index)) = (self.queue.admit(place), index) else {
                continue;
            };
            let number = waiting.claim.claim;
            self.counts.admitted += 1;
            self.counts.waited_ms += now.time.ms().saturating_sub(waiting.since.ms());
            if let Err(refusal) = self.seat(link, index, waiting.claim) {
                self.refuse(link, number, refusal);
            }
        }
    }

    /// Tells those who wait where they are, some at a time.
    pub(super) fn tell_places(&mut self, now: Now) {
        self.queue.expire(now.time);
        let of = self.queue.len() as u32;
        for (link, placed) in self.queue.look(now.time) {
            self.counts.places_told += placed.len() as u64;
            self.send(link, to_shard::Message::Places(Places { placed, of }));
        }
    }

    /// Somebody who waits is not let in any more.
    pub(super) fn turn_away(&mut self, account: &str, text: &str) {
        if let Some(waiting) = self.queue.remove(account) {
            self.refuse_banned(waiting.link, waiting.claim.claim, text);
        }
    }

    /// A claim may name only what can be a place.
    pub(super) fn check_place(claim: &Claim) -> Result<(), LinkFault> {
        match Queue::is_place(claim.place) {
            true => Ok(()),
            false => Err(LinkFault::Claim),
        }
    }
}
