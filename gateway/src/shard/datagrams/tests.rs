//! A shard and the protocol's own clients over datagrams, in virtual time. Losses, moves and
//! whole clusters are tested over real sockets (`cli/tests/it/datagrams.rs`).

use protocol::body::Lane;
use protocol::client::{Client, Closed};
use protocol::handshake::Initiator;
use protocol::ids::{MessageId, SessionId};

use super::*;
use crate::limits::{Every, Limits};
use crate::shard::ShardConfig;
use crate::shard::tests::world::World;
use crate::shard::tests::{config, push};
use crate::testing::{self, GROUP};

const FIRST: u32 = 100;

fn world(connections_max: u32) -> World {
    World::new(ShardConfig {
        datagrams: Some(DatagramConfig {
            cookie_secret: [7; 32],
            first_index: FIRST,
            connections_max,
        }),
        ..config()
    })
}

fn address(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

/// What the shard wants to send: where to, and each datagram.
fn sent(world: &mut World) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    let mut out = Vec::new();
    while let Some((to, segment)) = world.shard.poll_datagrams(world.now, &mut out) {
        all.extend(out.chunks(segment).map(|datagram| (to, datagram.to_vec())));
        out.clear();
    }
    all
}

/// A client and where it is.
struct Peer {
    client: Client,
    address: SocketAddr,
    /// Datagrams to the gateway and from it.
    counts: (u64, u64),
    recorded: Vec<Vec<u8>>,
}

impl Peer {
    fn new(world: &mut World, port: u16) -> Self {
        let config = testing::client_config(world.token());
        let ephemeral = [port as u8 + 1; 32];
        let client = Client::connect_datagrams(config, ephemeral, world.now.time);
        Self {
            client: client.expect("a usable key"),
            address: address(port),
            counts: (0, 0),
            recorded: Vec::new(),
        }
    }

    /// One that is logged in and whose group is up.
    fn login(world: &mut World, port: u16) -> (Self, SessionId) {
        let mut peer = Self::new(world, port);
        peer.exchange(world);
        let session = peer.client.session().expect("logged in");
        let mut end = protocol::stream::StreamEnd::backend(GROUP, protocol::ids::Incarnation(5));
        end.attach();
        let sync = end.poll_sync().expect("attached");
        world.backend_sends(session, &Body::Sync(sync));
        peer.exchange(world);
        assert!(peer.client.is_group_up(GROUP));
        world.game.clear();
        (peer, session)
    }

    /// Until both are silent; what the client was told.
    fn exchange(&mut self, world: &mut World) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let now = world.now;
            let mut moved = false;
            let mut out = Vec::new();
            while self
                .client
                .poll_transmit(now.time, &mut world.shared, &mut out)
            {
                let mut datagram = std::mem::take(&mut out);
                self.recorded.push(datagram.clone());
                self.counts.0 += 1;
                moved = true;
                let from = self.address;
                world.shard.handle_datagram(now, from, &mut datagram);
            }
            world.collect();
            for (to, mut datagram) in sent(world) {
                assert_eq!(to, self.address);
                self.counts.1 += 1;
                moved = true;
                let shared = &mut world.shared;
                self.client
                    .handle_received(now.time, &mut datagram, shared, &mut |event| {
                        events.push(format!("{event:?}"));
                    });
            }
            if !moved {
                return events;
            }
        }
    }

    fn pass(&mut self, world: &mut World, ms: u64) -> Vec<String> {
        world.pass(ms);
        let mut events = Vec::new();
        self.client.handle_timeout(world.now.time, &mut |event| {
            events.push(format!("{event:?}"));
        });
        events.extend(self.exchange(world));
        events
    }
}

fn side(world: &World) -> &DatagramSide {
    world.shard.datagrams.as_deref().expect("datagrams")
}

