//! The connections that a fleet asks its driver for, and where they come from.
//!
//! Owns how many are on their way at once; not when a client tries again, nor what it does with
//! its connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gateway::engine::{Carries, ConnId};
use protocol::time::Time;

use super::{Fleet, IN_FLIGHT_FIRST, IN_FLIGHT_MAX, NOBODY, Stage};
use crate::args::Transport;
use crate::messages::WorkerPlan;
use crate::tally::connect_reason;

/// Clients of a loopback target that share one source address. The ephemeral
/// range has 28,232 ports by default, and Linux looks for a free one first among
/// those of one parity: beyond 14,116 each connect searches all of these in vain
/// (measured: from 1,300 connects a second down to 200). The rest is room for
/// ports that an earlier run still holds.
const CLIENTS_PER_SOURCE: u32 = 8_000;

/// A connection that the driver has to begin.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// Whose it is.
    pub index: u32,
    /// What it carries.
    pub carries: Carries,
    /// The source address to take.
    pub from: Option<IpAddr>,
    /// Where it leads.
    pub to: SocketAddr,
    /// Whether it is the path of datagrams beside the client's stream.
    pub(super) is_beside: bool,
}

impl Fleet {
    /// The next connection to begin.
    pub fn poll_connect(&mut self, now: Time) -> Option<Connect> {
        if let Some(beside) = self.poll_connect_beside() {
            return Some(beside);
        }
        let limit = if self.tally.ever_in == 0 {
            IN_FLIGHT_FIRST
        } else {
            IN_FLIGHT_MAX
        };
        if self.in_flight >= limit {
            return None;
        }
        let index = self.queue.pop_front()?;
        self.first_attempt.get_or_insert(now);
        self.slots[index as usize].stage = Stage::Connecting(now);
        self.in_flight += 1;
        Some(Connect {
            index,
            carries: match self.plan.transport {
                Transport::Tcp | Transport::Ws => Carries::Stream,
                Transport::Udp => Carries::Datagrams,
            },
            from: source(&self.plan, index),
            to: self.plan.target,
            is_beside: false,
        })
    }

    /// The engine has begun it.
    pub fn handle_connecting(&mut self, connect: &Connect, conn: ConnId) {
        let at = conn.index as usize;
        if self.by_conn.len() <= at {
            self.by_conn.resize(at + 1, NOBODY);
        }
        self.by_conn[at] = connect.index;
        let slot = &mut self.slots[connect.index as usize];
        if connect.is_beside {
            slot.side.conn = Some(conn);
        } else {
            slot.conn = Some(conn);
        }
    }

    /// The engine could not.
    pub fn handle_connect_error(&mut self, connect: &Connect, error: &io::Error, now: Time) {
        if !connect.is_beside {
            self.end(connect.index, connect_reason(error), now);
        }
    }
}

/// The source address of a client: loopback targets with many clients need
/// several, since an address has only so many ports.
pub(super) fn source(plan: &WorkerPlan, index: u32) -> Option<IpAddr> {
    let is_v4_loopback = matches!(plan.target.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if !is_v4_loopback || plan.clients <= CLIENTS_PER_SOURCE {
        return None;
    }
    let host = 1 + (plan.first + index) / CLIENTS_PER_SOURCE;
    Some(IpAddr::V4(Ipv4Addr::from(0x7f00_0000 + host)))
}
