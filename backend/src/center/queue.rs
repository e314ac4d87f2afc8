//! Who waits to be let in: the order, whose place is whose, and what each is told of it.
//!
//! Owns the places. It does not know how many may play, nor grants anything: `door` does. A
//! place belongs to an account; a connection only waits in it, and what a client says of it counts
//! for nothing. One whose connection is lost keeps it for a while, out of the count.
//!
//! Invariants: of two in a lane, who took the place first is before the other as long as both
//! have it; an account has one place; at most `places_max` places, those away included.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use protocol::control::{Claim, Placed};
use protocol::time::{Now, Time};

use crate::link::LinkId;

/// Bit that puts a place behind all returning players.
const NEW: u64 = 1 << 62;

/// A number of a start makes room for two to the power of so many places.
const PLACES_BITS: u32 = 24;

/// Places looked at in one go: 0.1 ms.
const LOOKED_AT_MAX: usize = 2_048;

/// Time, ms, between two of these while a round is under way: 100,000 places take a second.
const LOOK_MS: u64 = 20;

/// Time, ms, from one round to the next.
const ROUND_MS: u64 = 1_000;

/// A place in the order. The lower is before the higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(pub(super) u64);

impl Place {
    fn is_returning(self) -> bool {
        self.0 < NEW
    }
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) link: LinkId,
    pub(super) claim: Claim,
    /// Since when, over all of its connections.
    pub(super) since: Time,
    /// The position that it was told last; 0: none.
    told: u32,
    told_at: Time,
}

/// Somebody whose connection was lost.
#[derive(Debug)]
struct Away {
    account: Arc<str>,
    since: Time,
    told: u32,
    until: Time,
}

/// What one link is to be told.
pub(super) type Told = BTreeMap<LinkId, Vec<Placed>>;

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    places: BTreeMap<Place, Waiting>,
    /// How many of them are in the lane of those who return.
    returning: u32,
    by_claim: HashMap<(LinkId, u64), Place>,
    /// Those away included.
    by_account: HashMap<Arc<str>, Place>,
    away: HashMap<Place, Away>,
    /// By when they are given up; those who came back stay in here until then.
    away_until: VecDeque<(Time, Place)>,
    number_next: u64,
    places_max: usize,
    forgiven_ms: u64,
    /// Where the round is: the next place to look at, and how many wait before it.
    at: Option<Place>,
    before: u32,
    look_at: Time,
    round_since: Time,
    admitted: u64,
    /// Players let in a second, smoothed, thousandths.
    admitted_a_second: u64,
}

/// How soon somebody at this position is told of a change again, ms: the nearer, the sooner. At
/// 100,000 who wait these are about 3,500 messages a second.
fn pause_ms(position: u32) -> u64 {
    match position {
        // A little less than a round, or every second one would be missed.
        0..=100 => ROUND_MS - 100,
        101..=1_000 => 5_000,
        _ => 30_000,
    }
}

impl Queue {
    /// `started_from`: a number above that of any center before on this journal, by 65,536 or more.
    pub(super) fn new(places_max: usize, forgiven_ms: u64, started_from: u64) -> Self {
        Self {
            places: BTreeMap::new(),
            returning: 0,
            by_claim: HashMap::new(),
            by_account: HashMap::new(),
            away: HashMap::new(),
            away_until: VecDeque::new(),
            number_next: (started_from.max(1) << PLACES_BITS) % NEW,
            places_max,
            forgiven_ms,
            at: None,
            before: 0,
            look_at: Time(0),
            round_since: Time(0),
            admitted: 0,
            admitted_a_second: 0,
        }
    }

    /// Other bounds, for places that are given or lost from now on.
    pub(super) fn set_bounds(&mut self, places_max: usize, forgiven_ms: u64) {
        (self.places_max, self.forgiven_ms) = (places_max, forgiven_ms);
    }

    /// Those who wait and are connected.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Places that are kept for those who are not.
    pub(super) fn away(&self) -> usize {
        self.away.len()
    }

    /// Whether this account has a place, or there is one for it.
    pub(super) fn takes(&self, account: &str) -> bool {
        self.by_account.len() < self.places_max || self.by_account.contains_key(account)
    }

    /// Whether a shard may name this place.
    pub(super) fn is_place(place: u64) -> bool {
        place < 2 * NEW
    }

