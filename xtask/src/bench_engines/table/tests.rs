//! Medians and ratios.

use super::super::{Outcome, Round};
use super::{of, spread};

fn round(cpu_us: [f64; 4]) -> Round {
    cpu_us.map(|cpu_us| Outcome {
        seconds: 2.0,
        round_trips: 100_000,
        received_bytes: 0,
        server_cpu_seconds: cpu_us / 10.0,
        backend_cpu_seconds: 0.5,
        load_cpu_seconds: 1.0,
    })
}

#[test]
fn a_median_stands_between_the_middle_two() {
    let rounds = [3.0, 1.0, 9.0, 4.0].map(|cpu_us| round([cpu_us; 4]));
    let [low, middle, high] = spread(&rounds, |round| round[0].cpu_us());
    assert!((low - 1.0).abs() < 1e-9 && (middle - 3.5).abs() < 1e-9 && (high - 9.0).abs() < 1e-9);
}

#[test]
fn a_ratio_is_taken_within_a_round() {
    // The second round was twice as slow for everybody.
    let rounds = [round([8.0, 12.0, 4.0, 6.0]), round([16.0, 24.0, 8.0, 12.0])];
    let table = of(1_000, 2.0, &rounds);
    let line = |start: &str| {
        let line = table.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no line {start:?}:\n{table}"))
    };
    assert!(line("gateway, uring / bare ring echo").ends_with("2.00 (2.00–2.00)"));
    assert!(line("gateway, uring    ").contains("12.00 (8.00–16.00)"));
    let bare = line("bare epoll echo ");
    assert!(bare.contains("50000") && bare.ends_with("75 %"), "{bare}");
}
