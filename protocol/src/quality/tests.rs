//! The estimators against naive ones with real numbers and whole histories, on random
//! delays, losses and clocks.

use super::*;
use crate::testing::Random;

/// Two ends with clocks of their own, which ask each other in turns or at random; what
/// each measures must be what the network did.
#[test]
fn both_ends_measure_what_the_network_did() {
    for seed in 0..64 {
        let mut random = Random(seed);
        let mut ends = [Meter::default(); 2];
        // One of the clocks wraps on the way.
        let offsets = [random.below(1 << 40), (1 << 32) - random.below(400_000_000)];
        let clock = |end: usize, us: u64| Time(offsets[end] + us);
        let mut naive = [0_u64; 2];
        // How long the last stamp from the other end was on its way, by who heard it.
        let mut came_in: [Option<u64>; 2] = [None; 2];
        let mut us = 1_000;
        let smooth = |naive: &mut u64, sample: u64| {
            *naive = if *naive == 0 {
                sample
            } else {
                (3 * *naive + sample) / 4
            };
        };
        for _ in 0..200 {
            us += 1 + random.below(10_000_000);
            let (from, to) = if random.below(3) == 0 { (1, 0) } else { (0, 1) };
            let (there, back) = (1 + random.below(900_000), 1 + random.below(900_000));
            let arrivals = Arrivals {
                jitter_us: random.below(1 << 32) as u32,
                loss: random.next() as u8,
            };
            let ping = ends[from].ping(clock(from, us), arrivals);
            if random.below(5) == 0 {
                continue;
            }
            us += there;
            let (pong, sample) = ends[to].handle_ping(clock(to, us), &ping, Arrivals::default());
            // The PING closes the round trip that began with the stamp it echoes.
            let wanted = came_in[from].map(|came| came + there);
            assert_eq!(sample.map(u64::from), wanted, "seed {seed}");
            if let Some(wanted) = wanted {
                smooth(&mut naive[to], wanted);
            }
            came_in[to] = Some(there);
            let quality = ends[to].quality(Arrivals::default());
            assert_eq!(quality.theirs.jitter_us, arrivals.jitter_us);
            assert_eq!(quality.theirs.loss, arrivals.loss);
            if random.below(5) == 0 {
                continue;
            }
            us += back;
            let sample = ends[from].handle_pong(clock(from, us), &pong);
            assert_eq!(sample.map(u64::from), Some(there + back));
            smooth(&mut naive[from], there + back);
            came_in[from] = Some(back);
            // Nothing is measured twice.
            assert_eq!(ends[from].handle_pong(clock(from, us), &pong), None);
            for (end, naive) in ends.iter().zip(naive) {
                let ours = end.quality(Arrivals::default()).ours;
                assert_eq!(u64::from(ours.round_trip_us), naive, "seed {seed}");
            }
        }
    }
}

#[test]
fn stamps_that_were_never_ours_measure_nothing_and_move_nothing_else() {
    let mut random = Random(3);
    let mut meter = Meter::default();
    let now = Time(5_000_000_000_000);
    for _ in 0..2_000 {
        let claim = Ping {
            stamp: random.next() as u32,
            echo: random.next() as u32,
            held_us: random.next() as u32,
            report: Report::default(),
        };
        if let (_, Some(us)) = meter.handle_ping(now, &claim, Arrivals::default()) {
            assert!(us <= ROUND_TRIP_US_MAX);
        }
        assert!(meter.round_trip_us <= ROUND_TRIP_US_MAX);
        let pong = Pong {
            stamp: random.next() as u32,
            ..Pong::default()
        };
        assert_eq!(meter.handle_pong(now, &pong), None);
    }
}

#[test]
fn jitter_is_that_of_the_rfc() {
    for seed in 0..64 {
        let mut random = Random(seed);
        // The peer's clock wraps, and so do the µs of ours.
        let mut peer_ms = u32::MAX - random.below(100_000) as u32;
        let mut sent_us = (1_u64 << 33) - random.below(100_000_000);
        let sent_at_origin = sent_us;
        let origin_ms = peer_ms;
        let spread = 1 + random.below(300_000);
        let mut delay = random.below(spread);
        let mut jitter = Jitter::new(peer_ms, Time(sent_us + delay));
        let mut naive = 0.0_f64;
        for _ in 0..500 {
            sent_us += random.below(3_000_000);
            let sent_ms = (sent_us - sent_at_origin) / 1_000;
            // What the whole ms of the stamp leave out is delay to the receiver.
            let rest = (sent_us - sent_at_origin) % 1_000;
            peer_ms = origin_ms.wrapping_add(sent_ms as u32);
            let seen = random.below(spread) + rest;
            jitter.arrived(peer_ms, Time(sent_us - rest + seen));
            naive += ((seen as f64 - delay as f64).abs() - naive) / 16.0;
            delay = seen;
            let off = (f64::from(jitter.us()) - naive).abs();
            assert!(off < 2.0, "{} is not {naive} (seed {seed})", jitter.us());
        }
        assert!(jitter.us() > 0);
    }
}

