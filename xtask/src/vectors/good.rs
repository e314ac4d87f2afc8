//! Frames that are right: each kind, each lane, compressed, after a rekey, and
//! beyond 2³² frames.

use std::collections::BTreeMap;

use anyhow::ensure;
use protocol::body::{
    Body, ChannelNotice, Lane, Login, MessageHeader, MessageKind, QueuePosition, Sync,
};
use protocol::cipher::{Key, RekeyPolicy, Sealer};
use protocol::compress::Scratch;
use protocol::frame::{FLAG_COMPRESSED, FLAG_KEY_PHASE};
use protocol::handshake::Keys;
use protocol::ids::{ChannelId, GroupId, Incarnation, MessageId, SessionId};
use protocol::quality::{Ping, Pong, Report};
use protocol::reason::CloseReason;
use protocol::time::Time;
use serde::Serialize;
use serde_json::{Value, json};

use super::seal::seal;
use super::{CLIENT_MS, GATEWAY_MS, UNIX_MS, hex};

#[derive(Serialize)]
pub struct Frame {
    name: String,
    key: String,
    sequence: u64,
    key_phase: u8,
    timestamp: u32,
    compressed: bool,
    body_fields: BTreeMap<&'static str, Value>,
    body: String,
    frame: String,
}

/// One direction of a conversation.
struct Sender {
    key: Key,
    sealer: Sealer,
    now: Time,
    phase: bool,
    scratch: Scratch,
    frames: Vec<Frame>,
}

impl Sender {
    fn new(key: &Key, start_ms: u32) -> Self {
        let now = Time(0).after_ms(u64::from(start_ms));
        Self {
            key: key.clone(),
            sealer: Sealer::new(key.clone(), now, RekeyPolicy::default()),
            now,
            phase: false,
            scratch: Scratch::default(),
            frames: Vec::new(),
        }
    }

    fn send(&mut self, name: &str, body: Body<'_>) -> anyhow::Result<()> {
        self.send_as(name, body, false)
    }

    fn send_as(&mut self, name: &str, body: Body<'_>, compress: bool) -> anyhow::Result<()> {
        self.now = self.now.after_ms(20);
        let mut encoded = Vec::new();
        match body {
            Body::Message { header, payload } if compress => {
                let Some(shorter) = self.scratch.compress(payload) else {
                    anyhow::bail!("{name}: the payload does not shrink");
                };
                header.encode(&mut encoded);
                encoded.extend_from_slice(shorter);
            }
            _ => body.encode(&mut encoded),
        }
        let sequence = self.sealer.sequence();
        let flags = if compress { FLAG_COMPRESSED } else { 0 };
        let mut frame = Vec::new();
        self.sealer.seal(self.now, flags, &mut frame, |out| {
            out.extend_from_slice(&encoded);
        });
        let vector = Frame {
            name: name.to_owned(),
            key: hex(&self.key.0),
            sequence,
            key_phase: u8::from(self.phase),
            timestamp: self.now.wire_ms(),
            compressed: compress,
            body_fields: fields(&body),
            body: hex(&encoded),
            frame: hex(&frame),
        };
        ensure!(
            frame
                == by_hand(
                    &self.key,
                    sequence,
                    self.phase,
                    compress,
                    vector.timestamp,
                    &encoded
                ),
            "{name}: two ways to seal differ"
        );
        self.frames.push(vector);
        Ok(())
    }

    fn rekey(&mut self) {
        self.sealer.rekey(self.now);
        self.key = self.key.next();
        self.phase = !self.phase;
    }

    /// As `send`, at a sequence that no test can count up to.
    fn send_at(&mut self, name: &str, sequence: u64, body: Body<'_>) {
        let mut encoded = Vec::new();
        body.encode(&mut encoded);
        let timestamp = self.now.wire_ms();
        self.frames.push(Frame {
            name: name.to_owned(),
            key: hex(&self.key.0),
            sequence,
            key_phase: u8::from(self.phase),
            timestamp,
            compressed: false,
            body_fields: fields(&body),
            body: hex(&encoded),
            frame: hex(&by_hand(
                &self.key, sequence, self.phase, false, timestamp, &encoded,
            )),
        });
    }
}

