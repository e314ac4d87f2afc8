//! Two ends over a bad path, and a peer that keeps to nothing.

use std::collections::VecDeque;

use super::*;
use crate::datagram::chunk::Chunks;
use crate::limits::FRAME_BYTES_MAX;
use crate::testing::Random;

/// What one datagram of the path may hold.
const ROOM: usize = 1_160;

fn arq() -> Arq {
    let mut arq = Arq::new(FRAME_BYTES_MAX);
    arq.open_window(FRAME_BYTES_MAX);
    arq
}

/// How bad a path is, in thousandths.
#[derive(Clone, Copy)]
struct Path {
    loss: u64,
    double: u64,
    /// Microseconds.
    delay_us: u64,
    /// Up to so much more, by chance.
    jitter_us: u64,
}

struct Pair {
    ends: [Arq; 2],
    /// When, and to whom.
    air: VecDeque<(Time, usize, Vec<u8>)>,
    got: [Vec<Vec<u8>>; 2],
    now: Time,
    random: Random,
    path: Path,
    sent: u64,
}

impl Pair {
    fn new(seed: u64, path: Path) -> Self {
        Self {
            ends: [arq(), arq()],
            air: VecDeque::new(),
            got: [Vec::new(), Vec::new()],
            now: Time(1_000_000),
            random: Random(seed),
            path,
            sent: 0,
        }
    }

    fn transmit(&mut self, from: usize) {
        loop {
            let end = &mut self.ends[from];
            if !end.can_write() && !end.is_ack_due(self.now) {
                return;
            }
            let mut out = Vec::new();
            if let Some(ack) = end.take_ack(self.now) {
                Chunk::Ack(ack).encode(&mut out);
            }
            let room = ROOM - out.len();
            end.write(self.now, room, &mut out);
            assert!(!out.is_empty() && out.len() <= ROOM);
            self.sent += 1;
            let copies = u64::from(self.random.below(1_000) >= self.path.loss)
                * (1 + u64::from(self.random.below(1_000) < self.path.double));
            for _ in 0..copies {
                let delay = self.path.delay_us + self.random.below(self.path.jitter_us + 1);
                self.air
                    .push_back((self.now + delay, 1 - from, out.clone()));
            }
        }
    }

