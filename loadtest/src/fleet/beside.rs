//! A path of datagrams beside the stream of each client (`--side-path`, PROTOCOL §12): its sockets.
//!
//! What goes by it is decided by the client's own core. A path that does not come about, or ends,
//! is no error: then everything goes by the stream.
//!
//! Invariant: a client has at most one such socket, and none without a session.

use gateway::engine::{Carries, ConnId};
use protocol::time::Time;

use super::connect::source;
use super::{Command, Connect, Fleet, Stage};

/// The socket of one client.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) conn: Option<ConnId>,
    is_connected: bool,
    /// A buffer is with the engine.
    is_sending: bool,
}

impl Fleet {
    /// The next socket that a client in a session lacks.
    pub(super) fn poll_connect_beside(&mut self) -> Option<Connect> {
        while let Some(index) = self.without_side.pop_front() {
            let slot = &self.slots[index as usize];
            if slot.stage == Stage::In && slot.side.conn.is_none() {
                return Some(Connect {
                    index,
                    carries: Carries::Datagrams,
                    from: source(&self.plan, index),
                    to: self.plan.target,
                    is_beside: true,
                });
            }
        }
        None
    }

    pub(super) fn is_beside(&self, index: u32, conn: ConnId) -> bool {
        self.slots[index as usize].side.conn == Some(conn)
    }

    pub(super) fn handle_connected_beside(&mut self, index: u32) {
        self.slots[index as usize].side.is_connected = true;
        self.mark(index);
    }

    pub(super) fn handle_received_beside(&mut self, index: u32, data: &mut [u8], now: Time) {
        self.with_client(index, now, |client, shared, judge| {
            client.handle_side_received(now, data, shared, &mut |event| judge.handle(event));
        });
        self.mark(index);
    }

    pub(super) fn handle_sent_beside(&mut self, index: u32) {
        self.slots[index as usize].side.is_sending = false;
        self.mark(index);
    }

    /// The next datagram of a client for its path.
    pub(super) fn take_beside(&mut self, index: u32, now: Time) -> Option<Command> {
        let slot = &mut self.slots[index as usize];
        let (side, client) = (&mut slot.side, slot.client.as_mut()?);
        let mut buf = self.shared.buffers.take();
        if side.conn.is_none() {
            // Without a socket they are lost; kept, they would be due for ever.
            while client.poll_side_transmit(now, &mut buf) {
                buf.clear();
            }
        } else if side.is_connected && !side.is_sending {
            client.poll_side_transmit(now, &mut buf);
        }
        let conn = side.conn.filter(|_| !buf.is_empty());
        let Some(conn) = conn else {
            self.shared.buffers.give(buf);
            return None;
        };
        side.is_sending = true;
        Some(Command::Send(conn, buf))
    }
}
