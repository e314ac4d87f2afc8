//! The clients: a core each, and an application that logs in, sends, logs out,
//! and comes back after each end: to its session if it can, else with a new one.

use std::mem;

use protocol::body::{Lane, MessageHeader};
use protocol::cipher::RekeyPolicy;
use protocol::client::{self, Client, ClientConfig, Closed};
use protocol::ids::{GroupId, MessageId, SessionId};
use protocol::reason::CloseReason;
use protocol::stream::OutboxLimits;
use protocol::time::Time;
use protocol::token::{self, Claims};

use super::event::Event;
use super::phases::Phase;
use super::tcp::Direction;
use super::walkers::{MAP_GROUP, MapSide};
use super::{World, is_due};
use crate::clock::{Clock, UNIX_START_MS};
use crate::message::{self, Sent};
use crate::plan::Plan;
use crate::random::Random;
use crate::rule::{Rule, Step, Violation, check};

/// The group with the echo, which every cluster has.
pub const GROUP: GroupId = GroupId(7);

/// The audience of tokens.
pub const AUDIENCE: &str = "sim";

/// The key that signs tokens: the one of the PASETO v4 test vectors.
pub const TOKEN_SECRET: [u8; 64] = [
    0xb4, 0xcb, 0xfb, 0x43, 0xdf, 0x4c, 0xe2, 0x10, 0x72, 0x7d, 0x95, 0x3e, 0x4a, 0x71, 0x33, 0x07,
    0xfa, 0x19, 0xbb, 0x7d, 0x9f, 0x85, 0x04, 0x14, 0x38, 0xd9, 0xe1, 0x1b, 0x94, 0x2a, 0x37, 0x74,
    0x1e, 0xb9, 0xdb, 0xbb, 0xbc, 0x04, 0x7c, 0x03, 0xfd, 0x70, 0x60, 0x4e, 0x00, 0x71, 0xf0, 0x98,
    0x7e, 0x16, 0xb2, 0x8b, 0x75, 0x72, 0x25, 0xc1, 0x1f, 0x00, 0x41, 0x5d, 0x0e, 0x20, 0xb1, 0xa2,
];

/// First and longest pause, ms, before a client comes back.
const BACKOFF_MS: (u64, u64) = (200, 6_000);

/// Logins in a thousand that try a token a second time.
const REUSE_PER_MILLE: u64 = 80;

/// Lost connections in a thousand after which an application does not want its
/// session back, but a new one.
const FORGET_PER_MILLE: u64 = 100;

/// Messages that an application sends at once now and then, at most.
const BURST_MAX: u64 = 100;

/// One client process.
#[derive(Debug)]
pub struct ClientHost {
    /// Whose tokens it has.
    pub account: String,
    pub(super) clock: Clock,
    pub(super) shared: client::Shared,
    /// Rises with each connection and each crash.
    pub life: u32,
    /// Its connection.
    pub conn: Option<u64>,
    /// Its core, once connected; also while it is on its way back to its session.
    pub core: Option<Client>,
    /// Its number in the book, as long as it has that core.
    pub attempt: Option<u32>,
    backoff_ms: u64,
    wake_at: Option<Time>,
    /// It reads what it is sent.
    pub is_reading: bool,
    last_token: Option<String>,
    out: Vec<u8>,
    /// Its part on a map, where the cluster has one.
    pub map: Option<MapSide>,
}

impl ClientHost {
    /// It has a connection with a core, which is not only on its way.
    fn core_is_open(&self) -> bool {
        self.core.as_ref().is_some_and(|core| !core.is_closed())
    }

    pub(super) fn new(index: usize, plan: &Plan, random: &mut Random) -> Self {
        // The last ones share the accounts of the first ones.
        let own = plan.clients - plan.rivals;
        let account = if index < own { index } else { index - own };
        Self {
            account: format!("account-{account}"),
            clock: Clock::start(Time(0), random),
            shared: client::Shared::default(),
            life: 0,
            conn: None,
            core: None,
            attempt: None,
            backoff_ms: BACKOFF_MS.0,
            wake_at: None,
            is_reading: true,
            last_token: None,
            out: Vec::new(),
            map: plan.map.as_ref().map(|map| MapSide::new(map, random)),
        }
    }

