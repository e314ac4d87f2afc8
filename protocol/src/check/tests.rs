//! Buckets against exact arithmetic, clocks against a naive history, and the
//! order of the checks.

use proptest::prelude::*;

use super::*;
use crate::cipher::{Key, RekeyPolicy, Sealer};
use crate::frame::{FLAG_COMPRESSED, write_crc};
use crate::testing::{Random, cases};

// Rate ----------------------------------------------------------------------

/// A bucket without rounding and without limits of its numbers: millionths.
struct ExactBucket {
    level: i128,
    at: u64,
}

impl ExactBucket {
    fn charge(&mut self, rate: Rate, units: u32, now: Time) -> Charged {
        if rate.per_second == 0 {
            return Charged::Within;
        }
        let (per_second, full) = (
            i128::from(rate.per_second),
            i128::from(rate.burst) * 1_000_000,
        );
        self.level = full.min(self.level + i128::from(now.0 - self.at) * per_second);
        self.at = now.0;
        self.level -= i128::from(units) * 1_000_000;
        if self.level >= 0 {
            Charged::Within
        } else if self.level >= -full {
            let pause_us = (-self.level + per_second - 1) / per_second;
            Charged::Above {
                pause_us: pause_us as u64,
            }
        } else {
            Charged::FarAbove
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_bucket_is_exact(
        per_second in prop_oneof![0..3_u32, 1..100_000_u32, any::<u32>()],
        burst in prop_oneof![0..100_u32, any::<u32>()],
        charges in prop::collection::vec((0..3_000_000_u64, 0..50_000_u32), 1..60),
    ) {
        let rate = Rate { per_second, burst };
        let mut now = Time(77);
        let mut bucket = Bucket::full(rate, now);
        let mut exact = ExactBucket { level: i128::from(burst) * 1_000_000, at: now.0 };
        for (later_us, units) in charges {
            now = now + later_us;
            let charged = bucket.charge(rate, units, now);
            prop_assert_eq!(charged, exact.charge(rate, units, now));
            if let Charged::Above { pause_us } = charged {
                // After the pause the debt is paid, and not before.
                let mut paid = bucket;
                prop_assert_eq!(paid.charge(rate, 0, now + pause_us), Charged::Within);
                let mut early = bucket;
                prop_assert_ne!(early.charge(rate, 0, now + (pause_us - 1)), Charged::Within);
            }
        }
    }
}

#[test]
fn a_bucket_forgets_nothing_over_a_long_silence() {
    let rate = Rate {
        per_second: u32::MAX,
        burst: 10,
    };
    let mut bucket = Bucket::full(rate, Time(0));
    assert_eq!(bucket.charge(rate, 10, Time(u64::MAX)), Charged::Within);
    assert!(matches!(
        bucket.charge(rate, 1, Time(u64::MAX)),
        Charged::Above { .. }
    ));
}

// Timestamp -----------------------------------------------------------------

/// The rules of PROTOCOL §4 over the whole history, in microseconds.
struct NaiveClock {
    started_us: i128,
    origin_us: i128,
    /// (when, difference) of all frames learned from.
    learned: Vec<(i128, i128)>,
}

impl NaiveClock {
    const PPM: i128 = CLOCK_DRIFT_PPM_MAX as i128;

    /// Differences are in ms but kept in µs, so that drift is exact.
    fn estimate_us(&self, now_us: i128) -> i128 {
        let risen =
            |&(at, difference): &(i128, i128)| difference + (now_us - at) * Self::PPM / 1_000_000;
        self.learned.iter().map(risen).min().unwrap_or(0)
    }

    /// What may be said of this difference: two answers within a few ms of a
    /// bound, where rounding decides.
    fn judge(&mut self, difference_us: i128, now_us: i128) -> Vec<Age> {
        const ROUNDING_US: i128 = 4_000;
        let since_us = now_us - self.started_us;
        if since_us < i128::from(CLOCK_SETTLE_MS) * 1_000 && difference_us < self.origin_us {
            self.origin_us = difference_us;
            self.learned.push((now_us, difference_us));
            return vec![Age::Fresh];
        }
        let floor_us = self.origin_us
            - i128::from(TIMESTAMP_AHEAD_MS_MAX) * 1_000
            - since_us * Self::PPM / 1_000_000;
        let ceiling_us = self.estimate_us(now_us) + i128::from(TIMESTAMP_AGE_MS_MAX) * 1_000;
        let mut answers = Vec::new();
        if difference_us < floor_us + ROUNDING_US {
            answers.push(Age::Future);
        }
        if difference_us >= floor_us - ROUNDING_US && difference_us <= ceiling_us + ROUNDING_US {
            answers.push(Age::Fresh);
        }
        if difference_us > ceiling_us - ROUNDING_US {
            answers.push(Age::Old);
        }
        answers
    }

    fn learn(&mut self, difference_us: i128, now_us: i128) {
        self.learned.push((now_us, difference_us));
    }
}

proptest! {
    #![proptest_config(cases(96))]

    /// Any clock, any delays: the same answers as the naive history, also where
    /// both clocks wrap.
    #[test]
    fn a_clock_judges_as_the_naive_history(
        seed in any::<u64>(),
        origins in prop::array::uniform2(prop_oneof![any::<u32>(), u32::MAX - 30_000..u32::MAX]),
        rate_ppm in prop_oneof![Just(0_i64), -600..600_i64, -20_000..20_000_i64],
    ) {
        let mut random = Random(seed);
        let start = Time(0).after_ms(u64::from(origins[0]));
        let peer_ms = |now: Time, delay_ms: i64| {
            let elapsed_ms = (now.0 - start.0) as i64 / 1_000;
            let elapsed_ms = elapsed_ms + elapsed_ms * rate_ppm / 1_000_000 - delay_ms;
            origins[1].wrapping_add(elapsed_ms as u32)
        };
        let first_ms = peer_ms(start, random.below(4_000) as i64);
        let difference_ms = |now: Time, peer: u32| {
            i64::from(now.wire_ms().wrapping_sub(peer).wrapping_sub(start.wire_ms().wrapping_sub(first_ms)) as i32)
        };
        let mut clock = ClockOffset::new(first_ms, start);
        let mut naive = NaiveClock {
            started_us: i128::from(start.0),
            origin_us: 0,
            learned: vec![(i128::from(start.0), 0)],
        };
        let mut now = start;
        for _ in 0..120 {
            now = now.after_ms(match random.below(10) {
                0 => random.below(3_600_000),
                1..4 => random.below(30_000),
                _ => random.below(900),
            });
            let delay_ms = match random.below(12) {
                0 => random.below(20_000) as i64,
                1 => -(random.below(4_000) as i64),
                _ => random.below(300) as i64,
            };
            let peer = peer_ms(now, delay_ms);
            let (difference_us, now_us) =
                (i128::from(difference_ms(now, peer)) * 1_000, i128::from(now.0));
            let answers = naive.judge(difference_us, now_us);
            let age = clock.judge(peer, now);
            prop_assert!(answers.contains(&age), "{:?} instead of {:?}", age, answers);
            if age != Age::Future {
                naive.learn(difference_us, now_us);
            }
        }
    }

    /// Whatever the delays and an honest drift: prompt frames are never refused,
    /// once one of the settling time was prompt.
    #[test]
    fn an_honest_clock_is_always_fresh(
        seed in any::<u64>(),
        drift_ppm in -400..=400_i64,
        hello_delay_ms in 0..14_000_u64,
        origins in prop::array::uniform2(any::<u32>()),
    ) {
        let mut random = Random(seed);
        let sent = Time(0).after_ms(u64::from(origins[0]));
        let peer_ms = |at: Time| {
            let elapsed_ms = (at.0 - sent.0) as i64 / 1_000;
            origins[1].wrapping_add((elapsed_ms + elapsed_ms * drift_ppm / 1_000_000) as u32)
        };
        let mut now = sent.after_ms(hello_delay_ms);
        let mut clock = ClockOffset::new(peer_ms(sent), now);
        for step in 0..400 {
            now = now.after_ms(if step == 0 { 100 } else { random.below(200_000) });
            let delay_ms = if step == 0 { 0 } else { random.below(1_500) };
            let sent_at = Time(now.0.saturating_sub(delay_ms * 1_000).max(sent.0));
            prop_assert_eq!(clock.judge(peer_ms(sent_at), now), Age::Fresh, "step {}", step);
        }
    }
}

#[test]
fn a_first_frame_that_was_late_does_not_condemn_the_prompt_ones() {
    let mut clock = ClockOffset::new(0, Time(0).after_ms(3_000));
    for ms in (3_001..3_600_000).step_by(900) {
        assert_eq!(clock.judge(ms, Time(0).after_ms(u64::from(ms))), Age::Fresh);
    }
    assert_eq!(clock.offset_ms() as i32, 0);
}

#[test]
fn bounds_of_old_and_future_after_settling() {
    let at = |ms: u64| Time(0).after_ms(ms);
    let settled = || {
        let mut clock = ClockOffset::new(0, at(0));
        assert_eq!(clock.judge(20_000, at(20_000)), Age::Fresh);
        clock
    };
    // 10 ms of drift are allowed after 20 s.
    assert_eq!(settled().judge(22_010, at(20_000)), Age::Fresh);
    assert_eq!(settled().judge(22_011, at(20_000)), Age::Future);
    assert_eq!(settled().judge(10_000, at(20_000)), Age::Fresh);
    assert_eq!(settled().judge(9_999, at(20_000)), Age::Old);
    // One from the future teaches nothing.
    let mut clock = settled();
    for _ in 0..100 {
        assert_eq!(clock.judge(40_000, at(20_000)), Age::Future);
    }
    assert_eq!(clock.judge(20_000, at(20_000)), Age::Fresh);
}

#[test]
fn a_clock_that_runs_one_percent_fast_is_found_out_and_stays_so() {
    let mut clock = ClockOffset::new(0, Time(0));
    let mut first = None;
    for second in 1..3_600_u64 {
        let age = clock.judge((second * 1_010) as u32, Time(0).after_ms(second * 1_000));
        if age == Age::Future {
            first = first.or(Some(second));
        }
        assert!(
            first.is_none() || age == Age::Future,
            "forgiven after {second} s"
        );
    }
    let first = first.unwrap();
    assert!((200..300).contains(&first), "found out after {first} s");
}

#[test]
fn drift_is_followed_to_the_rest_of_the_division() {
    // Frames just before the estimate would rise a second time: 3 days of it.
    for drift_ppm in [-450_i64, 450] {
        let mut clock = ClockOffset::new(0, Time(0));
        for ms in (0..3 * 86_400_000_i64).step_by(3_900) {
            let peer = (ms + ms * drift_ppm / 1_000_000) as u32;
            assert_eq!(clock.judge(peer, Time(0).after_ms(ms as u64)), Age::Fresh);
        }
    }
    // It rises from the moment of the last frame that was learned from.
    let mut clock = ClockOffset::new(0, Time(0));
    assert_eq!(clock.judge(21_000, Time(0).after_ms(21_000)), Age::Fresh);
    assert_eq!(clock.judge(12_499, Time(0).after_ms(22_500)), Age::Old);
    assert_eq!(clock.judge(12_999, Time(0).after_ms(23_000)), Age::Fresh);
}

#[test]
fn clocks_wrap() {
    let start = Time(0).after_ms((1 << 32) - 5_000);
    let mut clock = ClockOffset::new(u32::MAX - 2_000, start);
    for ms in (0..3_600_000).step_by(500) {
        let peer = (u32::MAX - 2_000).wrapping_add(ms as u32);
        assert_eq!(clock.judge(peer, start.after_ms(ms)), Age::Fresh);
    }
}

// The pipeline --------------------------------------------------------------

struct Receiver {
    opener: Opener,
    clock: ClockOffset,
}

const NOW: Time = Time(60_000_000);

fn parties() -> (Sealer, Receiver) {
    let key = Key([5; 32]);
    let receiver = Receiver {
        opener: Opener::new(key.clone()),
        clock: ClockOffset::new(NOW.wire_ms(), NOW),
    };
    (Sealer::new(key, NOW, RekeyPolicy::default()), receiver)
}

fn open_copy(receiver: &mut Receiver, frame: &[u8]) -> Result<(u8, Age, Vec<u8>), CloseReason> {
    let mut frame = frame.to_vec();
    let opened = open(&mut frame, &mut receiver.opener, &mut receiver.clock, NOW)?;
    Ok((opened.flags, opened.age, opened.body.to_vec()))
}

#[test]
fn checks_come_in_their_order() {
    let (mut sealer, mut receiver) = parties();
    let mut frame = Vec::new();
    sealer.seal(NOW, FLAG_COMPRESSED, &mut frame, |out| {
        out.extend_from_slice(b"body")
    });
    let spoil = |change: &dyn Fn(&mut Vec<u8>), fix_crc: bool| {
        let mut spoiled = frame.clone();
        change(&mut spoiled);
        if fix_crc {
            write_crc(&mut spoiled);
        }
        spoiled
    };
    let cases = [
        // Each one also breaks what is checked later.
        (spoil(&|f| f.truncate(15), false), CloseReason::BadLength),
        (
            spoil(
                &|f| {
                    f[0] += 1;
                    f[3] = 0xff;
                },
                false,
            ),
            CloseReason::BadLength,
        ),
        (
            spoil(
                &|f| {
                    f.truncate(32);
                    f[0] = 32;
                    f[3] = 0xff
                },
                false,
            ),
            CloseReason::BadLength,
        ),
        (spoil(&|f| f[3] = 0xff, false), CloseReason::BadFlags),
        (
            spoil(&|f| f[3] = FLAG_HANDSHAKE, false),
            CloseReason::BadFlags,
        ),
        (spoil(&|f| f[4] = 9, false), CloseReason::BadCrc),
        (spoil(&|f| f[4] = 9, true), CloseReason::BadSeal),
    ];
    for (spoiled, reason) in cases {
        assert_eq!(open_copy(&mut receiver, &spoiled), Err(reason));
    }
    let opened = open_copy(&mut receiver, &frame);
    assert_eq!(opened, Ok((FLAG_COMPRESSED, Age::Fresh, b"body".to_vec())));
    assert_eq!(
        open_copy(&mut receiver, &frame),
        Err(CloseReason::SequenceRepeated)
    );
}

#[test]
fn a_forged_timestamp_teaches_the_clock_nothing() {
    let (mut sealer, mut receiver) = parties();
    let mut frame = Vec::new();
    sealer.seal(NOW, 0, &mut frame, |out| out.push(1));
    let mut forged = frame.clone();
    forged[8..12].copy_from_slice(&(NOW.wire_ms() + 3_600_000).to_le_bytes());
    write_crc(&mut forged);
    let offset = receiver.clock.offset_ms();
    assert_eq!(open_copy(&mut receiver, &forged), Err(CloseReason::BadSeal));
    assert_eq!(receiver.clock.offset_ms(), offset);
    assert!(open_copy(&mut receiver, &frame).is_ok());
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_, mut receiver) = parties();
        prop_assert!(open_copy(&mut receiver, &bytes).is_err());
    }
}
