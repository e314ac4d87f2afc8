//! Sessions that go from one shard to another: whose a ticket is, the move, and the sessions that
//! wait for their client while no shard holds them.
//!
//! It does not see a client: a shard asks for the move when one has proved that it holds the
//! ticket. Invariant: a ticket moves its session once, under a fence above all before; so of
//! two shards that believe to hold a session, backends take the one that center gave it to last.

use protocol::control::{Found, Instance, LiveSession, Move, Moved, Seek, Update, to_shard};
use protocol::ids::{Fence, SessionId, TicketId};
use protocol::limits::{GROUPS_MAX, INSTANCES_LEFT_MAX};
use protocol::reason::CloseReason;
use protocol::ticket::Ticket;
use protocol::time::{Now, Time};

use super::shards::ShardIndex;
use super::users::{Told, User};
use super::{Center, RESERVED_BLOCK};
use crate::center::ledger::Entry;
use crate::link::{LinkFault, LinkId, NAME_BYTES_MAX};

/// The ticket with this key, as it came. An empty one is none.
pub(super) fn ticket_of(key: &[u8]) -> Result<Option<Ticket>, LinkFault> {
    if key.is_empty() {
        return Ok(None);
    }
    let key = <[u8; 32]>::try_from(key).map_err(|_| LinkFault::Session)?;
    Ok(Some(Ticket::from_key(key)))
}

/// Where a session is open and where it must not be, within their bounds.
pub(super) fn told_of(
    login_unix_ms: u64,
    bindings: Vec<Instance>,
    left: Vec<Instance>,
) -> Result<Told, LinkFault> {
    let names = bindings.iter().chain(&left);
    let fits = bindings.len() <= GROUPS_MAX
        && left.len() <= INSTANCES_LEFT_MAX
        && names.into_iter().all(|at| at.name.len() <= NAME_BYTES_MAX);
    if !fits {
        return Err(LinkFault::Session);
    }
    Ok(Told {
        login_unix_ms,
        bindings,
        left,
    })
}

impl Center {
    /// A shard tells what has become of a session.
    pub(super) fn handle_update(
        &mut self,
        index: ShardIndex,
        update: Update,
    ) -> Result<(), LinkFault> {
        let session = SessionId(update.session);
        let ticket = ticket_of(&update.ticket)?;
        let told = told_of(update.login_unix_ms, update.bindings, update.left)?;
        let user = self.users.by_session_mut(session);
        // One that was moved, replaced or revoked a moment ago is told of in vain.
        let Some(user) = user.filter(|user| {
            user.shard == Some(index) && user.fence.0 == update.fence && user.granted
        }) else {
            return Ok(());
        };
        (user.slot, user.generation) = (update.slot, update.generation);
        user.parked = update.parked;
        user.told = Some(told);
        if let Some(ticket) = ticket {
            self.users.set_ticket(session, ticket);
        }
        Ok(())
    }

    /// Whose ticket is this? Nothing changes: who asks has proved nothing.
    pub(super) fn handle_seek(
        &mut self,
        link: LinkId,
        index: ShardIndex,
        seek: &Seek,
    ) -> Result<(), LinkFault> {
        self.check_rebuilt(index)?;
        self.counts.seeks += 1;
        let known = self.users.by_ticket(TicketId(seek.ticket));
        let found = known.filter(|user| user.is_movable());
        let key = found.and_then(|user| user.ticket.as_ref()).map(Ticket::key);
        let answer = Found {
            seek: seek.seek,
            session: found.map_or(0, |user| user.session.0),
            ticket: key.map_or_else(Vec::new, |key| key.to_vec()),
            // Its shard has still to tell where a new session is open; after a restart, some
            // have to tell which there are.
            later: found.is_none() && (known.is_some() || self.restart.is_some()),
        };
        self.send(link, to_shard::Message::Found(answer));
        Ok(())
    }

    /// A client has shown a shard that it holds a ticket. Whoever held the session is told, but
    /// not waited for: the new fence keeps it from backends.
    pub(super) fn handle_move(
        &mut self,
        now: Now,
        link: LinkId,
        index: ShardIndex,
        wanted: &Move,
    ) -> Result<(), LinkFault> {
        self.check_rebuilt(index)?;
        let next = ticket_of(&wanted.next)?.ok_or(LinkFault::Session)?;
        let moved = self.move_to(now, index, wanted, next);
        let later = matches!(moved, Err(Later));
        let session = moved.ok().flatten();
        let count = match (&session, later) {
            (Some(_), _) => &mut self.counts.moved,
            _ => &mut self.counts.moves_refused,
        };
        *count += 1;
        let answer = Moved {
            r#move: wanted.r#move,
            session,
            later,
        };
        self.send(link, to_shard::Message::Moved(answer));
        Ok(())
    }

