//! The clients: a core each, and an application that logs in, sends, logs out,
//! and comes back after each end: to its session if it can, else with a new one.

use std::mem;

use protocol::cipher::RekeyPolicy;
use protocol::client::{self, Client, ClientConfig, Closed};
use protocol::ids::{GroupId, SessionId};
use protocol::reason::CloseReason;
use protocol::stream::OutboxLimits;
use protocol::time::Time;
use protocol::token::{self, Claims};

use super::World;
use super::client_wire::Told;
use super::event::Event;
use super::phases::Phase;
use super::walkers::{MAP_GROUP, MapSide};
use crate::clock::{Clock, UNIX_START_MS};
use crate::plan::{Plan, Transport};
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
    /// Its way for datagrams, where these are its connection.
    pub flow: Option<u64>,
    /// What its connection is, or is to be.
    transport: Transport,
    /// What its session was last in.
    session_in: Transport,
    /// Its core, once connected; also while it is on its way back to its session.
    pub core: Option<Client>,
    /// Its number in the book, as long as it has that core.
    pub attempt: Option<u32>,
    backoff_ms: u64,
    /// It was told in this connection that it waits to be let in.
    pub(super) is_queued: bool,
    pub(super) wake_at: Option<Time>,
    /// It reads what it is sent.
    pub is_reading: bool,
    last_token: Option<String>,
    pub(super) out: Vec<u8>,
    /// Its part on a map, where the cluster has one.
    pub map: Option<MapSide>,
}

impl ClientHost {
    /// It has a connection with a core, which is not only on its way.
    pub(super) fn core_is_open(&self) -> bool {
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
            flow: None,
            transport: Transport::Stream,
            session_in: Transport::Stream,
            core: None,
            attempt: None,
            backoff_ms: BACKOFF_MS.0,
            is_queued: false,
            wake_at: None,
            is_reading: true,
            last_token: None,
            out: Vec::new(),
            map: plan.map.as_ref().map(|map| MapSide::new(map, random)),
        }
    }

    /// It has a connection, or is about to.
    pub(super) fn is_connected(&self) -> bool {
        self.conn.is_some() || self.flow.is_some()
    }

    /// Its session, if it believes to have one.
    pub fn session(&self) -> Option<SessionId> {
        self.core.as_ref().and_then(Client::session)
    }
}

impl World {
    pub(super) fn client_connect(&mut self, client: usize, life: u32) -> Step {
        let host = &mut self.clients[client];
        if host.life != life || host.is_connected() || self.phase >= Phase::Leaving {
            return Ok(());
        }
        host.life += 1;
        // A session goes from one transport to another.
        let transport = self.plan.transport(&mut self.random);
        self.clients[client].transport = transport;
        let shard = self.random.index(self.shards.len());
        match transport {
            Transport::Stream | Transport::WebSocket => {
                let conn = self.open_conn(Some(client), shard, transport);
                self.clients[client].conn = Some(conn);
                Ok(())
            }
            Transport::Datagrams => {
                let flow = self.open_flow(client, self.shards[shard].gateway);
                self.clients[client].flow = Some(flow);
                if self.clients[client].core.is_some() {
                    return self.client_resumes(client);
                }
                self.client_begins(client)
            }
        }
    }

    /// The connection stands: HELLO goes out.
    pub(super) fn established(&mut self, number: u64) -> Step {
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        let Some(client) = conn.client else {
            let script = mem::take(&mut conn.script);
            self.client_writes(number, &script);
            return self.stranger_reads(number);
        };
        if self.clients[client].conn != Some(number) {
            return Ok(());
        }
        if self.clients[client].core.is_some() {
            self.client_resumes(client)?;
            return self.client_read(number);
        }
        self.client_begins(client)?;
        // A gateway that is full or draining may have spoken first.
        self.client_read(number)
    }

    /// A new core, which is to log in.
    fn client_begins(&mut self, client: usize) -> Step {
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
        let core = match host.transport {
            Transport::Stream | Transport::WebSocket => Client::connect(config, ephemeral, now),
            Transport::Datagrams => Client::connect_datagrams(config, ephemeral, now),
        };
        let core =
            core.map_err(|why| Violation::new(Rule::CoresAgree, format!("no HELLO: {why:?}")))?;
        host.core = Some(core);
        host.attempt = Some(self.book.note_attempt());
        self.walker_begins(client);
        self.client_flush(client)?;
        self.client_lives(client);
        Ok(())
    }

