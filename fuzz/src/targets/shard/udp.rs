//! Clients over datagrams, from any of four addresses.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};

use gateway::testing;
use protocol::cipher::{RekeyPolicy, Sealer};
use protocol::datagram::chunk::{Ack, Chunk, Chunks};
use protocol::datagram::cookie::COOKIE_BYTES;
use protocol::datagram::hello::{self, Setup};
use protocol::datagram::window::DatagramOpener;
use protocol::datagram::{Cid, SETUP, split};
use protocol::frame::{Header, write_crc};
use protocol::handshake::{Initiator, read_reject};
use protocol::limits::{DATAGRAM_BYTES_MAX, SEALED_FRAME_BYTES_MIN};
use protocol::reason::DropReason;

use super::rig::Rig;
use super::stream::note_body;
use crate::script::Script;

/// What a script can do. The address comes first, where something is sent.
pub mod op {
    /// Seal chunks; the address is the first byte of the piece.
    pub const CHUNKS: u8 = 0;
    /// A body in the next segment.
    pub const DATA: u8 = 1;
    /// A good LOGIN in the next segment.
    pub const LOGIN: u8 = 2;
    /// Bytes as they are; the address is the first.
    pub const RAW: u8 = 3;
    /// Sealed chunks with one byte changed.
    pub const CHANGED: u8 = 4;
    /// Milliseconds pass.
    pub const TIME: u8 = 5;
    /// The game sends a body.
    pub const GAME: u8 = 6;
    /// See `Rig::event`.
    pub const EVENT: u8 = 7;
    /// A new connection: INIT, RETRY, INIT, ACCEPT.
    pub const CONNECT: u8 = 8;
    /// Acknowledge what has come.
    pub const ACK: u8 = 9;
    /// Answer the last challenge.
    pub const RESPOND: u8 = 10;
    /// Use the newest id.
    pub const CID: u8 = 11;
    /// A datagram that was sent before, from any address.
    pub const AGAIN: u8 = 12;
    /// Go on with another connection.
    pub const SELECT: u8 = 13;
    /// A sequence is left out.
    pub const SKIP: u8 = 14;
    /// Their number.
    pub const COUNT: u8 = 15;
}

/// Connections that one script may open.
const OPENED_MAX: usize = 10;
/// Datagrams remembered for `AGAIN`.
const REMEMBERED_MAX: usize = 16;

fn address(number: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 0, 0, 1 + (number & 3)).into(), 1_000)
}

/// One connection, from its client's side.
struct Link {
    cid: Cid,
    /// The id that the gateway told last.
    told: Cid,
    sealer: Sealer,
    opener: DatagramOpener,
    /// The next segment to send, and to be received.
    number: u32,
    next: u32,
    early: HashSet<u32>,
}

struct Clients {
    links: Vec<Link>,
    current: usize,
    /// The last challenge, and where it went.
    challenge: Option<(SocketAddr, [u8; 8])>,
    sent: Vec<Vec<u8>>,
    /// Bytes from and to each address.
    bytes: HashMap<SocketAddr, (usize, usize)>,
    /// Addresses that have shown that they receive.
    proven: HashSet<SocketAddr>,
    /// The answer to the last INIT.
    answer: Option<Vec<u8>>,
    inits: u8,
}

/// A script of what clients send.
pub fn run(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    // No balancer stands before datagrams.
    let mut rig = Rig::new(script.u8() & !4);
    let mut clients = Clients {
        links: Vec::new(),
        current: 0,
        challenge: None,
        sent: Vec::new(),
        bytes: HashMap::new(),
        proven: HashSet::new(),
        answer: None,
        inits: 0,
    };
    while !script.is_over() {
        let what = script.u8() % op::COUNT;
        rig.way.note(u64::from(what));
        clients.act(&mut rig, what, &mut script);
        clients.settle(&mut rig);
        rig.check();
    }
    let before = rig.shard.connections();
    let way = rig.end(|rig| clients.settle(rig));
    assert!(before <= OPENED_MAX);
    way
}

