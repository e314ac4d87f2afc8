//! The part of a client's core that knows datagrams: INIT until the gateway accepts, then
//! chunks instead of a stream of frames. Sessions, streams and timers are the parent's.
//!
//! Invariant: nothing that arrives unauthenticated changes more than the cookie of the
//! next INIT; a forged ACCEPT costs nothing but the look at it.

use super::{Client, ClientConfig, Closed, Event, Shared, State, Wire};
use crate::body::{Body, is_direct};
use crate::check::Age;
use crate::datagram::arq::Received;
use crate::datagram::chunk::{COMPRESSED, Chunk, Chunks};
use crate::datagram::cookie::COOKIE_BYTES;
use crate::datagram::hello::{self, Setup as Message};
use crate::datagram::{Cid, End, split};
use crate::frame::{self, FLAG_CHANNEL, FLAG_COMPRESSED, Header};
use crate::handshake::{Initiator, read_reject};
use crate::ids::{GroupId, SessionId};
use crate::limits::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, GROUPS_MAX};
use crate::reason::CloseReason;
use crate::time::Time;

/// Time, ms, until the first INIT is repeated; each further one waits twice as long.
const INIT_RETRY_MS: u64 = 250;

/// Doublings of that: 2 s at the most.
const INIT_DOUBLINGS_MAX: u32 = 3;

/// Bytes of a HELLO frame before the client's ephemeral key; in a RESUME the id of the
/// ticket lies between.
const EPHEMERAL_AT: usize = FRAME_HEADER_BYTES + 4;
const RESUME_EPHEMERAL_AT: usize = EPHEMERAL_AT + 8;

/// A connection being set up.
#[derive(Debug)]
pub(super) struct Setup {
    /// The start of the ephemeral public key: as unique as it is.
    nonce: u64,
    cookie: [u8; COOKIE_BYTES],
    /// HELLO or RESUME.
    hello: Vec<u8>,
    /// Makes the same one again when an ACCEPT that was not the gateway's has used up
    /// its state.
    ephemeral: [u8; 32],
    timestamp_ms: u32,
    /// When the next INIT is due.
    send_at: Time,
    tries: u32,
    /// The groups whose backends have sent SYNC, at most `GROUPS_MAX`, and one above the newest
    /// datagram by then.
    synced: Vec<(GroupId, u64)>,
}

impl Client {
    /// Begins a connection over datagrams: the first waits in `poll_transmit`.
    /// `ephemeral` must be fresh and secret.
    ///
    /// # Errors
    /// `BadHandshake` if the pinned key is unusable.
    pub fn connect_datagrams(
        config: ClientConfig,
        ephemeral: [u8; 32],
        now: Time,
    ) -> Result<Self, CloseReason> {
        let mut client = Self::connect(config, ephemeral, now)?;
        client.begin_setup(EPHEMERAL_AT, ephemeral, now);
        Ok(client)
    }

    /// Begins a connection over datagrams that comes back to the session, as `resume` does
    /// over a stream.
    ///
    /// # Errors
    /// `TicketUnknown` if there is nothing to come back to.
    pub fn resume_datagrams(&mut self, ephemeral: [u8; 32], now: Time) -> Result<(), CloseReason> {
        self.resume(ephemeral, now)?;
        self.begin_setup(RESUME_EPHEMERAL_AT, ephemeral, now);
        Ok(())
    }

    /// The first frame waits; it travels in INITs.
    fn begin_setup(&mut self, ephemeral_at: usize, ephemeral: [u8; 32], now: Time) {
        let hello = std::mem::take(&mut self.out);
        let nonce = hello
            .get(ephemeral_at..)
            .and_then(|key| key.first_chunk())
            .map_or(0, |start| u64::from_le_bytes(*start));
        self.setup = Some(Box::new(Setup {
            nonce,
            cookie: [0; COOKIE_BYTES],
            hello,
            ephemeral,
            timestamp_ms: now.wire_ms(),
            send_at: now,
            tries: 0,
            synced: Vec::new(),
        }));
    }

