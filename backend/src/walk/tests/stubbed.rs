//! The game in its stub: what players are told goes out over their links, at the time of a tick.

use protocol::body::{Body, MessageHeader, MessageKind, Sync};
use protocol::control::ShardHello;
use protocol::ids::{Fence, GroupId};
use protocol::reason::CloseReason;
use protocol::stream::OutboxLimits;
use protocol::time::Now;
use protocol::uplink::{self, Open, Record};

use super::*;
use crate::link::LinkId;
use crate::stub::{Stub, StubSettings};

const GROUP: GroupId = GroupId(2);
const LINK: LinkId = LinkId(1);

/// To whom, how, what.
type Told = (u64, Lane, MessageId, Vec<u8>);

struct Rig {
    stub: Stub<Walk>,
    now: Now,
}

impl Rig {
    fn new(outbox: OutboxLimits) -> Self {
        let settings = StubSettings {
            instance: "game".to_owned(),
            boot: 5,
            group: GROUP,
            wants_address: false,
            sessions_max: 10,
            outbox,
            link_grace_ms: 1_000,
        };
        let walk = Walk::new(MapConfig::default(), 100).unwrap();
        let mut stub = Stub::new(settings, walk);
        let hello = ShardHello {
            version: uplink::VERSION,
            gateway: "edge".to_owned(),
            shard: 0,
            boot: 1,
            resume_ms: 0,
        };
        stub.handle_link_up(LINK, &hello).unwrap();
        let now = Now {
            time: ms(0),
            unix_ms: 1,
        };
        Self { stub, now }
    }

    fn record(&mut self, session: u64, record: &Record<'_>) {
        let mut run = Vec::new();
        uplink::encode(SessionId(session), record, &mut run);
        self.stub.handle_records(self.now, LINK, &run).unwrap();
    }

    fn body(&mut self, session: u64, body: &Body<'_>) {
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        self.record(session, &Record::Data(&bytes));
    }

    fn say(&mut self, session: u64, number: u32, message: MessageId, payload: &[u8]) {
        let is_request = message == ENTER;
        let header = MessageHeader {
            kind: if is_request {
                MessageKind::Request
            } else {
                MessageKind::Message
            },
            lane: Lane::Reliable,
            more: false,
            group: GROUP,
            number,
            ack: 0,
            message,
            request: u32::from(is_request),
        };
        self.body(session, &Body::Message { header, payload });
    }

    /// Opens a session, agrees with its client, and enters.
    fn enter(&mut self, session: u64, at: Point) {
        let account = session.to_string();
        self.record(
            session,
            &Record::Open(Open {
                fence: Fence(session),
                unix_ms: 1,
                client_version: 1,
                address: None,
                away: false,
                account: &account,
                channel: "",
            }),
        );
        let (_, syncs) = self.sent();
        let [sync] = syncs[..] else {
            panic!("one SYNC");
        };
        let answer = Sync {
            fresh: false,
            next: 1,
            base: 1,
            ..sync
        };
        self.body(session, &Body::Sync(answer));
        self.say(session, 1, ENTER, &entering(session, at));
        let told = self.told();
        let [(to, Lane::Reliable, ENTER, entry)] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!(*to, session);
        assert_eq!(Entry::decode(entry).unwrap().tick_ms, 100);
    }

    fn sent(&mut self) -> (Vec<Told>, Vec<Sync>) {
        let (mut told, mut syncs) = (Vec::new(), Vec::new());
        self.stub.take_records(&mut |_, _, records| {
            let mut run = records.as_slice();
            while let Some((session, record)) = uplink::next(&mut run).unwrap() {
                let (Record::Data(body) | Record::Latest { body, .. }) = record else {
                    continue;
                };
                match Body::decode(body).unwrap() {
                    Body::Message { header, payload } => {
                        told.push((session.0, header.lane, header.message, payload.to_vec()));
                    }
                    Body::Sync(sync) => syncs.push(sync),
                    _ => {}
                }
            }
            records.clear();
        });
        (told, syncs)
    }

    fn told(&mut self) -> Vec<Told> {
        let (mut told, syncs) = self.sent();
        assert_eq!(syncs, []);
        // Streams of a link are in no order to each other.
        told.sort_by_key(|(session, ..)| *session);
        told
    }

    /// Lets time pass to the end of the next tick.
    fn tick(&mut self) -> Vec<Told> {
        let ticks = self.stub.game().counts().ticks;
        while self.stub.game().counts().ticks == ticks {
            self.now.time = self.stub.poll_timeout().expect("a tick");
            self.stub.handle_timeout(self.now);
        }
        self.told()
    }
}

fn changes(told: &Told) -> Changes<'_> {
    assert_eq!((told.1, told.2), (Lane::Reliable, CHANGES));
    Changes::decode(&told.3).unwrap()
}

#[test]
fn two_players_walk_into_view_see_each_other_and_part() {
    let mut rig = Rig::new(OutboxLimits::default());
    assert_eq!(rig.stub.poll_timeout(), None);
    rig.enter(1, Point { x: 1_000, y: 1_000 });
    rig.enter(2, Point { x: 1_200, y: 1_000 });
    assert_eq!(rig.tick(), [], "too far apart");

    let near = Point { x: 1_100, y: 1_000 };
    rig.say(2, 2, MOVE, &moving(1, near));
    let told = rig.tick();
    let seen: Vec<_> = told
        .iter()
        .flat_map(|told| changes(told).enters().map(move |one| (told.0, one.tag)))
        .collect();
    assert_eq!(seen, [(1, 2), (2, 1)]);

    let nearer = Point { x: 1_050, y: 1_000 };
    rig.say(2, 3, MOVE, &moving(2, nearer));
    let told = rig.tick();
    let [(1, Lane::Sequenced, POSITIONS, payload)] = told.as_slice() else {
        panic!("{told:?}");
    };
    let positions = Positions::decode(payload).unwrap();
    let places: Vec<_> = positions.iter().map(|placed| placed.at).collect();
    assert_eq!(places, [nearer]);

    let end = Record::End {
        fence: Fence(2),
        reason: CloseReason::LoggedOut as u16,
        unix_ms: 2,
    };
    rig.record(2, &end);
    let told = rig.tick();
    let [one] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!((one.0, changes(one).leaves().count()), (1, 1));
    assert_eq!(rig.stub.game().counts().frames_unsent, 0);
    assert_eq!(rig.stub.game().counts().moves_refused, 0);
}

#[test]
fn one_who_acknowledges_nothing_is_ended_and_leaves_the_map() {
    let outbox = OutboxLimits {
        messages_max: 2,
        ..OutboxLimits::default()
    };
    let mut rig = Rig::new(outbox);
    let spot = Point { x: 1_000, y: 1_000 };
    let away = Point { x: 3_000, y: 1_000 };
    rig.enter(1, spot);
    // Its answer is acknowledged, unlike that of the other.
    let ack = Body::Ack {
        group: GROUP,
        ack: 1,
    };
    rig.enter(2, spot);
    rig.body(2, &ack);
    for (number, at) in [(2, away), (3, spot), (4, away)] {
        rig.tick();
        let ack = Body::Ack {
            group: GROUP,
            ack: number,
        };
        rig.body(2, &ack);
        rig.say(2, number, MOVE, &moving(number, at));
    }
    assert_eq!(rig.stub.game().counts().frames_unsent, 1);
    assert_eq!(rig.stub.game().map().players(), 1);
    assert_eq!(rig.stub.counts().sessions, 1);
}
