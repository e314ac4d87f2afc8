//! One end against a naive outbox, and two ends over a channel that loses, is
//! cut, and leads to new incarnations.

use super::*;
use crate::body::{Body, MessageKind};
use crate::ids::MessageId;
use crate::testing::Random;

mod pair;

const GROUP: GroupId = GroupId(7);
const START: Time = Time(1_000_000);

fn header() -> MessageHeader {
    MessageHeader {
        kind: MessageKind::Request,
        lane: Lane::Reliable,
        more: false,
        group: GROUP,
        number: 0,
        ack: 0,
        message: MessageId(1),
        request: 9,
    }
}

fn push(end: &mut StreamEnd, payload: &[u8]) -> Result<u32, OutboxFull> {
    end.push(header(), payload, OutboxLimits::default())
}

fn sync(end: &StreamEnd, next: u32, base: u32) -> Sync {
    Sync {
        fresh: false,
        group: GROUP,
        incarnation: end.incarnation,
        next,
        base,
    }
}

/// Two ends that have agreed, neither of which has sent anything.
fn agreed() -> (StreamEnd, StreamEnd) {
    let mut client = StreamEnd::client(GROUP);
    let mut backend = StreamEnd::backend(GROUP, Incarnation(5));
    backend.attach();
    let first = backend.poll_sync().unwrap();
    assert!(first.fresh);
    assert!(client.handle_sync(&first));
    let answer = client.poll_sync().unwrap();
    assert!(!answer.fresh);
    assert!(backend.handle_sync(&answer));
    (client, backend)
}

/// Number, acknowledgement and payload of an encoded message.
fn decoded(message: &[u8]) -> (u32, u32, Vec<u8>) {
    match Body::decode(message) {
        Ok(Body::Message { header, payload }) => (header.number, header.ack, payload.to_vec()),
        other => panic!("an outbox holds {other:?}"),
    }
}

fn transmitted(end: &mut StreamEnd) -> Vec<(u32, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(message) = end.poll_transmit() {
        all.push(decoded(message));
    }
    all
}

/// Every message, whole, until it is acknowledged; nothing clever.
#[derive(Default)]
struct NaiveOutbox {
    messages: Vec<(u32, Vec<u8>)>,
    transmitted: usize,
    pushed: u32,
}

#[test]
fn an_end_that_was_left_is_known_by_its_memory() {
    let (mut client, mut backend) = agreed();
    backend.attach();
    let again = backend.poll_sync().unwrap();
    assert!(!client.is_left_end(&again), "the one that it knows");
    let mut other = StreamEnd::backend(GROUP, Incarnation(6));
    other.attach();
    let first = other.poll_sync().unwrap();
    assert!(!client.is_left_end(&first), "one without memory");
    assert!(client.handle_sync(&first));
    assert!(client.is_left_end(&again));
}

#[test]
fn an_outbox_is_the_naive_one() {
    let limits = OutboxLimits {
        messages_max: 40,
        bytes_max: 3_000,
    };
    for seed in 0..60 {
        let mut random = Random(seed);
        let (mut end, _) = agreed();
        let mut naive = NaiveOutbox::default();
        for _ in 0..600 {
            match random.below(10) {
                0..5 => {
                    let payload = vec![random.next() as u8; random.below(200) as usize];
                    let bytes: usize = naive.messages.iter().map(|(_, p)| 18 + p.len()).sum();
                    let fits = naive.messages.len() < limits.messages_max
                        && bytes + 18 + payload.len() <= limits.bytes_max;
                    let outcome = end.push(header(), &payload, limits);
                    assert_eq!(outcome.is_ok(), fits);
                    if let Ok(number) = outcome {
                        naive.pushed += 1;
                        assert_eq!(number, naive.pushed);
                        naive.messages.push((number, payload));
                    }
                }
                5..8 => {
                    let message = end.poll_transmit().map(decoded);
                    let expected = naive.messages.get(naive.transmitted).cloned();
                    assert_eq!(
                        message.map(|(number, _, payload)| (number, payload)),
                        expected
                    );
                    naive.transmitted += usize::from(naive.messages.len() > naive.transmitted);
                }
                8 => {
                    // Also what was never sent, and what was acknowledged before.
                    let low = naive.pushed.saturating_sub(45);
                    let ack = low + random.below(60) as u32;
                    end.handle_ack(ack);
                    if ack <= naive.pushed {
                        let before = naive.messages.len();
                        naive.messages.retain(|(number, _)| *number > ack);
                        let gone = before - naive.messages.len();
                        naive.transmitted = naive.transmitted.saturating_sub(gone);
                    }
                }
                _ => {
                    let next = naive.messages.first().map_or(naive.pushed + 1, |m| m.0);
                    assert!(end.handle_sync(&sync(&end, next, 1)));
                    assert!(end.poll_sync().is_some());
                    naive.transmitted = 0;
                }
            }
            assert_eq!(end.outbox_messages(), naive.messages.len());
            let bytes: usize = naive.messages.iter().map(|(_, p)| 18 + p.len()).sum();
            assert_eq!(end.outbox_bytes(), bytes);
            // Acknowledged bytes do not pile up in front of the rest.
            assert!(end.log.len() <= 2 * bytes + 1);
        }
    }
}

