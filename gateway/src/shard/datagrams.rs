//! Connections over datagrams: setting them up without state before a valid cookie, the
//! checks of each datagram, where the client is now, and what leaves when.
//!
//! Past its envelope a datagram's body goes the way of every frame (`handle_opened`);
//! sessions, logins and limits do not know what carried it.
//!
//! Invariants:
//! - Before an INIT with a valid cookie nothing is kept of its sender, and an answer is
//!   shorter than what asked for it.
//! - To an address that has not answered a challenge no more is sent than came from it.
//! - A connection has at most two ids, its own and the one that the client still uses.

mod sending;

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use protocol::body::{Body, is_direct};
use protocol::check::{Age, Bucket, Charged};
use protocol::datagram::arq::Received;
use protocol::datagram::chunk::{COMPRESSED, Chunk, Chunks};
use protocol::datagram::cookie::{ADDRESS_BYTES, COOKIE_BYTES, Cookies};
use protocol::datagram::hello::{self, Setup};
use protocol::datagram::side::Proof;
use protocol::datagram::{Cid, End, SETUP, split};
use protocol::frame::Header;
use protocol::handshake;
use protocol::ids::{SessionId, TicketId};
use protocol::limits::{FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX};
use protocol::reason::{CloseReason, DropReason};
use protocol::ticket::Ticket;
use protocol::time::{Now, Time};
use rand_core::RngCore;
use rustc_hash::FxHashMap;

use super::Shard;
use super::connection::{Asker, Connection, PendingResume, Phase};
use super::limiting::Refused;
use super::story::Event;
use super::wheel::Wheel;
use crate::engine::ConnId;
use crate::limits::Penalty;

/// Microseconds of a tick of the datagrams' timers: their deadlines are tens of
/// milliseconds.
const TICK_US: u64 = 4_096;

/// How long, ms, an address may take to answer a challenge: two lost datagrams on a bad
/// mobile network. Then the old address counts again.
const CHALLENGE_MS: u64 = 3_000;

/// What connections over datagrams are made from.
#[derive(Clone, Debug)]
pub struct DatagramConfig {
    /// The same for all shards of a gateway, drawn when it starts.
    pub cookie_secret: [u8; 32],
    /// Ids of connections from this index on are the shard's to give; below it they are
    /// the engine's.
    pub first_index: u32,
    /// Connections over datagrams at once.
    pub connections_max: u32,
}

/// Frames of channels that wait for the kernel: a few turns' worth. Beyond it they go the way
/// of every other message.
const SHARED_MAX: usize = 4_096;

/// What a shard keeps for all of them.
#[derive(Debug)]
pub struct DatagramSide {
    cookies: Cookies,
    cids: FxHashMap<Cid, ConnId>,
    /// By address: the connection that its last INIT opened, until login.
    inits: FxHashMap<SocketAddr, ConnId>,
    /// By address: the nonce of the INIT whose ticket center is asked for.
    seeking: FxHashMap<SocketAddr, u64>,
    first_index: u32,
    connections_max: u32,
    /// Ids that were used and are free, with their next generation.
    free: Vec<ConnId>,
    /// Ids that were ever used.
    used: u32,
    timers: Wheel,
    due: Vec<ConnId>,
    /// Connections with something to send; each at most once (`listed`).
    pub to_send: VecDeque<ConnId>,
    /// Answers to INITs of this turn.
    replies: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Frames that are sealed for a channel, and to whom they go; at most `SHARED_MAX`.
    shared: VecDeque<(ConnId, Arc<[u8]>)>,
}

impl DatagramSide {
    /// Without connections.
    pub fn new(config: &DatagramConfig, now: Time) -> Self {
        Self {
            cookies: Cookies::new(config.cookie_secret),
            cids: FxHashMap::default(),
            inits: FxHashMap::default(),
            seeking: FxHashMap::default(),
            first_index: config.first_index,
            connections_max: config.connections_max,
            free: Vec::new(),
            used: 0,
            timers: Wheel::new(now, TICK_US),
            due: Vec::new(),
            to_send: VecDeque::new(),
            replies: VecDeque::new(),
            shared: VecDeque::new(),
        }
    }

