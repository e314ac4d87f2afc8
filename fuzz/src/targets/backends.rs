//! The inside of the cluster: a shard whose backends say what they like, center and a game's stub
//! whose shards do. They are trusted, and yet none of them may take the others down.

use backend::center::{Center, CenterSettings, DoorSettings, Recovered};
use backend::link::LinkId;
use backend::stub::{EchoGame, Stub, StubSettings};
use gateway::engine::ConnId;
use gateway::shard::Action;
use gateway::testing::{self, CENTER, GAME, GROUP};
use prost::Message as _;
use protocol::body::Body;
use protocol::client::{Client, Closed, Event, Shared};
use protocol::control::{self, ShardHello, ToBackend, to_backend, to_shard};
use protocol::ids::{MessageId, SessionId};
use protocol::reason::CloseReason;
use protocol::stream::OutboxLimits;
use protocol::ticket::Ticket;
use protocol::time::Now;
use protocol::uplink::{self, Record};

use super::layouts::{bodies, live_session, record_seeds, to_backend_bytes};
use super::shard::rig::{Rig, conn};
use crate::script::{Lines, Script, Way};

/// Groups and gateways here have one name each.
const INSTANCE: &str = "instance";

/// A script of what center and a game send to a shard that has clients.
pub fn shard(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let mut rig = Rig::new(script.u8() & 11);
    let mut players = Players::default();
    // Whom center has told nonsense, it may tell its clients.
    let mut center_is_honest = true;
    while !script.is_over() {
        let what = script.u8() % 8;
        rig.way.note(u64::from(what));
        match what {
            0 => {
                center_is_honest = false;
                let message = script.piece();
                rig.shard.handle_uplink_control(rig.now, CENTER, message);
            }
            1 => {
                let message = script.piece();
                rig.shard.handle_uplink_control(rig.now, GAME, message);
            }
            2 | 3 => {
                let run = script.piece();
                rig.shard.handle_uplink_records(rig.now, GAME, run);
            }
            4 => rig.pass(u64::from(script.u16())),
            5 => rig.event(&mut script),
            6 => players.enter(&mut rig),
            _ => players.ask(script.piece()),
        }
        players.settle(&mut rig, center_is_honest);
        rig.check();
    }
    players.are_silent = true;
    rig.end(|rig| players.settle(rig, center_is_honest))
}

/// Honest clients.
#[derive(Default)]
struct Players {
    clients: Vec<(ConnId, Client, bool)>,
    shared: Shared,
    /// They say nothing any more.
    are_silent: bool,
}

impl Players {
    fn enter(&mut self, rig: &mut Rig) {
        if self.clients.len() >= 4 {
            return;
        }
        let id = conn(self.clients.len());
        let number = self.clients.len() as u64 + 1;
        let config = testing::client_config(testing::token(number, rig.now));
        let ephemeral = [20 + number as u8; 32];
        let client = Client::connect(config, ephemeral, rig.now.time).expect("a usable key");
        rig.shard.handle_accepted(rig.now, id, None);
        self.clients.push((id, client, true));
    }

    fn ask(&mut self, payload: &[u8]) {
        if let Some((_, client, _)) = self.clients.last_mut() {
            let _ = client.request(GROUP, MessageId(1), payload);
        }
    }

    /// Moves bytes until all are silent.
    fn settle(&mut self, rig: &mut Rig, center_is_honest: bool) {
        loop {
            rig.turn();
            let mut silent = true;
            for (id, client, is_open) in &mut self.clients {
                let mut out = Vec::new();
                client.poll_transmit(rig.now.time, &mut self.shared, &mut out);
                if *is_open && !out.is_empty() && !self.are_silent {
                    silent = false;
                    rig.shard.handle_received(rig.now, *id, &mut out);
                }
            }
            while let Some((id, buffer)) = rig.shard.poll_send() {
                silent = false;
                let mut bytes = buffer.to_vec();
                let (_, client, is_open) = &mut self.clients[id.index as usize];
                let shared = &mut self.shared;
                client.handle_received(rig.now.time, &mut bytes, shared, &mut |event| {
                    // What a REJECT says counts as the client's own reason; and it ends a session
                    // itself whose game names another end of its stream without being a new one.
                    if let Event::Closed(Closed::ByClient(reason)) = event
                        && !matches!(
                            reason,
                            CloseReason::Draining | CloseReason::Full | CloseReason::LinkLost
                        )
                    {
                        assert!(!center_is_honest, "a client closes: {}", reason.label());
                    }
                });
                if *is_open {
                    rig.shard.handle_sent(id, buffer);
                }
            }
            while let Some(action) = rig.actions.pop_front() {
                silent = false;
                if let Action::Close(id) = action {
                    let (_, _, is_open) = &mut self.clients[id.index as usize];
                    if std::mem::replace(is_open, false) {
                        rig.shard.handle_closed(rig.now, id);
                    }
                }
            }
            if silent {
                return;
            }
        }
    }
}

