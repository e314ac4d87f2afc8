//! A shard in which a test looks at everything: what center and the game are
//! sent, what the driver is told, what a client makes of it.
//!
//! Invariant: after each call the shard has nothing left to say.

use std::sync::Arc;

use protocol::body::Body;
use protocol::client::{Client, Event, Shared};
use protocol::control::{to_backend, to_shard};
use protocol::ids::{Incarnation, SessionId};
use protocol::stream::StreamEnd;
use protocol::time::Now;
use protocol::uplink;

use crate::engine::ConnId;
use crate::shard::corks::CORK_US;
use crate::shard::{Action, Shard, ShardConfig};
use crate::testing::{self, GAME, GROUP};

/// The lease of center here, as in its default configuration.
const LEASE_MS: u32 = 15_000;

/// A shard and what surrounds it.
pub(in crate::shard) struct World {
    pub(in crate::shard) shard: Shard,
    pub(in crate::shard) now: Now,
    pub(in crate::shard) shared: Shared,
    /// Control messages that reached center and were not answered by `settle`.
    pub(in crate::shard) center: Vec<to_backend::Message>,
    /// Records that reached the game.
    pub(in crate::shard) game: Vec<(SessionId, u8, Vec<u8>)>,
    pub(in crate::shard) actions: Vec<Action>,
    pub(in crate::shard) sent: Vec<(ConnId, Vec<u8>)>,
    /// Center's answers to seeks and moves are the test's to give.
    pub(in crate::shard) moves_by_hand: bool,
    /// And those to claims.
    pub(in crate::shard) claims_by_hand: bool,
    next_token: u64,
}

impl World {
    pub(in crate::shard) fn new(config: ShardConfig) -> Self {
        Self::seeded(config, [3; 32])
    }

    /// The same for one start of a process of several, each with a seed of its own.
    pub(in crate::shard) fn seeded(config: ShardConfig, seed: [u8; 32]) -> Self {
        let now = testing::start();
        let shard = Shard::new(config, testing::verifier(), seed, Arc::default(), now);
        let mut world = Self {
            shard,
            now,
            shared: Shared::default(),
            center: Vec::new(),
            game: Vec::new(),
            actions: Vec::new(),
            sent: Vec::new(),
            moves_by_hand: false,
            claims_by_hand: false,
            next_token: 1,
        };
        world.link(0, 0);
        world.link(GAME, u32::from(GROUP.0));
        world
    }

    pub(in crate::shard) fn link(&mut self, uplink: usize, group: u32) {
        self.shard.handle_uplink_connected(uplink);
        let hello = testing::hello(uplink, group, LEASE_MS);
        self.shard.handle_uplink_control(self.now, uplink, &hello);
        self.collect();
    }

    pub(in crate::shard) fn control(&mut self, uplink: usize, message: to_shard::Message) {
        let bytes = testing::to_shard_bytes(message);
        self.shard.handle_uplink_control(self.now, uplink, &bytes);
    }

    /// Takes everything that the shard wants out of it; center answers.
    pub(in crate::shard) fn collect(&mut self) {
        loop {
            self.shard.handle_timeout(self.now);
            let mut controls = Vec::new();
            let mut records = Vec::new();
            self.shard.poll_uplink(|uplink, stream, bytes| {
                if stream == 0 {
                    controls.extend(testing::control_messages(bytes).map(|sent| (uplink, sent)));
                } else {
                    let mut run = &bytes[..];
                    while let Some((session, record)) = uplink::next(&mut run).expect("ours") {
                        let mut copy = Vec::new();
                        uplink::encode(session, &record, &mut copy);
                        records.push((session, copy[3], copy));
                    }
                }
                bytes.clear();
            });
            self.game.extend(records);
            while let Some(sent) = self.shard.poll_send() {
                let (id, buffer) = sent;
                self.sent.push((id, buffer.to_vec()));
                self.shard.handle_sent(id, buffer);
            }
            while let Some(action) = self.shard.poll_action() {
                self.actions.push(action);
            }
            if controls.is_empty() {
                return;
            }
            for (uplink, message) in controls {
                use to_backend::Message::{Claim, Move, Seek};
                let by_hand = match message {
                    Seek(_) | Move(_) => self.moves_by_hand,
                    Claim(_) => self.claims_by_hand,
                    _ => false,
                };
                match testing::answer_of_center(&message) {
                    Some(answer) if !by_hand => self.control(uplink, answer),
                    _ => self.center.push(message),
                }
            }
        }
    }

