//! The shape of the JSON, which people script against, and the verdict.

use serde_json::Value;

use super::{Report, ServerFigures, Totals};
use crate::fail_if::{Condition, MIXED_FIELDS};
use crate::latency::Percentiles;
use crate::messages::{Mixed, Outcome};

pub fn good() -> Report {
    Report {
        scenario: "echo",
        transport: "tcp",
        lane: "reliable",
        seed: 1,
        command: String::from("sallyport loadtest"),
        git_commit: "unknown",
        engine: String::from("uring"),
        machine: String::from("cpu × 2"),
        kernel: String::from("6.18"),
        clients_wanted: 10,
        clients_connected: 10,
        connect_failures: 0,
        connect_seconds: 0.5,
        duration_seconds: 2.0,
        rate_wanted: 100.0,
        rate_reached: 100.0,
        frames_sent: 200,
        frames_received: 200,
        frames_lost: 0,
        frames_duplicated: 0,
        frames_out_of_order: 0,
        errors: [].into(),
        visible_mean: None,
        frames_sent_beside: None,
        queue: None,
        mixed: None,
        resumes: None,
        relogins: None,
        back_p50_us: None,
        back_p99_us: None,
        latency_us: Percentiles {
            p50: 100,
            p90: 200,
            p99: 300,
            p999: 400,
            max: 500,
        },
        server: [(String::from("gateway"), ServerFigures::default())].into(),
    }
}

/// Each figure another multiple.
fn mixed(times: u64) -> Mixed {
    Mixed {
        requests_sent: times,
        sequenced_sent: 2 * times,
        unreliable_sent: 3 * times,
        payload_bytes_sent: 4 * times,
        cuts: 5 * times,
        logouts: 6 * times,
        frames_lost_allowed: 7 * times,
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_json_has_exactly_the_fields_of_the_contract() {
    let value = serde_json::to_value(good()).expect("JSON");
    let mut expected = vec![
        "scenario",
        "transport",
        "lane",
        "seed",
        "command",
        "git_commit",
        "engine",
        "machine",
        "kernel",
        "clients_wanted",
        "clients_connected",
        "connect_failures",
        "connect_seconds",
        "duration_seconds",
        "rate_wanted",
        "rate_reached",
        "frames_sent",
        "frames_received",
        "frames_lost",
        "frames_duplicated",
        "frames_out_of_order",
        "errors",
        "visible_mean",
        "frames_sent_beside",
        "mixed",
        "queue",
        "resumes",
        "relogins",
        "back_p50_us",
        "back_p99_us",
        "latency_us",
        "server",
    ];
    expected.sort_unstable();
    assert_eq!(keys(&value), expected);
    assert_eq!(
        keys(&value["latency_us"]),
        ["max", "p50", "p90", "p99", "p999"]
    );
    assert_eq!(
        keys(&value["server"]["gateway"]),
        [
            "connect_cpu_us_per_client",
            "cpu_seconds",
            "cpu_us_per_frame",
            "cpu_us_per_resume",
            "rss_bytes_before",
            "rss_bytes_idle",
            "rss_bytes_peak",
            "rss_bytes_per_client"
        ]
    );
    let value_of_mixed = serde_json::to_value(mixed(1)).expect("JSON");
    let mut fields = MIXED_FIELDS.to_vec();
    fields.sort_unstable();
    assert_eq!(keys(&value_of_mixed), fields);
    assert!(value["seed"].is_u64());
    assert!(value["rate_wanted"].is_f64());
    assert!(value["errors"].is_object());
}

#[test]
fn a_good_run_has_nothing_wrong() {
    assert!(good().wrong(&[]).is_empty());
    assert!(good().summary(&[]).contains("good"));
}

#[test]
fn each_fault_is_wrong_by_itself() {
    type Plant = (fn(&mut Report), &'static str);
    let faults: [Plant; 6] = [
        (|report| report.clients_connected = 9, "were not in"),
        (|report| report.connect_failures = 1, "never got in"),
        (|report| report.frames_lost = 1, "lost"),
        (|report| report.frames_duplicated = 1, "doubled"),
        (|report| report.frames_out_of_order = 1, "out of order"),
        (
            |report| report.errors = [(String::from("content"), 1)].into(),
            "content",
        ),
    ];
    for (plant, told) in faults {
        let mut report = good();
        plant(&mut report);
        let wrong = report.wrong(&[]);
        assert_eq!(wrong.len(), 1, "{told}");
        assert!(wrong[0].contains(told), "{wrong:?}");
        assert!(report.summary(&wrong).contains(told));
    }
}

#[test]
fn conditions_decide_and_a_figure_that_is_missing_decides_too() {
    let wrong = |text| good().wrong(&[Condition::parse(text).expect(text)]).len();
    assert_eq!(wrong("p99_us > 300"), 0);
    assert_eq!(wrong("p99_us >= 300"), 1);
    assert_eq!(wrong("errors.content > 0"), 0);
    assert_eq!(wrong("server.gateway.cpu_seconds > 1"), 1);
}

#[test]
fn workers_add_up() {
    let one = Outcome {
        logged_in_most: 3,
        first_attempt_us: Some(10),
        last_login_us: Some(50),
        sent: 5,
        errors: [(String::from("content"), 1)].into(),
        latency: vec![(100, 5)],
        sent_beside: Some(2),
        mixed: Some(mixed(1)),
        ..Outcome::default()
    };
    let other = Outcome {
        logged_in_most: 4,
        first_attempt_us: Some(8),
        last_login_us: Some(40),
        window_end_us: Some(90),
        sent: 7,
        errors: [(String::from("content"), 2), (String::from("not_sent"), 1)].into(),
        latency: vec![(200, 7)],
        sent_beside: Some(3),
        mixed: Some(mixed(2)),
        ..Outcome::default()
    };
    let mut totals = Totals::default();
    totals.add(&one);
    totals.add(&other);
    assert_eq!(totals.sum.logged_in_most, 7);
    assert_eq!(totals.sum.first_attempt_us, Some(8));
    assert_eq!(totals.sum.last_login_us, Some(50));
    assert_eq!(totals.sum.window_end_us, Some(90));
    assert_eq!(totals.sum.sent, 12);
    assert_eq!(totals.sum.errors["content"], 3);
    assert_eq!(totals.sum.errors["not_sent"], 1);
    assert_eq!(totals.sum.sent_beside, Some(5));
    assert_eq!(totals.sum.mixed, Some(mixed(3)));
    assert_eq!(totals.latencies.count(), 12);
}

#[test]
fn derived_figures_follow_from_the_others() {
    let mut figures = ServerFigures {
        cpu_seconds: Some(2.0),
        rss_bytes_before: Some(1_000),
        rss_bytes_idle: Some(11_000),
        ..ServerFigures::default()
    };
    figures.derive(10, 200_000, 4_000);
    assert_eq!(figures.cpu_us_per_frame, Some(10.0));
    assert_eq!(figures.cpu_us_per_resume, Some(500.0));
    assert_eq!(figures.rss_bytes_per_client, Some(1_000.0));
    figures.derive(0, 0, 0);
    assert_eq!(figures.cpu_us_per_frame, None);
    assert_eq!(figures.cpu_us_per_resume, None);
    assert_eq!(figures.rss_bytes_per_client, None);
}
