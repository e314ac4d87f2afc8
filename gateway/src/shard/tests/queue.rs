//! Clients that wait in center's queue. Center is the test.

use protocol::client::Client;
use protocol::control::{BackendHello, Placed, Places, ToShard};

use super::*;

fn place(claim: u64, position: u32) -> to_shard::Message {
    to_shard::Message::Places(Places {
        placed: vec![Placed {
            claim,
            place: 70 + claim,
            position,
            seconds: 30,
        }],
        of: 9,
    })
}

/// A world whose center answers no claim, and so many clients that have claimed.
fn waiting(clients: u32) -> (World, Vec<(ConnId, Client)>) {
    let mut config = config();
    config.connections_before_login_max = 2;
    let mut world = World::new(config);
    world.claims_by_hand = true;
    let clients = (0..clients).map(|index| arrive(&mut world, index));
    let clients = clients.collect();
    (world, clients)
}

/// A client that claims, and is told that it is last.
fn arrive(world: &mut World, index: u32) -> (ConnId, Client) {
    let config = testing::client_config(world.token());
    let client = Client::connect(config, [index as u8 + 1; 32], world.now.time);
    let mut client = client.expect("a usable key");
    let id = ConnId {
        index,
        generation: 0,
    };
    world.shard.handle_accepted(world.now, id, None);
    world.exchange(id, &mut client);
    let claim = u64::from(index) + 1;
    world.control(0, place(claim, index + 1));
    let events = world.exchange(id, &mut client);
    assert!(events[0].starts_with("Queued"), "{events:?}");
    (id, client)
}

fn abandoned(world: &mut World) -> Vec<(u64, bool)> {
    let sent = std::mem::take(&mut world.center);
    let abandons = sent.into_iter().filter_map(|message| match message {
        to_backend::Message::Abandon(abandon) => Some((abandon.claim, abandon.given_up)),
        _ => None,
    });
    abandons.collect()
}

#[test]
fn whoever_waits_is_past_login() {
    // More of them than may be before login.
    let (mut world, mut clients) = waiting(5);
    assert_eq!(world.shard.counters.queued.value(), 5);
    assert_eq!(world.shard.before_login(), 0);
    // Far beyond the deadline of login, with heartbeats all the while.
    for _ in 0..12 {
        world.pass(5_000);
        for (id, client) in &mut clients {
            client.handle_timeout(world.now.time, &mut |_| {});
            world.exchange(*id, client);
            assert!(!client.is_closed());
        }
    }
    // Who falls silent is given up as in a session, and may come back to its place.
    let (silent, _) = clients.pop().expect("five");
    world.center.clear();
    for _ in 0..8 {
        world.pass(5_000);
        for (id, client) in &mut clients {
            client.handle_timeout(world.now.time, &mut |_| {});
            world.exchange(*id, client);
        }
    }
    assert_eq!(
        abandoned(&mut world),
        [(u64::from(silent.index) + 1, false)]
    );
    assert_eq!(world.shard.counters.queued.value(), 4);
    // Who logs out gives it up.
    let (id, mut client) = clients.pop().expect("four");
    client.logout(world.now.time);
    world.exchange(id, &mut client);
    assert_eq!(abandoned(&mut world), [(u64::from(id.index) + 1, true)]);
    // And who is let in is in.
    let (id, mut client) = clients.remove(0);
    let granted = control::ClaimGranted {
        claim: 1,
        session: 55,
        fence: 1,
    };
    world.control(0, to_shard::Message::ClaimGranted(granted));
    world.exchange(id, &mut client);
    assert_eq!(client.session().map(|session| session.0), Some(55));
    assert_eq!(world.shard.counters.queued.value(), 2);
    assert_eq!(
        world.shard.before_login(),
        world.shard.connections() - 1 - 2
    );
}

#[test]
fn a_place_is_told_again_to_a_center_that_was_lost() {
    let (mut world, _clients) = waiting(2);
    world.shard.handle_uplink_lost(0);
    world.center.clear();
    world.link(0, 0);
    let places: Vec<(u64, u64)> = world
        .center
        .iter()
        .filter_map(|message| match message {
            to_backend::Message::Claim(claim) => Some((claim.claim, claim.place)),
            _ => None,
        })
        .collect();
    assert_eq!(places, [(1, 71), (2, 72)]);
}

#[test]
fn a_position_that_nobody_reads_is_left_out() {
    let (mut world, clients) = waiting(1);
    let id = clients[0].0;
    for position in 0..200 {
        world.control(0, place(1, position));
    }
    let dropped = world.shard.counters.drops(DropReason::SendQueueFull);
    assert!((150..200).contains(&dropped), "{dropped}");
    let waits = world.shard.connection(id).expect("there").queued_bytes();
    assert!(waits < 1_200, "{waits}");
    // One that has gone meanwhile is nobody's.
    world.control(0, place(99, 1));
    assert_eq!(world.shard.counters.queued.value(), 1);
}

#[test]
fn a_shard_tells_how_busy_it_is_once_a_second() {
    let mut world = World::new(config());
    world.shard.handle_uplink_lost(0);
    world.shard.handle_uplink_connected(0);
    let hello = BackendHello {
        version: uplink::VERSION,
        instance: "center".into(),
        lease_ms: 15_000,
        wants_load: true,
        ..BackendHello::default()
    };
    let hello = ToShard {
        message: Some(to_shard::Message::Hello(hello)),
    };
    let bytes = prost::Message::encode_to_vec(&hello);
    world.shard.handle_uplink_control(world.now, 0, &bytes);
    world.collect();
    world.center.clear();
    let loads = |world: &mut World| {
        let sent = std::mem::take(&mut world.center);
        let loads = sent.into_iter().filter_map(|message| match message {
            to_backend::Message::Load(load) => Some(load.busy_permille),
            _ => None,
        });
        loads.collect::<Vec<_>>()
    };
    world.shard.counters.busy_us.add(250_000);
    world.pass(999);
    assert!(loads(&mut world).is_empty());
    world.pass(1);
    assert_eq!(loads(&mut world), [250]);
    world.pass(1_000);
    assert_eq!(loads(&mut world), [0]);
    // A turn that is counted late is no more than all of the time.
    world.shard.counters.busy_us.add(9_000_000);
    world.pass(1_000);
    assert_eq!(loads(&mut world), [1_000]);
    world.shard.handle_uplink_lost(0);
    world.pass(5_000);
    assert!(loads(&mut world).is_empty());
}