    /// Takes a frame that is sealed for a channel; whether there was room.
    pub(super) fn push_shared(&mut self, id: ConnId, frame: &Arc<[u8]>) -> bool {
        let has_room = self.shared.len() < SHARED_MAX;
        if has_room {
            self.shared.push_back((id, Arc::clone(frame)));
        }
        has_room
    }

    /// How many ids and how many addresses are remembered.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn remembered(&self) -> (usize, usize) {
        (self.cids.len(), self.inits.len())
    }

    /// Names a connection; `false` if the name is taken.
    pub(super) fn insert(&mut self, cid: Cid, id: ConnId) -> bool {
        match self.cids.entry(cid) {
            Entry::Vacant(place) => {
                place.insert(id);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn id(&mut self) -> Option<ConnId> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        (self.used < self.connections_max).then(|| {
            self.used += 1;
            ConnId {
                index: self.first_index + self.used - 1,
                generation: 0,
            }
        })
    }
}

/// What one of them has besides what every connection has.
#[derive(Debug)]
pub struct Datagrams {
    /// Keys, window, reliable lane.
    pub end: End,
    /// The id that the client uses, until it uses that of `end`.
    old_cid: Option<Cid>,
    /// The client's name for this connection.
    nonce: u64,
    /// The ACCEPT, in case it got lost; empty once the client has answered.
    accept: Vec<u8>,
    /// A new address that has not answered yet.
    candidate: Option<Candidate>,
    /// The earliest timer that is set.
    timer: Time,
    /// Where they are sent; unknown on a side path that has not been heard of.
    address: Option<SocketAddr>,
    /// In the shard's list of datagrams to send.
    listed: bool,
    /// They go beside a stream, which carries what they do not.
    pub side: Option<Proof>,
}

impl Datagrams {
    /// Those of an end that has just been made.
    pub(super) fn new(end: End, address: Option<SocketAddr>, side: Option<Proof>) -> Self {
        Self {
            end,
            old_cid: None,
            nonce: 0,
            accept: Vec::new(),
            candidate: None,
            timer: NEVER,
            address,
            listed: false,
            side,
        }
    }

    /// Whether where they are sent is in doubt.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.candidate.is_some()
    }
}

impl Datagrams {
    /// Whether the client has sent nothing since its INIT.
    pub fn is_unheard(&self) -> bool {
        !self.accept.is_empty()
    }
}

/// An address that says it is the client's.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    address: SocketAddr,
    challenge: [u8; 8],
    /// What may still be sent there: bytes received minus bytes sent.
    credit: usize,
    until: Time,
}

/// No timer is set.
const NEVER: Time = Time(u64::MAX);

impl Shard {
    /// Whether this is the id of a connection over datagrams.
    pub(super) fn is_datagram(&self, id: ConnId) -> bool {
        self.datagrams
            .as_ref()
            .is_some_and(|side| id.index >= side.first_index)
    }

