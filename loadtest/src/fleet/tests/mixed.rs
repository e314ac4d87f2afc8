//! The scenario `mixed` in virtual time: each lane by its own rules, and clients that leave.

use super::server::Fault;
use super::*;

/// No cuts: the server in memory keeps no session.
fn mixed() -> WorkerPlan {
    WorkerPlan {
        cut_every_ms: Some(u64::MAX >> 12),
        leave_every_ms: Some(u64::MAX >> 12),
        ..plan(LaneName::Reliable)
    }
}

#[test]
fn an_honest_server_answers_on_every_lane() {
    let outcome = run(mixed(), Fault::None);
    assert_eq!(faults(&outcome), (0, 0, 0, vec![]));
    assert_eq!((outcome.sent, outcome.received), (SENDS, SENDS));
    let mixed = outcome.mixed.expect("told");
    assert_eq!(
        (
            mixed.requests_sent,
            mixed.sequenced_sent,
            mixed.unreliable_sent
        ),
        (SENDS / 2, SENDS / 4, SENDS / 4)
    );
    assert_eq!(
        (mixed.cuts, mixed.logouts, mixed.frames_lost_allowed),
        (0, 0, 0)
    );
    let payloads = outcome.latency.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(payloads, SENDS);
}

#[test]
fn each_fault_is_found_in_whatever_lane_it_is() {
    let hit = SENDS / FAULT_EVERY;
    let outcome = run(mixed(), Fault::Corrupt);
    assert_eq!(faults(&outcome), (0, 0, 0, vec![("content", hit)]));
    // Nobody was cut: also what the lossy lanes carry has to arrive over a stream.
    let outcome = run(mixed(), Fault::Drop);
    assert_eq!(faults(&outcome), (hit, 0, 0, vec![]));
    assert_eq!(outcome.mixed.expect("told").frames_lost_allowed, 0);
    let outcome = run(mixed(), Fault::Double);
    assert_eq!(faults(&outcome), (0, hit, 0, vec![]));
    let outcome = run(mixed(), Fault::Reorder { before: SENDS / 2 });
    assert_eq!(
        (outcome.lost, outcome.duplicated, outcome.errors.len()),
        (0, 0, 0)
    );
}

#[test]
fn who_leaves_is_answered_before_and_plays_on_after() {
    let plan = WorkerPlan {
        leave_every_ms: Some(250),
        ..mixed()
    };
    let outcome = run(plan, Fault::None);
    assert_eq!(faults(&outcome), (0, 0, 0, vec![]));
    assert_eq!((outcome.sent, outcome.relogins), (SENDS, 0));
    let mixed = outcome.mixed.expect("told");
    // A tenth of the clients in each of eight periods.
    assert_eq!(mixed.logouts, u64::from(CLIENTS) / 10 * 8);
    assert_eq!(outcome.received + mixed.frames_lost_allowed, SENDS);
    assert_eq!(outcome.logged_in_most, CLIENTS);
}

#[test]
fn who_is_cut_while_logging_out_comes_back_to_learn_that_it_is_out() {
    let outcome = run(mixed(), Fault::CutLogout);
    assert_eq!(faults(&outcome), (0, 0, 0, vec![]));
    assert_eq!((outcome.connect_failures, outcome.relogins), (0, 0));
    // Where nobody comes back it is an error.
    let outcome = run(plan(LaneName::Reliable), Fault::CutLogout);
    assert_eq!(outcome.errors["peer_closed"], u64::from(CLIENTS));
}

#[test]
fn who_is_cut_and_finds_no_session_is_missed_on_the_reliable_lane_only() {
    let plan = WorkerPlan {
        cut_every_ms: Some(500),
        ..mixed()
    };
    let outcome = run(plan, Fault::Stall { until_ms: 1_500 });
    let mixed = outcome.mixed.expect("told");
    // Every third of twenty clients, four times, unless it was still away.
    assert!((7..=28).contains(&mixed.cuts), "{mixed:?}");
    // Who is cut last is out when it comes back to log out.
    assert_eq!(outcome.resumes, 0);
    assert!((7..=mixed.cuts).contains(&outcome.relogins), "{outcome:?}");
    assert_eq!(outcome.duplicated + outcome.out_of_order, 0);
    assert!(outcome.lost > 0 && mixed.frames_lost_allowed > 0);
    assert_eq!(
        outcome.received + outcome.lost + mixed.frames_lost_allowed,
        outcome.sent
    );
}