    fn end(&self) -> Option<&End> {
        match &self.state {
            State::Login(connection) | State::Up(connection) => match &connection.wire {
                Wire::Datagrams(end) => Some(end),
                Wire::Stream(_) => None,
            },
            _ => None,
        }
    }

    fn end_mut(&mut self) -> Option<&mut End> {
        match &mut self.state {
            State::Login(connection) | State::Up(connection) => match &mut connection.wire {
                Wire::Datagrams(end) => Some(end),
                Wire::Stream(_) => None,
            },
            _ => None,
        }
    }

    /// One datagram arrived.
    pub(super) fn handle_datagram(
        &mut self,
        now: Time,
        data: &mut [u8],
        shared: &mut Shared,
        events: &mut impl FnMut(Event<'_>),
    ) {
        let outcome = if matches!(self.state, State::Hello(_)) {
            self.handle_setup(now, data)
        } else {
            self.handle_sealed(now, data, shared, events)
        };
        if let Err(closed) = outcome {
            self.close(closed, events);
        }
    }

    fn handle_setup(&mut self, now: Time, data: &[u8]) -> Result<(), Closed> {
        let Some(setup) = &mut self.setup else {
            return Ok(());
        };
        match hello::decode(data) {
            Some((nonce, message)) if nonce == setup.nonce => match message {
                Message::Retry { cookie } => {
                    setup.cookie = *cookie;
                    setup.send_at = now;
                    Ok(())
                }
                Message::Accept { cid, welcome } => {
                    self.handle_accept(now, cid, welcome);
                    Ok(())
                }
                Message::Refuse { reject } => match read_reject(reject) {
                    Some(reason) => Err(Closed::ByGateway(Some(reason))),
                    None => Ok(()),
                },
                Message::Init { .. } => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn handle_accept(&mut self, now: Time, cid: Cid, welcome: &[u8]) {
        let Some(setup) = &mut self.setup else {
            return;
        };
        let (ephemeral, timestamp_ms) = (setup.ephemeral, setup.timestamp_ms);
        let State::Hello(initiator) = std::mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        match initiator.welcome(welcome) {
            Ok((keys, parameters)) => {
                setup.ephemeral = [0; 32];
                self.tickets.renew(keys.ticket());
                let peer_ms = Header::decode(welcome).map(|header| header.timestamp_ms);
                let policy = self.config.rekey;
                let (seal, open) = (keys.client, keys.gateway);
                let end = End::new(cid, seal, open, policy, peer_ms, FRAME_BYTES_MAX, now);
                self.heard_at = now;
                self.log_in(now, Wire::Datagrams(Box::new(end)), parameters);
            }
            Err(_) => {
                let key = self.config.gateway_key;
                let out = &mut Vec::new();
                let again = match self.tickets.next() {
                    Some(ticket) if self.session != SessionId(0) => {
                        Initiator::resume(ticket, ephemeral, timestamp_ms, out)
                    }
                    _ => Initiator::hello(&key, ephemeral, timestamp_ms, out),
                };
                if let Ok(initiator) = again {
                    self.state = State::Hello(initiator);
                }
            }
        }
    }

    fn handle_sealed(
        &mut self,
        now: Time,
        data: &mut [u8],
        shared: &mut Shared,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        let (Some((_, frame)), Some(end)) = (split(data), self.end_mut()) else {
            return Ok(());
        };
        if let Some(header) = Header::decode(frame)
            && header.flags & FLAG_CHANNEL != 0
        {
            if frame::crc(frame) == header.crc {
                self.handle_channel_frame(&header, frame, &mut shared.scratch, events)?;
            }
            return Ok(());
        }
        // What does not verify is somebody else's, or broken on its way.
        let Ok(opened) = end.open(now, frame) else {
            return Ok(());
        };
        end.open_window(FRAME_BYTES_MAX);
        self.heard_at = now;
        let bad = Closed::ByClient(CloseReason::BadBody);
        for chunk in Chunks::new(opened.body) {
            let Some(end) = self.end_mut() else {
                return Ok(());
            };
            match chunk.map_err(|_| bad)? {
                Chunk::Ack(ack) => end.handle_ack(now, &ack),
                Chunk::Challenge(token) => end.handle_challenge(token),
                Chunk::Response(_) | Chunk::Padding(_) => {}
                Chunk::NewCid(cid) => end.cid = cid,
                Chunk::Body { flags, bytes } => {
                    if is_direct(bytes) && !self.is_overtaken(opened.sequence, bytes) {
                        self.handle_whole(now, flags, opened.age, bytes, shared, events)?;
                    }
                }
                Chunk::Data {
                    flags,
                    number,
                    bytes,
                } => match end.receive(now, flags, number, bytes) {
                    Received::Message => {
                        self.handle_whole(now, flags, opened.age, bytes, shared, events)?;
                        self.handle_early(now, shared, events)?;
                    }
                    Received::Kept => self.handle_early(now, shared, events)?,
                    Received::Refused => {}
                    Received::TooLong => return Err(Closed::ByClient(CloseReason::BadLength)),
                },
            }
        }
        Ok(())
    }

    /// Messages that came in pieces or before their turn.
    fn handle_early(
        &mut self,
        now: Time,
        shared: &mut Shared,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        while let Some(message) = self.end_mut().and_then(End::poll_message) {
            let (flags, bytes) = message.map_err(|()| Closed::ByClient(CloseReason::BadLength))?;
            self.handle_whole(now, flags, Age::Fresh, &bytes, shared, events)?;
        }
        Ok(())
    }

    pub(super) fn handle_whole(
        &mut self,
        now: Time,
        flags: u8,
        age: Age,
        bytes: &[u8],
        shared: &mut Shared,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        let flags = if flags & COMPRESSED != 0 {
            FLAG_COMPRESSED
        } else {
            0
        };
        let body = Body::decode(bytes);
        if let Ok(Body::Sync(sync)) = &body {
            self.note_sync(sync.group);
        }
        self.handle_body(now, flags, age, body, &mut shared.scratch, events)
    }

    fn note_sync(&mut self, group: GroupId) {
        let below = self.end().map_or(0, End::expected);
        let Some(setup) = &mut self.setup else {
            return;
        };
        let synced = &mut setup.synced;
        match synced.iter().position(|(other, _)| *other == group) {
            Some(at) => synced[at].1 = below,
            None if synced.len() < GROUPS_MAX => synced.push((group, below)),
            None => {}
        }
    }

    /// Whether this is a message that SYNC of its group has overtaken. It may be of a process
    /// that is no more, whose numbers and acknowledgements mean nothing to the one that is.
    fn is_overtaken(&self, sequence: u64, bytes: &[u8]) -> bool {
        let (Some(setup), Ok(Body::Message { header, .. })) = (&self.setup, Body::decode(bytes))
        else {
            return false;
        };
        let mut synced = setup.synced.iter();
        synced.any(|(group, below)| *group == header.group && sequence < *below)
    }

    /// Appends the next datagram, if there is one.
    pub(super) fn transmit_datagram(&mut self, now: Time, out: &mut Vec<u8>) {
        if let Some(end) = self.end_mut() {
            end.write(now, DATAGRAM_BYTES_MAX, out);
            return;
        }
        let Some(setup) = &mut self.setup else {
            return;
        };
        if matches!(self.state, State::Hello(_)) && now >= setup.send_at {
            let doublings = setup.tries.min(INIT_DOUBLINGS_MAX);
            setup.send_at = now.after_ms(INIT_RETRY_MS << doublings);
            setup.tries += 1;
            let init = Message::Init {
                cookie: &setup.cookie,
                hello: &setup.hello,
            };
            hello::encode(setup.nonce, &init, out);
        }
    }

    /// When the datagrams want to be looked at.
    pub(super) fn datagram_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Hello(_) => self.setup.as_ref().map(|setup| setup.send_at),
            _ => self.end().and_then(End::poll_timeout),
        }
    }

    pub(super) fn handle_datagram_timeout(&mut self, now: Time) {
        if let Some(end) = self.end_mut() {
            end.handle_timeout(now);
        }
    }
}

#[cfg(test)]
mod tests;