    /// Puts a claim into its account's place: the one that it has, the one that it `had` before
    /// a restart of center, or the last of its lane. Whose claim waited there until now.
    pub(super) fn enter(
        &mut self,
        now: Now,
        link: LinkId,
        claim: Claim,
        is_returning: bool,
    ) -> Option<(LinkId, u64)> {
        let account: Arc<str> = claim.account.as_str().into();
        let (place, since, told, older) = match self.by_account.get(&account).copied() {
            Some(place) => match self.away.remove(&place) {
                Some(away) => (place, away.since, away.told, None),
                None => {
                    let older = self.take(place);
                    let (since, told) = older
                        .as_ref()
                        .map_or((now.time, 0), |older| (older.since, older.told));
                    (
                        place,
                        since,
                        told,
                        older.map(|it| (it.link, it.claim.claim)),
                    )
                }
            },
            None => {
                let place = self.new_place(claim.place, is_returning);
                (place, now.time, 0, None)
            }
        };
        self.by_account.insert(account, place);
        self.by_claim.insert((link, claim.claim), place);
        if self.places.is_empty() {
            (self.at, self.round_since) = (None, now.time);
            self.look_at = now.time.after_ms(ROUND_MS);
        } else if self.at.is_some_and(|at| place < at) {
            self.before += 1;
        }
        let waiting = Waiting {
            link,
            claim,
            since,
            told,
            told_at: Time(0),
        };
        self.returning += u32::from(place.is_returning());
        self.places.insert(place, waiting);
        older
    }

    /// Numbers rise over restarts, so that what center gave out before is before what it gives out
    /// now, whatever comes first.
    fn new_place(&mut self, had: u64, is_returning: bool) -> Place {
        let place = Place(had);
        if had != 0 && !self.places.contains_key(&place) && !self.away.contains_key(&place) {
            self.number_next = self.number_next.max((had & !NEW) + 1);
            return place;
        }
        let number = self.number_next;
        self.number_next = number + 1;
        Place(if is_returning { number } else { number | NEW })
    }

    /// What the one who has just entered is told: what it was told before, or that it is the last
    /// of its lane. For who comes back after a restart of center that may be too much; the next
    /// round makes it right, and nobody has to be counted here.
    pub(super) fn first_word(&mut self, now: Time, link: LinkId, claim: u64) -> Option<Placed> {
        let place = *self.by_claim.get(&(link, claim))?;
        let last = match place.is_returning() {
            true => self.returning,
            false => self.places.len() as u32,
        };
        let rate = self.admitted_a_second;
        let waiting = self.places.get_mut(&place)?;
        let position = match waiting.told {
            0 => last,
            told => told.min(last),
        };
        (waiting.told, waiting.told_at) = (position, now);
        Some(Placed {
            claim,
            place: place.0,
            position,
            seconds: seconds(position, rate),
        })
    }

    /// Who is next.
    pub(super) fn first(&self) -> Option<(Place, LinkId)> {
        let (place, waiting) = self.places.first_key_value()?;
        Some((*place, waiting.link))
    }

    /// Lets the one in this place in: it has none any more.
    pub(super) fn admit(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.take(place)?;
        self.by_account.remove(waiting.claim.account.as_str());
        self.admitted += 1;
        Some(waiting)
    }

    /// The same for somebody who is not let in.
    pub(super) fn remove(&mut self, account: &str) -> Option<Waiting> {
        let place = self.by_account.remove(account)?;
        self.away.remove(&place);
        self.take(place)
    }

    /// Takes somebody out of the count; the place is still the account's.
    fn take(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.places.remove(&place)?;
        self.by_claim.remove(&(waiting.link, waiting.claim.claim));
        self.returning -= u32::from(place.is_returning());
        if self.at.is_some_and(|at| place < at) {
            self.before -= 1;
        }
        Some(waiting)
    }

    /// The connection of a claim is gone. Whether it waited here.
    pub(super) fn leave(&mut self, now: Time, link: LinkId, claim: u64, given_up: bool) -> bool {
        let Some(place) = self.by_claim.get(&(link, claim)).copied() else {
            return false;
        };
        let Some(waiting) = self.take(place) else {
            return false;
        };
        if given_up || self.forgiven_ms == 0 {
            self.by_account.remove(waiting.claim.account.as_str());
            return true;
        }
        let until = now.after_ms(self.forgiven_ms);
        let away = Away {
            account: waiting.claim.account.into(),
            since: waiting.since,
            told: waiting.told,
            until,
        };
        self.away.insert(place, away);
        self.away_until.push_back((until, place));
        true
    }

    /// A link is gone with all who waited over it.
    pub(super) fn leave_all(&mut self, now: Time, link: LinkId) {
        let mut claims: Vec<u64> = self
            .by_claim
            .keys()
            .filter(|(of, _)| *of == link)
            .map(|(_, claim)| *claim)
            .collect();
        claims.sort_unstable();
        for claim in claims {
            self.leave(now, link, claim, false);
        }
    }

