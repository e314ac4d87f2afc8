//! From LOGIN to the end of a session: the token, the claim at center, the
//! bindings to backends, and the lease without which no session may live.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;

use protocol::body::{Body, Login};
use protocol::client::LOGIN_METHOD_TOKEN;
use protocol::control::{self, Claim, ClaimGranted, ClaimRefusal, ClaimRefused, to_backend};
use protocol::ids::{Fence, SessionId};
use protocol::limits::{CONTROL_BYTES_MAX, GROUPS_MAX, INSTANCES_LEFT_MAX, LABEL_BYTES_MAX};
use protocol::reason::CloseReason;
use protocol::ticket::Ticket;
use protocol::time::{Now, Time};
use protocol::uplink::{self, ClientAddress, Record};

use super::connection::{Binding, Connection, Instance, PendingLogin, Phase, Session, Told};
use super::credits::Credit;
use super::story::{Event, Story};
use super::uplinks::{CENTER, Uplink};
use super::{Action, Notice, Shard};
use crate::engine::ConnId;

/// Renewals in one lease: two may be lost before sessions are.
const RENEWALS_PER_LEASE: u64 = 3;

/// Sessions in one Rebuild message: usually 20 KB. With as many instances as a session
/// can name it still fits into `CONTROL_BYTES_MAX`.
const REBUILD_SESSIONS: usize = 100;
const _: () = assert!(
    REBUILD_SESSIONS * (GROUPS_MAX + INSTANCES_LEFT_MAX + 4) * (LABEL_BYTES_MAX + 24)
        < CONTROL_BYTES_MAX
);

/// The shard's right to hold sessions.
#[derive(Debug, Default)]
pub struct Lease {
    /// Length, ms, as center told; 0 before the first hello.
    length_ms: u64,
    /// It ends then, unless renewed.
    until: Time,
    /// Number of the last Renew.
    renewal: u64,
    /// When that was sent: a lease counts from before center saw it.
    renewal_sent_at: Time,
    /// When the next one is due.
    renew_at: Time,
    /// It has ended and the sessions are being closed.
    lost: bool,
}

impl Lease {
    /// Whether sessions may live.
    pub fn is_held(&self, now: Time) -> bool {
        now < self.until
    }
}

impl Shard {
    pub(super) fn handle_login(
        &mut self,
        now: Now,
        connection: &mut Connection,
        login: &Login<'_>,
    ) -> Result<(), CloseReason> {
        if login.method != LOGIN_METHOD_TOKEN {
            return Err(CloseReason::BadToken);
        }
        self.check_version(login.client_version)?;
        let claims = self.verifier.verify(login.credential, now.unix_ms)?;
        if self.draining {
            return Err(CloseReason::Draining);
        }
        let held = self.hold_login(now, connection, &claims.account)?;
        self.make_room(now)?;
        let claim = self.next_claim;
        self.next_claim += 1;
        self.claims.insert(claim, connection.id);
        let pending = PendingLogin {
            claim,
            account: claims.account.into(),
            token_id: claims.id.into(),
            token_expires_unix_ms: claims.expires_unix_ms,
            client_version: login.client_version,
            channel: login.channel.into(),
            device: login.device.into(),
            held,
            place: None,
        };
        if self.uplinks[CENTER].up && !held {
            let message = claim_message(connection.id, connection.ticket.as_ref(), &pending);
            self.uplinks[CENTER].control(message);
        }
        connection.phase = Phase::Claiming(Box::new(pending));
        Ok(())
    }

    /// Whether this version of the client is let in: one that is too old is not, nor one that no
    /// configured instance of some group takes.
    fn check_version(&self, version: u32) -> Result<(), CloseReason> {
        let is_taken = |group| {
            self.uplinks_of(group)
                .any(|at| self.uplinks[at].versions.contains(&version))
        };
        match version >= self.config.version_min && (0..self.config.groups.len()).all(is_taken) {
            true => Ok(()),
            false => Err(CloseReason::UpgradeRequired),
        }
    }

