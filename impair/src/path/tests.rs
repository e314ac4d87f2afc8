use super::*;

const DATAGRAMS: usize = 20_000;

fn path(conditions: Conditions) -> Path {
    Path::new(conditions, Random::new(7))
}

fn fates(conditions: Conditions) -> Vec<Fate> {
    let mut path = path(conditions);
    (0..DATAGRAMS as u64)
        .map(|n| path.handle_datagram(Time(n * 1_000), 100))
        .collect()
}

/// Whether a share of all datagrams is what was asked for, within a tenth of it.
fn about(count: usize, percent: usize) -> bool {
    let expected = DATAGRAMS * percent / 100;
    count.abs_diff(expected) <= expected / 10
}

#[test]
fn a_good_path_changes_nothing() {
    for (n, fate) in fates(Conditions::default()).into_iter().enumerate() {
        let expected = Fate::Arrives {
            at: Time(n as u64 * 1_000),
            again: None,
            held_back: false,
        };
        assert_eq!(fate, expected);
    }
}

#[test]
fn chances_are_what_was_asked_for() {
    let fates = fates(Conditions {
        loss: 50_000,
        reorder: 100_000,
        duplicate: 200_000,
        ..Conditions::default()
    });
    let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
    assert!(about(lost, 5), "{lost}");
    let count = |wanted: fn(Option<Time>, bool) -> bool| {
        let arrives = |fate: &&Fate| matches!(fate, Fate::Arrives { again, held_back, .. } if wanted(*again, *held_back));
        fates.iter().filter(arrives).count()
    };
    let held_back = count(|_, held_back| held_back);
    assert!(about(held_back, 9) || about(held_back, 10), "{held_back}");
    let doubled = count(|again, _| again.is_some());
    assert!(about(doubled, 19), "{doubled}");
}

#[test]
fn jitter_lies_on_both_sides_of_the_delay_and_reorders() {
    let fates = fates(Conditions {
        delay_us: 50_000,
        jitter_us: 20_000,
        ..Conditions::default()
    });
    let mut takes = Vec::new();
    for (n, fate) in fates.iter().enumerate() {
        let Fate::Arrives { at, .. } = fate else {
            panic!("{fate:?}")
        };
        takes.push(at.0 - n as u64 * 1_000);
    }
    assert!(takes.iter().all(|us| (30_000..=70_000).contains(us)));
    let (lowest, highest) = (takes.iter().min(), takes.iter().max());
    assert!(lowest < Some(&31_000) && highest > Some(&69_000));
    let overtaken = takes
        .windows(2)
        .filter(|pair| pair[0] > pair[1] + 1_000)
        .count();
    assert!(overtaken > DATAGRAMS / 4);
}

#[test]
fn the_rate_spreads_a_burst_and_drops_what_would_wait_too_long() {
    let mut path = path(Conditions {
        bytes_per_second: 100_000,
        ..Conditions::default()
    });
    let burst: Vec<Fate> = (0..1_000)
        .map(|_| path.handle_datagram(Time(0), 100))
        .collect();
    let arrived = burst
        .iter()
        .filter(|fate| matches!(fate, Fate::Arrives { .. }))
        .count();
    // 1 ms each, until 200 ms wait; the one that reaches beyond is the last.
    assert_eq!(arrived, 201);
    assert_eq!(burst[arrived], Fate::Overflows);
    // When the queue has emptied there is room again.
    let later = path.handle_datagram(Time(QUEUE_US_MAX), 100);
    assert!(matches!(later, Fate::Arrives { at, .. } if at == Time(QUEUE_US_MAX + 2_000)));
}

#[test]
fn a_stream_keeps_its_order_and_pays_for_loss_with_time() {
    let mut path = path(Conditions {
        delay_us: 50_000,
        jitter_us: 20_000,
        loss: 50_000,
        ..Conditions::default()
    });
    let mut last = Time(0);
    let mut stalls = 0;
    for n in 0..DATAGRAMS as u64 {
        let now = Time(n * 1_000_000);
        let (at, stalled) = path.handle_piece(now, 100);
        assert!(at >= last);
        let takes = at.us_since(now);
        let least = if stalled {
            30_000 + RETRANSMIT_US + 100_000
        } else {
            30_000
        };
        assert!((least..=least + 40_000).contains(&takes), "{takes}");
        stalls += usize::from(stalled);
        last = at;
    }
    assert!(about(stalls, 5), "{stalls}");
}

#[test]
fn equal_seeds_give_equal_fates_and_forks_differ() {
    let conditions = Conditions {
        jitter_us: 20_000,
        loss: 500_000,
        ..Conditions::default()
    };
    assert_eq!(fates(conditions), fates(conditions));
    let mut random = Random::new(1);
    let (mut a, mut b) = (random.fork(), random.fork());
    assert_ne!(a.below(u64::MAX), b.below(u64::MAX));
}

#[test]
fn a_spread_time_is_half_to_one_and_a_half() {
    let mut random = Random::new(3);
    for _ in 0..1_000 {
        assert!((500..=1_500).contains(&random.spread(1_000)));
    }
}
