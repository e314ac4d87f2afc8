//! The least gateway with an echoing backend that a client can talk to. It
//! checks what the client sends as a real one does, and can be made to misbehave.

use crate::body::{BadBody, Body, Lane, MessageHeader, MessageKind, QueuePosition};
use crate::buffers::Buffers;
use crate::check::{self, ClockOffset};
use crate::cipher::{Opener, RekeyPolicy, Sealer};
use crate::client::compressed;
use crate::compress::Scratch;
use crate::frame::{FLAG_COMPRESSED, Header};
use crate::handshake::{self, Parameters, StaticKey};
use crate::ids::{GroupId, Incarnation, MessageId, SessionId};
use crate::limits::FRAME_BYTES_MAX;
use crate::quality::{Arrivals, Meter};
use crate::reason::CloseReason;
use crate::reassembly::Reassembly;
use crate::stream::{Delivery, OutboxLimits, StreamEnd};
use crate::time::Time;

pub const GROUP: GroupId = GroupId(1);
pub const HEARTBEAT_INTERVAL_MS: u64 = 30_000;
pub const IDLE_TIMEOUT_MS: u64 = 75_000;
pub const PARAMETERS: Parameters = Parameters {
    frame_bytes_max: FRAME_BYTES_MAX as u32,
    heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS as u32,
    idle_timeout_ms: IDLE_TIMEOUT_MS as u32,
    login_timeout_ms: 10_000,
    unix_ms: 1,
};

struct Ciphers {
    sealer: Sealer,
    opener: Opener,
    clock: ClockOffset,
}

pub struct Double {
    pub key: StaticKey,
    /// Whether the group opens by itself after login.
    pub open_group: bool,
    /// Messages of the game are not processed.
    pub deaf: bool,
    pub refuse_login: Option<CloseReason>,
    /// Whoever logs in waits here.
    pub queue: Option<QueuePosition>,
    pub rekey: RekeyPolicy,
    pub backend: StreamEnd,
    /// What LOGIN said.
    pub login: Option<String>,
    pub pongs: Vec<u32>,
    pub meter: Meter,
    pub unreliable: Vec<(Lane, u32)>,
    pub compressed_received: u32,
    pub phases_received: u32,
    ciphers: Option<Ciphers>,
    reassembly: Reassembly,
    buffers: Buffers,
    scratch: Scratch,
    out: Vec<u8>,
}

impl Double {
    pub fn new() -> Self {
        Self {
            key: StaticKey::from_secret([1; 32]),
            open_group: true,
            deaf: false,
            refuse_login: None,
            queue: None,
            rekey: RekeyPolicy::default(),
            backend: StreamEnd::backend(GROUP, Incarnation(1)),
            login: None,
            pongs: Vec::new(),
            meter: Meter::default(),
            unreliable: Vec::new(),
            compressed_received: 0,
            phases_received: 0,
            ciphers: None,
            reassembly: Reassembly::default(),
            buffers: Buffers::default(),
            scratch: Scratch::default(),
            out: Vec::new(),
        }
    }

    /// Bytes for the client.
    pub fn transmit(&mut self, now: Time) -> Vec<u8> {
        if self.ciphers.is_some() && self.login.is_some() {
            if let Some(sync) = self.backend.poll_sync() {
                self.seal(now, 0, &Body::Sync(sync));
            }
            while let Some(message) = self.backend.poll_transmit() {
                let message = message.to_vec();
                self.seal_encoded(now, &message);
            }
            if let Some(ack) = self.backend.poll_ack(now) {
                self.seal(now, 0, &Body::Ack { group: GROUP, ack });
            }
        }
        std::mem::take(&mut self.out)
    }

    fn seal_encoded(&mut self, now: Time, message: &[u8]) {
        let Ok(Body::Message { header, payload }) = Body::decode(message) else {
            panic!("the backend's outbox holds no message");
        };
        let (flags, payload) = compressed(payload, 256, &mut self.scratch);
        let mut body = Vec::new();
        header.encode(&mut body);
        body.extend_from_slice(payload);
        self.seal_raw(now, flags, &body);
    }

    pub fn seal(&mut self, now: Time, flags: u8, body: &Body<'_>) {
        let frame = self.sealed(now, flags, body);
        self.out.extend_from_slice(&frame);
    }

    /// A frame that is sealed and not sent.
    pub fn sealed(&mut self, now: Time, flags: u8, body: &Body<'_>) -> Vec<u8> {
        let mut frame = Vec::new();
        let sealer = &mut self.ciphers.as_mut().expect("no keys yet").sealer;
        sealer.seal(now, flags, &mut frame, |out| body.encode(out));
        frame
    }

    pub fn seal_raw(&mut self, now: Time, flags: u8, body: &[u8]) {
        let sealer = &mut self.ciphers.as_mut().expect("no keys yet").sealer;
        sealer.seal(now, flags, &mut self.out, |out| out.extend_from_slice(body));
    }

    /// A message beside the backend's stream.
    pub fn seal_message(&mut self, now: Time, lane: Lane, number: u32, ack: u32, payload: &[u8]) {
        let header = MessageHeader {
            lane,
            number,
            ack,
            ..header(MessageKind::Message, 0)
        };
        self.seal(now, 0, &Body::Message { header, payload });
    }

