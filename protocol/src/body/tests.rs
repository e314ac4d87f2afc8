//! Each body comes back as it was, and any bytes are either refused or are the
//! one encoding of what they decode to.

use proptest::prelude::*;

use super::*;
use crate::testing::cases;

/// Raw material for a body of any kind; bodies borrow, strategies own.
#[derive(Clone, Debug)]
struct Parts {
    kind: u8,
    long: [u64; 2],
    words: [u32; 3],
    shorts: [u16; 2],
    bits: u8,
    labels: [String; 2],
    text: String,
    secret: [u8; SECRET_BYTES],
    rest: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        0..24_u8,
        any::<[u64; 2]>(),
        any::<[u32; 3]>(),
        any::<[u16; 2]>(),
        any::<u8>(),
        ["\\PC{0,16}", "\\PC{0,16}"],
        "\\PC{0,60}",
        any::<[u8; SECRET_BYTES]>(),
        prop::collection::vec(any::<u8>(), 0..80),
    )
        .prop_map(
            |(kind, long, words, shorts, bits, labels, text, secret, rest)| Parts {
                kind,
                long,
                words,
                shorts,
                bits,
                labels,
                text,
                secret,
                rest,
            },
        )
}

impl Parts {
    fn body(&self) -> Body<'_> {
        let group = GroupId(self.shorts[0]);
        let [first, second, third] = self.words;
        match self.kind {
            0 => Body::Login(Login {
                method: self.bits,
                client_version: first,
                channel: &self.labels[0],
                device: &self.labels[1],
                credential: &self.rest,
            }),
            1 => Body::LoginOk {
                session: SessionId(self.long[0]),
                unix_ms: self.long[1],
            },
            2 => Body::Logout,
            3 => Body::Close {
                reason: self.shorts[0],
                retry_after_ms: first,
                text: &self.text,
            },
            4 => Body::Ping(Ping {
                stamp: first,
                echo: second,
                held_us: third,
                report: self.report(),
            }),
            5 => Body::Pong(Pong {
                stamp: first,
                own: second,
                report: self.report(),
            }),
            6 => Body::Sync(Sync {
                fresh: self.bits & 1 != 0,
                group,
                incarnation: Incarnation(self.long[0]),
                next: first,
                base: second,
            }),
            7 => Body::Ack { group, ack: first },
            8 => Body::GroupDown { group },
            12 => Body::Credit {
                group,
                bytes: first,
            },
            22 => Body::Queue(QueuePosition {
                position: first,
                seconds: second,
                of: third,
            }),
            13 => Body::SideOpen,
            14 => Body::Side {
                cid: Cid(self.long[0]),
                secret: &self.secret,
            },
            15..=20 => Body::Channel {
                group,
                channel: ChannelId(third),
                notice: self.notice(first, second),
            },
            21 => Body::ChannelMessage {
                header: ChannelHeader {
                    lane: [Lane::Reliable, Lane::Unreliable, Lane::Sequenced]
                        [usize::from(self.bits % 3)],
                    group,
                    number: first,
                    channel: ChannelId(second),
                    message: MessageId(self.shorts[1]),
                },
                payload: &self.rest,
            },
            kind => Body::Message {
                header: self.header(kind, group, [first, second, third]),
                payload: &self.rest,
            },
        }
    }

    fn notice(&self, first: u32, second: u32) -> ChannelNotice<'_> {
        match self.kind {
            15 => ChannelNotice::Joined {
                incarnation: Incarnation(self.long[0]),
                next: first,
            },
            16 => ChannelNotice::Key {
                id: first,
                key: &self.secret,
                sequence: self.long[1],
            },
            17 => ChannelNotice::Left,
            18 => ChannelNotice::CatchUp { next: first },
            19 => ChannelNotice::Skip {
                from: first,
                to: second,
                lost: self.bits & 1 != 0,
            },
            _ => ChannelNotice::CaughtUp { next: first },
        }
    }

    fn report(&self) -> Report {
        Report {
            round_trip_us: self.long[0] as u32,
            jitter_us: self.long[1] as u32,
            loss: self.bits,
        }
    }

    fn header(&self, kind: u8, group: GroupId, [number, ack, request]: [u32; 3]) -> MessageHeader {
        let kind = match kind {
            9 => MessageKind::Message,
            10 => MessageKind::Request,
            11 => MessageKind::Reply,
            _ => MessageKind::Error,
        };
        let one_way = kind == MessageKind::Message;
        MessageHeader {
            kind,
            lane: match self.bits % 3 {
                1 if one_way => Lane::Unreliable,
                2 if one_way => Lane::Sequenced,
                _ => Lane::Reliable,
            },
            more: kind == MessageKind::Reply && self.bits & 8 != 0,
            group,
            number,
            ack,
            message: MessageId(self.shorts[1]),
            request: if one_way { 0 } else { request },
        }
    }
}