fn by_hand(
    key: &Key,
    sequence: u64,
    phase: bool,
    compressed: bool,
    timestamp: u32,
    body: &[u8],
) -> Vec<u8> {
    let flags =
        if compressed { FLAG_COMPRESSED } else { 0 } | if phase { FLAG_KEY_PHASE } else { 0 };
    seal(key, sequence, flags, timestamp, body)
}

/// What is sent in both directions of a short session.
pub fn frames(keys: &Keys, token: &str) -> anyhow::Result<Vec<Frame>> {
    let mut client = Sender::new(&keys.client, CLIENT_MS);
    from_client(&mut client, token)?;
    let mut gateway = Sender::new(&keys.gateway, GATEWAY_MS);
    from_gateway(&mut gateway)?;
    Ok(client.frames.into_iter().chain(gateway.frames).collect())
}

/// What somebody in a train measures.
const REPORT: Report = Report {
    round_trip_us: 123_456,
    jitter_us: 7_890,
    loss: 6,
};
const GROUP: GroupId = GroupId(1);
const INCARNATION: Incarnation = Incarnation(0xfedc_ba98_7654_3210);

fn header(kind: MessageKind, lane: Lane, number: u32, ack: u32) -> MessageHeader {
    MessageHeader {
        kind,
        lane,
        more: false,
        group: GROUP,
        number,
        ack,
        message: MessageId(0x0102),
        request: if kind == MessageKind::Message { 0 } else { 7 },
    }
}

fn message(header: MessageHeader, payload: &[u8]) -> Body<'_> {
    Body::Message { header, payload }
}

fn from_client(client: &mut Sender, token: &str) -> anyhow::Result<()> {
    client.send(
        "LOGIN with a token",
        Body::Login(Login {
            method: 1,
            client_version: 0x0001_0203,
            channel: "store",
            device: "d\u{e9}vice-1",
            credential: token.as_bytes(),
        }),
    )?;
    client.send("ATTACH", Body::Attach)?;
    client.send(
        "SYNC of a client that has sent nothing",
        Body::Sync(Sync {
            fresh: false,
            group: GROUP,
            incarnation: INCARNATION,
            next: 1,
            base: 1,
        }),
    )?;
    client.send(
        "REQUEST",
        message(
            header(MessageKind::Request, Lane::Reliable, 1, 0),
            b"where am I?",
        ),
    )?;
    client.send(
        "MESSAGE in the reliable lane",
        message(header(MessageKind::Message, Lane::Reliable, 2, 1), b"hello"),
    )?;
    client.send(
        "MESSAGE in the unreliable lane",
        message(
            header(MessageKind::Message, Lane::Unreliable, 0, 1),
            b"a step",
        ),
    )?;
    client.send(
        "MESSAGE in the sequenced lane",
        message(
            header(MessageKind::Message, Lane::Sequenced, 1, 1),
            b"another",
        ),
    )?;
    client.send(
        "MESSAGE without payload",
        message(header(MessageKind::Message, Lane::Reliable, 3, 1), b""),
    )?;
    let inventory = b"sword, shield, sword, shield, potion, ".repeat(20);
    client.send_as(
        "MESSAGE, compressed",
        message(
            header(MessageKind::Message, Lane::Reliable, 4, 1),
            &inventory,
        ),
        true,
    )?;
    client.send_as(
        "REQUEST, compressed",
        message(
            header(MessageKind::Request, Lane::Reliable, 5, 1),
            &inventory,
        ),
        true,
    )?;
    client.send(
        "ACK",
        Body::Ack {
            group: GROUP,
            ack: 17,
        },
    )?;
    client.rekey();
    client.send(
        "PING, the first frame after a rekey",
        Body::Ping(Ping {
            stamp: 0xdead_beef,
            echo: 0x0102_0304,
            held_us: 9_876_543,
            report: REPORT,
        }),
    )?;
    client.send(
        "PONG",
        Body::Pong(Pong {
            stamp: 3,
            own: 0xffff_fffe,
            report: REPORT,
        }),
    )?;
    client.rekey();
    client.send_as(
        "MESSAGE, compressed, after a second rekey",
        message(
            header(MessageKind::Message, Lane::Reliable, 6, 1),
            &inventory,
        ),
        true,
    )?;
    client.send("LOGOUT", Body::Logout)?;
    for (name, sequence) in [
        (
            "PING, the last frame whose sequence fits 32 bits",
            (1 << 32) - 1,
        ),
        ("PING, the first frame whose sequence does not", 1 << 32),
        ("PING at a sequence above 2^40", (1 << 40) + 5),
    ] {
        client.send_at(name, sequence, ping(1));
    }
    client.rekey();
    client.send_at(
        "PING in phase 1 at a sequence above 2^32",
        (1 << 32) + 9,
        ping(2),
    );
    Ok(())
}

