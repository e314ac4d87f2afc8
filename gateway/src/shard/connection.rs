//! One client's connection as its shard sees it: phase, ciphers, limits, and
//! the bytes that wait to be sent. It decides nothing; `client_side` and
//! `session` do.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;

use protocol::body::Body;
use protocol::check::{Bucket, ClockOffset};
use protocol::cipher::{Opener, Sealer};
use protocol::control;
use protocol::ids::{Fence, GroupId, SessionId, TicketId};
use protocol::limits::{FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX};
use protocol::quality::{Digest, Meter};
use protocol::reassembly::Reassembly;
use protocol::ticket::Ticket;
use protocol::time::Time;

use super::ahead::Ahead;
use super::backlog::Backlog;
use super::channels::Memberships;
use super::credits::Credit;
use super::datagrams::Datagrams;
use super::story::{Event, Story, Traffic};
use crate::engine::{ConnId, SendBuffer};
use crate::front::Front;
use crate::front::tls::Tls;
use crate::limits::Network;

/// How far a connection has come.
#[derive(Debug)]
pub enum Phase {
    /// Accepted; its HELLO has not come.
    Hello,
    /// Center is asked whose ticket it is that its RESUME names: the number of the
    /// question.
    Seeking(u64),
    /// Its HELLO or RESUME has come, and its turn has not.
    Held(Box<Held>),
    /// Keys stand; its LOGIN has not come.
    Login,
    /// Its claim is at center.
    Claiming(Box<PendingLogin>),
    /// Keys stand by a ticket; its ATTACH has not come. The session does not
    /// know of it yet.
    Resuming(Box<PendingResume>),
    /// Its ATTACH has come, and center is asked to move the session here: the number
    /// of the move.
    Moving(u64),
    /// Logged in.
    Session(Box<Session>),
    /// CLOSE is out or on its way; what still comes is discarded.
    Closing,
}

/// A first frame that waits for its turn.
#[derive(Debug)]
pub struct Held {
    /// Not before then.
    pub until: Time,
    /// The frame.
    pub frame: Box<[u8]>,
}

/// What a LOGIN said, kept until center has answered.
#[derive(Debug)]
pub struct PendingLogin {
    /// Names the claim.
    pub claim: u64,
    /// The account that the token proves.
    pub account: Box<str>,
    /// The token's id, which the claim consumes.
    pub token_id: Box<str>,
    /// When the token ends, Unix ms.
    pub token_expires_unix_ms: u64,
    /// Version of the game client.
    pub client_version: u32,
    /// Distribution channel.
    pub channel: Box<str>,
    /// Device, by the client's word.
    pub device: Box<str>,
    /// It waits for its turn; center has not been asked.
    pub held: bool,
    /// Its place in center's queue, once it was told that it waits.
    pub place: Option<NonZero<u64>>,
}

/// Which session a connection is about to take.
#[derive(Debug)]
pub struct PendingResume {
    /// The session.
    pub session: SessionId,
    /// Under which ticket: it counts only while it is the session's.
    pub ticket: TicketId,
}

/// A RESUME whose ticket is not known here, while center is asked.
#[derive(Debug)]
pub struct PendingSeek {
    /// Who sent it.
    pub asker: Asker,
    /// The ticket's id.
    pub ticket: TicketId,
    /// The frame.
    pub resume: Box<[u8]>,
    /// When it came.
    pub since: Time,
}

/// Who sent a RESUME.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// A connection.
    Connection(ConnId),
    /// An INIT from this address with this nonce, which has no connection yet.
    Init(SocketAddr, u64),
}

/// A session that center was asked to move here.
#[derive(Debug)]
pub struct PendingMove {
    /// Whose ATTACH it was; it may have gone.
    pub conn: ConnId,
    /// The session.
    pub session: SessionId,
    /// The ticket that the move uses up.
    pub ticket: TicketId,
    /// The one that takes its place.
    pub next: Ticket,
}

/// A logged-in player.
#[derive(Debug)]
pub struct Session {
    /// Issued by center.
    pub id: SessionId,
    /// Which claim this is.
    pub fence: Fence,
    /// Whose.
    pub account: Box<str>,
    /// Distribution channel.
    pub channel: Box<str>,
    /// Device, by the client's word; center goes by it.
    pub device: Box<str>,
    /// Version of the game client.
    pub client_version: u32,
    /// When login was done, Unix ms.
    pub login_unix_ms: u64,
    /// For each configured group, in its order: where its messages go.
    pub bindings: Box<[Binding]>,
    /// Where the shard that had it before had opened it, as far as it is not open here.
    pub elsewhere: Vec<Instance>,
    /// Instances that it was moved away from while they may have lived, at most one
    /// boot of each name and `INSTANCES_LEFT_MAX` in all. It never goes back to one:
    /// that end of its stream would go on where the client's no longer can.
    pub left: Vec<Instance>,
    /// Center has not been told yet where it is bound, or with which ticket it comes back.
    pub untold: bool,
    /// What backends were told of its connection's quality.
    pub told: Told,
    /// What happened to it lately, for operators.
    pub story: Story,
    /// The channels that it is in, and its attributes.
    pub memberships: Option<Box<Memberships>>,
}

