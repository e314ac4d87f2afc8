//! The core against the protocol's own client, with a center and one backend
//! played by the test.

use std::sync::Arc;

use prost::Message as _;
use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::cipher::{Opener, Sealer};
use protocol::client::{Client, ClientConfig, Closed, Event, Shared};
use protocol::control::{self, ToBackend, ToShard, to_backend, to_shard};
use protocol::handshake::Initiator;
use protocol::ids::{Incarnation, MessageId};
use protocol::reason::DropReason;
use protocol::stream::{Delivery, OutboxLimits, StreamEnd};
use protocol::token::{Claims, issue};
use protocol::uplink;

use super::*;

const GROUP: GroupId = GroupId(1);
const GAME: usize = 1;
const UNIX_MS: u64 = 1_790_000_000_000;

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

fn config() -> ShardConfig {
    ShardConfig {
        gateway: "gw-test".into(),
        shard: ShardId(0),
        boot: 7,
        key: StaticKey::from_secret([9; 32]),
        groups: vec![GroupConfig {
            group: GROUP,
            instances: 1,
        }],
        sessions_max: 100,
        connections_before_login_max: 100,
        handshake_timeout_ms: 5_000,
        login_timeout_ms: 10_000,
        heartbeat_interval_ms: 10_000,
        idle_timeout_ms: 30_000,
        frames: rate(200, 1_200),
        bytes: rate(262_144, 524_288),
        send_queue_bytes_max: 393_216,
        uplink_queue_bytes_max: 1 << 20,
        rekey: RekeyPolicy::default(),
        compress_bytes_min: 64,
    }
}

/// 64 secret bytes of a token key, and its public half.
fn token_key() -> ([u8; 64], [u8; 32]) {
    use pasetors::keys::{AsymmetricKeyPair, Generate};
    let pair = AsymmetricKeyPair::<pasetors::version4::V4>::generate().expect("a key");
    let secret = pair.secret.as_bytes().try_into().expect("64 bytes");
    let public = pair.public.as_bytes().try_into().expect("32 bytes");
    (secret, public)
}

/// A shard and what surrounds it.
struct World {
    shard: Shard,
    now: Now,
    token_secret: [u8; 64],
    shared: Shared,
    /// Control messages that reached center and were not answered by `settle`.
    center: Vec<to_backend::Message>,
    /// Records that reached the game.
    game: Vec<(SessionId, u8, Vec<u8>)>,
    actions: Vec<Action>,
    sent: Vec<(ConnId, Vec<u8>)>,
    next_session: u64,
    next_token: u64,
}

impl World {
    fn new(config: ShardConfig) -> Self {
        let (token_secret, public) = token_key();
        let verifier = Verifier::new("sallyport".into(), &[public]).expect("a usable key");
        let now = Now {
            time: Time(1_000_000),
            unix_ms: UNIX_MS,
        };
        let shard = Shard::new(config, verifier, [3; 32], Arc::default(), now);
        let mut world = Self {
            shard,
            now,
            token_secret,
            shared: Shared::default(),
            center: Vec::new(),
            game: Vec::new(),
            actions: Vec::new(),
            sent: Vec::new(),
            next_session: 100,
            next_token: 1,
        };
        world.link(0, 0);
        world.link(GAME, u32::from(GROUP.0));
        world
    }

    fn link(&mut self, uplink: usize, group: u32) {
        self.shard.handle_uplink_connected(uplink);
        let hello = control::BackendHello {
            version: uplink::VERSION,
            instance: format!("backend-{uplink}"),
            boot: 1,
            group,
            wants_address: false,
            lease_ms: 15_000,
        };
        self.control(uplink, to_shard::Message::Hello(hello));
        self.collect();
    }

    fn control(&mut self, uplink: usize, message: to_shard::Message) {
        let bytes = ToShard {
            message: Some(message),
        }
        .encode_to_vec();
        self.shard.handle_uplink_control(self.now, uplink, &bytes);
    }

