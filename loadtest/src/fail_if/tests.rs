//! Expressions: what is taken, what is refused, what they say.

use serde_json::json;

use super::{Condition, Judged};

fn judged(text: &str) -> Judged {
    let report = json!({
        "frames_lost": 3,
        "rate_reached": 999.5,
        "errors": {"content": 2},
        "latency_us": {"p50": 100, "p99": 51_000},
        "server": {"gateway": {"cpu_us_per_frame": 7.5, "rss_bytes_idle": null}},
    });
    Condition::parse(text).expect(text).judge(&report)
}

#[test]
fn each_operator_compares() {
    for (text, expected) in [
        ("frames_lost > 2", Judged::True(3.0)),
        ("frames_lost > 3", Judged::False),
        ("frames_lost>=3", Judged::True(3.0)),
        ("frames_lost < 3", Judged::False),
        ("frames_lost <= 3", Judged::True(3.0)),
        ("frames_lost == 3", Judged::True(3.0)),
        ("frames_lost != 3", Judged::False),
        ("rate_reached < 1e3", Judged::True(999.5)),
    ] {
        assert_eq!(judged(text), expected, "{text}");
    }
}

#[test]
fn nested_names_and_short_ones_are_found() {
    assert_eq!(judged("p99_us > 50000"), Judged::True(51_000.0));
    assert_eq!(judged("latency_us.p99 > 50000"), Judged::True(51_000.0));
    assert_eq!(judged("errors.content > 0"), Judged::True(2.0));
    assert_eq!(
        judged("server.gateway.cpu_us_per_frame > 7"),
        Judged::True(7.5)
    );
}

#[test]
fn an_error_that_did_not_happen_is_zero_and_a_missing_figure_is_missing() {
    assert_eq!(judged("errors.bad_token > 0"), Judged::False);
    assert_eq!(judged("server.gateway.rss_bytes_idle > 0"), Judged::Missing);
    assert_eq!(judged("server.center.cpu_seconds > 0"), Judged::Missing);
}

#[test]
fn unknown_names_and_broken_expressions_are_refused() {
    for text in [
        "",
        "p99_us",
        "> 5",
        "p99_us > ",
        "p99_us > fast",
        "p99_us = 5",
        "p99_us ! 5",
        "p99_us > NaN",
        "p98_us > 5",
        "latency_us > 5",
        "frames_lots > 5",
        "scenario == 1",
        "errors.nonsense > 0",
        "server.gateway > 0",
        "server.gateway.cpu > 0",
        "latency_us.p99.x > 0",
    ] {
        assert!(Condition::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_role_is_known() {
    let role = |text| {
        Condition::parse(text)
            .expect(text)
            .role()
            .map(str::to_owned)
    };
    assert_eq!(role("server.game.rss_bytes_peak > 1"), Some("game".into()));
    assert_eq!(role("frames_lost > 1"), None);
}