/// The last QUALITY of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// What was in it; nothing since a backend came that has not heard of it.
    pub digest: Digest,
    /// When: a timestamp of the wire, ms.
    pub at_ms: u32,
}

/// One start of an instance of a group, by the name that every gateway knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The group that it serves.
    pub group: GroupId,
    /// Its name.
    pub name: Arc<str>,
    /// Which start.
    pub boot: u64,
}

impl Instance {
    /// As center is told of it.
    pub fn told(&self) -> control::Instance {
        control::Instance {
            group: u32::from(self.group.0),
            name: self.name.to_string(),
            boot: self.boot,
        }
    }
}

impl TryFrom<control::Instance> for Instance {
    type Error = std::num::TryFromIntError;

    fn try_from(told: control::Instance) -> Result<Self, Self::Error> {
        Ok(Self {
            group: GroupId(told.group.try_into()?),
            name: told.name.into(),
            boot: told.boot,
        })
    }
}

/// Where the messages of one group go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The instance, once one was chosen.
    pub uplink: Option<u16>,
    /// The uplink's epoch in which the session was opened there; it is open
    /// only while the uplink is still in that epoch.
    pub epoch: u32,
    /// Which start of the instance it was opened at.
    pub boot: u64,
    /// The client knows that the group is down.
    pub down_told: bool,
    /// What the client may send there.
    pub credit: Credit,
}

impl Binding {
    /// The session is to be opened there anew, if the uplink is up.
    pub fn reopen(&mut self) {
        // An earlier epoch never comes again.
        self.epoch = self.epoch.wrapping_sub(1);
        self.down_told = false;
        self.credit = Credit::default();
    }
}

/// The ciphers of a connection past its handshake.
#[derive(Debug)]
pub struct Ciphers {
    /// What we send.
    pub sealer: Sealer,
    /// What we receive.
    pub opener: Opener,
    /// The client's clock against ours.
    pub clock: ClockOffset,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The engine's name for it.
    pub id: ConnId,
    /// The client's address, where the engine could tell it.
    pub peer: Option<SocketAddr>,
    /// Where it counts as an open connection.
    pub network: Option<Network>,
    /// How far it has come.
    pub phase: Phase,
    /// What lies around everything else, if it came over TLS.
    pub tls: Option<Box<Tls>>,
    /// What lies before its frames, while there is something.
    pub front: Option<Box<Front>>,
    /// None before the handshake, and over datagrams.
    pub ciphers: Option<Ciphers>,
    /// With which its session can be resumed, once it has one; none before the
    /// handshake.
    pub ticket: Option<Ticket>,
    /// What a connection over datagrams has instead, or one over a stream beside it.
    pub datagrams: Option<Box<Datagrams>>,
    /// A frame that has not come whole.
    pub reassembly: Reassembly,
    /// Frames that it may send.
    pub frames: Bucket,
    /// Bytes that it may send.
    pub bytes: Bucket,
    /// When it was accepted; in `Closing`, when that began.
    pub since: Time,
    /// When the last frame that verified came.
    pub heard_at: Time,
    /// Silent for so long, ms, it is closed: what WELCOME told it.
    pub idle_timeout_ms: u32,
    /// A PING is out since the last bytes came.
    pub pinged: bool,
    /// How good it is.
    pub meter: Meter,
    /// How much goes through it.
    pub traffic: Traffic,
    /// Reliable frames in a row with a bad timestamp.
    pub timestamp_failures: u16,
    /// Sealed frames that wait for the engine.
    pub out: Vec<u8>,
    /// What leaves before them.
    pub ahead: Option<Box<Ahead>>,
    /// What may get lost, while the client reads too slowly.
    pub backlog: Option<Box<Backlog>>,
    /// Bytes that the engine is sending; 0 if none.
    pub in_flight_bytes: u32,
    /// Since when.
    pub in_flight_since: Time,
    /// It is in the shard's list of connections with something to send.
    pub listed: bool,
    /// What waits to be sent waits for a backend's SYNC.
    pub corked: bool,
    /// Reading is paused because it is above its rate.
    pub rate_paused: bool,
    /// Reading is paused because the client ignores that a backend does not keep up.
    pub uplink_paused: bool,
    /// The engine was told to end the sending direction.
    pub shut: bool,
    /// Its end is not to be told.
    pub is_mute: bool,
}