fn encoded(body: &Body<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    body.encode(&mut out);
    out
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn each_body_comes_back(parts in parts()) {
        let body = parts.body();
        let bytes = encoded(&body);
        prop_assert_eq!(Body::decode(&bytes), Ok(body));
        if let Body::Message { header, payload } = body {
            prop_assert_eq!(header.encoded_bytes() + payload.len(), bytes.len());
        }
    }

    #[test]
    fn a_changed_body_is_refused_or_is_another(
        parts in parts(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        cut in any::<prop::sample::Index>(),
        how in 0..3_u8,
    ) {
        let mut bytes = encoded(&parts.body());
        match how {
            0 => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            1 => bytes.truncate(cut.index(bytes.len())),
            _ => bytes.push(bit),
        }
        if let Ok(body) = Body::decode(&bytes) {
            prop_assert_eq!(encoded(&body), bytes);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_the_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0..21_u8) {
        let bytes = [&[kind], bytes.as_slice()].concat();
        if let Ok(body) = Body::decode(&bytes) {
            prop_assert_eq!(encoded(&body), bytes);
        }
    }

    #[test]
    fn texts_are_cut_at_a_character(text in "\\PC{0,300}", bytes_max in 0..300_usize) {
        let cut = truncated(&text, bytes_max);
        prop_assert!(cut.len() <= bytes_max && text.starts_with(cut));
        prop_assert!(cut.len() + 4 > bytes_max.min(text.len()));
    }
}

#[test]
fn a_resend_changes_the_acknowledgement_only() {
    let header = MessageHeader {
        kind: MessageKind::Request,
        lane: Lane::Reliable,
        more: false,
        group: GroupId(3),
        number: 4,
        ack: 5,
        message: MessageId(6),
        request: 7,
    };
    let mut bytes = encoded(&Body::Message {
        header,
        payload: b"x",
    });
    patch_ack(&mut bytes, 900);
    let header = MessageHeader { ack: 900, ..header };
    assert_eq!(
        Body::decode(&bytes),
        Ok(Body::Message {
            header,
            payload: b"x"
        })
    );
    // Too short to have the field: nothing happens.
    patch_ack(&mut [0; 3], 1);
}

#[test]
fn long_labels_and_texts_are_cut_so_that_they_can_be_read() {
    let label = "\u{e4}".repeat(40);
    let bytes = encoded(&Body::Login(Login {
        method: 1,
        client_version: 0,
        channel: &label,
        device: "",
        credential: b"",
    }));
    let Ok(Body::Login(login)) = Body::decode(&bytes) else {
        panic!("a cut label is not readable");
    };
    assert_eq!(login.channel, "\u{e4}".repeat(32));
    let bytes = encoded(&Body::Close {
        reason: 1,
        retry_after_ms: 2,
        text: &"z".repeat(300),
    });
    let Ok(Body::Close { text, .. }) = Body::decode(&bytes) else {
        panic!("a cut text is not readable");
    };
    assert_eq!(text.len(), REASON_TEXT_BYTES_MAX);
}

#[test]
fn only_messages_may_be_lost() {
    for kind in [REQUEST, REPLY, ERROR] {
        for lane in [1, 2] {
            let mut bytes = [0; MESSAGE_HEADER_BYTES_MAX];
            (bytes[0], bytes[1]) = (kind, lane);
            assert_eq!(Body::decode(&bytes), Err(BadBody::Malformed));
        }
    }
}

#[test]
fn kinds_of_a_later_version_are_told_from_nonsense() {
    for kind in [0, 21, 255] {
        assert_eq!(Body::decode(&[kind]), Err(BadBody::UnknownKind(kind)));
    }
    assert_eq!(Body::decode(&[]), Err(BadBody::Malformed));
}
