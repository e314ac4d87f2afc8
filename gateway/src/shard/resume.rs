//! Sessions whose client is lost, and clients that come back to theirs: parking,
//! RESUME, ATTACH, and the end of those to whom nobody came back.
//!
//! Sessions that are on another shard are `moves`'. Invariant: until the first sealed
//! frame of a resumed connection has verified, nothing about the session
//! changes; a ticket opens one connection.

use std::collections::VecDeque;

use protocol::handshake;
use protocol::ids::{Fence, SessionId, TicketId};
use protocol::reason::CloseReason;
use protocol::ticket::Ticket;
use protocol::time::{Now, Time};
use rustc_hash::FxHashMap;

use super::connection::{Asker, Connection, PendingResume, Phase, Session};
use super::story::Event;
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
    /// About 350 bytes each: no buffer and no cipher is kept, and nothing in it grows with
    /// time. Messages for them wait at backends, in outboxes with a bound in bytes.
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
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Session, &Ticket)> {
        self.order.iter().filter_map(|&(until, id)| {
            let parked = self.parked.get(&id)?;
            (parked.until == until).then_some((&*parked.session, &parked.ticket))
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
            self.forget_ticket(ticket.id());
            self.tell_end(now, &session, reason);
            return;
        }
        self.tell_of(&mut session, &ticket, None);
        self.config.tickets.insert(session.id, &ticket);
        self.parking.insert(Parked {
            session,
            ticket,
            until: now.time.after_ms(u64::from(self.config.resume_ms)),
        });
        self.count_parked();
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

    /// Looks for a place for one more session. Where all are taken, the parked session that
    /// would end first ends now.
    pub(super) fn make_room(&mut self, now: Now) -> Result<(), CloseReason> {
        let held = self.sessions.len() + self.claims.len() + self.moves.len();
        if held >= self.config.sessions_max {
            return Err(CloseReason::Full);
        }
        if held + self.parking.len() >= self.config.sessions_max
            && let Some(parked) = self.parking.pop(Time(u64::MAX))
        {
            self.end_parked(now, &parked, CloseReason::NotResumed);
        }
        Ok(())
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
        self.forget_ticket(parked.ticket.id());
        self.counters.close(reason);
        self.tell_end(now, &parked.session, reason);
        self.count_parked();
    }

    /// After the connections, the sessions without one are opened at backends
    /// that are new, some each turn.
    pub(super) fn sweep_parked(&mut self, now: Now, begin: bool) {
        if begin {
            self.parking.to_bind = self.parking.iter().map(|(it, _)| it.id).collect();
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
                    if parked.session.untold {
                        self.tell_of(&mut parked.session, &parked.ticket, None);
                    }
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
        match self.known_ticket(id) {
            Some((session, ticket)) => self.answer_resume(now, connection, frame, session, &ticket),
            None => {
                let asker = Asker::Connection(connection.id);
                let seek = self.seek(now, asker, frame, id)?;
                connection.phase = Phase::Seeking(seek);
                Ok(())
            }
        }
    }

    /// Answers a RESUME whose ticket is known.
    pub(super) fn answer_resume(
        &mut self,
        now: Now,
        connection: &mut Connection,
        frame: &[u8],
        session: SessionId,
        ticket: &Ticket,
    ) -> Result<(), CloseReason> {
        let ephemeral = self.ephemeral();
        let parameters = self.parameters(now);
        self.lend_out(connection);
        let keys = handshake::respond_resume(
            ticket,
            ephemeral,
            frame,
            now.time.wire_ms(),
            &parameters,
            &mut connection.out,
        )?;
        self.take_keys(now, connection, frame, keys);
        let pending = PendingResume {
            session,
            ticket: ticket.id(),
        };
        connection.phase = Phase::Resuming(Box::new(pending));
        Ok(())
    }

    /// Nobody comes back to a session of this shard with it any more.
    pub(super) fn forget_ticket(&mut self, id: TicketId) {
        if self.tickets.remove(&id).is_some() {
            self.config.tickets.remove(id);
        }
    }

    /// The session and the ticket with this id, if they are here, or wait in another shard of this
    /// gateway.
    pub(super) fn known_ticket(&self, id: TicketId) -> Option<(SessionId, Ticket)> {
        self.ticket_here(id)
            .or_else(|| self.config.tickets.find(id))
    }

    /// The same, if they are here.
    fn ticket_here(&self, id: TicketId) -> Option<(SessionId, Ticket)> {
        let session = *self.tickets.get(&id)?;
        let ticket = match self.parking.parked.get(&session) {
            Some(parked) => &parked.ticket,
            None => {
                let conn = self.sessions.get(&session)?;
                let connection = self.connections.get(conn.index as usize)?.as_deref()?;
                (connection.id == *conn).then_some(connection.ticket.as_ref()?)?
            }
        };
        (ticket.id() == id).then(|| (session, ticket.clone()))
    }

    /// The first sealed frame of a resumed connection has verified: it has the
    /// session from now on, and its ticket is used up. A session that is not here is
    /// asked of center.
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
        if self.tickets.get(&ticket) != Some(&id) {
            // It was never here, is not any more, or another connection came first with
            // the same ticket: center knows.
            return self.ask_to_move(now, connection, id, ticket);
        }
        let mut session = self
            .take_session(now, id)
            .ok_or(CloseReason::TicketUnknown)?;
        session.untold = true;
        self.forget_ticket(ticket);
        self.attach(now, connection, session)
    }

    /// Gives a session that comes back to the connection that brought it.
    pub(super) fn attach(
        &mut self,
        now: Now,
        connection: &mut Connection,
        mut session: Box<Session>,
    ) -> Result<(), CloseReason> {
        for binding in &mut session.bindings {
            binding.reopen();
        }
        session.story.note(now.time, Event::Resumed, 0);
        connection.phase = Phase::Session(session);
        self.counters.resumes.add(1);
        self.open_session(now, connection)?;
        self.cork(now, connection);
        Ok(())
    }

    /// A session that is here, its client too or not.
    pub(super) fn session_here(&self, id: SessionId) -> Option<&Session> {
        match self.sessions.get(&id) {
            Some(conn) => {
                let connection = self.connections.get(conn.index as usize)?.as_deref()?;
                connection.session().filter(|_| connection.id == *conn)
            }
            None => self.parking.session(id),
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
        let Phase::Session(mut session) = phase else {
            old.phase = phase;
            return None;
        };
        let owed = (
            old.frames.full_at(self.config.frames),
            old.bytes.full_at(self.config.bytes),
        );
        self.config.usage.keep(now.time, &session.account, owed);
        self.leave_channels(conn, &mut session);
        self.close(now, conn, CloseReason::Superseded);
        Some(session)
    }
}
