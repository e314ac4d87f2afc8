//! Reliable streams: one end against somebody who sends whatever SYNC, message or acknowledgement
//! he likes, and two honest ends over a path that loses, repeats and breaks.

use std::collections::VecDeque;

use protocol::body::{Body, Lane, MessageHeader, MessageKind, Sync};
use protocol::ids::{GroupId, Incarnation, MessageId};
use protocol::limits::{ACK_DELAY_MS, OUTBOX_BYTES_MAX};
use protocol::stream::{Delivery, OutboxLimits, StreamEnd};
use protocol::time::Time;

use crate::script::{Script, Way};

const GROUP: GroupId = GroupId(7);
const HEADER: MessageHeader = MessageHeader {
    kind: MessageKind::Request,
    lane: Lane::Reliable,
    more: false,
    group: GROUP,
    number: 0,
    ack: 0,
    message: MessageId(1),
    request: 9,
};
const LIMITS: OutboxLimits = OutboxLimits {
    messages_max: 16,
    bytes_max: 4_096,
};

fn decoded(message: &[u8]) -> (MessageHeader, &[u8]) {
    match Body::decode(message) {
        Ok(Body::Message { header, payload }) => (header, payload),
        other => panic!("an outbox holds {other:?}"),
    }
}

/// A script of what arrives at one end, and of what its application sends.
pub fn hostile(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let is_backend = script.u8() & 1 == 1;
    let mut end = match is_backend {
        true => StreamEnd::backend(GROUP, Incarnation(5)),
        false => StreamEnd::client(GROUP),
    };
    if is_backend {
        end.attach();
    }
    let mut now = Time(1_000_000);
    let mut way = Way::default();
    // The next number to be delivered, as this end last said it.
    let mut next: Option<u32> = None;
    let (mut pushed, mut pushed_bytes) = (0_u32, 0);
    let mut transmitted_bytes = 0;
    while !script.is_over() {
        let what = script.u8() % 9;
        way.note(u64::from(what));
        match what {
            0 => {
                let payload = script.piece();
                let payload = &payload[..payload.len().min(512)];
                if let Ok(number) = end.push(HEADER, payload, LIMITS) {
                    pushed += 1;
                    pushed_bytes += HEADER.encoded_bytes() + payload.len();
                    assert_eq!(number, pushed, "numbers have no gap");
                }
            }
            1 => {
                let sync = Sync {
                    fresh: script.u8() & 1 == 1,
                    group: GROUP,
                    incarnation: Incarnation(script.u8().into()),
                    next: script.u32(),
                    base: script.u32(),
                };
                let agreed = end.handle_sync(&sync);
                assert!(!agreed || end.is_open());
                // Either end may begin anew here: the client with an incarnation, the
                // backend with a base.
                next = None;
                way.note(u64::from(agreed));
            }
            2 => {
                let (number, ack) = (script.u32(), script.u32());
                let delivery = end.handle_message(number, ack, now);
                if delivery == Delivery::Deliver {
                    assert!(next.is_none_or(|next| next == number), "out of order");
                    assert_eq!(end.received(), number);
                    next = number.checked_add(1);
                }
                way.note(delivery as u64);
            }
            3 => end.handle_ack(script.u32()),
            4 => {
                end.handle_sequenced(script.u32());
                end.next_sequenced();
            }
            5 => now = now.after_ms(u64::from(script.u16())),
            6 => end.attach(),
            7 => end.detach(),
            _ => {
                if let Some(sync) = end.poll_sync() {
                    assert_eq!(sync.group, GROUP);
                    assert_eq!(
                        sync.base as usize + end.outbox_messages(),
                        pushed as usize + 1
                    );
                }
                let mut last = None;
                while let Some(message) = end.poll_transmit() {
                    transmitted_bytes += message.len();
                    let (header, _) = decoded(message);
                    assert!(last.is_none_or(|last| header.number == last + 1));
                    last = Some(header.number);
                }
                end.poll_ack(now);
            }
        }
        assert!(end.outbox_messages() <= LIMITS.messages_max);
        assert!(end.outbox_bytes() <= LIMITS.bytes_max);
        assert!(end.outbox_messages() <= pushed as usize);
        way.count(end.outbox_messages() as u64);
    }
    if is_backend && !data.contains(&6) {
        // What the bound on resends says, and one outbox by which it may be passed.
        let bound = pushed_bytes * 5 + 4 * OUTBOX_BYTES_MAX + LIMITS.bytes_max;
        assert!(transmitted_bytes <= bound, "{transmitted_bytes} bytes sent");
    }
    way.value()
}

/// A start, messages both ways, a gap, a resend.
pub fn hostile_seeds() -> Vec<Vec<u8>> {
    let sync = |fresh: u8, incarnation: u8, next: u32, base: u32| {
        let mut out = vec![1, fresh, incarnation];
        out.extend_from_slice(&next.to_le_bytes());
        out.extend_from_slice(&base.to_le_bytes());
        out
    };
    let message = |number: u32, ack: u32| {
        let mut out = vec![2];
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&ack.to_le_bytes());
        out
    };
    let mut seeds = Vec::new();
    for side in 0..2 {
        let script = [
            vec![side, 8],
            sync(1 - side, 5, 1, 1),
            vec![0, 3, 0, 1, 2, 3, 0, 1, 0, 4, 8],
            message(1, 0),
            message(2, 1),
            message(4, 1),
            vec![8, 5, 0, 2, 8],
            sync(0, 5, 2, 3),
            message(3, 2),
            vec![3, 2, 0, 0, 0, 4, 1, 0, 0, 0, 7, 6, 8],
            sync(1, 6, 1, 1),
            vec![8],
        ];
        seeds.push(script.concat());
    }
    seeds
}

