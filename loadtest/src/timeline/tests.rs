//! Bounded, evenly spaced, and with its peaks.

use super::{Latency, Reading, SAMPLES_MAX, Sample, Timeline};

fn second(at: u32) -> Sample {
    Sample {
        at_seconds: f64::from(at),
        clients: at,
        sent_per_second: f64::from(at % 2) * 10.0,
        received_per_second: 7.0,
        latency: Some(Latency {
            p50_us: 100.0,
            p99_us: if at == 4_321 { 9_000.0 } else { 200.0 },
        }),
        server: at.is_multiple_of(3).then(|| Reading {
            at_seconds: f64::from(at),
            roles: Vec::new(),
        }),
    }
}

#[test]
fn a_short_run_keeps_every_second() {
    let mut timeline = Timeline::default();
    for at in 1..SAMPLES_MAX as u32 {
        timeline.push(second(at));
    }
    let expected: Vec<Sample> = (1..SAMPLES_MAX as u32).map(second).collect();
    assert!(timeline.samples().eq(&expected));
}

#[test]
fn a_long_run_is_thinned_evenly_and_keeps_peaks() {
    let mut timeline = Timeline::default();
    for at in 1..=100_000 {
        timeline.push(second(at));
        assert!(timeline.samples.len() <= SAMPLES_MAX);
    }
    let samples: Vec<&Sample> = timeline.samples().collect();
    assert!(samples.len() >= SAMPLES_MAX / 2 - 1, "{}", samples.len());
    let step = samples[1].at_seconds - samples[0].at_seconds;
    let last = samples.len() - 1;
    for pair in samples[..last].windows(2) {
        assert_eq!(pair[1].at_seconds - pair[0].at_seconds, step);
        assert!((pair[0].sent_per_second - 5.0).abs() < 1e-9);
        assert_eq!(pair[0].clients, pair[0].at_seconds as u32);
    }
    assert_eq!(samples[last].at_seconds, 100_000.0);
    let peak = samples
        .iter()
        .filter_map(|sample| sample.latency)
        .map(|latency| latency.p99_us)
        .fold(0.0, f64::max);
    assert_eq!(peak, 9_000.0);
    assert!(samples.iter().all(|sample| sample.server.is_some()));
}
