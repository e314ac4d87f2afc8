//! Rules one by one; random histories are in [`histories`].

mod histories;

use protocol::body::Sync;
use protocol::ids::{Incarnation, MessageId};
use protocol::limits::PAYLOAD_BYTES_MAX;
use protocol::quality::Quality;

use super::*;

const GROUP: GroupId = GroupId(7);
const BOOT: u64 = 0xb007;
const UNIX_MS: u64 = 1_800_000_000_000;

/// Notes what it is told, and sends back what [`EchoGame`] does.
#[derive(Default)]
struct NotingGame {
    notes: Vec<String>,
    /// Kicks who sends this.
    kick_on: Option<Vec<u8>>,
}

impl Game for NotingGame {
    fn connected(&mut self, _: &mut Context<'_>, player: &Player<'_>) {
        self.notes
            .push(format!("connected {} {}", player.account, player.fence));
    }

    fn disconnected(&mut self, context: &mut Context<'_>, departure: &Departure) {
        let gone = context.push(departure.session, Lane::Reliable, MessageId(1), b"");
        assert_eq!(gone, Err(SendError::Gone));
        let reason = departure.reason.map_or("?", CloseReason::label);
        self.notes
            .push(format!("disconnected {} {reason}", departure.session));
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        if self.kick_on.as_deref() == Some(message.payload) {
            context.kick(message.session, CloseReason::Kicked);
        }
        EchoGame.message(context, message);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        EchoGame.request(context, request, payload);
    }
}

fn at_ms(ms: u64) -> Now {
    Now {
        time: Time(0).after_ms(ms),
        unix_ms: UNIX_MS + ms,
    }
}

fn settings() -> StubSettings {
    StubSettings {
        instance: "game".to_owned(),
        boot: BOOT,
        group: GROUP,
        wants_address: false,
        sessions_max: 3,
        outbox: OutboxLimits::default(),
        link_grace_ms: 1_000,
    }
}

fn hello() -> ShardHello {
    ShardHello {
        version: uplink::VERSION,
        gateway: "edge".to_owned(),
        shard: 0,
        boot: 1,
        resume_ms: 0,
    }
}

fn open(fence: u64, account: &str) -> Record<'_> {
    Record::Open(Open {
        fence: Fence(fence),
        unix_ms: UNIX_MS,
        client_version: 1,
        address: None,
        away: false,
        account,
        channel: "",
    })
}

/// A record that the stub sent, decoded as far as tests look at it.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Sync(Sync),
    Ack(u32),
    Message(MessageHeader, Vec<u8>),
    Kick(u64, CloseReason),
}

