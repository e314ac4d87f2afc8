//! Gateway and echo backend in memory: real handshake, real seals, real
//! streams, and one planted fault.

use std::collections::BTreeMap;

use gateway::engine::ConnId;
use protocol::body::{Body, Lane, MessageHeader, MessageKind};
use protocol::buffers::Buffers;
use protocol::cipher::{Opener, RekeyPolicy, Sealer};
use protocol::compress::Scratch;
use protocol::frame::FLAG_COMPRESSED;
use protocol::handshake::{self, Parameters, StaticKey};
use protocol::ids::{GroupId, Incarnation, SessionId};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::quality::Pong;
use protocol::reason::CloseReason;
use protocol::reassembly::Reassembly;
use protocol::stream::{Delivery, OutboxLimits, StreamEnd};
use protocol::time::Time;

use super::map::MapServer;

const GROUP: GroupId = GroupId(1);

fn key() -> StaticKey {
    StaticKey::from_secret([42; 32])
}

pub(super) fn public_key() -> [u8; 32] {
    *key().public()
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Corrupt,
    Double,
    Drop,
    /// A reply waits until the next one of its client is out; so not the last.
    Reorder {
        before: u64,
    },
    /// An error in place of a reply.
    Error,
    /// A further reply to a request that nobody made.
    Invent,
    CutAll {
        after: u64,
    },
    CutHello {
        first: u64,
    },
    /// The network cuts who says LOGOUT, before the answer.
    CutLogout,
    /// Nothing is answered before this time after the first message.
    Stall {
        until_ms: u64,
    },
    Refuse,
}

struct Link {
    reassembly: Reassembly,
    keys: Option<(Sealer, Opener)>,
    stream: StreamEnd,
    held: Option<(MessageHeader, Vec<u8>)>,
}

pub(super) struct Server {
    fault: Fault,
    every: u64,
    messages: u64,
    hellos: u64,
    first_message: Option<Time>,
    links: BTreeMap<ConnId, Link>,
    answers: Vec<(ConnId, Vec<u8>)>,
    stalled: Vec<(ConnId, Vec<u8>)>,
    closed: Vec<ConnId>,
    is_stalling: bool,
    buffers: Buffers,
    scratch: Scratch,
    map: Option<MapServer>,
}

impl Server {
    pub(super) fn new(fault: Fault, every: u64) -> Self {
        Self {
            fault,
            every,
            messages: 0,
            hellos: 0,
            first_message: None,
            links: BTreeMap::new(),
            answers: Vec::new(),
            stalled: Vec::new(),
            closed: Vec::new(),
            is_stalling: matches!(fault, Fault::Stall { .. }),
            buffers: Buffers::default(),
            scratch: Scratch::default(),
            map: None,
        }
    }

    /// A server whose game is on a map.
    pub(super) fn with_map(map: MapServer) -> Self {
        Self {
            map: Some(map),
            ..Self::new(Fault::None, u64::MAX)
        }
    }

    /// Time has passed.
    pub(super) fn handle_time(&mut self, now: Time) {
        let told = match &mut self.map {
            Some(map) => map.handle_time(now),
            None => Vec::new(),
        };
        for (session, lane, message, payload) in told {
            let conn = self
                .links
                .keys()
                .find(|conn| u64::from(conn.index) == session)
                .copied();
            let Some((conn, mut link)) = conn.and_then(|conn| self.links.remove_entry(&conn))
            else {
                continue;
            };
            let mut out = Vec::new();
            let header = MessageHeader {
                kind: MessageKind::Message,
                lane,
                more: false,
                group: GROUP,
                message,
                request: 0,
                number: 0,
                ack: 0,
            };
            reply(&mut link, header, &payload, now, &mut out);
            self.flush(&mut link, now, &mut out);
            self.answers.push((conn, out));
            self.links.insert(conn, link);
        }
    }

    pub(super) fn take_answers(&mut self) -> Vec<(ConnId, Vec<u8>)> {
        std::mem::take(&mut self.answers)
    }