#[test]
fn who_floods_with_inits_gets_less_than_he_sends_and_leaves_nothing() {
    let mut world = world(10);
    let key = *world.shard.config.key.public();
    let (mut received, mut answered) = (0, 0);
    for port in 1..=2_000 {
        let mut hello = Vec::new();
        Initiator::hello(&key, [port as u8 | 1; 32], 0, &mut hello).expect("a usable key");
        let mut init = Vec::new();
        // Every other one has a cookie of its own making.
        let cookie = [(port % 2) as u8 * 9; COOKIE_BYTES];
        let setup = Setup::Init {
            cookie: &cookie,
            hello: &hello,
        };
        hello::encode(u64::from(port), &setup, &mut init);
        received += init.len();
        world
            .shard
            .handle_datagram(world.now, address(port), &mut init);
        for (to, answer) in sent(&mut world) {
            assert_eq!(to, address(port));
            answered += answer.len();
        }
    }
    assert_eq!((received, answered), (2_000 * 1_200, 2_000 * 32));
    assert_eq!(world.shard.counters.drops(DropReason::BadCookie), 1_000);
    let side = side(&world);
    assert_eq!((side.cids.capacity(), side.inits.capacity()), (0, 0));
    assert_eq!((side.used, side.to_send.capacity()), (0, 0));
    assert_eq!(world.shard.connections.capacity(), 0);
    assert_eq!(world.shard.connections(), 0);
}

#[test]
fn a_round_trip_is_one_datagram_each_way_and_a_late_acknowledgement() {
    let mut world = world(10);
    let (mut peer, session) = Peer::login(&mut world, 1);
    peer.pass(&mut world, 30);
    let before = peer.counts;
    for number in 1..=20 {
        peer.client
            .request(GROUP, MessageId(1), b"a question")
            .expect("room");
        peer.exchange(&mut world);
        world.backend_sends(session, &push(b"an answer", Lane::Reliable, number));
        peer.exchange(&mut world);
    }
    // Each acknowledgement rode on what left anyway.
    assert_eq!(
        (peer.counts.0 - before.0, peer.counts.1 - before.1),
        (20, 20)
    );
    peer.pass(&mut world, 30);
    assert_eq!(
        (peer.counts.0 - before.0, peer.counts.1 - before.1),
        (21, 20)
    );
    assert_eq!(world.shard.counters.segments_resent.value(), 0);
}

#[test]
fn what_waits_for_one_client_leaves_in_few_runs_of_equal_datagrams() {
    let mut world = world(10);
    let (mut peer, session) = Peer::login(&mut world, 1);
    // What was owed to the client has left: an acknowledgement would make the first longer.
    peer.pass(&mut world, 30);
    // Random, so that it does not shrink.
    let mut state = 1_u32;
    let payload: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(9_000)
    .collect();
    world.backend_sends(session, &push(&payload, Lane::Reliable, 1));
    let mut out = Vec::new();
    let run = world.shard.poll_datagrams(world.now, &mut out);
    let (_, segment) = run.expect("a run");
    let lengths: Vec<usize> = out.chunks(segment).map(<[u8]>::len).collect();
    assert!(lengths.len() > 4, "{lengths:?}");
    assert!(
        lengths
            .iter()
            .rev()
            .skip(1)
            .all(|length| *length == segment)
    );
    for datagram in out.chunks_mut(segment) {
        let (now, shared) = (world.now.time, &mut world.shared);
        peer.client
            .handle_received(now, datagram, shared, &mut |_| {});
    }
    peer.exchange(&mut world);
    assert_eq!(world.shard.counters.segments_resent.value(), 0);
}

