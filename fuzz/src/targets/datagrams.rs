//! Ends of datagram connections: one against a peer that has the keys and sends whatever chunks
//! it likes, and two honest ones over a network that loses, repeats and reorders.

use protocol::body::{Body, Lane, MessageHeader, MessageKind};
use protocol::cipher::{Key, RekeyPolicy, Sealer};
use protocol::datagram::arq::Received;
use protocol::datagram::chunk::{Chunk, Chunks};
use protocol::datagram::{Cid, End, split};
use protocol::ids::{GroupId, MessageId};
use protocol::limits::{
    DATAGRAM_BYTES_MAX, DATAGRAM_WINDOW, DATAGRAM_WINDOW_BEFORE_LOGIN, SEALED_FRAME_BYTES_MIN,
};
use protocol::time::Time;

use super::layouts::{bodies, chunk_seeds};
use crate::script::{Lines, Script, Way};

const CID: Cid = Cid(0x700);
const ONE: Key = Key([1; 32]);
const OTHER: Key = Key([2; 32]);
/// Bytes of the longest message that a peer may send here.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// What a datagram's piece of a message may have at the most.
const PIECE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX;

fn end(seal: Key, open: Key, now: Time) -> End {
    let policy = RekeyPolicy::default();
    End::new(
        CID,
        seal,
        open,
        policy,
        Some(now.wire_ms()),
        MESSAGE_BYTES_MAX,
        now,
    )
}

fn message(lane: Lane, payload: &[u8]) -> Vec<u8> {
    let header = MessageHeader {
        kind: MessageKind::Message,
        lane,
        more: false,
        group: GroupId(1),
        number: 0,
        ack: 0,
        message: MessageId(1),
        request: 0,
    };
    let mut body = Vec::new();
    Body::Message { header, payload }.encode(&mut body);
    body
}

/// Hands the chunks of an opened datagram to an end, as client and gateway do.
fn handle_chunks(
    end: &mut End,
    now: Time,
    body: &[u8],
    messages: &mut Vec<Vec<u8>>,
    way: &mut Way,
) -> bool {
    for chunk in Chunks::new(body) {
        let Ok(chunk) = chunk else {
            return false;
        };
        match chunk {
            Chunk::Ack(ack) => end.handle_ack(now, &ack),
            Chunk::Challenge(token) => end.handle_challenge(token),
            Chunk::Response(_) | Chunk::Padding(_) => {}
            Chunk::NewCid(cid) => end.cid = cid,
            Chunk::Body { bytes, .. } => messages.push(bytes.to_vec()),
            Chunk::Data {
                flags,
                number,
                bytes,
            } => {
                let received = end.receive(now, flags, number, bytes);
                match received {
                    Received::Message => messages.push(bytes.to_vec()),
                    Received::Kept | Received::Refused => {}
                    Received::TooLong => return false,
                }
                while let Some(message) = end.poll_message() {
                    let Ok((_, bytes)) = message else {
                        return false;
                    };
                    messages.push(bytes);
                }
            }
        }
        way.note(1);
    }
    true
}

/// What the peer can make an end keep.
fn held_bytes_max(window: u32) -> usize {
    window as usize * PIECE_BYTES_MAX + MESSAGE_BYTES_MAX
}

