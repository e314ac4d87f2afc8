//! One client of the fleet: its credentials, what it sends, and the judgement
//! of what it receives.

use protocol::body::{Lane, MessageHeader, MessageKind, QueuePosition};
use protocol::chat::SAY;
use protocol::cipher::RekeyPolicy;
use protocol::client::{Client, ClientConfig, Closed, Event};
use protocol::ids::GroupId;
use protocol::limits::TOKEN_LIFE_MS_MAX;
use protocol::stream::OutboxLimits;
use protocol::time::{Now, Time};
use protocol::token::Claims;
use protocol::world::{Entry, MOVE};
use rand_core::RngCore as _;

use super::book::Books;
use super::mixed;
use super::rooms::{Hearer, Rooms};
use super::storm::Return;
use super::walk::{Restart, Walker, World};
use super::{Command, Fleet, MESSAGE, Stage};
use crate::args::Transport;
use crate::ledger::Reply;
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
    /// Where it is in the gateway's queue.
    pub queued: Option<QueuePosition>,
    pub resumed: bool,
    pub group_up: Option<bool>,
    pub closed: Option<Closed>,
    /// What the map says to the request to be put on it.
    pub entry: Option<Result<Entry, ()>>,
    /// What the map says after the game was started anew.
    pub restart: Option<Restart>,
    /// It is a member of a channel.
    pub is_joined: bool,
    /// It was not let into one.
    pub is_refused: bool,
}