    pub(super) fn handle_claim_granted(&mut self, now: Now, granted: &ClaimGranted) {
        let session_id = SessionId(granted.session);
        let fence = Fence(granted.fence);
        let claimed = self
            .claims
            .remove(&granted.claim)
            .and_then(|id| self.take(id));
        let Some(mut connection) = claimed else {
            self.release(session_id, fence, false);
            return;
        };
        let id = connection.id;
        if !self.lease.is_held(now.time) {
            // This process was frozen: center may have given the account away.
            self.connections[id.index as usize] = Some(connection);
            self.release(session_id, fence, false);
            self.close(now, id, CloseReason::CenterUnavailable);
            return;
        }
        let phase = std::mem::replace(&mut connection.phase, Phase::Login);
        let Phase::Claiming(pending) = phase else {
            connection.phase = phase;
            self.connections[id.index as usize] = Some(connection);
            self.release(session_id, fence, false);
            return;
        };
        self.leave_queue(&pending);
        connection.phase = Phase::Session(Box::new(Session {
            id: session_id,
            fence,
            account: pending.account,
            channel: pending.channel,
            device: pending.device,
            client_version: pending.client_version,
            login_unix_ms: now.unix_ms,
            bindings: vec![Binding::default(); self.config.groups.len()].into(),
            elsewhere: Vec::new(),
            left: Vec::new(),
            told: Told::default(),
            memberships: None,
            story: Story::default(),
            untold: true,
        }));
        connection.note(now.time, Event::LoggedIn, 0);
        self.counters.logins.add(1);
        // One that is new has left no instance, so it is not at its end.
        let _ = self.open_session(now, &mut connection);
        self.connections[id.index as usize] = Some(connection);
        self.list_for_send(id);
    }

    pub(super) fn handle_claim_refused(&mut self, now: Now, refused: &ClaimRefused) {
        let Some(id) = self.claims.get(&refused.claim).copied() else {
            return;
        };
        let reason = match refused.refusal() {
            ClaimRefusal::TokenReused => CloseReason::TokenReused,
            ClaimRefusal::AlreadyOnline => CloseReason::AlreadyOnline,
            ClaimRefusal::Full => CloseReason::Full,
            ClaimRefusal::Banned => CloseReason::Banned,
            ClaimRefusal::PlaceTaken => CloseReason::PlaceTaken,
            ClaimRefusal::Degraded | ClaimRefusal::Unspecified => CloseReason::CenterUnavailable,
        };
        self.close_with(now, id, reason, &refused.text);
    }

    /// A connection has a session, for the first time or again: its client is told,
    /// backends and center are. Says why where the session is at its end.
    pub(super) fn open_session(
        &mut self,
        now: Now,
        connection: &mut Connection,
    ) -> Result<(), CloseReason> {
        let Some(id) = connection.session().map(|session| session.id) else {
            return Ok(());
        };
        self.sessions.insert(id, connection.id);
        self.counters.sessions.set(self.sessions.len() as u64);
        if let Some(ticket) = &connection.ticket {
            self.tickets.insert(ticket.id(), id);
        }
        self.owe_kept(now.time, connection);
        self.open_datagrams(connection);
        self.tell_logged_in(now, connection, id);
        if let Some(reason) = self.bind_session(connection) {
            return Err(reason);
        }
        if connection.session().is_some_and(|session| session.untold) {
            self.tell_center(connection);
        }
        Ok(())
    }

    /// Tells center what has become of a connection's session.
    pub(super) fn tell_center(&mut self, connection: &mut Connection) {
        let Connection {
            id, phase, ticket, ..
        } = connection;
        if let (Phase::Session(session), Some(ticket)) = (phase, ticket) {
            self.tell_of(session, ticket, Some(*id));
        }
    }

    /// The same of a session whose connection is this one, or which has none.
    pub(super) fn tell_of(&mut self, session: &mut Session, ticket: &Ticket, at: Option<ConnId>) {
        if self.uplinks[CENTER].up {
            let update = self.update_of(session, ticket, at);
            self.uplinks[CENTER].control(to_backend::Message::Update(update));
            session.untold = false;
        }
    }

    fn tell_logged_in(&mut self, now: Now, connection: &mut Connection, session: SessionId) {
        self.lend_out(connection);
        let unix_ms = now.unix_ms;
        connection.seal(now.time, &Body::LoginOk { session, unix_ms });
        self.counters.frames_sent.add(1);
    }

    /// Closes a session by name, unless the fence is another one's.
    pub(super) fn close_session(
        &mut self,
        now: Now,
        session: SessionId,
        fence: Fence,
        reason: CloseReason,
        text: &str,
    ) {
        let Some(&id) = self.sessions.get(&session) else {
            return self.close_parked(now, session, fence, reason);
        };
        let fits = self
            .connection(id)
            .and_then(|connection| connection.session())
            .is_some_and(|s| s.fence == fence);
        if fits {
            self.close_with(now, id, reason, text);
        }
    }

