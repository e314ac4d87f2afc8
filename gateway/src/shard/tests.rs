//! The core against the protocol's own client, with a center and one backend
//! played by the test.

mod bans;
mod corks;
mod credits;
mod moves;
mod quality;
mod queue;
mod resumes;
pub(super) mod world;

use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::cipher::{Opener, Sealer};
use protocol::client::{Closed, Event};
use protocol::control::{self, to_backend, to_shard};
use protocol::handshake::Initiator;
use protocol::ids::MessageId;
use protocol::quality::Ping;
use protocol::reason::DropReason;
use protocol::stream::{Delivery, OutboxLimits};
use protocol::uplink;

use self::world::World;
use super::*;
use crate::testing::{self, GAME, GROUP};

pub(super) fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

pub(super) fn config() -> ShardConfig {
    ShardConfig {
        frames: rate(200, 1_200),
        bytes: rate(262_144, 524_288),
        uplink_queue_bytes_max: 1 << 20,
        ..testing::shard_config(100)
    }
}

pub(super) fn push(payload: &[u8], lane: Lane, number: u32) -> Body<'_> {
    let header = MessageHeader {
        kind: MessageKind::Message,
        lane,
        more: false,
        group: GROUP,
        number,
        ack: 0,
        message: MessageId(1),
        request: 0,
    };
    Body::Message { header, payload }
}

#[test]
fn a_request_reaches_the_backend_and_its_reply_the_client() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    let session = client.session().expect("logged in");
    assert_eq!(world.game.remove(0).1, 2, "OPEN comes first");
    let mut end = world.sync(id, &mut client);
    for payload in [vec![1, 2, 3], vec![7; 2_000]] {
        let request = client.request(GROUP, MessageId(4), &payload).expect("room");
        world.exchange(id, &mut client);
        let (from, _, record) = world.game.pop().expect("the request");
        assert_eq!(from, session);
        let body = &record[uplink::RECORD_HEADER_BYTES..];
        let Ok(Body::Message {
            header,
            payload: arrived,
        }) = Body::decode(body)
        else {
            panic!("not a message")
        };
        assert_eq!(
            (header.request, arrived),
            (request, &payload[..]),
            "decompressed on the way"
        );
        assert_eq!(
            end.handle_message(header.number, header.ack, world.now.time),
            Delivery::Deliver
        );
        let reply = MessageHeader {
            kind: MessageKind::Reply,
            ..header
        };
        end.push(reply, arrived, OutboxLimits::default())
            .expect("room");
        let message = end.poll_transmit().expect("open").to_vec();
        let mut record = Vec::new();
        uplink::encode_data(session, &mut record, |out| out.extend_from_slice(&message));
        world.shard.handle_uplink_records(world.now, GAME, &record);
        let events = world.exchange(id, &mut client);
        assert!(
            events.iter().any(|event| event.contains("Reply")),
            "{events:?}"
        );
        assert_eq!(
            client.outbox_messages(),
            0,
            "the reply acknowledged the request"
        );
    }
}

#[test]
fn a_group_that_is_down_is_told_once_and_loses_nothing() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    world.shard.handle_uplink_lost(GAME);
    client.request(GROUP, MessageId(1), b"one").expect("room");
    let events = world.exchange(id, &mut client);
    assert!(
        events.iter().any(|event| event.starts_with("GroupDown")),
        "{events:?}"
    );
    client.request(GROUP, MessageId(1), b"two").expect("room");
    assert!(world.exchange(id, &mut client).is_empty());
    assert_eq!(world.shard.counters.drops(DropReason::GroupDown), 1);
    world.game.clear();
    world.link(GAME, u32::from(GROUP.0));
    assert_eq!(world.game.remove(0).1, 2, "the session is opened again");
    world.sync(id, &mut client);
    assert_eq!(client.outbox_messages(), 2);
    let bodies: Vec<_> = world.game.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(bodies, [1, 1], "both messages, again");
}