impl Clients {
    fn act(&mut self, rig: &mut Rig, what: u8, script: &mut Script<'_>) {
        match what {
            op::CHUNKS | op::CHANGED => {
                let piece = script.piece();
                let (from, chunks) = piece.split_first().unwrap_or((&0, &[]));
                let change = (what == op::CHANGED).then(|| (script.u16(), script.u8()));
                self.seal(rig, *from, chunks, change);
            }
            op::DATA => {
                let body = script.piece().to_vec();
                self.segment(rig, 0, &body);
            }
            op::LOGIN => {
                let from = script.u8();
                let body = rig.login();
                self.segment(rig, from, &body);
            }
            op::RAW => {
                let piece = script.piece();
                let (from, bytes) = piece.split_first().unwrap_or((&0, &[]));
                self.send(rig, *from, bytes.to_vec());
            }
            op::TIME => rig.pass(u64::from(script.u16())),
            op::GAME => rig.say(script.piece()),
            op::EVENT => rig.event(script),
            op::CONNECT => {
                let from = script.u8();
                if self.links.len() < OPENED_MAX {
                    self.connect(rig, from);
                }
            }
            op::ACK => {
                let from = script.u8();
                if let Some(link) = self.links.get(self.current) {
                    let bits = (0..64).map(|bit| (bit, link.next.wrapping_add(1 + bit)));
                    let early = bits.filter(|(_, number)| link.early.contains(number));
                    let ack = Ack {
                        next: link.next,
                        bitmap: early.fold(0, |bitmap, (bit, _)| bitmap | 1 << bit),
                        delay_us: 0,
                    };
                    let mut chunk = Vec::new();
                    Chunk::Ack(ack).encode(&mut chunk);
                    self.seal(rig, from, &chunk, None);
                }
            }
            op::RESPOND => {
                let from = script.u8();
                if let Some((to, token)) = self.challenge.take() {
                    self.proven.insert(to);
                    let mut chunk = Vec::new();
                    Chunk::Response(token).encode(&mut chunk);
                    self.seal(rig, from, &chunk, None);
                }
            }
            op::CID => {
                if let Some(link) = self.links.get_mut(self.current) {
                    link.cid = link.told;
                }
            }
            op::AGAIN => {
                let (at, from) = (usize::from(script.u8()), script.u8());
                if let Some(datagram) = self.sent.get(at % self.sent.len().max(1)).cloned() {
                    self.send(rig, from, datagram);
                }
            }
            op::SELECT => self.current = usize::from(script.u8()) % self.links.len().max(1),
            op::SKIP => {
                if let Some(link) = self.links.get_mut(self.current) {
                    link.sealer.seal(rig.now.time, 0, &mut Vec::new(), |_| {});
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, rig: &mut Rig, from: u8) {
        let gateway = testing::client_config(String::new()).gateway_key;
        self.inits += 1;
        let mut hello_frame = Vec::new();
        let ms = rig.now.time.wire_ms();
        let ephemeral = [20 + self.inits; 32];
        let initiator = Initiator::hello(&gateway, ephemeral, ms, &mut hello_frame);
        let nonce = u64::from(self.inits);
        let mut cookie = [0; COOKIE_BYTES];
        for _ in 0..2 {
            let mut init = Vec::new();
            let message = Setup::Init {
                cookie: &cookie,
                hello: &hello_frame,
            };
            hello::encode(nonce, &message, &mut init);
            self.answer = None;
            self.send(rig, from, init);
            self.settle(rig);
            let Some(answer) = self.answer.take() else {
                return;
            };
            match hello::decode(&answer) {
                Some((_, Setup::Retry { cookie: made })) => cookie = *made,
                Some((_, Setup::Accept { cid, welcome })) => {
                    let initiator = initiator.expect("a usable key");
                    let (keys, _) = initiator.welcome(welcome).expect("the shard's WELCOME");
                    self.proven.insert(address(from));
                    self.current = self.links.len();
                    self.links.push(Link {
                        cid,
                        told: cid,
                        sealer: Sealer::new(keys.client, rig.now.time, RekeyPolicy::default()),
                        opener: DatagramOpener::new(keys.gateway),
                        number: 0,
                        next: 0,
                        early: HashSet::new(),
                    });
                    return;
                }
                _ => return,
            }
        }
    }

    /// Sends a body in as many segments as it needs.
    fn segment(&mut self, rig: &mut Rig, from: u8, body: &[u8]) {
        let pieces: Vec<&[u8]> = body.chunks(1_000).collect();
        for (at, bytes) in pieces.iter().enumerate() {
            let Some(link) = self.links.get_mut(self.current) else {
                return;
            };
            let mut chunk = Vec::new();
            Chunk::Data {
                flags: u8::from(at + 1 < pieces.len()),
                number: link.number,
                bytes,
            }
            .encode(&mut chunk);
            link.number += 1;
            self.seal(rig, from, &chunk, None);
        }
    }

    fn seal(&mut self, rig: &mut Rig, from: u8, chunks: &[u8], change: Option<(u16, u8)>) {
        let Some(link) = self.links.get_mut(self.current) else {
            return;
        };
        let chunks = &chunks[..chunks.len().min(DATAGRAM_BYTES_MAX - 40)];
        let mut datagram = link.cid.0.to_le_bytes().to_vec();
        let write = |out: &mut Vec<u8>| out.extend_from_slice(chunks);
        link.sealer.seal(rig.now.time, 0, &mut datagram, write);
        if let Some((at, by)) = change {
            let at = usize::from(at) % datagram.len();
            datagram[at] ^= by;
            if by & 1 == 1 {
                write_crc(&mut datagram[8..]);
            }
        }
        if self.sent.len() == REMEMBERED_MAX {
            self.sent.remove(0);
        }
        self.sent.push(datagram.clone());
        self.send(rig, from, datagram);
    }

    fn send(&mut self, rig: &mut Rig, from: u8, mut datagram: Vec<u8>) {
        let from = address(from);
        self.bytes.entry(from).or_default().0 += datagram.len();
        rig.shard.handle_datagram(rig.now, from, &mut datagram);
    }

    /// Takes everything out of the shard, and reads it.
    fn settle(&mut self, rig: &mut Rig) {
        rig.turn();
        rig.actions.clear();
        assert!(rig.shard.poll_send().is_none(), "there is no stream");
        let mut out = Vec::new();
        while let Some((to, length)) = rig.shard.poll_datagrams(rig.now, &mut out) {
            assert!((1..=DATAGRAM_BYTES_MAX).contains(&length));
            for datagram in out.chunks_mut(length) {
                self.bytes.entry(to).or_default().1 += datagram.len();
                self.read(rig, to, datagram);
            }
            let (received, sent) = self.bytes[&to];
            assert!(
                self.proven.contains(&to) || sent <= received,
                "{sent} bytes to an address that sent {received}"
            );
            out.clear();
        }
        rig.turn();
    }

    fn read(&mut self, rig: &mut Rig, to: SocketAddr, datagram: &mut [u8]) {
        if datagram[0] == SETUP {
            let (_, message) = hello::decode(datagram).expect("the shard's answer");
            if let Setup::Refuse { reject } = message {
                let reason = read_reject(reject).expect("a reason");
                rig.way.note(reason as u64);
            }
            if let Setup::Accept { .. } = message {
                // Its INIT came with a cookie that was sent there.
                self.proven.insert(to);
            }
            self.answer = Some(datagram.to_vec());
            return;
        }
        assert_eq!(rig.counters.drops(DropReason::DatagramUnsent), 0);
        let (cid, frame) = split(datagram).expect("a sealed datagram");
        assert!(frame.len() >= SEALED_FRAME_BYTES_MIN, "an empty datagram");
        let header = Header::decode(frame).expect("a whole header");
        let link = self.links.iter_mut().find_map(|link| {
            let mut copy = frame.to_vec();
            let body = link.opener.open(&header, &mut copy).ok()?.body.to_vec();
            Some((link, body))
        });
        // The ACCEPT of an INIT in a script may have found nobody who can read it.
        let Some((link, body)) = link else {
            return;
        };
        assert!(!body.is_empty());
        for chunk in Chunks::new(&body) {
            match chunk.expect("the shard's chunks") {
                Chunk::Challenge(token) => self.challenge = Some((to, token)),
                Chunk::NewCid(cid) => link.told = cid,
                Chunk::Body { bytes, .. } => note_body(&mut rig.way, bytes),
                Chunk::Data {
                    flags,
                    number,
                    bytes,
                } => {
                    link.early.insert(number);
                    while link.early.remove(&link.next) {
                        link.next += 1;
                    }
                    if flags & protocol::datagram::chunk::MORE == 0 && bytes.len() > 300 {
                        rig.way.note(1 << 20);
                    }
                }
                Chunk::Ack(_) | Chunk::Response(_) | Chunk::Padding(_) => {}
            }
        }
        let known = link.cid == cid || link.told == cid;
        assert!(known, "an id that the client was not told");
    }
}