    /// Opens the session at an instance of each group that has one, where it
    /// is not open already. The instance it was bound to comes first, then one
    /// that it has not left. Where only such are there, the session is at its
    /// end, and this says why.
    pub(super) fn bind_session(&mut self, connection: &mut Connection) -> Option<CloseReason> {
        match &mut connection.phase {
            Phase::Session(session) => self.bind(session, connection.peer, false),
            _ => None,
        }
    }

    /// The same for a session whose client is `away`, or is at `peer`.
    pub(super) fn bind(
        &mut self,
        session: &mut Session,
        peer: Option<SocketAddr>,
        away: bool,
    ) -> Option<CloseReason> {
        for group in 0..session.bindings.len() {
            let binding = session.bindings[group];
            if binding
                .uplink
                .is_some_and(|at| self.uplinks[usize::from(at)].holds(&binding))
            {
                continue;
            }
            let group_id = self.config.groups[group].group;
            let told = session.elsewhere.iter().position(|at| at.group == group_id);
            let kept = match (binding.uplink, told) {
                (Some(at), _) => Some(usize::from(at)).filter(|&at| self.uplinks[at].up),
                (None, Some(told)) => {
                    let told = &session.elsewhere[told];
                    self.uplinks_of(group)
                        .filter(|&at| self.uplinks[at].up && self.uplinks[at].instance == told.name)
                        .max_by_key(|&at| self.uplinks[at].boot == told.boot)
                }
                (None, None) => None,
            };
            let has_left = |uplink: &Uplink| {
                session.left.iter().any(|left| {
                    left.group == group_id
                        && left.boot == uplink.boot
                        && left.name == uplink.instance
                })
            };
            let chosen = kept.or_else(|| {
                self.uplinks_of(group)
                    .filter(|&at| {
                        let uplink = &self.uplinks[at];
                        uplink.takes(session.client_version) && !has_left(uplink)
                    })
                    .max_by_key(|&at| rendezvous(session.id, at))
            });
            let Some(at) = chosen else {
                let version = session.client_version;
                if self
                    .uplinks_of(group)
                    .any(|at| self.uplinks[at].takes(version))
                {
                    return Some(CloseReason::LinkLost);
                }
                continue;
            };
            let told = told.map(|told| session.elsewhere.swap_remove(told));
            let before = match binding.uplink.map(usize::from) {
                Some(old) => Some(Instance {
                    group: group_id,
                    name: Arc::clone(&self.uplinks[old].instance),
                    boot: binding.boot,
                }),
                None => told,
            };
            let uplink = &mut self.uplinks[at];
            let is_same = |it: &Instance| it.name == uplink.instance && it.boot == uplink.boot;
            if !before.as_ref().is_some_and(is_same) {
                session.untold = true;
                session.story.note(self.turn.time, Event::Bound, group_id.0);
            }
            if let Some(before) = before.filter(|before| before.name != uplink.instance) {
                session
                    .left
                    .retain(|it| it.group != before.group || it.name != before.name);
                if session.left.len() >= INSTANCES_LEFT_MAX {
                    return Some(CloseReason::LinkLost);
                }
                session.left.push(before);
            }
            session.bindings[group] = Binding {
                uplink: Some(at as u16),
                epoch: uplink.epoch,
                boot: uplink.boot,
                down_told: false,
                credit: Credit::default(),
            };
            session.told = Told::default();
            if let Some(memberships) = &mut session.memberships {
                memberships.forget_attributes(group_id);
            }
            let address = peer.filter(|_| uplink.wants_address).map(client_address);
            let open = uplink::Open {
                fence: session.fence,
                unix_ms: session.login_unix_ms,
                client_version: session.client_version,
                address,
                away,
                account: &session.account,
                channel: &session.channel,
            };
            uplink::encode(
                session.id,
                &Record::Open(open),
                uplink.stream(uplink::stream_of(session.id)),
            );
        }
        None
    }

