//! One client of the fleet: its credentials, what it sends, and the judgement
//! of what it receives.

use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::cipher::RekeyPolicy;
use protocol::client::{Client, ClientConfig, Closed, Event};
use protocol::ids::GroupId;
use protocol::limits::TOKEN_LIFE_MS_MAX;
use protocol::stream::OutboxLimits;
use protocol::time::{Now, Time};
use protocol::token::Claims;
use protocol::world::{Entry, MOVE};
use rand_core::RngCore as _;

use super::walk::{Restart, Walker, World};
use super::{Command, Fleet, MESSAGE, Stage};
use crate::args::Transport;
use crate::ledger::{Ledger, Reply};
use crate::messages::WorkerPlan;
use crate::payload;
use crate::schedule::Schedule;
use crate::tally::Tally;

/// Sends that one client hands over at once when it has fallen behind.
const CATCH_UP_MAX: usize = 64;
/// Bytes of a buffer from which on the core may have kept more back.
const LARGE_SEND_BYTES: usize = 32_768;

/// What a call of a client's core reported, besides messages.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub logged_in: bool,
    pub resumed: bool,
    pub group_up: Option<bool>,
    pub closed: Option<Closed>,
    /// What the map says to the request to be put on it.
    pub entry: Option<Result<Entry, ()>>,
    /// What the map says after the game was started anew.
    pub restart: Option<Restart>,
}

/// Judges events of one client.
pub(super) struct Judge<'a> {
    pub plan: &'a WorkerPlan,
    /// Local number of the client.
    pub index: u32,
    /// Sends of sessions that were lost: requests are numbered anew in each.
    pub base: u32,
    pub schedule: Option<&'a Schedule>,
    pub ledger: &'a mut Ledger,
    pub world: Option<&'a World>,
    pub walker: Option<&'a mut Walker>,
    pub tally: &'a mut Tally,
    pub seen: &'a mut Seen,
    pub now: Time,
}

impl Judge<'_> {
    pub(super) fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::LoggedIn(_) => self.seen.logged_in = true,
            Event::GroupUp(GroupId(group)) if group == self.plan.group => {
                self.seen.group_up = Some(true);
            }
            Event::GroupDown(GroupId(group)) if group == self.plan.group => {
                self.seen.group_up = Some(false);
            }
            Event::Message(header, payload) => self.message(&header, payload),
            Event::Closed(closed) => self.seen.closed = Some(closed),
            Event::Resumed(_) => self.seen.resumed = true,
            Event::SessionLost(_) => {}
            Event::GroupUp(_) | Event::GroupDown(_) | Event::RoundTrip(_) => {}
        }
    }

    fn message(&mut self, header: &MessageHeader, payload: &[u8]) {
        self.tally.received += 1;
        if self.world.is_some() {
            self.world_message(header, payload);
            return;
        }
        let lane = self.plan.lane.lane();
        // A request names itself; a message only by its content.
        let sequence = if lane == Lane::Reliable {
            Some(header.request.wrapping_sub(1).wrapping_add(self.base))
        } else {
            payload::sequence(payload)
        };
        let sequence = sequence.unwrap_or(u32::MAX);
        let is_right = self.is_right(header, payload, sequence);
        let reply = self.ledger.handle_reply(sequence);
        let reason = if header.kind == MessageKind::Error {
            "error_reply"
        } else if reply == Reply::Unknown && lane == Lane::Reliable {
            "unknown_reply"
        } else {
            "content"
        };
        if !is_right || reply == Reply::Unknown {
            self.tally.error(reason);
        }
        match reply {
            Reply::InOrder | Reply::Late => {
                self.tally.outstanding = self.tally.outstanding.saturating_sub(1);
                if is_right && let Some(schedule) = self.schedule {
                    let due_at = schedule.due_at(self.index, sequence);
                    self.tally.interval.record(self.now.us_since(due_at));
                }
                if reply == Reply::Late && lane != Lane::Unreliable {
                    self.tally.out_of_order += 1;
                }
            }
            Reply::Doubled => self.tally.duplicated += 1,
            Reply::Unknown => {}
        }
    }

    fn is_right(&self, header: &MessageHeader, payload: &[u8], sequence: u32) -> bool {
        let lane = self.plan.lane.lane();
        let kind = if lane == Lane::Reliable {
            MessageKind::Reply
        } else {
            MessageKind::Message
        };
        header.kind == kind
            && header.lane == lane
            && !header.more
            && header.group == GroupId(self.plan.group)
            && header.message == MESSAGE
            && payload::is_of(
                payload,
                self.plan.seed,
                self.plan.first + self.index,
                sequence,
                self.plan.payload_bytes,
            )
    }
}

