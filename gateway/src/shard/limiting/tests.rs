//! Limits of networks and accounts in a shard, in virtual time. Floods over real sockets are
//! in `cli/tests/it/limits.rs`.

use protocol::body::Lane;
use protocol::client::Client;
use protocol::control::to_backend;
use protocol::ids::{MessageId, SessionId};
use protocol::limits::HELLO_FRAME_BYTES_MAX;

use super::*;
use crate::front::FrontConfig;
use crate::front::trust::Trust;
use crate::limits::{Every, Limited, Limits};
use crate::shard::ShardConfig;
use crate::shard::tests::world::World;
use crate::shard::tests::{config, rate};
use crate::testing::{self, GROUP};

/// One a second, two at once.
const ONE: Every = Every {
    us: 1_000_000,
    burst: 2,
};

fn world(limits: Limits) -> World {
    World::new(ShardConfig { limits, ..config() })
}

fn peer(third: u8, host: u8) -> SocketAddr {
    ([192, 0, third, host], 4_000).into()
}

impl World {
    fn accept_from(&mut self, index: u32, from: SocketAddr) -> ConnId {
        let id = ConnId {
            index,
            generation: 0,
        };
        self.shard.handle_accepted(self.now, id, Some(from));
        self.collect();
        id
    }

    fn client(&mut self, index: u32) -> Client {
        let config = testing::client_config(self.token());
        let ephemeral = [index as u8 + 1; 32];
        Client::connect(config, ephemeral, self.now.time).expect("a usable key")
    }

    /// The connections that were closed without a word.
    fn cut_off(&mut self) -> Vec<ConnId> {
        let actions = self.actions.drain(..);
        let closed = actions.filter_map(|action| match action {
            Action::Close(id) => Some(id),
            _ => None,
        });
        closed.collect()
    }

    fn limited(&self, limit: Limited) -> u64 {
        self.shard.counters.times_limited(limit)
    }
}

#[test]
fn a_connection_too_many_is_closed_without_a_word_and_one_that_ends_makes_room() {
    let mut world = world(Limits {
        connections_max: 2,
        connections_penalty: Penalty::Drop,
        ..Limits::default()
    });
    let first = world.accept_from(0, peer(2, 1));
    world.accept_from(1, peer(2, 2));
    let third = world.accept_from(2, peer(2, 3));
    assert_eq!(world.cut_off(), [third]);
    assert!(world.sent.is_empty(), "not a word");
    world.shard.handle_closed(world.now, third);
    assert_eq!(world.limited(Limited::NetworkOpen), 1);
    assert_eq!(world.shard.counters.closes(CloseReason::NetworkLimit), 1);
    // Another network has its own, and the kernel may not say where somebody is.
    world.accept_from(3, peer(3, 1));
    world.accept(4);
    world.shard.handle_closed(world.now, first);
    world.accept_from(5, peer(2, 3));
    assert_eq!(world.cut_off(), []);
}

#[test]
fn with_a_reason_the_client_is_told_to_come_later() {
    let mut world = world(Limits {
        connections: ONE,
        connections_penalty: Penalty::Disconnect,
        ..Limits::default()
    });
    for index in 0..3 {
        world.accept_from(index, peer(2, 1));
    }
    let (to, reject) = world.sent.pop().expect("a REJECT");
    assert_eq!(to.index, 2);
    let mut client = world.client(2);
    let mut events = Vec::new();
    let (mut reject, now, shared) = (reject, world.now.time, &mut world.shared);
    client.handle_received(now, &mut reject, shared, &mut |event| {
        events.push(format!("{event:?}"));
    });
    assert!(events[0].contains("NetworkLimit"), "{events:?}");
    world.pass(1_000);
    world.actions.clear();
    world.accept_from(3, peer(2, 1));
    assert_eq!(world.actions, [], "a second is over");
}

