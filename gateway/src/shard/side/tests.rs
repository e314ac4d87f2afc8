//! A shard and the protocol's own client, with a stream and a path of datagrams between them.

use std::net::SocketAddr;

use protocol::body::Lane;
use protocol::cipher::{Key, RekeyPolicy};
use protocol::client::Client;
use protocol::datagram::side::HOLD_MS;
use protocol::ids::MessageId;
use protocol::limits::DATAGRAM_BYTES_MAX;

use super::*;
use crate::engine::ConnId;
use crate::shard::tests::world::World;
use crate::shard::tests::{config, push, rate};
use crate::shard::{DatagramConfig, ShardConfig};
use crate::testing::GROUP;

const MESSAGE: MessageId = MessageId(1);

fn with_datagrams() -> ShardConfig {
    ShardConfig {
        datagrams: Some(DatagramConfig {
            cookie_secret: [7; 32],
            first_index: 1_000,
            connections_max: 10,
        }),
        ..config()
    }
}

/// A client and what lies between it and the shard.
struct Scene {
    world: World,
    id: ConnId,
    client: Client,
    address: SocketAddr,
    /// Nothing comes through, to the gateway and from it.
    blocked: (bool, bool),
    /// Bytes that went to the gateway, and that it sent.
    bytes: (usize, usize),
    /// Datagrams that went to the gateway.
    sent: Vec<Vec<u8>>,
}

impl Scene {
    fn new(config: ShardConfig) -> Self {
        let mut world = World::new(config);
        let (id, mut client) = world.login_as(0, Client::offer_side_path);
        world.sync(id, &mut client);
        world.game.clear();
        Self {
            world,
            id,
            client,
            address: "192.0.2.7:4000".parse().expect("an address"),
            blocked: (false, false),
            bytes: (0, 0),
            sent: Vec::new(),
        }
    }

    /// One whose path holds on both sides.
    fn proven() -> Self {
        let mut scene = Self::new(with_datagrams());
        scene.exchange();
        assert!(scene.holds() == (true, true));
        scene
    }

    /// Whether the path holds for the client and for the gateway.
    fn holds(&mut self) -> (bool, bool) {
        let now = self.world.now.time;
        let shard = &mut self.world.shard;
        let datagrams = shard.connection(self.id).and_then(|c| c.datagrams.as_ref());
        let proof = datagrams.and_then(|datagrams| datagrams.side.as_ref());
        (
            self.client.is_side_path_up(now),
            proof.is_some_and(|proof| proof.holds(now)),
        )
    }

    /// Moves bytes and datagrams until both are silent; the messages that the client was told.
    fn exchange(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let now = self.world.now;
            events.extend(self.world.exchange(self.id, &mut self.client));
            let mut moved = false;
            let mut out = Vec::new();
            while self.client.poll_side_transmit(now.time, &mut out) {
                let mut datagram = std::mem::take(&mut out);
                self.sent.push(datagram.clone());
                self.bytes.0 += datagram.len();
                if !self.blocked.0 {
                    let from = self.address;
                    self.world.shard.handle_datagram(now, from, &mut datagram);
                    moved = true;
                }
            }
            while let Some((to, segment)) = self.world.shard.poll_datagrams(now, &mut out) {
                let run = std::mem::take(&mut out);
                self.bytes.1 += run.len();
                for datagram in run.chunks(segment) {
                    if to == self.address && !self.blocked.1 {
                        let mut datagram = datagram.to_vec();
                        let shared = &mut self.world.shared;
                        self.client.handle_side_received(
                            now.time,
                            &mut datagram,
                            shared,
                            &mut |event| events.push(format!("{event:?}")),
                        );
                        moved = true;
                    }
                }
            }
            if !moved {
                events.retain(|event| event.starts_with("Message"));
                return events;
            }
        }
    }

    fn pass(&mut self, ms: u64) -> Vec<String> {
        self.world.pass(ms);
        self.client.handle_timeout(self.world.now.time, &mut |_| {});
        self.exchange()
    }

    fn send(&mut self, lane: Lane, payload: &[u8]) {
        let shared = &mut self.world.shared;
        self.client
            .send(self.world.now.time, lane, GROUP, MESSAGE, payload, shared)
            .expect("up");
    }

    fn backend_sends(&mut self, lane: Lane, number: u32, payload: &[u8]) {
        let session = self.client.session().expect("logged in");
        self.world
            .backend_sends(session, &push(payload, lane, number));
    }

    /// Messages by the path so far: received and sent by the gateway.
    fn counted(&self) -> (u64, u64) {
        let counters = self.world.shard.counters();
        (
            counters.side_messages_received.value(),
            counters.side_messages_sent.value(),
        )
    }
}

