//! Storms of clients that are cut and come back, on an honest cluster and on one that
//! keeps no session.

use backend::stub::EchoGame;

use crate::cluster::{Cluster, run};

const STORM: &[&str] = &["--scenario", "reconnect-storm", "--clients", "40"];

#[test]
fn everybody_comes_back_to_the_session_and_nothing_is_missing() {
    let cluster = Cluster::with_resume(EchoGame, 60_000);
    for more in [
        vec!["--rate", "400"],
        vec!["--rate", "400", "--transport", "ws"],
        vec!["--rate", "400", "--transport", "udp"],
        vec!["--rate", "100", "--engine", "epoll", "--processes", "2"],
    ] {
        let words = STORM.iter().chain(&["--duration", "1.5"]).chain(&more);
        let words: Vec<&str> = words.copied().collect();
        let (report, wrong) = cluster.load(&words);
        assert!(wrong.is_empty(), "{more:?}: {wrong:?}");
        assert_eq!(report.scenario, "reconnect-storm");
        assert_eq!(report.frames_received, report.frames_sent);
        assert!(report.frames_sent >= 150, "{more:?}");
        // Three moments each; one that is still away at its next one is not cut.
        let resumes = report.resumes.expect("told");
        assert!((40..=120).contains(&resumes), "{more:?}: {resumes}");
        assert_eq!(report.relogins, Some(0), "{more:?}");
        let (p50, p99) = (report.back_p50_us, report.back_p99_us);
        assert!(p50 > Some(0) && p50 <= p99, "{p50:?} {p99:?}");
        assert!(
            report
                .summary(&[])
                .contains(" to their sessions, 0 by a new login")
        );
    }
}

#[test]
fn who_is_refused_logs_in_anew_and_what_was_under_way_is_counted_as_lost() {
    let cluster = Cluster::start(EchoGame);
    let words = STORM.iter().chain(&["--duration", "1.5", "--rate", "400"]);
    let (report, wrong) = cluster.load(&words.copied().collect::<Vec<_>>());
    assert_eq!(report.resumes, Some(0));
    assert!(report.relogins >= Some(40), "{:?}", report.relogins);
    assert_eq!(report.connect_failures, 0);
    assert_eq!(
        report.frames_sent,
        report.frames_received + report.frames_lost
    );
    assert_eq!(report.frames_duplicated + report.frames_out_of_order, 0);
    let others = wrong.iter().filter(|line| !line.contains("were lost"));
    assert_eq!(others.count(), 0, "{wrong:?}");
}

#[test]
fn what_a_storm_can_not_be_is_refused() {
    let cluster = Cluster::start(EchoGame);
    for (more, named) in [
        (["--lane", "unreliable"], "--lane"),
        (["--visible", "3"], "--visible"),
    ] {
        let words: Vec<_> = STORM.iter().chain(&more).copied().collect();
        let refused = run(&cluster.args(&words), |_| {
            std::ops::ControlFlow::Continue(())
        });
        let refused = refused.expect_err("a refusal");
        assert!(refused.contains(named), "{refused}");
    }
}
