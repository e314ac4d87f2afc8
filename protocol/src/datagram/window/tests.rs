//! The window against a set, and keys that change while frames change places.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{DatagramOpener, ReplayWindow};
use crate::cipher::{Key, RekeyPolicy, Sealer};
use crate::frame::Header;
use crate::limits::REPLAY_WINDOW;
use crate::reason::DropReason;
use crate::testing::{Random, cases};
use crate::time::Time;

/// The naive version: everything that was ever seen.
#[derive(Default)]
struct Oracle {
    seen: HashSet<u64>,
    next: u64,
}

impl Oracle {
    fn check(&self, sequence: u64) -> Result<(), DropReason> {
        if sequence + REPLAY_WINDOW < self.next {
            Err(DropReason::DatagramLate)
        } else if self.seen.contains(&sequence) {
            Err(DropReason::DatagramRepeated)
        } else {
            Ok(())
        }
    }

    fn accept(&mut self, sequence: u64) {
        self.seen.insert(sequence);
        self.next = self.next.max(sequence + 1);
    }
}

#[test]
fn random_histories_end_as_those_of_a_set() {
    let mut refused = [0; 2];
    for seed in 0..40 {
        let mut random = Random(seed);
        let (mut window, mut oracle) = (ReplayWindow::default(), Oracle::default());
        let jump = [2, 70, 500, 5_000][random.below(4) as usize];
        for _ in 0..4_000 {
            let back = random.below(REPLAY_WINDOW + 200);
            let sequence = match random.below(3) {
                0 => oracle.next + random.below(jump),
                1 => oracle.next.saturating_sub(random.below(70)),
                _ => oracle.next.saturating_sub(back),
            };
            let verdict = window.check(sequence);
            assert_eq!(verdict, oracle.check(sequence), "seed {seed}, {sequence}");
            match verdict {
                Ok(()) => {
                    let newest = sequence >= oracle.next;
                    assert_eq!(window.accept(sequence), newest);
                    oracle.accept(sequence);
                }
                Err(DropReason::DatagramLate) => refused[0] += 1,
                Err(_) => refused[1] += 1,
            }
            assert_eq!(window.next(), oracle.next);
            assert_eq!(window.missing(), oracle.next - oracle.seen.len() as u64);
        }
    }
    assert!(refused[0] > 1_000 && refused[1] > 1_000, "{refused:?}");
}

#[test]
fn the_window_is_as_long_as_promised() {
    let mut window = ReplayWindow::default();
    window.accept(REPLAY_WINDOW);
    assert_eq!(window.check(0), Err(DropReason::DatagramLate));
    assert_eq!(window.check(1), Ok(()));
    window.accept(1);
    assert_eq!(window.check(1), Err(DropReason::DatagramRepeated));
    window.accept(REPLAY_WINDOW + 1);
    assert_eq!(window.check(1), Err(DropReason::DatagramLate));
    assert_eq!(window.check(2), Ok(()));
}

fn frames(count: usize, rekey: u64) -> Vec<Vec<u8>> {
    let policy = RekeyPolicy { frames: rekey };
    let mut sealer = Sealer::new(Key([7; 32]), Time(0), policy);
    (0..count)
        .map(|number| {
            let mut frame = Vec::new();
            sealer.seal(Time(0), 0, &mut frame, |out| {
                out.extend_from_slice(&(number as u32).to_le_bytes());
            });
            frame
        })
        .collect()
}

fn open(opener: &mut DatagramOpener, frame: &[u8]) -> Result<u32, DropReason> {
    let mut frame = frame.to_vec();
    let header = Header::decode(&frame).expect("a header");
    let body = opener.open(&header, &mut frame)?.body;
    Ok(u32::from_le_bytes(body[..4].try_into().expect("a number")))
}

#[test]
fn keys_change_while_frames_change_places() {
    // The shortest life of a key, and frames that come up to 500 places late.
    let frames = frames(10_000, REPLAY_WINDOW);
    let mut random = Random(9);
    let mut order: Vec<(u64, usize)> = (0..frames.len())
        .map(|at| (at as u64 + random.below(500), at))
        .collect();
    order.sort_unstable();
    let mut opener = DatagramOpener::new(Key([7; 32]));
    for (_, at) in order {
        assert_eq!(open(&mut opener, &frames[at]), Ok(at as u32));
        assert_eq!(
            open(&mut opener, &frames[at]),
            Err(DropReason::DatagramRepeated)
        );
    }
    assert_eq!(opener.window().missing(), 0);
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn one_bit_more_or_less_opens_nothing_and_moves_nothing(bit in 0usize..(36 * 8)) {
        let frames = frames(2, 1 << 20);
        let mut opener = DatagramOpener::new(Key([7; 32]));
        prop_assert_eq!(open(&mut opener, &frames[0]), Ok(0));
        let mut broken = frames[1].clone();
        let bit = bit % (broken.len() * 8);
        broken[bit / 8] ^= 1 << (bit % 8);
        // The CRC is looked at before, by the caller.
        if !(96..128).contains(&bit) {
            prop_assert!(open(&mut opener, &broken).is_err());
        }
        prop_assert_eq!(open(&mut opener, &frames[1]), Ok(1));
    }
}
