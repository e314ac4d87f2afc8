//! When a client tries again, and when not.

use super::*;

const LOST: Option<Closed> = Some(Closed::ByClient(CloseReason::PeerClosed));
const MOST: u64 = u64::MAX;

fn by_gateway(reason: CloseReason) -> Option<Closed> {
    Some(Closed::ByGateway(Some(reason)))
}

fn again(attempt: u32, wait_ms: u64) -> Next {
    Next::Again { attempt, wait_ms }
}

#[test]
fn waits_are_drawn_from_windows_that_double_up_to_a_bound() {
    let mut comeback = Comeback::new(20);
    comeback.handle_in(Time(0));
    let windows = [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000];
    let mut lowest = comeback.clone();
    for (at, &window_ms) in windows.iter().enumerate() {
        let attempt = at as u32 + 1;
        let failure = if at == 0 { LOST } else { None };
        let most = comeback.handle_end(Time(0), failure, 0, MOST);
        assert_eq!(most, again(attempt, window_ms));
        let least = lowest.handle_end(Time(0), failure, 0, 0);
        assert_eq!(least, again(attempt, 0));
    }
    // However many they were.
    let mut patient = Comeback::new(u32::MAX);
    patient.handle_in(Time(0));
    for _ in 0..100 {
        patient.handle_end(Time(0), None, 0, MOST);
    }
    assert_eq!(
        patient.handle_end(Time(0), None, 0, MOST),
        again(101, BACKOFF_MS_MAX)
    );
}

#[test]
fn draws_are_spread_over_the_window() {
    let middle = Comeback::new(20).handle_end(Time(0), None, 0, 1 << 63);
    assert_eq!(middle, again(1, BACKOFF_MS / 2));
}

#[test]
fn what_the_gateway_asks_for_is_added_up_to_a_bound() {
    let full = by_gateway(CloseReason::Full);
    let mut comeback = Comeback::new(20);
    assert_eq!(
        comeback.handle_end(Time(0), full, 1_000, 0),
        again(1, 1_000)
    );
    assert_eq!(
        comeback.handle_end(Time(0), full, u32::MAX, MOST),
        again(2, RETRY_AFTER_MS_MAX + 500)
    );
}

#[test]
fn attempts_before_the_first_login_are_few() {
    let mut comeback = Comeback::new(20);
    for attempt in 1..FIRST_ATTEMPTS_MAX {
        assert_eq!(
            comeback.handle_end(Time(0), None, 0, 0),
            again(attempt, 0),
            "{attempt}"
        );
    }
    let attempts = FIRST_ATTEMPTS_MAX;
    assert_eq!(
        comeback.handle_end(Time(0), None, 0, 0),
        Next::GaveUp { attempts }
    );
}

#[test]
fn attempts_to_come_back_are_counted_anew_after_each_connection_that_is_lost() {
    let mut comeback = Comeback::new(3);
    for _ in 0..10 {
        comeback.handle_in(Time(0));
        assert_eq!(comeback.handle_end(Time(0), LOST, 0, 0), again(1, 0));
        assert_eq!(comeback.handle_end(Time(0), None, 0, 0), again(2, 0));
        assert_eq!(comeback.handle_end(Time(0), LOST, 0, 0), again(3, 0));
    }
    assert_eq!(
        comeback.handle_end(Time(0), LOST, 0, 0),
        Next::GaveUp { attempts: 4 }
    );
}

#[test]
fn whoever_is_let_in_and_thrown_out_waits_longer_each_time() {
    let exceeded = by_gateway(CloseReason::RateExceeded);
    let mut comeback = Comeback::new(20);
    let mut now = Time(0);
    for (attempt, window_ms) in [(1, 250), (2, 500), (3, 1_000)] {
        comeback.handle_in(now);
        now = now.after_ms(STEADY_MS - 1);
        assert_eq!(
            comeback.handle_end(now, exceeded, 0, MOST),
            again(attempt, window_ms)
        );
    }
    comeback.handle_in(now);
    now = now.after_ms(STEADY_MS);
    assert_eq!(comeback.handle_end(now, exceeded, 0, MOST), again(1, 250));
}

#[test]
fn what_another_attempt_would_not_mend_is_final() {
    let always = [
        CloseReason::Superseded,
        CloseReason::Replaced,
        CloseReason::LoggedOut,
        CloseReason::Kicked,
        CloseReason::BadToken,
        CloseReason::TokenAudience,
        CloseReason::Banned,
        CloseReason::UpgradeRequired,
        CloseReason::PlaceTaken,
    ];
    let first = [CloseReason::BadHandshake, CloseReason::BadVersion];
    for &reason in CloseReason::ALL {
        let mut comeback = Comeback::new(20);
        let is_final = comeback.handle_end(Time(0), by_gateway(reason), 0, 0) == Next::Final;
        let expected = always.contains(&reason) || first.contains(&reason);
        assert_eq!(is_final, expected, "{reason:?} at first");

        let mut comeback = Comeback::new(20);
        comeback.handle_in(Time(0));
        let is_final = comeback.handle_end(Time(0), by_gateway(reason), 0, 0) == Next::Final;
        assert_eq!(is_final, always.contains(&reason), "{reason:?} later");
    }
    // A ban that is told before anything is authenticated is no reason to give a session up.
    let mut comeback = Comeback::new(20);
    comeback.handle_in(Time(0));
    comeback.handle_end(Time(0), None, 0, 0);
    let banned = comeback.handle_end(Time(0), by_gateway(CloseReason::Banned), 0, 0);
    assert_ne!(banned, Next::Final);
    // A reason of a later version is not.
    let unknown = Some(Closed::ByGateway(None));
    assert_eq!(
        Comeback::new(20).handle_end(Time(0), unknown, 0, 0),
        again(1, 0)
    );
}

#[test]
fn an_address_is_left_when_it_fails_or_its_gateway_goes() {
    let mut comeback = Comeback::new(20);
    assert_eq!(comeback.address(3), 0);
    comeback.handle_end(Time(0), None, 0, 0);
    assert_eq!(comeback.address(3), 1);
    comeback.handle_in(Time(0));
    comeback.handle_end(Time(0), LOST, 0, 0);
    assert_eq!(comeback.address(3), 1, "it has let the client in");
    comeback.handle_in(Time(0));
    comeback.handle_end(Time(0), by_gateway(CloseReason::Draining), 0, 0);
    assert_eq!(comeback.address(3), 2);
    comeback.handle_end(Time(0), None, 0, 0);
    assert_eq!(comeback.address(3), 0);
    assert_eq!(Comeback::new(20).address(0), 0);
}
