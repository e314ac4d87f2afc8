//! Sessions that come from another shard: asking center whose a ticket is, and for the move
//! once the client has proved that it holds it.
//!
//! It does not know where a session was before, and nobody there is asked. Invariant: what an
//! unproved RESUME can make this shard keep is one of `SEEKS_MAX` entries until its answer or
//! the deadline of the handshake; a move that was asked for ends with a session here, or
//! without one, whatever becomes of its connection.

use protocol::control::{self, Found, LiveSession, Moved, to_backend};
use protocol::ids::{Fence, SessionId, TicketId};
use protocol::reason::CloseReason;
use protocol::ticket::Ticket;
use protocol::time::{Now, Time};

use super::Shard;
use super::connection::{
    Asker, Binding, Connection, Instance, PendingMove, PendingSeek, Phase, Session, Told,
};
use super::story::{Event, Story};
use super::uplinks::CENTER;
use crate::engine::ConnId;

/// Tickets asked for at once: what a shard whose clients all come from a lost gateway asks in
/// some milliseconds. Each takes about 200 bytes.
const SEEKS_MAX: usize = 4_096;

impl Shard {
    /// Asks center whose ticket it is that a RESUME names; the number of the question.
    pub(super) fn seek(
        &mut self,
        now: Now,
        asker: Asker,
        frame: &[u8],
        ticket: TicketId,
    ) -> Result<u64, CloseReason> {
        if !self.uplinks[CENTER].up {
            return Err(CloseReason::CenterUnavailable);
        }
        if self.seeks.len() >= SEEKS_MAX {
            return Err(CloseReason::Full);
        }
        let seek = self.next_claim;
        self.next_claim += 1;
        let pending = PendingSeek {
            asker,
            ticket,
            resume: frame.into(),
            since: now.time,
        };
        self.seeks.insert(seek, pending);
        let ticket = ticket.0;
        self.uplinks[CENTER].control(to_backend::Message::Seek(control::Seek { seek, ticket }));
        Ok(seek)
    }

    /// Center has looked.
    pub(super) fn handle_found(&mut self, now: Now, found: &Found) {
        let Some(pending) = self.seeks.remove(&found.seek) else {
            return;
        };
        let key = <[u8; 32]>::try_from(&found.ticket[..]).ok();
        let ticket = key.map(Ticket::from_key);
        let found = match ticket.filter(|ticket| ticket.id() == pending.ticket) {
            Some(ticket) if found.session != 0 => Ok((SessionId(found.session), ticket)),
            _ if found.later => Err(CloseReason::CenterUnavailable),
            _ => Err(CloseReason::TicketUnknown),
        };
        let id = match pending.asker {
            Asker::Connection(id) => id,
            Asker::Init(from, nonce) => {
                return self.answer_init(now, from, nonce, &pending.resume, found);
            }
        };
        let Some(mut connection) = self.take(id) else {
            return;
        };
        connection.phase = Phase::Hello;
        let outcome = found.and_then(|(session, ticket)| {
            self.answer_resume(now, &mut connection, &pending.resume, session, &ticket)
        });
        self.connections[id.index as usize] = Some(connection);
        match outcome {
            Ok(()) => self.list_for_send(id),
            Err(reason) => self.close(now, id, reason),
        }
    }

    /// Ends the questions that center has not answered in time, or will not.
    pub(super) fn expire_seeks(&mut self, now: Now) {
        while let Some(at) = self.next_seek()
            && (at <= now.time || !self.uplinks[CENTER].up)
            && let Some((_, pending)) = self.seeks.pop_first()
        {
            let reason = CloseReason::CenterUnavailable;
            match pending.asker {
                Asker::Connection(id) => self.close(now, id, reason),
                Asker::Init(from, nonce) => {
                    self.answer_init(now, from, nonce, &pending.resume, Err(reason));
                }
            }
        }
    }

    /// When the oldest question is given up.
    pub(super) fn next_seek(&self) -> Option<Time> {
        let (_, oldest) = self.seeks.first_key_value()?;
        let timeout_ms = u64::from(self.config.handshake_timeout_ms);
        Some(oldest.since.after_ms(timeout_ms))
    }