/// A script of what a peer with the keys sends.
pub fn hostile(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let mut now = Time(1_000_000);
    let mut end = end(ONE, OTHER, now);
    let mut peer = Sealer::new(OTHER, now, RekeyPolicy::default());
    let mut window = DATAGRAM_WINDOW_BEFORE_LOGIN;
    let mut way = Way::default();
    let mut messages = Vec::new();
    let mut pushed = 0;
    while !script.is_over() {
        let what = script.u8() % 8;
        way.note(u64::from(what));
        match what {
            0..=2 => {
                let body = script.piece();
                let mut frame = Vec::new();
                peer.seal(now, 0, &mut frame, |out| out.extend_from_slice(body));
                let Ok(opened) = end.open(now, &mut frame) else {
                    assert!(body.is_empty(), "what the peer seals opens");
                    continue;
                };
                let body = opened.body.to_vec();
                if !handle_chunks(&mut end, now, &body, &mut messages, &mut way) {
                    // The connection closes.
                    break;
                }
            }
            3 => {
                window = DATAGRAM_WINDOW;
                end.open_window(MESSAGE_BYTES_MAX);
            }
            4 => {
                let body = message(Lane::Reliable, script.piece());
                end.push(0, &[&body]);
                pushed += body.len();
            }
            5 => {
                let body = message(Lane::Unreliable, script.piece());
                end.push(0, &[&body]);
                // A chunk has its head before it.
                pushed += body.len() + 4;
            }
            6 => {
                now = now.after_ms(u64::from(script.u16()));
                end.handle_timeout(now);
            }
            _ => {
                let bytes_max = usize::from(script.u16());
                let mut out = Vec::new();
                while end.write(now, bytes_max, &mut out) {
                    check_datagram(&out, bytes_max);
                    out.clear();
                }
            }
        }
        assert!(end.queued_bytes() <= pushed, "more than was given to it");
        assert!(
            end.held_bytes() <= held_bytes_max(window),
            "{} bytes held of a window of {window}",
            end.held_bytes()
        );
        assert!(
            end.held_segments() < window as usize,
            "{} segments held of a window of {window}",
            end.held_segments()
        );
        let longest = messages.iter().map(Vec::len).max().unwrap_or(0);
        assert!(longest <= MESSAGE_BYTES_MAX.max(PIECE_BYTES_MAX));
        way.count(messages.len() as u64);
        way.count(end.held_bytes() as u64);
        way.count(end.queued_bytes() as u64);
    }
    way.value()
}

/// A datagram is within its bounds and says something: what is too short is dropped unread.
fn check_datagram(datagram: &[u8], bytes_max: usize) {
    assert!(datagram.len() <= bytes_max.min(DATAGRAM_BYTES_MAX));
    let mut copy = datagram.to_vec();
    let (_, frame) = split(&mut copy).expect("a sealed datagram");
    assert!(frame.len() >= SEALED_FRAME_BYTES_MIN, "an empty datagram");
}

/// Chunks of every kind, in and out of order, before and after the window opens.
pub fn hostile_seeds() -> Vec<Vec<u8>> {
    let mut all = Lines::default();
    let mut opened = Lines::default().raw(&[3]);
    for chunks in chunk_seeds() {
        all = all.piece(0, &chunks);
        opened = opened
            .piece(4, &[7; 700])
            .piece(5, &[7; 40])
            .raw(&[7, 0xb0, 4])
            .piece(0, &chunks);
    }
    let mut early = Lines::default();
    for number in [3, 1, 2, 4, 70, 0] {
        let mut chunk = Vec::new();
        Chunk::Data {
            flags: u8::from(number % 2 == 0),
            number,
            bytes: &bodies()[10],
        }
        .encode(&mut chunk);
        early = early.piece(0, &chunk);
    }
    // Direct bodies of which a short one is followed by a long one, after a small datagram.
    let uneven = Lines::default()
        .piece(5, &[7; 600])
        .piece(5, &[7; 1_000])
        .raw(&[7, 0x80, 2, 6, 100, 0, 7, 0xb0, 4]);
    vec![all.done(), opened.done(), early.done(), uneven.done()]
}

struct Peer {
    end: End,
    sent: Vec<Vec<u8>>,
    arrived: Vec<Vec<u8>>,
    /// Datagrams on their way to the other one.
    network: Vec<Vec<u8>>,
}

impl Peer {
    fn new(end: End) -> Self {
        Self {
            end,
            sent: Vec::new(),
            arrived: Vec::new(),
            network: Vec::new(),
        }
    }

    fn say(&mut self, payload: &[u8]) {
        let body = message(Lane::Reliable, payload);
        if self.end.queued_bytes() + body.len() < 1 << 16 {
            self.end.push(0, &[&body]);
            self.sent.push(body);
        }
    }