    /// Says something in the backend's stream.
    pub fn push(&mut self, payload: &[u8]) {
        let header = header(MessageKind::Message, 0);
        self.backend
            .push(header, payload, OutboxLimits::default())
            .unwrap();
    }

    /// The group opens (again).
    pub fn attach(&mut self) {
        self.backend.attach();
    }

    pub fn replace_backend(&mut self, incarnation: Incarnation) {
        self.backend = StreamEnd::backend(GROUP, incarnation);
        self.attach();
    }

    /// Bytes from the client.
    pub fn receive(&mut self, now: Time, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut data = bytes.as_mut_slice();
        let mut reassembly = std::mem::take(&mut self.reassembly);
        loop {
            match reassembly.next(&mut data, FRAME_BYTES_MAX, &mut self.buffers) {
                Ok(Some(frame)) => self.handle_frame(now, frame),
                Ok(None) => break,
                Err(bad) => panic!("a client sent {bad:?}"),
            }
        }
        self.reassembly = reassembly;
    }

    fn handle_frame(&mut self, now: Time, frame: &mut [u8]) {
        let Some(ciphers) = &mut self.ciphers else {
            self.handle_hello(now, frame);
            return;
        };
        let phase = ciphers.opener.phase();
        let opened = check::open(frame, &mut ciphers.opener, &mut ciphers.clock, now)
            .expect("a client's frame is refused");
        self.phases_received += u32::from(phase != ciphers.opener.phase());
        let compressed = opened.flags & FLAG_COMPRESSED != 0;
        self.compressed_received += u32::from(compressed);
        match Body::decode(opened.body) {
            Ok(Body::Message { header, payload }) => {
                let payload = if compressed {
                    self.scratch
                        .decompress(payload)
                        .expect("a bad payload")
                        .to_vec()
                } else {
                    payload.to_vec()
                };
                self.handle_message(now, &header, &payload);
            }
            Ok(body) => self.handle_body(now, &body),
            Err(BadBody::UnknownKind(_) | BadBody::Malformed) => panic!("a client's body is bad"),
        }
    }

    fn handle_hello(&mut self, now: Time, frame: &[u8]) {
        let client_ms = Header::decode(frame).map_or(0, |header| header.timestamp_ms);
        let (key, ephemeral) = (&self.key, [2; 32]);
        match handshake::respond(
            key,
            ephemeral,
            frame,
            now.wire_ms(),
            &PARAMETERS,
            &mut self.out,
        ) {
            Ok(keys) => {
                self.ciphers = Some(Ciphers {
                    sealer: Sealer::new(keys.gateway, now, self.rekey),
                    opener: Opener::new(keys.client),
                    clock: ClockOffset::new(client_ms, now),
                });
            }
            Err(reason) => handshake::reject(reason, now.wire_ms(), &mut self.out),
        }
    }

    /// Login is done.
    pub(super) fn let_in(&mut self, now: Time) {
        let ok = Body::LoginOk {
            session: SessionId(77),
            unix_ms: 5,
        };
        self.seal(now, 0, &ok);
        if self.open_group {
            self.attach();
        }
    }

    fn handle_body(&mut self, now: Time, body: &Body<'_>) {
        match *body {
            Body::Login(login) => {
                if let Some(reason) = self.refuse_login {
                    self.close(now, reason);
                    return;
                }
                self.login = Some(format!(
                    "{} {} {} {}",
                    login.client_version,
                    login.channel,
                    login.device,
                    String::from_utf8_lossy(login.credential)
                ));
                match self.queue {
                    Some(position) => self.seal(now, 0, &Body::Queue(position)),
                    None => self.let_in(now),
                }
            }
            Body::Logout => self.close(now, CloseReason::LoggedOut),
            Body::Ping(ping) => {
                let (pong, _) = self.meter.handle_ping(now, &ping, Arrivals::default());
                self.seal(now, 0, &Body::Pong(pong));
            }
            Body::Pong(pong) => self.pongs.push(pong.stamp),
            Body::Sync(sync) if sync.group == GROUP => {
                self.backend.handle_sync(&sync);
            }
            Body::Ack { group: GROUP, ack } => self.backend.handle_ack(ack),
            Body::Sync(_) => {}
            ref other => panic!("a client sent {other:?}"),
        }
    }

    fn close(&mut self, now: Time, reason: CloseReason) {
        let close = Body::Close {
            reason: reason as u16,
            retry_after_ms: 0,
            text: reason.text(),
        };
        self.seal(now, 0, &close);
    }

    fn handle_message(&mut self, now: Time, message: &MessageHeader, payload: &[u8]) {
        if message.lane != Lane::Reliable {
            assert!(self.backend.is_open(), "nobody could answer");
            self.unreliable.push((message.lane, message.number));
            return;
        }
        if self.deaf {
            return;
        }
        let delivery = self
            .backend
            .handle_message(message.number, message.ack, now);
        if delivery == Delivery::Deliver && message.kind == MessageKind::Request {
            let header = header(MessageKind::Reply, message.request);
            self.backend
                .push(header, payload, OutboxLimits::default())
                .unwrap();
        }
    }
}

fn header(kind: MessageKind, request: u32) -> MessageHeader {
    MessageHeader {
        kind,
        lane: Lane::Reliable,
        more: false,
        group: GROUP,
        number: 0,
        ack: 0,
        message: MessageId(2),
        request,
    }
}
