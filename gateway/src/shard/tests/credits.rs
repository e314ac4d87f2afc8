//! A backend that does not keep up slows those who send to it, each by its own credit.

use protocol::body::{Lane, MessageKind};
use protocol::client::{Client, SendError};
use protocol::ids::MessageId;
use protocol::reason::{CloseReason, DropReason};

use super::*;

/// Bytes that may wait for the game; from a half on credit is given again.
const QUEUE_BYTES: usize = 100_000;

fn world() -> World {
    let mut small = config();
    small.uplink_queue_bytes_max = QUEUE_BYTES;
    World::new(small)
}

/// Sends requests of 1,000 bytes until the outbox is full; how many were taken.
fn fill(client: &mut Client) -> usize {
    let payload = [7; 1_000];
    (0..)
        .find(|_| client.request(GROUP, MessageId(1), &payload) == Err(SendError::OutboxFull))
        .expect("an outbox has a bound")
}

/// Requests that have reached the game since the last call.
fn requests(world: &mut World) -> usize {
    let arrived = world.game.drain(..);
    let is_request = |body: &[u8]| {
        matches!(Body::decode(body), Ok(Body::Message { header, .. })
            if header.kind == MessageKind::Request)
    };
    arrived
        .filter(|(_, _, record)| is_request(&record[12..]))
        .count()
}

#[test]
fn who_sends_to_a_full_queue_waits_for_credit_and_loses_nothing() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    requests(&mut world);

    world.shard.handle_uplink_queued(GAME, QUEUE_BYTES + 1);
    client
        .request(GROUP, MessageId(1), b"the last")
        .expect("room");
    world.exchange(id, &mut client);
    assert_eq!(requests(&mut world), 1, "what came is not lost");
    let wanted = fill(&mut client);
    world.exchange(id, &mut client);
    assert_eq!(requests(&mut world), 0);
    let lane = Lane::Unreliable;
    let sent = client.send(
        world.now.time,
        lane,
        GROUP,
        MessageId(1),
        b"x",
        &mut world.shared,
    );
    assert_eq!(sent, Err(SendError::Busy));

    // Not read, but it is: a PING is answered, and nobody takes it for silent.
    assert!(!world.actions.contains(&Action::Pause(id)));
    world.shard.handle_uplink_queued(GAME, QUEUE_BYTES / 2 + 1);
    world.pass(10_000);
    world.exchange(id, &mut client);
    assert_eq!(requests(&mut world), 0, "not yet at a half");

    world.shard.handle_uplink_queued(GAME, QUEUE_BYTES / 2);
    let mut arrived = 0;
    for _ in 0..wanted {
        world.collect();
        world.exchange(id, &mut client);
        arrived += requests(&mut world);
        world.pass(100);
    }
    assert_eq!(arrived, wanted);
    assert_eq!(world.shard.counters.uplink_pauses.value(), 0);
}

#[test]
fn a_queue_of_many_is_served_in_turn_and_no_faster_than_it_empties() {
    let mut world = world();
    let mut clients: Vec<_> = (0..40).map(|index| world.login(index)).collect();
    world.shard.handle_uplink_queued(GAME, QUEUE_BYTES + 1);
    for (id, client) in &mut clients {
        world.sync(*id, client);
        fill(client);
        world.exchange(*id, client);
    }
    requests(&mut world);
    world.shard.handle_uplink_queued(GAME, 0);
    world.sent.clear();
    // Half a queue that has not come: seven of 8 KiB, and again when that is 100 ms old.
    for some in clients.chunks(7).take(5) {
        world.collect();
        let served: Vec<_> = world.sent.drain(..).map(|(id, _)| id).collect();
        let in_turn: Vec<_> = some.iter().map(|(id, _)| *id).collect();
        assert_eq!(served, in_turn);
        world.collect();
        assert!(world.sent.is_empty());
        world.now.time = world.now.time.after_ms(100);
    }
    // What has come makes room at once.
    let (id, client) = &mut clients[0];
    let told = world.shard.counters.credits_told.value();
    world.collect();
    world.exchange(*id, client);
    assert!(world.shard.counters.credits_told.value() > told);
}

#[test]
fn who_ignores_its_credit_is_not_read_and_nobody_else_is_slowed() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    let (honest_id, mut honest) = world.login(1);
    world.sync(id, &mut client);
    world.sync(honest_id, &mut honest);
    world.shard.handle_uplink_queued(GAME, QUEUE_BYTES + 1);
    // Everything is on its way before it can have heard of it.
    fill(&mut client);
    let mut out = Vec::new();
    while client.poll_transmit(world.now.time, &mut world.shared, &mut out) {}
    world.shard.handle_received(world.now, id, &mut out);
    world.collect();
    assert!(world.actions.contains(&Action::Pause(id)));
    assert!(!world.actions.contains(&Action::Pause(honest_id)));
    // Its silence says nothing about it.
    for _ in 0..10 {
        world.pass(10_000);
        honest.handle_timeout(world.now.time, &mut |_| {});
        world.exchange(honest_id, &mut honest);
    }
    assert_eq!(world.shard.sessions(), 2);
    world.shard.handle_uplink_queued(GAME, 0);
    world.pass(100);
    assert!(world.actions.contains(&Action::Resume(id)));
    for _ in 0..7 {
        world.pass(10_000);
        honest.handle_timeout(world.now.time, &mut |_| {});
        world.exchange(honest_id, &mut honest);
    }
    assert_eq!(world.shard.counters.closes(CloseReason::IdleTimeout), 1);
}

#[test]
fn what_may_be_lost_is_lost_beyond_the_credit() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    world.shard.handle_uplink_queued(GAME, QUEUE_BYTES + 1);
    let mut out = Vec::new();
    for _ in 0..3 {
        let lane = Lane::Unreliable;
        client
            .send(
                world.now.time,
                lane,
                GROUP,
                MessageId(1),
                b"x",
                &mut world.shared,
            )
            .expect("nothing was said yet");
    }
    client.poll_transmit(world.now.time, &mut world.shared, &mut out);
    world.shard.handle_received(world.now, id, &mut out);
    assert_eq!(world.shard.counters.drops(DropReason::UplinkFull), 2);
}

#[test]
fn a_line_forgets_who_has_gone() {
    let mut world = world();
    world.shard.handle_uplink_queued(GAME, QUEUE_BYTES + 1);
    for index in 0..100 {
        let (id, mut client) = world.login(index);
        world.sync(id, &mut client);
        client.request(GROUP, MessageId(1), b"x").expect("room");
        world.exchange(id, &mut client);
        world.shard.handle_closed(world.now, id);
    }
    assert!(world.shard.uplinks[GAME].line.len() <= 3);
}