    /// The end of a session, or of a claim, for everybody who knows of it.
    pub(super) fn end_session(
        &mut self,
        now: Now,
        connection: &mut Connection,
        reason: CloseReason,
    ) {
        match std::mem::replace(&mut connection.phase, Phase::Closing) {
            Phase::Session(mut session) => {
                self.keep_owed(now.time, connection, &session.account);
                self.leave_channels(connection.id, &mut session);
                self.sessions.remove(&session.id);
                self.counters.sessions.set(self.sessions.len() as u64);
                match &connection.ticket {
                    Some(ticket) if self.can_wait_here(reason) => {
                        session.story.note(now.time, Event::Lost, reason as u16);
                        self.park(now, session, ticket.clone());
                    }
                    ticket => {
                        if let Some(ticket) = ticket {
                            self.forget_ticket(ticket.id());
                        }
                        self.tell_end(now, &session, reason);
                    }
                }
            }
            Phase::Seeking(seek) => {
                self.seeks.remove(&seek);
            }
            Phase::Claiming(pending) => {
                self.claims.remove(&pending.claim);
                self.leave_queue(&pending);
                let center = &mut self.uplinks[CENTER];
                if center.up && !pending.held {
                    let claim = pending.claim;
                    center.control(to_backend::Message::Abandon(control::Abandon {
                        claim,
                        // Who only lost the connection finds its place again.
                        given_up: reason == CloseReason::LoggedOut,
                    }));
                }
            }
            // `close` still wants to know whether there were keys.
            phase => connection.phase = phase,
        }
    }

    /// Whether a session whose connection ends for this reason waits for its client here.
    fn can_wait_here(&self, reason: CloseReason) -> bool {
        reason.leaves_session() && !is_given_up(reason) && self.config.resume_ms > 0
    }

    /// Tells backends and center that a session has ended, or only that it is not here
    /// any more where it goes on elsewhere, or may.
    pub(super) fn tell_end(&mut self, now: Now, session: &Session, reason: CloseReason) {
        let moved = reason == CloseReason::Superseded;
        let kept = is_given_up(reason) && self.config.resume_ms > 0;
        let end = if moved || kept {
            Record::Gone
        } else {
            Record::End {
                fence: session.fence,
                reason: reason as u16,
                unix_ms: now.unix_ms,
            }
        };
        for binding in &session.bindings {
            if let Some(at) = binding.uplink.map(usize::from)
                && self.uplinks[at].holds(binding)
            {
                let stream = uplink::stream_of(session.id);
                uplink::encode(session.id, &end, self.uplinks[at].stream(stream));
            }
        }
        if !moved {
            self.release(session.id, session.fence, kept);
        }
    }

    /// Tells center that a session has ended, or, `kept`, that it is only not held here
    /// any more. If center is away, the next Rebuild says so by leaving it out.
    pub(super) fn release(&mut self, session: SessionId, fence: Fence, kept: bool) {
        let center = &mut self.uplinks[CENTER];
        if center.up {
            center.control(to_backend::Message::Release(control::Release {
                session: session.0,
                fence: fence.0,
                kept,
            }));
        }
    }

    /// Center is there (again): the lease is renewed, center is told the
    /// sessions of this shard, and claims that waited are sent.
    pub(super) fn handle_center_up(&mut self, now: Now, lease_ms: u32) {
        self.lease.length_ms = u64::from(lease_ms);
        self.lease.renew_at = now.time;
        self.handle_lease(now);
        let held = self.connections.iter().flatten().filter_map(|connection| {
            let session = connection.session()?;
            Some((session, connection.ticket.as_ref(), Some(connection.id)))
        });
        let parked = self
            .parking
            .iter()
            .map(|(session, ticket)| (session, Some(ticket), None));
        let live: Vec<control::LiveSession> = held
            .chain(parked)
            .map(|(session, ticket, at)| self.live_session(session, ticket, at))
            .collect();
        let center = &mut self.uplinks[CENTER];
        for chunk in live.chunks(REBUILD_SESSIONS) {
            center.control(to_backend::Message::Rebuild(control::Rebuild {
                sessions: chunk.to_vec(),
                last: false,
            }));
        }
        center.control(to_backend::Message::Rebuild(control::Rebuild {
            sessions: Vec::new(),
            last: true,
        }));
        let mut waiting: Vec<ConnId> = self.claims.values().copied().collect();
        waiting.sort_unstable();
        for id in waiting {
            let connection = Self::at(&mut self.connections, id);
            if let Some(connection) = connection
                && let Phase::Claiming(pending) = &connection.phase
                && !pending.held
            {
                let message = claim_message(id, connection.ticket.as_ref(), pending);
                self.uplinks[CENTER].control(message);
            }
        }
        self.repeat_moves();
    }

