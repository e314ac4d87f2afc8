//! What an operator is shown of sessions.
//!
//! It changes nothing. Invariant: a look goes through so many places a turn as a sweep
//! does; a session that moves from one place to another meanwhile may be missed.

use std::net::SocketAddr;

use protocol::ids::{ChannelId, Fence, GroupId, SessionId, ShardId};
use protocol::quality::Quality;
use protocol::time::Now;

use super::connection::{Connection, Session};
use super::story::{Amount, Event, Noted};
use super::{SWEEP_PER_TURN, Shard};

/// What carries a client's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream of frames.
    Tcp,
    /// Messages in one.
    WebSocket,
    /// Datagrams.
    Udp,
}

/// A session's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// What carries it.
    pub transport: Transport,
    /// TLS lies around it.
    pub is_tls: bool,
    /// Datagrams go beside its stream.
    pub has_side_path: bool,
    /// Where the client is, where that is known.
    pub address: Option<SocketAddr>,
    /// When it was accepted, Unix ms.
    pub since_unix_ms: u64,
    /// Bytes that wait for the client.
    pub queued_bytes: usize,
    /// Of what waits, messages that may get lost and are not sealed yet.
    pub waiting_messages: usize,
    /// It is above its rate, and not read.
    pub is_rate_paused: bool,
    /// What goes through it.
    pub rate: Amount,
    /// How good it is.
    pub quality: Quality,
}

/// Where the messages of one group go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// The group.
    pub group: GroupId,
    /// Which of its instances, counted from 0 as configured; none was there yet.
    pub instance: Option<usize>,
    /// The session is open there now.
    pub is_open: bool,
    /// Bytes that it may still send there; `None` while its backend keeps up.
    pub credit: Option<u32>,
}

/// Something that happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventView {
    /// When it happened last, Unix ms.
    pub unix_ms: u64,
    /// What.
    pub event: Event,
    /// The code of a reason, or the id of a group.
    pub about: u16,
    /// How often in a row.
    pub times: u8,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// Which claim of it.
    pub fence: Fence,
    /// Whose.
    pub account: Box<str>,
    /// Where it lives.
    pub shard: ShardId,
    /// Distribution channel.
    pub channel: Box<str>,
    /// Device, by the client's word.
    pub device: Box<str>,
    /// Version of the game client.
    pub client_version: u32,
    /// When the login was done, Unix ms.
    pub login_unix_ms: u64,
    /// Its connection; `None` while it waits for its client.
    pub connection: Option<ConnectionView>,
    /// Of each group.
    pub bindings: Vec<BindingView>,
    /// The channels that it is in, with whose they are.
    pub channels: Vec<(GroupId, ChannelId)>,
    /// How many attributes it has.
    pub attributes: usize,
    /// What happened to it, the oldest first.
    pub events: Vec<EventView>,
}

impl SessionView {
    /// By how much it is one of the busiest.
    pub fn key(&self, rank: Rank) -> u64 {
        let Some(connection) = &self.connection else {
            return 0;
        };
        rank.of(&connection.rate, connection.queued_bytes)
    }
}

/// Whose session is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everybody's.
    Any,
    /// This account's.
    Account(Box<str>),
    /// This one.
    Session(SessionId),
}

/// What makes a session one of the busiest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Bytes a second, both ways.
    Bytes,
    /// Frames a second that come.
    Frames,
    /// Bytes that wait for the client.
    Queue,
}

impl Rank {
    fn of(self, rate: &Amount, queued_bytes: usize) -> u64 {
        match self {
            Self::Bytes => u64::from(rate.received_bytes) + u64::from(rate.sent_bytes),
            Self::Frames => u64::from(rate.frames),
            Self::Queue => queued_bytes as u64,
        }
    }
}

/// Where a list of sessions goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The shard.
    pub shard: usize,
    /// The place in it.
    pub place: usize,
}

/// A look for sessions that is under way.
#[derive(Debug)]
pub struct Look {
    wanted: Wanted,
    rank: Option<Rank>,
    /// Sessions that are shown at most.
    limit: usize,
    /// Places looked at: first those of connections, then those of parked sessions.
    looked: usize,
    found: Vec<SessionView>,
    /// The busiest so far, with their places; at most `limit`.
    busiest: Vec<(u64, usize)>,
}

/// What a look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// Where another look goes on; `None` where everything was looked at.
    pub next: Option<usize>,
}

impl Look {
    /// For up to `limit` sessions, from this place on.
    pub fn new(wanted: Wanted, limit: usize, from: usize) -> Self {
        Self {
            wanted,
            rank: None,
            limit,
            looked: from,
            found: Vec::new(),
            busiest: Vec::new(),
        }
    }

