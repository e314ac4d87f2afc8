//! Walkers on an honest map find nothing wrong; each bug of a map is found and named.

use super::map::{Bug, MapServer};
use super::server::{Fault, Server};
use super::{faults, plan, run_on};
use crate::args::LaneName;
use crate::messages::{Outcome, WalkPlan, WorkerPlan};

const WALKERS: u32 = 60;
const SECONDS: u64 = 20;

fn walk_plan(visible: f64) -> WorkerPlan {
    WorkerPlan {
        clients: WALKERS,
        count: WALKERS,
        rate: f64::from(WALKERS),
        duration_ms: SECONDS * 1_000,
        drain_ms: 6_000,
        walk: Some(WalkPlan {
            visible,
            run: 0xabcd_1234,
        }),
        ..plan(LaneName::Reliable)
    }
}

fn walk(plan: WorkerPlan, bug: Bug) -> Outcome {
    run_on(plan, Server::with_map(MapServer::new(bug)), Fault::None)
}

fn visible_mean(outcome: &Outcome) -> f64 {
    let (seen, looks) = outcome.visible.expect("views in the window");
    // Four times a second at each, from the first second to the last.
    let expected = u64::from(WALKERS) * SECONDS * 4;
    assert!(looks.abs_diff(expected) < expected / 10, "{looks}");
    seen as f64 / looks as f64
}

#[test]
fn an_honest_map_leaves_nothing_to_report() {
    for lane in [
        LaneName::Reliable,
        LaneName::Unreliable,
        LaneName::Sequenced,
    ] {
        let outcome = walk(
            WorkerPlan {
                lane,
                ..walk_plan(4.0)
            },
            Bug::None,
        );
        assert_eq!(faults(&outcome), (0, 0, 0, vec![]), "{lane:?}");
        assert_eq!(outcome.unable, None);
        assert_eq!(outcome.sent, u64::from(WALKERS) * SECONDS);
        let mean = visible_mean(&outcome);
        // 60 walkers are few for a mean.
        assert!((2.5..6.0).contains(&mean), "{mean}");
        // A move is seen by those near it within a tick.
        let seen: u64 = outcome.latency.iter().map(|(_, count)| count).sum();
        assert!(seen as f64 > outcome.sent as f64 * mean / 2.0, "{seen}");
        let slowest = outcome.latency.iter().map(|(us, _)| *us).max();
        assert!(slowest.is_some_and(|us| us < 250_000), "{slowest:?}");
    }
}

#[test]
fn views_that_are_full_are_not_wrong() {
    // Everybody in one small field: 59 others in view of 64 seats, and all seen.
    let outcome = walk(walk_plan(200.0), Bug::None);
    assert_eq!(faults(&outcome), (0, 0, 0, vec![]));
    assert!(visible_mean(&outcome) > 30.0);
}

#[test]
fn each_bug_of_a_map_is_found_and_named() {
    for (bug, reason) in [
        (Bug::ShortSight, "view_missing"),
        (Bug::Hidden, "view_missing"),
        (Bug::Ghosts, "view_extra"),
        (Bug::Frozen, "view_place"),
        (Bug::Shifted, "off_path"),
        (Bug::Shifted, "view_place"),
        (Bug::Stuck, "view_place"),
        (Bug::LeavesTwice, "view_contradiction"),
    ] {
        let outcome = walk(walk_plan(6.0), bug);
        let count = outcome.errors.get(reason).copied().unwrap_or(0);
        assert!(count > 0, "{bug:?}: {:?}", outcome.errors);
    }
}

#[test]
fn a_map_that_lets_nobody_in_makes_the_run_unable() {
    let unable = walk(walk_plan(4.0), Bug::Closed).unable.expect("a reason");
    assert!(unable.contains("enter_refused"), "{unable}");
}

#[test]
fn a_game_without_a_map_makes_the_run_unable() {
    let unable = run_on(walk_plan(4.0), Server::new(Fault::None, 1_000), Fault::None)
        .unable
        .expect("a reason");
    assert!(unable.contains("enter_refused"), "{unable}");
}

#[test]
fn each_worker_knows_where_the_clients_of_others_are() {
    // Half of the walkers are another worker's, and do not come: each that should be seen of
    // them is missing, which only their ways can tell.
    let outcome = walk(
        WorkerPlan {
            count: WALKERS / 2,
            ..walk_plan(6.0)
        },
        Bug::None,
    );
    let missing = outcome.errors["view_missing"];
    assert_eq!(outcome.errors.len(), 1, "{:?}", outcome.errors);
    assert!((30..180).contains(&missing), "{missing}");
}
