//! A path of datagrams beside the stream of each client.

use backend::stub::EchoGame;

use crate::cluster::{Cluster, run};

const BESIDE: &[&str] = &["--side-path", "--clients", "20", "--duration", "1"];

#[test]
fn what_may_get_lost_goes_beside_the_stream_and_comes_back() {
    let cluster = Cluster::with_resume(EchoGame, 60_000);
    for more in [
        vec!["--lane", "unreliable"],
        vec!["--lane", "unreliable", "--transport", "ws"],
        vec!["--lane", "unreliable", "--engine", "epoll"],
        vec!["--scenario", "mixed"],
        vec!["--scenario", "mixed", "--transport", "ws"],
    ] {
        let words = BESIDE.iter().chain(&["--rate", "800"]).chain(&more);
        let words: Vec<&str> = words.copied().collect();
        let (report, wrong) = cluster.load(&words);
        assert!(wrong.is_empty(), "{more:?}: {wrong:?}");
        assert_eq!(report.frames_sent, 800, "{more:?}");
        // Of mixed, half the messages are requests; a path opens a moment after its session.
        let beside = report.frames_sent_beside.expect("told");
        assert!(beside >= 200, "{more:?}: {beside}");
        assert!(report.summary(&[]).contains("side path "), "{more:?}");
        if let Some(mixed) = report.mixed {
            assert_eq!(report.resumes, Some(mixed.cuts), "{more:?}");
        }
    }
    let without = [
        "--lane",
        "unreliable",
        "--clients",
        "5",
        "--duration",
        "0.2",
    ];
    let (report, wrong) = cluster.load(&without);
    assert_eq!((report.frames_sent_beside, wrong.len()), (None, 0));
}

#[test]
fn what_a_side_path_can_not_carry_is_refused() {
    let cluster = Cluster::start(EchoGame);
    for more in [
        &["--transport", "udp", "--lane", "unreliable"][..],
        &["--scenario", "echo"],
        &["--scenario", "reconnect-storm"],
    ] {
        let words: Vec<&str> = BESIDE.iter().chain(more).copied().collect();
        let refused = run(&cluster.args(&words), |_| {
            std::ops::ControlFlow::Continue(())
        });
        let refused = refused.expect_err("a refusal");
        assert!(refused.contains("--side-path"), "{refused}");
    }
}