    /// Its session, if it believes to have one.
    pub fn session(&self) -> Option<SessionId> {
        self.core.as_ref().and_then(Client::session)
    }
}

/// What a core told, kept until the core is back in its place.
enum Told {
    LoggedIn(SessionId),
    GroupUp(GroupId),
    Resumed,
    Message(MessageHeader, Vec<u8>),
    Closed(Closed),
}

fn collect(told: &mut Vec<Told>) -> impl FnMut(client::Event<'_>) {
    |event| match event {
        client::Event::LoggedIn(session) => told.push(Told::LoggedIn(session)),
        client::Event::Message(header, payload) => {
            told.push(Told::Message(header, payload.to_vec()));
        }
        client::Event::Closed(closed) => told.push(Told::Closed(closed)),
        client::Event::GroupUp(group) => told.push(Told::GroupUp(group)),
        client::Event::Resumed(_) => told.push(Told::Resumed),
        client::Event::SessionLost(_)
        | client::Event::GroupDown(_)
        | client::Event::RoundTrip(_) => {}
    }
}

impl World {
    pub(super) fn client_connect(&mut self, client: usize, life: u32) {
        let host = &mut self.clients[client];
        if host.life != life || host.conn.is_some() || self.phase >= Phase::Leaving {
            return;
        }
        host.life += 1;
        let shard = self.random.index(self.shards.len());
        let conn = self.open_conn(Some(client), shard, Vec::new());
        self.clients[client].conn = Some(conn);
    }

    /// The connection stands: HELLO goes out.
    pub(super) fn established(&mut self, number: u64) -> Step {
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        let Some(client) = conn.client else {
            let script = mem::take(&mut conn.script);
            self.client_writes(number, &script);
            return Ok(());
        };
        if self.clients[client].conn != Some(number) {
            return Ok(());
        }
        if self.clients[client].core.is_some() {
            self.client_resumes(client)?;
            return self.client_read(number);
        }
        let token = self.token(client);
        let ephemeral = self.random.secret();
        let config = ClientConfig {
            gateway_key: *self.key.public(),
            token,
            client_version: 1,
            channel: "sim".to_owned(),
            device: "sim".to_owned(),
            outbox: OutboxLimits {
                messages_max: self.plan.outbox_messages_max,
                ..OutboxLimits::default()
            },
            rekey: RekeyPolicy {
                frames: self.plan.rekey_frames,
            },
            compress_bytes_min: self.plan.compress_bytes_min,
        };
        let host = &mut self.clients[client];
        let now = host.clock.now(self.now).time;
        let core = Client::connect(config, ephemeral, now)
            .map_err(|why| Violation::new(Rule::CoresAgree, format!("no HELLO: {why:?}")))?;
        host.core = Some(core);
        host.attempt = Some(self.book.note_attempt());
        self.walker_begins(client);
        self.client_flush(client)?;
        self.client_lives(client);
        // A gateway that is full or draining may have spoken first.
        self.client_read(number)
    }

    fn client_resumes(&mut self, client: usize) -> Step {
        let ephemeral = self.random.secret();
        let host = &mut self.clients[client];
        let now = host.clock.now(self.now).time;
        if let Some(core) = &mut host.core {
            core.resume(ephemeral, now)
                .map_err(|why| Violation::new(Rule::CoresAgree, format!("no RESUME: {why:?}")))?;
        }
        self.client_flush(client)?;
        self.client_lives(client);
        Ok(())
    }

    fn client_lives(&mut self, client: usize) {
        let pace_us = self.pace_us();
        let life = self.clients[client].life;
        self.after_us(pace_us, Event::ClientAct { client, life });
    }

