//! What a live service sees at once, over each transport, on an honest cluster and on others.

use backend::stub::EchoGame;

use crate::cluster::{Cluster, run};

const MIXED: &[&str] = &["--scenario", "mixed", "--clients", "40"];

#[test]
fn every_lane_keeps_what_it_promises_while_clients_are_cut_and_leave() {
    let cluster = Cluster::with_resume(EchoGame, 60_000);
    for more in [
        vec!["--rate", "800"],
        vec!["--rate", "800", "--transport", "ws"],
        vec!["--rate", "800", "--transport", "udp"],
        vec!["--rate", "400", "--engine", "epoll", "--processes", "2"],
    ] {
        let words = MIXED.iter().chain(&["--duration", "1.5"]).chain(&more);
        let words: Vec<&str> = words.copied().collect();
        let (report, wrong) = cluster.load(&words);
        assert!(wrong.is_empty(), "{more:?}: {wrong:?}");
        assert_eq!((report.scenario, report.lane), ("mixed", "all"));
        let mixed = report.mixed.expect("told");
        assert_eq!(mixed.requests_sent, report.frames_sent / 2, "{more:?}");
        assert!(mixed.sequenced_sent >= 100 && mixed.unreliable_sent >= 100);
        assert_eq!(
            report.frames_received + mixed.frames_lost_allowed,
            report.frames_sent,
            "{more:?}"
        );
        // A third of 40 clients, three times, and a tenth, three times; one that is away or about
        // to leave at its moment is left alone.
        assert!((14..=42).contains(&mixed.cuts), "{more:?}: {mixed:?}");
        assert!((4..=12).contains(&mixed.logouts), "{more:?}: {mixed:?}");
        assert_eq!(report.resumes, Some(mixed.cuts), "{more:?}");
        assert_eq!(report.relogins, Some(0), "{more:?}");
        // Requests have 400 bytes on average, messages 64.
        let bytes = mixed.payload_bytes_sent / report.frames_sent;
        assert!((130..=340).contains(&bytes), "{bytes}");
        let summary = report.summary(&[]);
        assert!(summary.contains(", every lane, seed 1"), "{summary}");
        assert!(summary.contains(" logouts and new logins; "), "{summary}");
    }
}

#[test]
fn it_takes_no_lane_and_conditions_on_what_it_did() {
    let cluster = Cluster::start(EchoGame);
    let words: Vec<&str> = MIXED
        .iter()
        .chain(&["--lane", "sequenced"])
        .copied()
        .collect();
    let refused = run(&cluster.args(&words), |_| {
        std::ops::ControlFlow::Continue(())
    });
    let refused = refused.expect_err("a refusal");
    assert!(refused.contains("--lane"), "{refused}");

    let more = [
        "--duration",
        "0.2",
        "--fail-if",
        "mixed.requests_sent < 1000000",
    ];
    let words: Vec<&str> = MIXED.iter().chain(&more).copied().collect();
    let (_, wrong) = cluster.load(&words);
    assert!(
        wrong
            .iter()
            .any(|line| line.contains("mixed.requests_sent")),
        "{wrong:?}"
    );
}