impl Fleet {
    /// The core of a client that has just connected, with a token of its own.
    pub(super) fn new_client(&mut self, index: u32, now: Now) -> Result<Client, &'static str> {
        let number = self.plan.first + index;
        let attempt = self.slots[index as usize].attempts;
        let account = format!("{}-{number}", self.plan.account_prefix);
        let claims = Claims {
            audience: self.plan.audience.clone(),
            id: format!("{account}-{attempt}"),
            account,
            issued_unix_ms: now.unix_ms,
            // Times are whole seconds in a token; a shorter life stays below
            // the bound however they are cut.
            expires_unix_ms: now.unix_ms + TOKEN_LIFE_MS_MAX / 2,
        };
        let token = self.issuer.issue(&claims).map_err(|_| "token_unusable")?;
        let config = ClientConfig {
            gateway_key: self.plan.gateway_key,
            token,
            client_version: 1,
            channel: String::from("loadtest"),
            device: String::from("loadtest"),
            outbox: OutboxLimits::default(),
            rekey: RekeyPolicy::default(),
            // The content is random; trying to compress it only costs time.
            compress_bytes_min: usize::MAX,
        };
        let mut ephemeral = [0; 32];
        self.rng.fill_bytes(&mut ephemeral);
        let client = match self.plan.transport {
            Transport::Tcp | Transport::Ws => Client::connect(config, ephemeral, now.time),
            Transport::Udp => Client::connect_datagrams(config, ephemeral, now.time),
        };
        client.map_err(|reason| reason.label())
    }

    /// What this client has to send now.
    pub(super) fn transmit(&mut self, index: u32, now: Time) -> Option<Command> {
        self.send_due(index, now);
        let command = self.take_bytes(index, now);
        self.set_timer(index, now);
        command
    }

    fn take_bytes(&mut self, index: u32, now: Time) -> Option<Command> {
        let slot = &mut self.slots[index as usize];
        let (Some(conn), Some(client)) = (slot.conn, slot.client.as_mut()) else {
            return None;
        };
        if slot.is_sending {
            slot.has_more = true;
            return None;
        }
        let mut buf = self.shared.buffers.take();
        if slot.websocket.as_ref().is_none_or(|end| end.is_open()) {
            client.poll_transmit(now, &mut self.shared, &mut buf);
        }
        let is_datagram = self.plan.transport == Transport::Udp;
        let has_more = is_datagram || buf.len() >= LARGE_SEND_BYTES;
        if let Some(websocket) = &mut slot.websocket {
            let mut wrapped = self.shared.buffers.take();
            websocket.wrap(&buf, &mut wrapped);
            self.shared
                .buffers
                .give(std::mem::replace(&mut buf, wrapped));
        }
        if buf.is_empty() {
            self.shared.buffers.give(buf);
            return None;
        }
        slot.is_sending = true;
        slot.has_more = has_more;
        Some(Command::Send(conn, buf))
    }

    /// Makes the sends whose turns have come. What is refused stays due.
    fn send_due(&mut self, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        let can_send = slot.storm.as_ref().is_some_and(|storm| storm.can_send());
        let can_send = can_send || slot.stage == Stage::In;
        if !can_send || slot.ledger.sent() == slot.due {
            return;
        }
        let Some(client) = slot.client.as_mut() else {
            return;
        };
        if self.world.is_some() && !slot.walker.as_ref().is_some_and(|walker| walker.is_here()) {
            return;
        }
        let (plan, lane) = (&self.plan, self.plan.lane.lane());
        let group = GroupId(plan.group);
        for _ in 0..CATCH_UP_MAX {
            let sequence = slot.ledger.sent();
            // Off the reliable lane no outbox bounds what waits behind a buffer
            // that the socket does not take.
            if sequence == slot.due || (lane != Lane::Reliable && slot.is_sending) {
                return;
            }
            let number = plan.first + index;
            if let Some(world) = &self.world {
                world.encode_move(number, sequence + 1, &mut self.payload);
                let (payload, shared) = (&self.payload, &mut self.shared);
                if client
                    .send(now, lane, group, MOVE, payload, shared)
                    .is_err()
                {
                    return;
                }
                slot.ledger.send();
                self.pending -= 1;
                self.tally.sent += 1;
                continue;
            }
            let bytes = plan.payload_bytes;
            payload::write(plan.seed, number, sequence, bytes, &mut self.payload);
            let sent = if lane == Lane::Reliable {
                client.request(group, MESSAGE, &self.payload).map(|_| ())
            } else {
                client.send(now, lane, group, MESSAGE, &self.payload, &mut self.shared)
            };
            if sent.is_err() {
                return;
            }
            slot.ledger.send();
            self.pending -= 1;
            self.tally.sent += 1;
            self.tally.outstanding += 1;
        }
        self.mark(index);
    }
}
