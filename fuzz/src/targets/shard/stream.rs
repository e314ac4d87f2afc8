//! Clients over byte streams: plain TCP and WebSocket.

use std::net::{Ipv4Addr, SocketAddr};

use gateway::engine::{ConnId, SendBuffer};
use gateway::shard::Action;
use gateway::testing;
use protocol::body::{Body, ChannelNotice};
use protocol::buffers::Buffers;
use protocol::check::{self, ClockOffset};
use protocol::cipher::{Opener, RekeyPolicy, Sealer};
use protocol::frame::{FLAG_COMPRESSED, write_crc};
use protocol::handshake::Initiator;
use protocol::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use protocol::reassembly::Reassembly;
use protocol::ticket::Ticket;
use protocol::websocket::client::{ClientEnd, Received};

use super::rig::{Rig, conn};
use crate::script::{Script, Way};

/// What a script can do.
pub mod op {
    /// Seal a body and send it.
    pub const BODY: u8 = 0;
    /// The same, said to be compressed.
    pub const COMPRESSED: u8 = 1;
    /// A good LOGIN.
    pub const LOGIN: u8 = 2;
    /// Bytes as they are.
    pub const RAW: u8 = 3;
    /// A sealed body with one byte changed.
    pub const CHANGED: u8 = 4;
    /// Milliseconds pass.
    pub const TIME: u8 = 5;
    /// The game sends a body.
    pub const GAME: u8 = 6;
    /// See `Rig::event`, and more.
    pub const EVENT: u8 = 7;
    /// A new connection with its handshake.
    pub const CONNECT: u8 = 8;
    /// The same with the last ticket.
    pub const RESUME: u8 = 9;
    /// A new connection that has said nothing.
    pub const OPEN: u8 = 10;
    /// HELLO on this connection.
    pub const HELLO: u8 = 11;
    /// Go on with another connection.
    pub const SELECT: u8 = 12;
    /// A frame is lost, or the key changes.
    pub const SKIP: u8 = 13;
    /// Their number.
    pub const COUNT: u8 = 14;
}

/// Connections that one script may open.
const OPENED_MAX: usize = 12;

struct Keys {
    sealer: Sealer,
    opener: Opener,
    clock: ClockOffset,
    ticket: Ticket,
}

/// One connection, from its client's side.
struct Link {
    id: ConnId,
    is_open: bool,
    paused: bool,
    initiator: Option<Initiator>,
    keys: Option<Keys>,
    websocket: Option<ClientEnd>,
    reassembly: Reassembly,
    /// What it sent that was not what a client sends: from then on it does not know what it gets.
    is_lost: bool,
}

struct Clients {
    over_websocket: bool,
    links: Vec<Link>,
    current: usize,
    /// The client reads what it is sent.
    reads: bool,
    /// What the engine has of those who do not.
    unsent: Vec<(ConnId, SendBuffer)>,
    ticket: Option<Ticket>,
    pool: Buffers,
}

/// A script of what clients send.
pub fn run(data: &[u8], over_websocket: bool) -> u64 {
    let mut script = Script::new(data);
    let mut rig = Rig::new(script.u8());
    let mut clients = Clients {
        over_websocket,
        links: Vec::new(),
        current: 0,
        reads: true,
        unsent: Vec::new(),
        ticket: None,
        pool: Buffers::default(),
    };
    while !script.is_over() {
        let what = script.u8() % op::COUNT;
        rig.way.note(u64::from(what));
        clients.act(&mut rig, what, &mut script);
        clients.settle(&mut rig);
        rig.check();
    }
    clients.reads = true;
    rig.end(|rig| clients.settle(rig))
}