fn ping(stamp: u32) -> Body<'static> {
    Body::Ping(Ping {
        stamp,
        ..Ping::default()
    })
}

fn from_gateway(gateway: &mut Sender) -> anyhow::Result<()> {
    gateway.send(
        "LOGIN_OK",
        Body::LoginOk {
            session: SessionId(0x8000_0000_0000_0001),
            unix_ms: UNIX_MS + 40,
        },
    )?;
    gateway.send(
        "SYNC, fresh",
        Body::Sync(Sync {
            fresh: true,
            group: GROUP,
            incarnation: INCARNATION,
            next: 1,
            base: 1,
        }),
    )?;
    let more = MessageHeader {
        more: true,
        ..header(MessageKind::Reply, Lane::Reliable, 1, 1)
    };
    gateway.send("REPLY, more follow", message(more, b"a forest"))?;
    gateway.send(
        "REPLY, the last one",
        message(
            header(MessageKind::Reply, Lane::Reliable, 2, 1),
            b"a clearing",
        ),
    )?;
    gateway.send(
        "ERROR",
        message(
            header(MessageKind::Error, Lane::Reliable, 3, 2),
            b"\x2a\x00no such place",
        ),
    )?;
    gateway.send(
        "MESSAGE pushed in the sequenced lane",
        message(
            header(MessageKind::Message, Lane::Sequenced, u32::MAX, 2),
            b"x=1 y=2",
        ),
    )?;
    gateway.send_as(
        "REPLY, compressed",
        message(
            header(MessageKind::Reply, Lane::Reliable, 4, 2),
            &[b'.'; 500],
        ),
        true,
    )?;
    gateway.send(
        "QUEUE",
        Body::Queue(QueuePosition {
            position: 1_234,
            seconds: u32::MAX,
            of: 99_999,
        }),
    )?;
    gateway.send("GROUP_DOWN", Body::GroupDown { group: GROUP })?;
    gateway.send(
        "CREDIT of 8,192 bytes",
        Body::Credit {
            group: GROUP,
            bytes: 8_192,
        },
    )?;
    gateway.send(
        "SYNC of an end that remembers",
        Body::Sync(Sync {
            fresh: false,
            group: GROUP,
            incarnation: INCARNATION,
            next: 6,
            base: 5,
        }),
    )?;
    gateway.send("PING", ping(u32::MAX))?;
    gateway.send(
        "CLOSE",
        Body::Close {
            reason: CloseReason::LoggedOut as u16,
            retry_after_ms: 0,
            text: CloseReason::LoggedOut.text(),
        },
    )?;
    gateway.send(
        "CLOSE with a reason of a later version and a delay",
        Body::Close {
            reason: 65_000,
            retry_after_ms: 1_500,
            text: "sp\u{e4}ter",
        },
    )
}

