//! The client's core in the hands of a gateway that has the right key and speaks whatever it
//! likes: what the client keeps is bounded, and it ends as it says.

use gateway::testing;
use protocol::cipher::{Key, RekeyPolicy, Sealer};
use protocol::client::{Client, Event, Shared};
use protocol::datagram::hello::{self, Setup};
use protocol::datagram::{Cid, split};
use protocol::handshake::{StaticKey, respond};
use protocol::ids::{GroupId, MessageId};
use protocol::limits::{DATAGRAM_BYTES_MAX, GROUPS_MAX, OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use protocol::time::Time;

use super::PARAMETERS;
use super::layouts::{bodies, chunk_seeds};
use crate::script::{Lines, Script, Way};

const GATEWAY: [u8; 32] = [9; 32];
const CID: Cid = Cid(0x500);

/// Groups that the application talks to.
const GROUPS: u16 = 3;

struct Talk {
    client: Client,
    shared: Shared,
    now: Time,
    sealer: Sealer,
    way: Way,
    events: u64,
}

impl Talk {
    fn begin(over_datagrams: bool) -> Self {
        let now = testing::start().time;
        let config = protocol::client::ClientConfig {
            gateway_key: *StaticKey::from_secret(GATEWAY).public(),
            ..testing::client_config("v4.public.token".to_owned())
        };
        let client = match over_datagrams {
            true => Client::connect_datagrams(config, [7; 32], now),
            false => Client::connect(config, [7; 32], now),
        };
        let mut talk = Self {
            client: client.expect("a usable key"),
            shared: Shared::default(),
            now,
            sealer: Sealer::new(Key([0; 32]), now, RekeyPolicy::default()),
            way: Way::default(),
            events: 0,
        };
        let mut first = talk.transmit();
        let (nonce, hello_frame) = match hello::decode(&first) {
            Some((nonce, Setup::Init { hello, .. })) => (nonce, hello.to_vec()),
            _ => (0, std::mem::take(&mut first)),
        };
        let mut welcome = Vec::new();
        let keys = respond(
            &StaticKey::from_secret(GATEWAY),
            [8; 32],
            &hello_frame,
            now.wire_ms(),
            &PARAMETERS,
            &mut welcome,
        )
        .expect("the client's own HELLO");
        talk.sealer = Sealer::new(keys.gateway, now, RekeyPolicy::default());
        if over_datagrams {
            let mut accept = Vec::new();
            let message = Setup::Accept {
                cid: CID,
                welcome: &welcome,
            };
            hello::encode(nonce, &message, &mut accept);
            welcome = accept;
        }
        talk.receive(welcome);
        assert!(talk.client.parameters().is_some(), "the keys stand");
        talk
    }

    fn transmit(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.client
            .poll_transmit(self.now, &mut self.shared, &mut out);
        out
    }

    fn receive(&mut self, mut bytes: Vec<u8>) {
        let (way, events) = (&mut self.way, &mut self.events);
        let now = self.now;
        let mut note = |event: Event<'_>| {
            *events += 1;
            way.note(match event {
                Event::LoggedIn(_) => 1,
                Event::Resumed(_) => 2,
                Event::SessionLost(_) => 3,
                Event::GroupUp(_) => 4,
                Event::GroupDown(_) => 5,
                Event::Message(..) => 6,
                Event::Closed(_) => 8,
                _ => 7,
            });
        };
        self.client
            .handle_received(now, &mut bytes, &mut self.shared, &mut note);
    }

    /// What the application does, and time.
    fn act(&mut self, script: &mut Script<'_>, over_datagrams: bool) {
        match script.u8() % 4 {
            0 => {
                let group = GroupId(1 + u16::from(script.u8()) % GROUPS);
                let payload = script.piece();
                let _ = self.client.request(group, MessageId(1), payload);
            }
            1 => {
                self.now = self.now.after_ms(u64::from(script.u16()));
                let events = &mut self.events;
                self.client.handle_timeout(self.now, &mut |_| *events += 1);
            }
            2 => self.client.logout(self.now),
            _ => {
                // A gateway that only asks gets no more than it asks for.
                for _ in 0..64 {
                    let out = self.transmit();
                    if out.is_empty() {
                        break;
                    }
                    if over_datagrams {
                        assert!(out.len() <= DATAGRAM_BYTES_MAX);
                        assert!(split(&mut out.clone()).is_some());
                    }
                }
            }
        }
    }

    fn check(&mut self) {
        let outbox_max = GROUPS_MAX * OUTBOX_MESSAGES_MAX;
        assert!(self.client.outbox_messages() <= outbox_max);
        self.way.note(u64::from(self.client.is_closed()));
    }

    /// Nothing more comes: the client finds out within its deadlines.
    fn end(mut self) -> u64 {
        let mut closed = 0;
        let limit = self.now.after_ms(600_000);
        while let Some(at) = self.client.poll_timeout().filter(|&at| at < limit) {
            self.now = self.now.max(at) + 1;
            self.client.handle_timeout(self.now, &mut |event| {
                closed += u64::from(matches!(event, Event::Closed(_)));
            });
            // A datagram client is bounded by its window, a stream by its buffer.
            while !self.transmit().is_empty() {}
            if self.client.is_closed() {
                break;
            }
        }
        assert!(self.client.is_closed(), "it hears nothing and goes on");
        assert!(closed <= 1);
        self.way.value()
    }
}

