//! The walkers' ways: on the field, at walking speed, and as dense as promised.

use super::{Walk, field_units};

#[test]
fn a_way_is_a_function_and_stays_on_the_field() {
    let walk = Walk {
        seed: 7,
        field_units: 3_000,
        step_units: 35,
    };
    for client in 0..200 {
        for step in [0, 1, 2, 500, 86_399, u32::MAX] {
            let at = walk.at(client, step);
            assert!(at.x < 3_000 && at.y < 3_000);
            assert_eq!(at, walk.at(client, step));
        }
    }
    let other = Walk { seed: 8, ..walk };
    assert!((0..50).any(|client| walk.at(client, 3) != other.at(client, 3)));
}

#[test]
fn one_step_is_at_most_walking_speed_and_off_the_edges_exactly_that() {
    let walk = Walk {
        seed: 1,
        field_units: 10_000,
        step_units: 40,
    };
    for client in 0..500 {
        let (from, to) = (walk.at(client, 9), walk.at(client, 10));
        let way = (from.distance_squared(to) as f64).sqrt();
        assert!(way <= 40.0);
        let inside = |v: u32| (40..9_960).contains(&v);
        if inside(from.x) && inside(from.y) {
            assert!(way >= 38.0, "the root rounded down costs one unit at most");
        }
    }
}

#[test]
fn extremes_neither_overflow_nor_leave_the_field() {
    for (field, step) in [
        (1, 40),
        (2, 1),
        (u32::MAX, u32::MAX),
        (10, u32::MAX),
        (0, 0),
    ] {
        let walk = Walk {
            seed: u64::MAX,
            field_units: field,
            step_units: step,
        };
        for client in [0, u64::MAX] {
            let at = walk.at(client, u32::MAX);
            assert!(at.x < field.max(1) && at.y < field.max(1));
        }
    }
}

#[test]
fn the_field_makes_the_mean_that_was_asked_for() {
    for (walkers, visible) in [(2_000_u64, 4.0), (1_500, 20.0), (300, 60.0)] {
        let (view, hysteresis) = (128, 16);
        let side = field_units(walkers, visible, view, hysteresis, 1 << 16);
        let walk = Walk {
            seed: 3,
            field_units: side,
            step_units: 20,
        };
        // The pair relation itself, with its history.
        let count = walkers as usize;
        let mut sees = vec![false; count * count];
        let (mut pairs, mut samples) = (0_u64, 0_u64);
        for step in 0..25 {
            let at: Vec<_> = (0..walkers).map(|client| walk.at(client, step)).collect();
            for a in 0..count {
                for b in 0..a {
                    let distance = at[a].distance_squared(at[b]);
                    let limit = if sees[a * count + b] {
                        view + hysteresis
                    } else {
                        view
                    };
                    let near = distance <= u64::from(limit).pow(2);
                    sees[a * count + b] = near;
                    pairs += u64::from(near && step >= 15);
                }
            }
            samples += u64::from(step >= 15) * walkers;
        }
        let mean = pairs as f64 * 2.0 / samples as f64;
        assert!(
            (mean / visible - 1.0).abs() < 0.1,
            "{walkers} walkers: {mean} in view instead of {visible}"
        );
    }
}

#[test]
fn a_mean_out_of_reach_and_nonsense_get_a_field_all_the_same() {
    assert_eq!(field_units(0, 4.0, 128, 16, 1 << 16), 136);
    assert_eq!(field_units(2, 1e9, 128, 16, 1 << 16), 136);
    assert_eq!(field_units(100, f64::NAN, 128, 16, 1 << 16), 1 << 16);
    assert_eq!(field_units(100, 0.0, 128, 16, 1 << 16), 1 << 16);
    assert_eq!(field_units(1_000_000_000, 1.0, 128, 16, 1 << 16), 1 << 16);
    assert_eq!(field_units(2, 1.0, 0, 0, 0), 1);
}
