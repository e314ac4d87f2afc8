//! A client's end of its connection: bytes and the end of it to the core, what the core tells
//! back to the application, what it has to send to the socket.
//!
//! Invariant: what a core told is handled before the core is called again.

use std::mem;

use protocol::body::{ChannelHeader, MessageHeader};
use protocol::client::{self, Client, Closed};
use protocol::ids::{ChannelId, GroupId, SessionId};
use protocol::reason::CloseReason;
use protocol::websocket::client::Refused;

use super::event::Event;
use super::tcp::Direction;
use super::{World, is_due};
use crate::rule::{Rule, Step, Violation, check};

/// What a core told, kept until the core is back in its place.
pub enum Told {
    LoggedIn(SessionId),
    Queued,
    ChannelMessage(ChannelHeader, Vec<u8>),
    ChannelLost(ChannelId, u32),
    GroupUp(GroupId),
    Resumed,
    Message(MessageHeader, Vec<u8>),
    Closed(Closed),
}

pub fn collect(told: &mut Vec<Told>) -> impl FnMut(client::Event<'_>) {
    |event| match event {
        client::Event::LoggedIn(session) => told.push(Told::LoggedIn(session)),
        client::Event::Message(header, payload) => {
            told.push(Told::Message(header, payload.to_vec()));
        }
        client::Event::ChannelMessage(header, payload) => {
            told.push(Told::ChannelMessage(header, payload.to_vec()));
        }
        client::Event::ChannelLost(_, channel, count) => {
            told.push(Told::ChannelLost(channel, count));
        }
        client::Event::Queued(_) => told.push(Told::Queued),
        client::Event::Closed(closed) => told.push(Told::Closed(closed)),
        client::Event::GroupUp(group) => told.push(Told::GroupUp(group)),
        client::Event::Resumed(_) => told.push(Told::Resumed),
        client::Event::SessionLost(_)
        | client::Event::GroupDown(_)
        | client::Event::ChannelJoined(..)
        | client::Event::ChannelLeft(..)
        | client::Event::RoundTrip(_) => {}
    }
}

impl World {
    /// Bytes came: the client reads them in pieces of any size.
    pub(super) fn client_read(&mut self, number: u64) -> Step {
        while let Some(conn) = self.conns.get_mut(&number) {
            let Some(client) = conn.client else {
                return self.stranger_reads(number);
            };
            let host = &mut self.clients[client];
            // Before that, what a gateway says first waits for the core that will read it.
            let is_connected = host.conn == Some(number) && host.core_is_open();
            if !is_connected || !host.is_reading || !conn.client_open {
                return Ok(());
            }
            let ready = conn.down.ready();
            if ready == 0 {
                if conn.down.is_ended() {
                    return self.client_disconnected(client);
                }
                break;
            }
            let part = if self.random.chance(200) {
                1 + self.random.index(ready)
            } else {
                ready
            };
            let mut bytes = conn.down.take(part);
            if let Some(web) = &mut conn.web {
                match web.unwrap(&mut bytes) {
                    Ok(frames) => bytes = frames,
                    Err(refused) => {
                        // One that is full or draining says so.
                        let is_said = refused == Refused::Status(503);
                        check(
                            is_said || conn.tampered_at.is_some(),
                            Rule::CoresAgree,
                            || format!("client {client} was answered no WebSocket: {refused:?}"),
                        )?;
                        return self.client_disconnected(client);
                    }
                }
            }
            let now = host.clock.now(self.now).time;
            let mut told = Vec::new();
            if let Some(core) = &mut host.core {
                core.handle_received(now, &mut bytes, &mut host.shared, &mut collect(&mut told));
            }
            self.client_told_by_core(client, told)?;
            self.client_flush(client)?;
        }
        self.pump(number, Direction::Down);
        Ok(())
    }

    pub(super) fn client_read_again(&mut self, client: usize) -> Step {
        self.clients[client].is_reading = true;
        self.client_reads_datagrams(client)?;
        match self.clients[client].conn {
            Some(conn) => self.client_read(conn),
            None => Ok(()),
        }
    }