#[test]
fn recorded_datagrams_are_dropped_and_counted_wherever_they_come_from() {
    let mut world = world(10);
    let (mut peer, session) = Peer::login(&mut world, 1);
    for number in 1..=5 {
        let shared = &mut world.shared;
        peer.client
            .send(
                world.now.time,
                Lane::Unreliable,
                GROUP,
                MessageId(1),
                b"x",
                shared,
            )
            .expect("up");
        world.backend_sends(session, &push(b"y", Lane::Sequenced, number));
        peer.exchange(&mut world);
    }
    let forwarded = world.game.len();
    let sealed = peer.recorded.iter().filter(|datagram| datagram[0] != SETUP);
    let sealed: Vec<Vec<u8>> = sealed.cloned().collect();
    for datagram in &sealed {
        for from in [peer.address, address(99)] {
            let mut copy = datagram.clone();
            world.shard.handle_datagram(world.now, from, &mut copy);
        }
    }
    world.collect();
    let repeated = world.shard.counters.drops(DropReason::DatagramRepeated);
    assert_eq!(repeated, 2 * sealed.len() as u64);
    assert_eq!(world.game.len(), forwarded);
    assert!(sent(&mut world).is_empty());
}

#[test]
fn who_goes_on_far_above_its_rate_is_closed_once_and_the_rest_is_counted() {
    let mut world = world(10);
    let (mut peer, _) = Peer::login(&mut world, 1);
    let drops = |world: &World| {
        let all = DropReason::ALL.iter();
        all.map(|&reason| world.shard.counters.drops(reason)).sum()
    };
    let taken = |world: &World| {
        let counters = &world.shard.counters;
        (counters.frames_received.value(), counters.forwarded.value())
    };
    let (before, dropped): (_, u64) = (taken(&world), drops(&world));
    // The burst of 1,200, as much again in debt, and what is far above.
    let (sends, mut datagram) = (2_600, Vec::new());
    for _ in 0..sends {
        let (now, shared) = (world.now.time, &mut world.shared);
        peer.client
            .send(now, Lane::Unreliable, GROUP, MessageId(1), b"x", shared)
            .expect("up");
        peer.client.poll_transmit(now, shared, &mut datagram);
        let from = peer.address;
        world.shard.handle_datagram(world.now, from, &mut datagram);
        datagram.clear();
        world.collect();
    }
    let counters = &world.shard.counters;
    assert_eq!(counters.closes(CloseReason::RateExceeded), 1);
    let after = counters.drops(DropReason::AfterClose);
    assert!(after > 100, "{after} after the close");
    let (received, forwarded) = taken(&world);
    let (received, forwarded) = (received - before.0, forwarded - before.1);
    let limited = counters.drops(DropReason::RateDatagram);
    assert_eq!(drops(&world) - dropped, limited + after);
    assert_eq!(forwarded + limited + after + 1, sends);
    assert_eq!(received, forwarded + limited);
}

#[test]
fn an_accept_that_got_lost_comes_again_until_the_client_has_spoken() {
    let mut world = world(10);
    let mut peer = Peer::new(&mut world, 1);
    let init = |peer: &mut Peer, world: &mut World| {
        let mut out = Vec::new();
        let now = world.now.time;
        peer.client
            .poll_transmit(now, &mut world.shared, &mut out)
            .then_some(out)
    };
    let mut first = init(&mut peer, &mut world).expect("INIT");
    world
        .shard
        .handle_datagram(world.now, peer.address, &mut first);
    let (_, mut retry) = sent(&mut world).pop().expect("RETRY");
    let now = world.now.time;
    peer.client
        .handle_received(now, &mut retry, &mut world.shared, &mut |_| {});
    let with_cookie = init(&mut peer, &mut world).expect("INIT");
    let again = |world: &mut World| {
        let mut copy = with_cookie.clone();
        world
            .shard
            .handle_datagram(world.now, address(1), &mut copy);
        sent(world)
    };
    let accepts = again(&mut world);
    assert_eq!(again(&mut world), accepts, "the same");
    assert_eq!(world.shard.connections(), 1);
    let (_, mut accept) = accepts.into_iter().next().expect("ACCEPT");
    peer.client
        .handle_received(now, &mut accept, &mut world.shared, &mut |_| {});
    let mut login = init(&mut peer, &mut world).expect("LOGIN");
    world
        .shard
        .handle_datagram(world.now, peer.address, &mut login);
    // Its claim is at center; the INIT that comes late is its own.
    assert!(again(&mut world).is_empty());
    let repeated = world.shard.counters.drops(DropReason::InitRepeated);
    assert_eq!((repeated, world.shard.connections()), (1, 1));
    world.collect();
    assert_eq!(world.shard.sessions(), 1);
}

