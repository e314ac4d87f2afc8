//! What comes from clients: bytes to frames, frames through the checks,
//! messages to their backend.

use protocol::body::{BadBody, Body, ChannelNotice, Lane, MessageHeader, MessageKind};
use protocol::check::{self, Age, Charged, ClockOffset};
use protocol::cipher::{Opener, Sealer};
use protocol::frame::{FLAG_COMPRESSED, Header};
use protocol::handshake::{self, Keys, Parameters};
use protocol::ids::GroupId;
use protocol::limits::{FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX, TIMESTAMP_FAILURES_MAX};
use protocol::reason::{CloseReason, DropReason};
use protocol::reassembly::BadLength;
use protocol::time::Now;
use protocol::uplink;

use super::Shard;
use super::connection::{Ciphers, Connection, Phase};
use super::story::Event;
use crate::engine::ConnId;
use crate::limits::Penalty;

/// Where the bytes of one message lie: its body in the frame, and its header
/// decoded.
struct Forward<'a> {
    header: Option<MessageHeader>,
    body: &'a [u8],
    compressed: bool,
}

impl Shard {
    /// Bytes from a client; frames are opened in place.
    pub fn handle_received(&mut self, now: Now, id: ConnId, data: &mut [u8]) {
        let Some(mut connection) = self.take(id) else {
            return;
        };
        self.counters.bytes_received.add(data.len() as u64);
        let mut end = None;
        if matches!(connection.phase, Phase::Closing) {
            self.counters.drop_frame(DropReason::AfterClose);
        } else {
            let mut pause_us = 0;
            let result = match connection.tls {
                Some(_) => self.handle_tls(now, &mut connection, data, &mut pause_us),
                None => self.handle_plain(now, &mut connection, data, &mut pause_us),
            };
            end = result.err();
            if pause_us > 0 && end.is_none() && !connection.rate_paused {
                self.counters.rate_pauses.add(1);
                connection.note(now.time, Event::RatePaused, 0);
                self.pause(now, &mut connection, pause_us);
            }
        }
        let sends = connection.has_output();
        self.connections[id.index as usize] = Some(connection);
        if sends {
            self.list_for_send(id);
        }
        if let Some(reason) = end {
            self.close(now, id, reason);
        }
    }

    /// Bytes of frames, one after the other.
    pub(super) fn handle_stream(
        &mut self,
        now: Now,
        connection: &mut Connection,
        mut data: &mut [u8],
        pause_us: &mut u64,
    ) -> Result<(), CloseReason> {
        let mut reassembly = std::mem::take(&mut connection.reassembly);
        let mut end = Ok(());
        while end.is_ok() {
            let frame_bytes_max = connection.frame_bytes_max();
            match reassembly.next(&mut data, frame_bytes_max, &mut self.buffers) {
                Ok(Some(frame)) => end = self.handle_frame(now, connection, frame, pause_us),
                Ok(None) => break,
                Err(BadLength(length)) => {
                    connection.reassembly = reassembly;
                    return self.handle_bad_length(now, connection, length, data, pause_us);
                }
            }
        }
        connection.reassembly = reassembly;
        end
    }

    /// One whole frame, whose length is within its bounds.
    pub(super) fn handle_frame(
        &mut self,
        now: Now,
        connection: &mut Connection,
        frame: &mut [u8],
        pause_us: &mut u64,
    ) -> Result<(), CloseReason> {
        let mut wait_us = 0;
        let bytes = frame.len();
        let above = self.charge(now, connection, bytes, &mut wait_us)?;
        let Some(ciphers) = &mut connection.ciphers else {
            *pause_us = wait_us.max(*pause_us);
            return self.handle_hello(now, connection, frame);
        };
        let opened = check::open(frame, &mut ciphers.opener, &mut ciphers.clock, now.time)?;
        // Only a whole frame is a sign of life: whoever sends a byte now and then
        // would otherwise hold a session without ever saying anything.
        connection.heard_at = now.time;
        connection.pinged = false;
        self.counters.frames_received.add(1);
        let compressed = opened.flags & FLAG_COMPRESSED != 0;
        let taken =
            self.handle_opened(now, connection, opened.age, opened.body, compressed, above)?;
        if !taken && self.config.limits.rate_penalty == Penalty::Drop {
            // Its loss is the penalty.
            connection.frames.refund(self.config.frames, 1);
            connection.bytes.refund(self.config.bytes, bytes as u32);
        } else {
            *pause_us = wait_us.max(*pause_us);
        }
        Ok(())
    }