#[test]
fn a_handshake_that_has_to_wait_is_done_when_its_turn_comes() {
    let mut world = world(Limits {
        handshakes: ONE,
        ..Limits::default()
    });
    for index in 0..2 {
        let id = world.accept_from(index, peer(2, 1));
        let mut client = world.client(index);
        world.exchange(id, &mut client);
        assert!(client.session().is_some());
    }
    world.actions.clear();
    let id = world.accept_from(2, peer(2, 1));
    let mut client = world.client(2);
    world.exchange(id, &mut client);
    assert_eq!(world.actions, [Action::Pause(id)]);
    assert_eq!(world.shard.counters.handshakes.value(), 2);
    world.pass(999);
    assert!(world.exchange(id, &mut client).is_empty());
    world.pass(1);
    assert_eq!(world.actions, [Action::Pause(id), Action::Resume(id)]);
    world.exchange(id, &mut client);
    assert!(client.session().is_some(), "it is in");
    assert_eq!(world.limited(Limited::NetworkHandshakes), 1);
}

#[test]
fn a_connection_that_has_to_wait_gets_its_handshake_then() {
    let mut world = world(Limits {
        connections: ONE,
        ..Limits::default()
    });
    for index in 0..2 {
        world.accept_from(index, peer(2, 1));
    }
    let id = world.accept_from(2, peer(2, 1));
    // What it has sent at once is there before the pause is.
    let mut client = world.client(2);
    world.exchange(id, &mut client);
    assert_eq!(world.shard.counters.handshakes.value(), 0);
    // More than one frame of it is not kept.
    let mut more = vec![0; HELLO_FRAME_BYTES_MAX];
    more[..3].copy_from_slice(&(HELLO_FRAME_BYTES_MAX as u32).to_le_bytes()[..3]);
    let fourth = world.accept_from(3, peer(2, 1));
    let mut greedy = world.client(3);
    world.exchange(fourth, &mut greedy);
    world.shard.handle_received(world.now, fourth, &mut more);
    assert_eq!(world.shard.counters.closes(CloseReason::BadHandshake), 1);
    world.pass(1_000);
    world.exchange(id, &mut client);
    assert!(client.session().is_some(), "it is in");
}

#[test]
fn a_resume_is_a_handshake_of_its_network_too() {
    let mut world = World::new(ShardConfig {
        limits: Limits {
            handshakes: ONE,
            handshakes_penalty: Penalty::Disconnect,
            ..Limits::default()
        },
        resume_ms: 60_000,
        ..config()
    });
    let mut client = world.client(0);
    let mut id = world.accept_from(0, peer(2, 1));
    world.exchange(id, &mut client);
    for index in 1..3 {
        client.handle_disconnected(&mut |_| {});
        world.shard.handle_closed(world.now, id);
        id = world.accept_from(index, peer(2, 1));
        client
            .resume([index as u8 + 50; 32], world.now.time)
            .expect("a way back");
        world.exchange(id, &mut client);
    }
    assert_eq!(world.shard.counters.resumes.value(), 1);
    assert_eq!(world.shard.counters.closes(CloseReason::NetworkLimit), 1);
    assert_eq!(world.shard.parked(), 1, "and the session waits");
}

#[test]
fn behind_a_balancer_the_clients_are_counted_and_not_the_balancer() {
    let mut world = World::new(ShardConfig {
        limits: Limits {
            connections_max: 1,
            connections_penalty: Penalty::Drop,
            ..Limits::default()
        },
        front: FrontConfig {
            proxy_required: true,
            trusted: Trust::new(vec!["10.0.0.0/8".parse().expect("a network")]),
            ..FrontConfig::default()
        },
        ..config()
    });
    let balancer = ([10, 0, 0, 1], 9_000).into();
    let ids: Vec<_> = (0..4)
        .map(|index| world.accept_from(index, balancer))
        .collect();
    assert_eq!(world.cut_off(), []);
    for (id, client) in ids.iter().zip(["192.0.2.1", "192.0.3.1", "192.0.2.2"]) {
        let mut header = format!("PROXY TCP4 {client} 10.0.0.1 4000 7000\r\n").into_bytes();
        world.shard.handle_received(world.now, *id, &mut header);
        world.collect();
    }
    assert_eq!(world.cut_off(), [ids[2]]);
    assert_eq!(world.limited(Limited::NetworkOpen), 1);
}

