//! A client's core from HELLO to the end, against a small gateway made of the
//! same parts, without sockets.

use super::*;
use crate::body::Sync;
use crate::frame::FLAG_COMPRESSED;
use crate::frame::{FLAG_HANDSHAKE, FLAG_KEY_PHASE, write_crc};
use crate::handshake::{self, StaticKey};
use crate::ids::Incarnation;
use crate::limits::{ACK_DELAY_MS, OUTBOX_MESSAGES_MAX};
use crate::quality::{Ping, Pong, Report};

mod double;

use double::{Double, GROUP, HEARTBEAT_INTERVAL_MS, IDLE_TIMEOUT_MS};

/// What a test keeps of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    LoggedIn(u64),
    Resumed(u64),
    Lost(CloseReason),
    Up(u16),
    Down(u16),
    Message(MessageKind, u32, Vec<u8>),
    Queued(u32, u32, u32),
    RoundTrip(u32),
    Joined(u32),
    Left(u32),
    Channel(u32, Vec<u8>),
    Missed(u32),
    Closed(Closed),
}

fn seen(event: Event<'_>) -> Seen {
    match event {
        Event::LoggedIn(session) => Seen::LoggedIn(session.0),
        Event::Resumed(session) => Seen::Resumed(session.0),
        Event::SessionLost(reason) => Seen::Lost(reason),
        Event::GroupUp(group) => Seen::Up(group.0),
        Event::GroupDown(group) => Seen::Down(group.0),
        Event::Message(header, payload) => {
            Seen::Message(header.kind, header.request, payload.to_vec())
        }
        Event::Queued(queued) => Seen::Queued(queued.position, queued.seconds, queued.of),
        Event::RoundTrip(us) => Seen::RoundTrip(us),
        Event::ChannelJoined(_, channel) => Seen::Joined(channel.0),
        Event::ChannelLeft(_, channel) => Seen::Left(channel.0),
        Event::ChannelMessage(header, payload) => Seen::Channel(header.number, payload.to_vec()),
        Event::ChannelLost(_, _, count) => Seen::Missed(count),
        Event::Closed(closed) => Seen::Closed(closed),
    }
}

/// A client, the double, and what lies between them.
struct World {
    client: Client,
    shared: Shared,
    gateway: Double,
    now: Time,
    seen: Vec<Seen>,
    /// Bytes that a piece of the stream has at most, both ways.
    piece_bytes: usize,
}