#[derive(Clone, Debug)]
enum Item {
    Sync(Sync),
    Message(Vec<u8>),
    Ack(u32),
}

struct Party {
    end: StreamEnd,
    sent: u32,
    arrived: Vec<u32>,
    outgoing: VecDeque<Item>,
}

impl Party {
    fn new(end: StreamEnd) -> Self {
        Self {
            end,
            sent: 0,
            arrived: Vec::new(),
            outgoing: VecDeque::new(),
        }
    }

    fn say(&mut self) {
        let payload = (self.sent + 1).to_le_bytes();
        if self.end.push(HEADER, &payload, LIMITS).is_ok() {
            self.sent += 1;
        }
    }

    fn poll(&mut self, now: Time) {
        let sync = self.end.poll_sync().map(Item::Sync);
        self.outgoing.extend(sync);
        while let Some(message) = self.end.poll_transmit() {
            let message = message.to_vec();
            self.outgoing.push_back(Item::Message(message));
        }
        let ack = self.end.poll_ack(now).map(Item::Ack);
        self.outgoing.extend(ack);
    }

    fn handle(&mut self, item: Item, now: Time) {
        match item {
            Item::Sync(sync) => {
                self.end.handle_sync(&sync);
            }
            Item::Ack(ack) => self.end.handle_ack(ack),
            Item::Message(message) => {
                let (header, payload) = decoded(&message);
                if self.end.handle_message(header.number, header.ack, now) == Delivery::Deliver {
                    let payload = payload.try_into().expect("four bytes");
                    self.arrived.push(u32::from_le_bytes(payload));
                }
            }
        }
    }
}

/// A script of what happens between two honest ends; then the path is good, and everything arrives.
pub fn pair(data: &[u8]) -> u64 {
    let mut script = Script::new(data);
    let mut now = Time(1_000_000);
    let mut client = Party::new(StreamEnd::client(GROUP));
    let mut backend = Party::new(StreamEnd::backend(GROUP, Incarnation(1)));
    backend.end.attach();
    let mut way = Way::default();
    // An application that says more than this says the same again.
    let mut steps = 0;
    while !script.is_over() && steps < 1_000 {
        steps += 1;
        let byte = script.u8();
        let what = byte % 10;
        let count = usize::from(byte / 10 % 5);
        match what {
            0 => client.say(),
            1 => backend.say(),
            2 => client.poll(now),
            3 => backend.poll(now),
            4 => {
                for item in client.outgoing.drain(..count.min(client.outgoing.len())) {
                    backend.handle(item, now);
                }
            }
            5 => {
                for item in backend.outgoing.drain(..count.min(backend.outgoing.len())) {
                    client.handle(item, now);
                }
            }
            6 => now = now.after_ms(u64::from(byte) * 10),
            // The gateway drops what it cannot forward; it never drops a SYNC.
            7 => {
                let queue = match count % 2 {
                    0 => &mut client.outgoing,
                    _ => &mut backend.outgoing,
                };
                if let Some(item) = queue.pop_front()
                    && matches!(item, Item::Sync(_))
                {
                    queue.push_front(item);
                }
            }
            // The link breaks: of what is on its way a part is lost.
            _ => {
                let lost = count.min(client.outgoing.len());
                client.outgoing.drain(..lost);
                backend.outgoing.truncate(count);
                if byte & 1 == 0 {
                    client.end.detach();
                }
                backend.end.detach();
                backend.end.attach();
            }
        }
        for party in [&client, &backend] {
            let in_order = party
                .arrived
                .iter()
                .zip(1..)
                .all(|(&is, wanted)| is == wanted);
            assert!(in_order, "{:?}", party.arrived);
        }
        way.note(u64::from(what));
        way.count((client.arrived.len() + backend.arrived.len()) as u64);
    }
    backend.end.attach();
    for _ in 0..60 {
        now = now.after_ms(ACK_DELAY_MS);
        client.poll(now);
        backend.poll(now);
        for item in client.outgoing.drain(..) {
            backend.handle(item, now);
        }
        for item in backend.outgoing.drain(..) {
            client.handle(item, now);
        }
    }
    assert_eq!(
        backend.arrived.len(),
        client.sent as usize,
        "to the backend"
    );
    assert_eq!(client.arrived.len(), backend.sent as usize, "to the client");
    assert_eq!(
        client.end.outbox_messages() + backend.end.outbox_messages(),
        0
    );
    way.value()
}

/// Some of everything.
pub fn pair_seeds() -> Vec<Vec<u8>> {
    let run = [3, 35, 2, 34, 0, 0, 1, 2, 3, 34, 35, 6, 2, 3, 34, 35];
    let broken = [
        3, 45, 2, 44, 0, 0, 0, 1, 1, 2, 7, 44, 3, 17, 45, 8, 19, 3, 45, 2, 44,
    ];
    vec![
        run.to_vec(),
        broken.to_vec(),
        [run.to_vec(), broken.to_vec()].concat(),
    ]
}
