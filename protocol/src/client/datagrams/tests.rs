//! A client's setup against a gateway played by the test; sessions and streams over
//! datagrams are tested with the shard's core and over real sockets.

use super::*;
use crate::body::{Lane, MessageHeader, MessageKind, Sync};
use crate::cipher::RekeyPolicy;
use crate::datagram::cookie::Cookies;
use crate::handshake::{Parameters, RESUME_FRAME_BYTES, StaticKey, reject, respond, ticket_id};
use crate::ids::{Incarnation, MessageId, SessionId};
use crate::stream::OutboxLimits;

fn client(key: &StaticKey) -> Client {
    let config = ClientConfig {
        gateway_key: *key.public(),
        token: "token".to_owned(),
        client_version: 1,
        channel: String::new(),
        device: String::new(),
        outbox: OutboxLimits::default(),
        rekey: RekeyPolicy::default(),
        compress_bytes_min: 64,
    };
    Client::connect_datagrams(config, [5; 32], Time(0)).expect("a usable key")
}

fn sent(client: &mut Client, now: Time) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    client
        .poll_transmit(now, &mut Shared::default(), &mut out)
        .then_some(out)
}

fn give(client: &mut Client, now: Time, mut datagram: Vec<u8>) -> Vec<String> {
    let mut events = Vec::new();
    client.handle_received(now, &mut datagram, &mut Shared::default(), &mut |event| {
        events.push(format!("{event:?}"));
    });
    events
}

fn setup(nonce: u64, message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    hello::encode(nonce, message, &mut out);
    out
}

const PARAMETERS: Parameters = Parameters {
    frame_bytes_max: 32_768,
    heartbeat_interval_ms: 10_000,
    idle_timeout_ms: 30_000,
    login_timeout_ms: 10_000,
    unix_ms: 0,
};

#[test]
fn init_is_repeated_until_answered_and_takes_the_cookie() {
    let key = StaticKey::from_secret([9; 32]);
    let mut client = client(&key);
    let first = sent(&mut client, Time(0)).expect("INIT");
    assert_eq!(sent(&mut client, Time(0)), None);
    let mut pauses = Vec::new();
    let mut now = Time(0);
    for _ in 0..5 {
        let next = client.poll_timeout().expect("a timer");
        pauses.push(next.us_since(now) / 1_000);
        now = next;
        assert_eq!(sent(&mut client, now), Some(first.clone()));
    }
    assert_eq!(pauses, [250, 500, 1_000, 2_000, 2_000]);
    let (nonce, _) = hello::decode(&first).expect("INIT");
    let cookie = Cookies::new([0; 32]).make(0, &[0; 18], nonce);
    let cookie = &cookie;
    assert!(
        give(
            &mut client,
            now,
            setup(nonce ^ 1, &Message::Retry { cookie })
        )
        .is_empty()
    );
    assert_eq!(sent(&mut client, now), None, "not for us");
    assert!(give(&mut client, now, setup(nonce, &Message::Retry { cookie })).is_empty());
    let second = sent(&mut client, now).expect("INIT");
    let Some((
        _,
        Message::Init {
            cookie: carried, ..
        },
    )) = hello::decode(&second)
    else {
        panic!("not an INIT");
    };
    assert_eq!(carried, cookie);
}

#[test]
fn a_forged_accept_is_passed_over_and_the_gateways_taken() {
    let key = StaticKey::from_secret([9; 32]);
    let mut client = client(&key);
    let init = sent(&mut client, Time(0)).expect("INIT");
    let Some((nonce, Message::Init { hello, .. })) = hello::decode(&init) else {
        panic!("not an INIT");
    };
    let mut welcome = Vec::new();
    let keys = respond(&key, [6; 32], hello, 0, &PARAMETERS, &mut welcome).expect("a good HELLO");
    let cid = Cid::new(1, 77 << 8);
    for broken in 0..welcome.len() {
        let mut forged = welcome.clone();
        forged[broken] ^= 1;
        crate::frame::write_crc(&mut forged);
        // What nobody signs: the gateway's clock, and two bytes that mean nothing in a
        // WELCOME. The CRC is right again.
        if (8..16).contains(&broken) || (18..20).contains(&broken) {
            continue;
        }
        let message = Message::Accept {
            cid,
            welcome: &forged,
        };
        assert!(give(&mut client, Time(0), setup(nonce, &message)).is_empty());
        assert!(client.end().is_none(), "byte {broken}");
    }
    let welcome = &welcome;
    let accept = setup(nonce, &Message::Accept { cid, welcome });
    give(&mut client, Time(0), accept.clone());
    let mut login = sent(&mut client, Time(0)).expect("LOGIN");
    let policy = RekeyPolicy::default();
    let mut end = End::new(cid, keys.gateway, keys.client, policy, None, 4_096, Time(0));
    let (named, frame) = split(&mut login).expect("a datagram");
    assert_eq!(named, cid);
    let opened = end.open(Time(0), frame).expect("under the keys");
    assert!(matches!(
        Chunks::new(opened.body).next(),
        Some(Ok(Chunk::Data { number: 0, .. }))
    ));
    assert!(give(&mut client, Time(0), accept).is_empty(), "once");
    assert!(!client.is_closed());
}

