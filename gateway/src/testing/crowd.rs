//! A shard with many clients and an echoing game around it: the real cores, and
//! between them only vectors. [`Crowd::round`] has each client ask once,
//! [`Crowd::resume`] has each lose its connection and come back, and [`Crowd::publish`] has all hear
//! a message; they tell how long the shard alone took.
//!
//! Deliberately not here: sockets, rings, QUIC, rates (they are off).
//!
//! Invariant: every request of a round is answered within it, and a round like
//! the one before it needs no more memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::body::{Body, ChannelHeader, Lane, MessageHeader, MessageKind};
use protocol::channel::Filter;
use protocol::client::{Client, Event, Shared};
use protocol::ids::{ChannelId, Incarnation, MessageId, SessionId};
use protocol::time::Now;
use protocol::uplink::{self, Record};
use protocol::websocket::client::{ClientEnd, Received};

use super::{CENTER, GAME, GROUP, Game};
use crate::engine::{ConnId, SendBuffer};
use crate::shard::{Shard, ShardConfig};

/// Microseconds between two rounds.
const STEP_US: u64 = 500;
/// Turns in which everybody must be in: five suffice.
const LOGIN_TURNS_MAX: usize = 20;
/// Longer than any run: this center does not go away.
const LEASE_MS: u32 = 60_000;
/// How long a session waits for its client: longer than it takes here.
const RESUME_MS: u32 = 60_000;
/// The one that [`Crowd::join`] is about.
const CHANNEL: ChannelId = ChannelId(1);

struct Player {
    id: ConnId,
    client: Client,
    /// What its frames travel in, if it is one.
    websocket: Option<ClientEnd>,
    /// What it sends in this turn.
    bytes: Vec<u8>,
}

/// See the module.
pub struct Crowd {
    shard: Shard,
    now: Now,
    shared: Shared,
    players: Vec<Player>,
    game: Game,
    /// Frames of a client before they are wrapped.
    frames: Vec<u8>,
    /// Records from the shard, and for it; reused as a driver does.
    records: Vec<u8>,
    replies: Vec<u8>,
    center: Vec<u8>,
    sends: Vec<(ConnId, SendBuffer)>,
    replied: usize,
    /// The last message to the channel, its number, and who has heard it.
    said: Vec<u8>,
    number: u32,
    heard: usize,
}

impl std::fmt::Debug for Crowd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crowd")
            .field("shard", &self.shard)
            .field("players", &self.players.len())
            .finish_non_exhaustive()
    }
}

fn enter(shard: &mut Shard, index: u32, websocket: bool, now: Now) -> Player {
    let id = ConnId {
        index,
        generation: 0,
    };
    shard.handle_accepted(now, id, None);
    let config = super::client_config(super::token(u64::from(index), now));
    Player {
        id,
        client: Client::connect(config, ephemeral(id), now.time).expect("a usable key"),
        websocket: websocket.then(|| client_end(id)),
        bytes: Vec::new(),
    }
}

/// A WebSocket that has not been opened yet.
fn client_end(id: ConnId) -> ClientEnd {
    ClientEnd::new("gateway.test", [id.index as u8; 16])
}

/// The secret of a connection's handshake: fixed, and another one each time.
fn ephemeral(id: ConnId) -> [u8; 32] {
    let mut ephemeral = [7; 32];
    ephemeral[..4].copy_from_slice(&id.index.to_le_bytes());
    ephemeral[4..8].copy_from_slice(&id.generation.to_le_bytes());
    ephemeral
}

impl Crowd {
    /// So many clients over TCP, logged in and with their group up.
    ///
    /// # Panics
    /// They do not get in.
    pub fn new(clients: usize) -> Self {
        Self::over(clients, false).0
    }

    /// The same over WebSocket.
    ///
    /// # Panics
    /// They do not get in.
    pub fn over_websocket(clients: usize) -> Self {
        Self::over(clients, true).0
    }

    /// Those over TCP, and how long the shard took for their logins.
    ///
    /// # Panics
    /// They do not get in.
    pub fn timed(clients: usize) -> (Self, Duration) {
        Self::over(clients, false)
    }

