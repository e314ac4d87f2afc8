//! Who gets the seats of a view that has too few: the nearest, and the others in turn.
//!
//! A view has `visible_max` seats. Most are for the nearest; an outsider takes the seat of the
//! farthest only if it is clearly nearer, and few may a tick, so that two who stand equally far
//! do not take turns in being told. The rest go round: every `rotation_ticks` the outsider whose
//! turn it is (the next higher id) gets one, so that in a crowd everybody is seen at some time.
//!
//! Invariant: nobody enters and leaves a view in the same tick.

use protocol::world::remove_position;

use super::node::{Node, Scratch};

/// Seats for the nearest that change their occupant in one tick, at most. A crowd that rushes by
/// must not cost a whole new view each tick; 64 seats follow it within two seconds.
pub const EXCHANGES_MAX: usize = 4;

/// An outsider takes a seat if five times the square of its distance is below four times that of
/// the occupant: a tenth nearer.
const NEARER: (u64, u64) = (5, 4);

/// One within the view's radius that has no seat. Ordered by distance, then id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Square of its distance.
    pub(super) squared: u32,
    pub(super) id: u32,
    pub(super) slot: u32,
}

impl Node {
    /// Seats what candidates there is room for, then lets the others have what they may.
    /// There are more candidates than free seats.
    pub(super) fn crowd(&mut self, viewer: usize, tick: u32, scratch: &mut Scratch) {
        let seats = self.rules.seats;
        let room = seats - scratch.view.len();
        if room > 0 {
            scratch.candidates.select_nth_unstable(room);
            for index in 0..room {
                self.seat(scratch.candidates[index], scratch);
            }
            scratch.candidates.drain(..room);
        }

        let own_place = self.spots[viewer].at();
        scratch.distances.clear();
        for &other in &scratch.view {
            let squared = own_place.distance_squared(self.spots[other as usize].at());
            scratch.distances.push(squared);
        }
        for _ in 0..EXCHANGES_MAX {
            if !self.exchange(scratch) {
                break;
            }
        }
        if tick
            .wrapping_add(self.spots[viewer].id)
            .is_multiple_of(self.rules.rotation_ticks)
        {
            self.rotate(viewer, scratch);
        }
    }

    /// Lets somebody nearer have the seat of the farthest of the near. Says if anybody got it.
    fn exchange(&self, scratch: &mut Scratch) -> bool {
        let near = self.rules.near_seats;
        let at = |seat: &usize| scratch.distances[*seat];
        let Some(farthest) = (0..near).max_by_key(at) else {
            return false;
        };
        // One that came in turn and is near by now changes seats with it; nobody is told.
        if let Some(turned) = (near..self.rules.seats).min_by_key(at)
            && at(&turned) < at(&farthest)
        {
            scratch.view.swap(turned, farthest);
            scratch.distances.swap(turned, farthest);
            return true;
        }
        let nearest = (0..scratch.candidates.len()).min_by_key(|&index| scratch.candidates[index]);
        let Some(nearest) = nearest else {
            return false;
        };
        let squared = u64::from(scratch.candidates[nearest].squared);
        if squared * NEARER.0 >= scratch.distances[farthest] * NEARER.1 {
            return false;
        }
        scratch.distances[farthest] = squared;
        self.replace(farthest, nearest, scratch);
        true
    }

    /// Lets the next one in turn have a seat of those that go round.
    fn rotate(&mut self, viewer: usize, scratch: &mut Scratch) {
        let rules = self.rules;
        let turning = rules.seats - rules.near_seats;
        if turning == 0 {
            return;
        }
        let seat = rules.near_seats + usize::from(self.viewers[viewer].turn) % turning;
        let occupant = self.spots[scratch.view[seat] as usize].id;
        if scratch.enters.iter().any(|enter| enter.id == occupant) {
            // It has only just got it.
            return;
        }
        let cursor = self.viewers[viewer].cursor;
        let next = (0..scratch.candidates.len()).min_by_key(|&index| {
            scratch.candidates[index]
                .id
                .wrapping_sub(cursor)
                .wrapping_sub(1)
        });
        if let Some(next) = next {
            let own = &mut self.viewers[viewer];
            own.cursor = scratch.candidates[next].id;
            own.turn = own.turn.wrapping_add(1);
            self.replace(seat, next, scratch);
        }
    }

    fn replace(&self, seat: usize, candidate: usize, scratch: &mut Scratch) {
        let chosen = scratch.candidates.swap_remove(candidate);
        let place = &mut scratch.view[seat];
        let evicted = self.spots[*place as usize].id;
        *place = chosen.slot;
        // It may have jumped, walked or come to rest in this tick; now it has left and that is all.
        scratch.enters.retain(|enter| enter.id != evicted);
        scratch.rests.retain(|rest| rest.id != evicted);
        remove_position(&mut scratch.positions, self.rules.width, evicted);
        scratch.leaves.push(evicted);
        scratch.enters.push(self.entered(chosen.slot as usize));
    }
}
