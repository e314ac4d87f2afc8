//! Who is told of which channel over which link, what its messages' numbers are, and what
//! somebody who asks is sent.

use protocol::body::{Body, ChannelNotice, Sync};
use protocol::control::ShardHello;
use protocol::ids::{Fence, GroupId};
use protocol::stream::OutboxLimits;
use protocol::time::Time;
use protocol::uplink::Open;

use super::*;
use crate::stub::{Game, Stub, StubSettings};

struct Quiet;

impl Game for Quiet {}

const GROUP: GroupId = GroupId(7);
const ROOM: ChannelId = ChannelId(9);
const FIRST: LinkId = LinkId(1);
const SECOND: LinkId = LinkId(2);
const NOW: Now = Now {
    time: Time(5),
    unix_ms: 0,
};

fn stub() -> Stub<Quiet> {
    let settings = StubSettings {
        instance: "game".to_owned(),
        boot: 0xb007,
        group: GROUP,
        wants_address: false,
        sessions_max: 100,
        outbox: OutboxLimits::default(),
        link_grace_ms: 1_000,
    };
    let mut stub = Stub::new(settings, Quiet);
    for link in [FIRST, SECOND] {
        let hello = ShardHello {
            version: uplink::VERSION,
            gateway: "edge".to_owned(),
            shard: link.0 as u32,
            boot: 1,
            resume_ms: 0,
        };
        stub.handle_link_up(link, &hello).expect("a good hello");
    }
    stub
}

fn records(stub: &mut Stub<Quiet>, link: LinkId, id: u64, record: &Record<'_>) {
    let mut run = Vec::new();
    uplink::encode(SessionId(id), record, &mut run);
    stub.handle_records(NOW, link, &run).expect("a good record");
}

fn open(stub: &mut Stub<Quiet>, link: LinkId, id: u64, away: bool) {
    let account = format!("player {id}");
    let open = Open {
        fence: Fence(id),
        unix_ms: 0,
        client_version: id as u32,
        address: None,
        away,
        account: &account,
        channel: "",
    };
    records(stub, link, id, &Record::Open(open));
}

fn body(stub: &mut Stub<Quiet>, link: LinkId, id: u64, body: &Body<'_>) {
    let mut bytes = Vec::new();
    body.encode(&mut bytes);
    records(stub, link, id, &Record::Data(&bytes));
}

fn ask(stub: &mut Stub<Quiet>, link: LinkId, id: u64, next: u32) {
    let notice = ChannelNotice::CatchUp { next };
    let ask = Body::Channel {
        group: GROUP,
        channel: ROOM,
        notice,
    };
    body(stub, link, id, &ask);
}

fn join(stub: &mut Stub<Quiet>, id: u64) {
    let joined = stub.call(NOW, |_, context| context.join(SessionId(id), ROOM));
    assert_eq!(joined, Ok(()));
}

fn publish(stub: &mut Stub<Quiet>, filter: Filter, payload: &[u8]) {
    let published = stub.call(NOW, |_, context| {
        context.publish(ROOM, Lane::Reliable, &filter, MessageId(1), payload)
    });
    assert_eq!(published, Ok(()));
}

