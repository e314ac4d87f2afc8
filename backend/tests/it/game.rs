//! A game process over real links: messages echo, sessions outlive a link, a bad link is cut,
//! and a game that has its own time tells of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backend::counters::GameCounters;
use backend::game::{GameConfig, drive_game, open_game};
use backend::map::MapConfig;
use backend::stub::{EchoGame, Game, StubSettings};
use backend::walk::Walk;
use protocol::body::{Body, Lane, MessageHeader, MessageKind, Sync};
use protocol::ids::{Fence, GroupId, MessageId};
use protocol::stream::OutboxLimits;
use protocol::uplink::{Open, Record};
use protocol::world::{CHANGES, Changes, ENTER, Enter, Entry, Point};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::shard::{BACKEND_SEED, GATEWAY_SEED, Shard, identity, run};

const GROUP: GroupId = GroupId(3);
const SESSION: u64 = 41;

/// How long a game may take for one message before it counts as not reading.
const STALL: Duration = Duration::from_millis(500);

struct RunningGame {
    address: SocketAddr,
    counters: Arc<GameCounters>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RunningGame {
    fn start() -> Self {
        Self::start_with(EchoGame)
    }

    fn start_with(game: impl Game + 'static) -> Self {
        let counters = Arc::new(GameCounters::default());
        let config = GameConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            identity: identity(BACKEND_SEED),
            gateway_keys: vec![identity(GATEWAY_SEED).public_key()],
            settings: StubSettings {
                instance: "game-1".to_owned(),
                boot: 88,
                group: GROUP,
                wants_address: false,
                sessions_max: 100,
                outbox: OutboxLimits::default(),
                link_grace_ms: 30_000,
            },
        };
        let open = open_game(config, game, Arc::clone(&counters)).expect("a game");
        let address = open.local_address().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(drive_game(open, async {
            // Dropping the sender is a stop too.
            let _ = stopped.await;
        }));
        Self {
            address,
            counters,
            stop,
            task,
        }
    }

    async fn attach(&self) -> Shard {
        let key = identity(BACKEND_SEED).public_key();
        let (shard, hello) = Shard::attach(self.address, key, "a", 1).await;
        assert_eq!((hello.group, hello.boot), (3, 88));
        shard
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("no panic");
    }

    fn count(&self, name: &str) -> u64 {
        self.counters
            .samples()
            .find(|(metric, _)| metric.name == name)
            .map(|(_, value)| value)
            .expect("a metric of that name")
    }
}

fn open(shard: &mut Shard) {
    let open = Open {
        fence: Fence(5),
        unix_ms: 1,
        client_version: 1,
        address: None,
        away: false,
        account: "ann",
        channel: "",
    };
    shard.record(SESSION, &Record::Open(open));
}

fn say(shard: &mut Shard, body: Body<'_>) {
    let mut bytes = Vec::new();
    body.encode(&mut bytes);
    shard.record(SESSION, &Record::Data(&bytes));
}

fn request(shard: &mut Shard, number: u32, payload: &[u8]) {
    let header = MessageHeader {
        kind: MessageKind::Request,
        lane: Lane::Reliable,
        more: false,
        group: GROUP,
        number,
        ack: number - 1,
        message: MessageId(9),
        request: number,
    };
    say(shard, Body::Message { header, payload });
}

/// What `record` holds about our session.
fn body(record: &[u8]) -> Body<'_> {
    let mut run = record;
    let (session, record) = protocol::uplink::next(&mut run)
        .expect("the game's own record")
        .expect("one record");
    assert_eq!(session.0, SESSION);
    match record {
        Record::Data(body) => Body::decode(body).expect("the game's own body"),
        other => panic!("{other:?}"),
    }
}

async fn agree(shard: &mut Shard, next: u32, base: u32) -> Sync {
    let record = shard.hear_record().await;
    let Body::Sync(sync) = body(&record) else {
        panic!("no SYNC");
    };
    let answer = Sync {
        fresh: false,
        next,
        base,
        ..sync
    };
    say(shard, Body::Sync(answer));
    sync
}

