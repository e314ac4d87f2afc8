//! A client's end and a backend's end over a channel with faults, against two
//! lists of what was sent.
//!
//! Rules: while an incarnation lives, what arrives is exactly what was sent, once
//! and in order; what was acknowledged to a client was processed by some
//! incarnation; and once faults end, everything has arrived and both outboxes
//! run empty.

use std::collections::VecDeque;

use super::*;

#[derive(Clone, Debug)]
enum Item {
    Sync(Sync),
    Message(Vec<u8>),
    Ack(u32),
}

/// One end with its application.
struct Party {
    end: StreamEnd,
    /// Counts what this application sends; the payload of each message.
    sent: u32,
    /// What arrived, in order.
    arrived: Vec<u32>,
    /// Items on their way to the other one.
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
        let limits = OutboxLimits {
            messages_max: 50,
            bytes_max: 2_000,
        };
        let payload = (self.sent + 1).to_le_bytes();
        if self.end.push(header(), &payload, limits).is_ok() {
            self.sent += 1;
        }
    }

    fn poll(&mut self, now: Time) {
        if let Some(sync) = self.end.poll_sync() {
            self.outgoing.push_back(Item::Sync(sync));
        }
        while let Some(message) = self.end.poll_transmit() {
            let message = message.to_vec();
            self.outgoing.push_back(Item::Message(message));
        }
        if let Some(ack) = self.end.poll_ack(now) {
            self.outgoing.push_back(Item::Ack(ack));
        }
    }

    fn handle(&mut self, item: Item, now: Time) {
        match item {
            Item::Sync(sync) => {
                self.end.handle_sync(&sync);
            }
            Item::Ack(ack) => self.end.handle_ack(ack),
            Item::Message(message) => {
                let (number, ack, payload) = decoded(&message);
                if self.end.handle_message(number, ack, now) == Delivery::Deliver {
                    let payload = <[u8; 4]>::try_from(payload).unwrap();
                    self.arrived.push(u32::from_le_bytes(payload));
                }
            }
        }
    }
}

struct World {
    random: Random,
    now: Time,
    client: Party,
    backend: Party,
    incarnation: u64,
    /// The highest message that any incarnation has processed.
    processed: u32,
    /// Faults that happened, so that a history without any is noticed.
    faults: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            now: START,
            client: Party::new(StreamEnd::client(GROUP)),
            backend: Party::new(StreamEnd::backend(GROUP, Incarnation(1))),
            incarnation: 1,
            processed: 0,
            faults: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.client.say(),
            20..40 => self.backend.say(),
            40..55 => self.client.poll(self.now),
            55..70 => self.backend.poll(self.now),
            70..80 => self.deliver_to_backend(),
            80..90 => self.deliver_to_client(),
            90..93 => self.now = self.now.after_ms(self.random.below(4_000)),
            93..96 => self.lose_one(),
            96..99 => self.cut(),
            _ => self.replace_backend(),
        }
        self.check();
    }

    fn deliver_to_backend(&mut self) {
        for _ in 0..=self.random.below(6) {
            if let Some(item) = self.client.outgoing.pop_front() {
                self.backend.handle(item, self.now);
            }
        }
    }

    fn deliver_to_client(&mut self) {
        for _ in 0..=self.random.below(6) {
            if let Some(item) = self.backend.outgoing.pop_front() {
                self.client.handle(item, self.now);
            }
        }
    }

    /// The gateway drops one message that it can't forward; it never drops SYNC.
    fn lose_one(&mut self) {
        let to_backend = self.random.below(2) == 0;
        let queue = if to_backend {
            &mut self.client.outgoing
        } else {
            &mut self.backend.outgoing
        };
        if !queue.is_empty() {
            let at = self.random.below(queue.len() as u64) as usize;
            if !matches!(queue[at], Item::Sync(_)) {
                queue.remove(at);
                self.faults += 1;
            }
        }
    }

    /// The link between gateway and backend breaks and comes back: what the
    /// client sent before is lost, what was on its way to it from the gateway
    /// still arrives; the client may or may not have noticed.
    fn cut(&mut self) {
        self.break_link();
        self.backend.end.detach();
        if self.random.below(3) > 0 {
            self.backend.end.attach();
        }
    }

    fn break_link(&mut self) {
        self.faults += 1;
        let lost = self.random.below(self.client.outgoing.len() as u64 + 1) as usize;
        self.client.outgoing.drain(..lost);
        let kept = self.random.below(self.backend.outgoing.len() as u64 + 1) as usize;
        self.backend.outgoing.truncate(kept);
        if self.random.below(2) == 0 {
            self.client.end.detach();
        }
    }

    /// The backend's process dies; another one knows nothing of the session.
    fn replace_backend(&mut self) {
        self.break_link();
        self.incarnation += 1;
        let outgoing = std::mem::take(&mut self.backend.outgoing);
        self.backend = Party::new(StreamEnd::backend(GROUP, Incarnation(self.incarnation)));
        self.backend.outgoing = outgoing;
        self.backend.end.attach();
        // A new incarnation counts anew, so the client's list does too: the SYNC
        // that tells it is on its way behind what is left of the old one.
    }

    fn check(&mut self) {
        // What one incarnation got is consecutive, and begins at or before the
        // first message that no incarnation has processed.
        let arrived = &self.backend.arrived;
        for pair in arrived.windows(2) {
            assert_eq!(pair[1], pair[0] + 1, "a backend got {arrived:?}");
        }
        if let Some(&first) = arrived.first() {
            assert!(
                first <= self.processed + 1,
                "{} and then {first}",
                self.processed
            );
        }
        self.processed = self.processed.max(arrived.last().copied().unwrap_or(0));
        // What the client let go of was processed.
        let kept = self.client.end.outbox_messages() as u32;
        assert!(self.client.sent - kept <= self.processed);
        // What the client got of one incarnation is consecutive from 1; a new
        // one begins at 1 again.
        for pair in self.client.arrived.windows(2) {
            assert!(
                pair[1] == pair[0] + 1 || pair[1] == 1,
                "{:?}",
                self.client.arrived
            );
        }
    }

    /// No more faults: everything arrives.
    fn heal(&mut self) {
        self.backend.end.attach();
        for _ in 0..60 {
            self.now = self.now.after_ms(ACK_DELAY_MS);
            self.client.poll(self.now);
            self.backend.poll(self.now);
            while let Some(item) = self.client.outgoing.pop_front() {
                self.backend.handle(item, self.now);
            }
            while let Some(item) = self.backend.outgoing.pop_front() {
                self.client.handle(item, self.now);
            }
            self.check();
        }
        assert_eq!(self.processed, self.client.sent);
        assert_eq!(self.client.end.outbox_messages(), 0);
        assert_eq!(self.backend.end.outbox_messages(), 0);
        // All of the last incarnation's messages, once, in order.
        let sent: Vec<_> = (1..=self.backend.sent).collect();
        assert!(self.client.arrived.ends_with(&sent));
    }
}

#[test]
fn nothing_is_lost_doubled_or_reordered() {
    let (mut faults, mut arrived, mut incarnations) = (0, 0, 0);
    for seed in 0..400 {
        let mut world = World::new(seed);
        world.backend.end.attach();
        for _ in 0..500 {
            world.step();
        }
        world.heal();
        faults += world.faults;
        arrived += world.client.arrived.len() + world.processed as usize;
        incarnations += world.incarnation;
    }
    // The histories are worth their time.
    assert!(faults > 10_000, "{faults} faults");
    assert!(arrived > 20_000, "{arrived} messages");
    assert!(incarnations > 1_500, "{incarnations} incarnations");
}