    /// The body of a frame that passed every check of its envelope. `above`: the client
    /// is above its rate. Whether it was taken in spite of that.
    pub(super) fn handle_opened(
        &mut self,
        now: Now,
        connection: &mut Connection,
        age: Age,
        bytes: &[u8],
        compressed: bool,
        above: bool,
    ) -> Result<bool, CloseReason> {
        let body = match Body::decode(bytes) {
            Ok(body) => body,
            Err(BadBody::UnknownKind(_)) => {
                self.counters.drop_frame(DropReason::UnknownKind);
                return Ok(true);
            }
            Err(BadBody::Malformed) => return Err(CloseReason::BadBody),
        };
        let lane = match body {
            Body::Message { header, .. } => header.lane,
            _ if compressed => return Err(CloseReason::BadBody),
            _ => Lane::Reliable,
        };
        if !self.check_age(connection, age, lane)? {
            return Ok(true);
        }
        if above && lane != Lane::Reliable {
            self.counters.drop_frame(DropReason::RateUnreliable);
            return Ok(false);
        }
        self.handle_body(now, connection, body, bytes, compressed)?;
        Ok(true)
    }

    /// Charges a frame of so many bytes to the connection's rates. Whether it is
    /// above one of them, which makes the pause longer.
    pub(super) fn charge(
        &self,
        now: Now,
        connection: &mut Connection,
        bytes: usize,
        pause_us: &mut u64,
    ) -> Result<bool, CloseReason> {
        connection.traffic.received(now.time, bytes);
        let frames = connection.frames.charge(self.config.frames, 1, now.time);
        let bytes = connection
            .bytes
            .charge(self.config.bytes, bytes as u32, now.time);
        let mut above = false;
        for charged in [frames, bytes] {
            match charged {
                Charged::Within => {}
                Charged::Above { .. } if self.config.limits.rate_penalty == Penalty::Disconnect => {
                    return Err(CloseReason::RateExceeded);
                }
                Charged::Above { pause_us: pause } => {
                    above = true;
                    *pause_us = pause.max(*pause_us);
                }
                Charged::FarAbove => return Err(CloseReason::RateExceeded),
            }
        }
        Ok(above)
    }

    /// Whether the frame goes on; a reliable one does, until too many in a row
    /// were old or from the future.
    fn check_age(
        &self,
        connection: &mut Connection,
        age: Age,
        lane: Lane,
    ) -> Result<bool, CloseReason> {
        match (age, lane) {
            (Age::Fresh, _) => {
                connection.timestamp_failures = 0;
                Ok(true)
            }
            (_, Lane::Reliable) => {
                connection.timestamp_failures += 1;
                if connection.timestamp_failures > TIMESTAMP_FAILURES_MAX {
                    Err(CloseReason::BadTimestamp)
                } else {
                    Ok(true)
                }
            }
            (Age::Old, _) => {
                self.counters.drop_frame(DropReason::TimestampOld);
                Ok(false)
            }
            (Age::Future, _) => {
                self.counters.drop_frame(DropReason::TimestampFuture);
                Ok(false)
            }
        }
    }

    fn handle_hello(
        &mut self,
        now: Now,
        connection: &mut Connection,
        frame: &mut [u8],
    ) -> Result<(), CloseReason> {
        if !matches!(connection.phase, Phase::Hello) {
            // A client waits for its WELCOME.
            return Err(CloseReason::BadHandshake);
        }
        if self.hold_hello(now, connection, frame)? {
            return Ok(());
        }
        self.answer_hello(now, connection, frame)
    }

    /// Answers a first frame whose turn it is.
    pub(super) fn answer_hello(
        &mut self,
        now: Now,
        connection: &mut Connection,
        frame: &mut [u8],
    ) -> Result<(), CloseReason> {
        if let Some(ticket) = handshake::ticket_id(frame) {
            return self.handle_resume(now, connection, frame, ticket);
        }
        let ephemeral = self.ephemeral();
        let parameters = self.parameters(now);
        self.lend_out(connection);
        let keys = handshake::respond(
            &self.config.key,
            ephemeral,
            frame,
            now.time.wire_ms(),
            &parameters,
            &mut connection.out,
        )?;
        self.take_keys(now, connection, frame, keys);
        connection.phase = Phase::Login;
        Ok(())
    }

    /// What WELCOME tells.
    pub(super) fn parameters(&self, now: Now) -> Parameters {
        Parameters {
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            heartbeat_interval_ms: self.config.heartbeat_interval_ms,
            idle_timeout_ms: self.config.idle_timeout_ms,
            login_timeout_ms: self.config.login_timeout_ms,
            unix_ms: now.unix_ms,
        }
    }

    /// The handshake that this first frame began has given these keys.
    pub(super) fn take_keys(
        &self,
        now: Now,
        connection: &mut Connection,
        frame: &[u8],
        keys: Keys,
    ) {
        let client_ms = Header::decode(frame).map_or(0, |header| header.timestamp_ms);
        connection.ticket = Some(keys.ticket());
        connection.idle_timeout_ms = self.config.idle_timeout_ms;
        connection.ciphers = Some(Ciphers {
            sealer: Sealer::new(keys.gateway, now.time, self.config.rekey),
            opener: Opener::new(keys.client),
            clock: ClockOffset::new(client_ms, now.time),
        });
        self.counters.handshakes.add(1);
    }