    /// What center is told of a session when it has forgotten all.
    fn live_session(
        &self,
        session: &Session,
        ticket: Option<&Ticket>,
        at: Option<ConnId>,
    ) -> control::LiveSession {
        control::LiveSession {
            session: session.id.0,
            fence: session.fence.0,
            account: session.account.to_string(),
            slot: at.map_or(0, |at| at.index),
            generation: at.map_or(0, |at| at.generation),
            parked: at.is_none(),
            ticket: key_of(ticket),
            channel: session.channel.to_string(),
            device: session.device.to_string(),
            client_version: session.client_version,
            login_unix_ms: session.login_unix_ms,
            bindings: self.bindings_of(session),
            left: session.left.iter().map(Instance::told).collect(),
        }
    }

    /// The same of what changes.
    fn update_of(&self, session: &Session, ticket: &Ticket, at: Option<ConnId>) -> control::Update {
        control::Update {
            session: session.id.0,
            fence: session.fence.0,
            slot: at.map_or(0, |at| at.index),
            generation: at.map_or(0, |at| at.generation),
            parked: at.is_none(),
            ticket: key_of(Some(ticket)),
            login_unix_ms: session.login_unix_ms,
            bindings: self.bindings_of(session),
            left: session.left.iter().map(Instance::told).collect(),
        }
    }

    /// Where a session is open, or was before it came here.
    fn bindings_of(&self, session: &Session) -> Vec<control::Instance> {
        let here = session.bindings.iter().zip(&self.config.groups);
        let here = here.filter_map(|(binding, group)| {
            let uplink = &self.uplinks[usize::from(binding.uplink?)];
            Some(control::Instance {
                group: u32::from(group.group.0),
                name: uplink.instance.to_string(),
                boot: binding.boot,
            })
        });
        here.chain(session.elsewhere.iter().map(Instance::told))
            .collect()
    }

    pub(super) fn handle_renewed(&mut self, renewal: u64) {
        if renewal == self.lease.renewal {
            self.lease.until = self.lease.renewal_sent_at.after_ms(self.lease.length_ms);
            self.lease.lost = false;
        }
    }

    pub(super) fn handle_lease(&mut self, now: Now) {
        if self.lease.length_ms == 0 {
            return;
        }
        if self.uplinks[CENTER].up && now.time >= self.lease.renew_at {
            self.lease.renewal += 1;
            self.lease.renewal_sent_at = now.time;
            self.lease.renew_at = now.time.after_ms(self.lease.length_ms / RENEWALS_PER_LEASE);
            let renew = control::Renew {
                renewal: self.lease.renewal,
            };
            self.uplinks[CENTER].control(to_backend::Message::Renew(renew));
        }
        if !self.lease.lost && self.holds_sessions() && now.time >= self.lease.until {
            self.lease.lost = true;
            self.closing_sweep
                .get_or_insert((CloseReason::LeaseLost, 0));
            self.actions.push_back(Action::Notice(Notice::LeaseLost));
        }
    }

    pub(super) fn lease_deadline(&self) -> Option<Time> {
        if self.lease.length_ms == 0 {
            return None;
        }
        let renew = self.uplinks[CENTER].up.then_some(self.lease.renew_at);
        let end = (!self.lease.lost && self.holds_sessions()).then_some(self.lease.until);
        [renew, end].into_iter().flatten().min()
    }
}

/// Whether the shard gives its sessions up for this reason: it may not hold them any
/// longer, but another one may go on with them.
fn is_given_up(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::LeaseLost | CloseReason::Draining)
}

fn key_of(ticket: Option<&Ticket>) -> Vec<u8> {
    ticket.map_or_else(Vec::new, |ticket| ticket.key().to_vec())
}

pub(super) fn claim_message(
    id: ConnId,
    ticket: Option<&Ticket>,
    pending: &PendingLogin,
) -> to_backend::Message {
    to_backend::Message::Claim(Claim {
        claim: pending.claim,
        account: pending.account.to_string(),
        token_id: pending.token_id.to_string(),
        token_expires_unix_ms: pending.token_expires_unix_ms,
        client_version: pending.client_version,
        channel: pending.channel.to_string(),
        device: pending.device.to_string(),
        place: pending.place.map_or(0, NonZero::get),
        slot: id.index,
        generation: id.generation,
        ticket: key_of(ticket),
    })
}

fn client_address(peer: SocketAddr) -> ClientAddress {
    let ip = match peer.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    ClientAddress {
        ip: ip.octets(),
        port: peer.port(),
    }
}

/// The weight of an instance for a session; the highest wins, so that one more
/// instance moves only its share (Thaler and Ravishankar, "Using name-based
/// mappings to increase hit rates", 1998). The mixer is SplitMix64's.
fn rendezvous(session: SessionId, uplink: usize) -> u64 {
    let mut z = session
        .0
        .wrapping_add((uplink as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