impl Connection {
    /// One that was just accepted.
    pub fn new(
        id: ConnId,
        peer: Option<SocketAddr>,
        frames: Bucket,
        bytes: Bucket,
        now: Time,
    ) -> Self {
        Self {
            id,
            peer,
            network: None,
            phase: Phase::Hello,
            tls: None,
            front: None,
            ciphers: None,
            ticket: None,
            datagrams: None,
            reassembly: Reassembly::default(),
            frames,
            bytes,
            since: now,
            heard_at: now,
            idle_timeout_ms: 0,
            pinged: false,
            meter: Meter::default(),
            traffic: Traffic::default(),
            timestamp_failures: 0,
            out: Vec::new(),
            ahead: None,
            backlog: None,
            in_flight_bytes: 0,
            in_flight_since: now,
            listed: false,
            corked: false,
            rate_paused: false,
            uplink_paused: false,
            shut: false,
            is_mute: false,
        }
    }

    /// Bytes that wait for this client.
    pub fn queued_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |it| it.bytes()) + self.sealed_bytes()
    }

    /// Of these, those that will be sent whatever comes.
    pub fn sealed_bytes(&self) -> usize {
        let datagrams = self.datagrams.as_ref();
        let datagrams = datagrams.map_or(0, |datagrams| datagrams.end.queued_bytes());
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.bytes());
        ahead + self.out.len() + self.in_flight_bytes as usize + datagrams
    }

    /// This is what the engine sends now.
    pub fn begin_send(&mut self, buffer: SendBuffer, now: Time) -> SendBuffer {
        self.traffic.sent(now, buffer.len());
        self.in_flight_bytes = buffer.len() as u32;
        self.in_flight_since = now;
        buffer
    }

    /// How long, ms, it may take to read its CLOSE.
    pub fn closing_ms(&self) -> u64 {
        if self.is_stream() {
            super::CLOSING_MS
        } else {
            super::CLOSING_DATAGRAMS_MS
        }
    }

    /// Whether a stream carries it: datagrams do so at most beside that.
    pub fn is_stream(&self) -> bool {
        let datagrams = self.datagrams.as_ref();
        datagrams.is_none_or(|datagrams| datagrams.side.is_some())
    }

    /// Whether something waits to be sent.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
            || self.ahead.as_ref().is_some_and(|ahead| ahead.bytes() > 0)
            || self.backlog.is_some()
            || self.front.as_ref().is_some_and(|front| front.has_answers())
            || self.tls.as_ref().is_some_and(|tls| tls.has_answers())
    }

    /// The longest frame that may come now.
    pub fn frame_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Hello | Phase::Seeking(_) | Phase::Held(_) => HELLO_FRAME_BYTES_MAX,
            Phase::Session(_) => FRAME_BYTES_MAX,
            _ => LOGIN_FRAME_BYTES_MAX,
        }
    }

    /// The session, if it is logged in.
    pub fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Session(session) => Some(session),
            _ => None,
        }
    }

    /// Something has happened to its session, if it has one.
    pub fn note(&mut self, now: Time, event: Event, about: u16) {
        if let Phase::Session(session) = &mut self.phase {
            session.story.note(now, event, about);
        }
    }

    /// Whether nothing has come of it that could be told from a stranger's.
    pub fn is_unheard(&self) -> bool {
        match self.phase {
            Phase::Hello => true,
            Phase::Closing => false,
            _ => self.datagrams.as_ref().is_some_and(|it| it.is_unheard()),
        }
    }

    /// Seals a body behind what waits. Before the handshake there is no key
    /// and nothing happens.
    pub fn seal(&mut self, now: Time, body: &Body<'_>) {
        if let Some(ciphers) = &mut self.ciphers {
            ciphers
                .sealer
                .seal(now, 0, &mut self.out, |out| body.encode(out));
        } else if let Some(datagrams) = &mut self.datagrams {
            let mut bytes = Vec::new();
            body.encode(&mut bytes);
            datagrams.end.push(0, &[&bytes]);
        }
    }

    /// The same with an encoded body in two pieces, its head and the rest. `flags`: of
    /// the frame.
    pub fn seal_encoded(&mut self, now: Time, flags: u8, head: &[u8], rest: &[u8]) {
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.sealer.seal(now, flags, &mut self.out, |out| {
                out.extend_from_slice(head);
                out.extend_from_slice(rest);
            });
        } else if let Some(datagrams) = &mut self.datagrams {
            datagrams.end.push(flags, &[head, rest]);
        }
    }
}
