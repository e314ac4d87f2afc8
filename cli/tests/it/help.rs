//! Help texts and usage errors.

use std::path::Path;

use crate::run;

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        &[][..],
        &["dev"],
        &["gateway"],
        &["center"],
        &["game"],
        &["loadtest"],
        &["loadtest", "compare"],
        &["impair"],
        &["keygen"],
        &["token"],
        &["token", "issue"],
        &["token", "show"],
        &["check"],
        &["config"],
        &["doctor"],
    ] {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let outcome = run(Path::new("."), &arguments);
        assert_eq!(outcome.code, 0, "{command:?}");
        assert!(
            outcome.out.contains("Examples:\n  sallyport "),
            "{command:?}: {}",
            outcome.out
        );
    }
}

#[test]
fn wrong_usage_exits_2() {
    for arguments in [
        &["frobnicate"][..],
        &["gateway"],
        &["check"],
        &["config", "--config", "x.toml"],
        &["keygen", "sword"],
        &["dev", "--port", "70000"],
        &["loadtest"],
        &["loadtest", "127.0.0.1:7000"],
        &["loadtest", "compare"],
        &["loadtest", "compare", "a.json", "b.json", "c.json"],
        &["loadtest", "compare", "absent-a.json", "absent-b.json"],
        &[
            "token",
            "issue",
            "--key-file",
            "x",
            "--account",
            "a",
            "--life-seconds",
            "61",
        ],
    ] {
        let outcome = run(Path::new("."), arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {}", outcome.err);
        assert!(!outcome.err.is_empty());
    }
}

#[test]
fn doctor_judges_each_thing_and_says_how_to_fix_it() {
    let outcome = run(Path::new("."), &["doctor"]);
    let limits = outcome
        .out
        .lines()
        .filter(|line| line.starts_with("limits "))
        .count();
    let fixes = outcome
        .out
        .lines()
        .filter(|line| line.trim_start().starts_with("fix:"))
        .count();
    assert_eq!(limits, fixes, "{}", outcome.out);
    assert_eq!(outcome.code, i32::from(limits > 0), "{}", outcome.out);
    for name in [
        "kernel",
        "io_uring",
        "open files",
        "locked memory",
        "somaxconn",
        "seccomp",
    ] {
        assert!(outcome.out.contains(name), "{name}: {}", outcome.out);
    }
}

#[test]
fn doctor_names_a_low_limit_of_open_files() {
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 512; exec \"$0\" doctor"])
        .arg(crate::cluster::binary())
        .output()
        .expect("sh starts");
    let outcome = crate::Outcome::of(output);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.out.contains("limits  open files"),
        "{}",
        outcome.out
    );
    assert!(outcome.out.contains("ulimit -n"), "{}", outcome.out);
}
