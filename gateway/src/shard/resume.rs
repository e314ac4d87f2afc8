//! Sessions whose client is lost, and clients that come back to theirs: parking,
//! RESUME, ATTACH, and the end of those to whom nobody came back.
//!
//! It does not move sessions between shards. Invariant: until the first sealed
//! frame of a resumed connection has verified, nothing about the session
//! changes; a ticket opens one connection.

use std::collections::VecDeque;

use protocol::control::{self, to_backend};
use protocol::handshake;
use protocol::ids::{Fence, SessionId, TicketId};
use protocol::reason::CloseReason;
use protocol::ticket::Ticket;
use protocol::time::{Now, Time};
use rustc_hash::FxHashMap;

use super::connection::{Connection, PendingResume, Phase, Session};
use super::session::live_session;
use super::uplinks::CENTER;
use super::{SWEEP_PER_TURN, Shard};

/// Entries of `order` beyond those in use before it is cleaned.
const STALE_MAX: usize = 1_024;

/// A session without a connection.
#[derive(Debug)]
struct Parked {
    session: Box<Session>,
    ticket: Ticket,
    until: Time,
}

/// The sessions of a shard that wait for their clients. They count among its
/// `sessions_max`; a new login takes the place of the oldest.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// About 300 bytes each: no buffer and no cipher is kept.
    parked: FxHashMap<SessionId, Parked>,
    /// By when they end, each at least once; those that came back stay in here.
    order: VecDeque<(Time, SessionId)>,
    /// Those that a sweep has still to open at a backend.
    to_bind: Vec<SessionId>,
}

impl Parking {
    pub(super) fn len(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.parked.get(&id).map(|parked| &*parked.session)
    }

    /// All, in the order in which they end.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.order.iter().filter_map(|&(until, id)| {
            let parked = self.parked.get(&id)?;
            (parked.until == until).then_some(&*parked.session)
        })
    }

    /// The session in a place of the order in which they end, if there is one still; `None`
    /// beyond the last place.
    pub(super) fn place(&self, index: usize) -> Option<Option<&Session>> {
        let &(until, id) = self.order.get(index)?;
        let parked = self.parked.get(&id).filter(|parked| parked.until == until);
        Some(parked.map(|parked| &*parked.session))
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Time> {
        self.order.front().map(|&(until, _)| until)
    }

    /// Whether a sweep is under way.
    pub(super) fn is_binding(&self) -> bool {
        !self.to_bind.is_empty()
    }

    fn insert(&mut self, parked: Parked) {
        let id = parked.session.id;
        self.order.push_back((parked.until, id));
        self.parked.insert(id, parked);
        if self.order.len() > 2 * self.parked.len() + STALE_MAX {
            let parked = &self.parked;
            self.order
                .retain(|(until, id)| parked.get(id).is_some_and(|p| p.until == *until));
        }
    }

    /// The one that ends first, if that is by `until`.
    fn pop(&mut self, until: Time) -> Option<Parked> {
        while let Some(&(at, id)) = self.order.front()
            && at <= until
        {
            self.order.pop_front();
            if self
                .parked
                .get(&id)
                .is_some_and(|parked| parked.until == at)
            {
                return self.parked.remove(&id);
            }
        }
        None
    }
}

impl Shard {
    /// Sessions that wait for their clients.
    pub fn parked(&self) -> usize {
        self.parking.len()
    }

    /// Whether center must not think that this shard is empty.
    pub(super) fn holds_sessions(&self) -> bool {
        !self.sessions.is_empty() || self.parking.len() > 0
    }

    /// Keeps a session whose connection is gone. Backends are told to hold back
    /// what they have for it, and hear nothing else: it goes on.
    pub(super) fn park(&mut self, now: Now, mut session: Box<Session>, ticket: Ticket) {
        for binding in &mut session.bindings {
            binding.reopen();
        }
        let end = self.bind(&mut session, None, true);
        if let Some(reason) = end {
            self.tickets.remove(&ticket.id());
            self.tell_end(now, &session, reason);
            return;
        }
        self.tell_center(&session, None);
        self.parking.insert(Parked {
            session,
            ticket,
            until: now.time.after_ms(u64::from(self.config.resume_ms)),
        });
        self.count_parked();
    }

    /// Tells center what has become of a session.
    fn tell_center(&mut self, session: &Session, conn: Option<crate::engine::ConnId>) {
        let center = &mut self.uplinks[CENTER];
        if center.up {
            let session = Some(live_session(session, conn));
            center.control(to_backend::Message::Update(control::Update { session }));
        }
    }

    fn count_parked(&self) {
        let parked = self.parking.len() as u64;
        self.counters.sessions_parked.set(parked);
    }

    /// Ends the sessions to whom nobody came back.
    pub(super) fn expire_parked(&mut self, now: Now) {
        for _ in 0..SWEEP_PER_TURN {
            let Some(parked) = self.parking.pop(now.time) else {
                return;
            };
            self.end_parked(now, &parked, CloseReason::NotResumed);
        }
    }

    /// Where all places are taken, the session that would end first ends now.
    pub(super) fn make_room(&mut self, now: Now) {
        let held = self.sessions.len() + self.claims.len() + self.parking.len();
        if held >= self.config.sessions_max
            && let Some(parked) = self.parking.pop(Time(u64::MAX))
        {
            self.end_parked(now, &parked, CloseReason::NotResumed);
        }
    }