#[test]
fn a_refusal_ends_it_with_the_gateways_reason() {
    let key = StaticKey::from_secret([9; 32]);
    let mut client = client(&key);
    let init = sent(&mut client, Time(0)).expect("INIT");
    let (nonce, _) = hello::decode(&init).expect("INIT");
    let mut frame = Vec::new();
    reject(CloseReason::Full, 0, &mut frame);
    let events = give(
        &mut client,
        Time(0),
        setup(nonce, &Message::Refuse { reject: &frame }),
    );
    let wanted = Event::Closed(Closed::ByGateway(Some(CloseReason::Full)));
    assert_eq!(events, [format!("{wanted:?}")]);
}

/// Accepts the client's INIT; the gateway's end of the connection.
fn accept(key: &StaticKey, client: &mut Client) -> End {
    let init = sent(client, Time(0)).expect("INIT");
    let Some((nonce, Message::Init { hello, .. })) = hello::decode(&init) else {
        panic!("not an INIT");
    };
    let mut welcome = Vec::new();
    let keys = respond(key, [6; 32], hello, 0, &PARAMETERS, &mut welcome).expect("a HELLO");
    let cid = Cid::new(1, 77 << 8);
    let welcome = &welcome;
    give(
        client,
        Time(0),
        setup(nonce, &Message::Accept { cid, welcome }),
    );
    let policy = RekeyPolicy::default();
    End::new(cid, keys.gateway, keys.client, policy, None, 4_096, Time(0))
}

#[test]
fn a_session_outlives_its_connection_and_comes_back_over_either() {
    let key = StaticKey::from_secret([9; 32]);
    let mut client = client(&key);
    let mut end = accept(&key, &mut client);
    let (session, mut body, mut datagram) = (SessionId(8), Vec::new(), Vec::new());
    let logged_in = Body::LoginOk {
        session,
        unix_ms: 0,
    };
    logged_in.encode(&mut body);
    end.push(0, &[&body]);
    assert!(end.write(Time(0), DATAGRAM_BYTES_MAX, &mut datagram));
    let events = give(&mut client, Time(0), datagram);
    assert_eq!(events, [format!("{:?}", Event::LoggedIn(session))]);
    let mut events = Vec::new();
    client.handle_disconnected(&mut |event| events.push(format!("{event:?}")));
    let gone = CloseReason::PeerClosed;
    let closed = format!("{:?}", Event::Closed(Closed::ByClient(gone)));
    assert_eq!(events, [closed]);
    // Over datagrams RESUME travels in INITs, under a nonce of its own.
    assert_eq!(client.resume_datagrams([7; 32], Time(0)), Ok(()));
    let init = sent(&mut client, Time(0)).expect("INIT");
    let Some((nonce, Message::Init { hello, .. })) = hello::decode(&init) else {
        panic!("not an INIT: {init:?}")
    };
    let id = ticket_id(hello).expect("a RESUME");
    let reject_with = |reason| {
        let mut frame = Vec::new();
        reject(reason, 0, &mut frame);
        setup(nonce, &Message::Refuse { reject: &frame })
    };
    let later = give(
        &mut client,
        Time(0),
        reject_with(CloseReason::CenterUnavailable),
    );
    assert_eq!(later, ["Closed(ByGateway(Some(CenterUnavailable)))"]);
    // Over a stream it is the same ticket, in a frame as it stands.
    assert_eq!(client.resume([8; 32], Time(0)), Ok(()));
    let frame = sent(&mut client, Time(0)).expect("RESUME");
    assert_eq!(
        (frame.len(), ticket_id(&frame)),
        (RESUME_FRAME_BYTES, Some(id))
    );
}

/// The gateway's end sends a body.
fn carried(end: &mut End, body: &Body<'_>) -> Vec<u8> {
    let (mut bytes, mut datagram) = (Vec::new(), Vec::new());
    body.encode(&mut bytes);
    end.push(0, &[&bytes]);
    assert!(end.write(Time(0), DATAGRAM_BYTES_MAX, &mut datagram));
    datagram
}

fn place(group: GroupId, number: u32) -> Body<'static> {
    Body::Message {
        header: MessageHeader {
            kind: MessageKind::Message,
            lane: Lane::Sequenced,
            more: false,
            group,
            number,
            ack: 0,
            message: MessageId(1),
            request: 0,
        },
        payload: b"where",
    }
}

#[test]
fn what_a_process_sent_before_the_sync_of_the_next_is_passed_over() {
    let key = StaticKey::from_secret([9; 32]);
    let mut client = client(&key);
    let mut end = accept(&key, &mut client);
    let (group, other) = (GroupId(7), GroupId(8));
    let logged_in = Body::LoginOk {
        session: SessionId(8),
        unix_ms: 0,
    };
    let sync = |group, incarnation| {
        Body::Sync(Sync {
            fresh: true,
            group,
            incarnation: Incarnation(incarnation),
            next: 1,
            base: 1,
        })
    };
    for body in [logged_in, sync(group, 1), sync(other, 1), place(group, 1)] {
        let datagram = carried(&mut end, &body);
        assert_eq!(give(&mut client, Time(0), datagram).len(), 1, "{body:?}");
    }
    // Of both groups something is late; only one of them has begun anew meanwhile.
    let late = carried(&mut end, &place(group, 900));
    let late_of_other = carried(&mut end, &place(other, 1));
    let again = carried(&mut end, &sync(group, 2));
    assert_eq!(give(&mut client, Time(0), again).len(), 1);
    assert!(give(&mut client, Time(0), late).is_empty());
    assert_eq!(give(&mut client, Time(0), late_of_other).len(), 1);
    // And the numbers of the new one count from its beginning.
    let first = carried(&mut end, &place(group, 1));
    assert_eq!(give(&mut client, Time(0), first).len(), 1);
}
