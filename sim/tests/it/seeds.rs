//! No seed breaks a rule, and a seed is a run.

use std::ops::Range;

use sim::Course;

/// Worlds that the tests run. They are spread over tests, so that they share
/// the cores.
const SEEDS: u64 = 300;

fn pass(seeds: Range<u64>) {
    for seed in seeds {
        if let Err(violation) = sim::run(seed, None, false) {
            panic!("seed {seed}: {violation}; `sim --seed {seed} --trace` tells the run");
        }
    }
}

#[test]
fn the_first_half_of_the_seeds_breaks_no_rule() {
    pass(0..SEEDS / 2);
}

#[test]
fn the_second_half_of_the_seeds_breaks_no_rule() {
    pass(SEEDS / 2..SEEDS);
}

#[test]
fn equal_seeds_are_equal_runs_and_others_are_not() {
    let mut digests = Vec::new();
    for seed in [3, 11, 42, 77, 1_000_003, u64::MAX] {
        let report = sim::run(seed, None, false).expect("no rule breaks");
        assert_eq!(sim::run(seed, None, false), Ok(report));
        digests.push(report.digest);
    }
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn sessions_outlast_minutes_of_cuts_and_losses() {
    let course = Course::Long { minutes: 3 };
    let report = sim::run_course(1, course, None, false).expect("no rule breaks");
    assert_eq!(sim::run_course(1, course, None, false), Ok(report));
    // 12 clients, each cut every 10 s.
    assert!(report.cuts > 12 * 12, "{} cuts", report.cuts);
    assert!(report.resumes > 20, "{} resumes", report.resumes);
    assert!(report.migrations > 20, "{} migrations", report.migrations);
    assert_eq!(report.crossings, 6, "ways from one transport to another");
    assert!(report.thieves > 60, "{} used tickets", report.thieves);
    // Now and then a game kicks a player; the cuts alone would end no session.
    assert!(report.logins < report.cuts / 2, "{} logins", report.logins);
    assert!(report.messages > 12 * 50, "{} messages", report.messages);
}

#[test]
fn a_run_is_not_empty() {
    // A world in which nobody gets in would break no rule of safety.
    let reports: Vec<_> = (0..100)
        .map(|seed| sim::run(seed, None, false).expect("no rule breaks"))
        .collect();
    assert!(reports.iter().all(|report| report.logins >= 1));
    let messages: u64 = reports.iter().map(|report| report.messages).sum();
    assert!(messages > 100 * 50, "{messages} messages in 100 runs");
    let moves: u64 = reports.iter().map(|report| report.moves).sum();
    assert!(
        moves > 40,
        "{moves} sessions went to another shard in 100 runs"
    );
    let with_map = reports.iter().filter(|report| report.enters > 0).count();
    assert!(
        with_map >= 12,
        "walkers saw each other in {with_map} of 100 runs"
    );
    let enters: u64 = reports.iter().map(|report| report.enters).sum();
    let reentries: u64 = reports.iter().map(|report| report.reentries).sum();
    assert!(enters > 100 * 3, "{enters} came into view in 100 runs");
    assert!(reentries > 0, "no map was restarted under its walkers");
    let over_datagrams: u64 = reports.iter().map(|report| report.datagram_logins).sum();
    let migrations: u64 = reports.iter().map(|report| report.migrations).sum();
    assert!(
        over_datagrams > 100,
        "{over_datagrams} logins over datagrams"
    );
    assert!(migrations > 0, "nobody over datagrams has moved");
    let in_websockets: u64 = reports.iter().map(|report| report.web_logins).sum();
    assert!(in_websockets > 100, "{in_websockets} logins in WebSockets");
    let crossings = reports.iter().map(|report| report.crossings).max();
    assert!(
        crossings >= Some(4),
        "{crossings:?} ways from one transport to another"
    );
    let thieves: u64 = reports.iter().map(|report| report.thieves).sum();
    assert!(thieves > 20, "{thieves} used tickets were shown");
    let channel_messages: u64 = reports.iter().map(|report| report.channel_messages).sum();
    assert!(channel_messages > 1_000, "{channel_messages} in channels");
    let admitted: u64 = reports.iter().map(|report| report.admitted).sum();
    assert!(admitted > 50, "{admitted} were let in from the queue");
}