#[test]
fn both_bounds_refuse_visibly() {
    let (mut client, _) = agreed();
    for _ in 0..crate::limits::OUTBOX_MESSAGES_MAX {
        push(&mut client, b"").unwrap();
    }
    assert_eq!(push(&mut client, b""), Err(OutboxFull));
    client.handle_ack(1);
    assert_eq!(push(&mut client, b""), Ok(1_025));

    let (mut client, _) = agreed();
    let payload = vec![0; 32_000];
    let fits = crate::limits::OUTBOX_BYTES_MAX / (32_000 + 18);
    for _ in 0..fits {
        push(&mut client, &payload).unwrap();
    }
    assert_eq!(push(&mut client, &payload), Err(OutboxFull));
    assert_eq!(client.outbox_messages(), fits);
}

#[test]
fn an_acknowledgement_is_due_after_16_messages() {
    let (mut client, _) = agreed();
    for number in 1..=16 {
        assert_eq!(client.poll_ack(START), None);
        assert_eq!(client.handle_message(number, 0, START), Delivery::Deliver);
    }
    assert_eq!(client.poll_ack(START), Some(16));
    assert_eq!(client.poll_ack(START), None);
}

#[test]
fn an_acknowledgement_is_due_5_s_after_the_first_message() {
    let (mut client, _) = agreed();
    assert_eq!(client.ack_deadline(), None);
    client.handle_message(1, 0, START);
    client.handle_message(2, 0, START.after_ms(3_000));
    let deadline = START.after_ms(ACK_DELAY_MS);
    assert_eq!(client.ack_deadline(), Some(deadline));
    assert_eq!(client.poll_ack(Time(deadline.0 - 1)), None);
    assert_eq!(client.poll_ack(deadline), Some(2));
    assert_eq!(client.ack_deadline(), None);
}

#[test]
fn an_acknowledgement_rides_on_each_message() {
    let (mut client, _) = agreed();
    client.handle_message(1, 0, START);
    push(&mut client, b"x").unwrap();
    assert_eq!(transmitted(&mut client), [(1, 1, b"x".to_vec())]);
    assert_eq!(client.ack_deadline(), None);
    assert_eq!(client.poll_ack(START.after_ms(60_000)), None);
}

#[test]
fn a_repeat_is_dropped_and_acknowledged_again() {
    let (mut client, _) = agreed();
    client.handle_message(1, 0, START);
    assert_eq!(client.take_ack(), 1);
    assert_eq!(client.handle_message(1, 0, START), Delivery::Repeated);
    assert_eq!(client.poll_ack(START), Some(1));
}