    /// A client has proved that it holds a ticket whose session is not here.
    pub(super) fn ask_to_move(
        &mut self,
        now: Now,
        connection: &mut Connection,
        session: SessionId,
        ticket: TicketId,
    ) -> Result<(), CloseReason> {
        let next = connection.ticket.clone();
        let next = next.ok_or(CloseReason::BadHandshake)?;
        if !self.uplinks[CENTER].up {
            return Err(CloseReason::CenterUnavailable);
        }
        self.make_room(now)?;
        let number = self.next_claim;
        self.next_claim += 1;
        let pending = PendingMove {
            conn: connection.id,
            session,
            ticket,
            next,
        };
        self.uplinks[CENTER].control(move_message(number, &pending));
        self.moves.insert(number, pending);
        connection.phase = Phase::Moving(number);
        Ok(())
    }

    /// Center is there again: what it has not answered is asked anew. It knows the ticket
    /// to come, should it have moved the session already.
    pub(super) fn repeat_moves(&mut self) {
        for (number, pending) in &self.moves {
            self.uplinks[CENTER].control(move_message(*number, pending));
        }
    }

    /// Center has moved a session here, or has not.
    pub(super) fn handle_moved(&mut self, now: Now, moved: Moved) {
        let pending = self.moves.remove(&moved.r#move);
        let connection = pending.as_ref().and_then(|pending| {
            let connection = Self::at(&mut self.connections, pending.conn)?;
            let waits = matches!(connection.phase, Phase::Moving(it) if it == moved.r#move);
            waits.then_some(connection.id)
        });
        let Some(live) = moved.session else {
            let reason = match moved.later {
                true => CloseReason::CenterUnavailable,
                false => CloseReason::TicketUnknown,
            };
            if let Some(id) = connection {
                self.close(now, id, reason);
            }
            return;
        };
        let (id, fence) = (SessionId(live.session), Fence(live.fence));
        let may_hold = self.lease.is_held(now.time) && !self.draining;
        let session = self.session_of(live);
        let (Some(pending), Some(mut session), true) = (pending, session, may_hold) else {
            self.release(id, fence, true);
            if let Some(conn) = connection {
                self.close(now, conn, CloseReason::CenterUnavailable);
            }
            return;
        };
        // Center says where it is now. A copy of it that is here still is an older one.
        if let Some(fence) = self.session_here(id).map(|session| session.fence) {
            self.close_session(now, id, fence, CloseReason::Superseded, "");
        }
        self.counters.moves.add(1);
        session.story.note(now.time, Event::Moved, 0);
        self.arrive(now, pending, Box::new(session), connection);
    }

    fn arrive(
        &mut self,
        now: Now,
        pending: PendingMove,
        session: Box<Session>,
        connection: Option<ConnId>,
    ) {
        let Some(mut connection) = connection.and_then(|id| self.take(id)) else {
            // Its client was lost again meanwhile.
            if self.config.resume_ms == 0 {
                return self.tell_end(now, &session, CloseReason::NotResumed);
            }
            self.tickets.insert(pending.next.id(), session.id);
            return self.park(now, session, pending.next);
        };
        let id = connection.id;
        let outcome = self.attach(now, &mut connection, session);
        self.connections[id.index as usize] = Some(connection);
        match outcome {
            Ok(()) => self.list_for_send(id),
            Err(reason) => self.close(now, id, reason),
        }
    }

    /// A session as center tells of it.
    fn session_of(&self, live: LiveSession) -> Option<Session> {
        let instances = |told: Vec<control::Instance>| {
            let instances = told.into_iter().map(Instance::try_from);
            instances.collect::<Result<Vec<_>, _>>().ok()
        };
        Some(Session {
            id: SessionId(live.session),
            fence: Fence(live.fence),
            account: live.account.into(),
            channel: live.channel.into(),
            device: live.device.into(),
            client_version: live.client_version,
            login_unix_ms: live.login_unix_ms,
            bindings: vec![Binding::default(); self.config.groups.len()].into(),
            elsewhere: instances(live.bindings)?,
            left: instances(live.left)?,
            untold: false,
            told: Told::default(),
            memberships: None,
            story: Story::default(),
        })
    }
}

fn move_message(number: u64, pending: &PendingMove) -> to_backend::Message {
    to_backend::Message::Move(control::Move {
        r#move: number,
        session: pending.session.0,
        ticket: pending.ticket.0,
        next: pending.next.key().to_vec(),
        slot: pending.conn.index,
        generation: pending.conn.generation,
    })
}