impl Clients {
    fn act(&mut self, rig: &mut Rig, what: u8, script: &mut Script<'_>) {
        match what {
            op::BODY | op::COMPRESSED | op::CHANGED => {
                let flags = match what {
                    op::COMPRESSED => FLAG_COMPRESSED,
                    _ => 0,
                };
                let body = script.piece().to_vec();
                let change = (what == op::CHANGED).then(|| (script.u16(), script.u8()));
                self.seal(rig, flags, &body, change);
            }
            op::LOGIN => {
                let body = rig.login();
                self.seal(rig, 0, &body, None);
            }
            op::RAW => {
                let bytes = script.piece().to_vec();
                if let Some(link) = self.links.get_mut(self.current) {
                    link.is_lost = true;
                    self.send(rig, bytes);
                }
            }
            op::TIME => rig.pass(u64::from(script.u16())),
            op::GAME => rig.say(script.piece()),
            op::EVENT => match script.u8() % 12 {
                8 => self.reads ^= true,
                9 => {
                    if let Some(link) = self.links.get_mut(self.current) {
                        close(rig, link);
                    }
                }
                _ => rig.event(script),
            },
            op::CONNECT | op::RESUME | op::OPEN if self.links.len() < OPENED_MAX => {
                self.open(rig);
                match what {
                    op::CONNECT => self.hello(rig),
                    op::RESUME => self.resume(rig),
                    _ => {}
                }
            }
            op::HELLO => self.hello(rig),
            op::SELECT => self.current = usize::from(script.u8()) % self.links.len().max(1),
            op::SKIP => {
                let rekeys = script.u8() & 1 == 1;
                let link = self.links.get_mut(self.current);
                if let Some(keys) = link.and_then(|link| link.keys.as_mut()) {
                    match rekeys {
                        true => keys.sealer.rekey(rig.now.time),
                        false => keys.sealer.seal(rig.now.time, 0, &mut Vec::new(), |_| {}),
                    }
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, rig: &mut Rig) {
        let id = conn(self.links.len());
        let peer = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1_000 + id.index as u16);
        self.current = self.links.len();
        self.links.push(Link {
            id,
            is_open: true,
            paused: false,
            initiator: None,
            keys: None,
            websocket: None,
            reassembly: Reassembly::default(),
            is_lost: false,
        });
        rig.shard.handle_accepted(rig.now, id, Some(peer));
        self.settle(rig);
        if self.over_websocket {
            let end = ClientEnd::new("localhost", [id.index as u8; 16]);
            self.links[self.current].websocket = Some(end);
            self.send_frames(rig, &[]);
            self.settle(rig);
        }
    }

    fn hello(&mut self, rig: &mut Rig) {
        let mut out = Vec::new();
        let Some(link) = self.links.get_mut(self.current) else {
            return;
        };
        if link.keys.is_none() && link.initiator.is_none() {
            let gateway = testing::client_config(String::new()).gateway_key;
            let ephemeral = [20 + link.id.index as u8; 32];
            let now = rig.now.time.wire_ms();
            link.initiator = Initiator::hello(&gateway, ephemeral, now, &mut out).ok();
            self.send_frames(rig, &out);
            self.settle(rig);
        }
    }

    fn resume(&mut self, rig: &mut Rig) {
        let (Some(ticket), Some(link)) = (&self.ticket, self.links.get_mut(self.current)) else {
            return;
        };
        let mut out = Vec::new();
        let ephemeral = [60 + link.id.index as u8; 32];
        let now = rig.now.time.wire_ms();
        link.initiator = Initiator::resume(ticket, ephemeral, now, &mut out).ok();
        self.send_frames(rig, &out);
        self.settle(rig);
    }

    fn seal(&mut self, rig: &mut Rig, flags: u8, body: &[u8], change: Option<(u16, u8)>) {
        let Some(link) = self.links.get_mut(self.current) else {
            return;
        };
        let Some(keys) = &mut link.keys else {
            return;
        };
        let mut frame = Vec::new();
        let write = |out: &mut Vec<u8>| out.extend_from_slice(body);
        keys.sealer.seal(rig.now.time, flags, &mut frame, write);
        if let Some((at, by)) = change {
            let at = usize::from(at) % frame.len();
            frame[at] ^= by;
            if by & 1 == 1 {
                write_crc(&mut frame);
            }
            link.is_lost |= frame.len() < FRAME_HEADER_BYTES;
        }
        self.send_frames(rig, &frame);
    }

    /// Sends frames, each in a message where this is a WebSocket.
    fn send_frames(&mut self, rig: &mut Rig, frames: &[u8]) {
        let Some(link) = self.links.get_mut(self.current) else {
            return;
        };
        let mut out = Vec::new();
        match &mut link.websocket {
            Some(end) => end.wrap(frames, &mut out),
            None => out.extend_from_slice(frames),
        }
        self.send(rig, out);
    }

    fn send(&mut self, rig: &mut Rig, mut bytes: Vec<u8>) {
        let Some(link) = self.links.get_mut(self.current) else {
            return;
        };
        // An engine reads nothing of somebody who is paused.
        if link.is_open && !link.paused && !bytes.is_empty() {
            rig.shard.handle_received(rig.now, link.id, &mut bytes);
        }
    }

    /// Takes everything out of the shard.
    fn settle(&mut self, rig: &mut Rig) {
        loop {
            rig.turn();
            let mut silent = true;
            while let Some((id, buffer)) = rig.shard.poll_send() {
                silent = false;
                self.unsent.push((id, buffer));
            }
            if self.reads {
                for (id, buffer) in std::mem::take(&mut self.unsent) {
                    let link = &mut self.links[id.index as usize];
                    if link.is_open {
                        let mut bytes = buffer.to_vec();
                        read(rig, link, &mut bytes, &mut self.pool);
                        rig.shard.handle_sent(id, buffer);
                    }
                }
            }
            while let Some(action) = rig.actions.pop_front() {
                silent = false;
                match action {
                    Action::Close(id) => {
                        let link = &mut self.links[id.index as usize];
                        assert_eq!(link.id, id);
                        close(rig, link);
                    }
                    Action::Pause(id) => self.pause(id, true),
                    Action::Resume(id) => self.pause(id, false),
                    _ => {}
                }
            }
            if silent {
                break;
            }
        }
        for link in &mut self.links {
            if let Some(keys) = &link.keys
                && link.is_open
            {
                self.ticket = Some(keys.ticket.clone());
            }
        }
    }

    fn pause(&mut self, id: ConnId, paused: bool) {
        if let Some(link) = self.links.get_mut(id.index as usize) {
            link.paused = paused;
        }
    }
}

fn close(rig: &mut Rig, link: &mut Link) {
    if std::mem::replace(&mut link.is_open, false) {
        rig.shard.handle_closed(rig.now, link.id);
    }
}

/// What the shard sent to a client: frames that open, one after the other, and decode.
fn read(rig: &mut Rig, link: &mut Link, bytes: &mut [u8], pool: &mut Buffers) {
    let Link {
        websocket,
        reassembly,
        initiator,
        keys,
        is_lost,
        ..
    } = link;
    let mut rest = bytes;
    let Some(end) = websocket else {
        loop {
            match reassembly.next(&mut rest, FRAME_BYTES_MAX, pool) {
                Ok(Some(frame)) => read_frame(rig, initiator, keys, frame),
                Ok(None) => return,
                Err(bad) => {
                    assert!(*is_lost, "the shard sent a length of {}", bad.0);
                    return;
                }
            }
        }
    };
    loop {
        match end.next(&mut rest, pool) {
            Ok(Some(Received::Message(frame))) => read_frame(rig, initiator, keys, frame),
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(refused) => {
                let full = matches!(refused, protocol::websocket::client::Refused::Status(_));
                assert!(*is_lost || full, "the shard sent {refused:?}");
                return;
            }
        }
    }
}

fn read_frame(
    rig: &mut Rig,
    initiator: &mut Option<Initiator>,
    keys: &mut Option<Keys>,
    frame: &mut [u8],
) {
    let now = rig.now.time;
    if let Some(keys) = keys {
        let opened = check::open(frame, &mut keys.opener, &mut keys.clock, now);
        let opened = opened.expect("a frame of the shard");
        note_body(&mut rig.way, opened.body);
        return;
    }
    match initiator.take().map(|initiator| initiator.welcome(frame)) {
        Some(Ok((found, _))) => {
            *keys = Some(Keys {
                ticket: found.ticket(),
                sealer: Sealer::new(found.client, now, RekeyPolicy::default()),
                opener: Opener::new(found.gateway),
                clock: ClockOffset::new(now.wire_ms(), now),
            });
        }
        Some(Err(reason)) => rig.way.note(reason as u64),
        None => {
            let rejected = protocol::handshake::read_reject(frame).is_some();
            assert!(rejected, "a frame that nobody can read");
        }
    }
}

/// What a gateway sends decodes.
pub fn note_body(way: &mut Way, body: &[u8]) {
    match Body::decode(body) {
        Ok(
            Body::Login(_)
            | Body::Logout
            | Body::Attach
            | Body::SideOpen
            | Body::Channel {
                notice: ChannelNotice::CatchUp { .. },
                ..
            },
        ) => {
            panic!("a client's body")
        }
        Ok(Body::Close { reason, .. }) => way.note(u64::from(reason)),
        Ok(_) => way.note(u64::from(body[0])),
        Err(bad) => panic!("the shard sealed {bad:?}"),
    }
}