    fn write(&mut self, now: Time) {
        let mut out = Vec::new();
        while self.network.len() < 256 && self.end.write(now, DATAGRAM_BYTES_MAX, &mut out) {
            check_datagram(&out, DATAGRAM_BYTES_MAX);
            self.network.push(std::mem::take(&mut out));
        }
    }

    fn read(&mut self, now: Time, datagram: &[u8], way: &mut Way) {
        let mut copy = datagram.to_vec();
        let Some((cid, frame)) = split(&mut copy) else {
            return;
        };
        assert_eq!(cid, CID);
        if let Ok(opened) = self.end.open(now, frame) {
            let body = opened.body.to_vec();
            let honest = handle_chunks(&mut self.end, now, &body, &mut self.arrived, way);
            assert!(honest, "an honest peer closes a connection");
        }
    }
}

/// A script of what the network does; then it is good, and everything has arrived, in order.
pub fn pair(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let mut now = Time(1_000_000);
    let mut peers = [
        Peer::new(end(ONE, OTHER, now)),
        Peer::new(end(OTHER, ONE, now)),
    ];
    for peer in &mut peers {
        peer.end.open_window(MESSAGE_BYTES_MAX);
    }
    let mut way = Way::default();
    while !script.is_over() {
        let byte = script.u8();
        let (what, who) = (byte >> 1 & 7, usize::from(byte & 1));
        way.note(u64::from(byte));
        match what {
            0 | 1 => {
                let count = usize::from(script.u16()) % MESSAGE_BYTES_MAX / 2;
                peers[who].say(&vec![byte; count]);
            }
            2 => peers[who].write(now),
            3 => now = now.after_ms(u64::from(script.u8())),
            _ => {
                let length = peers[who].network.len();
                if length == 0 {
                    continue;
                }
                let at = usize::from(script.u8()) % length;
                let mut datagram = match what {
                    // Twice, and lost.
                    5 => peers[who].network[at].clone(),
                    6 => {
                        peers[who].network.remove(at);
                        continue;
                    }
                    _ => peers[who].network.remove(at),
                };
                if what == 7 {
                    let at = usize::from(script.u8()) % datagram.len();
                    datagram[at.max(8)] ^= 1 << (byte >> 4 & 7);
                }
                peers[1 - who].read(now, &datagram, &mut way);
            }
        }
        for peer in &mut peers {
            peer.end.handle_timeout(now);
        }
    }
    for _ in 0..400 {
        now = now.after_ms(30);
        for who in 0..2 {
            peers[who].end.handle_timeout(now);
            peers[who].write(now);
            for datagram in std::mem::take(&mut peers[who].network) {
                peers[1 - who].read(now, &datagram, &mut way);
            }
        }
        if peers.iter().all(|peer| peer.end.queued_bytes() == 0) {
            break;
        }
    }
    let [one, other] = &peers;
    assert!(
        one.sent == other.arrived && other.sent == one.arrived,
        "lost or doubled"
    );
    assert_eq!(one.end.queued_bytes() + other.end.queued_bytes(), 0);
    way.value()
}

/// Messages both ways, with each thing that a network does.
pub fn pair_seeds() -> Vec<Vec<u8>> {
    let say = |who: u8, count: u16| [&[who][..], &count.to_le_bytes()].concat();
    let good = [
        say(0, 100),
        say(1, 3_000),
        vec![4, 5, 8, 0, 9, 0, 9, 0, 6, 30, 4, 5, 8, 0, 9, 0],
    ];
    let bad = [
        say(0, 8_000),
        say(0, 8_000),
        say(1, 10),
        vec![
            4, 5, 12, 0, 8, 1, 10, 0, 14, 0, 9, 9, 0, 6, 100, 4, 5, 8, 2, 13, 0, 6, 200, 4,
        ],
    ];
    vec![
        good.concat(),
        bad.concat(),
        [good.concat(), bad.concat()].concat(),
    ]
}
