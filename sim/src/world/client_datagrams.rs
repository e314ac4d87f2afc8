//! A client's end of its datagrams.
//!
//! Invariant: an application hears nothing of a datagram that was changed on its way, or that has
//! come before.

use std::mem;
use std::net::SocketAddr;

use protocol::datagram::SETUP;
use protocol::limits::DATAGRAM_BYTES_MAX;

use super::World;
use super::client_wire::collect;
use crate::flow::WAITING_MAX;
use crate::rule::{Rule, Step, check};

impl World {
    /// A datagram comes out of the network at an address of a client.
    pub(super) fn datagram_down(
        &mut self,
        to: SocketAddr,
        bytes: Vec<u8>,
        is_changed: bool,
    ) -> Step {
        let Some((number, flow)) = self.datagrams.flow_at(to) else {
            return Ok(());
        };
        // Where a client was, nobody is.
        if flow.address != to || flow.closed_at.is_some() || flow.is_cut {
            return Ok(());
        }
        let client = flow.client;
        if self.clients[client].is_reading {
            return self.client_takes(client, number, bytes, is_changed);
        }
        if flow.waiting.len() < WAITING_MAX {
            flow.waiting.push_back((bytes, is_changed));
        }
        Ok(())
    }

    /// A client reads what has waited for it.
    pub(super) fn client_reads_datagrams(&mut self, client: usize) -> Step {
        while let Some(number) = self.clients[client].flow
            && let Some(flow) = self.datagrams.flows.get_mut(&number)
            && let Some((bytes, is_changed)) = flow.waiting.pop_front()
        {
            self.client_takes(client, number, bytes, is_changed)?;
        }
        Ok(())
    }

    fn client_takes(
        &mut self,
        client: usize,
        number: u64,
        mut bytes: Vec<u8>,
        is_changed: bool,
    ) -> Step {
        let Some(flow) = self.datagrams.flows.get_mut(&number) else {
            return Ok(());
        };
        let is_first_here = !flow.has_heard && flow.addresses.len() > 1;
        let host = &mut self.clients[client];
        // What comes before the keys stand cannot be taken, and may be later.
        let has_keys = host
            .core
            .as_ref()
            .is_some_and(|core| core.parameters().is_some());
        let came_before = flow.note_arrived(&bytes, has_keys);
        self.datagrams.migrations += u64::from(is_first_here);
        let is_setup = bytes.first() == Some(&SETUP);
        let now = host.clock.now(self.now).time;
        let mut told = Vec::new();
        if let Some(core) = &mut host.core {
            core.handle_received(now, &mut bytes, &mut host.shared, &mut collect(&mut told));
        }
        let is_forged = came_before || (is_changed && !is_setup);
        check(!is_forged || told.is_empty(), Rule::ForgeryIgnored, || {
            format!("client {client} was told something by a datagram that was forged")
        })?;
        self.client_told_by_core(client, told)?;
        self.client_flush(client)
    }

    /// Sends all datagrams that the core has.
    pub(super) fn client_flushes_datagrams(&mut self, client: usize, number: u64) -> Step {
        loop {
            let host = &mut self.clients[client];
            let now = host.clock.now(self.now).time;
            let mut out = mem::take(&mut host.out);
            out.clear();
            let has_more = match &mut host.core {
                Some(core) => core.poll_transmit(now, &mut host.shared, &mut out),
                None => false,
            };
            if has_more {
                check(out.len() <= DATAGRAM_BYTES_MAX, Rule::Bounded, || {
                    format!("client {client} sends a datagram of {} bytes", out.len())
                })?;
                let book = &mut self.book;
                if let Some(flow) = self.datagrams.flows.get_mut(&number) {
                    flow.note_sent(&out, |key| book.note_ephemeral(key))?;
                }
                self.send_up(number, &out);
            }
            self.clients[client].out = out;
            if !has_more {
                return Ok(());
            }
        }
    }
}