    fn token(&mut self, client: usize) -> String {
        if let Some(token) = self.clients[client].last_token.take()
            && self.random.chance(REUSE_PER_MILLE)
        {
            return token;
        }
        let unix_ms = UNIX_START_MS + self.now.ms();
        let claims = Claims {
            audience: AUDIENCE.to_owned(),
            account: self.clients[client].account.clone(),
            id: format!("token-{}", self.next_token),
            issued_unix_ms: unix_ms,
            expires_unix_ms: unix_ms + 30_000,
        };
        self.next_token += 1;
        let token = token::issue(&TOKEN_SECRET, &claims).unwrap_or_default();
        self.clients[client].last_token = Some(token.clone());
        token
    }

    fn pace_us(&mut self) -> u64 {
        self.random.between(1, 2_000 * self.plan.pace_ms)
    }

    /// Bytes came: the client reads them in pieces of any size.
    pub(super) fn client_read(&mut self, number: u64) -> Step {
        while let Some(conn) = self.conns.get_mut(&number) {
            let Some(client) = conn.client else {
                // A stranger reads nothing but the end.
                if conn.down.is_ended() {
                    self.close_client_side(number);
                }
                return Ok(());
            };
            let host = &mut self.clients[client];
            // Before that, what a gateway says first waits for the core that will read it.
            let is_connected = host.conn == Some(number) && host.core_is_open();
            if !is_connected || !host.is_reading || !conn.client_open {
                return Ok(());
            }
            let ready = conn.down.ready();
            if ready == 0 {
                if conn.down.is_ended() {
                    return self.client_disconnected(client);
                }
                break;
            }
            let part = if self.random.chance(200) {
                1 + self.random.index(ready)
            } else {
                ready
            };
            let mut bytes = conn.down.take(part);
            let now = host.clock.now(self.now).time;
            let mut told = Vec::new();
            if let Some(core) = &mut host.core {
                core.handle_received(now, &mut bytes, &mut host.shared, &mut collect(&mut told));
            }
            self.client_told_by_core(client, told)?;
            self.client_flush(client)?;
        }
        self.pump(number, Direction::Down);
        Ok(())
    }

    pub(super) fn client_read_again(&mut self, client: usize) -> Step {
        self.clients[client].is_reading = true;
        match self.clients[client].conn {
            Some(conn) => self.client_read(conn),
            None => Ok(()),
        }
    }

    /// The client's side of a connection is gone.
    pub(super) fn client_told(&mut self, number: u64) -> Step {
        let Some(conn) = self.conns.get(&number).filter(|conn| conn.client_open) else {
            return Ok(());
        };
        match conn.client {
            Some(client) if self.clients[client].conn == Some(number) => {
                self.client_disconnected(client)
            }
            _ => {
                self.close_client_side(number);
                Ok(())
            }
        }
    }

    pub(super) fn refused(&mut self, number: u64) -> Step {
        let conn = self.conns.remove(&number);
        if let Some(client) = conn.and_then(|conn| conn.client)
            && self.clients[client].conn == Some(number)
        {
            self.clients[client].conn = None;
            self.come_back(client);
        }
        Ok(())
    }

    fn client_disconnected(&mut self, client: usize) -> Step {
        let mut told = Vec::new();
        let host = &mut self.clients[client];
        match &mut host.core {
            Some(core) if !core.is_closed() => core.handle_disconnected(&mut collect(&mut told)),
            _ => told.push(Told::Closed(Closed::ByClient(CloseReason::PeerClosed))),
        }
        self.client_told_by_core(client, told)
    }

    fn client_told_by_core(&mut self, client: usize, told: Vec<Told>) -> Step {
        for event in told {
            let attempt = self.clients[client].attempt;
            match event {
                Told::LoggedIn(session) => {
                    self.clients[client].backoff_ms = BACKOFF_MS.0;
                    if let Some(attempt) = attempt {
                        self.book.note_login(attempt, session)?;
                    }
                }
                Told::Resumed => self.clients[client].backoff_ms = BACKOFF_MS.0,
                Told::GroupUp(MAP_GROUP) => self.walker_group_up(client),
                Told::GroupUp(_) => {}
                Told::Message(header, payload) if header.group == MAP_GROUP => {
                    self.walker_told(client, &header, &payload)?;
                }
                Told::Message(header, payload) => {
                    if let Some(attempt) = attempt {
                        self.book.note_received(attempt, &header, &payload)?;
                    }
                }
                Told::Closed(closed) => self.client_closed(client, closed)?,
            }
        }
        Ok(())
    }

