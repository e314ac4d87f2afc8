//! A channel: what its members are told, and frames that are sealed for all of them.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use protocol::body::{Body, ChannelHeader, ChannelNotice, Lane};
use protocol::channel::{ChannelOpener, ChannelSealer};
use protocol::cipher::{Key, RekeyPolicy};
use protocol::compress::Scratch;
use protocol::frame::{FLAG_COMPRESSED, Header};
use protocol::ids::{ChannelId, GroupId, Incarnation, MessageId};
use protocol::time::Time;
use serde::Serialize;
use serde_json::Value;

use super::good::fields;
use super::{GATEWAY_MS, hex, rising};

const GROUP: GroupId = GroupId(3);
const CHANNEL: ChannelId = ChannelId(0x0102_0304);
const KEY_ID: u32 = 0x0a0b_0c0d;

/// Sequence of the first frame here: as for a member that joined after it.
const FIRST: u64 = 2;

#[derive(Serialize)]
pub struct File {
    version: u32,
    channel_bodies: Vec<BodyVector>,
    channel_frames: Vec<FrameVector>,
}

#[derive(Serialize)]
struct BodyVector {
    name: &'static str,
    from: &'static str,
    body: String,
    fields: BTreeMap<&'static str, Value>,
}

#[derive(Serialize)]
struct FrameVector {
    name: &'static str,
    key: String,
    key_id: u32,
    sequence: u64,
    timestamp: u32,
    compressed: bool,
    body: String,
    fields: BTreeMap<&'static str, Value>,
    frame: String,
}

fn notice(name: &'static str, notice: ChannelNotice<'_>) -> BodyVector {
    let from = match notice {
        ChannelNotice::CatchUp { .. } => "client",
        _ => "gateway",
    };
    let body = Body::Channel {
        group: GROUP,
        channel: CHANNEL,
        notice,
    };
    let mut bytes = Vec::new();
    body.encode(&mut bytes);
    BodyVector {
        name,
        from,
        body: hex(&bytes),
        fields: fields(&body),
    }
}

/// The file.
pub fn file() -> anyhow::Result<File> {
    let key = rising(0x80);
    let bodies = vec![
        notice(
            "JOINED",
            ChannelNotice::Joined {
                incarnation: Incarnation(0x1122_3344_5566_7788),
                next: 4,
            },
        ),
        notice(
            "KEY",
            ChannelNotice::Key {
                id: KEY_ID,
                key: &key,
                sequence: FIRST,
            },
        ),
        notice("LEFT", ChannelNotice::Left),
        notice("CATCH_UP", ChannelNotice::CatchUp { next: 4 }),
        notice(
            "SKIP of what is not for this member",
            ChannelNotice::Skip {
                from: 4,
                to: 5,
                lost: false,
            },
        ),
        notice(
            "SKIP of what is no longer kept",
            ChannelNotice::Skip {
                from: 4,
                to: 300,
                lost: true,
            },
        ),
        notice("CAUGHT_UP", ChannelNotice::CaughtUp { next: 301 }),
    ];
    let now = Time(0).after_ms(u64::from(GATEWAY_MS));
    let mut sealer = ChannelSealer::new(KEY_ID, Key(key), now, RekeyPolicy::default());
    for _ in 0..FIRST {
        sealer.seal(now, 0, &mut Vec::new(), |_| {});
    }
    let mut opener = ChannelOpener::new(KEY_ID, Key(key), FIRST);
    let mut scratch = Scratch::default();
    let mut frames = Vec::new();
    for (name, lane, number, payload) in [
        ("reliable", Lane::Reliable, 4, &b"to all"[..]),
        ("unreliable", Lane::Unreliable, 0, b"to whom it reaches"),
        ("sequenced", Lane::Sequenced, 9, b""),
        ("reliable and compressed", Lane::Reliable, 5, &[b'a'; 300]),
    ] {
        let header = ChannelHeader {
            lane,
            group: GROUP,
            number,
            channel: CHANNEL,
            message: MessageId(7),
        };
        let shorter = scratch.compress(payload).filter(|_| payload.len() > 100);
        let compressed = shorter.is_some();
        let flags = if compressed { FLAG_COMPRESSED } else { 0 };
        let mut body = Vec::new();
        let sealed = shorter.unwrap_or(payload);
        Body::ChannelMessage {
            header,
            payload: sealed,
        }
        .encode(&mut body);
        let sequence = sealer.sequence();
        let mut frame = Vec::new();
        sealer.seal(now, flags, &mut frame, |out| out.extend_from_slice(&body));
        let mut copy = frame.clone();
        let head = Header::decode(&copy).context("no header")?;
        ensure!(
            opener.open(&head, &mut copy) == Some(&body),
            "{name} does not open"
        );
        let fields = fields(&Body::ChannelMessage { header, payload });
        frames.push(FrameVector {
            name,
            key: hex(&key),
            key_id: KEY_ID,
            sequence,
            timestamp: GATEWAY_MS,
            compressed,
            body: hex(&body),
            fields,
            frame: hex(&frame),
        });
    }
    Ok(File {
        version: 1,
        channel_bodies: bodies,
        channel_frames: frames,
    })
}