    fn handle_body(
        &mut self,
        now: Now,
        connection: &mut Connection,
        body: Body<'_>,
        bytes: &[u8],
        compressed: bool,
    ) -> Result<(), CloseReason> {
        match body {
            Body::Ping(ping) => return self.handle_ping(now, connection, &ping),
            Body::Pong(pong) => {
                self.handle_pong(now, connection, &pong);
                return Ok(());
            }
            Body::Logout => return Err(CloseReason::LoggedOut),
            Body::Close { .. } => return Err(CloseReason::PeerClosed),
            Body::Login(login) => {
                return match connection.phase {
                    Phase::Login => self.handle_login(now, connection, &login),
                    _ => Err(CloseReason::BadBody),
                };
            }
            Body::Attach => {
                return match connection.phase {
                    Phase::Resuming(_) => self.handle_attach(now, connection),
                    _ => Err(CloseReason::BadBody),
                };
            }
            _ => {}
        }
        if !matches!(connection.phase, Phase::Session(_)) {
            self.counters.drop_frame(DropReason::BeforeLogin);
            return Ok(());
        }
        if matches!(body, Body::SideOpen) {
            return self.open_side(now, connection);
        }
        let (group, header) = match body {
            Body::Sync(sync) => (sync.group, None),
            Body::Ack { group, .. } => (group, None),
            Body::Channel {
                group,
                notice: ChannelNotice::CatchUp { .. },
                ..
            } => (group, None),
            Body::Message { header, .. }
                if matches!(header.kind, MessageKind::Message | MessageKind::Request) =>
            {
                (header.group, Some(header))
            }
            _ => {
                self.counters.drop_frame(DropReason::UnknownKind);
                return Ok(());
            }
        };
        self.forward(
            now,
            connection,
            group,
            &Forward {
                header,
                body: bytes,
                compressed,
            },
        )
    }

    /// Appends a message to the uplink that its group is bound to.
    fn forward(
        &mut self,
        now: Now,
        connection: &mut Connection,
        group: GroupId,
        message: &Forward<'_>,
    ) -> Result<(), CloseReason> {
        let Some(index) = self
            .config
            .groups
            .iter()
            .position(|config| config.group == group)
        else {
            self.counters.drop_frame(DropReason::UnknownGroup);
            return Ok(());
        };
        let Phase::Session(session) = &mut connection.phase else {
            return Ok(());
        };
        let session_id = session.id;
        let Some(binding) = session.bindings.get_mut(index) else {
            return Ok(());
        };
        let Some(at) = binding
            .uplink
            .map(usize::from)
            .filter(|&at| self.uplinks[at].holds(binding))
        else {
            self.counters.drop_frame(DropReason::GroupDown);
            if !std::mem::replace(&mut binding.down_told, true) {
                self.lend_out(connection);
                connection.seal(now.time, &Body::GroupDown { group });
                self.counters.frames_sent.add(1);
            }
            return Ok(());
        };
        let credit = binding.credit;
        if message.header.is_some_and(|it| it.lane != Lane::Reliable)
            && self.is_beyond_credit(credit, at)
        {
            self.counters.drop_frame(DropReason::UplinkFull);
            return Ok(());
        }
        let uplink = &mut self.uplinks[at];
        let out = uplink.stream(uplink::stream_of(session_id));
        let mut grown = 0;
        match message.header {
            Some(header) if message.compressed => {
                let (head, payload) = message.body.split_at(header.encoded_bytes());
                let payload = self
                    .scratch
                    .decompress(payload)
                    .map_err(|_| CloseReason::BadCompression)?;
                // What it grew by counts as sent, or a client could fill the
                // uplink of all with 64 times what its rate allows. A debt
                // pauses it with its next frame.
                grown = (head.len() + payload.len()).saturating_sub(message.body.len());
                let charged = connection
                    .bytes
                    .charge(self.config.bytes, grown as u32, now.time);
                if charged == Charged::FarAbove {
                    return Err(CloseReason::RateExceeded);
                }
                uplink::encode_data(session_id, out, |out| {
                    out.extend_from_slice(head);
                    out.extend_from_slice(payload);
                });
            }
            _ => uplink::encode_data(session_id, out, |out| out.extend_from_slice(message.body)),
        }
        self.counters.forwarded.add(1);
        self.charge_credit(now, connection, index, at, message.body.len() + grown);
        Ok(())
    }

    /// Gives a connection that is about to send a buffer from the pool.
    pub(super) fn lend_out(&mut self, connection: &mut Connection) {
        if connection.is_stream() && connection.out.capacity() == 0 {
            connection.out = self.buffers.take();
        }
    }

    /// A client that makes us answer and does not read is too slow. Before login
    /// nothing asks for more than a few answers, and strangers are many.
    pub(super) fn check_send_queue(&self, connection: &Connection) -> Result<(), CloseReason> {
        let bytes_max = match connection.phase {
            Phase::Session(_) => self.config.send_queue_bytes_max,
            _ => LOGIN_FRAME_BYTES_MAX.min(self.config.send_queue_bytes_max),
        };
        if connection.queued_bytes() > bytes_max {
            Err(CloseReason::SlowConsumer)
        } else {
            Ok(())
        }
    }
}