    fn client_closed(&mut self, client: usize, closed: Closed) -> Step {
        // A walker takes each connection for a new visit.
        let forgets = self.plan.map.is_some() || self.random.chance(FORGET_PER_MILLE);
        let host = &mut self.clients[client];
        let number = host.conn.take();
        if forgets || !host.core.as_ref().is_some_and(Client::can_resume) {
            host.core = None;
            host.attempt = None;
            self.walker_ends(client);
        }
        let conn = number.and_then(|number| self.conns.get(&number));
        let was_tampered = conn.is_some_and(|conn| conn.tampered_at.is_some());
        if let Closed::ByGateway(Some(reason)) | Closed::ByClient(reason) = closed {
            self.trace
                .event(self.now, reason.label(), &[client as u64], &[]);
            check(
                was_tampered || !is_malformed(reason),
                Rule::CoresAgree,
                || format!("client {client} was closed for {}", reason.label()),
            )?;
        }
        if let Some(number) = number {
            self.close_client_side(number);
        }
        self.come_back(client);
        Ok(())
    }

    fn come_back(&mut self, client: usize) {
        let host = &mut self.clients[client];
        host.life += 1;
        let life = host.life;
        let backoff_ms = host.backoff_ms;
        host.backoff_ms = (2 * backoff_ms).min(BACKOFF_MS.1);
        let after_us = self.random.between(500 * backoff_ms, 1_500 * backoff_ms);
        self.after_us(after_us, Event::Connect { client, life });
    }

    /// The client's process dies, and is started again.
    pub(super) fn client_crash(&mut self, client: usize) {
        let host = &mut self.clients[client];
        host.core = None;
        host.is_reading = true;
        host.attempt = None;
        let number = host.conn.take();
        self.walker_ends(client);
        if let Some(number) = number {
            // With the machine: nobody says that the connection is over.
            if self.random.chance(400)
                && let Some(conn) = self.conns.get_mut(&number)
            {
                conn.is_cut = true;
            }
            self.close_client_side(number);
        }
        self.come_back(client);
    }

    /// Sends what the core has, as long as the socket takes it, and sets the timer.
    pub(super) fn client_flush(&mut self, client: usize) -> Step {
        let Some(number) = self.clients[client].conn else {
            return Ok(());
        };
        let mut is_flushed;
        loop {
            let host = &mut self.clients[client];
            let Some(conn) = self.conns.get_mut(&number) else {
                return Ok(());
            };
            is_flushed = conn.up.is_flushed();
            if !is_flushed {
                break;
            }
            let now = host.clock.now(self.now).time;
            let mut out = mem::take(&mut host.out);
            out.clear();
            let has_more = match &mut host.core {
                Some(core) => core.poll_transmit(now, &mut host.shared, &mut out),
                None => false,
            };
            if has_more {
                let book = &mut self.book;
                conn.sealed[0].note(&out, |key| book.note_ephemeral(key))?;
                self.client_writes(number, &out);
            }
            self.clients[client].out = out;
            if !has_more {
                break;
            }
        }
        let host = &mut self.clients[client];
        if let Some(core) = &host.core {
            // Each group has an outbox.
            let groups = 1 + usize::from(self.plan.map.is_some());
            check(
                core.outbox_messages() <= groups * self.plan.outbox_messages_max,
                Rule::Bounded,
                || format!("client {client} keeps {} messages", core.outbox_messages()),
            )?;
        }
        if let Some(due) = host.core.as_ref().and_then(Client::poll_timeout) {
            // A socket that takes nothing is asked again when it has moved.
            let soonest = self.now + if is_flushed { 1 } else { 100_000 };
            let at = host.clock.global(due).max(soonest);
            if host.wake_at.is_none_or(|wake_at| at < wake_at) {
                host.wake_at = Some(at);
                self.push(at, Event::ClientWake { client });
            }
        }
        Ok(())
    }