    pub(super) fn take_closed(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.closed)
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.links.remove(&conn);
    }

    pub(super) fn handle_received(&mut self, conn: ConnId, bytes: &[u8], now: Time) {
        let mut link = self.links.remove(&conn).unwrap_or_else(|| Link {
            reassembly: Reassembly::default(),
            keys: None,
            stream: StreamEnd::backend(GROUP, Incarnation(5)),
            held: None,
        });
        let mut bytes = bytes.to_vec();
        let mut data = &mut bytes[..];
        let mut out = Vec::new();
        let mut is_over = false;
        loop {
            let mut pool = std::mem::take(&mut self.buffers);
            let frame = link
                .reassembly
                .next(&mut data, FRAME_BYTES_MAX, &mut pool)
                .expect("lengths of an honest client")
                .map(|frame| frame.to_vec());
            self.buffers = pool;
            let Some(mut frame) = frame else { break };
            if link.keys.is_some() {
                is_over |= self.sealed(conn, &mut link, &mut frame, now, &mut out);
            } else {
                is_over |= self.hello(&mut link, &frame, now, &mut out);
            }
        }
        self.flush(&mut link, now, &mut out);
        if !out.is_empty() {
            self.answer(conn, out, now);
        }
        if is_over {
            self.closed.push(conn);
            if let Some(map) = &mut self.map {
                map.forget(conn.index.into());
            }
        } else {
            self.links.insert(conn, link);
        }
        if let Fault::CutAll { after } = self.fault
            && self.messages >= after
        {
            let links = std::mem::take(&mut self.links);
            self.closed.extend(links.into_keys());
        }
    }

    fn answer(&mut self, conn: ConnId, out: Vec<u8>, now: Time) {
        if let (Fault::Stall { until_ms }, Some(first)) = (self.fault, self.first_message)
            && self.is_stalling
        {
            self.stalled.push((conn, out));
            if now >= first.after_ms(until_ms) {
                self.is_stalling = false;
                self.answers.append(&mut self.stalled);
            }
            return;
        }
        self.answers.push((conn, out));
    }

    fn hello(&mut self, link: &mut Link, frame: &[u8], now: Time, out: &mut Vec<u8>) -> bool {
        self.hellos += 1;
        if let Fault::CutHello { first } = self.fault
            && self.hellos <= first
        {
            return true;
        }
        if handshake::ticket_id(frame).is_some() {
            handshake::reject(CloseReason::TicketUnknown, now.wire_ms(), out);
            return true;
        }
        let parameters = Parameters {
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            heartbeat_interval_ms: 20_000,
            idle_timeout_ms: 60_000,
            login_timeout_ms: 10_000,
            unix_ms: 1_700_000_000_000,
        };
        match handshake::respond(&key(), [3; 32], frame, now.wire_ms(), &parameters, out) {
            Ok(keys) => {
                link.keys = Some((
                    Sealer::new(keys.gateway, now, RekeyPolicy::default()),
                    Opener::new(keys.client),
                ));
                false
            }
            Err(reason) => {
                handshake::reject(reason, now.wire_ms(), out);
                true
            }
        }
    }

    fn sealed(
        &mut self,
        conn: ConnId,
        link: &mut Link,
        frame: &mut [u8],
        now: Time,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some((sealer, opener)) = link.keys.as_mut() else {
            return true;
        };
        let header = protocol::frame::Header::decode(frame).expect("a header");
        let header_flags = header.flags;
        let body = opener
            .open(&header, frame)
            .expect("an honest client's seal");
        match Body::decode(body).expect("an honest client's body") {
            Body::Login(_) => {
                let body = Body::LoginOk {
                    session: SessionId(1),
                    unix_ms: 0,
                };
                sealer.seal(now, 0, out, |out| body.encode(out));
                link.stream.attach();
            }
            Body::Logout if self.fault == Fault::CutLogout => return true,
            Body::Logout => {
                let body = Body::Close {
                    reason: CloseReason::LoggedOut as u16,
                    retry_after_ms: 0,
                    text: "",
                };
                sealer.seal(now, 0, out, |out| body.encode(out));
                return true;
            }
            Body::Ping(ping) => {
                let pong = Pong {
                    stamp: ping.stamp,
                    ..Pong::default()
                };
                sealer.seal(now, 0, out, |out| Body::Pong(pong).encode(out));
            }
            Body::Sync(sync) => {
                link.stream.handle_sync(&sync);
            }
            Body::Ack { ack, .. } => link.stream.handle_ack(ack),
            Body::Message { header, payload } => {
                let is_new = header.lane != Lane::Reliable
                    || link.stream.handle_message(header.number, header.ack, now)
                        == Delivery::Deliver;
                if is_new {
                    self.messages += 1;
                    self.first_message.get_or_insert(now);
                    let payload = if header_flags & FLAG_COMPRESSED == 0 {
                        payload
                    } else {
                        let scratch = &mut self.scratch;
                        scratch.decompress(payload).expect("what was compressed")
                    };
                    let payload = payload.to_vec();
                    self.game(conn, link, header, payload, now, out);
                }
            }
            _ => {}
        }
        false
    }

    fn game(
        &mut self,
        conn: ConnId,
        link: &mut Link,
        mut header: MessageHeader,
        payload: Vec<u8>,
        now: Time,
        out: &mut Vec<u8>,
    ) {
        let Some(map) = &mut self.map else {
            self.echo(link, header, payload, now, out);
            return;
        };
        if let Some((kind, answer)) = map.handle(conn.index.into(), &header, &payload) {
            header.kind = kind;
            reply(link, header, &answer, now, out);
        }
    }

    fn echo(
        &mut self,
        link: &mut Link,
        mut header: MessageHeader,
        mut payload: Vec<u8>,
        now: Time,
        out: &mut Vec<u8>,
    ) {
        if header.kind == MessageKind::Request {
            header.kind = MessageKind::Reply;
        }
        let held = link.held.take();
        if !self.messages.is_multiple_of(self.every) {
            reply(link, header, &payload, now, out);
        } else {
            match self.fault {
                Fault::Corrupt => {
                    let last = payload.len() - 1;
                    payload[last] ^= 1;
                    reply(link, header, &payload, now, out);
                }
                Fault::Double => {
                    reply(link, header, &payload, now, out);
                    reply(link, header, &payload, now, out);
                }
                Fault::Drop => {}
                Fault::Reorder { before } if self.messages < before => {
                    link.held = Some((header, payload))
                }
                Fault::Error => {
                    header.kind = MessageKind::Error;
                    reply(link, header, &[1, 0, b'x'], now, out);
                }
                Fault::Invent => {
                    reply(link, header, &payload, now, out);
                    header.request += 1_000;
                    reply(link, header, &payload, now, out);
                }
                _ => reply(link, header, &payload, now, out),
            }
        }
        if let Some((header, payload)) = held {
            reply(link, header, &payload, now, out);
        }
    }

    /// Sends what the reliable stream holds.
    fn flush(&mut self, link: &mut Link, now: Time, out: &mut Vec<u8>) {
        let Some((sealer, _)) = link.keys.as_mut() else {
            return;
        };
        if let Some(sync) = link.stream.poll_sync() {
            sealer.seal(now, 0, out, |out| Body::Sync(sync).encode(out));
        }
        while let Some(message) = link.stream.poll_transmit() {
            sealer.seal(now, 0, out, |out| out.extend_from_slice(message));
        }
    }
}

fn reply(link: &mut Link, mut header: MessageHeader, payload: &[u8], now: Time, out: &mut Vec<u8>) {
    if header.lane == Lane::Reliable {
        link.stream
            .push(header, payload, OutboxLimits::default())
            .expect("room in the outbox");
        return;
    }
    header.number = if header.lane == Lane::Sequenced {
        link.stream.next_sequenced()
    } else {
        0
    };
    if let Some((sealer, _)) = link.keys.as_mut() {
        sealer.seal(now, 0, out, |out| {
            header.encode(out);
            out.extend_from_slice(payload);
        });
    }
}
