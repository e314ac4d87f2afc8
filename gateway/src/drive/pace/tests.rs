//! Waiting begins and ends with the load.

use super::*;

/// Asks every 100 µs for `ms`, at `frames_per_ms`; how often it was told to wait.
fn waits(pace: &mut Pace, now: &mut Time, frames: &mut u64, frames_per_ms: u64, ms: u64) -> u64 {
    let mut waits = 0;
    for step in 1..=ms * 10 {
        *now = *now + 100;
        if step % 10 == 0 {
            *frames += frames_per_ms;
        }
        waits += u64::from(pace.wait(*now, *frames).is_some());
    }
    waits
}

#[test]
fn waiting_begins_and_ends_with_the_load() {
    let (mut pace, mut now, mut frames) = (Pace::default(), Time(7_000_000), 0);
    let low = FRAMES_PER_MS_MIN - 1;
    assert_eq!(waits(&mut pace, &mut now, &mut frames, low, 1_000), 0);
    let high = waits(&mut pace, &mut now, &mut frames, FRAMES_PER_MS_MIN + 1, 100);
    assert!((900..=1_000).contains(&high), "{high} of 1,000");
    let after = waits(&mut pace, &mut now, &mut frames, low, 1_000);
    assert!(after <= 2 * WINDOW_MS * 10, "{after} after the load");
}

#[test]
fn one_burst_is_no_load() {
    let (mut pace, mut now, mut frames) = (Pace::default(), Time(7_000_000), 0);
    waits(&mut pace, &mut now, &mut frames, 0, 100);
    frames += FRAMES_PER_MS_MIN * WINDOW_MS / 2;
    assert_eq!(waits(&mut pace, &mut now, &mut frames, 0, 100), 0);
}