struct Rig {
    stub: Stub<NotingGame>,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            stub: Stub::new(settings(), NotingGame::default()),
            now: at_ms(0),
        };
        rig.link(1);
        rig
    }

    fn link(&mut self, link: u64) -> LinkId {
        self.stub
            .handle_link_up(LinkId(link), &hello())
            .expect("a good hello");
        let (to, message) = self.stub.poll_send().expect("an answer");
        assert_eq!(to, LinkId(link));
        match message.message {
            Some(to_shard::Message::Hello(hello)) => {
                assert_eq!((hello.group, hello.boot), (u32::from(GROUP.0), BOOT));
            }
            other => panic!("{other:?}"),
        }
        LinkId(link)
    }

    fn record(&mut self, link: u64, session: u64, record: Record<'_>) {
        let mut run = Vec::new();
        uplink::encode(SessionId(session), &record, &mut run);
        self.stub
            .handle_records(self.now, LinkId(link), &run)
            .expect("good records");
    }

    fn body(&mut self, link: u64, session: u64, body: Body<'_>) {
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        self.record(link, session, Record::Data(&bytes));
    }

    fn sync(&mut self, link: u64, session: u64, incarnation: u64, next: u32, base: u32) {
        let sync = Sync {
            fresh: false,
            group: GROUP,
            incarnation: Incarnation(incarnation),
            next,
            base,
        };
        self.body(link, session, Body::Sync(sync));
    }

    fn message(&mut self, link: u64, session: u64, lane: Lane, number: u32, payload: &[u8]) {
        let header = MessageHeader {
            kind: MessageKind::Message,
            lane,
            more: false,
            group: GROUP,
            number,
            ack: 0,
            message: MessageId(5),
            request: 0,
        };
        self.body(link, session, Body::Message { header, payload });
    }

    fn wait_until(&mut self, ms: u64) {
        while let Some(due) = self.stub.poll_timeout()
            && due <= Time(0).after_ms(ms)
        {
            self.now = at_ms(due.ms());
            self.stub.handle_timeout(self.now);
        }
        self.now = at_ms(ms);
    }

    /// What was sent over which link about which session.
    fn out(&mut self) -> Vec<(u64, u64, Out)> {
        let mut found = Vec::new();
        self.stub.take_records(&mut |link, stream, records| {
            let mut run = records.as_slice();
            while let Some((session, record)) = uplink::next(&mut run).expect("our own records") {
                assert_eq!(stream, uplink::stream_of(session));
                let out = match record {
                    Record::Data(body) => match Body::decode(body).expect("our own body") {
                        Body::Sync(sync) => Out::Sync(sync),
                        Body::Ack { ack, .. } => Out::Ack(ack),
                        Body::Message { header, payload } => Out::Message(header, payload.to_vec()),
                        other => panic!("{other:?}"),
                    },
                    Record::Kick { fence, reason } => Out::Kick(
                        fence.0,
                        CloseReason::from_code(reason).expect("a known reason"),
                    ),
                    other => panic!("{other:?}"),
                };
                found.push((link.0, session.0, out));
            }
            records.clear();
        });
        found
    }

    /// Opens a session and agrees with its client.
    fn player(&mut self, session: u64, fence: u64, account: &str) -> u64 {
        self.record(1, session, open(fence, account));
        let incarnation = match self.out().as_slice() {
            [(1, id, Out::Sync(sync))] if *id == session => {
                assert!(sync.fresh);
                sync.incarnation.0
            }
            other => panic!("{other:?}"),
        };
        self.sync(1, session, incarnation, 1, 1);
        assert_eq!(self.out(), []);
        incarnation
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.stub.game.notes)
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.stub.counts().drops[reason as usize]
    }

    fn kicks(&self) -> u64 {
        self.stub.counts().kicks.iter().sum()
    }
}

