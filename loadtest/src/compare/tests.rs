//! Which figures are named as worse, and the exit codes.

use std::fs;

use serde_json::{Value, json};

use super::{compare, read, run};
use crate::{EXIT_GOOD, EXIT_UNABLE, EXIT_WRONG};

fn result() -> Value {
    json!({
        "scenario": "echo", "transport": "tcp", "lane": "reliable", "engine": "uring",
        "git_commit": "abc", "machine": "m", "kernel": "k", "seed": 1,
        "clients_wanted": 10, "clients_connected": 10, "connect_failures": 0,
        "duration_seconds": 2.0, "rate_wanted": 100.0, "rate_reached": 100.0,
        "frames_sent": 200, "frames_received": 200, "frames_lost": 0,
        "frames_duplicated": 0, "frames_out_of_order": 0, "errors": {},
        "visible_mean": null,
        "latency_us": {"p50": 100, "p99": 300},
        "server": {"gateway": {"cpu_seconds": 1.5, "rss_bytes_peak": 4_194_304, "rss_bytes_idle": null}},
    })
}

fn text_of(b: &Value) -> (String, u8) {
    compare(("a.json", &result()), ("b.json", b))
}

fn worse(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| line.ends_with("  worse"))
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

#[test]
fn equal_results_have_nothing_that_is_worse() {
    let (text, code) = text_of(&result());
    assert_eq!(code, EXIT_GOOD);
    assert!(worse(&text).is_empty(), "{text}");
    assert!(text.contains("good: nothing got worse"), "{text}");
    assert!(!text.contains("differ"), "{text}");
    let line = text
        .lines()
        .find(|line| line.starts_with("server.gateway.rss_bytes_peak"))
        .expect("a line for a nested field");
    assert!(line.contains("4 MiB") && line.ends_with("1.000"), "{line}");
    // In the order of the contract.
    assert!(text.find("clients_wanted") < text.find("frames_lost"));
    assert!(text.find("frames_lost") < text.find("latency_us.p50"));
}

#[test]
fn more_than_a_tenth_in_the_bad_direction_is_worse() {
    for (path, value, is_worse) in [
        ("/latency_us/p99", json!(330), false),
        ("/latency_us/p99", json!(331), true),
        ("/latency_us/p99", json!(30), false),
        ("/rate_reached", json!(90), false),
        ("/rate_reached", json!(89), true),
        ("/rate_reached", json!(500), false),
        ("/clients_connected", json!(8), true),
        ("/server/gateway/cpu_seconds", json!(1.7), true),
        ("/connect_failures", json!(1), true),
        // Neither good nor bad.
        ("/seed", json!(9), false),
        ("/frames_sent", json!(1), false),
    ] {
        let mut b = result();
        *b.pointer_mut(path).expect("a field") = value.clone();
        let (text, code) = text_of(&b);
        let expected = path.trim_start_matches('/').replace('/', ".");
        let expected = if is_worse {
            vec![expected.as_str()]
        } else {
            Vec::new()
        };
        assert_eq!(worse(&text), expected, "{path} {value}\n{text}");
        // Only what a run did wrong decides.
        assert_eq!(code, EXIT_GOOD);
    }
}

#[test]
fn runs_that_were_wrong_are_named() {
    for (path, value) in [
        ("/frames_lost", json!(1)),
        ("/frames_duplicated", json!(1)),
        ("/frames_out_of_order", json!(1)),
        ("/errors", json!({"content": 1})),
    ] {
        let mut b = result();
        *b.pointer_mut(path).expect("a field") = value;
        let (text, code) = text_of(&b);
        assert_eq!(code, EXIT_WRONG, "{text}");
        assert!(text.contains("wrong: in B, 1 "), "{text}");
        assert!(text.contains("new  worse"), "{text}");
        let (text, code) = compare(("b.json", &b), ("a.json", &result()));
        assert_eq!(code, EXIT_WRONG);
        assert!(text.contains("wrong: in A, 1 "), "{text}");
    }
}

#[test]
fn different_conditions_are_said() {
    let mut b = result();
    b["lane"] = json!("sequenced");
    b["clients_wanted"] = json!(20);
    // Windows end with their last send.
    b["duration_seconds"] = json!(2.01);
    let (text, _) = text_of(&b);
    assert!(
        text.contains("the runs differ in: lane, clients_wanted\n"),
        "{text}"
    );
}

#[test]
fn what_is_no_result_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let good = at("good.json", &result().to_string());
    assert_eq!(run(&good, &good), EXIT_GOOD);
    for strange in ["", "no json", "[]", "{}", "{\"scenario\": \"echo\"}"] {
        let strange = at("strange.json", strange);
        let problem = read(&strange).expect_err("a refusal");
        assert!(problem.contains("strange.json: "), "{problem}");
    }
    assert_eq!(
        run(&good, &directory.path().join("absent.json")),
        EXIT_UNABLE
    );
}