/// Control messages of center and game, records, in every state of a client.
pub fn shard_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for options in [0, 2, 9] {
        let begin = || Lines::default().raw(&[options, 6]).piece(7, b"request");
        for message in to_shard_messages() {
            let script = begin().piece(0, &message).piece(1, &message);
            seeds.push(script.raw(&[5, 1, 5, 3, 6, 4, 100, 0]).done());
        }
        for record in record_seeds() {
            seeds.push(begin().piece(2, &record).raw(&[4, 0, 1]).done());
        }
        for body in bodies() {
            let mut record = Vec::new();
            uplink::encode(SessionId(1), &Record::Data(&body), &mut record);
            seeds.push(begin().piece(2, &record).piece(7, b"more").done());
        }
    }
    seeds
}

/// What a shard may be told.
#[allow(
    clippy::needless_update,
    reason = "messages get fields; these examples go on without them"
)]
pub fn to_shard_messages() -> Vec<Vec<u8>> {
    let messages = [
        to_shard::Message::ClaimGranted(control::ClaimGranted {
            claim: 1,
            session: 9,
            fence: 9,
            ..control::ClaimGranted::default()
        }),
        to_shard::Message::ClaimRefused(control::ClaimRefused {
            claim: 1,
            refusal: control::ClaimRefusal::Full as i32,
            retry_after_ms: 5,
            ..control::ClaimRefused::default()
        }),
        to_shard::Message::Renewed(control::Renewed {
            renewal: 1,
            ..control::Renewed::default()
        }),
        to_shard::Message::Revoke(control::Revoke {
            session: 1,
            fence: 1,
            reason: 43,
            text: String::new(),
            ..control::Revoke::default()
        }),
        to_shard::Message::Found(control::Found {
            seek: 1,
            session: 1,
            ticket: vec![3; 32],
            ..control::Found::default()
        }),
        to_shard::Message::Moved(control::Moved {
            r#move: 1,
            session: Some(live_session(1)),
            ..control::Moved::default()
        }),
    ];
    let mut messages: Vec<Vec<u8>> = messages.into_iter().map(testing::to_shard_bytes).collect();
    messages.push(testing::hello(GAME, u32::from(GROUP.0), 15_000));
    messages
}

/// What center may be told.
#[allow(
    clippy::needless_update,
    reason = "messages get fields; these examples go on without them"
)]
pub fn to_center_messages() -> Vec<Vec<u8>> {
    let claim = |claim, account: &str| {
        to_backend::Message::Claim(control::Claim {
            claim,
            account: account.to_owned(),
            token_id: format!("token-{claim}"),
            token_expires_unix_ms: testing::start().unix_ms + 30_000,
            client_version: 1,
            channel: "store".to_owned(),
            slot: 1,
            generation: 0,
            ..control::Claim::default()
        })
    };
    [
        claim(1, "alice"),
        claim(2, "bob"),
        to_backend::Message::Abandon(control::Abandon {
            claim: 1,
            ..control::Abandon::default()
        }),
        to_backend::Message::Release(control::Release {
            session: 1,
            fence: 1,
            ..control::Release::default()
        }),
        to_backend::Message::Renew(control::Renew {
            renewal: 1,
            ..control::Renew::default()
        }),
        to_backend::Message::Rebuild(control::Rebuild {
            sessions: vec![live_session(1), live_session(2)],
            last: true,
            ..control::Rebuild::default()
        }),
        to_backend::Message::Update(control::Update {
            session: 1,
            fence: 1,
            ticket: vec![3; 32],
            bindings: vec![instance()],
            left: vec![instance()],
            ..control::Update::default()
        }),
        to_backend::Message::Seek(control::Seek {
            seek: 1,
            ticket: Ticket::from_key([3; 32]).id().0,
            ..control::Seek::default()
        }),
        to_backend::Message::Move(control::Move {
            r#move: 1,
            session: 1,
            ticket: Ticket::from_key([3; 32]).id().0,
            next: vec![4; 32],
            ..control::Move::default()
        }),
    ]
    .into_iter()
    .map(to_backend_bytes)
    .collect()
}