#[test]
fn ids_are_given_again_with_another_generation_and_no_more_than_there_are() {
    let mut world = world(1);
    let (mut first, _) = Peer::login(&mut world, 1);
    let mut second = Peer::new(&mut world, 2);
    let events = second.exchange(&mut world);
    assert!(events[0].contains("Full"), "{events:?}");
    first.client.logout(world.now.time);
    first.exchange(&mut world);
    first.pass(&mut world, 3_100);
    assert_eq!(world.shard.connections(), 0);
    assert!(side(&world).cids.is_empty() && side(&world).inits.is_empty());
    let third = Peer::login(&mut world, 3);
    assert!(third.0.client.session().is_some());
    let id = *side(&world).cids.values().next().expect("one");
    assert_eq!((id.index, id.generation), (FIRST, 1));
}

#[test]
fn who_logs_out_from_a_new_address_hears_of_it_there() {
    let mut world = world(10);
    let (mut peer, _) = Peer::login(&mut world, 1);
    // The LOGOUT is the first that comes from there, and too short to pay for its answer.
    peer.address = address(2);
    peer.client.logout(world.now.time);
    let mut events = peer.exchange(&mut world);
    for _ in 0..10 {
        events.extend(peer.pass(&mut world, 50));
    }
    let closed = format!("{:?}", Closed::ByGateway(Some(CloseReason::LoggedOut)));
    assert!(
        events.iter().any(|event| event.contains(&closed)),
        "{events:?}"
    );
    assert!(peer.counts.1 < 100, "{:?}", peer.counts);
    peer.pass(&mut world, 3_000);
    assert_eq!(world.shard.connections.iter().flatten().count(), 0);
}

#[test]
fn an_init_above_a_limit_of_its_network_is_lost_or_told_and_leaves_nothing() {
    for penalty in [Penalty::Drop, Penalty::Disconnect] {
        let mut world = world(10);
        world.shard.config.limits = Limits {
            connections_max: 2,
            connections_penalty: penalty,
            ..Limits::default()
        };
        for port in 0..2 {
            Peer::login(&mut world, port);
        }
        let mut third = Peer::new(&mut world, 2);
        let events = third.exchange(&mut world);
        assert_eq!(world.shard.connections(), 2);
        let counters = world.shard.counters.clone();
        let lost = counters.drops(DropReason::NetworkInit);
        let refused = counters.closes(CloseReason::NetworkLimit);
        match penalty {
            Penalty::Drop => assert_eq!((lost, refused, events.len()), (1, 0, 0)),
            _ => {
                assert_eq!((lost, refused), (0, 1));
                assert!(events[0].contains("NetworkLimit"), "{events:?}");
            }
        }
        // A place that gets free is theirs.
        let first = world.shard.connections.iter().flatten().next();
        let first = first.map(|connection| connection.id).expect("one");
        world.shard.close(world.now, first, CloseReason::Kicked);
        world.pass(4_000);
        sent(&mut world);
        Peer::login(&mut world, 3);
    }
}

#[test]
fn an_init_that_would_have_to_wait_comes_again_by_itself() {
    let mut world = world(10);
    world.shard.config.limits = Limits {
        handshakes: Every {
            us: 1_000_000,
            burst: 1,
        },
        ..Limits::default()
    };
    Peer::login(&mut world, 0);
    let mut second = Peer::new(&mut world, 1);
    second.exchange(&mut world);
    assert!(second.client.session().is_none());
    assert_eq!(world.shard.counters.drops(DropReason::NetworkInit), 1);
    for _ in 0..100 {
        world.pass(100);
        // What the first one would be sent.
        sent(&mut world);
        second.pass(&mut world, 0);
        if second.client.session().is_some() {
            return;
        }
    }
    panic!("it never got in");
}