async fn echoed(shard: &mut Shard, number: u32, payload: &[u8]) {
    let record = shard.hear_record().await;
    let Body::Message {
        header,
        payload: echo,
    } = body(&record)
    else {
        panic!("no message");
    };
    assert_eq!(header.kind, MessageKind::Reply);
    assert_eq!((header.number, header.request), (number, number));
    assert_eq!(header.ack, number);
    assert_eq!(echo, payload);
}

#[test]
fn requests_echo_and_a_session_outlives_its_link() {
    run(async {
        let game = RunningGame::start();
        let mut shard = game.attach().await;
        open(&mut shard);
        let first = agree(&mut shard, 1, 1).await;
        assert!(first.fresh);
        for number in 1..=100 {
            request(&mut shard, number, &number.to_le_bytes());
        }
        for number in 1..=100 {
            echoed(&mut shard, number, &number.to_le_bytes()).await;
        }
        shard.cut();
        let mut shard = game.attach().await;
        open(&mut shard);
        // The last reply is asked for again, as if it had been lost.
        let again = agree(&mut shard, 100, 101).await;
        assert_eq!((again.fresh, again.incarnation), (false, first.incarnation));
        assert_eq!(again.next, 101);
        let record = shard.hear_record().await;
        let Body::Message { header, .. } = body(&record) else {
            panic!("no message");
        };
        assert_eq!(header.number, 100);
        let large = vec![7; 30_000];
        request(&mut shard, 101, &large);
        echoed(&mut shard, 101, &large).await;
        assert_eq!(game.count("sallyport_game_connected_total"), 1);
        assert_eq!(game.count("sallyport_game_sessions"), 1);
        assert_eq!(game.count("sallyport_game_messages_received_total"), 101);
        game.stop().await;
    });
}