    fn move_to(
        &mut self,
        now: Now,
        index: ShardIndex,
        wanted: &Move,
        next: Ticket,
    ) -> Result<Option<LiveSession>, Later> {
        // A shard whose link broke before the answer asks again; then the ticket to come is
        // the session's already. Nobody else can know it.
        let user = self
            .users
            .by_ticket(TicketId(wanted.ticket))
            .or_else(|| self.users.by_ticket(next.id()))
            .filter(|user| user.session.0 == wanted.session);
        let Some(user) = user else {
            return match self.restart {
                Some(_) => Err(Later),
                None => Ok(None),
            };
        };
        // A session that is banned and yet here is one whose shard cannot be told.
        let is_banned = self.ban_text(now, &user.account, &user.device).is_some();
        if !user.is_movable() || is_banned {
            return Err(Later);
        }
        let (session, old_fence, old_shard) = (user.session, user.fence, user.shard);
        let fence = self.fence_at_once().ok_or(Later)?;
        if let Some(old) = old_shard.filter(|old| *old != index) {
            self.shards.remove_session(old, session);
            if let Some(link) = self.shards.by_index(old).and_then(|shard| shard.link) {
                self.revoke(link, session, old_fence, CloseReason::Superseded);
            }
            self.drop_shard_if_empty(old);
        }
        self.users.set_ticket(session, next);
        self.users.adopt(session, index);
        self.shards.add_session(index, session);
        let Some(user) = self.users.by_session_mut(session) else {
            return Ok(None);
        };
        user.fence = fence;
        (user.slot, user.generation) = (wanted.slot, wanted.generation);
        Ok(Some(live_session(user)))
    }

    fn check_rebuilt(&self, index: ShardIndex) -> Result<(), LinkFault> {
        match self.shards.by_index(index) {
            Some(shard) if shard.is_rebuilt() => Ok(()),
            _ => Err(LinkFault::ClaimEarly),
        }
    }

    /// A fence that needs no word to the disk: its block was reserved there before.
    fn fence_at_once(&mut self) -> Option<Fence> {
        let is_durable = self.fence_next < self.fences_durable_below;
        let fence = is_durable.then_some(Fence(self.fence_next));
        self.fence_next += u64::from(is_durable);
        self.reserve_ahead();
        fence
    }

    /// Reserves the next block while half of this one is left, so that moves find fences that
    /// are on disk.
    pub(super) fn reserve_ahead(&mut self) {
        let is_low = |next: u64, reserved: u64| next + RESERVED_BLOCK / 2 > reserved;
        if is_low(self.session_next, self.reserved.0) || is_low(self.fence_next, self.reserved.1) {
            self.reserved = (
                self.session_next + RESERVED_BLOCK,
                self.fence_next + RESERVED_BLOCK,
            );
            self.journal(&Entry::Reserved {
                sessions_below: self.reserved.0,
                fences_below: self.reserved.1,
            });
        }
    }

    /// A shard holds this session no more, and has not ended it: it waits for its client as
    /// long as it would have there, or ends if nobody else could go on with it.
    pub(super) fn keep_or_end(&mut self, now: Now, session: SessionId, resume_ms: u32) {
        let may_play = |user: &User| self.ban_text(now, &user.account, &user.device).is_none();
        let user = self.users.by_session(session);
        if resume_ms > 0 && user.is_some_and(|user| user.is_movable() && may_play(user)) {
            self.counts.orphaned += 1;
            let until = now.time.after_ms(u64::from(resume_ms));
            self.users.orphan(session, until);
        } else {
            if let Some(user) = self.users.remove(session) {
                self.returning.insert(now.time, &user.account);
            }
            self.counts.sessions_lost += 1;
        }
    }

    /// Ends the sessions to whom nobody came back.
    pub(super) fn end_orphans(&mut self, now: Now) {
        while let Some(user) = self.users.end_orphan(now.time) {
            self.returning.insert(now.time, &user.account);
            self.counts.orphans_ended += 1;
        }
    }

    /// Whether there is room for one more session. Those that nobody holds give way.
    pub(super) fn has_room(&mut self) -> bool {
        if !self.users.is_full() {
            return true;
        }
        let ended = self.users.end_orphan(Time(u64::MAX)).is_some();
        self.counts.orphans_ended += u64::from(ended);
        ended
    }
}

/// Center cannot say now; the client is to come again.
struct Later;

fn live_session(user: &User) -> LiveSession {
    let (login_unix_ms, bindings, left) = match &user.told {
        Some(told) => (told.login_unix_ms, told.bindings.clone(), told.left.clone()),
        None => Default::default(),
    };
    LiveSession {
        session: user.session.0,
        fence: user.fence.0,
        account: user.account.to_string(),
        slot: user.slot,
        generation: user.generation,
        parked: false,
        // The shard has it from its client.
        ticket: Vec::new(),
        channel: user.channel.to_string(),
        device: user.device.to_string(),
        client_version: user.client_version,
        login_unix_ms,
        bindings,
        left,
    }
}
