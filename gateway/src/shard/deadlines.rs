//! What happens when a connection's deadline has come.
//!
//! Each connection has one entry in the wheel, for the deadline of the phase that it is in.
//! Invariant: a connection whose deadline has not come yet is in the wheel again.

use protocol::reason::CloseReason;
use protocol::time::Now;

use super::connection::Phase;
use super::{Shard, ShardConfig};
use crate::engine::ConnId;

impl Shard {
    pub(super) fn handle_deadline(&mut self, now: Now, id: ConnId) {
        let ShardConfig {
            handshake_timeout_ms,
            login_timeout_ms,
            write_timeout_ms,
            ..
        } = self.config;
        let Some(connection) = self.connection(id) else {
            return;
        };
        let idle_timeout_ms = connection.idle_timeout_ms;
        let (deadline, reason) = match connection.phase {
            _ if connection.is_unheard() => (
                connection.since.after_ms(u64::from(handshake_timeout_ms)),
                CloseReason::HandshakeTimeout,
            ),
            Phase::Hello | Phase::Seeking(_) => (
                connection.since.after_ms(u64::from(handshake_timeout_ms)),
                CloseReason::CenterUnavailable,
            ),
            Phase::Held(_) => (
                connection.since.after_ms(u64::from(handshake_timeout_ms)),
                CloseReason::NetworkLimit,
            ),
            Phase::Claiming(ref pending) if pending.held => (
                connection.since.after_ms(u64::from(login_timeout_ms)),
                CloseReason::AccountLimit,
            ),
            Phase::Login | Phase::Resuming(_) => (
                connection.since.after_ms(u64::from(login_timeout_ms)),
                CloseReason::LoginTimeout,
            ),
            // Past login, but for the session: as patient as with one.
            Phase::Claiming(ref pending) if pending.place.is_some() => (
                connection.heard_at.after_ms(u64::from(idle_timeout_ms)),
                CloseReason::IdleTimeout,
            ),
            Phase::Claiming(_) | Phase::Moving(_) => (
                connection.since.after_ms(u64::from(login_timeout_ms)),
                CloseReason::CenterUnavailable,
            ),
            Phase::Session(_) => {
                if connection.uplink_paused {
                    // We do not listen, because a backend does not keep up: its
                    // silence says nothing about the client.
                    connection.heard_at = now.time;
                }
                let write = connection.write_deadline(write_timeout_ms);
                if write.is_some_and(|write| write <= now.time) {
                    self.close(now, id, CloseReason::SlowConsumer);
                    return;
                }
                let idle = connection.heard_at.after_ms(u64::from(idle_timeout_ms));
                let half = connection.heard_at.after_ms(u64::from(idle_timeout_ms / 2));
                if now.time < half {
                    self.wheel
                        .insert(id, write.map_or(half, |write| write.min(half)));
                    return;
                }
                if now.time < idle && !connection.pinged {
                    connection.pinged = true;
                    self.ping(now, id);
                }
                (idle, CloseReason::IdleTimeout)
            }
            Phase::Closing => {
                let closed = connection.since.after_ms(connection.closing_ms());
                if now.time >= closed {
                    self.close_transport(now, id);
                    return;
                }
                (closed, CloseReason::PeerClosed)
            }
        };
        if now.time >= deadline {
            self.close(now, id, reason);
        } else {
            self.wheel.insert(id, deadline);
        }
    }
}