    /// Accounts that wait on a device.
    pub(super) fn of_device(&self, device: &str) -> Vec<String> {
        let waiting = self.places.values();
        waiting
            .filter(|waiting| waiting.claim.device == device)
            .map(|waiting| waiting.claim.account.clone())
            .collect()
    }

    /// Gives up the places to which nobody came back.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some(&(until, place)) = self.away_until.front()
            && until <= now
        {
            self.away_until.pop_front();
            if self
                .away
                .get(&place)
                .is_some_and(|away| away.until == until)
                && let Some(away) = self.away.remove(&place)
            {
                self.by_account.remove(&away.account);
            }
        }
    }

    /// When there is something to do without anybody coming.
    pub(super) fn next(&self) -> Option<Time> {
        let look = (!self.places.is_empty()).then_some(self.look_at);
        let away = self.away_until.front().map(|(until, _)| *until);
        [look, away].into_iter().flatten().min()
    }

    /// Looks at some places, in order, and says whose position has changed so that it shows: by
    /// one in a hundred, and not again too soon.
    pub(super) fn look(&mut self, now: Time) -> Told {
        let mut told = Told::new();
        if self.places.is_empty() || now < self.look_at {
            return told;
        }
        let from = match self.at {
            Some(at) => at,
            None => {
                self.begin_round(now);
                Place(0)
            }
        };
        let (rate, mut position) = (self.admitted_a_second, self.before);
        let mut next = None;
        for (looked_at, (place, waiting)) in self.places.range_mut(from..).enumerate() {
            if looked_at == LOOKED_AT_MAX {
                next = Some(*place);
                break;
            }
            position += 1;
            let moved = u64::from(position.abs_diff(waiting.told));
            let shows = moved > 0 && moved * 100 >= u64::from(waiting.told);
            if !shows || now < waiting.told_at.after_ms(pause_ms(position)) {
                continue;
            }
            (waiting.told, waiting.told_at) = (position, now);
            told.entry(waiting.link).or_default().push(Placed {
                claim: waiting.claim.claim,
                place: place.0,
                position,
                seconds: seconds(position, rate),
            });
        }
        (self.at, self.before) = (next, if next.is_some() { position } else { 0 });
        self.look_at = match next {
            Some(_) => now.after_ms(LOOK_MS),
            None => self
                .round_since
                .after_ms(ROUND_MS)
                .max(now.after_ms(LOOK_MS)),
        };
        told
    }

    fn begin_round(&mut self, now: Time) {
        let elapsed_ms = now.ms().saturating_sub(self.round_since.ms()).max(1);
        let rate = std::mem::take(&mut self.admitted) * 1_000_000 / elapsed_ms;
        self.admitted_a_second = match self.admitted_a_second {
            0 => rate,
            before => (7 * before + rate) / 8,
        };
        self.round_since = now;
    }
}

/// How long it takes so many to be let in; `u32::MAX` if nobody knows.
fn seconds(position: u32, admitted_a_second: u64) -> u32 {
    (u64::from(position) * 1_000)
        .checked_div(admitted_a_second)
        .map_or(u32::MAX, |seconds| {
            u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
        })
}

/// Who played a short while ago, and goes before those who did not.
#[derive(Debug)]
pub(super) struct Returning {
    until: HashMap<Arc<str>, Time>,
    order: VecDeque<(Time, Arc<str>)>,
    kept_ms: u64,
}

/// Accounts that are remembered as returning: all that leave a full gateway at once. Each takes
/// about 150 bytes.
const RETURNING_MAX: usize = 131_072;

impl Returning {
    pub(super) fn new(kept_ms: u64) -> Self {
        Self {
            until: HashMap::new(),
            order: VecDeque::new(),
            kept_ms,
        }
    }

    /// How long accounts are remembered from now on, ms.
    pub(super) fn set_kept(&mut self, kept_ms: u64) {
        self.kept_ms = kept_ms;
    }

    /// This account's session has ended.
    pub(super) fn insert(&mut self, now: Time, account: &Arc<str>) {
        if self.kept_ms == 0 {
            return;
        }
        let until = now.after_ms(self.kept_ms);
        self.until.insert(Arc::clone(account), until);
        self.order.push_back((until, Arc::clone(account)));
        while let Some((at, account)) = self.order.front()
            && (*at <= now || self.order.len() > RETURNING_MAX)
        {
            if self.until.get(account) == Some(at) {
                self.until.remove(account);
            }
            self.order.pop_front();
        }
    }

    pub(super) fn includes(&self, now: Time, account: &str) -> bool {
        self.until.get(account).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests;