    fn over(clients: usize, websocket: bool) -> (Self, Duration) {
        let now = super::start();
        let config = ShardConfig {
            resume_ms: RESUME_MS,
            ..super::shard_config(clients)
        };
        let mut shard = Shard::new(config, super::verifier(), [3; 32], Arc::default(), now);
        for (uplink, group) in [(CENTER, 0), (GAME, u32::from(GROUP.0))] {
            shard.handle_uplink_connected(uplink);
            let hello = super::hello(uplink, group, LEASE_MS);
            shard.handle_uplink_control(now, uplink, &hello);
        }
        let players = (0..clients as u32).map(|index| enter(&mut shard, index, websocket, now));
        let players = players.collect();
        let mut crowd = Self {
            shard,
            now,
            shared: Shared::default(),
            players,
            game: Game::new(GROUP, clients),
            frames: Vec::new(),
            records: Vec::new(),
            replies: Vec::new(),
            center: Vec::new(),
            sends: Vec::new(),
            replied: 0,
            said: Vec::new(),
            number: 0,
            heard: 0,
        };
        let spent = crowd.until_all_are_in();
        (crowd, spent)
    }

    /// Each client loses its connection and comes back to its session with its ticket.
    /// Returns the time in the shard.
    ///
    /// # Panics
    /// They do not get in.
    pub fn resume(&mut self) -> Duration {
        for player in &mut self.players {
            player.client.handle_disconnected(&mut |_| {});
        }
        let begin = Instant::now();
        for player in &mut self.players {
            self.shard.handle_closed(self.now, player.id);
            player.id.generation += 1;
            self.shard.handle_accepted(self.now, player.id, None);
        }
        let spent = begin.elapsed();
        for player in &mut self.players {
            if let Some(websocket) = &mut player.websocket {
                *websocket = client_end(player.id);
            }
            let ephemeral = ephemeral(player.id);
            let began = player.client.resume(ephemeral, self.now.time);
            began.expect("a way back");
        }
        spent + self.until_all_are_in()
    }

