//! Center and a game as a shard sees them, without links: what they answer to
//! what it sent.
//!
//! Invariant: the session of the client at index `i` is `i + 1`, because center
//! here numbers the slots that it is told.

use prost::Message as _;
use protocol::body::{Body, MessageHeader, MessageKind};
use protocol::control::{self, ToBackend, ToShard, to_backend, to_shard};
use protocol::ids::{GroupId, Incarnation, SessionId};
use protocol::stream::{Delivery, OutboxLimits, StreamEnd};
use protocol::time::Time;
use protocol::uplink::{self, Record};

/// A message of a backend, encoded.
pub fn to_shard_bytes(message: to_shard::Message) -> Vec<u8> {
    ToShard {
        message: Some(message),
    }
    .encode_to_vec()
}

/// How a backend begins; center's group is 0.
pub fn hello(uplink: usize, group: u32, lease_ms: u32) -> Vec<u8> {
    to_shard_bytes(to_shard::Message::Hello(control::BackendHello {
        version: uplink::VERSION,
        instance: format!("backend-{uplink}"),
        boot: 1,
        group,
        wants_address: false,
        lease_ms,
        wants_load: false,
    }))
}

/// The messages of a run of the control stream.
///
/// # Panics
/// The shard wrote what is none.
pub fn control_messages(mut run: &[u8]) -> impl Iterator<Item = to_backend::Message> {
    std::iter::from_fn(move || {
        let (length, rest) = run.split_first_chunk::<4>()?;
        let (message, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        run = rest;
        let message = ToBackend::decode(message).expect("the shard's message");
        Some(message.message.expect("the shard sets it"))
    })
}

/// What center answers to this message, if it answers.
pub fn answer_of_center(message: &to_backend::Message) -> Option<to_shard::Message> {
    match message {
        to_backend::Message::Claim(claim) => {
            let session = u64::from(claim.slot) + 1;
            let granted = control::ClaimGranted {
                claim: claim.claim,
                session,
                fence: session,
            };
            Some(to_shard::Message::ClaimGranted(granted))
        }
        to_backend::Message::Renew(renew) => {
            let renewal = renew.renewal;
            Some(to_shard::Message::Renewed(control::Renewed { renewal }))
        }
        // Nobody else is there.
        to_backend::Message::Seek(seek) => Some(to_shard::Message::Found(control::Found {
            seek: seek.seek,
            ..control::Found::default()
        })),
        to_backend::Message::Move(wanted) => Some(to_shard::Message::Moved(control::Moved {
            r#move: wanted.r#move,
            ..control::Moved::default()
        })),
        _ => None,
    }
}

/// A game that echoes: the backend's end of each session's stream.
#[derive(Debug)]
pub struct Game(Vec<StreamEnd>);

impl Game {
    /// For so many clients.
    pub fn new(group: GroupId, clients: usize) -> Self {
        let end = |_| {
            let mut end = StreamEnd::backend(group, Incarnation(5));
            end.attach();
            end
        };
        Self((0..clients).map(end).collect())
    }

    /// Appends to `replies` what the game sends for a run of records.
    ///
    /// # Panics
    /// The shard forwarded what no game should see.
    pub fn echo(&mut self, records: &[u8], now: Time, replies: &mut Vec<u8>) {
        let mut run = records;
        while let Some((session, record)) = uplink::next(&mut run).expect("the shard's records") {
            let end = &mut self.0[session.0 as usize - 1];
            match record {
                Record::Open(open) if open.away => end.detach(),
                Record::Open(_) => end.attach(),
                Record::Quality(_) => {}
                Record::Data(body) => handle(end, body, now),
                other => panic!("not for a game: {other:?}"),
            }
            send(session, end, replies);
        }
    }
}

fn handle(end: &mut StreamEnd, body: &[u8], now: Time) {
    match Body::decode(body).expect("the client's bodies") {
        Body::Sync(sync) => assert!(end.handle_sync(&sync)),
        Body::Message { header, payload } => {
            let delivery = end.handle_message(header.number, header.ack, now);
            assert_eq!(delivery, Delivery::Deliver);
            let reply = MessageHeader {
                kind: MessageKind::Reply,
                ..header
            };
            end.push(reply, payload, OutboxLimits::default())
                .expect("room in the outbox");
        }
        _ => {}
    }
}

fn send(session: SessionId, end: &mut StreamEnd, replies: &mut Vec<u8>) {
    if let Some(sync) = end.poll_sync() {
        uplink::encode_data(session, replies, |out| Body::Sync(sync).encode(out));
    }
    while let Some(message) = end.poll_transmit() {
        uplink::encode_data(session, replies, |out| out.extend_from_slice(message));
    }
}
