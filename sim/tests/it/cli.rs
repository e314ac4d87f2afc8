//! The contract of the command line, by running the binary.

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(arguments)
        .output()
        .expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_run_prints_the_seed_first_and_its_digest_last() {
    let (code, out, err) = sim(&["--seed", "7"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("seed 7\n"), "{out}");
    let last = out.lines().last().unwrap_or_default();
    let digest = last
        .strip_prefix("seed 7 ok events=")
        .and_then(|rest| rest.split_once(" digest="))
        .filter(|(events, _)| events.parse::<u64>().is_ok_and(|events| events > 0))
        .map(|(_, digest)| digest);
    let is_hex = |digest: &str| u64::from_str_radix(digest, 16).is_ok() && digest.len() == 16;
    assert!(digest.is_some_and(is_hex), "{last}");
    assert_eq!(sim(&["--seed", "7"]).1, out);
}

#[test]
fn a_range_is_a_line_a_seed_and_excludes_its_end() {
    let (code, out, _) = sim(&["--seeds", "2..5"]);
    assert_eq!(code, Some(0));
    let seeds: Vec<_> = out
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(seeds, ["2", "3", "4"]);
    let (_, one, _) = sim(&["--seed", "3"]);
    assert_eq!(out.lines().nth(1), one.lines().last());
}

#[test]
fn the_list_of_plants_has_a_line_each_with_the_name_first() {
    let (code, out, _) = sim(&["--plant", "list"]);
    assert_eq!(code, Some(0));
    let names: Vec<_> = out
        .lines()
        .map(|line| line.split_whitespace().next().unwrap_or_default())
        .collect();
    let known: Vec<_> = sim::Plant::ALL.iter().map(|plant| plant.name()).collect();
    assert_eq!(names, known);
}

#[test]
fn a_broken_rule_is_told_with_its_seed_and_ends_with_1() {
    let (code, out, err) = sim(&["--seed", "4", "--plant", "panic-on-frame"]);
    assert_eq!(code, Some(1));
    assert!(out.starts_with("seed 4\n"), "{out}");
    for text in [out, err] {
        assert!(
            text.contains("seed 4") && text.contains("no-panic"),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_run_ends_with_2_and_says_why() {
    for (arguments, word) in [
        (
            &["--plant", "no-such-thing", "--seed", "1"][..],
            "--plant list",
        ),
        (&[], "--seeds"),
        (&["--seeds", "5..5"], "A..B"),
        (&["--seeds", "many"], "A..B"),
        (&["--seed", "1", "--seeds", "1..2"], "--seed"),
    ] {
        let (code, _, err) = sim(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(err.contains(word), "{arguments:?}: {err}");
    }
}

#[test]
fn help_is_no_failure_and_has_examples() {
    let (code, out, _) = sim(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("Examples:") && out.contains("sim --seed 42"),
        "{out}"
    );
}