#[test]
fn messages_that_may_get_lost_go_beside_the_stream_and_the_others_in_it() {
    let mut scene = Scene::new(with_datagrams());
    // What is said before the path is proven goes over the stream.
    scene.send(Lane::Unreliable, b"early");
    scene.exchange();
    assert_eq!(scene.counted(), (0, 0));
    assert_eq!(scene.holds(), (true, true));
    assert!(scene.bytes.1 <= scene.bytes.0, "{:?}", scene.bytes);
    scene.world.game.clear();
    for lane in [Lane::Unreliable, Lane::Sequenced, Lane::Reliable] {
        scene.send(lane, b"from the client");
        scene.backend_sends(lane, 1, b"from the game");
    }
    // Longer than a datagram.
    scene.send(Lane::Unreliable, &[1; DIRECT_BYTES_MAX]);
    scene.backend_sends(Lane::Unreliable, 0, &[1; DIRECT_BYTES_MAX]);
    let events = scene.exchange();
    assert_eq!(scene.counted(), (2, 2));
    assert_eq!(scene.world.game.len(), 4);
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(scene.world.shard.counters().side_paths.value(), 1);
}

#[test]
fn a_path_that_is_blocked_is_left_within_seconds_and_found_again() {
    for blocked in [(true, true), (true, false), (false, true)] {
        let mut scene = Scene::proven();
        let both = |scene: &mut Scene| {
            scene.send(Lane::Unreliable, b"x");
            scene.backend_sends(Lane::Unreliable, 0, b"y");
            scene.pass(100)
        };
        for _ in 0..50 {
            both(&mut scene);
            assert_eq!(scene.holds(), (true, true));
        }
        assert_eq!(scene.counted(), (50, 50), "{blocked:?}");
        scene.blocked = blocked;
        let mut swallowed = 0;
        while scene.holds() != (false, false) {
            both(&mut scene);
            swallowed += 1;
            assert!(swallowed <= HOLD_MS / 100, "{blocked:?}");
        }
        // From now on nothing gets lost.
        scene.world.game.clear();
        let mut events = Vec::new();
        for _ in 0..20 {
            events.extend(both(&mut scene));
        }
        let counted = scene.counted();
        assert_eq!(scene.world.game.len(), 20, "{blocked:?}");
        assert_eq!(events.len(), 20, "{blocked:?}");
        scene.blocked = (false, false);
        let mut waited = 0;
        while scene.holds() != (true, true) {
            both(&mut scene);
            waited += 1;
            // Given up, it is asked again after 30 s.
            assert!(waited < 320, "{blocked:?}");
        }
        both(&mut scene);
        assert!(scene.counted().0 > counted.0 && scene.counted().1 > counted.1);
        assert_eq!(scene.world.shard.sessions(), 1);
        assert!(!scene.client.is_closed());
    }
}

#[test]
fn an_idle_path_is_silent_and_the_next_message_wakes_it() {
    let mut scene = Scene::proven();
    scene.pass(0);
    let before = scene.sent.len();
    for _ in 0..20 {
        scene.pass(1_000);
    }
    assert_eq!(scene.sent.len(), before);
    assert_eq!(scene.holds(), (false, false));
    scene.send(Lane::Unreliable, b"by the stream");
    scene.exchange();
    assert_eq!(scene.counted().0, 0);
    assert_eq!(scene.holds(), (true, true));
    scene.send(Lane::Unreliable, b"by the path");
    scene.exchange();
    assert_eq!(scene.counted().0, 1);
}

