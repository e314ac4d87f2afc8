//! The order of a story, its bound, and rates over time.

use super::*;

const SECOND: u64 = 1_000_000;

#[test]
fn a_story_keeps_the_last_events_and_counts_what_repeats() {
    let mut story = Story::default();
    assert_eq!(story.events().count(), 0);
    story.note(Time(SECOND), Event::LoggedIn, 0);
    for ms in 0..1_000 {
        story.note(Time(2 * SECOND + 1_000 * ms), Event::RatePaused, 0);
    }
    let events: Vec<_> = story.events().collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].event, Event::LoggedIn);
    let paused = events[1];
    assert_eq!((paused.event, paused.times), (Event::RatePaused, u8::MAX));
    assert_eq!(paused.at_ms, Time(2 * SECOND + 999_000).wire_ms());
    for group in 0..100 {
        story.note(Time(9 * SECOND), Event::Bound, group);
    }
    let groups: Vec<_> = story.events().map(|noted| noted.about).collect();
    assert_eq!(groups, (90..100).collect::<Vec<_>>());
}

#[test]
fn a_story_is_small() {
    assert!(size_of::<Story>() <= 84);
    assert!(size_of::<Traffic>() <= 28);
}

#[test]
fn traffic_is_that_of_the_last_seconds() {
    let mut traffic = Traffic::default();
    for tenth in 0..200 {
        let now = Time(tenth * SECOND / 10);
        traffic.received(now, 100);
        traffic.sent(now, 50);
        if tenth > 100 {
            let rate = traffic.per_second(now);
            assert!((9..=11).contains(&rate.frames), "{rate:?}");
            assert!((950..=1_050).contains(&rate.received_bytes), "{rate:?}");
            assert!((475..=525).contains(&rate.sent_bytes), "{rate:?}");
        }
    }
    assert_eq!(traffic.per_second(Time(40 * SECOND)), Amount::default());
}
