//! Frames that are old or from the future: lost where the lane may lose, let
//! through where it may not, until that goes on for too long.

use std::time::Duration;

use protocol::body::{Lane, MessageKind};
use protocol::limits::{
    CLOCK_SETTLE_MS, TIMESTAMP_AGE_MS_MAX, TIMESTAMP_AHEAD_MS_MAX, TIMESTAMP_FAILURES_MAX,
};
use protocol::reason::{CloseReason, DropReason};
use protocol::time::Time;

use super::with_neighbour;
use crate::cluster::raw::{Raw, encoded, message, ping};

/// More than what a frame may be on its way here.
const MARGIN_MS: u64 = 500;

/// A time at which a frame is too old.
fn old(raw: &Raw) -> Time {
    Time(raw.now().0 - (TIMESTAMP_AGE_MS_MAX as u64 + MARGIN_MS) * 1_000)
}

/// A time at which a frame is from the future.
fn future(raw: &Raw) -> Time {
    raw.now()
        .after_ms(TIMESTAMP_AHEAD_MS_MAX as u64 + MARGIN_MS)
}

/// Sends a frame of each lossy lane with a time on it, which is lost, and one
/// with the right time, which is not.
fn lossy(raw: &mut Raw, time: fn(&Raw) -> Time) {
    for (number, lane) in [(0, Lane::Unreliable), (1, Lane::Sequenced)] {
        let lost = message(MessageKind::Message, lane, number, 0, b"lost");
        let frame = raw.seal_at(time(raw), 0, &lost);
        raw.send(&frame);
        let good = message(MessageKind::Message, lane, 2 * number, 0, b"good");
        let frame = raw.seal(0, &good);
        raw.send(&frame);
        raw.expect_echo(MessageKind::Message, b"good");
    }
}

/// Sends reliable frames with a bad time: as many as are let through, one good
/// one, as many again, and one too many.
fn reliable(raw: &mut Raw, time: fn(&Raw) -> Time) {
    for round in 0..2 {
        for at in 0..TIMESTAMP_FAILURES_MAX as u8 {
            let payload = [round, at];
            let body = raw.request(&payload);
            let frame = raw.seal_at(time(raw), 0, &body);
            raw.send(&frame);
            raw.expect_echo(MessageKind::Reply, &payload);
        }
        if round == 0 {
            raw.round_trip(b"in time");
        }
    }
    let frame = raw.seal_at(time(raw), 0, &encoded(&ping(1)));
    raw.send(&frame);
    raw.expect_close(CloseReason::BadTimestamp);
}

#[test]
fn old_frames_are_lost_or_counted_until_it_is_too_much() {
    with_neighbour(|cluster, calm| {
        let mut raw = Raw::logged_in(cluster, "late");
        lossy(&mut raw, old);
        calm.dropped(DropReason::TimestampOld, 2);
        reliable(&mut raw, old);
        calm.closed(CloseReason::BadTimestamp, 1);
    });
}

#[test]
fn frames_from_the_future_are_lost_or_counted_until_it_is_too_much() {
    with_neighbour(|cluster, calm| {
        let mut raw = Raw::logged_in(cluster, "early");
        // Only a clock that has settled can be wrong; until then it lives on.
        let settled = Duration::from_millis(CLOCK_SETTLE_MS + MARGIN_MS);
        while raw.age() < settled {
            raw.round_trip(b"settling");
            std::thread::sleep(Duration::from_millis(100));
        }
        lossy(&mut raw, future);
        calm.dropped(DropReason::TimestampFuture, 2);
        reliable(&mut raw, future);
        calm.closed(CloseReason::BadTimestamp, 1);
    });
}
