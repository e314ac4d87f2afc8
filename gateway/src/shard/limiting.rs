//! The shard's end of `crate::limits`: when a connection, a handshake or a login is charged,
//! what becomes of one that is above a limit, and what an account owes from one connection
//! to the next.
//!
//! Invariant: a connection counts as open in one network, from when the address of its client
//! is known until it is gone; a frame costs nothing in here.

use std::cmp::Reverse;
use std::net::SocketAddr;

use protocol::reason::{CloseReason, DropReason};
use protocol::time::{Now, Time};

use super::connection::{Connection, Held, Phase};
use super::session::claim_message;
use super::uplinks::CENTER;
use super::{Action, Shard};
use crate::engine::ConnId;
use crate::limits::{Judged, Network, Penalty, Verdict};

impl Shard {
    /// A client was accepted. Where a balancer or a proxy will say whose connection it is,
    /// or may say so, nobody is charged yet.
    pub(super) fn enter_accepted(
        &mut self,
        now: Now,
        connection: &mut Connection,
    ) -> Result<(), CloseReason> {
        let front = &self.config.front;
        let told_later =
            |peer: &SocketAddr| front.proxy_required || front.trusted.includes(peer.ip());
        match connection.peer.filter(|peer| !told_later(peer)) {
            Some(peer) => self.enter(now, connection, peer),
            None => Ok(()),
        }
    }

    /// Who stands before a client has told its address, or that it is its own.
    pub(super) fn enter_told(
        &mut self,
        now: Now,
        connection: &mut Connection,
        told: Option<SocketAddr>,
    ) -> Result<(), CloseReason> {
        let Some(address) = told else {
            return Ok(());
        };
        connection.peer = Some(address);
        self.check_network(now, connection.peer)?;
        self.enter(now, connection, address)
    }

    fn enter(
        &mut self,
        now: Now,
        connection: &mut Connection,
        address: SocketAddr,
    ) -> Result<(), CloseReason> {
        let Some(network) = self.limited_network(address) else {
            return Ok(());
        };
        let limits = &self.config.limits;
        let usage = &self.config.usage;
        let judged = usage.open(now.time, network, limits, limits.connections_penalty);
        match self.count_judged(judged) {
            Verdict::Pass => {}
            Verdict::Wait(_, us) => self.pause(now, connection, us),
            Verdict::Refuse(_, penalty) => {
                connection.is_mute = penalty == Penalty::Drop;
                return Err(CloseReason::NetworkLimit);
            }
        }
        connection.network = Some(network);
        Ok(())
    }

    /// A connection is gone.
    pub(super) fn leave_network(&self, connection: &mut Connection) {
        if let Some(network) = connection.network.take() {
            self.config.usage.close(network);
        }
    }

    /// Charges a first frame. Whether it has to wait for its turn, and is kept until then:
    /// it is what costs, so the handshake is not done before.
    pub(super) fn hold_hello(
        &mut self,
        now: Now,
        connection: &mut Connection,
        frame: &[u8],
    ) -> Result<bool, CloseReason> {
        let mut until = now.time;
        if let Some(network) = connection.network {
            let limits = &self.config.limits;
            let penalty = limits.handshakes_penalty;
            let usage = &self.config.usage;
            let judged = usage.handshake(now.time, network, limits, penalty);
            match self.count_judged(judged) {
                Verdict::Pass => {}
                Verdict::Wait(_, us) => {
                    until = now.time + us;
                    self.pause(now, connection, us);
                }
                Verdict::Refuse(_, penalty) => {
                    connection.is_mute = penalty == Penalty::Drop;
                    return Err(CloseReason::NetworkLimit);
                }
            }
        }
        // Paused it may be from its accept on, and what it had sent comes nevertheless.
        if !connection.rate_paused {
            return Ok(false);
        }
        let frame = frame.into();
        connection.phase = Phase::Held(Box::new(Held { until, frame }));
        Ok(true)
    }

    /// Charges a login to its account. Whether it has to wait for its turn.
    pub(super) fn hold_login(
        &mut self,
        now: Now,
        connection: &mut Connection,
        account: &str,
    ) -> Result<bool, CloseReason> {
        let limits = &self.config.limits;
        let judged = self.config.usage.login(now.time, account, limits);
        match self.count_judged(judged) {
            Verdict::Pass => Ok(false),
            Verdict::Wait(_, us) => {
                self.pause(now, connection, us);
                Ok(true)
            }
            Verdict::Refuse(_, penalty) => {
                connection.is_mute = penalty == Penalty::Drop;
                Err(CloseReason::AccountLimit)
            }
        }
    }

