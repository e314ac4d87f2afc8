//! When a client asks whether its path carries. Messages over it are tested with the shard's
//! core and over real sockets.

use super::*;
use crate::body::{Lane, MessageHeader, MessageKind};
use crate::datagram::side::{ASK_MS, HOLD_MS};
use crate::ids::{GroupId, MessageId};

const SECRET: [u8; SECRET_BYTES] = [6; SECRET_BYTES];

/// A client's path, and the gateway's end of it.
fn path() -> (SidePath, End) {
    let mut side = SidePath {
        offered: true,
        open: None,
    };
    let policy = RekeyPolicy::default();
    let cid = Cid(0x0102);
    assert!(side.open(Time(0), cid, &SECRET, policy));
    let keys = SideKeys::derive(&SECRET);
    let bytes_max = FRAME_BYTES_MAX;
    let (seal, open) = (keys.gateway, keys.client);
    (
        side,
        End::new(cid, seal, open, policy, None, bytes_max, Time(0)),
    )
}

/// What the client asks now, and how long the datagram is.
fn asked(side: &mut SidePath, gateway: &mut End, now: Time) -> Option<([u8; 8], usize)> {
    let open = side.open.as_mut().expect("open");
    let mut out = Vec::new();
    open.ask(now);
    if !open.end.write(now, DATAGRAM_BYTES_MAX, &mut out) {
        return None;
    }
    let bytes = out.len();
    let (_, frame) = split(&mut out).expect("a datagram");
    let opened = gateway.open(now, frame).expect("sealed for it");
    let challenge = Chunks::new(opened.body).find_map(|chunk| match chunk {
        Ok(Chunk::Challenge(token)) => Some(token),
        _ => None,
    });
    challenge.map(|token| (token, bytes))
}

fn answer(side: &mut SidePath, now: Time, token: [u8; 8]) {
    let open = side.open.as_mut().expect("open");
    assert!(open.proof.handle_response(now, token));
    open.tries = 0;
    open.end.set_challenge(None);
}

fn send(side: &mut SidePath, now: Time, payload: &[u8]) -> bool {
    let header = MessageHeader {
        kind: MessageKind::Message,
        lane: Lane::Unreliable,
        more: false,
        group: GroupId(1),
        number: 0,
        ack: 0,
        message: MessageId(1),
        request: 0,
    };
    side.push(now, 0, &Body::Message { header, payload })
}

#[test]
fn a_path_that_does_not_answer_is_asked_ever_less_and_then_only_if_it_is_wanted() {
    let (mut side, mut gateway) = path();
    let mut times = Vec::new();
    while let Some(at) = side.poll_timeout() {
        let (_, bytes) = asked(&mut side, &mut gateway, at).expect("a challenge");
        assert_eq!(
            bytes, DATAGRAM_BYTES_MAX,
            "it must carry what it is to carry"
        );
        assert!(asked(&mut side, &mut gateway, at).is_none(), "once");
        times.push(at.ms());
    }
    assert_eq!(times, [0, 250, 750, 1_750, 3_750]);
    // Somebody wants it: the stream takes the message, the path is asked half a minute on.
    assert!(!send(&mut side, Time(0).after_ms(10_000), b"x"));
    let at = side.poll_timeout().expect("a timer");
    assert_eq!(at.ms(), 3_750 + PAUSE_MS);
    assert!(asked(&mut side, &mut gateway, at).is_some());
    assert_eq!(side.poll_timeout(), Some(at.after_ms(RETRY_MS)));
}

#[test]
fn a_path_in_use_is_proven_anew_and_an_idle_one_left_alone() {
    let (mut side, mut gateway) = path();
    let at = |ms| Time(0).after_ms(ms);
    let (token, _) = asked(&mut side, &mut gateway, at(0)).expect("a challenge");
    assert!(!send(&mut side, at(5), b"not yet"));
    answer(&mut side, at(10), token);
    assert!(send(&mut side, at(20), b"by the path"));
    assert!(!send(&mut side, at(20), &[0; DIRECT_BYTES_MAX]), "too long");
    assert_eq!(side.poll_timeout(), Some(at(10 + ASK_MS)));
    let (token, bytes) = asked(&mut side, &mut gateway, at(10 + ASK_MS)).expect("again");
    assert!(bytes < 200, "it holds");
    answer(&mut side, at(1_020), token);
    // Nobody wants it any more.
    assert_eq!(side.poll_timeout(), None);
    assert!(asked(&mut side, &mut gateway, at(60_000)).is_none());
    assert!(!send(&mut side, at(1_020 + HOLD_MS), b"by the stream"));
    let (token, bytes) = asked(&mut side, &mut gateway, at(1_020 + HOLD_MS)).expect("at once");
    assert_eq!(bytes, DATAGRAM_BYTES_MAX);
    answer(&mut side, at(4_030), token);
    assert!(send(&mut side, at(4_031), b"by the path"));
}

#[test]
fn nobody_opens_a_path_unasked_or_twice() {
    let policy = RekeyPolicy::default();
    let mut side = SidePath::default();
    assert!(!side.open(Time(0), Cid(1), &SECRET, policy));
    assert_eq!(side.poll_timeout(), None);
    let (mut side, _) = path();
    assert!(!side.open(Time(0), Cid(2), &SECRET, policy));
    side.close();
    assert!(
        side.open(Time(0), Cid(3), &SECRET, policy),
        "a new connection"
    );
}