fn instance() -> control::Instance {
    control::Instance {
        group: u32::from(GROUP.0),
        name: "backend-1".to_owned(),
        boot: 1,
    }
}

/// A hello of a shard.
fn shard_hello(shard: u32, boot: u64) -> ShardHello {
    ShardHello {
        version: uplink::VERSION,
        gateway: "gateway".to_owned(),
        shard,
        boot,
        resume_ms: 1_000,
    }
}

/// Links that one script may have.
const LINKS: u64 = 3;
/// Sessions at a time, so few that scripts reach it.
const SESSIONS_MAX: usize = 4;

/// A script of what shards tell center, and of what its disk does.
pub fn center(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let mut now = testing::start();
    let settings = CenterSettings {
        instance: INSTANCE.to_owned(),
        boot: 1,
        lease_ms: 1_000,
        sessions_max: SESSIONS_MAX,
        door: DoorSettings::OPEN,
    };
    let mut center = Center::new(
        now,
        settings,
        Recovered::replay(&[]).expect("an empty journal"),
    );
    let mut up = [false; LINKS as usize];
    let mut way = Way::default();
    // The highest session and fence that were granted.
    let mut granted = (0, 0);
    let mut disk_works = true;
    while !script.is_over() {
        let what = script.u8() % 8;
        let link = LinkId(u64::from(script.u8()) % LINKS);
        let is_up = &mut up[link.0 as usize];
        way.note(u64::from(what));
        match what {
            0..=3 => {
                if let Ok(message) = ToBackend::decode(script.piece())
                    && *is_up
                    && center.handle_control(now, link, message).is_err()
                {
                    *is_up = false;
                    center.handle_link_down(link);
                    way.note(100);
                }
            }
            4 => {
                let hello = shard_hello(link.0 as u32, u64::from(script.u8()));
                if !std::mem::replace(is_up, true) {
                    center
                        .handle_link_up(now, link, &hello)
                        .expect("a good hello");
                }
            }
            5 => {
                if std::mem::replace(is_up, false) {
                    center.handle_link_down(link);
                }
            }
            6 => {
                pass(&mut now, u64::from(script.u16()));
                center.handle_timeout(now);
            }
            _ => disk_works ^= true,
        }
        while let Some(batch) = center.poll_append() {
            match disk_works {
                true => center.handle_durable(now, batch.id, 1_000),
                false => center.handle_journal_failed(now),
            }
        }
        while let Some((link, message)) = center.poll_send() {
            if let Some(to_shard::Message::ClaimGranted(grant)) = message.message {
                let (session, fence) = granted;
                assert!(
                    grant.session > session && grant.fence > fence,
                    "granted twice"
                );
                granted = (grant.session, grant.fence);
                way.note(101);
            }
            assert!(link.0 < LINKS);
        }
        while let Some((link, _)) = center.poll_close() {
            up[link.0 as usize] = false;
            center.handle_link_down(link);
        }
        let counts = center.counts();
        assert!(
            counts.sessions as usize <= SESSIONS_MAX,
            "{} sessions",
            counts.sessions
        );
        // Links may lead to so many shards and boots as hellos name; each is forgotten with
        // its lease.
        way.note(counts.sessions);
        way.count(counts.claims_waiting);
        way.note(u64::from(counts.degraded));
    }
    // Nobody renews anything: all leases run out, and the sessions with them.
    for link in 0..LINKS {
        center.handle_link_down(LinkId(link));
    }
    for _ in 0..20 {
        pass(&mut now, 1_000);
        center.handle_timeout(now);
        while let Some(batch) = center.poll_append() {
            center.handle_durable(now, batch.id, 1_000);
        }
        while center.poll_send().is_some() {}
        while center.poll_close().is_some() {}
    }
    let counts = center.counts();
    assert_eq!(
        (counts.sessions, counts.shards, counts.claims_waiting),
        (0, 0, 0)
    );
    way.value()
}

fn pass(now: &mut Now, ms: u64) {
    now.time = now.time.after_ms(ms);
    now.unix_ms += ms;
}

