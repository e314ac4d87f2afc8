//! Planted faults: each must be seen for what it is, and against a naive oracle.

use std::collections::BTreeSet;

use super::{HOLES_MAX, Ledger, Reply};
use crate::payload::mix;

fn with_sends(count: u32) -> Ledger {
    let mut ledger = Ledger::default();
    for sequence in 0..count {
        assert_eq!(ledger.send(), sequence);
    }
    ledger
}

#[test]
fn replies_in_order_leave_nothing() {
    let mut ledger = with_sends(5);
    for sequence in 0..5 {
        assert_eq!(ledger.handle_reply(sequence), Reply::InOrder);
    }
    assert_eq!(ledger.missing(), 0);
}

#[test]
fn a_doubled_reply_is_seen() {
    let mut ledger = with_sends(3);
    ledger.handle_reply(0);
    assert_eq!(ledger.handle_reply(0), Reply::Doubled);
    ledger.handle_reply(1);
    assert_eq!(ledger.handle_reply(0), Reply::Doubled);
    assert_eq!(ledger.missing(), 1);
}

#[test]
fn a_missing_reply_stays_missing() {
    let mut ledger = with_sends(3);
    ledger.handle_reply(0);
    ledger.handle_reply(2);
    assert_eq!(ledger.missing(), 1);
    let before: Vec<u64> = (0..4).map(|at| ledger.missing_before(at)).collect();
    assert_eq!(before, [0, 0, 1, 1]);
    ledger.send();
    assert_eq!(ledger.missing_before(3), 1);
    assert_eq!(ledger.missing_before(u32::MAX), ledger.missing());
}

#[test]
fn reordered_replies_are_late_and_not_lost() {
    let mut ledger = with_sends(3);
    assert_eq!(ledger.handle_reply(1), Reply::InOrder);
    assert_eq!(ledger.handle_reply(0), Reply::Late);
    assert_eq!(ledger.handle_reply(0), Reply::Doubled);
    assert_eq!(ledger.handle_reply(2), Reply::InOrder);
    assert_eq!(ledger.missing(), 0);
}

#[test]
fn what_is_given_up_is_counted_once_and_the_next_send_goes_on() {
    let mut ledger = with_sends(5);
    ledger.handle_reply(0);
    ledger.handle_reply(2);
    assert_eq!(ledger.give_up(), 3);
    assert_eq!(ledger.missing(), 0);
    assert_eq!(ledger.handle_reply(1), Reply::Doubled, "it was given up");
    assert_eq!(ledger.send(), 5);
    assert_eq!(ledger.missing(), 1);
    assert_eq!(ledger.handle_reply(5), Reply::InOrder);
}

#[test]
fn a_reply_to_nothing_is_unknown() {
    let mut ledger = with_sends(1);
    assert_eq!(ledger.handle_reply(1), Reply::Unknown);
    assert_eq!(ledger.missing(), 1);
}

#[test]
fn holes_are_bounded_and_still_counted() {
    let count = HOLES_MAX as u32 + 10;
    let mut ledger = with_sends(count);
    ledger.handle_reply(count - 1);
    assert_eq!(ledger.missing(), u64::from(count) - 1);
    assert_eq!(ledger.handle_reply(count - 2), Reply::Late);
    assert_eq!(ledger.missing(), u64::from(count) - 2);
}

#[test]
fn random_histories_agree_with_a_naive_set() {
    for seed in 0..200 {
        let mut ledger = Ledger::default();
        let (mut sent, mut answered) = (0_u32, BTreeSet::new());
        for step in 0..300_u64 {
            let draw = mix(seed << 32 | step);
            if draw.is_multiple_of(3) {
                ledger.send();
                sent += 1;
                continue;
            }
            let sequence = (draw >> 8) as u32 % (sent + 2);
            let expected = if sequence >= sent {
                Reply::Unknown
            } else if answered.contains(&sequence) {
                Reply::Doubled
            } else if answered.last().is_some_and(|last| *last > sequence) {
                Reply::Late
            } else {
                Reply::InOrder
            };
            assert_eq!(ledger.handle_reply(sequence), expected, "seed {seed}");
            if expected != Reply::Unknown {
                answered.insert(sequence);
            }
            assert_eq!(ledger.missing(), u64::from(sent) - answered.len() as u64);
        }
    }
}