#[test]
fn two_who_enter_the_map_are_told_of_each_other() {
    run(async {
        let walk = Walk::new(MapConfig::default(), 10).expect("a map");
        let game = RunningGame::start_with(walk);
        let mut shard = game.attach().await;
        let mut told = Vec::new();
        for (session, account) in [(SESSION, "ann"), (SESSION + 1, "bob")] {
            let open = Open {
                fence: Fence(session),
                unix_ms: 1,
                client_version: 1,
                address: None,
                away: false,
                account,
                channel: "",
            };
            shard.record(session, &Record::Open(open));
            let mut payload = Vec::new();
            let at = Point { x: 500, y: 500 };
            Enter { tag: session, at }.encode(&mut payload);
            loop {
                let record = shard.hear_record().await;
                let mut run = record.as_slice();
                let (to, record) = protocol::uplink::next(&mut run)
                    .expect("the game's own record")
                    .expect("one record");
                let Record::Data(bytes) = record else {
                    panic!("{record:?}");
                };
                match Body::decode(bytes).expect("the game's own body") {
                    Body::Sync(sync) => {
                        let answer = Sync {
                            fresh: false,
                            next: 1,
                            base: 1,
                            ..sync
                        };
                        let header = MessageHeader {
                            kind: MessageKind::Request,
                            lane: Lane::Reliable,
                            more: false,
                            group: GROUP,
                            number: 1,
                            ack: 0,
                            message: ENTER,
                            request: 1,
                        };
                        let payload = payload.as_slice();
                        for body in [Body::Sync(answer), Body::Message { header, payload }] {
                            let mut bytes = Vec::new();
                            body.encode(&mut bytes);
                            shard.record(to.0, &Record::Data(&bytes));
                        }
                    }
                    Body::Message { header, payload } if header.kind == MessageKind::Reply => {
                        let entry = Entry::decode(payload).expect("an entry");
                        assert_eq!((to.0, entry.tick_ms), (session, 10));
                        // The first one has nobody to hear of.
                        if session == SESSION {
                            break;
                        }
                    }
                    Body::Message { header, payload } => {
                        assert_eq!((header.lane, header.message), (Lane::Reliable, CHANGES));
                        let changes = Changes::decode(payload).expect("changes");
                        told.extend(changes.enters().map(|one| (to.0, one.tag)));
                        if told.len() == 2 {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        }
        told.sort_unstable();
        assert_eq!(told, [(SESSION, SESSION + 1), (SESSION + 1, SESSION)]);
        assert_eq!(game.count("sallyport_game_players"), 2);
        game.stop().await;
    });
}

#[test]
fn a_restarted_game_starts_streams_anew() {
    run(async {
        let game = RunningGame::start();
        let mut shard = game.attach().await;
        open(&mut shard);
        agree(&mut shard, 1, 1).await;
        request(&mut shard, 1, b"one");
        echoed(&mut shard, 1, b"one").await;
        game.stop().await;
        let (code, _) = shard.closed().await;
        assert_eq!(code, u64::from(uplink::CLOSE_DONE));

        let game = RunningGame::start();
        let mut shard = game.attach().await;
        open(&mut shard);
        let sync = agree(&mut shard, 1, 2).await;
        assert!(sync.fresh);
        let header = MessageHeader {
            kind: MessageKind::Request,
            lane: Lane::Reliable,
            more: false,
            group: GROUP,
            number: 2,
            ack: 0,
            message: MessageId(9),
            request: 2,
        };
        let payload = b"two".as_slice();
        say(&mut shard, Body::Message { header, payload });
        let record = shard.hear_record().await;
        let Body::Message { header, payload } = body(&record) else {
            panic!("no message");
        };
        assert_eq!(
            (header.number, header.ack, payload),
            (1, 2, b"two".as_slice())
        );
        game.stop().await;
    });
}

#[test]
fn a_link_with_bad_records_is_cut_and_nobody_notices() {
    run(async {
        let game = RunningGame::start();
        let mut good = game.attach().await;
        open(&mut good);
        agree(&mut good, 1, 1).await;
        let mut bad = game.attach().await;
        let kick = Record::Kick {
            fence: Fence(1),
            reason: 1,
        };
        bad.record(1, &kick);
        assert_eq!(bad.closed().await, (1, "record".to_owned()));
        request(&mut good, 1, b"still here");
        echoed(&mut good, 1, b"still here").await;
        game.stop().await;
    });
}

#[test]
fn a_gateway_that_does_not_read_is_not_read_and_loses_nothing() {
    run(async {
        let game = RunningGame::start();
        let mut good = game.attach().await;
        let mut slow = game.attach().await;
        open(&mut slow);
        agree(&mut slow, 1, 1).await;
        let payload = vec![7; 30_000];
        let header = MessageHeader {
            kind: MessageKind::Message,
            lane: Lane::Unreliable,
            more: false,
            group: GROUP,
            number: 0,
            ack: 0,
            message: MessageId(9),
            request: 0,
        };
        // More than the game would keep for a link before it gives it up.
        let mut sent = 0;
        while sent < 4 * uplink::QUEUED_BYTES_MAX / payload.len() {
            let payload = payload.as_slice();
            say(&mut slow, Body::Message { header, payload });
            sent += 1;
            // A game that still reads takes a message within far less.
            let stalled = tokio::time::timeout(STALL, slow.flush()).await.is_err();
            if stalled {
                break;
            }
        }
        assert!(
            sent < 2 * uplink::QUEUED_BYTES_MAX / payload.len(),
            "{sent}"
        );
        // Others go on meanwhile.
        let other = Open {
            fence: Fence(6),
            unix_ms: 1,
            client_version: 1,
            address: None,
            away: false,
            account: "bob",
            channel: "",
        };
        good.record(SESSION + 1, &Record::Open(other));
        good.hear_record().await;
        for _ in 0..sent {
            let record = slow.hear_record().await;
            assert!(matches!(body(&record), Body::Message { .. }));
        }
        let received = game.count("sallyport_game_messages_received_total");
        assert_eq!(received, sent as u64);
        game.stop().await;
    });
}