    pub(in crate::shard) fn pass(&mut self, ms: u64) {
        self.now.time = self.now.time.after_ms(ms);
        self.now.unix_ms += ms;
        self.collect();
    }

    pub(in crate::shard) fn token(&mut self) -> String {
        self.next_token += 1;
        testing::token(self.next_token, self.now)
    }

    /// Moves bytes between one client and the shard until both are silent. What the client is told, but for
    /// round trips.
    pub(in crate::shard) fn exchange(&mut self, id: ConnId, client: &mut Client) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let mut out = Vec::new();
            client.poll_transmit(self.now.time, &mut self.shared, &mut out);
            let silent = out.is_empty();
            if !silent {
                self.shard.handle_received(self.now, id, &mut out);
            }
            self.collect();
            let mut arrived = false;
            for (to, mut bytes) in std::mem::take(&mut self.sent) {
                if to == id {
                    arrived = true;
                    client.handle_received(
                        self.now.time,
                        &mut bytes,
                        &mut self.shared,
                        &mut |event| {
                            if !matches!(event, Event::RoundTrip(_)) {
                                events.push(format!("{event:?}"));
                            }
                        },
                    );
                } else {
                    self.sent.push((to, bytes));
                }
            }
            if silent && !arrived {
                if self.shard.corks.next().is_none() {
                    return events;
                }
                // No backend says anything here.
                self.pass(CORK_US / 1_000);
            }
        }
    }

    pub(in crate::shard) fn accept(&mut self, index: u32) -> ConnId {
        let id = ConnId {
            index,
            generation: 0,
        };
        self.shard.handle_accepted(self.now, id, None);
        id
    }

    /// A logged-in client.
    pub(in crate::shard) fn login(&mut self, index: u32) -> (ConnId, Client) {
        self.login_as(index, |_| {})
    }

    /// The same for one that is told something before it connects.
    pub(in crate::shard) fn login_as(
        &mut self,
        index: u32,
        tell: impl FnOnce(&mut Client),
    ) -> (ConnId, Client) {
        let id = self.accept(index);
        let config = testing::client_config(self.token());
        let mut client =
            Client::connect(config, [index as u8 ^ 0x55; 32], self.now.time).expect("a usable key");
        tell(&mut client);
        let events = self.exchange(id, &mut client);
        assert!(client.session().is_some(), "{events:?}");
        (id, client)
    }

    pub(in crate::shard) fn backend_sends(&mut self, session: SessionId, body: &Body<'_>) {
        let mut record = Vec::new();
        uplink::encode_data(session, &mut record, |out| body.encode(out));
        self.shard.handle_uplink_records(self.now, GAME, &record);
    }

    /// Opens the group for a client, as a backend without memory does.
    pub(in crate::shard) fn sync(&mut self, id: ConnId, client: &mut Client) -> StreamEnd {
        let mut end = StreamEnd::backend(GROUP, Incarnation(5));
        end.attach();
        let session = client.session().expect("logged in");
        let sync = end.poll_sync().expect("attached");
        self.backend_sends(session, &Body::Sync(sync));
        self.exchange(id, client);
        let body_of = |record: &[u8]| record.get(uplink::RECORD_HEADER_BYTES).copied();
        let at = self
            .game
            .iter()
            .position(|(_, kind, record)| *kind == 1 && body_of(record) == Some(7));
        let (_, _, record) = self.game.remove(at.expect("the client's SYNC"));
        let Ok(Body::Sync(answer)) = Body::decode(&record[uplink::RECORD_HEADER_BYTES..]) else {
            panic!("not a SYNC: {record:?}")
        };
        assert!(end.handle_sync(&answer));
        end
    }
}