fn config(gateway: &StaticKey) -> ClientConfig {
    ClientConfig {
        gateway_key: *gateway.public(),
        token: "a token".to_owned(),
        client_version: 3,
        channel: "store".to_owned(),
        device: "phone".to_owned(),
        outbox: OutboxLimits::default(),
        rekey: RekeyPolicy::default(),
        compress_bytes_min: 256,
    }
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ClientConfig)) -> Self {
        let now = Time(900_000_000);
        let gateway = Double::new();
        let mut config = config(&gateway.key);
        change(&mut config);
        Self {
            client: Client::connect(config, [9; 32], now).unwrap(),
            shared: Shared::default(),
            gateway,
            now,
            seen: Vec::new(),
            piece_bytes: usize::MAX,
        }
    }

    /// Logged in, with the group up and the first PING answered; what happened until then
    /// is forgotten.
    fn up() -> Self {
        let mut world = Self::new();
        world.log_in();
        world.time_out();
        world.run();
        assert_eq!(world.taken(), [Seen::RoundTrip(0)]);
        world
    }

    fn log_in(&mut self) {
        self.run();
        assert_eq!(self.seen, [Seen::LoggedIn(77), Seen::Up(GROUP.0)]);
        self.seen.clear();
    }

    /// Carries bytes in both directions until none are left.
    fn run(&mut self) {
        loop {
            let mut bytes = Vec::new();
            while self
                .client
                .poll_transmit(self.now, &mut self.shared, &mut bytes)
            {}
            for piece in bytes.chunks(self.piece_bytes) {
                self.gateway.receive(self.now, piece);
            }
            let answer = self.gateway.transmit(self.now);
            if bytes.is_empty() && answer.is_empty() {
                return;
            }
            for piece in answer.chunks(self.piece_bytes) {
                self.receive(piece);
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let events = &mut self.seen;
        self.client
            .handle_received(self.now, &mut bytes, &mut self.shared, &mut |event| {
                events.push(seen(event));
            });
    }

    fn time_out(&mut self) {
        let events = &mut self.seen;
        self.client.handle_timeout(self.now, &mut |event| {
            events.push(seen(event));
        });
    }

    fn request(&mut self, payload: &[u8]) -> u32 {
        self.client.request(GROUP, MessageId(2), payload).unwrap()
    }

    fn taken(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    fn assert_closed(&mut self, closed: Closed) {
        assert_eq!(self.taken(), [Seen::Closed(closed)]);
        assert!(self.client.is_closed());
        assert_eq!(self.client.poll_timeout(), None);
    }
}

fn ping(stamp: u32) -> Body<'static> {
    Body::Ping(Ping {
        stamp,
        ..Ping::default()
    })
}

fn reply(request: u32, payload: &[u8]) -> Seen {
    Seen::Message(MessageKind::Reply, request, payload.to_vec())
}

#[test]
fn a_whole_session() {
    let mut world = World::new();
    assert_eq!(world.client.session(), None);
    world.log_in();
    assert_eq!(world.client.session(), Some(SessionId(77)));
    assert_eq!(
        world.gateway.login.as_deref(),
        Some("3 store phone a token")
    );
    assert_eq!(world.client.parameters(), Some(&double::PARAMETERS));
    let (first, second) = (world.request(b"one"), world.request(b"two"));
    world.run();
    assert_eq!(world.taken(), [reply(first, b"one"), reply(second, b"two")]);
    assert_eq!(world.client.outbox_messages(), 0);
    world.client.logout(world.now);
    world.run();
    world.assert_closed(Closed::ByGateway(Some(CloseReason::LoggedOut)));
    assert_eq!(
        world.client.request(GROUP, MessageId(1), b""),
        Err(SendError::Closed)
    );
}

#[test]
fn the_stream_may_be_cut_anywhere() {
    let mut whole = World::up();
    let mut cut = World::new();
    cut.piece_bytes = 1;
    cut.log_in();
    for world in [&mut whole, &mut cut] {
        for payload in [b"a".as_slice(), &[b'b'; 3_000], b"c"] {
            world.request(payload);
        }
        world.run();
    }
    assert_eq!(whole.seen, cut.seen);
    assert_eq!(whole.seen.len(), 3);
}

#[test]
fn requests_wait_for_the_group() {
    let mut world = World::new();
    world.gateway.open_group = false;
    let request = world.request(b"early");
    world.run();
    assert_eq!(world.taken(), [Seen::LoggedIn(77)]);
    assert!(!world.client.is_group_up(GROUP));
    world.gateway.attach();
    world.run();
    assert_eq!(world.taken(), [Seen::Up(GROUP.0), reply(request, b"early")]);
}

#[test]
fn a_group_that_goes_down_and_comes_back_loses_nothing() {
    let mut world = World::up();
    let now = world.now;
    world
        .gateway
        .seal(now, 0, &Body::GroupDown { group: GROUP });
    world.run();
    assert_eq!(world.taken(), [Seen::Down(GROUP.0)]);
    let kept = world.request(b"kept");
    let unreliable = world.client.send(
        now,
        Lane::Unreliable,
        GROUP,
        MessageId(1),
        b"lost",
        &mut world.shared,
    );
    assert_eq!(unreliable, Err(SendError::NotUp));
    world.run();
    assert_eq!((world.taken(), world.client.outbox_messages()), (vec![], 1));
    world.gateway.attach();
    world.run();
    assert_eq!(world.taken(), [Seen::Up(GROUP.0), reply(kept, b"kept")]);
}

#[test]
fn what_is_sent_as_soon_as_the_group_is_up_can_be_answered() {
    let mut world = World::up();
    let now = world.now;
    world
        .gateway
        .seal(now, 0, &Body::GroupDown { group: GROUP });
    world.run();
    world.gateway.attach();
    let sync = world.gateway.transmit(now);
    world.receive(&sync);
    assert_eq!(world.taken(), [Seen::Down(GROUP.0), Seen::Up(GROUP.0)]);
    // Before anything else leaves.
    let (client, shared) = (&mut world.client, &mut world.shared);
    let sent = client.send(now, Lane::Unreliable, GROUP, MessageId(1), b"here", shared);
    assert_eq!(sent, Ok(()));
    world.run();
    assert_eq!(world.gateway.unreliable, [(Lane::Unreliable, 0)]);
}

#[test]
fn a_new_incarnation_gets_what_was_not_acknowledged() {
    let mut world = World::up();
    world.request(b"answered");
    world.run();
    world.taken();
    world.gateway.deaf = true;
    let asked = world.request(b"not answered");
    world.run();
    assert_eq!(world.taken(), []);
    world.gateway.deaf = false;
    world.gateway.replace_backend(Incarnation(2));
    world.run();
    assert_eq!(
        world.taken(),
        [Seen::Up(GROUP.0), reply(asked, b"not answered")]
    );
}

#[test]
fn unreliable_messages_are_refused_where_they_do_not_leave() {
    let mut world = World::up();
    let now = world.now;
    let send = |world: &mut World| {
        let (shared, client) = (&mut world.shared, &mut world.client);
        client.send(
            now,
            Lane::Unreliable,
            GROUP,
            MessageId(1),
            &[7; 200],
            shared,
        )
    };
    let taken = (0..1_000).take_while(|_| send(&mut world).is_ok()).count();
    assert_eq!(taken, UNSENT_BYTES_MAX.div_ceil(200 + 46));
    assert_eq!(send(&mut world), Err(SendError::Busy));
    // The reliable lane has its outbox.
    world.request(b"taken");
    world.run();
    assert_eq!(send(&mut world), Ok(()));
}

#[test]
fn a_client_asks_after_login_and_with_each_heartbeat() {
    let mut world = World::new();
    world.log_in();
    let mut at = world.now;
    for step_us in [1_234, 5_234, 1_234] {
        assert_eq!(world.client.poll_timeout(), Some(at));
        world.now = Time(at.0 - 1);
        world.time_out();
        world.run();
        assert_eq!(world.taken(), []);
        // What it sends besides makes no difference: each PING measures.
        let shared = &mut world.shared;
        let lane = Lane::Unreliable;
        let sent = world
            .client
            .send(world.now, lane, GROUP, MessageId(2), b"", shared);
        assert_eq!(sent, Ok(()));
        world.run();
        world.now = at;
        world.time_out();
        let mut ping = Vec::new();
        world
            .client
            .poll_transmit(world.now, &mut world.shared, &mut ping);
        world.now = world.now + step_us / 2;
        world.gateway.receive(world.now, &ping);
        let pong = world.gateway.transmit(world.now);
        world.now = world.now + step_us / 2;
        world.receive(&pong);
        assert_eq!(world.taken(), [Seen::RoundTrip(step_us as u32)]);
        at = at.after_ms(HEARTBEAT_INTERVAL_MS);
    }
    let smoothed = ((1_234 * 3 + 5_234) / 4 * 3 + 1_234) / 4;
    let quality = world.client.quality().unwrap();
    assert_eq!(quality.ours.round_trip_us, smoothed);
    // The gateway has measured at the second and the third PING: half a round trip to
    // the client, then half of the next one.
    let told = Report {
        round_trip_us: 1_234 / 2 + 5_234 / 2,
        ..Report::default()
    };
    assert_eq!(quality.theirs, told);
}

#[test]
fn a_pong_that_was_not_asked_for_measures_nothing() {
    let mut world = World::up();
    let pong = Pong {
        stamp: world.now.0 as u32 - 500,
        ..Pong::default()
    };
    world.gateway.seal(world.now, 0, &Body::Pong(pong));
    world.run();
    assert_eq!(world.taken(), []);
    assert_eq!(world.client.quality().unwrap().ours.round_trip_us, 1);
}

#[test]
fn a_ping_is_answered_with_its_stamp() {
    let mut world = World::up();
    world.gateway.seal(world.now, 0, &ping(0xabcd));
    world.run();
    assert_eq!(world.gateway.pongs, [0xabcd]);
}

#[test]
fn a_silent_gateway_is_given_up() {
    let mut world = World::up();
    let heard = world.now;
    loop {
        world.now = world.client.poll_timeout().unwrap();
        world.time_out();
        let mut lost = Vec::new();
        world
            .client
            .poll_transmit(world.now, &mut world.shared, &mut lost);
        if world.client.is_closed() {
            break;
        }
    }
    assert_eq!(world.now, heard.after_ms(IDLE_TIMEOUT_MS));
    world.assert_closed(Closed::ByClient(CloseReason::IdleTimeout));
}

#[test]
fn a_gateway_that_never_answers_is_given_up() {
    let mut world = World::new();
    world.now = world.client.poll_timeout().unwrap();
    world.time_out();
    world.assert_closed(Closed::ByClient(CloseReason::LoginTimeout));
}

#[test]
fn a_lost_transport_is_an_end() {
    let mut world = World::up();
    let events = &mut world.seen;
    world
        .client
        .handle_disconnected(&mut |event| events.push(seen(event)));
    world
        .client
        .handle_disconnected(&mut |event| panic!("{event:?} after the end"));
    world.assert_closed(Closed::ByClient(CloseReason::PeerClosed));
}

#[test]
fn acknowledgements_leave_by_themselves_after_a_while() {
    let mut world = World::up();
    world.gateway.push(b"news");
    world.run();
    assert_eq!(world.taken().len(), 1);
    assert_eq!(world.gateway.backend.outbox_messages(), 1);
    let at = world.client.poll_timeout().unwrap();
    assert_eq!(at, world.now.after_ms(ACK_DELAY_MS));
    world.now = at;
    world.time_out();
    world.run();
    assert_eq!(world.gateway.backend.outbox_messages(), 0);
}

#[test]
fn an_acknowledgement_on_another_lane_counts() {
    for lane in [Lane::Unreliable, Lane::Sequenced] {
        let mut world = World::up();
        world.gateway.deaf = true;
        world.request(b"x");
        world.run();
        assert_eq!(world.client.outbox_messages(), 1);
        world.gateway.seal_message(world.now, lane, 1, 1, b"pushed");
        world.run();
        assert_eq!(world.client.outbox_messages(), 0, "{lane:?}");
    }
}

#[test]
fn unreliable_lanes_reach_both_sides() {
    let mut world = World::up();
    for lane in [Lane::Unreliable, Lane::Sequenced, Lane::Sequenced] {
        let (now, shared) = (world.now, &mut world.shared);
        let sent = world
            .client
            .send(now, lane, GROUP, MessageId(3), b"step", shared);
        assert_eq!(sent, Ok(()));
    }
    world.run();
    assert_eq!(
        world.gateway.unreliable,
        [
            (Lane::Unreliable, 0),
            (Lane::Sequenced, 1),
            (Lane::Sequenced, 2)
        ]
    );
    for number in [5, 4, 6] {
        let payload = [number as u8];
        world
            .gateway
            .seal_message(world.now, Lane::Sequenced, number, 0, &payload);
    }
    world.run();
    let message = |payload: u8| Seen::Message(MessageKind::Message, 0, vec![payload]);
    assert_eq!(world.taken(), [message(5), message(6)]);
}

#[test]
fn old_and_early_messages_are_dropped_on_unreliable_lanes_only() {
    let mut world = World::up();
    // Past the settling of the clock's estimate.
    for _ in 0..4 {
        world.now = world.now.after_ms(8_000);
        world.gateway.seal(world.now, 0, &ping(1));
        world.run();
    }
    let old = Time(world.now.0 - 11_000_000);
    let early = world.now.after_ms(3_000);
    for at in [old, early] {
        world
            .gateway
            .seal_message(at, Lane::Unreliable, 0, 0, b"dropped");
        world
            .gateway
            .seal_message(at, Lane::Sequenced, 9, 0, b"dropped");
    }
    world
        .gateway
        .seal_message(old, Lane::Reliable, 1, 0, b"kept");
    world.run();
    assert_eq!(
        world.taken(),
        [Seen::Message(MessageKind::Message, 0, b"kept".to_vec())]
    );
}

#[test]
fn large_payloads_are_compressed_both_ways() {
    let mut world = World::up();
    let payload = b"the same again, ".repeat(100);
    let request = world.request(&payload);
    let mut bytes = Vec::new();
    world
        .client
        .poll_transmit(world.now, &mut world.shared, &mut bytes);
    assert!(bytes.len() < payload.len() / 4);
    world.gateway.receive(world.now, &bytes);
    world.run();
    assert_eq!(world.taken(), [reply(request, &payload)]);
    assert!(world.gateway.compressed_received > 0);
}

#[test]
fn keys_change_on_both_sides_and_nobody_notices() {
    let mut world = World::with(|config| config.rekey = RekeyPolicy { frames: 3 });
    world.gateway.rekey = RekeyPolicy { frames: 2 };
    world.log_in();
    for _ in 0..20 {
        let request = world.request(b"again");
        world.run();
        assert_eq!(world.taken(), [reply(request, b"again")]);
    }
    assert!(
        world.gateway.phases_received > 4,
        "{}",
        world.gateway.phases_received
    );
}

#[test]
fn a_long_outbox_leaves_in_pieces() {
    let mut world = World::with(|config| config.compress_bytes_min = usize::MAX);
    world.gateway.open_group = false;
    let payload = vec![1; 10_000];
    for _ in 0..20 {
        world.request(&payload);
    }
    world.run();
    world.gateway.attach();
    let sync = world.gateway.transmit(world.now);
    world.receive(&sync);
    let mut pieces = Vec::new();
    loop {
        let mut piece = Vec::new();
        if !world
            .client
            .poll_transmit(world.now, &mut world.shared, &mut piece)
        {
            break;
        }
        pieces.push(piece.len());
        world.gateway.receive(world.now, &piece);
    }
    assert!(pieces.len() >= 3, "{pieces:?}");
    assert!(
        pieces
            .iter()
            .all(|&bytes| bytes < TRANSMIT_BYTES + FRAME_BYTES_MAX)
    );
    world.run();
    assert_eq!(
        world
            .seen
            .iter()
            .filter(|s| matches!(s, Seen::Message(..)))
            .count(),
        20
    );
}

#[test]
fn what_can_not_be_sent_is_refused_visibly() {
    let mut world = World::up();
    let large = vec![0; PAYLOAD_BYTES_MAX + 1];
    assert_eq!(
        world.client.request(GROUP, MessageId(1), &large),
        Err(SendError::TooLarge)
    );
    world.gateway.deaf = true;
    for _ in 0..OUTBOX_MESSAGES_MAX {
        world.request(b"");
    }
    assert_eq!(
        world.client.request(GROUP, MessageId(1), b""),
        Err(SendError::OutboxFull)
    );
    for group in 0..GROUPS_MAX as u16 - 1 {
        world
            .client
            .request(GroupId(100 + group), MessageId(1), b"")
            .unwrap();
    }
    assert_eq!(
        world.client.request(GroupId(500), MessageId(1), b""),
        Err(SendError::TooManyGroups)
    );
}

#[test]
fn rejections_and_wrong_gateways() {
    let mut world = World::new();
    let mut frame = Vec::new();
    handshake::reject(CloseReason::Full, 1, &mut frame);
    world.receive(&frame);
    world.assert_closed(Closed::ByClient(CloseReason::Full));

    // A client that pinned another key: the gateway can't read its HELLO.
    let other = StaticKey::from_secret([0x55; 32]);
    let mut world = World::with(|config| config.gateway_key = *other.public());
    world.run();
    world.assert_closed(Closed::ByClient(CloseReason::BadHandshake));
}

#[test]
fn refused_logins_have_their_reason() {
    let mut world = World::new();
    world.gateway.refuse_login = Some(CloseReason::TokenExpired);
    world.run();
    world.assert_closed(Closed::ByGateway(Some(CloseReason::TokenExpired)));

    let mut world = World::up();
    let close = Body::Close {
        reason: 60_000,
        retry_after_ms: 5,
        text: "of a later version",
    };
    world.gateway.seal(world.now, 0, &close);
    world.run();
    world.assert_closed(Closed::ByGateway(None));
    assert_eq!(world.client.retry_after_ms(), 5);
}

/// What a broken gateway sends, and why the client closes.
#[test]
fn broken_frames_close() {
    let good = ping(1);
    type Break = fn(&mut Double, Time) -> Vec<u8>;
    let flipped: Break = |gateway, now| {
        let mut frame = gateway.sealed(now, 0, &ping(1));
        frame[20] ^= 1;
        frame
    };
    let forged: Break = |gateway, now| {
        let mut frame = gateway.sealed(now, 0, &ping(1));
        frame[20] ^= 1;
        write_crc(&mut frame);
        frame
    };
    let handshake: Break = |gateway, now| {
        let mut frame = gateway.sealed(now, 0, &ping(1));
        frame[3] |= FLAG_HANDSHAKE;
        write_crc(&mut frame);
        frame
    };
    let twice: Break = |gateway, now| gateway.sealed(now, 0, &ping(1)).repeat(2);
    let skipped: Break = |gateway, now| {
        gateway.sealed(now, 0, &ping(1));
        gateway.sealed(now, 0, &ping(1))
    };
    let length: Break = |_, _| vec![0xff; 40];
    let cases = [
        (flipped, CloseReason::BadCrc),
        (forged, CloseReason::BadSeal),
        (handshake, CloseReason::BadFlags),
        (twice, CloseReason::SequenceRepeated),
        (skipped, CloseReason::SequenceSkipped),
        (length, CloseReason::BadLength),
    ];
    for (broken, reason) in cases {
        let mut world = World::up();
        let bytes = broken(&mut world.gateway, world.now);
        world.receive(&bytes);
        world.assert_closed(Closed::ByClient(reason));
    }
    // The same frame, unspoiled, is fine.
    let mut world = World::up();
    let bytes = world.gateway.sealed(world.now, 0, &good);
    world.receive(&bytes);
    assert_eq!(world.taken(), []);
    assert_eq!(bytes[3] & FLAG_KEY_PHASE, 0);
}

#[test]
fn broken_bodies_close() {
    let bodies: [(u8, Vec<u8>, CloseReason); 6] = [
        (0, vec![8, 1, 1, 0, 0, 0, 0, 0], CloseReason::BadBody),
        (
            FLAG_COMPRESSED,
            vec![8, 0, 1, 0, 0, 0, 0, 0],
            CloseReason::BadBody,
        ),
        (0, vec![3], CloseReason::BadBody),
        (0, vec![1, 1, 0, 0, 0, 0, 0, 0], CloseReason::BadBody),
        // LOGIN_OK twice.
        (
            0,
            [[2, 0].as_slice(), &[1; 16]].concat(),
            CloseReason::BadBody,
        ),
        // A payload that says it is larger than anything may be.
        (
            FLAG_COMPRESSED,
            [
                [16, 1, 1, 0].as_slice(),
                &[0; 10],
                &u32::MAX.to_le_bytes(),
                &[0; 50],
            ]
            .concat(),
            CloseReason::BadCompression,
        ),
    ];
    for (flags, body, reason) in bodies {
        let mut world = World::up();
        world.gateway.seal_raw(world.now, flags, &body);
        world.run();
        world.assert_closed(Closed::ByClient(reason));
    }
}

#[test]
fn kinds_and_groups_that_a_client_does_not_know_are_ignored() {
    let mut world = World::up();
    world.gateway.seal_raw(world.now, 0, &[200, 1, 2, 3]);
    let ack = Body::Ack {
        group: GroupId(999),
        ack: 4,
    };
    world.gateway.seal(world.now, 0, &ack);
    // More groups than a client has are not opened.
    for group in 0..2 * GROUPS_MAX as u16 {
        let sync = Sync {
            fresh: true,
            group: GroupId(100 + group),
            incarnation: Incarnation(1),
            next: 1,
            base: 1,
        };
        world.gateway.seal(world.now, 0, &Body::Sync(sync));
    }
    world.run();
    assert_eq!(world.taken().len(), GROUPS_MAX - 1);
    let request = world.request(b"still there");
    world.run();
    assert_eq!(world.taken(), [reply(request, b"still there")]);
}

#[test]
fn whoever_waits_to_be_let_in_is_patient_and_heard() {
    let mut world = World::new();
    world.gateway.queue = Some(QueuePosition {
        position: 7,
        seconds: 60,
        of: 9,
    });
    world.run();
    assert_eq!(world.taken(), [Seen::Queued(7, 60, 9)]);
    let until = world.now.after_ms(10 * LOGIN_TIMEOUT_MS);
    while world.now < until {
        world.now = world.client.poll_timeout().expect("the next PING");
        world.time_out();
        world.run();
    }
    let seen = world.taken();
    assert!(seen.len() > 2, "{seen:?}");
    let answered = |seen: &Seen| matches!(seen, Seen::RoundTrip(_));
    assert!(seen.iter().all(answered), "PINGs all the while: {seen:?}");
    world.gateway.let_in(world.now);
    world.log_in();
    // A session has left the queue behind.
    let queue = QueuePosition {
        position: 1,
        seconds: 1,
        of: 1,
    };
    world.gateway.seal(world.now, 0, &Body::Queue(queue));
    world.run();
    let bad = Closed::ByClient(CloseReason::BadBody);
    assert_eq!(world.taken().last(), Some(&Seen::Closed(bad)));
}