#[test]
fn a_client_asks_for_what_is_missing_and_goes_on() {
    let (mut client, mut backend) = agreed();
    for payload in [b"a", b"b", b"c"] {
        push(&mut backend, payload).unwrap();
    }
    transmitted(&mut backend);
    push(&mut client, b"mine").unwrap();
    transmitted(&mut client);
    assert_eq!(client.handle_message(2, 0, START), Delivery::Gap);
    // Nothing passes the SYNC.
    push(&mut client, b"more").unwrap();
    assert_eq!(client.poll_transmit(), None);
    let asked = client.poll_sync().unwrap();
    assert_eq!((asked.next, asked.base), (1, 1));
    assert_eq!(transmitted(&mut client).len(), 1);
    assert!(backend.handle_sync(&asked));
    assert_eq!(backend.poll_sync(), None);
    let numbers: Vec<_> = transmitted(&mut backend).into_iter().map(|m| m.0).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_backend_takes_nothing_after_a_gap_until_the_client_has_answered() {
    let (mut client, mut backend) = agreed();
    for payload in [b"a", b"b", b"c"] {
        push(&mut client, payload).unwrap();
    }
    transmitted(&mut client);
    assert_eq!(backend.handle_message(1, 0, START), Delivery::Deliver);
    assert_eq!(backend.handle_message(3, 0, START), Delivery::Gap);
    assert_eq!(backend.handle_message(2, 0, START), Delivery::NotSynced);
    let again = backend.poll_sync().unwrap();
    assert_eq!((again.fresh, again.next), (false, 2));
    assert!(client.handle_sync(&again));
    assert!(backend.handle_sync(&client.poll_sync().unwrap()));
    let numbers: Vec<_> = transmitted(&mut client).into_iter().map(|m| m.0).collect();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn a_fresh_end_begins_at_the_clients_base() {
    let (mut client, _) = agreed();
    for _ in 0..5 {
        push(&mut client, b"x").unwrap();
    }
    transmitted(&mut client);
    client.handle_message(1, 3, START);
    let mut successor = StreamEnd::backend(GROUP, Incarnation(6));
    successor.attach();
    let first = successor.poll_sync().unwrap();
    assert!(first.fresh);
    client.handle_sync(&first);
    assert_eq!(client.received(), 0);
    let answer = client.poll_sync().unwrap();
    assert_eq!((answer.next, answer.base), (1, 4));
    // One for the end before it changes nothing.
    let stale = Sync {
        incarnation: Incarnation(5),
        base: 1,
        ..answer
    };
    assert!(!successor.handle_sync(&stale));
    assert!(successor.handle_sync(&answer));
    assert_eq!(successor.received(), 3);
    assert_eq!(successor.handle_message(4, 0, START), Delivery::Deliver);
}

#[test]
fn a_sync_of_a_malicious_client_is_harmless() {
    let (_, mut backend) = agreed();
    push(&mut backend, b"x").unwrap();
    for (next, base) in [(0, 1), (u32::MAX, u32::MAX), (5_000, 1), (1, 0)] {
        backend.handle_sync(&sync(&backend, next, base));
        assert_eq!(backend.outbox_messages(), 1, "next {next}");
    }
    // It only hurt itself: nothing that it sends is new any more.
    for number in [7, u32::MAX - 1, u32::MAX] {
        assert_ne!(backend.handle_message(number, 9, START), Delivery::Deliver);
    }
}

#[test]
fn nothing_is_acknowledged_or_sent_while_down() {
    let (mut client, _) = agreed();
    client.handle_message(1, 0, START);
    push(&mut client, b"kept").unwrap();
    client.detach();
    assert_eq!(client.poll_transmit(), None);
    assert_eq!(client.poll_ack(START.after_ms(60_000)), None);
    assert_eq!(client.ack_deadline(), None);
    assert_eq!(client.handle_message(2, 1, START), Delivery::NotSynced);
    client.handle_ack(1);
    assert_eq!(client.outbox_messages(), 1);
}

#[test]
fn a_sync_acknowledges() {
    let (mut client, backend) = agreed();
    client.handle_message(1, 0, START);
    client.handle_sync(&sync(&backend, 1, 1));
    assert_eq!(client.poll_sync().map(|sync| sync.next), Some(2));
    assert_eq!(client.ack_deadline(), None);
    assert_eq!(client.poll_ack(START.after_ms(60_000)), None);
}

#[test]
fn the_sequenced_lane_only_goes_forward_and_wraps() {
    let (mut client, _) = agreed();
    let seen: Vec<_> = [4, 4, 3, 9, 5].map(|n| client.handle_sequenced(n)).to_vec();
    assert_eq!(seen, [true, false, false, true, false]);
    assert_eq!((client.next_sequenced(), client.next_sequenced()), (1, 2));
    client.sequenced_seen = u32::MAX;
    assert!(client.handle_sequenced(0));
    assert!(!client.handle_sequenced(u32::MAX));
}

#[test]
fn an_outbox_that_ran_empty_holds_no_memory() {
    let (mut client, _) = agreed();
    push(&mut client, &[0; 5_000]).unwrap();
    client.handle_ack(1);
    assert_eq!((client.log.capacity(), client.outbox_bytes()), (0, 0));
}

#[test]
fn the_numbers_end_before_they_wrap() {
    let (mut client, _) = agreed();
    client.base = u32::MAX - 1;
    assert_eq!(push(&mut client, b"last"), Ok(u32::MAX - 1));
    assert_eq!(push(&mut client, b"too many"), Err(OutboxFull));
    client.handle_ack(u32::MAX - 1);
    assert_eq!(client.outbox_messages(), 0);
    assert_eq!(push(&mut client, b"too many"), Err(OutboxFull));
}

#[test]
fn a_client_that_only_asks_again_does_not_make_a_backend_send_for_ever() {
    let (_, mut backend) = agreed();
    for _ in 0..10 {
        push(&mut backend, &[7; 20_000]).unwrap();
    }
    let outbox = backend.outbox_bytes() as i64;
    transmitted(&mut backend);
    let mut again = 0;
    for _ in 0..1_000 {
        let asks = sync(&backend, 1, 1);
        backend.handle_sync(&asks);
        let messages = transmitted(&mut backend);
        again += messages.iter().map(|m| 18 + m.2.len() as i64).sum::<i64>();
    }
    assert!(
        again >= 4 * outbox,
        "an honest one may lose the path some times"
    );
    assert!(again <= RESEND_BYTES_MAX + outbox);
    // Who acknowledges is sent the rest again.
    let asks = sync(&backend, 6, 1);
    assert!(backend.handle_sync(&asks));
    assert_eq!(transmitted(&mut backend).len(), 5);
    // A new path starts anew, however much was asked over the old one.
    for _ in 0..100 {
        let asks = sync(&backend, 6, 1);
        backend.handle_sync(&asks);
        transmitted(&mut backend);
    }
    backend.attach();
    backend.poll_sync();
    let asks = sync(&backend, 6, 1);
    assert!(backend.handle_sync(&asks));
    assert_eq!(transmitted(&mut backend).len(), 5);
}