    /// A datagram from this address; opened in place.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, data: &mut [u8]) {
        if self.datagrams.is_none() {
            return;
        }
        self.counters.datagrams_received.add(1);
        self.counters.bytes_received.add(data.len() as u64);
        if data.first() == Some(&SETUP) {
            self.handle_init(now, from, data);
            return;
        }
        let bytes = data.len();
        let Some((cid, frame)) = split(data) else {
            self.counters.drop_frame(DropReason::DatagramMalformed);
            return;
        };
        let id = self
            .datagrams
            .as_ref()
            .and_then(|side| side.cids.get(&cid).copied());
        let Some((id, mut connection)) = id.and_then(|id| Some((id, self.take(id)?))) else {
            self.counters.drop_frame(DropReason::DatagramUnknown);
            return;
        };
        let outcome = self.handle_sealed(now, from, cid, bytes, &mut connection, frame);
        let sends = connection.has_output();
        self.connections[id.index as usize] = Some(connection);
        if sends {
            self.list_for_send(id);
        }
        match outcome {
            Ok(()) => self.after_datagrams(now, id),
            Err(reason) => self.close(now, id, reason),
        }
    }

    /// A datagram that names this connection. Of one that is closing it may still say where
    /// the client is: CLOSE has to find it.
    fn handle_sealed(
        &mut self,
        now: Now,
        from: SocketAddr,
        cid: Cid,
        bytes: usize,
        connection: &mut Connection,
        frame: &mut [u8],
    ) -> Result<(), CloseReason> {
        let Some(datagrams) = &mut connection.datagrams else {
            return Ok(());
        };
        let opened = match datagrams.end.open(now.time, frame) {
            Ok(opened) => opened,
            Err(reason) => {
                self.counters.drop_frame(reason);
                return Ok(());
            }
        };
        // Only what verified is charged: anybody can write somebody's id on a datagram.
        // What is above is not looked at, so that the client sends it again, later.
        connection.traffic.received(now.time, bytes);
        let charged = [
            connection.frames.charge(self.config.frames, 1, now.time),
            connection
                .bytes
                .charge(self.config.bytes, bytes as u32, now.time),
        ];
        let is_above = charged.iter().any(|charged| *charged != Charged::Within);
        let closes = self.config.limits.rate_penalty == Penalty::Disconnect;
        if charged.contains(&Charged::FarAbove) || is_above && closes {
            if matches!(connection.phase, Phase::Closing) {
                self.counters.drop_frame(DropReason::AfterClose);
                return Ok(());
            }
            return Err(CloseReason::RateExceeded);
        }
        if datagrams.side.is_none() {
            // Beside a stream they are no sign that the stream lives.
            connection.heard_at = now.time;
            connection.pinged = false;
        }
        self.counters.frames_received.add(1);
        if datagrams.is_unheard() {
            if matches!(connection.phase, Phase::Hello) {
                connection.phase = Phase::Login;
            }
            datagrams.accept = Vec::new();
            self.counters.handshakes.add(1);
        }
        if cid == datagrams.end.cid
            && let Some(old) = datagrams.old_cid.take()
        {
            datagrams.end.set_new_cid(None);
            if let Some(side) = &mut self.datagrams {
                side.cids.remove(&old);
            }
        }
        self.locate(now, from, bytes, opened.newest, connection);
        if is_above {
            self.counters.drop_frame(DropReason::RateDatagram);
            return Ok(());
        }
        self.handle_chunks(now, connection, opened.age, opened.body)
    }

    fn handle_chunks(
        &mut self,
        now: Now,
        connection: &mut Connection,
        age: Age,
        body: &[u8],
    ) -> Result<(), CloseReason> {
        let is_closing = matches!(connection.phase, Phase::Closing);
        for chunk in Chunks::new(body) {
            let chunk = chunk.map_err(|_| CloseReason::BadBody)?;
            let is_paused = connection.uplink_paused;
            let Some(datagrams) = &mut connection.datagrams else {
                return Ok(());
            };
            let is_side = datagrams.side.is_some();
            match chunk {
                Chunk::Body { .. } | Chunk::Data { .. } if is_closing => {
                    self.counters.drop_frame(DropReason::AfterClose);
                }
                // The stream is the reliable lane of those that have one.
                Chunk::Ack(_) | Chunk::Data { .. } if is_side => return Err(CloseReason::BadBody),
                Chunk::Padding(_) => {}
                Chunk::Ack(ack) => datagrams.end.handle_ack(now.time, &ack),
                Chunk::Challenge(token) => datagrams.handle_challenge(now.time, token),
                Chunk::Response(token) => {
                    self.handle_response(now.time, connection, token);
                    // It may have moved to where nobody may be.
                    self.check_network(now, connection.peer)?;
                }
                Chunk::NewCid(_) => return Err(CloseReason::BadBody),
                Chunk::Body { flags, bytes } => {
                    if !is_direct(bytes) {
                        self.counters.drop_frame(DropReason::ReliableUnwrapped);
                    } else if is_paused && matches!(Body::decode(bytes), Ok(Body::Message { .. })) {
                        self.counters.drop_frame(DropReason::UplinkFull);
                    } else {
                        self.counters.side_messages_received.add(u64::from(is_side));
                        let compressed = flags & COMPRESSED != 0;
                        self.handle_opened(now, connection, age, bytes, compressed, false)?;
                    }
                }
                // Its backend does not keep up: not acknowledged, it comes again.
                Chunk::Data { .. } if is_paused => {
                    self.counters.drop_frame(DropReason::UplinkFull);
                }
                Chunk::Data {
                    flags,
                    number,
                    bytes,
                } => match datagrams.end.receive(now.time, flags, number, bytes) {
                    Received::Message => {
                        let compressed = flags & COMPRESSED != 0;
                        self.handle_opened(now, connection, age, bytes, compressed, false)?;
                        self.handle_early(now, connection)?;
                    }
                    Received::Kept => self.handle_early(now, connection)?,
                    Received::Refused => self.counters.drop_frame(DropReason::RateDatagram),
                    Received::TooLong => return Err(CloseReason::BadLength),
                },
            }
        }
        Ok(())
    }

    /// Messages that came in pieces or before their turn.
    fn handle_early(&mut self, now: Now, connection: &mut Connection) -> Result<(), CloseReason> {
        while let Some(message) = connection
            .datagrams
            .as_mut()
            .and_then(|datagrams| datagrams.end.poll_message())
        {
            let (flags, bytes) = message.map_err(|()| CloseReason::BadLength)?;
            let compressed = flags & COMPRESSED != 0;
            self.handle_opened(now, connection, Age::Fresh, &bytes, compressed, false)?;
        }
        Ok(())
    }

    /// Where the client is, as its newest datagram says.
    fn locate(
        &mut self,
        now: Now,
        from: SocketAddr,
        bytes: usize,
        newest: bool,
        connection: &mut Connection,
    ) {
        let mut challenge = [0; 8];
        let Some(datagrams) = &mut connection.datagrams else {
            return;
        };
        if let Some(candidate) = &mut datagrams.candidate
            && candidate.address == from
        {
            candidate.credit += bytes;
            return;
        }
        if !newest {
            return;
        }
        if datagrams.address == Some(from) {
            // It is where it was: the other address was somebody's who repeats.
            if datagrams.candidate.take().is_some() {
                datagrams.end.set_challenge(None);
            }
            return;
        }
        self.random.fill_bytes(&mut challenge);
        datagrams.end.set_challenge(Some(challenge));
        datagrams.candidate = Some(Candidate {
            address: from,
            challenge,
            credit: bytes,
            until: now.time.after_ms(CHALLENGE_MS),
        });
        self.counters.path_challenges.add(1);
    }

    /// A challenge came back: that address is the client's now, and it gets a new id, so
    /// that who watches both networks does not see one player.
    fn handle_response(&mut self, now: Time, connection: &mut Connection, token: [u8; 8]) {
        let id = connection.id;
        let Some(datagrams) = &mut connection.datagrams else {
            return;
        };
        let Some(candidate) = datagrams
            .candidate
            .take_if(|candidate| candidate.challenge == token)
        else {
            return datagrams.handle_response(now, token);
        };
        datagrams.end.set_challenge(None);
        let left = datagrams.address.replace(candidate.address);
        match &mut datagrams.side {
            Some(proof) => proof.prove(now),
            None => connection.peer = Some(candidate.address),
        }
        if left.is_none() {
            return;
        }
        self.counters.migrations.add(1);
        if let Phase::Session(session) = &mut connection.phase {
            session.story.note(now, Event::Migrated, 0);
        }
        let Some(side) = &mut self.datagrams else {
            return;
        };
        // Whoever comes from there now is somebody else. Later nobody would know that it is
        // remembered: a client that moves before login could leave one behind each time.
        if let Some(left) = left
            && side.inits.get(&left) == Some(&id)
        {
            side.inits.remove(&left);
        }
        // Not while the client has not taken up the last one: it might use any of three.
        if datagrams.old_cid.is_none() {
            let cid = Cid::new(self.config.shard.0 as u8, self.random.next_u64());
            if side.insert(cid, id) {
                datagrams.old_cid = Some(datagrams.end.cid);
                datagrams.end.set_new_cid(Some(cid));
                datagrams.end.cid = cid;
            }
        }
    }

    /// A datagram that sets a connection up.
    fn handle_init(&mut self, now: Now, from: SocketAddr, data: &[u8]) {
        let Some((nonce, Setup::Init { cookie, hello })) = hello::decode(data) else {
            self.counters.drop_frame(DropReason::DatagramMalformed);
            return;
        };
        let Some(side) = &mut self.datagrams else {
            return;
        };
        let address = address_bytes(from);
        if !side.cookies.is_good(now.unix_ms, &address, nonce, cookie) {
            if *cookie != [0; COOKIE_BYTES] {
                self.counters.drop_frame(DropReason::BadCookie);
            }
            let cookie = &side.cookies.make(now.unix_ms, &address, nonce);
            reply(side, from, nonce, &Setup::Retry { cookie });
            return;
        }
        if let Some(&id) = side.inits.get(&from)
            && let Some(datagrams) = Self::at(&mut self.connections, id)
                .and_then(|connection| connection.datagrams.as_ref())
            && datagrams.nonce == nonce
        {
            if datagrams.accept.is_empty() {
                self.counters.drop_frame(DropReason::InitRepeated);
            } else {
                side.replies.push_back((from, datagrams.accept.clone()));
            }
            return;
        }
        if side.seeking.get(&from) == Some(&nonce) {
            self.counters.drop_frame(DropReason::InitRepeated);
            return;
        }
        let outcome =
            self.charge_init(now, from)
                .and_then(|()| match handshake::ticket_id(hello) {
                    None => self.accept_datagrams(now, from, nonce, hello, None),
                    Some(ticket) => match self.known_ticket(ticket) {
                        Some(known) => self.accept_datagrams(now, from, nonce, hello, Some(known)),
                        None => Ok(self.seek_init(now, from, nonce, hello, ticket)?),
                    },
                });
        if let Err(Refused::Told(reason)) = outcome {
            self.refuse_datagrams(now, from, nonce, reason);
        }
    }

    /// The ticket that an INIT names is not known here. Until center has answered, it is
    /// all that is kept.
    fn seek_init(
        &mut self,
        now: Now,
        from: SocketAddr,
        nonce: u64,
        resume: &[u8],
        ticket: TicketId,
    ) -> Result<(), CloseReason> {
        self.seek(now, Asker::Init(from, nonce), resume, ticket)?;
        if let Some(side) = &mut self.datagrams {
            side.seeking.insert(from, nonce);
        }
        Ok(())
    }

    /// Center has said whose ticket it was that an INIT named, or will not.
    pub(super) fn answer_init(
        &mut self,
        now: Now,
        from: SocketAddr,
        nonce: u64,
        resume: &[u8],
        found: Result<(SessionId, Ticket), CloseReason>,
    ) {
        if let Some(side) = &mut self.datagrams
            && side.seeking.get(&from) == Some(&nonce)
        {
            side.seeking.remove(&from);
        }
        let outcome = found
            .map_err(Refused::from)
            .and_then(|known| self.accept_datagrams(now, from, nonce, resume, Some(known)));
        if let Err(Refused::Told(reason)) = outcome {
            self.refuse_datagrams(now, from, nonce, reason);
        }
    }

    fn refuse_datagrams(&mut self, now: Now, from: SocketAddr, nonce: u64, reason: CloseReason) {
        self.counters.close(reason);
        let mut reject = Vec::new();
        handshake::reject(reason, now.time.wire_ms(), &mut reject);
        if let Some(side) = &mut self.datagrams {
            reply(side, from, nonce, &Setup::Refuse { reject: &reject });
        }
    }

    /// The cookie was good: the handshake, and from here on a connection. A RESUME comes
    /// with what it names.
    fn accept_datagrams(
        &mut self,
        now: Now,
        from: SocketAddr,
        nonce: u64,
        hello: &[u8],
        known: Option<(SessionId, Ticket)>,
    ) -> Result<(), Refused> {
        if self.draining {
            return Err(CloseReason::Draining.into());
        }
        self.check_network(now, Some(from))?;
        let network = self.enter_init(now, from)?;
        let opened = self.open_init(now, from, nonce, hello, known);
        match opened {
            Ok(id) => {
                if let Some(connection) = self.connection(id) {
                    connection.network = network;
                }
            }
            Err(_) => {
                if let Some(network) = network {
                    self.config.usage.close(network);
                }
            }
        }
        Ok(opened.map(|_| ())?)
    }

    fn open_init(
        &mut self,
        now: Now,
        from: SocketAddr,
        nonce: u64,
        hello: &[u8],
        known: Option<(SessionId, Ticket)>,
    ) -> Result<ConnId, CloseReason> {
        if self.before_login() >= self.config.connections_before_login_max {
            return Err(CloseReason::Full);
        }
        let ephemeral = self.ephemeral();
        let parameters = self.parameters(now);
        let mut welcome = Vec::new();
        let wire_ms = now.time.wire_ms();
        let out = &mut welcome;
        let keys = match &known {
            None => {
                let key = &self.config.key;
                handshake::respond(key, ephemeral, hello, wire_ms, &parameters, out)?
            }
            Some((_, ticket)) => {
                handshake::respond_resume(ticket, ephemeral, hello, wire_ms, &parameters, out)?
            }
        };
        let cid = Cid::new(self.config.shard.0 as u8, self.random.next_u64());
        let Some(side) = &mut self.datagrams else {
            return Err(CloseReason::Full);
        };
        if side.cids.contains_key(&cid) {
            return Err(CloseReason::Full);
        }
        let id = side.id().ok_or(CloseReason::Full)?;
        side.cids.insert(cid, id);
        side.inits.insert(from, id);
        let mut accept = Vec::new();
        let message = Setup::Accept {
            cid,
            welcome: &welcome,
        };
        hello::encode(nonce, &message, &mut accept);
        side.replies.push_back((from, accept.clone()));
        let mut connection = Connection::new(
            id,
            Some(from),
            Bucket::full(self.config.frames, now.time),
            Bucket::full(self.config.bytes, now.time),
            now.time,
        );
        connection.ticket = Some(keys.ticket());
        connection.idle_timeout_ms = self.config.idle_timeout_ms;
        if let Some((session, ticket)) = known {
            let ticket = ticket.id();
            connection.phase = Phase::Resuming(Box::new(PendingResume { session, ticket }));
        }
        let end = End::new(
            cid,
            keys.gateway,
            keys.client,
            self.config.rekey,
            Header::decode(hello).map(|header| header.timestamp_ms),
            LOGIN_FRAME_BYTES_MAX,
            now.time,
        );
        connection.datagrams = Some(Box::new(Datagrams {
            nonce,
            accept,
            ..Datagrams::new(end, Some(from), None)
        }));
        let index = id.index as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        self.connections[index] = Some(Box::new(connection));
        self.counters.accepted.add(1);
        self.connections_open += 1;
        self.counters.connections.set(self.connections_open as u64);
        let timeout_ms = u64::from(self.config.handshake_timeout_ms);
        self.wheel.insert(id, now.time.after_ms(timeout_ms));
        Ok(id)
    }

    /// A client over datagrams has logged in: it may send what every client may.
    pub(super) fn open_datagrams(&mut self, connection: &mut Connection) {
        if let (Some(datagrams), Some(side)) = (&mut connection.datagrams, &mut self.datagrams) {
            datagrams.end.open_window(FRAME_BYTES_MAX);
            if let Some(address) = datagrams.address
                && side.inits.get(&address) == Some(&connection.id)
            {
                side.inits.remove(&address);
            }
        }
    }

    /// A connection is gone.
    pub(super) fn forget_datagrams(&mut self, connection: &Connection) {
        let (Some(datagrams), Some(side)) = (&connection.datagrams, &mut self.datagrams) else {
            return;
        };
        let id = connection.id;
        side.cids.remove(&datagrams.end.cid);
        if let Some(old) = datagrams.old_cid {
            side.cids.remove(&old);
        }
        if let Some(address) = datagrams.address
            && side.inits.get(&address) == Some(&id)
        {
            side.inits.remove(&address);
        }
        if datagrams.side.is_none() {
            side.free.push(ConnId {
                index: id.index,
                generation: id.generation.wrapping_add(1),
            });
        }
        self.counters.datagrams_missing.add(datagrams.end.missing());
    }
}

fn reply(side: &mut DatagramSide, to: SocketAddr, nonce: u64, setup: &Setup<'_>) {
    let mut out = Vec::new();
    hello::encode(nonce, setup, &mut out);
    side.replies.push_back((to, out));
}

fn address_bytes(address: SocketAddr) -> [u8; ADDRESS_BYTES] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ADDRESS_BYTES];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests;