/// What went out, without what is about streams: link, session, and what it says.
fn out(stub: &mut Stub<Quiet>) -> Vec<(u64, u64, String)> {
    let mut found = Vec::new();
    stub.take_records(&mut |link, stream, run| {
        let mut rest = run.as_slice();
        while let Some((id, record)) = uplink::next(&mut rest).expect("our own records") {
            let of_channel = |channel| assert_eq!(stream, uplink::stream_of_channel(channel));
            let said = match record {
                Record::Join { channel, next, .. } => {
                    of_channel(channel);
                    format!("join {channel} {next}")
                }
                Record::Leave { channel } => {
                    of_channel(channel);
                    format!("leave {channel}")
                }
                Record::Publish { body, .. } => match Body::decode(body) {
                    Ok(Body::ChannelMessage { header, payload }) => {
                        of_channel(header.channel);
                        format!("publish {} {}", header.number, payload.escape_ascii())
                    }
                    other => panic!("{other:?}"),
                },
                Record::Attribute { key, value } => format!("attribute {key} {value}"),
                Record::List { sessions, .. } => format!("list {}", sessions.iter().count()),
                Record::Data(body) => match Body::decode(body).expect("our own body") {
                    Body::Sync(_) => continue,
                    Body::Channel { notice, .. } => format!("{notice:?}"),
                    Body::ChannelMessage { header, payload } => {
                        format!("{} {}", header.number, payload.escape_ascii())
                    }
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            found.push((link.0, id.0, said));
        }
        run.clear();
    });
    found
}

fn said(link: u64, id: u64, what: &str) -> (u64, u64, String) {
    (link, id, what.to_owned())
}

#[test]
fn a_message_goes_once_to_each_link_that_holds_a_member() {
    let mut stub = stub();
    for (link, id) in [(FIRST, 1), (FIRST, 2), (SECOND, 3), (SECOND, 4)] {
        open(&mut stub, link, id, false);
    }
    for id in [1, 2] {
        join(&mut stub, id);
    }
    join(&mut stub, 2);
    assert_eq!(
        out(&mut stub),
        [said(1, 1, "join 9 1"), said(1, 2, "join 9 1")]
    );
    publish(&mut stub, Filter::ALL, b"a");
    assert_eq!(out(&mut stub), [said(1, 0, "publish 1 a")]);
    join(&mut stub, 3);
    publish(&mut stub, Filter::but(SessionId(3)), b"b");
    assert_eq!(
        out(&mut stub),
        [
            said(1, 3, "publish 2 b"),
            said(2, 3, "join 9 2"),
            said(2, 3, "publish 2 b"),
        ]
    );
    stub.call(NOW, |_, context| {
        context.leave(SessionId(1), ROOM);
        context.leave(SessionId(2), ROOM);
    });
    out(&mut stub);
    publish(&mut stub, Filter::ALL, b"c");
    assert_eq!(out(&mut stub), [said(2, 0, "publish 3 c")]);
    assert_eq!(stub.counts().channels, 1);
    stub.handle_link_down(NOW, SECOND);
    publish(&mut stub, Filter::ALL, b"nobody is there now");
    assert_eq!(out(&mut stub), []);
    // Its member is still one, until it ends.
    assert_eq!(stub.counts().channels, 1);
    let later = Now {
        time: Time(5).after_ms(1_000),
        unix_ms: 0,
    };
    stub.handle_timeout(later);
    assert_eq!(stub.counts().channels, 0);
}

#[test]
fn who_comes_by_another_link_is_made_known_there_and_catches_up() {
    let mut stub = stub();
    open(&mut stub, FIRST, 1, false);
    open(&mut stub, FIRST, 2, false);
    publish(&mut stub, Filter::ALL, b"before there was a channel");
    join(&mut stub, 2);
    publish(&mut stub, Filter::ALL, b"a");
    join(&mut stub, 1);
    let marked = stub.call(NOW, |_, context| context.set_attribute(SessionId(1), 3, 4));
    assert_eq!(marked, Ok(()));
    out(&mut stub);
    open(&mut stub, FIRST, 1, true);
    publish(&mut stub, Filter::ALL, b"b");
    publish(&mut stub, Filter::but(SessionId(1)), b"c");
    let attribute = Some((3, 5));
    let others = Filter {
        attribute,
        ..Filter::ALL
    };
    publish(&mut stub, others, b"d");
    publish(&mut stub, Filter::ALL, b"e");
    out(&mut stub);
    open(&mut stub, SECOND, 1, false);
    assert_eq!(
        out(&mut stub),
        [
            // Its client may never have heard that it is a member, and since when.
            said(2, 1, "join 9 2"),
            said(2, 1, "join 9 6"),
            said(2, 1, "attribute 3 4")
        ]
    );
    // It says that it has seen nothing, but what was before it joined is not for it.
    ask(&mut stub, SECOND, 1, 1);
    let skip = |from, to| {
        format!(
            "{:?}",
            ChannelNotice::Skip {
                from,
                to,
                lost: false
            }
        )
    };
    let done = format!("{:?}", ChannelNotice::CaughtUp { next: 6 });
    let answer = [
        skip(1, 2),
        "2 b".to_owned(),
        skip(3, 4),
        skip(4, 5),
        "5 e".to_owned(),
        done.clone(),
    ];
    let answer = answer.map(|what| (2, 1, what));
    assert_eq!(out(&mut stub), answer);
    // Once a connection, and only over its own link.
    ask(&mut stub, SECOND, 1, 2);
    assert_eq!(out(&mut stub), [(2, 1, done)]);
    ask(&mut stub, FIRST, 1, 2);
    assert_eq!(out(&mut stub), []);
    ask(&mut stub, SECOND, 1, u32::MAX);
    assert_eq!(out(&mut stub).len(), 1);
}

#[test]
fn who_left_while_away_hears_of_it() {
    let mut stub = stub();
    open(&mut stub, FIRST, 1, false);
    join(&mut stub, 1);
    open(&mut stub, FIRST, 1, true);
    stub.call(NOW, |_, context| context.leave(SessionId(1), ROOM));
    out(&mut stub);
    open(&mut stub, SECOND, 1, false);
    assert_eq!(out(&mut stub), [said(2, 1, "leave 9")]);
    open(&mut stub, FIRST, 1, false);
    assert_eq!(out(&mut stub), []);
}

#[test]
fn a_tail_is_bounded_in_messages_and_bytes() {
    let mut stub = stub();
    open(&mut stub, FIRST, 1, false);
    join(&mut stub, 1);
    let mut newest = |payload: &[u8], count: u32| {
        for _ in 0..count {
            publish(&mut stub, Filter::ALL, payload);
        }
        open(&mut stub, FIRST, 1, false);
        out(&mut stub);
        let (mut next, mut messages) = (1, 0);
        loop {
            ask(&mut stub, FIRST, 1, next);
            let answer = out(&mut stub);
            let is_lost = answer[0].2.contains("lost: true");
            assert_eq!(is_lost, next == 1, "{}", answer[0].2);
            let pieces = answer.len() - 1 - usize::from(is_lost);
            if pieces == 0 {
                return messages;
            }
            messages += pieces;
            let done = &answer.last().expect("an answer").2;
            let digits = done.trim_matches(|letter: char| !letter.is_ascii_digit());
            next = digits.parse().expect("a number");
        }
    };
    assert_eq!(newest(b"x", 2_000), TAIL_MESSAGES_MAX);
    assert_eq!(newest(&[b'x'; 10_000], 20), TAIL_BYTES_MAX / 10_000);
    assert_eq!(newest(&[b'x'; PAYLOAD_BYTES_MAX], 3), 2);
    let too_long = stub.call(NOW, |_, context| {
        let payload = [0; PAYLOAD_BYTES_MAX + 1];
        context.publish(ROOM, Lane::Reliable, &Filter::ALL, MessageId(1), &payload)
    });
    assert_eq!(too_long, Err(ChannelError::TooLong));
}

#[test]
fn a_session_has_so_many_channels_and_attributes() {
    let mut stub = stub();
    open(&mut stub, FIRST, 1, false);
    stub.call(NOW, |_, context| {
        let id = SessionId(1);
        for channel in 1..=CHANNELS_PER_SESSION_MAX as u32 {
            assert_eq!(context.join(id, ChannelId(channel)), Ok(()));
        }
        let one_more = context.join(id, ChannelId(99));
        assert_eq!(one_more, Err(ChannelError::TooManyOfSession));
        assert_eq!(context.join(SessionId(2), ROOM), Err(ChannelError::Gone));
        for key in 1..=ATTRIBUTES_MAX as u16 {
            assert_eq!(context.set_attribute(id, key, 1), Ok(()));
        }
        let one_more = context.set_attribute(id, 99, 1);
        assert_eq!(one_more, Err(ChannelError::TooManyOfSession));
        assert_eq!(context.set_attribute(id, 1, 0), Ok(()));
        assert_eq!(context.attribute(id, 1), None);
        assert_eq!(context.set_attribute(id, 99, 2), Ok(()));
        assert_eq!(context.attribute(id, 99), Some(2));
    });
}

#[test]
fn everybody_is_a_member_from_the_first_message_to_all() {
    let mut stub = stub();
    open(&mut stub, FIRST, 1, false);
    open(&mut stub, SECOND, 2, false);
    out(&mut stub);
    let all = stub.call(NOW, |_, context| {
        context.publish_all(Lane::Reliable, &Filter::ALL, MessageId(1), b"all")
    });
    assert_eq!(all, Ok(()));
    assert_eq!(
        out(&mut stub),
        [
            said(1, 1, "join 0 1"),
            said(1, 0, "publish 1 all"),
            said(2, 2, "join 0 1"),
            said(2, 0, "publish 1 all"),
        ]
    );
    open(&mut stub, SECOND, 3, false);
    assert_eq!(out(&mut stub), [said(2, 3, "join 0 2")]);
}

#[test]
fn a_list_goes_once_to_each_link_in_the_unreliable_lane() {
    let mut stub = stub();
    for (link, id) in [(FIRST, 1), (FIRST, 2), (SECOND, 3)] {
        open(&mut stub, link, id, false);
        let incarnation = Incarnation(0xb007 + id - 1);
        let sync = Sync {
            fresh: false,
            group: GROUP,
            incarnation,
            next: 1,
            base: 1,
        };
        body(&mut stub, link, id, &Body::Sync(sync));
    }
    out(&mut stub);
    let to = [1, 2, 3, 4].map(SessionId);
    let sent = stub.call(NOW, |_, context| {
        context.send_list(&to, Lane::Unreliable, MessageId(1), b"some")
    });
    assert_eq!(sent, Ok(()));
    assert_eq!(out(&mut stub), [said(1, 0, "list 2"), said(2, 0, "list 1")]);
}

#[test]
fn a_long_tail_comes_in_pieces_that_follow_each_other() {
    let mut stub = stub();
    open(&mut stub, FIRST, 1, false);
    join(&mut stub, 1);
    let text = [b'x'; 3_000];
    for _ in 0..12 {
        publish(&mut stub, Filter::ALL, &text);
    }
    out(&mut stub);
    // Five of them fit into an answer.
    for (next, reached) in [(1, 6), (6, 11), (11, 13)] {
        ask(&mut stub, FIRST, 1, next);
        let answer = out(&mut stub);
        let done = format!("{:?}", ChannelNotice::CaughtUp { next: reached });
        assert_eq!(answer.len() as u32, reached - next + 1);
        assert_eq!(answer.last().expect("an answer").2, done);
    }
}