    fn until_all_are_in(&mut self) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..LOGIN_TURNS_MAX {
            if self.players.iter().all(|p| p.client.is_group_up(GROUP)) {
                return spent;
            }
            spent += self.turn(&mut |_, _| {});
        }
        panic!("not every client is in after {LOGIN_TURNS_MAX} turns");
    }

    /// One request of each client, and its reply, which `replied` is shown.
    /// Returns the time in the shard.
    ///
    /// # Panics
    /// A reply is missing.
    pub fn round(
        &mut self,
        payload: &[u8],
        mut replied: impl FnMut(&MessageHeader, &[u8]),
    ) -> Duration {
        for player in &mut self.players {
            player
                .client
                .request(GROUP, MessageId(1), payload)
                .expect("room in the outbox");
        }
        self.now.time = self.now.time + STEP_US;
        self.replied = 0;
        let spent = self.turn(&mut replied);
        assert_eq!(
            self.replied,
            self.players.len(),
            "every request was answered"
        );
        spent
    }

    /// All become members of one channel.
    ///
    /// # Panics
    /// Somebody is not in a session.
    pub fn join(&mut self) {
        let join = Record::Join {
            channel: CHANNEL,
            incarnation: Incarnation(1),
            next: 1,
        };
        self.replies.clear();
        for player in &self.players {
            let session = player.client.session().expect("logged in");
            uplink::encode(session, &join, &mut self.replies);
        }
        self.hand_out();
    }

    /// A message to all members of the channel, which each of them hears. Returns the time in the
    /// shard.
    ///
    /// # Panics
    /// Somebody does not hear it.
    pub fn publish(&mut self, payload: &[u8]) -> Duration {
        self.now.time = self.now.time + STEP_US;
        self.number += 1;
        self.said.clear();
        self.said.extend_from_slice(payload);
        let header = ChannelHeader {
            lane: Lane::Reliable,
            group: GROUP,
            number: self.number,
            channel: CHANNEL,
            message: MessageId(1),
        };
        self.frames.clear();
        Body::ChannelMessage { header, payload }.encode(&mut self.frames);
        let publish = Record::Publish {
            filter: Filter::ALL,
            body: &self.frames,
        };
        self.replies.clear();
        uplink::encode(SessionId(0), &publish, &mut self.replies);
        self.heard = 0;
        let spent = self.hand_out();
        assert_eq!(self.heard, self.players.len(), "everybody has heard it");
        spent
    }

    /// Records to the shard, and turns until it has handed out all that they lead to.
    fn hand_out(&mut self) -> Duration {
        let now = self.now;
        let begin = Instant::now();
        self.shard.handle_uplink_records(now, GAME, &self.replies);
        let mut spent = begin.elapsed();
        loop {
            let begin = Instant::now();
            self.shard.handle_timeout(now);
            while let Some(send) = self.shard.poll_send() {
                self.sends.push(send);
            }
            spent += begin.elapsed();
            if self.sends.is_empty() {
                return spent;
            }
            self.hand_over(now, &mut |_, _| {});
            let begin = Instant::now();
            for (to, buffer) in self.sends.drain(..) {
                self.shard.handle_sent(to, buffer);
            }
            spent += begin.elapsed();
        }
    }

    /// Clients' bytes in, records to the backends, their answers in, frames out.
    fn turn(&mut self, replied: &mut impl FnMut(&MessageHeader, &[u8])) -> Duration {
        let now = self.now;
        for player in &mut self.players {
            player.bytes.clear();
            let client = &mut player.client;
            let Some(websocket) = &mut player.websocket else {
                client.poll_transmit(now.time, &mut self.shared, &mut player.bytes);
                continue;
            };
            self.frames.clear();
            if websocket.is_open() {
                client.poll_transmit(now.time, &mut self.shared, &mut self.frames);
            }
            websocket.wrap(&self.frames, &mut player.bytes);
        }
        self.records.clear();
        self.replies.clear();
        self.center.clear();

        let begin = Instant::now();
        for player in &mut self.players {
            if !player.bytes.is_empty() {
                self.shard
                    .handle_received(now, player.id, &mut player.bytes);
            }
        }
        self.shard.handle_timeout(now);
        let (records, center) = (&mut self.records, &mut self.center);
        self.shard.poll_uplink(|uplink, stream, bytes| {
            if stream > 0 {
                records.extend_from_slice(bytes);
            } else if uplink == CENTER {
                center.extend_from_slice(bytes);
            }
            bytes.clear();
        });
        let mut spent = begin.elapsed();

        self.game.echo(&self.records, now.time, &mut self.replies);

        let begin = Instant::now();
        if !self.replies.is_empty() {
            self.shard.handle_uplink_records(now, GAME, &self.replies);
        }
        while let Some(send) = self.shard.poll_send() {
            self.sends.push(send);
        }
        spent += begin.elapsed();

        self.hand_over(now, replied);

        let begin = Instant::now();
        for (to, buffer) in self.sends.drain(..) {
            self.shard.handle_sent(to, buffer);
        }
        while self.shard.poll_action().is_some() {}
        spent += begin.elapsed();

        for message in super::control_messages(&self.center) {
            if let Some(answer) = super::answer_of_center(&message) {
                let answer = super::to_shard_bytes(answer);
                self.shard.handle_uplink_control(now, CENTER, &answer);
            }
        }
        spent
    }

    /// Gives the shard's frames to the clients.
    fn hand_over(&mut self, now: Now, replied: &mut impl FnMut(&MessageHeader, &[u8])) {
        for (to, buffer) in &mut self.sends {
            // Clients open frames in place.
            let buffer = match buffer {
                SendBuffer::Own(bytes) => bytes,
                SendBuffer::Shared(bytes) => {
                    self.frames.clear();
                    self.frames.extend_from_slice(bytes);
                    &mut self.frames
                }
            };
            let (count, heard) = (&mut self.replied, &mut self.heard);
            let mut judge = |event: Event<'_>| match event {
                Event::Message(header, payload) if header.kind == MessageKind::Reply => {
                    *count += 1;
                    replied(&header, payload);
                }
                Event::ChannelMessage(_, payload) => {
                    *heard += usize::from(payload == self.said);
                }
                _ => {}
            };
            let player = &mut self.players[to.index as usize];
            let (client, shared) = (&mut player.client, &mut self.shared);
            let Some(websocket) = &mut player.websocket else {
                client.handle_received(now.time, buffer, shared, &mut judge);
                continue;
            };
            let mut data = &mut buffer[..];
            let mut pool = std::mem::take(&mut shared.buffers);
            while let Some(received) = websocket.next(&mut data, &mut pool).expect("WebSocket") {
                if let Received::Message(frame) = received {
                    client.handle_received(now.time, frame, shared, &mut judge);
                }
            }
            shared.buffers = pool;
        }
    }
}