#[test]
fn what_waits_for_an_uplink_that_dies_is_counted_if_nobody_repeats_it() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    for lane in [Lane::Unreliable, Lane::Sequenced, Lane::Reliable] {
        let shared = &mut world.shared;
        client
            .send(world.now.time, lane, GROUP, MessageId(1), b"x", shared)
            .expect("room");
    }
    let mut frames = Vec::new();
    client.poll_transmit(world.now.time, &mut world.shared, &mut frames);
    world.shard.handle_received(world.now, id, &mut frames);
    // The driver takes nothing of it.
    world.shard.handle_uplink_lost(GAME);
    assert_eq!(world.shard.counters.drops(DropReason::UplinkLost), 2);
    world.link(GAME, u32::from(GROUP.0));
    world.game.clear();
    world.sync(id, &mut client);
    assert_eq!(world.game.len(), 1, "the reliable one comes again");
}

#[test]
fn messages_before_login_are_dropped_and_login_still_works() {
    let mut world = World::new(config());
    let id = world.accept(0);
    let mut hello = Vec::new();
    let key = *world.shard.config.key.public();
    let initiator =
        Initiator::hello(&key, [1; 32], world.now.time.wire_ms(), &mut hello).expect("usable");
    world.shard.handle_received(world.now, id, &mut hello);
    world.collect();
    let (_, welcome) = world.sent.pop().expect("WELCOME");
    let (keys, _) = initiator.welcome(&welcome).expect("ours");
    let mut sealer = Sealer::new(keys.client, world.now.time, RekeyPolicy::default());
    let mut frame = Vec::new();
    sealer.seal(world.now.time, 0, &mut frame, |out| {
        push(b"early", Lane::Reliable, 1).encode(out)
    });
    let token = world.token();
    let login = protocol::body::Login {
        method: 1,
        client_version: 1,
        channel: "",
        device: "",
        credential: token.as_bytes(),
    };
    sealer.seal(world.now.time, 0, &mut frame, |out| {
        Body::Login(login).encode(out)
    });
    world.shard.handle_received(world.now, id, &mut frame);
    world.collect();
    assert_eq!(world.shard.counters.drops(DropReason::BeforeLogin), 1);
    assert_eq!(world.shard.sessions(), 1);
    let (_, mut frames) = world.sent.pop().expect("LOGIN_OK");
    let mut opener = Opener::new(keys.gateway);
    let header = protocol::frame::Header::decode(&frames).expect("whole");
    let body = opener
        .open(&header, &mut frames[..header.length as usize])
        .expect("sealed for us");
    assert!(matches!(Body::decode(body), Ok(Body::LoginOk { .. })));
}

#[test]
fn deadlines_close_who_is_silent() {
    let mut world = World::new(config());
    world.accept(0);
    let (id, mut client) = world.login(1);
    world.pass(5_100);
    assert_eq!(
        world.shard.counters.closes(CloseReason::HandshakeTimeout),
        1
    );
    assert!(world.actions.contains(&Action::Close(ConnId {
        index: 0,
        generation: 0
    })));
    world.pass(30_000);
    assert_eq!(world.shard.counters.closes(CloseReason::IdleTimeout), 1);
    let events = world.exchange(id, &mut client);
    let told = format!(
        "{:?}",
        Event::Closed(Closed::ByGateway(Some(CloseReason::IdleTimeout)))
    );
    assert_eq!(events, [told]);
    assert_eq!(world.shard.sessions(), 0);
    assert!(
        world
            .center
            .iter()
            .any(|message| matches!(message, to_backend::Message::Release(_)))
    );
}

#[test]
fn a_client_that_pings_keeps_its_session() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    for _ in 0..10 {
        world.pass(10_000);
        client.handle_timeout(world.now.time, &mut |_| {});
        let sent = world.shard.counters.frames_sent.value();
        assert_eq!(world.exchange(id, &mut client), [""; 0]);
        assert_eq!(world.shard.counters.frames_sent.value(), sent + 1, "a PONG");
    }
    assert_eq!(world.shard.sessions(), 1);
}