#[test]
fn a_long_pause_is_soon_forgotten() {
    let mut jitter = Jitter::new(0, Time(0));
    let mut ms = 0;
    jitter.arrived(ms, Time(60_000_000));
    assert_eq!(jitter.us(), JITTER_STEP_US_MAX / 16);
    // Back to what it was counts once more.
    for _ in 0..80 {
        ms += 60_000;
        jitter.arrived(ms, Time(u64::from(ms) * 1_000));
    }
    assert!(jitter.us() < 1_000, "{}", jitter.us());
}

#[test]
fn loss_follows_what_was_lost_of_late() {
    for seed in 0..64 {
        let mut random = Random(seed);
        let mut loss = Loss::default();
        let (mut expected, mut missing) = (0_u64, 0_u64);
        let mut naive = 0.0_f64;
        for _ in 0..300 {
            let sent = match random.below(4) {
                0 => 0,
                1 => 1,
                2 => random.below(64),
                _ => random.below(5_000),
            };
            let lost = if sent == 0 { 0 } else { random.below(sent + 1) };
            // Some that were missing have come after all, which makes up for new ones.
            let late = random.below(missing + 1).min(random.below(4));
            expected += sent;
            missing += lost;
            missing -= late;
            loss.update(expected, missing);
            let counted = lost.saturating_sub(late);
            if sent > 0 {
                let weight = sent.min(64) as f64 / 64.0;
                naive += (counted as f64 / sent as f64 - naive) * weight;
            }
            let off = (f64::from(loss.fraction()) / 256.0 - naive).abs();
            assert!(off < 0.004_1, "{} is not {naive}", loss.fraction());
        }
    }
}

#[test]
fn loss_of_all_and_of_nothing() {
    let mut loss = Loss::default();
    loss.update(64, 63);
    assert_eq!(loss.fraction(), 252);
    loss.update(u64::MAX, u64::MAX);
    assert_eq!(loss.fraction(), 255);
    loss.update(u64::MAX, 0);
    assert_eq!(loss.fraction(), 255, "nothing new was sent");
    let mut one = Loss::default();
    one.update(2, 1);
    assert_eq!(one.fraction(), 4, "one of an idle client's two is no half");
}

#[test]
fn a_change_is_told_when_somebody_would_notice() {
    let base = Quality {
        ours: Report {
            round_trip_us: 80_000,
            jitter_us: 8_000,
            loss: 10,
        },
        theirs: Report {
            round_trip_us: 80_000,
            jitter_us: 4_000,
            loss: 12,
        },
    };
    let changed = |change: fn(&mut Quality)| {
        let mut later = base;
        change(&mut later);
        later.digest().differs(&base.digest())
    };
    assert!(!changed(|_| {}));
    assert!(!changed(|q| q.ours.round_trip_us = 90_000));
    assert!(changed(|q| q.ours.round_trip_us = 90_001));
    assert!(changed(|q| q.ours.round_trip_us = 69_999));
    assert!(!changed(|q| q.theirs.round_trip_us = 1_000_000), "a claim");
    assert!(!changed(|q| q.ours.jitter_us = 10_000));
    assert!(changed(|q| q.theirs.jitter_us = 10_001));
    assert!(!changed(|q| q.ours.loss = 14));
    assert!(changed(|q| q.ours.loss = 15));
    assert!(
        !changed(|q| q.theirs.loss = 0),
        "the other direction has ten"
    );
    // Nothing was told yet.
    assert!(base.digest().differs(&Digest::default()));
    // On a fast network nothing is worth telling but the first.
    let near = |round_trip_us| Quality {
        ours: Report {
            round_trip_us,
            ..Report::default()
        },
        ..Quality::default()
    };
    assert!(!near(900).digest().differs(&near(100).digest()));
}