/// Every message, in two orders, and the faults.
pub fn center_seeds() -> Vec<Vec<u8>> {
    let messages = to_center_messages();
    let mut all = Lines::default().raw(&[4, 0, 0, 4, 1, 0]);
    for message in &messages {
        all = all.raw(&[0]).raw(&[0]).raw(&length_and(message));
    }
    let mut back = Lines::default().raw(&[7, 0, 4, 0, 0]);
    for message in messages.iter().rev() {
        back = back
            .raw(&[1, 0])
            .raw(&length_and(message))
            .raw(&[6, 0, 0xf4, 1]);
    }
    back = back.raw(&[7, 0, 6, 0, 0x88, 0x13, 5, 0, 4, 0, 1]);
    vec![all.done(), back.done()]
}

fn length_and(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}

/// A script of what shards send to a game.
pub fn stub(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let mut now = testing::start();
    let settings = StubSettings {
        instance: INSTANCE.to_owned(),
        boot: 1,
        group: GROUP,
        wants_address: true,
        sessions_max: SESSIONS_MAX,
        outbox: OutboxLimits {
            messages_max: 8,
            bytes_max: 4_096,
        },
        link_grace_ms: 2_000,
    };
    let mut stub = Stub::new(settings, EchoGame);
    let mut up = [false; LINKS as usize];
    let mut way = Way::default();
    while !script.is_over() {
        let what = script.u8() % 8;
        let link = LinkId(u64::from(script.u8()) % LINKS);
        let is_up = &mut up[link.0 as usize];
        way.note(u64::from(what));
        match what {
            0..=3 => {
                let run = script.piece();
                if *is_up && stub.handle_records(now, link, run).is_err() {
                    *is_up = false;
                    stub.handle_link_down(now, link);
                    way.note(100);
                }
            }
            4 => {
                let hello = shard_hello(link.0 as u32, 1);
                if !std::mem::replace(is_up, true) {
                    stub.handle_link_up(link, &hello).expect("a good hello");
                }
            }
            5 => {
                if std::mem::replace(is_up, false) {
                    stub.handle_link_down(now, link);
                }
            }
            _ => {
                pass(&mut now, u64::from(script.u16()));
                stub.handle_timeout(now);
            }
        }
        read(&mut stub);
        let counts = stub.counts();
        assert!(
            counts.sessions as usize <= SESSIONS_MAX,
            "{} sessions",
            counts.sessions
        );
        assert_eq!(counts.connected - counts.disconnected, counts.sessions);
        way.note(counts.sessions);
        way.count(counts.sent);
        for drops in counts.drops {
            way.note(u64::from(drops > 0));
        }
    }
    for link in 0..LINKS {
        stub.handle_link_down(now, LinkId(link));
    }
    pass(&mut now, 10_000);
    stub.handle_timeout(now);
    read(&mut stub);
    assert_eq!(stub.counts().sessions, 0, "sessions without a link");
    way.value()
}

/// What the stub sends is what a backend may send.
fn read(stub: &mut Stub<EchoGame>) {
    while stub.poll_send().is_some() {}
    stub.take_records(&mut |_, stream, bytes| {
        let mut run = &bytes[..];
        while let Some((session, record)) = uplink::next(&mut run).expect("the stub's records") {
            assert_eq!(uplink::stream_of(session), stream);
            match record {
                Record::Data(body) => match Body::decode(body) {
                    Ok(Body::Sync(_) | Body::Ack { .. } | Body::Message { .. }) => {}
                    other => panic!("a game sent {other:?}"),
                },
                Record::Kick { .. } => {}
                other => panic!("a gateway's record: {other:?}"),
            }
        }
        bytes.clear();
    });
}

/// A session that opens, speaks, goes away and ends; and each record by itself.
pub fn stub_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let records = record_seeds();
    for record in &records {
        let begin = Lines::default()
            .raw(&[4, 0, 0, 0])
            .raw(&length_and(&records[1]));
        seeds.push(
            begin
                .raw(&[1, 0])
                .raw(&length_and(record))
                .raw(&[6, 0, 0, 9])
                .done(),
        );
    }
    let mut talk = Lines::default()
        .raw(&[4, 0, 0, 0])
        .raw(&length_and(&records[1]));
    for body in bodies() {
        let mut record = Vec::new();
        uplink::encode(SessionId(1), &Record::Data(&body), &mut record);
        talk = talk.raw(&[0, 0]).raw(&length_and(&record));
    }
    seeds.push(talk.raw(&[5, 0, 4, 1, 6, 0, 0, 9]).done());
    seeds
}
