//! What waits leaves in order, is bounded, and is worth sending.

use super::*;

/// A message of the sequenced lane of group 1 with this number and one byte of payload.
fn message(key: Option<u32>, number: u32, payload: u8) -> Waiting {
    let mut body = vec![16, 2, 1, 0];
    body.extend_from_slice(&number.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, 0, 1, 0, payload]);
    Waiting {
        key: key.map(|key| Key {
            group: GroupId(1),
            key,
        }),
        flags: 0,
        header_bytes: 14,
        body: body.into(),
    }
}

fn all(backlog: &mut Backlog) -> Vec<(u32, u8)> {
    let messages = std::iter::from_fn(|| backlog.pop());
    messages.map(|it| (it.number(), it.body[14])).collect()
}

#[test]
fn the_newest_of_a_key_leaves_in_the_place_of_the_oldest_and_numbers_rise() {
    let mut backlog = Backlog::default();
    for (key, number) in [(1, 1), (2, 2), (3, 3), (1, 4), (2, 5), (1, 6)] {
        backlog.push(message(Some(key), number, number as u8), 1_000);
    }
    assert_eq!(backlog.len(), 3);
    assert_eq!(backlog.bytes(), 45);
    assert_eq!(all(&mut backlog), [(3, 6), (5, 5), (6, 3)]);
    assert_eq!(backlog.bytes(), 0);
}

#[test]
fn numbers_that_wrap_rise_too() {
    let mut backlog = Backlog::default();
    for (key, number) in [(1, u32::MAX - 1), (2, u32::MAX), (1, 0)] {
        backlog.push(message(Some(key), number, 0), 1_000);
    }
    assert_eq!(all(&mut backlog), [(u32::MAX, 0), (0, 0)]);
}

#[test]
fn without_a_key_the_oldest_make_room() {
    let mut backlog = Backlog::default();
    for number in 1..=5 {
        let displaced = backlog.push(message(None, number, 0), 45);
        assert_eq!(displaced.dropped, u64::from(number > 3));
    }
    assert_eq!(all(&mut backlog), [(3, 0), (4, 0), (5, 0)]);
}

#[test]
fn what_is_larger_than_all_room_is_dropped_with_all_before_it() {
    let mut backlog = Backlog::default();
    backlog.push(message(None, 1, 0), 45);
    let displaced = backlog.push(message(None, 2, 0), 10);
    assert_eq!(
        displaced,
        Displaced {
            coalesced: 0,
            dropped: 2
        }
    );
    assert_eq!((backlog.len(), backlog.bytes()), (0, 0));
}

#[test]
fn no_more_wait_than_a_look_at_all_of_them_may_cost() {
    let mut backlog = Backlog::default();
    let count = MESSAGES_MAX as u32 + 3;
    for number in 1..=count {
        backlog.push(message(Some(number), number, 0), usize::MAX);
    }
    let left: Vec<_> = all(&mut backlog)
        .iter()
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(left, (4..=count).collect::<Vec<_>>());
}

#[test]
fn numbers_of_channels_are_their_own() {
    let mut backlog = Backlog::default();
    for number in [9, 5] {
        let mut waiting = message(None, number, 0);
        waiting.body[0] = 20;
        backlog.push(waiting, 1_000);
    }
    assert_eq!(all(&mut backlog), [(9, 0), (5, 0)]);
}