/// Frames of a hostile gateway.
pub fn stream(data: &[u8]) -> u64 {
    let mut talk = Talk::begin(false);
    let mut script = Script::new(data);
    while !script.is_over() && !talk.client.is_closed() {
        let what = script.u8() % 8;
        talk.way.note(u64::from(what));
        match what {
            0..=3 => {
                let flags = if what == 1 {
                    protocol::frame::FLAG_COMPRESSED
                } else {
                    0
                };
                let body = script.piece();
                let mut frame = Vec::new();
                let write = |out: &mut Vec<u8>| out.extend_from_slice(body);
                talk.sealer.seal(talk.now, flags, &mut frame, write);
                talk.receive(frame);
            }
            4 => talk.receive(script.piece().to_vec()),
            _ => talk.act(&mut script, false),
        }
        talk.check();
        // What waits for the socket is what the gateway asked for, and one outbox a group.
        let out = talk.transmit();
        let asked = 64 * data.len() + 65_536 + GROUPS_MAX * OUTBOX_BYTES_MAX;
        assert!(out.len() <= asked, "{} bytes", out.len());
    }
    talk.end()
}

/// A login, groups that come up, messages, and every body.
pub fn stream_seeds() -> Vec<Vec<u8>> {
    let mut script = Lines::default();
    for body in bodies() {
        script = script.piece(0, &body).raw(&[5, 0, 1, 3, 0, 1, 2, 3]);
    }
    let mut seeds = vec![script.done()];
    let all = bodies();
    // LOGIN_OK, then the group, then one of each.
    for body in &all {
        let begin = Lines::default().piece(0, &all[1]).piece(0, &all[8]);
        let sent = begin.raw(&[5, 0, 0, 3, 0, 1, 2, 3, 5, 3]).piece(0, body);
        seeds.push(sent.raw(&[5, 3, 5, 1, 0x10, 0x27, 5, 3]).done());
    }
    seeds
}

/// Datagrams of a hostile gateway.
pub fn datagrams(data: &[u8]) -> u64 {
    let mut talk = Talk::begin(true);
    let mut script = Script::new(data);
    while !script.is_over() && !talk.client.is_closed() {
        let what = script.u8() % 8;
        talk.way.note(u64::from(what));
        match what {
            0..=3 => {
                let body = script.piece();
                let mut datagram = CID.0.to_le_bytes().to_vec();
                let write = |out: &mut Vec<u8>| out.extend_from_slice(body);
                talk.sealer.seal(talk.now, 0, &mut datagram, write);
                talk.receive(datagram);
            }
            4 => talk.receive(script.piece().to_vec()),
            _ => talk.act(&mut script, true),
        }
        talk.check();
        talk.transmit();
    }
    talk.end()
}

/// Every chunk, and a login in segments.
pub fn datagram_seeds() -> Vec<Vec<u8>> {
    let mut script = Lines::default();
    for chunks in chunk_seeds() {
        script = script.piece(0, &chunks).raw(&[5, 3]);
    }
    let mut seeds = vec![script.done()];
    let all = bodies();
    let mut login = Lines::default();
    for (number, body) in [&all[1], &all[8], &all[13], &all[3]].iter().enumerate() {
        let mut chunk = Vec::new();
        protocol::datagram::chunk::Chunk::Data {
            flags: 0,
            number: number as u32,
            bytes: body,
        }
        .encode(&mut chunk);
        login = login.piece(0, &chunk).raw(&[5, 0, 0, 3, 0, 1, 2, 3, 5, 3]);
    }
    seeds.push(login.done());
    seeds
}
