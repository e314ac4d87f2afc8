//! The open loop: which client sends when. Every send of a run has a fixed
//! moment that depends on nothing that happens, so a slow server cannot slow
//! the load down and hide its own latency ("coordinated omission").
//!
//! The clients stand in a seeded order and take turns; send `k` of the run is
//! due `k / rate` seconds after the start and belongs to client `k mod clients`
//! of that order. A worker holds a range of the clients and sees only theirs.
//!
//! Invariant: turns come out in the order of their moments, each once; the
//! moment of any turn can be computed again from (client, turn).

use protocol::time::Time;

use crate::payload::mix;

/// The sends of one worker.
#[derive(Debug)]
pub struct Schedule {
    start: Time,
    us_per_send: f64,
    /// Sends of the whole run, over all workers.
    total: u64,
    /// Clients of the whole run.
    clients: u64,
    /// Places in the order, rising, with the local client at each.
    turns: Vec<(u32, u32)>,
    /// The place of each local client.
    places: Vec<u32>,
    round: u64,
    position: usize,
}

impl Schedule {
    /// A schedule for `count` clients from `first` on, of `clients` in all.
    /// `rate` is sends a second of all clients; 0 means none.
    pub fn new(
        start: Time,
        rate: f64,
        duration_ms: u64,
        clients: u32,
        first: u32,
        count: u32,
        seed: u64,
    ) -> Self {
        let order = order(clients, seed);
        let mut turns: Vec<(u32, u32)> = Vec::with_capacity(count as usize);
        let mut places = vec![0; count as usize];
        for (place, client) in order.into_iter().enumerate() {
            if let Some(local) = client.checked_sub(first).filter(|local| *local < count) {
                turns.push((place as u32, local));
                places[local as usize] = place as u32;
            }
        }
        Self {
            start,
            us_per_send: if rate > 0.0 { 1e6 / rate } else { 0.0 },
            total: total(rate, duration_ms),
            clients: u64::from(clients),
            turns,
            places,
            round: 0,
            position: 0,
        }
    }

    /// When the run starts.
    pub fn start(&self) -> Time {
        self.start
    }

    fn at(&self, send: u64) -> Time {
        // Exact up to 2^53 microseconds, 285 years.
        self.start + (send as f64 * self.us_per_send) as u64
    }

    /// The moment at which turn number `turn` of a local client is due.
    pub fn due_at(&self, client: u32, turn: u32) -> Time {
        let place = self.places.get(client as usize).copied().unwrap_or(0);
        self.at(u64::from(turn) * self.clients + u64::from(place))
    }

    /// The moment of turn number `turn` of the client at this place in the order, from 0.
    pub fn moment(&self, turn: u32, place: u32) -> Time {
        self.at(u64::from(turn) * self.clients + u64::from(place))
    }

    /// Turns of the client at this place in the order that were due by `now`, of this run.
    pub fn turns_until(&self, now: Time, place: u32) -> u32 {
        if self.us_per_send <= 0.0 || now < self.start {
            return 0;
        }
        // A moment is cut to whole microseconds, so that one too few could come out.
        let sends = (now.us_since(self.start) as f64 + 1.0) / self.us_per_send;
        let due = (sends as u64 + 1).min(self.total);
        let turns = due.saturating_sub(u64::from(place)).div_ceil(self.clients);
        u32::try_from(turns).unwrap_or(u32::MAX)
    }

    /// Turns of a local client among the first `total` sends of the run.
    pub fn turns_of(&self, client: u32, total: u64) -> u64 {
        let place = self.places.get(client as usize).copied().unwrap_or(0);
        total
            .saturating_sub(u64::from(place))
            .div_ceil(self.clients)
    }

    fn next(&self) -> Option<(u64, u32)> {
        let (place, client) = *self.turns.get(self.position)?;
        let send = self.round * self.clients + u64::from(place);
        (send < self.total).then_some((send, client))
    }

    /// When the next turn is due; `None` after the last.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.next().map(|(send, _)| self.at(send))
    }

    /// The local client whose turn has come, if one has at `now`. To be called
    /// until `None`.
    pub fn poll_due(&mut self, now: Time) -> Option<u32> {
        let (send, client) = self.next()?;
        if self.at(send) > now {
            return None;
        }
        self.position += 1;
        if self.position == self.turns.len() {
            self.position = 0;
            self.round += 1;
        }
        Some(client)
    }
}

/// Sends of a whole run.
pub fn total(rate: f64, duration_ms: u64) -> u64 {
    (rate * duration_ms as f64 / 1e3).round().max(0.0) as u64
}

/// The place of each client of the run in the order.
pub fn places(clients: u32, seed: u64) -> Vec<u32> {
    let mut places = vec![0; clients as usize];
    for (place, client) in (0_u32..).zip(order(clients, seed)) {
        places[client as usize] = place;
    }
    places
}

/// A permutation of the clients by the seed (Fisher and Yates).
fn order(clients: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..clients).collect();
    for at in (1..order.len()).rev() {
        // The bias of a remainder is below 2^-32 here.
        let other = mix(seed ^ mix(at as u64)) % (at as u64 + 1);
        order.swap(at, other as usize);
    }
    order
}

#[cfg(test)]
mod tests;