fn payloads(out: &[(u64, u64, Out)]) -> Vec<&[u8]> {
    out.iter()
        .map(|(_, _, out)| match out {
            Out::Message(_, payload) => payload.as_slice(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn messages_come_back_with_their_acknowledgement() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    rig.message(1, 1, Lane::Reliable, 1, b"hello");
    match rig.out().as_slice() {
        [(1, 1, Out::Message(header, payload))] => {
            assert_eq!((header.number, header.ack), (1, 1));
            assert_eq!(header.message, MessageId(5));
            assert_eq!(payload, b"hello");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        rig.stub.poll_timeout(),
        None,
        "nothing is left to acknowledge"
    );
}

#[test]
fn a_request_is_answered_and_a_message_comes_back_in_its_lane() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    let header = MessageHeader {
        kind: MessageKind::Request,
        lane: Lane::Reliable,
        more: false,
        group: GROUP,
        number: 1,
        ack: 0,
        message: MessageId(5),
        request: 99,
    };
    let payload = b"q".as_slice();
    rig.body(1, 1, Body::Message { header, payload });
    match rig.out().as_slice() {
        [(1, 1, Out::Message(reply, payload))] => {
            assert_eq!(reply.kind, MessageKind::Reply);
            assert_eq!((reply.request, reply.more, reply.number), (99, false, 1));
            assert_eq!(payload, b"q");
        }
        other => panic!("{other:?}"),
    }
    for (lane, number) in [(Lane::Unreliable, 0), (Lane::Sequenced, 1)] {
        rig.message(1, 1, lane, number, b"m");
        match rig.out().as_slice() {
            [(1, 1, Out::Message(push, payload))] => {
                assert_eq!((push.lane, push.number, push.ack), (lane, number, 1));
                assert_eq!(payload, b"m");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_request_may_have_several_answers_later_and_errors() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    let request = Request {
        session: SessionId(1),
        message: MessageId(3),
        request: 4,
    };
    rig.stub.call(at_ms(5), |_, context| {
        context.reply_more(&request, b"one").expect("room");
        context.reply(&request, b"two").expect("room");
        context.reply_error(&request, 9, "no").expect("room");
        let long = vec![0; PAYLOAD_BYTES_MAX + 1];
        assert_eq!(context.reply(&request, &long), Err(SendError::TooLong));
    });
    let out = rig.out();
    assert_eq!(payloads(&out), [b"one".as_slice(), b"two", b"\x09\x00no"]);
    let more: Vec<_> = out
        .iter()
        .map(|(_, _, out)| match out {
            Out::Message(header, _) => (header.kind, header.more),
            other => panic!("{other:?}"),
        })
        .collect();
    let kinds = [
        (MessageKind::Reply, true),
        (MessageKind::Reply, false),
        (MessageKind::Error, false),
    ];
    assert_eq!(more, kinds);
}

#[test]
fn what_is_not_answered_is_acknowledged_in_time() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    rig.player(2, 11, "bob");
    // Nothing of theirs is answered: echo's pushes are taken away from the outbox by hand.
    for session in [1, 2] {
        let stream = |rig: &mut Rig| {
            let session = rig.stub.core.sessions.get_mut(&SessionId(session));
            session
                .expect("it is here")
                .stream
                .handle_message(1, 0, at_ms(0).time)
        };
        assert_eq!(stream(&mut rig), Delivery::Deliver);
        rig.stub.core.flush(at_ms(0).time, SessionId(session));
    }
    let wait = protocol::limits::ACK_DELAY_MS;
    rig.wait_until(wait - 1);
    assert_eq!(rig.out(), []);
    rig.wait_until(wait);
    assert_eq!(rig.out(), [(1, 1, Out::Ack(1)), (1, 2, Out::Ack(1))]);
    assert_eq!(rig.stub.poll_timeout(), None);
}

#[test]
fn a_fresh_end_waits_for_the_clients_sync_and_takes_its_base() {
    let mut rig = Rig::new();
    rig.record(1, 1, open(10, "ann"));
    rig.out();
    rig.message(1, 1, Lane::Reliable, 1, b"early");
    assert_eq!(rig.drops(DropReason::StreamNotSynced), 1);
    rig.sync(1, 1, BOOT + 1, 1, 40);
    assert_eq!(rig.drops(DropReason::StreamNotSynced), 2, "for another end");
    rig.sync(1, 1, BOOT, 1, 40);
    rig.message(1, 1, Lane::Reliable, 40, b"forty");
    assert_eq!(payloads(&rig.out()), [b"forty"]);
    rig.message(1, 1, Lane::Reliable, 40, b"forty");
    assert_eq!(rig.drops(DropReason::StreamRepeated), 1);
    assert_eq!(rig.out(), [(1, 1, Out::Ack(40))]);
    rig.message(1, 1, Lane::Reliable, 42, b"forty-two");
    assert_eq!(rig.drops(DropReason::StreamGap), 1);
    match rig.out().as_slice() {
        [(1, 1, Out::Sync(sync))] => assert_eq!((sync.fresh, sync.next), (false, 41)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_open_again_is_no_new_player_and_syncs_again() {
    let mut rig = Rig::new();
    let incarnation = rig.player(1, 10, "ann");
    rig.message(1, 1, Lane::Reliable, 1, b"one");
    rig.out();
    rig.stub.handle_link_down(rig.now, LinkId(1));
    assert_eq!(rig.stub.counts().detached, 1);
    rig.stub.call(rig.now, |_, context| {
        let pushed = context.push(SessionId(1), Lane::Reliable, MessageId(1), b"two");
        assert_eq!(pushed, Ok(()));
        let lost = context.push(SessionId(1), Lane::Unreliable, MessageId(1), b"lost");
        assert_eq!(lost, Ok(()));
    });
    assert_eq!(rig.drops(DropReason::GroupDown), 1);
    rig.link(2);
    rig.record(2, 1, open(10, "ann"));
    match rig.out().as_slice() {
        [(2, 1, Out::Sync(sync))] => {
            assert_eq!(sync.incarnation.0, incarnation);
            assert_eq!((sync.fresh, sync.next, sync.base), (false, 2, 1));
        }
        other => panic!("{other:?}"),
    }
    rig.sync(2, 1, incarnation, 1, 2);
    assert_eq!(payloads(&rig.out()), [b"one", b"two"]);
    assert_eq!(rig.notes(), ["connected ann 10"]);
    assert_eq!(rig.stub.counts().detached, 0);
    rig.wait_until(60_000);
    assert_eq!(rig.stub.counts().sessions, 1);
}

#[test]
fn while_a_client_is_away_its_messages_wait() {
    let mut rig = Rig::new();
    let incarnation = rig.player(1, 10, "ann");
    let Record::Open(open) = open(10, "ann") else {
        unreachable!("an OPEN")
    };
    rig.record(1, 1, Record::Open(Open { away: true, ..open }));
    rig.stub.call(rig.now, |_, context| {
        for (lane, payload) in [(Lane::Reliable, b"kept"), (Lane::Unreliable, b"lost")] {
            let pushed = context.push(SessionId(1), lane, MessageId(1), payload);
            assert_eq!(pushed, Ok(()));
        }
    });
    assert_eq!(rig.out(), []);
    assert_eq!(rig.drops(DropReason::GroupDown), 1);
    rig.wait_until(60_000);
    assert_eq!(rig.notes(), ["connected ann 10"], "the gateway says when");
    rig.record(1, 1, Record::Open(open));
    assert!(matches!(rig.out().as_slice(), [(1, 1, Out::Sync(_))]));
    rig.sync(1, 1, incarnation, 1, 1);
    assert_eq!(payloads(&rig.out()), [b"kept"]);
    assert_eq!(rig.notes(), [""; 0]);
}

#[test]
fn what_waits_for_a_client_that_is_away_is_bounded_in_bytes() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    let Record::Open(open) = open(10, "ann") else {
        unreachable!("an OPEN")
    };
    rig.record(1, 1, Record::Open(Open { away: true, ..open }));
    let payload = vec![7; 30_000];
    let mut taken = 0;
    rig.stub.call(rig.now, |_, context| {
        while context.push(SessionId(1), Lane::Reliable, MessageId(1), &payload) == Ok(()) {
            taken += payload.len();
        }
    });
    let bytes_max = OutboxLimits::default().bytes_max;
    assert!(taken <= bytes_max && taken + payload.len() + 100 > bytes_max);
    assert_eq!(
        rig.notes(),
        ["connected ann 10", "disconnected 1 outbox_overflow"]
    );
}

#[test]
fn a_session_whose_gateway_stays_away_ends_for_good() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    rig.stub.handle_link_down(rig.now, LinkId(1));
    rig.wait_until(500);
    rig.link(2);
    rig.record(2, 1, open(10, "ann"));
    rig.stub.handle_link_down(rig.now, LinkId(2));
    rig.wait_until(1_499);
    assert_eq!(rig.stub.counts().sessions, 1);
    rig.wait_until(1_500);
    assert_eq!(
        rig.notes(),
        ["connected ann 10", "disconnected 1 link_lost"]
    );
    assert_eq!(rig.stub.poll_timeout(), None);
    rig.link(3);
    rig.record(3, 1, open(10, "ann"));
    assert_eq!(rig.out(), [(3, 1, Out::Kick(10, CloseReason::LinkLost))]);
    rig.record(3, 2, open(11, "ann"));
    assert_eq!(rig.notes(), ["connected ann 11"]);
    assert_eq!(rig.stub.counts().detached, 0);
}

#[test]
fn a_session_goes_on_over_the_link_of_another_gateway() {
    for says_gone in [0, 1, 2] {
        let mut rig = Rig::new();
        let incarnation = rig.player(1, 10, "ann");
        rig.message(1, 1, Lane::Reliable, 1, b"one");
        rig.out();
        rig.link(2);
        // The old gateway hears of it before the new one's OPEN comes, after it, or never.
        if says_gone == 1 {
            rig.record(1, 1, Record::Gone);
            assert_eq!(rig.stub.counts().detached, 1);
        }
        rig.record(2, 1, open(12, "ann"));
        if says_gone == 2 {
            rig.record(1, 1, Record::Gone);
        }
        assert_eq!(rig.stub.counts().detached, 0);
        match rig.out().as_slice() {
            [(2, 1, Out::Sync(sync))] => {
                assert_eq!((sync.incarnation.0, sync.fresh), (incarnation, false));
            }
            other => panic!("{other:?}"),
        }
        rig.sync(2, 1, incarnation, 1, 2);
        assert_eq!(payloads(&rig.out()), [b"one"]);
        // What the old one still says of it counts no more.
        rig.message(1, 1, Lane::Reliable, 2, b"stale");
        assert_eq!(rig.drops(DropReason::SessionGone), 1);
        rig.record(1, 1, open(10, "ann"));
        assert_eq!(rig.out(), [(1, 1, Out::Kick(10, CloseReason::Revoked))]);
        let end = Record::End {
            fence: Fence(10),
            reason: CloseReason::NotResumed as u16,
            unix_ms: UNIX_MS,
        };
        rig.record(1, 1, end);
        assert_eq!(rig.drops(DropReason::StaleFence), 2);
        rig.wait_until(60_000);
        assert_eq!(rig.notes(), ["connected ann 10"]);
    }
}

#[test]
fn a_session_that_ended_here_is_not_opened_under_a_higher_fence() {
    // By the gateway's word, which crossed with the move; and by this side's.
    for by_gateway in [true, false] {
        let mut rig = Rig::new();
        rig.player(1, 10, "ann");
        rig.link(2);
        if by_gateway {
            let end = Record::End {
                fence: Fence(10),
                reason: CloseReason::NotResumed as u16,
                unix_ms: UNIX_MS,
            };
            rig.record(1, 1, end);
        } else {
            rig.stub.handle_link_down(rig.now, LinkId(1));
            rig.wait_until(1_000);
        }
        rig.record(2, 1, open(11, "ann"));
        assert_eq!(rig.out(), [(2, 1, Out::Kick(11, CloseReason::LinkLost))]);
        assert_eq!(rig.stub.counts().sessions, 0);
        // A new session of the account is welcome.
        rig.record(2, 3, open(12, "ann"));
        assert_eq!(rig.stub.counts().sessions, 1);
    }
}

#[test]
fn a_lower_fence_is_refused_and_a_higher_one_takes_over() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    rig.link(2);
    rig.record(2, 1, open(9, "ann"));
    assert_eq!(rig.out(), [(2, 1, Out::Kick(9, CloseReason::Revoked))]);
    rig.record(2, 4, open(8, "ann"));
    assert_eq!(rig.out(), [(2, 4, Out::Kick(8, CloseReason::Revoked))]);
    assert_eq!(rig.drops(DropReason::StaleFence), 2);
    rig.message(1, 1, Lane::Reliable, 1, b"still here");
    assert_eq!(payloads(&rig.out()), [b"still here"]);
    rig.record(2, 5, open(12, "ann"));
    let out = rig.out();
    assert_eq!(out[0], (1, 1, Out::Kick(10, CloseReason::Revoked)));
    assert!(matches!(out[1], (2, 5, Out::Sync(_))));
    let notes = [
        "connected ann 10",
        "disconnected 1 revoked",
        "connected ann 12",
    ];
    assert_eq!(rig.notes(), notes);
    rig.message(1, 1, Lane::Reliable, 2, b"too late");
    assert_eq!(rig.drops(DropReason::SessionGone), 1);
}

#[test]
fn an_earlier_session_is_refused_even_after_the_later_one_has_gone() {
    let mut rig = Rig::new();
    rig.player(13, 13, "ann");
    let end = Record::End {
        fence: Fence(13),
        reason: CloseReason::LoggedOut as u16,
        unix_ms: UNIX_MS,
    };
    rig.record(1, 13, end);
    // Held up on another link for as long as the later session lasted.
    rig.link(2);
    rig.record(2, 7, open(7, "ann"));
    assert_eq!(rig.out(), [(2, 7, Out::Kick(7, CloseReason::Revoked))]);
    assert_eq!(
        rig.notes(),
        ["connected ann 13", "disconnected 13 logged_out"]
    );
    rig.player(14, 14, "ann");
}

#[test]
fn an_end_counts_with_its_fence_only() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    let end = |fence| Record::End {
        fence: Fence(fence),
        reason: CloseReason::LoggedOut as u16,
        unix_ms: 5,
    };
    rig.record(1, 1, end(9));
    assert_eq!(rig.drops(DropReason::StaleFence), 1);
    rig.record(1, 1, end(10));
    rig.record(1, 1, end(10));
    rig.record(1, 1, Record::Gone);
    assert_eq!(
        rig.notes(),
        ["connected ann 10", "disconnected 1 logged_out"]
    );
    rig.message(1, 1, Lane::Reliable, 1, b"late");
    assert_eq!(rig.drops(DropReason::SessionGone), 1);
    rig.player(2, 11, "bob");
    rig.record(1, 2, Record::Gone);
    assert_eq!(rig.notes(), ["connected bob 11"]);
    assert_eq!(rig.stub.counts().detached, 1, "it waits for another shard");
    assert_eq!(rig.kicks(), 0);
}

#[test]
fn an_outbox_that_nobody_acknowledges_ends_the_session() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    let max = OutboxLimits::default().messages_max;
    let mut fulls = 0;
    rig.stub.call(rig.now, |_, context| {
        for number in 0..max + 5 {
            let sent = context.push(SessionId(1), Lane::Reliable, MessageId(1), b"x");
            assert_eq!(sent.is_err(), number >= max, "{number}");
            fulls += usize::from(sent == Err(SendError::Full));
        }
    });
    assert_eq!(fulls, 5);
    assert_eq!(
        rig.notes(),
        ["connected ann 10", "disconnected 1 outbox_overflow"]
    );
    let last = rig.out().pop();
    assert_eq!(
        last,
        Some((1, 1, Out::Kick(10, CloseReason::OutboxOverflow)))
    );
    assert_eq!(rig.kicks(), 1);
}

#[test]
fn a_kick_is_told_again_if_the_link_lost_it() {
    let mut rig = Rig::new();
    rig.stub.game.kick_on = Some(b"rude".to_vec());
    rig.player(1, 10, "ann");
    rig.message(1, 1, Lane::Reliable, 1, b"rude");
    let kick = Out::Kick(10, CloseReason::Kicked);
    assert_eq!(rig.out().pop(), Some((1, 1, kick)));
    assert_eq!(rig.notes(), ["connected ann 10", "disconnected 1 kicked"]);
    rig.stub.handle_link_down(rig.now, LinkId(1));
    rig.link(2);
    rig.record(2, 1, open(10, "ann"));
    let kick = Out::Kick(10, CloseReason::Kicked);
    assert_eq!(rig.out(), [(2, 1, kick)]);
    let end = Record::End {
        fence: Fence(10),
        reason: CloseReason::Kicked as u16,
        unix_ms: 0,
    };
    rig.record(2, 1, end);
    // The word of one gateway does not bind another.
    rig.record(2, 1, open(11, "ann"));
    assert_eq!(rig.out(), [(2, 1, Out::Kick(11, CloseReason::Kicked))]);
    assert_eq!(rig.notes(), [""; 0]);
}

#[test]
fn there_is_room_for_so_many_sessions() {
    let mut rig = Rig::new();
    for session in 1..=3 {
        rig.player(session, session, &session.to_string());
    }
    rig.record(1, 4, open(4, "dan"));
    assert_eq!(rig.out(), [(1, 4, Out::Kick(4, CloseReason::Full))]);
    assert_eq!(rig.stub.counts().sessions, 3);
}

#[test]
fn what_does_not_belong_here_is_dropped_and_counted() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    rig.record(1, 1, Record::Data(&[]));
    rig.record(1, 1, Record::Data(&[16, 0, 7]));
    assert_eq!(rig.drops(DropReason::BadRecord), 2);
    rig.record(1, 1, Record::Data(&[200]));
    rig.body(1, 1, Body::Logout);
    assert_eq!(rig.drops(DropReason::UnknownKind), 2);
    let group = GroupId(GROUP.0 + 1);
    rig.body(1, 1, Body::Ack { group, ack: 1 });
    assert_eq!(rig.drops(DropReason::WrongGroup), 1);
    rig.message(1, 1, Lane::Sequenced, 5, b"five");
    rig.message(1, 1, Lane::Sequenced, 5, b"five");
    assert_eq!(rig.drops(DropReason::SequencedStale), 1);
    rig.message(1, 9, Lane::Reliable, 1, b"nobody");
    assert_eq!(rig.drops(DropReason::SessionGone), 1);
    let mut run = Vec::new();
    let kick = Record::Kick {
        fence: Fence(1),
        reason: 1,
    };
    uplink::encode(SessionId(1), &kick, &mut run);
    let fault = rig.stub.handle_records(rig.now, LinkId(1), &run);
    assert_eq!(fault, Err(LinkFault::Record));
    let fault = rig.stub.handle_records(rig.now, LinkId(1), &run[..4]);
    assert_eq!(fault, Err(LinkFault::Record));
    let message = ToBackend { message: None };
    let fault = rig.stub.handle_control(LinkId(1), &message);
    assert_eq!(fault, Err(LinkFault::Unreadable));
    assert_eq!(rig.stub.counts().sessions, 1);
}

#[test]
fn a_game_knows_how_good_a_connection_is() {
    let mut rig = Rig::new();
    rig.player(1, 10, "ann");
    let of = |rig: &mut Rig, session| {
        let now = rig.now;
        rig.stub
            .call(now, |_, context| context.quality(SessionId(session)))
    };
    assert_eq!(of(&mut rig, 1), None);
    let mut quality = Quality::default();
    for round_trip_us in [80_000, 20_000] {
        quality.ours.round_trip_us = round_trip_us;
        quality.theirs.loss = 7;
        rig.record(1, 1, Record::Quality(quality));
        assert_eq!(of(&mut rig, 1), Some(quality));
    }
    // Of somebody else, and from a gateway that does not have it.
    rig.record(1, 2, Record::Quality(Quality::default()));
    rig.link(2);
    rig.record(2, 1, Record::Quality(Quality::default()));
    assert_eq!(of(&mut rig, 1), Some(quality));
    assert_eq!(of(&mut rig, 2), None);
    let counts = rig.stub.counts();
    assert_eq!(counts.qualities, 2);
    assert_eq!(counts.drops[DropReason::SessionGone as usize], 2);
}