    pub(super) fn client_wake(&mut self, client: usize) -> Step {
        let host = &mut self.clients[client];
        if !is_due(host.wake_at, self.now) {
            return Ok(());
        }
        host.wake_at = None;
        let now = host.clock.now(self.now).time;
        let mut told = Vec::new();
        if let Some(core) = &mut host.core {
            core.handle_timeout(now, &mut collect(&mut told));
        }
        self.client_told_by_core(client, told)?;
        self.client_flush(client)
    }

    /// The application does something.
    pub(super) fn client_act(&mut self, client: usize, life: u32) -> Step {
        let host = &mut self.clients[client];
        if host.life != life || self.phase >= Phase::Quiet {
            return Ok(());
        }
        let pace_us = self.pace_us();
        self.after_us(pace_us, Event::ClientAct { client, life });
        let now = self.clients[client].clock.now(self.now).time;
        let in_session = self.clients[client].session().is_some();
        match self.random.below(100) {
            0..3 if in_session => {
                if let Some(core) = &mut self.clients[client].core {
                    core.logout(now);
                }
            }
            3 => return self.client_disconnected(client),
            4..80 => {
                for _ in 0..self.random.between(1, 3) {
                    self.client_sends(client, now);
                }
            }
            80..83 => {
                for _ in 0..self.random.below(BURST_MAX) {
                    self.client_sends(client, now);
                }
            }
            _ => {}
        }
        self.client_flush(client)
    }

    fn client_sends(&mut self, client: usize, now: Time) {
        let (lane, is_request) = match self.random.below(10) {
            0..5 => (Lane::Reliable, true),
            5..8 => (Lane::Reliable, false),
            8 => (Lane::Unreliable, false),
            _ => (Lane::Sequenced, false),
        };
        let bytes = match self.random.below(20) {
            0 => self.random.below(self.plan.payload_bytes_max),
            _ => self.random.below(120),
        } as usize;
        let host = &mut self.clients[client];
        let (Some(core), Some(attempt)) = (&mut host.core, host.attempt) else {
            return;
        };
        let number = message::lane_number(lane);
        let sent = Sent {
            attempt,
            lane: number,
            is_request,
            index: self.book.attempts[attempt as usize].pushed[usize::from(number)],
        };
        let payload = message::encode(&sent, bytes);
        // What is not taken was not sent; the application goes on.
        if is_request {
            if let Ok(request) = core.request(GROUP, MessageId(1), &payload) {
                self.book.note_sent(&sent, Some(request));
            }
        } else if core
            .send(now, lane, GROUP, MessageId(2), &payload, &mut host.shared)
            .is_ok()
        {
            self.book.note_sent(&sent, None);
        }
    }

    /// Everybody leaves.
    pub(super) fn client_leaves(&mut self, client: usize) -> Step {
        let host = &mut self.clients[client];
        let now = host.clock.now(self.now).time;
        if let Some(core) = &mut host.core
            && core.session().is_some()
        {
            core.logout(now);
            self.client_flush(client)
        } else if host.conn.is_some() {
            self.client_disconnected(client)
        } else {
            Ok(())
        }
    }
}

/// Reasons that only malformed or forged bytes give.
fn is_malformed(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::BadLength
            | CloseReason::BadFlags
            | CloseReason::BadCrc
            | CloseReason::BadHandshake
            | CloseReason::BadVersion
            | CloseReason::BadSeal
            | CloseReason::SequenceRepeated
            | CloseReason::SequenceSkipped
            | CloseReason::BadCompression
            | CloseReason::BadBody
            | CloseReason::KeyExhausted
            | CloseReason::BadToken
            | CloseReason::TokenAudience
    )
}