#[test]
fn a_client_that_only_listens_is_asked_and_may_stay() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    for _ in 0..30 {
        // The client's own timers never fire; it answers what it is asked.
        world.pass(4_000);
        world.exchange(id, &mut client);
    }
    assert_eq!(world.shard.sessions(), 1);
    for _ in 0..8 {
        world.pass(4_000);
    }
    assert_eq!(world.shard.counters.closes(CloseReason::IdleTimeout), 1);
}

#[test]
fn a_lease_that_is_not_renewed_ends_all_sessions() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    world.shard.handle_uplink_lost(0);
    world.pass(14_000);
    client.handle_timeout(world.now.time, &mut |_| {});
    world.exchange(id, &mut client);
    assert_eq!(world.shard.sessions(), 1, "center may be away for a lease");
    world.pass(2_000);
    assert_eq!(world.shard.counters.closes(CloseReason::LeaseLost), 1);
    assert_eq!(world.shard.sessions(), 0);
}

#[test]
fn reading_pauses_above_the_rate_and_ends_far_above() {
    let mut limited = config();
    limited.frames = rate(10, 20);
    let mut world = World::new(limited);
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    let mut flood = |world: &mut World, messages: u32| {
        for _ in 0..messages {
            client
                .send(
                    world.now.time,
                    Lane::Reliable,
                    GROUP,
                    MessageId(1),
                    b"x",
                    &mut world.shared,
                )
                .expect("room");
        }
        world.exchange(id, &mut client)
    };
    flood(&mut world, 25);
    assert!(world.actions.contains(&Action::Pause(id)));
    assert_eq!(world.shard.counters.rate_pauses.value(), 1);
    world.pass(2_000);
    assert!(world.actions.contains(&Action::Resume(id)));
    flood(&mut world, 60);
    assert_eq!(world.shard.counters.closes(CloseReason::RateExceeded), 1);
}

#[test]
fn a_client_that_does_not_read_is_closed_at_its_bound() {
    let mut small = config();
    small.send_queue_bytes_max = 10_000;
    let mut world = World::new(small);
    let (id, client) = world.login(0);
    let session = client.session().expect("logged in");
    for number in 0..30 {
        world.backend_sends(session, &push(&[number; 50], Lane::Unreliable, 0));
    }
    // The engine holds what it took and takes no more.
    let (_, held) = world.shard.poll_send().expect("something to send");
    let mut dropped = 0;
    while world.shard.counters.drops(DropReason::SendQueueFull) == 0 {
        world.backend_sends(session, &push(&[1; 900], Lane::Unreliable, 0));
        dropped += 1;
        assert!(dropped < 1_000);
    }
    assert_eq!(world.shard.sessions(), 1, "unreliable frames are dropped");
    // What is reliable has their room, and then none.
    let lost = world.shard.counters.drops(DropReason::SendQueueFull);
    for number in 1..1_000 {
        world.backend_sends(session, &push(&[1; 900], Lane::Reliable, number));
    }
    assert!(world.shard.counters.drops(DropReason::SendQueueFull) > lost);
    assert_eq!(world.shard.counters.closes(CloseReason::SlowConsumer), 1);
    assert_eq!(world.shard.sessions(), 0);
    world.shard.handle_sent(id, held);
    world.collect();
    assert!(world.actions.contains(&Action::Close(id)));
}

#[test]
fn a_reply_to_a_session_that_has_gone_is_counted_and_told() {
    let mut world = World::new(config());
    world.backend_sends(SessionId(4_711), &push(b"late", Lane::Reliable, 1));
    world.collect();
    assert_eq!(world.shard.counters.drops(DropReason::SessionGone), 1);
    let (session, kind, _) = world.game.pop().expect("GONE");
    assert_eq!((session, kind), (SessionId(4_711), 5));
}

#[test]
fn an_uplink_to_the_wrong_group_is_refused() {
    let mut world = World::new(config());
    world.shard.handle_uplink_lost(GAME);
    world.link(GAME, 9);
    assert!(world.actions.contains(&Action::CloseUplink(GAME)));
    assert!(!world.shard.is_ready());
}