#[test]
fn who_only_listens_keeps_its_path() {
    let mut scene = Scene::proven();
    for turn in 0..100 {
        scene.backend_sends(Lane::Sequenced, turn + 1, b"where others are");
        let events = scene.pass(100);
        assert_eq!(events.len(), 1, "{events:?}");
    }
    assert_eq!(scene.counted(), (0, 100));
}

#[test]
fn datagrams_are_no_sign_of_life_of_the_stream() {
    let mut scene = Scene::proven();
    for _ in 0..25 {
        // The stream is dead: only the path goes on.
        scene.world.pass(1_000);
        scene.send(Lane::Unreliable, b"x");
        let now = scene.world.now;
        let mut out = Vec::new();
        while scene.client.poll_side_transmit(now.time, &mut out) {
            let mut datagram = std::mem::take(&mut out);
            let from = scene.address;
            scene.world.shard.handle_datagram(now, from, &mut datagram);
        }
        while let Some((_, segment)) = scene.world.shard.poll_datagrams(now, &mut out) {
            for datagram in std::mem::take(&mut out).chunks_mut(segment) {
                let shared = &mut scene.world.shared;
                scene
                    .client
                    .handle_side_received(now.time, datagram, shared, &mut |_| {});
            }
        }
    }
    assert!(scene.counted().0 > 20);
    assert_eq!(scene.world.shard.sessions(), 1);
    scene.world.pass(6_000);
    let closes = scene
        .world
        .shard
        .counters()
        .closes(CloseReason::IdleTimeout);
    assert_eq!(closes, 1);
}

#[test]
fn a_path_ends_with_its_connection() {
    let mut scene = Scene::proven();
    scene.send(Lane::Unreliable, b"x");
    scene.exchange();
    let mut last = scene.sent.last().expect("a datagram").clone();
    scene.world.shard.handle_closed(scene.world.now, scene.id);
    let (now, from) = (scene.world.now, scene.address);
    scene.world.shard.handle_datagram(now, from, &mut last);
    let counters = scene.world.shard.counters();
    assert_eq!(counters.drops(DropReason::DatagramUnknown), 1);
    assert_eq!(scene.world.shard.connections(), 0);
    // Nothing of it is left, and the id was never one of datagrams' own.
    let side = scene.world.shard.datagrams.as_ref().expect("datagrams");
    let side = format!("{side:?}");
    assert!(side.contains("cids: {},") && side.contains("free: [],"));
}

#[test]
fn what_was_recorded_moves_nothing() {
    let mut scene = Scene::proven();
    scene.send(Lane::Unreliable, b"once");
    scene.exchange();
    let recorded = scene.sent.clone();
    let (now, thief) = (scene.world.now, "198.51.100.1:9".parse().expect("one"));
    let (counted, sent) = (scene.counted(), scene.bytes.1);
    scene.world.game.clear();
    for datagram in &recorded {
        let mut datagram = datagram.clone();
        scene.world.shard.handle_datagram(now, thief, &mut datagram);
    }
    scene.exchange();
    let counters = scene.world.shard.counters();
    let repeated = counters.drops(DropReason::DatagramRepeated);
    assert_eq!(repeated, recorded.len() as u64);
    assert_eq!((scene.counted(), scene.bytes.1), (counted, sent));
    assert!(scene.world.game.is_empty());
}

#[test]
fn a_first_datagram_from_another_address_gains_nothing_there() {
    let mut scene = Scene::new(with_datagrams());
    let now = scene.world.now;
    let mut out = Vec::new();
    assert!(scene.client.poll_side_transmit(now.time, &mut out));
    // Somebody on the way takes it and sends it from elsewhere.
    let elsewhere = "198.51.100.1:9".parse().expect("an address");
    let received = out.len();
    scene.world.shard.handle_datagram(now, elsewhere, &mut out);
    let mut sent = 0;
    for _ in 0..30 {
        scene.backend_sends(Lane::Unreliable, 0, &[5; 900]);
        scene.world.pass(100);
        let now = scene.world.now;
        out.clear();
        while let Some((to, _)) = scene.world.shard.poll_datagrams(now, &mut out) {
            assert_eq!(to, elsewhere);
        }
        sent += out.len();
    }
    assert!(sent <= received, "{sent} for {received}");
    assert_eq!(scene.counted().1, 0);
    // The client itself is found all the same.
    scene.pass(4_000);
    scene.pass(1_000);
    assert_eq!(scene.holds(), (true, true));
}