#[test]
fn an_account_that_logs_in_too_often_is_told_or_waits() {
    for penalty in [Penalty::Disconnect, Penalty::Drop, Penalty::Delay] {
        let mut world = world(Limits {
            logins: ONE,
            logins_penalty: penalty,
            ..Limits::default()
        });
        let mut events = Vec::new();
        let mut waiting = None;
        for index in 0..3 {
            let id = world.accept_from(index, peer(2, 1));
            let config = testing::client_config(testing::token(7, world.now));
            let ephemeral = [index as u8 + 1; 32];
            let mut client =
                Client::connect(config, ephemeral, world.now.time).expect("a usable key");
            events = world.exchange(id, &mut client);
            if index < 2 {
                assert!(client.session().is_some(), "{events:?}");
                world.shard.handle_closed(world.now, id);
            } else {
                waiting = Some((id, client));
            }
        }
        let (id, mut client) = waiting.expect("the third");
        assert!(client.session().is_none());
        assert_eq!(world.limited(Limited::AccountLogins), 1);
        let closes = world.shard.counters.closes(CloseReason::AccountLimit);
        match penalty {
            Penalty::Disconnect => assert!(events[0].contains("AccountLimit"), "{events:?}"),
            Penalty::Drop => assert!(events.is_empty(), "{events:?}"),
            Penalty::Delay => {
                assert_eq!(closes, 0);
                assert!(!world.center.iter().any(is_claim), "center is not asked");
                world.pass(1_000);
                world.exchange(id, &mut client);
                assert!(client.session().is_some(), "its turn has come");
                continue;
            }
        }
        assert_eq!(closes, 1);
    }
}

fn is_claim(message: &to_backend::Message) -> bool {
    matches!(message, to_backend::Message::Claim(_))
}

#[test]
fn a_session_that_resumes_has_no_fresh_burst() {
    let mut world = World::new(ShardConfig {
        frames: rate(10, 100),
        bytes: testing::RATE_OFF,
        resume_ms: 60_000,
        ..config()
    });
    let (mut id, mut client) = world.login(0);
    let session: SessionId = client.session().expect("logged in");
    let mut sent = 0;
    for index in 1..10 {
        world.sync(id, &mut client);
        // Forty messages, and the frames of the way back, each time at once.
        for _ in 0..40 {
            let (now, shared) = (world.now.time, &mut world.shared);
            client
                .send(now, Lane::Unreliable, GROUP, MessageId(1), b"x", shared)
                .expect("room");
            world.exchange(id, &mut client);
            sent += 1;
        }
        if world.shard.counters.rate_pauses.value() > 0 {
            break;
        }
        client.handle_disconnected(&mut |_| {});
        // Once a shard has heard of the loss, once it has not.
        if index % 2 == 0 {
            world.shard.handle_closed(world.now, id);
        }
        let (back, events) = world.come_back(index, &mut client);
        assert_eq!(client.session(), Some(session), "{events:?}");
        id = back;
    }
    assert!(sent <= 120, "{sent} frames before it was slowed down");
}

#[test]
fn above_its_rate_a_client_is_slowed_down_or_loses_what_may_be_lost_or_is_closed() {
    for penalty in [Penalty::Delay, Penalty::Drop, Penalty::Disconnect] {
        let mut world = World::new(ShardConfig {
            limits: Limits {
                rate_penalty: penalty,
                ..Limits::default()
            },
            frames: rate(10, 20),
            bytes: testing::RATE_OFF,
            ..config()
        });
        let (id, mut client) = world.login(0);
        world.sync(id, &mut client);
        let (now, shared) = (world.now.time, &mut world.shared);
        for _ in 0..30 {
            client
                .send(now, Lane::Unreliable, GROUP, MessageId(1), b"x", shared)
                .expect("room");
        }
        world.exchange(id, &mut client);
        let counters = world.shard.counters.clone();
        let lost = counters.drops(DropReason::RateUnreliable);
        let paused = counters.rate_pauses.value();
        let closed = counters.closes(CloseReason::RateExceeded);
        match penalty {
            Penalty::Delay => assert!(lost > 10 && paused == 1 && closed == 0),
            Penalty::Drop => {
                assert!(lost > 10 && paused == 0 && closed == 0);
                // What must not be lost waits, as ever.
                let (now, shared) = (world.now.time, &mut world.shared);
                client
                    .send(now, Lane::Reliable, GROUP, MessageId(1), b"x", shared)
                    .expect("room");
                world.exchange(id, &mut client);
                assert_eq!(counters.rate_pauses.value(), 1);
                assert_eq!(counters.drops(DropReason::RateUnreliable), lost);
            }
            Penalty::Disconnect => assert!(paused == 0 && closed == 1),
        }
    }
}
