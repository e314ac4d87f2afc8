//! Random histories: clients' and backend's ends of the streams with a link between them that
//! is cut (what is under way is lost), and pushes that nobody asked for.
//!
//! The oracle is what each side sent: the other side has got exactly a prefix of it, in order;
//! once everything is quiet, all of it.

use super::*;

/// Splitmix64: enough for drawing a history.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Counts what reaches it of each session, and checks its order.
#[derive(Default)]
struct CountingGame {
    seen: HashMap<SessionId, u32>,
}

impl Game for CountingGame {
    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        let seen = self.seen.entry(message.session).or_default();
        *seen += 1;
        assert_eq!(message.payload, seen.to_le_bytes(), "{}", message.session);
        // Every third is answered, so that acknowledgements also go by themselves.
        if seen.is_multiple_of(3) {
            let answer = (*seen / 3).to_le_bytes();
            let pushed = context.push(message.session, Lane::Reliable, MessageId(2), &answer);
            assert_eq!(pushed, Ok(()));
        }
    }
}

struct Client {
    session: SessionId,
    stream: StreamEnd,
    sent: u32,
    got: u32,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
}

impl Client {
    fn new(session: u64) -> Self {
        Self {
            session: SessionId(session),
            stream: StreamEnd::client(GROUP),
            sent: 0,
            got: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
        }
    }

    fn send(&mut self) {
        let header = MessageHeader {
            kind: MessageKind::Message,
            lane: Lane::Reliable,
            more: false,
            group: GROUP,
            number: 0,
            ack: 0,
            message: MessageId(1),
            request: 0,
        };
        let payload = (self.sent + 1).to_le_bytes();
        let limits = OutboxLimits::default();
        if self.stream.push(header, &payload, limits).is_ok() {
            self.sent += 1;
        }
    }

    fn hear(&mut self, body: &[u8], now: Time) {
        match Body::decode(body).expect("the stub's own body") {
            Body::Sync(sync) => {
                self.stream.handle_sync(&sync);
            }
            Body::Ack { ack, .. } => self.stream.handle_ack(ack),
            Body::Message { header, payload } => {
                let delivery = self.stream.handle_message(header.number, header.ack, now);
                if delivery == Delivery::Deliver {
                    self.got += 1;
                    assert_eq!(payload, self.got.to_le_bytes(), "{}", self.session);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn flush(&mut self, now: Time) {
        let encoded = |body: Body<'_>| {
            let mut bytes = Vec::new();
            body.encode(&mut bytes);
            bytes
        };
        if let Some(sync) = self.stream.poll_sync() {
            self.up.push_back(encoded(Body::Sync(sync)));
        }
        while let Some(message) = self.stream.poll_transmit() {
            self.up.push_back(message.to_vec());
        }
        if let Some(ack) = self.stream.poll_ack(now) {
            let group = GROUP;
            self.up.push_back(encoded(Body::Ack { group, ack }));
        }
    }
}

struct World {
    stub: Stub<CountingGame>,
    clients: Vec<Client>,
    link: Option<LinkId>,
    links: u64,
    now: Now,
}

impl World {
    fn new() -> Self {
        let settings = StubSettings {
            link_grace_ms: 3_600_000,
            ..settings()
        };
        Self {
            stub: Stub::new(settings, CountingGame::default()),
            clients: (1..=3).map(Client::new).collect(),
            link: None,
            links: 0,
            now: at_ms(0),
        }
    }

    fn say(&mut self, session: SessionId, record: &Record<'_>) {
        if let Some(link) = self.link {
            let mut run = Vec::new();
            uplink::encode(session, record, &mut run);
            self.stub
                .handle_records(self.now, link, &run)
                .expect("good records");
        }
    }

    fn connect(&mut self) {
        self.links += 1;
        let link = LinkId(self.links);
        self.link = Some(link);
        self.stub
            .handle_link_up(link, &hello())
            .expect("a good hello");
        for index in 0..self.clients.len() {
            let session = self.clients[index].session;
            self.say(session, &open(1, &session.to_string()));
        }
    }

    fn cut(&mut self) {
        if let Some(link) = self.link.take() {
            self.stub.handle_link_down(self.now, link);
        }
        for client in &mut self.clients {
            client.up.clear();
            client.down.clear();
            client.stream.detach();
        }
    }

    fn step(&mut self, dice: &mut Dice) {
        self.now = at_ms(self.now.time.ms() + 20);
        let due = self.stub.poll_timeout();
        if due.is_some_and(|due| due <= self.now.time) {
            self.stub.handle_timeout(self.now);
        }
        for index in 0..self.clients.len() {
            self.clients[index].flush(self.now.time);
            for _ in 0..dice.roll(4) {
                let client = &mut self.clients[index];
                if self.link.is_some()
                    && let Some(body) = client.up.pop_front()
                {
                    let session = client.session;
                    self.say(session, &Record::Data(&body));
                }
            }
        }
        let (clients, link) = (&mut self.clients, self.link);
        self.stub.take_records(&mut |to, _, records| {
            assert_eq!(Some(to), link);
            let mut run = records.as_slice();
            while let Some((session, record)) = uplink::next(&mut run).expect("our own records") {
                let Record::Data(body) = record else {
                    panic!("{record:?}");
                };
                let client = clients.iter_mut().find(|client| client.session == session);
                client.expect("one of them").down.push_back(body.to_vec());
            }
            records.clear();
        });
        for client in &mut self.clients {
            for _ in 0..dice.roll(4) {
                if let Some(body) = client.down.pop_front() {
                    client.hear(&body, self.now.time);
                }
            }
        }
    }

    fn check_all_arrived(&self) {
        for client in &self.clients {
            let seen = self.stub.game.seen.get(&client.session).copied();
            assert_eq!(seen.unwrap_or(0), client.sent, "{}", client.session);
            assert_eq!(client.got, client.sent / 3, "{}", client.session);
            assert_eq!(client.stream.outbox_messages(), 0, "{}", client.session);
        }
        for session in self.stub.core.sessions.values() {
            assert_eq!(session.stream.outbox_messages(), 0);
        }
        assert_eq!(self.stub.counts().sessions, 3);
        assert_eq!(self.stub.counts().connected, 3);
    }
}

#[test]
fn random_histories_lose_and_repeat_nothing() {
    let mut delivered = 0;
    for seed in 0..200 {
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let mut world = World::new();
        for _ in 0..400 {
            match dice.roll(30) {
                0 => world.cut(),
                1 | 2 if world.link.is_none() => world.connect(),
                3..=8 => {
                    let index = dice.roll(3) as usize;
                    world.clients[index].send();
                }
                _ => {}
            }
            world.step(&mut dice);
        }
        if world.link.is_none() {
            world.connect();
        }
        for _ in 0..1_000 {
            world.step(&mut dice);
        }
        world.check_all_arrived();
        delivered += world.clients.iter().map(|client| client.sent).sum::<u32>();
    }
    // A history in which nothing is sent shows nothing.
    assert!(delivered > 10_000, "{delivered}");
}