    /// A pause has ended: what waited for it goes on.
    pub(super) fn release_held(&mut self, now: Now, id: ConnId) {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        match &mut connection.phase {
            Phase::Held(held) if held.until <= now.time => {}
            Phase::Claiming(pending) if pending.held => {
                pending.held = false;
                if self.uplinks[CENTER].up {
                    let message = claim_message(id, connection.ticket.as_ref(), pending);
                    self.uplinks[CENTER].control(message);
                }
                return;
            }
            _ => return,
        }
        let Some(mut connection) = self.take(id) else {
            return;
        };
        let mut outcome = Ok(());
        if let Phase::Held(mut held) = std::mem::replace(&mut connection.phase, Phase::Hello) {
            outcome = self.answer_hello(now, &mut connection, &mut held.frame);
        }
        self.connections[id.index as usize] = Some(connection);
        match outcome {
            Ok(()) => self.list_for_send(id),
            Err(reason) => self.close(now, id, reason),
        }
    }

    /// Nothing is read of a connection for so long.
    pub(super) fn pause(&mut self, now: Now, connection: &mut Connection, us: u64) {
        connection.rate_paused = true;
        self.rate_pauses
            .push(Reverse((now.time + us, connection.id)));
        self.actions.push_back(Action::Pause(connection.id));
    }

    /// Charges an INIT with a good cookie. One that would have to wait is lost as well: its
    /// client asks again by itself, and nothing is kept of it here.
    pub(super) fn charge_init(&mut self, now: Now, from: SocketAddr) -> Result<(), Refused> {
        let Some(network) = self.limited_network(from) else {
            return Ok(());
        };
        let limits = &self.config.limits;
        let penalty = limits.handshakes_penalty.without_waiting();
        let usage = &self.config.usage;
        self.init_passes(usage.handshake(now.time, network, limits, penalty))
    }

    /// The connection that it opens, which counts from now on.
    pub(super) fn enter_init(
        &mut self,
        now: Now,
        from: SocketAddr,
    ) -> Result<Option<Network>, Refused> {
        let Some(network) = self.limited_network(from) else {
            return Ok(None);
        };
        let limits = &self.config.limits;
        let penalty = limits.connections_penalty.without_waiting();
        let judged = self.config.usage.open(now.time, network, limits, penalty);
        self.init_passes(judged).map(|()| Some(network))
    }

    fn init_passes(&mut self, judged: Judged) -> Result<(), Refused> {
        match self.count_judged(judged) {
            Verdict::Pass => Ok(()),
            Verdict::Refuse(_, Penalty::Disconnect) => {
                Err(Refused::Told(CloseReason::NetworkLimit))
            }
            Verdict::Wait(..) | Verdict::Refuse(..) => {
                self.counters.drop_frame(DropReason::NetworkInit);
                Err(Refused::Mute)
            }
        }
    }

    /// A connection has a session: its account has left what it had not used up before.
    pub(super) fn owe_kept(&self, now: Time, connection: &mut Connection) {
        let account = connection.session().map(|session| &*session.account);
        let kept = account.and_then(|account| self.config.usage.kept(account));
        if let Some((frames, bytes)) = kept {
            let config = &self.config;
            connection.frames.owe_until(config.frames, frames, now);
            connection.bytes.owe_until(config.bytes, bytes, now);
        }
    }

    /// The connection of a session of this account ends.
    pub(super) fn keep_owed(&self, now: Time, connection: &Connection, account: &str) {
        let owed = (
            connection.frames.full_at(self.config.frames),
            connection.bytes.full_at(self.config.bytes),
        );
        self.config.usage.keep(now, account, owed);
    }

    fn limited_network(&self, address: SocketAddr) -> Option<Network> {
        let exempt = self.config.limits.exempt.includes(address.ip());
        (!exempt).then(|| Network::of(address.ip()))
    }

    fn count_judged(&self, judged: Judged) -> Verdict {
        self.counters.limits_forgotten.add(u64::from(judged.forgot));
        if let Verdict::Wait(limit, _) | Verdict::Refuse(limit, _) = judged.verdict {
            self.counters.limited(limit);
        }
        judged.verdict
    }
}

/// How an INIT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// With a reason.
    Told(CloseReason),
    /// Without a word.
    Mute,
}

impl From<CloseReason> for Refused {
    fn from(reason: CloseReason) -> Self {
        Self::Told(reason)
    }
}

#[cfg(test)]
mod tests;