    /// The client's side of a connection is gone.
    pub(super) fn client_told(&mut self, number: u64) -> Step {
        let Some(conn) = self.conns.get(&number).filter(|conn| conn.client_open) else {
            return Ok(());
        };
        match conn.client {
            Some(client) if self.clients[client].conn == Some(number) => {
                self.client_disconnected(client)
            }
            _ => {
                self.close_client_side(number);
                Ok(())
            }
        }
    }

    pub(super) fn refused(&mut self, number: u64) -> Step {
        let conn = self.conns.remove(&number);
        if let Some(client) = conn.and_then(|conn| conn.client)
            && self.clients[client].conn == Some(number)
        {
            self.clients[client].conn = None;
            self.come_back(client);
        }
        Ok(())
    }

    pub(super) fn client_disconnected(&mut self, client: usize) -> Step {
        let mut told = Vec::new();
        let host = &mut self.clients[client];
        match &mut host.core {
            Some(core) if !core.is_closed() => core.handle_disconnected(&mut collect(&mut told)),
            _ => told.push(Told::Closed(Closed::ByClient(CloseReason::PeerClosed))),
        }
        self.client_told_by_core(client, told)
    }

    /// Sends what the core has, as long as the socket takes it, and sets the timer.
    pub(super) fn client_flush(&mut self, client: usize) -> Step {
        let host = &self.clients[client];
        let is_flushed = match (host.flow, host.conn) {
            (Some(flow), _) => {
                self.client_flushes_datagrams(client, flow)?;
                true
            }
            (None, Some(number)) => self.client_flushes_stream(client, number)?,
            (None, None) => return Ok(()),
        };
        let host = &mut self.clients[client];
        if let Some(core) = &host.core {
            // Each group has an outbox.
            let groups = 1 + usize::from(self.plan.map.is_some());
            check(
                core.outbox_messages() <= groups * self.plan.outbox_messages_max,
                Rule::Bounded,
                || format!("client {client} keeps {} messages", core.outbox_messages()),
            )?;
        }
        if let Some(due) = host.core.as_ref().and_then(Client::poll_timeout) {
            // A socket that takes nothing is asked again when it has moved.
            let soonest = self.now + if is_flushed { 1 } else { 100_000 };
            let at = host.clock.global(due).max(soonest);
            if host.wake_at.is_none_or(|wake_at| at < wake_at) {
                host.wake_at = Some(at);
                self.push(at, Event::ClientWake { client });
            }
        }
        Ok(())
    }

    /// Whether the socket has taken everything.
    fn client_flushes_stream(&mut self, client: usize, number: u64) -> Result<bool, Violation> {
        loop {
            let host = &mut self.clients[client];
            let Some(conn) = self.conns.get_mut(&number) else {
                return Ok(true);
            };
            if !conn.up.is_flushed() {
                return Ok(false);
            }
            let now = host.clock.now(self.now).time;
            let mut out = mem::take(&mut host.out);
            out.clear();
            let carries_frames = conn.carries_frames();
            let has_more = match &mut host.core {
                Some(core) if carries_frames => core.poll_transmit(now, &mut host.shared, &mut out),
                _ => false,
            };
            if has_more || conn.web.is_some() {
                let book = &mut self.book;
                conn.sealed[0].note(&out, |key| book.note_ephemeral(key))?;
                self.client_writes(number, &out);
            }
            self.clients[client].out = out;
            if !has_more {
                return Ok(carries_frames);
            }
        }
    }

    pub(super) fn client_wake(&mut self, client: usize) -> Step {
        let host = &mut self.clients[client];
        if !is_due(host.wake_at, self.now) {
            return Ok(());
        }
        host.wake_at = None;
        let now = host.clock.now(self.now).time;
        let mut told = Vec::new();
        if let Some(core) = &mut host.core {
            core.handle_timeout(now, &mut collect(&mut told));
        }
        self.client_told_by_core(client, told)?;
        self.client_flush(client)
    }
}