    /// Takes everything that the shard wants out of it; center answers.
    fn collect(&mut self) {
        loop {
            self.shard.handle_timeout(self.now);
            let mut controls = Vec::new();
            let mut records = Vec::new();
            self.shard.poll_uplink(|uplink, stream, bytes| {
                if stream == 0 {
                    let mut rest = &bytes[..];
                    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                        let (message, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
                        controls.push((
                            uplink,
                            ToBackend::decode(message)
                                .expect("ours")
                                .message
                                .expect("set"),
                        ));
                        rest = tail;
                    }
                } else {
                    let mut run = &bytes[..];
                    while let Some((session, record)) = uplink::next(&mut run).expect("ours") {
                        let mut copy = Vec::new();
                        uplink::encode(session, &record, &mut copy);
                        records.push((session, copy[3], copy));
                    }
                }
                bytes.clear();
            });
            self.game.extend(records);
            while let Some(sent) = self.shard.poll_send() {
                self.shard.handle_sent(sent.0, sent.1.clone());
                self.sent.push(sent);
            }
            while let Some(action) = self.shard.poll_action() {
                self.actions.push(action);
            }
            if controls.is_empty() {
                return;
            }
            for (uplink, message) in controls {
                match message {
                    to_backend::Message::Renew(renew) => {
                        let renewed = control::Renewed {
                            renewal: renew.renewal,
                        };
                        self.control(uplink, to_shard::Message::Renewed(renewed));
                    }
                    to_backend::Message::Claim(claim) => {
                        self.next_session += 1;
                        let granted = control::ClaimGranted {
                            claim: claim.claim,
                            session: self.next_session,
                            fence: self.next_session,
                        };
                        self.control(uplink, to_shard::Message::ClaimGranted(granted));
                    }
                    other => self.center.push(other),
                }
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.time = self.now.time.after_ms(ms);
        self.now.unix_ms += ms;
        self.collect();
    }

    fn token(&mut self) -> String {
        self.next_token += 1;
        let claims = Claims {
            audience: "sallyport".into(),
            account: format!("account-{}", self.next_token),
            id: format!("token-{}", self.next_token),
            issued_unix_ms: self.now.unix_ms,
            expires_unix_ms: self.now.unix_ms + 30_000,
        };
        issue(&self.token_secret, &claims).expect("valid claims")
    }

    fn client_config(&mut self) -> ClientConfig {
        ClientConfig {
            gateway_key: *self.shard.config.key.public(),
            token: self.token(),
            client_version: 1,
            channel: "test".into(),
            device: "test".into(),
            outbox: OutboxLimits::default(),
            rekey: RekeyPolicy::default(),
            compress_bytes_min: 64,
        }
    }

    /// Moves bytes between one client and the shard until both are silent.
    fn exchange(&mut self, id: ConnId, client: &mut Client) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let mut out = Vec::new();
            client.poll_transmit(self.now.time, &mut self.shared, &mut out);
            let silent = out.is_empty();
            if !silent {
                self.shard.handle_received(self.now, id, &mut out);
            }
            self.collect();
            let mut arrived = false;
            for (to, mut bytes) in std::mem::take(&mut self.sent) {
                if to == id {
                    arrived = true;
                    client.handle_received(
                        self.now.time,
                        &mut bytes,
                        &mut self.shared,
                        &mut |event| {
                            events.push(format!("{event:?}"));
                        },
                    );
                } else {
                    self.sent.push((to, bytes));
                }
            }
            if silent && !arrived {
                return events;
            }
        }
    }

    fn accept(&mut self, index: u32) -> ConnId {
        let id = ConnId {
            index,
            generation: 0,
        };
        self.shard.handle_accepted(self.now, id, None);
        id
    }