pub(super) fn fields(body: &Body<'_>) -> BTreeMap<&'static str, Value> {
    let (kind, fields) = match *body {
        Body::Login(login) => (
            1,
            vec![
                ("method", json!(login.method)),
                ("client_version", json!(login.client_version)),
                ("channel", json!(hex(login.channel.as_bytes()))),
                ("device", json!(hex(login.device.as_bytes()))),
                ("credential", json!(hex(login.credential))),
            ],
        ),
        Body::LoginOk { session, unix_ms } => (
            2,
            vec![("session", json!(session.0)), ("unix_ms", json!(unix_ms))],
        ),
        Body::Logout => (3, vec![]),
        Body::Close {
            reason,
            retry_after_ms,
            text,
        } => (
            4,
            vec![
                ("reason", json!(reason)),
                ("retry_after_ms", json!(retry_after_ms)),
                ("text", json!(hex(text.as_bytes()))),
            ],
        ),
        Body::Ping(ping) => {
            let mut fields = vec![
                ("stamp", json!(ping.stamp)),
                ("echo", json!(ping.echo)),
                ("held_us", json!(ping.held_us)),
            ];
            fields.extend(report_fields(&ping.report));
            (5, fields)
        }
        Body::Pong(pong) => {
            let mut fields = vec![("stamp", json!(pong.stamp)), ("own", json!(pong.own))];
            fields.extend(report_fields(&pong.report));
            (6, fields)
        }
        Body::Sync(sync) => (
            7,
            vec![
                ("fresh", json!(sync.fresh)),
                ("group", json!(sync.group.0)),
                ("incarnation", json!(sync.incarnation.0)),
                ("next", json!(sync.next)),
                ("base", json!(sync.base)),
            ],
        ),
        Body::Ack { group, ack } => (8, vec![("group", json!(group.0)), ("ack", json!(ack))]),
        Body::GroupDown { group } => (9, vec![("group", json!(group.0))]),
        Body::Credit { group, bytes } => {
            let fields = vec![("group", json!(group.0)), ("bytes", json!(bytes))];
            (13, fields)
        }
        Body::Attach => (10, vec![]),
        Body::SideOpen => (11, vec![]),
        Body::Side { cid, secret } => (
            12,
            vec![
                ("connection_id", json!(cid.0)),
                ("secret", json!(hex(secret))),
            ],
        ),
        Body::Channel {
            group,
            channel,
            notice,
        } => channel_fields(group, channel, &notice),
        Body::ChannelMessage { header, payload } => (
            20,
            vec![
                ("lane", json!(header.lane as u8)),
                ("group", json!(header.group.0)),
                ("number", json!(header.number)),
                ("channel", json!(header.channel.0)),
                ("message_id", json!(header.message.0)),
                ("payload", json!(hex(payload))),
            ],
        ),
        Body::Queue(queue) => (
            14,
            vec![
                ("position", json!(queue.position)),
                ("seconds", json!(queue.seconds)),
                ("of", json!(queue.of)),
            ],
        ),
        Body::Message { header, payload } => message_fields(&header, payload),
    };
    let mut fields: BTreeMap<_, _> = fields.into_iter().collect();
    fields.insert("kind", json!(kind));
    fields
}

fn channel_fields(
    group: GroupId,
    channel: ChannelId,
    notice: &ChannelNotice<'_>,
) -> (u8, Vec<(&'static str, Value)>) {
    let (says, rest) = match *notice {
        ChannelNotice::Joined { incarnation, next } => (
            1,
            vec![("incarnation", json!(incarnation.0)), ("next", json!(next))],
        ),
        ChannelNotice::Key { id, key, sequence } => (
            2,
            vec![
                ("key_id", json!(id)),
                ("key", json!(hex(key))),
                ("sequence", json!(sequence)),
            ],
        ),
        ChannelNotice::Left => (3, vec![]),
        ChannelNotice::CatchUp { next } => (4, vec![("next", json!(next))]),
        ChannelNotice::Skip { from, to, lost } => (
            5,
            vec![
                ("from", json!(from)),
                ("to", json!(to)),
                ("lost", json!(lost)),
            ],
        ),
        ChannelNotice::CaughtUp { next } => (6, vec![("next", json!(next))]),
    };
    let mut fields = vec![
        ("says", json!(says)),
        ("group", json!(group.0)),
        ("channel", json!(channel.0)),
    ];
    fields.extend(rest);
    (15, fields)
}

fn report_fields(report: &Report) -> [(&'static str, Value); 3] {
    [
        ("round_trip_us", json!(report.round_trip_us)),
        ("jitter_us", json!(report.jitter_us)),
        ("loss", json!(report.loss)),
    ]
}

fn message_fields(header: &MessageHeader, payload: &[u8]) -> (u8, Vec<(&'static str, Value)>) {
    let kind = match header.kind {
        MessageKind::Message => 16,
        MessageKind::Request => 17,
        MessageKind::Reply => 18,
        MessageKind::Error => 19,
    };
    let mut fields = vec![
        ("lane", json!(header.lane as u8)),
        ("more", json!(header.more)),
        ("group", json!(header.group.0)),
        ("number", json!(header.number)),
        ("ack", json!(header.ack)),
        ("message_id", json!(header.message.0)),
        ("payload", json!(hex(payload))),
    ];
    if header.kind != MessageKind::Message {
        fields.push(("request", json!(header.request)));
    }
    (kind, fields)
}
