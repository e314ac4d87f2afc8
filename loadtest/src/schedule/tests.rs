//! The schedule: evenly spread, complete, equal for all workers together.

use protocol::time::Time;

use super::{Schedule, places, total};

const START: Time = Time(5_000_000);

fn drained(schedule: &mut Schedule) -> Vec<(Time, u32)> {
    let mut turns = Vec::new();
    while let Some(at) = schedule.poll_timeout() {
        assert_eq!(schedule.poll_due(Time(at.0 - 1)), None, "too early");
        let client = schedule.poll_due(at);
        turns.extend(client.map(|client| (at, client)));
    }
    turns
}

#[test]
fn sends_are_evenly_spread_and_each_client_takes_its_turn() {
    let mut schedule = Schedule::new(START, 1_000.0, 2_000, 7, 0, 7, 1);
    let turns = drained(&mut schedule);
    assert_eq!(turns.len(), 2_000);
    for (send, (at, _)) in turns.iter().enumerate() {
        assert_eq!(at.0, START.0 + send as u64 * 1_000);
    }
    for round in turns.chunks(7) {
        let mut seen: Vec<u32> = round.iter().map(|(_, client)| *client).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), round.len());
    }
}

#[test]
fn the_moment_of_a_turn_can_be_computed_again() {
    let mut schedule = Schedule::new(START, 333.0, 3_000, 10, 0, 10, 9);
    let mut taken = [0; 10];
    for (at, client) in drained(&mut schedule) {
        let turn = &mut taken[client as usize];
        assert_eq!(schedule.due_at(client, *turn), at);
        *turn += 1;
    }
}

#[test]
fn workers_share_one_schedule() {
    let whole = drained(&mut Schedule::new(START, 500.0, 1_000, 10, 0, 10, 3));
    let mut parts = Vec::new();
    for (first, count) in [(0, 4), (4, 6)] {
        let part = drained(&mut Schedule::new(START, 500.0, 1_000, 10, first, count, 3));
        parts.extend(part.into_iter().map(|(at, client)| (at, client + first)));
    }
    parts.sort_unstable();
    assert_eq!(parts, whole);
}

#[test]
fn the_seed_decides_the_order() {
    let turns = |seed| drained(&mut Schedule::new(START, 100.0, 1_000, 50, 0, 50, seed));
    assert_eq!(turns(1), turns(1));
    assert_ne!(turns(1), turns(2));
}

#[test]
fn no_rate_means_no_sends() {
    let mut schedule = Schedule::new(START, 0.0, 1_000, 3, 0, 3, 1);
    assert!(drained(&mut schedule).is_empty());
    assert_eq!(total(0.5, 1_000), 1);
    assert_eq!(total(35_000.0, 10_000), 350_000);
}

#[test]
fn what_was_due_by_a_moment_is_known_of_every_client() {
    let start = START;
    for rate in [0.7, 3.0, 997.0, 30_000.0] {
        let schedule = Schedule::new(start, rate, 60_000, 7, 0, 7, 3);
        for (client, place) in (0..7).zip(places(7, 3)) {
            assert_eq!(schedule.turns_until(Time(0), place), 0);
            let turns = schedule.turns_of(client, total(rate, 60_000)) as u32;
            for turn in 0..turns.min(500) {
                let at = schedule.moment(turn, place);
                assert_eq!(at, schedule.due_at(client, turn));
                assert_eq!(schedule.turns_until(at, place), turn + 1, "{rate}");
                // Moments are cut to whole microseconds.
                assert_eq!(schedule.turns_until(Time(at.0 - 2), place), turn, "{rate}");
            }
            let end = start.after_ms(120_000);
            assert_eq!(schedule.turns_until(end, place), turns);
        }
    }
}