    /// Ends up to so many parked sessions; whether there are more.
    pub(super) fn close_some_parked(&mut self, now: Now, reason: CloseReason, some: usize) -> bool {
        for _ in 0..some {
            let Some(parked) = self.parking.pop(Time(u64::MAX)) else {
                return false;
            };
            self.end_parked(now, &parked, reason);
        }
        self.parking.len() > 0
    }

    /// Ends a parked session by name, unless the fence is another one's.
    pub(super) fn close_parked(
        &mut self,
        now: Now,
        id: SessionId,
        fence: Fence,
        reason: CloseReason,
    ) {
        let parked = self.parking.parked.get(&id);
        if parked.is_some_and(|parked| parked.session.fence == fence)
            && let Some(parked) = self.parking.parked.remove(&id)
        {
            self.end_parked(now, &parked, reason);
        }
    }

    fn end_parked(&mut self, now: Now, parked: &Parked, reason: CloseReason) {
        self.tickets.remove(&parked.ticket.id());
        self.counters.close(reason);
        self.tell_end(now, &parked.session, reason);
        self.count_parked();
    }

    /// After the connections, the sessions without one are opened at backends
    /// that are new, some each turn.
    pub(super) fn sweep_parked(&mut self, now: Now, begin: bool) {
        if begin {
            self.parking.to_bind = self.parking.iter().map(|session| session.id).collect();
        }
        for _ in 0..SWEEP_PER_TURN {
            let Some(id) = self.parking.to_bind.pop() else {
                return;
            };
            let Some(mut parked) = self.parking.parked.remove(&id) else {
                continue;
            };
            match self.bind(&mut parked.session, None, true) {
                Some(reason) => self.end_parked(now, &parked, reason),
                None => {
                    self.parking.parked.insert(id, parked);
                }
            }
        }
    }

    /// A first frame that names a ticket.
    pub(super) fn handle_resume(
        &mut self,
        now: Now,
        connection: &mut Connection,
        frame: &[u8],
        id: TicketId,
    ) -> Result<(), CloseReason> {
        let session = *self.tickets.get(&id).ok_or(CloseReason::TicketUnknown)?;
        let ticket = self
            .ticket_of(session)
            .filter(|ticket| ticket.id() == id)
            .cloned()
            .ok_or(CloseReason::TicketUnknown)?;
        let ephemeral = self.ephemeral();
        let parameters = self.parameters(now);
        self.lend_out(connection);
        let keys = handshake::respond_resume(
            &ticket,
            ephemeral,
            frame,
            now.time.wire_ms(),
            &parameters,
            &mut connection.out,
        )?;
        self.take_keys(now, connection, frame, keys);
        let pending = PendingResume {
            session,
            ticket: id,
        };
        connection.phase = Phase::Resuming(Box::new(pending));
        Ok(())
    }

    /// The ticket of a session that is here.
    fn ticket_of(&self, id: SessionId) -> Option<&Ticket> {
        if let Some(parked) = self.parking.parked.get(&id) {
            return Some(&parked.ticket);
        }
        let conn = self.sessions.get(&id)?;
        let connection = self.connections.get(conn.index as usize)?.as_deref()?;
        let ciphers = connection.ciphers.as_ref()?;
        (connection.id == *conn).then_some(&ciphers.ticket)
    }

    /// The first sealed frame of a resumed connection has verified: it has the
    /// session from now on, and its ticket is used up.
    pub(super) fn handle_attach(
        &mut self,
        now: Now,
        connection: &mut Connection,
    ) -> Result<(), CloseReason> {
        let Phase::Resuming(pending) = &connection.phase else {
            return Err(CloseReason::BadBody);
        };
        let PendingResume {
            session: id,
            ticket,
        } = **pending;
        if self.draining {
            return Err(CloseReason::Draining);
        }
        if !self.lease.is_held(now.time) {
            // Center may have given the account away.
            return Err(CloseReason::CenterUnavailable);
        }
        let Some(next) = connection.ciphers.as_ref().map(|c| c.ticket.id()) else {
            return Err(CloseReason::BadHandshake);
        };
        // Another connection may have come first with the same ticket.
        if self.tickets.get(&ticket) != Some(&id) {
            return Err(CloseReason::TicketUnknown);
        }
        let mut session = self
            .take_session(now, id)
            .ok_or(CloseReason::TicketUnknown)?;
        self.tickets.remove(&ticket);
        self.tickets.insert(next, id);
        for binding in &mut session.bindings {
            binding.reopen();
        }
        self.tell_center(&session, Some(connection.id));
        connection.phase = Phase::Session(session);
        self.sessions.insert(id, connection.id);
        self.counters.sessions.set(self.sessions.len() as u64);
        self.counters.resumes.add(1);
        self.tell_logged_in(now, connection, id);
        match self.bind_session(connection) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// Takes a session from where it is: from the parked ones, or from a
    /// connection that may still look alive, and which it leaves closing.
    fn take_session(&mut self, now: Now, id: SessionId) -> Option<Box<Session>> {
        if let Some(parked) = self.parking.parked.remove(&id) {
            self.count_parked();
            return Some(parked.session);
        }
        let conn = self.sessions.remove(&id)?;
        let old = Self::at(&mut self.connections, conn)?;
        let phase = std::mem::replace(&mut old.phase, Phase::Login);
        let Phase::Session(session) = phase else {
            old.phase = phase;
            return None;
        };
        self.close(now, conn, CloseReason::Superseded);
        Some(session)
    }
}