    /// A logged-in client.
    fn login(&mut self, index: u32) -> (ConnId, Client) {
        let id = self.accept(index);
        let config = self.client_config();
        let mut client =
            Client::connect(config, [index as u8 + 1; 32], self.now.time).expect("a usable key");
        let events = self.exchange(id, &mut client);
        assert!(client.session().is_some(), "{events:?}");
        (id, client)
    }

    fn backend_sends(&mut self, session: SessionId, body: &Body<'_>) {
        let mut record = Vec::new();
        uplink::encode_data(session, &mut record, |out| body.encode(out));
        self.shard.handle_uplink_records(self.now, GAME, &record);
    }

    /// Opens the group for a client, as a backend without memory does.
    fn sync(&mut self, id: ConnId, client: &mut Client) -> StreamEnd {
        let mut end = StreamEnd::backend(GROUP, Incarnation(5));
        end.attach();
        let session = client.session().expect("logged in");
        let sync = end.poll_sync().expect("attached");
        self.backend_sends(session, &Body::Sync(sync));
        self.exchange(id, client);
        let body_of = |record: &[u8]| record.get(uplink::RECORD_HEADER_BYTES).copied();
        let at = self
            .game
            .iter()
            .position(|(_, kind, record)| *kind == 1 && body_of(record) == Some(7));
        let (_, _, record) = self.game.remove(at.expect("the client's SYNC"));
        let Ok(Body::Sync(answer)) = Body::decode(&record[uplink::RECORD_HEADER_BYTES..]) else {
            panic!("not a SYNC: {record:?}")
        };
        assert!(end.handle_sync(&answer));
        end
    }
}

fn push(payload: &[u8], lane: Lane, number: u32) -> Body<'_> {
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
        let events = world.exchange(id, &mut client);
        assert!(
            events.iter().any(|event| event.starts_with("RoundTrip")),
            "{events:?}"
        );
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
        assert!(dropped < 100);
    }
    assert_eq!(world.shard.sessions(), 1, "unreliable frames are dropped");
    world.backend_sends(session, &push(&[1; 900], Lane::Reliable, 1));
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
fn a_backend_that_lags_pauses_its_senders_until_it_has_room() {
    let mut small = config();
    small.uplink_queue_bytes_max = 1_000;
    let mut world = World::new(small);
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    world.shard.handle_uplink_queued(GAME, 1_500);
    client.request(GROUP, MessageId(1), b"x").expect("room");
    world.exchange(id, &mut client);
    assert!(world.actions.contains(&Action::Pause(id)));
    assert!(
        !world.shard.handle_uplink_queued(GAME, 900),
        "not yet below half"
    );
    assert!(world.shard.handle_uplink_queued(GAME, 400));
    world.collect();
    assert!(world.actions.contains(&Action::Resume(id)));
}

#[test]
fn draining_tells_everybody_and_takes_nobody() {
    let mut world = World::new(config());
    let (id, mut client) = world.login(0);
    world.shard.handle_drain();
    world.collect();
    let told = format!(
        "{:?}",
        Event::Closed(Closed::ByGateway(Some(CloseReason::Draining)))
    );
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
            Body::Ping { stamp }.encode(out);
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

#[test]
fn a_client_that_is_not_read_is_not_taken_for_silent() {
    let mut small = config();
    small.uplink_queue_bytes_max = 1_000;
    let mut world = World::new(small);
    let (id, mut client) = world.login(0);
    world.sync(id, &mut client);
    world.shard.handle_uplink_queued(GAME, 1_500);
    client.request(GROUP, MessageId(1), b"x").expect("room");
    world.exchange(id, &mut client);
    for _ in 0..10 {
        world.pass(10_000);
    }
    assert_eq!(world.shard.sessions(), 1);
    assert!(world.shard.handle_uplink_queued(GAME, 0));
    for _ in 0..7 {
        world.pass(10_000);
    }
    assert_eq!(world.shard.counters.closes(CloseReason::IdleTimeout), 1);
}