#[test]
fn draining_tells_everybody_and_takes_nobody() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    world.shard.handle_drain();
    world.collect();
    let reason = CloseReason::Draining;
    let told = format!("{:?}", Event::Closed(Closed::ByGateway(Some(reason))));
    assert_eq!(world.exchange(id, &mut client), [told]);
    let late = world.accept(1);
    world.collect();
    assert_eq!(world.shard.counters.closes(CloseReason::Draining), 2);
    let (to, bytes) = world.sent.pop().expect("REJECT");
    assert_eq!((to, bytes.len()), (late, 20));
}

#[test]
fn what_a_payload_grows_by_is_charged_to_the_rate() {
    let mut limited = config();
    limited.bytes = rate(65_536, 65_536);
    let mut world = World::new(limited);
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    // 30,000 zeros are some hundred bytes on the wire.
    for _ in 0..6 {
        client
            .request(GROUP, MessageId(1), &[0; 30_000])
            .expect("room");
    }
    world.exchange(id, &mut client);
    assert_eq!(world.shard.counters.closes(CloseReason::RateExceeded), 1);
    let forwarded: usize = world.game.iter().map(|(_, _, record)| record.len()).sum();
    assert!(forwarded < 150_000, "{forwarded}");
}

#[test]
fn a_stranger_that_pings_and_does_not_read_keeps_little() {
    let mut world = World::new(config());
    let id = world.accept(0);
    let key = *world.shard.config.key.public();
    let mut hello = Vec::new();
    let initiator =
        Initiator::hello(&key, [5; 32], world.now.time.wire_ms(), &mut hello).expect("usable");
    world.shard.handle_received(world.now, id, &mut hello);
    // WELCOME stays with the engine: the client reads no more.
    let (_, welcome) = world.shard.poll_send().expect("WELCOME");
    let (keys, _) = initiator.welcome(&welcome).expect("ours");
    // WELCOME stays with the engine: the client reads no more.
    let mut sealer = Sealer::new(keys.client, world.now.time, RekeyPolicy::default());
    for stamp in 0..200 {
        let mut ping = Vec::new();
        sealer.seal(world.now.time, 0, &mut ping, |out| {
            let ping = Ping {
                stamp,
                ..Ping::default()
            };
            Body::Ping(ping).encode(out);
        });
        world.shard.handle_received(world.now, id, &mut ping);
    }
    assert_eq!(world.shard.counters.closes(CloseReason::SlowConsumer), 1);
}

#[test]
fn a_second_hello_and_a_lease_without_length_are_refused() {
    let mut world = World::new(config());
    let refused = |world: &mut World, at: usize| {
        let count = world.actions.len();
        world.collect();
        let new = &world.actions[count..];
        new.contains(&Action::CloseUplink(at))
    };
    let hello = |group, lease_ms| {
        to_shard::Message::Hello(control::BackendHello {
            version: uplink::VERSION,
            instance: "again".into(),
            boot: 1,
            group,
            wants_address: false,
            lease_ms,
            wants_load: false,
        })
    };
    world.control(GAME, hello(1, 0));
    world.control(GAME, hello(1, 0));
    assert!(refused(&mut world, GAME));
    assert!(!refused(&mut world, GAME), "once, whatever still arrives");
    world.shard.handle_uplink_lost(0);
    world.shard.handle_uplink_connected(0);
    world.control(0, hello(0, 1));
    assert!(refused(&mut world, 0));
    assert!(!world.shard.is_ready());
}

#[test]
fn a_kick_counts_only_from_where_the_session_is_bound() {
    let mut world = World::new(config());
    let (_, client) = world.login(0);
    let session = client.session().expect("logged in");
    let mut kick = Vec::new();
    let record = uplink::Record::Kick {
        fence: Fence(session.0),
        reason: CloseReason::Kicked as u16,
    };
    uplink::encode(session, &record, &mut kick);
    world.shard.handle_uplink_records(world.now, 0, &kick);
    assert_eq!(world.shard.sessions(), 1);
    assert_eq!(world.shard.counters.drops(DropReason::WrongGroup), 1);
    world.shard.handle_uplink_records(world.now, GAME, &kick);
    assert_eq!(world.shard.counters.closes(CloseReason::Kicked), 1);
}