    /// For the `limit` busiest of all that have a connection.
    pub fn busiest(rank: Rank, limit: usize) -> Self {
        Self {
            rank: Some(rank),
            ..Self::new(Wanted::Any, limit, 0)
        }
    }

    fn is_for(&self, session: &Session) -> bool {
        match &self.wanted {
            Wanted::Any => true,
            Wanted::Account(account) => session.account == *account,
            Wanted::Session(id) => session.id == *id,
        }
    }

    fn rank(&mut self, key: u64, place: usize) {
        let at = self.busiest.partition_point(|(other, _)| *other >= key);
        if at < self.limit {
            self.busiest.insert(at, (key, place));
            self.busiest.truncate(self.limit);
        }
    }
}

impl Shard {
    /// Goes on with a look. `None`: go on in the next turn.
    pub fn look(&self, now: Now, look: &mut Look) -> Option<Found> {
        for _ in 0..SWEEP_PER_TURN {
            let place = look.looked;
            let Some(session) = self.session_at(place) else {
                return Some(self.found(now, look, None));
            };
            look.looked += 1;
            let Some((session, connection)) = session.filter(|(it, _)| look.is_for(it)) else {
                continue;
            };
            match (look.rank, connection) {
                (None, _) => look.found.push(self.view(now, session, connection)),
                (Some(rank), Some(connection)) => {
                    let rate = connection.traffic.per_second(now.time);
                    look.rank(rank.of(&rate, connection.queued_bytes()), place);
                }
                (Some(_), None) => {}
            }
            if look.found.len() >= look.limit {
                return Some(self.found(now, look, Some(look.looked)));
            }
        }
        None
    }

    /// What is at a place: a session, or nothing; `None` behind the last one.
    fn session_at(&self, place: usize) -> Option<Option<(&Session, Option<&Connection>)>> {
        match self.connections.get(place) {
            Some(slot) => Some(slot.as_deref().and_then(|connection| {
                let session = connection.session()?;
                Some((session, Some(connection)))
            })),
            None => {
                let parked = self.parking.place(place - self.connections.len())?;
                Some(parked.map(|session| (session, None)))
            }
        }
    }

    fn found(&self, now: Now, look: &mut Look, next: Option<usize>) -> Found {
        let mut sessions = std::mem::take(&mut look.found);
        for &(_, place) in &look.busiest {
            // It may have gone since.
            if let Some((session, connection)) = self.session_at(place).flatten() {
                sessions.push(self.view(now, session, connection));
            }
        }
        Found { sessions, next }
    }

    fn view(&self, now: Now, session: &Session, connection: Option<&Connection>) -> SessionView {
        let bindings = session.bindings.iter().enumerate();
        SessionView {
            session: session.id,
            fence: session.fence,
            account: session.account.clone(),
            shard: self.config.shard,
            channel: session.channel.clone(),
            device: session.device.clone(),
            client_version: session.client_version,
            login_unix_ms: session.login_unix_ms,
            connection: connection.map(|connection| connection_view(now, connection)),
            bindings: bindings
                .map(|(group, binding)| {
                    let uplink = binding.uplink.map(usize::from);
                    BindingView {
                        group: self.config.groups[group].group,
                        instance: uplink.map(|at| at - self.group_first_uplink[group]),
                        is_open: uplink.is_some_and(|at| self.uplinks[at].holds(binding)),
                        credit: binding.credit.told(),
                    }
                })
                .collect(),
            channels: self.channels_of(session).collect(),
            attributes: session
                .memberships
                .as_ref()
                .map_or(0, |memberships| memberships.attributes()),
            events: session
                .story
                .events()
                .map(|noted| event_view(now, noted))
                .collect(),
        }
    }
}

fn connection_view(now: Now, connection: &Connection) -> ConnectionView {
    let age_us = now.time.us_since(connection.since);
    ConnectionView {
        transport: if !connection.is_stream() {
            Transport::Udp
        } else if connection.front.is_some() {
            Transport::WebSocket
        } else {
            Transport::Tcp
        },
        is_tls: connection.tls.is_some(),
        has_side_path: connection.is_stream() && connection.datagrams.is_some(),
        address: connection.peer,
        since_unix_ms: now.unix_ms.saturating_sub(age_us / 1_000),
        queued_bytes: connection.queued_bytes(),
        waiting_messages: connection.backlog.as_ref().map_or(0, |it| it.len()),
        is_rate_paused: connection.rate_paused,
        rate: connection.traffic.per_second(now.time),
        quality: connection.quality(),
    }
}

fn event_view(now: Now, noted: Noted) -> EventView {
    let ago_ms = now.time.wire_ms().wrapping_sub(noted.at_ms);
    EventView {
        unix_ms: now.unix_ms.saturating_sub(u64::from(ago_ms)),
        event: noted.event,
        about: noted.about,
        times: noted.times,
    }
}