    fn client_resumes(&mut self, client: usize) -> Step {
        let ephemeral = self.random.secret();
        let host = &mut self.clients[client];
        let now = host.clock.now(self.now).time;
        if let Some(core) = &mut host.core {
            let begun = match host.transport {
                Transport::Stream | Transport::WebSocket => core.resume(ephemeral, now),
                Transport::Datagrams => core.resume_datagrams(ephemeral, now),
            };
            begun.map_err(|why| Violation::new(Rule::CoresAgree, format!("no RESUME: {why:?}")))?;
        }
        self.client_flush(client)?;
        self.client_lives(client);
        Ok(())
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

    pub(super) fn client_told_by_core(&mut self, client: usize, told: Vec<Told>) -> Step {
        for event in told {
            let attempt = self.clients[client].attempt;
            match event {
                Told::Queued => {
                    let host = &mut self.clients[client];
                    host.backoff_ms = BACKOFF_MS.0;
                    host.is_queued = true;
                }
                Told::LoggedIn(session) => {
                    let host = &mut self.clients[client];
                    host.is_queued = false;
                    host.backoff_ms = BACKOFF_MS.0;
                    host.session_in = host.transport;
                    match host.transport {
                        Transport::Stream => {}
                        Transport::WebSocket => self.web_logins += 1,
                        Transport::Datagrams => self.datagrams.logins += 1,
                    }
                    if let Some(attempt) = attempt {
                        self.book.note_login(attempt, session)?;
                    }
                }
                Told::Resumed => {
                    let host = &mut self.clients[client];
                    host.backoff_ms = BACKOFF_MS.0;
                    self.resumes += 1;
                    let before = std::mem::replace(&mut host.session_in, host.transport);
                    self.crossings.insert((before, host.transport));
                    self.thief_follows();
                }
                Told::ChannelMessage(header, payload) => {
                    if let Some(session) = self.session_of(attempt) {
                        self.talk.note_heard(session, &header, &payload)?;
                    }
                }
                Told::ChannelLost(channel, count) => {
                    if let Some(session) = self.session_of(attempt) {
                        self.talk.note_lost(session, channel, count);
                    }
                }
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

    /// The session of an attempt, also when it is over.
    fn session_of(&self, attempt: Option<u32>) -> Option<SessionId> {
        self.book.attempts[attempt? as usize].session
    }

    fn client_closed(&mut self, client: usize, closed: Closed) -> Step {
        // A walker takes each connection for a new visit.
        let forgets =
            self.plan.map.is_some() || (!self.plan.endures && self.random.chance(FORGET_PER_MILLE));
        let host = &mut self.clients[client];
        let (number, flow) = (host.conn.take(), host.flow.take());
        if forgets || !host.core.as_ref().is_some_and(Client::can_resume) {
            host.core = None;
            host.attempt = None;
            self.walker_ends(client);
        }
        let conn = number.and_then(|number| self.conns.get(&number));
        let flow_now = flow.and_then(|flow| self.datagrams.flows.get(&flow));
        let was_tampered = conn.is_some_and(|conn| conn.tampered_at.is_some())
            || flow_now.is_some_and(|flow| flow.was_tampered);
        if let Closed::ByGateway(Some(reason)) | Closed::ByClient(reason) = closed {
            self.trace
                .event(self.now, reason.label(), &[client as u64], &[]);
            check(
                was_tampered || !is_malformed(reason),
                Rule::CoresAgree,
                || format!("client {client} was closed for {}", reason.label()),
            )?;
        }
        if let Some(flow) = flow {
            self.close_flow(flow);
        }
        if let Some(number) = number {
            self.close_client_side(number);
        }
        self.come_back(client);
        Ok(())
    }

    pub(super) fn come_back(&mut self, client: usize) {
        let host = &mut self.clients[client];
        host.is_queued = false;
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
        let (number, flow) = (host.conn.take(), host.flow.take());
        if let Some(flow) = flow {
            self.close_flow(flow);
        }
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