#[test]
fn a_client_that_moves_takes_its_path_along() {
    let mut scene = Scene::proven();
    scene.send(Lane::Unreliable, b"before");
    scene.exchange();
    scene.address = "203.0.113.5:1234".parse().expect("an address");
    scene.send(Lane::Unreliable, b"after");
    scene.exchange();
    assert_eq!(scene.world.shard.counters().migrations.value(), 1);
    scene.backend_sends(Lane::Unreliable, 0, b"there");
    let events = scene.exchange();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(scene.counted(), (2, 1));
}

#[test]
fn a_newer_sequenced_message_that_overtakes_by_the_other_way_stays_the_newer() {
    let mut scene = Scene::proven();
    scene.backend_sends(Lane::Sequenced, 1, b"older");
    let now = scene.world.now;
    let mut held = Vec::new();
    let polled = scene.world.shard.poll_datagrams(now, &mut held);
    assert!(polled.is_some(), "it left by the path");
    // The next one is too long for it.
    scene.backend_sends(Lane::Sequenced, 2, &[1; DIRECT_BYTES_MAX]);
    assert_eq!(scene.exchange().len(), 1);
    let shared = &mut scene.world.shared;
    let mut events = 0;
    scene
        .client
        .handle_side_received(now.time, &mut held, shared, &mut |_| events += 1);
    assert_eq!(events, 0, "the older one is dropped");
}

#[test]
fn datagrams_are_charged_to_the_connection() {
    let mut limited = with_datagrams();
    limited.frames = rate(10, 40);
    let mut scene = Scene::new(limited);
    scene.exchange();
    for _ in 0..60 {
        scene.send(Lane::Unreliable, b"x");
        scene.exchange();
    }
    let counters = scene.world.shard.counters();
    assert!(counters.drops(DropReason::RateDatagram) > 0);
    assert!(counters.side_messages_received.value() < 40);
}

#[test]
fn reliable_data_on_a_path_is_a_broken_rule() {
    let mut scene = Scene::proven();
    // A path whose keys are known here, in place of the client's.
    let (cid, now) = (Cid(0x100), scene.world.now);
    let [client, gateway] = [Key([1; 32]), Key([2; 32])];
    let end = |seal: &Key, open: &Key| {
        let (seal, open) = (seal.clone(), open.clone());
        let policy = RekeyPolicy::default();
        End::new(
            cid,
            seal,
            open,
            policy,
            None,
            LOGIN_FRAME_BYTES_MAX,
            now.time,
        )
    };
    let path = Datagrams::new(end(&gateway, &client), None, Some(Proof::default()));
    let shard = &mut scene.world.shard;
    let side = shard.datagrams.as_mut().expect("datagrams");
    assert!(side.insert(cid, scene.id));
    let connection = shard.connection(scene.id).expect("open");
    connection.datagrams = Some(Box::new(path));

    let mut end = end(&client, &gateway);
    let mut body = Vec::new();
    push(b"x", Lane::Reliable, 1).encode(&mut body);
    end.push(0, &[&body]);
    let mut datagram = Vec::new();
    assert!(end.write(now.time, DATAGRAM_BYTES_MAX, &mut datagram));
    let from = scene.address;
    scene.world.shard.handle_datagram(now, from, &mut datagram);
    let counters = scene.world.shard.counters();
    assert_eq!(counters.closes(CloseReason::BadBody), 1);
}

#[test]
fn a_gateway_without_datagrams_opens_none_and_the_client_goes_on() {
    let mut scene = Scene::new(config());
    let drops = scene.world.shard.counters().drops(DropReason::UnknownKind);
    assert_eq!(drops, 1);
    scene.send(Lane::Unreliable, b"x");
    scene.exchange();
    assert_eq!(scene.world.game.len(), 1);
    assert!(scene.sent.is_empty());
}