    fn deliver(&mut self, to: usize, datagram: &[u8]) {
        for chunk in Chunks::new(datagram) {
            match chunk.expect("ours") {
                Chunk::Ack(ack) => self.ends[to].handle_ack(self.now, &ack),
                Chunk::Data {
                    flags,
                    number,
                    bytes,
                } => {
                    if self.ends[to].receive(self.now, flags, number, bytes) == Received::Message {
                        self.got[to].push(bytes.to_vec());
                    }
                    while let Some(message) = self.ends[to].poll_message() {
                        self.got[to].push(message.expect("not too long").1);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Goes on until nothing is under way and no timer runs.
    fn settle(&mut self) {
        let end = self.now.after_ms(600_000);
        loop {
            for from in 0..2 {
                self.ends[from].handle_timeout(self.now);
                self.transmit(from);
            }
            let timers = self.ends.iter().filter_map(Arq::poll_timeout);
            let next = self.air.iter().map(|(at, ..)| *at).chain(timers).min();
            let Some(next) = next else {
                return;
            };
            assert!(next < end, "it never ends");
            self.now = self.now.max(next);
            let now = self.now;
            let (due, rest): (VecDeque<_>, _) = self.air.drain(..).partition(|(at, ..)| *at <= now);
            self.air = rest;
            for (_, to, datagram) in due {
                self.deliver(to, &datagram);
            }
        }
    }
}

fn message(random: &mut Random, number: u32) -> Vec<u8> {
    let length = match random.below(10) {
        0 => 1 + random.below(20_000),
        1 => 1_104 * (1 + random.below(3)),
        _ => 4 + random.below(200),
    };
    let mut bytes = vec![number as u8; length as usize];
    let head = number.to_le_bytes();
    let count = bytes.len().min(4);
    bytes[..count].copy_from_slice(&head[..count]);
    bytes
}

#[test]
fn everything_arrives_once_and_in_order_over_any_path() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let path = Path {
            loss: [0, 10, 100, 300][random.below(4) as usize],
            double: random.below(100),
            delay_us: [0, 500, 30_000, 150_000][random.below(4) as usize],
            jitter_us: [0, 500, 30_000, 150_000][random.below(4) as usize],
        };
        let mut pair = Pair::new(seed, path);
        let mut wanted = [Vec::new(), Vec::new()];
        for number in 0..200 {
            let from = random.below(2) as usize;
            let bytes = message(&mut random, number);
            let cut = random.below(bytes.len() as u64 + 1) as usize;
            pair.ends[from].push(0, &[&bytes[..cut], &bytes[cut..]]);
            wanted[1 - from].push(bytes);
            if random.below(4) == 0 {
                pair.transmit(from);
            }
            pair.now = pair.now + random.below(5_000);
        }
        pair.settle();
        for (got, wanted) in pair.got.iter().zip(&wanted) {
            assert_eq!(got.len(), wanted.len(), "seed {seed}");
            assert!(got == wanted, "seed {seed}: another order");
        }
        for end in &pair.ends {
            assert_eq!((end.queued_bytes(), end.segments.len()), (0, 0));
            assert_eq!((end.under_way, end.lost, end.sent), (0, 0, 0));
            assert!(end.log.capacity() <= IDLE_BYTES_MAX && end.early.capacity() == 0);
        }
    }
}

#[test]
fn a_single_loss_among_many_is_sent_again_without_a_timeout() {
    let path = Path {
        loss: 0,
        double: 0,
        delay_us: 20_000,
        jitter_us: 0,
    };
    let mut pair = Pair::new(3, path);
    // A first exchange tells the round trip.
    pair.ends[0].push(0, &[b"first"]);
    pair.settle();
    for _ in 0..10 {
        pair.ends[0].push(0, &[&[1; 1_000]]);
    }
    let start = pair.now;
    pair.transmit(0);
    assert_eq!(pair.air.len(), 10);
    pair.air.remove(2);
    pair.settle();
    assert_eq!((pair.got[1].len(), pair.ends[0].resent()), (11, 1));
    // Two round trips and an acknowledgement's delay, not a timeout on top.
    assert!(
        pair.now.us_since(start) < 170_000,
        "{:?}",
        pair.now.us_since(start)
    );
}

#[test]
fn the_round_trip_is_measured() {
    let path = Path {
        loss: 0,
        double: 0,
        delay_us: 40_000,
        jitter_us: 40_000,
    };
    let mut pair = Pair::new(1, path);
    for _ in 0..50 {
        pair.ends[0].push(0, &[b"ping"]);
        pair.settle();
    }
    // There and back, each 40 to 80 ms; the delay of the acknowledgement is taken off.
    let us = pair.ends[0].round_trip_us();
    assert!((80_000..160_000).contains(&us), "{us}");
}

#[test]
fn a_sender_that_hears_nothing_slows_down() {
    let mut end = arq();
    end.push(0, &[&[1; 100]]);
    let (mut now, mut times) = (Time(0), Vec::new());
    for _ in 0..12 {
        let mut out = Vec::new();
        end.write(now, ROOM, &mut out);
        assert!(!out.is_empty());
        let next = end.poll_timeout().expect("a timer");
        times.push(next.us_since(now));
        now = next;
        end.handle_timeout(now);
    }
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    assert_eq!(times.last(), Some(&RTO_MAX_US));
}

#[test]
fn what_lies_beyond_the_window_is_not_kept() {
    let mut end = Arq::new(100);
    assert_eq!(end.receive(Time(0), 0, 4, &[1]), Received::Refused);
    assert_eq!(end.receive(Time(0), 0, 3, &[1]), Received::Kept);
    assert_eq!(end.receive(Time(0), MORE, 0, &[1; 60]), Received::Kept);
    assert_eq!(end.receive(Time(0), MORE, 1, &[1; 60]), Received::TooLong);
}

#[test]
fn any_peer_is_survived_within_bounds() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut end = arq();
        let mut now = Time(0);
        for _ in 0..500 {
            now = now + random.below(50_000);
            let near = |random: &mut Random| match random.below(4) {
                0 => random.next() as u32,
                1 => u32::MAX - random.below(70) as u32,
                _ => random.below(200) as u32,
            };
            match random.below(6) {
                0 => end.push(0, &[&vec![1; 1 + random.below(4_000) as usize]]),
                1 => {
                    let mut out = Vec::new();
                    end.write(now, random.below(1_300) as usize, &mut out);
                }
                2 => {
                    let ack = Ack {
                        next: near(&mut random),
                        bitmap: random.next() & random.next(),
                        delay_us: random.below(1 << 20),
                    };
                    end.handle_ack(now, &ack);
                }
                3 => end.handle_timeout(now),
                4 => {
                    let _ = end.take_ack(now);
                }
                _ => {
                    let bytes = vec![2; 1 + random.below(1_150) as usize];
                    let flags = random.below(4) as u8;
                    let number = near(&mut random);
                    if end.receive(now, flags, number, &bytes) == Received::TooLong {
                        break;
                    }
                    while let Some(message) = end.poll_message() {
                        if message.is_err() {
                            break;
                        }
                    }
                }
            }
            assert!(end.early.len() <= DATAGRAM_WINDOW as usize);
            assert!(end.partial.len() <= FRAME_BYTES_MAX);
            let sent = end.segments.iter().take(end.sent as usize);
            let count = |state| sent.clone().filter(|s| s.state == state).count() as u32;
            assert_eq!(count(State::Sent), end.under_way, "seed {seed}");
            assert_eq!(count(State::Waiting), end.lost, "seed {seed}");
            assert!(end.sent <= DATAGRAM_WINDOW && end.under_way <= DATAGRAM_WINDOW);
            let bytes: usize = end.segments.iter().map(|s| usize::from(s.bytes)).sum();
            assert_eq!(bytes, end.queued_bytes());
        }
    }
}
