//! What an operator is shown of a session.
//!
//! It changes nothing. Invariant: a look goes through so many sessions a turn as a sweep
//! does; one that moves from one place to another meanwhile may be missed.

use std::net::SocketAddr;

use protocol::ids::{Fence, GroupId, SessionId, ShardId};
use protocol::quality::Quality;

use super::connection::{Connection, Session};
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
    /// Where the client is, where that is known.
    pub address: Option<SocketAddr>,
    /// Bytes that wait for the client.
    pub queued_bytes: usize,
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
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// Which claim of it.
    pub fence: Fence,
    /// Where it lives.
    pub shard: ShardId,
    /// Distribution channel.
    pub channel: Box<str>,
    /// Version of the game client.
    pub client_version: u32,
    /// When the login was done, Unix ms.
    pub login_unix_ms: u64,
    /// Its connection; `None` while it waits for its client.
    pub connection: Option<ConnectionView>,
    /// Of each group.
    pub bindings: Vec<BindingView>,
}

/// A look for a session that is under way.
#[derive(Debug)]
pub struct Look {
    account: Box<str>,
    /// Places looked at: first those of connections, then those of parked sessions.
    looked: usize,
}

impl Look {
    /// For the session of this account.
    pub fn new(account: Box<str>) -> Self {
        Self { account, looked: 0 }
    }
}

impl Shard {
    /// Goes on with a look; the session of the account, or that there is none. `None`: go
    /// on in the next turn.
    pub fn look(&self, look: &mut Look) -> Option<Option<SessionView>> {
        for _ in 0..SWEEP_PER_TURN {
            let at = look.looked;
            look.looked += 1;
            let (session, connection) = match self.connections.get(at) {
                Some(slot) => {
                    let connection = slot.as_deref();
                    (connection.and_then(Connection::session), connection)
                }
                None => match self.parking.place(at - self.connections.len()) {
                    Some(session) => (session, None),
                    None => return Some(None),
                },
            };
            if let Some(session) = session.filter(|session| session.account == look.account) {
                return Some(Some(self.view(session, connection)));
            }
        }
        None
    }

    fn view(&self, session: &Session, connection: Option<&Connection>) -> SessionView {
        let bindings = session.bindings.iter().enumerate();
        SessionView {
            session: session.id,
            fence: session.fence,
            shard: self.config.shard,
            channel: session.channel.clone(),
            client_version: session.client_version,
            login_unix_ms: session.login_unix_ms,
            connection: connection.map(|connection| ConnectionView {
                transport: if !connection.is_stream() {
                    Transport::Udp
                } else if connection.front.is_some() {
                    Transport::WebSocket
                } else {
                    Transport::Tcp
                },
                address: connection.peer,
                queued_bytes: connection.queued_bytes(),
                quality: connection.quality(),
            }),
            bindings: bindings
                .map(|(group, binding)| {
                    let uplink = binding.uplink.map(usize::from);
                    BindingView {
                        group: self.config.groups[group].group,
                        instance: uplink.map(|at| at - self.group_first_uplink[group]),
                        is_open: uplink.is_some_and(|at| self.uplinks[at].holds(binding)),
                    }
                })
                .collect(),
        }
    }
}
