//! What a client is told when it comes back leaves in one piece, and does not wait for long.

use protocol::client::{Client, Shared};
use protocol::ids::Incarnation;
use protocol::reason::CloseReason;
use protocol::stream::StreamEnd;

use super::super::corks::CORK_US;
use super::resumes::world;
use super::*;

/// A session whose client has sent ATTACH over a new connection and was not answered yet.
fn attached(world: &mut World) -> (ConnId, Client, SessionId) {
    let (old, mut client) = world.login(0);
    let session = client.session().expect("logged in");
    world.cut(old, &mut client, true);
    world.sent.clear();
    let id = world.accept(1);
    client.resume([9; 32], world.now.time).expect("a way back");
    for _ in 0..2 {
        let mut out = Vec::new();
        client.poll_transmit(world.now.time, &mut Shared::default(), &mut out);
        world.shard.handle_received(world.now, id, &mut out);
        world.collect();
        for (_, mut bytes) in world.sent.drain(..) {
            client.handle_received(world.now.time, &mut bytes, &mut world.shared, &mut |_| {});
        }
    }
    assert_eq!(world.shard.counters.resumes.value(), 1);
    (id, client, session)
}

fn hear(world: &mut World, client: &mut Client) -> Vec<String> {
    let mut events = Vec::new();
    for (_, mut bytes) in world.sent.drain(..) {
        let event = &mut |event: protocol::client::Event<'_>| events.push(format!("{event:?}"));
        client.handle_received(world.now.time, &mut bytes, &mut world.shared, event);
    }
    events
}

#[test]
fn a_client_that_comes_back_is_told_everything_in_one_send() {
    let mut world = world();
    let (id, mut client, session) = attached(&mut world);
    let mut end = StreamEnd::backend(GROUP, Incarnation(5));
    end.attach();
    let sync = end.poll_sync().expect("attached");
    world.backend_sends(session, &Body::Sync(sync));
    world.collect();
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.sent[0].0, id);
    let events = hear(&mut world, &mut client);
    let expected = [
        format!("Resumed({session:?})"),
        "RoundTrip(0)".into(),
        format!("GroupUp({GROUP:?})"),
    ];
    assert_eq!(events, expected);
    // What follows waits for nobody.
    world.backend_sends(session, &push(b"more", Lane::Unreliable, 0));
    world.collect();
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.shard.corks.next().map(|_| ()), Some(()));
    world.pass(CORK_US / 1_000);
    assert_eq!(world.sent.len(), 1, "nothing is left to send");
    assert_eq!(world.shard.corks.next(), None);
}

#[test]
fn login_ok_waits_for_no_backend_for_long() {
    let mut world = world();
    let (_, mut client, _) = attached(&mut world);
    assert_eq!(world.sent, []);
    let due = world.shard.corks.next().expect("it waits");
    assert!(world.shard.poll_timeout() <= Some(due));
    world.pass(CORK_US / 1_000 - 1);
    assert_eq!(world.sent, []);
    world.pass(1);
    assert_eq!(world.sent.len(), 1);
    assert!(hear(&mut world, &mut client)[0].starts_with("Resumed"));
}

#[test]
fn where_no_backend_will_say_anything_nobody_waits() {
    let mut world = world();
    world.shard.handle_uplink_lost(GAME);
    world.collect();
    let (_, client, _) = attached(&mut world);
    assert!(client.session().is_some());
    assert_eq!(world.shard.corks.next(), None);
}

#[test]
fn a_connection_that_ends_says_so_at_once() {
    let mut world = world();
    let (id, mut client, session) = attached(&mut world);
    let fence = world.shard.session_here(session).expect("here").fence;
    let reason = CloseReason::Kicked;
    let now = world.now;
    world.shard.close_session(now, session, fence, reason, "");
    world.collect();
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.sent[0].0, id);
    let events = hear(&mut world, &mut client);
    assert!(events[0].starts_with("Resumed"), "{events:?}");
    let last = events.last().expect("two at least");
    assert_eq!(last, "Closed(ByGateway(Some(Kicked)))");
}