/// Judges events of one client.
pub(super) struct Judge<'a> {
    pub plan: &'a WorkerPlan,
    /// Local number of the client.
    pub index: u32,
    /// Sends of sessions that were lost: requests are numbered anew in each.
    pub base: u32,
    pub schedule: Option<&'a Schedule>,
    pub books: &'a mut Books,
    pub world: Option<&'a World>,
    pub walker: Option<&'a mut Walker>,
    pub rooms: Option<&'a mut Rooms>,
    pub hearer: Option<&'a mut Hearer>,
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
            Event::Queued(position) => self.seen.queued = Some(position),
            Event::Resumed(_) => self.seen.resumed = true,
            Event::SessionLost(_) => {}
            Event::ChannelJoined(..) => self.seen.is_joined = true,
            Event::ChannelMessage(header, payload) => self.hear(&header, payload),
            Event::ChannelLeft(..) => self.tally.error("left_channel"),
            // What is missing shows in the end.
            Event::ChannelLost(..)
            | Event::GroupUp(_)
            | Event::GroupDown(_)
            | Event::RoundTrip(_) => {}
        }
    }

    fn message(&mut self, header: &MessageHeader, payload: &[u8]) {
        if self.rooms.is_some() {
            return self.room_message(header, payload);
        }
        self.tally.received += 1;
        if self.world.is_some() {
            self.world_message(header, payload);
            return;
        }
        let client = self.plan.first + self.index;
        let lane = if self.plan.is_mixed() {
            header.lane
        } else {
            self.plan.lane.lane()
        };
        // A request names itself; a message only by its content.
        let number = if lane == Lane::Reliable {
            Some(header.request.wrapping_sub(1).wrapping_add(self.base))
        } else {
            payload::sequence(payload).and_then(|turn| self.plan.number_of(client, lane, turn))
        };
        let number = number.unwrap_or(u32::MAX);
        let turn = self.plan.turn_of(client, lane, number);
        let is_right = self.is_right(header, payload, lane, turn);
        let book = self.books.of(lane);
        let reply = book.ledger.handle_reply(number);
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
                if book.expects(number) {
                    self.tally.outstanding = self.tally.outstanding.saturating_sub(1);
                }
                if is_right && let Some(schedule) = self.schedule {
                    let due_at = schedule.due_at(self.index, turn);
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

    fn is_right(&self, header: &MessageHeader, payload: &[u8], lane: Lane, turn: u32) -> bool {
        let client = self.plan.first + self.index;
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
                client,
                turn,
                self.plan.shape(client, lane, turn),
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
            compress_bytes_min: if self.plan.is_mixed() {
                mixed::COMPRESS_BYTES_MIN
            } else {
                // The content is random; trying to compress it only costs time.
                usize::MAX
            },
        };
        let mut ephemeral = [0; 32];
        self.rng.fill_bytes(&mut ephemeral);
        let client = match self.plan.transport {
            Transport::Tcp | Transport::Ws => Client::connect(config, ephemeral, now.time),
            Transport::Udp => Client::connect_datagrams(config, ephemeral, now.time),
        };
        let mut client = client.map_err(|reason| reason.label())?;
        if self.plan.side_path {
            client.offer_side_path();
        }
        Ok(client)
    }

    /// What this client has to send now.
    pub(super) fn transmit(&mut self, index: u32, now: Time) -> Option<Command> {
        self.send_due(index, now);
        self.leave(index, now);
        let mut command = self.take_bytes(index, now);
        if self.plan.side_path {
            match command {
                // One command a call; those beside the stream follow.
                Some(_) => self.mark(index),
                None => command = self.take_beside(index, now),
            }
        }
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
        let is_there = slot.stage == Stage::In || slot.storm.as_deref().is_some_and(Return::keeps);
        let is_leaving = slot.storm.as_deref().is_some_and(Return::is_leaving);
        if !is_there || is_leaving {
            return;
        }
        if self.world.is_some() && !slot.walker.as_ref().is_some_and(|walker| walker.is_here()) {
            return;
        }
        for lane in self.plan.lanes() {
            self.send_due_on(*lane, index, now);
        }
    }

    fn send_due_on(&mut self, lane: Lane, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        let (Some(client), book) = (slot.client.as_mut(), slot.books.of(lane)) else {
            return;
        };
        let plan = &self.plan;
        let group = GroupId(plan.group);
        for _ in 0..CATCH_UP_MAX {
            // Off the reliable lane no outbox bounds what waits behind a buffer
            // that the socket does not take.
            if book.waiting() == 0 || (lane != Lane::Reliable && slot.is_sending) {
                return;
            }
            let number = plan.first + index;
            let sent = book.ledger.sent();
            if let Some(world) = &self.world {
                world.encode_move(number, sent + 1, &mut self.payload);
                let (payload, shared) = (&self.payload, &mut self.shared);
                if client
                    .send(now, lane, group, MOVE, payload, shared)
                    .is_err()
                {
                    return;
                }
                book.ledger.send();
                self.pending -= 1;
                self.tally.sent += 1;
                continue;
            }
            if let Some(rooms) = &self.rooms {
                rooms.encode(plan, number, sent, &mut self.payload);
                let (payload, shared) = (&self.payload, &mut self.shared);
                if client
                    .send(now, Lane::Reliable, group, SAY, payload, shared)
                    .is_err()
                {
                    return;
                }
                book.ledger.send();
                self.pending -= 1;
                self.tally.sent += 1;
                continue;
            }
            let turn = plan.turn_of(number, lane, sent);
            let shape = plan.shape(number, lane, turn);
            payload::write(plan.seed, number, turn, shape, &mut self.payload);
            let is_beside = lane != Lane::Reliable && client.is_side_path_up(now);
            let taken = if lane == Lane::Reliable {
                client.request(group, MESSAGE, &self.payload).map(|_| ())
            } else {
                client.send(now, lane, group, MESSAGE, &self.payload, &mut self.shared)
            };
            if taken.is_err() {
                return;
            }
            book.ledger.send();
            self.pending -= 1;
            self.tally.note_send(lane, self.payload.len());
            self.tally.sent_beside += u64::from(is_beside);
            if book.expects(sent) {
                self.tally.outstanding += 1;
            }
        }
        self.mark(index);
    }
}
