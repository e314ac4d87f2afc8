//! Arguments: what is refused before anything is connected, and how clients are
//! divided among workers.

use clap::Parser;

use super::{Plan, divide};
use crate::args::LoadtestArgs;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: LoadtestArgs,
}

const KEY: &str = "-AECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn token_key() -> String {
    "-".to_owned() + &"A".repeat(85)
}

fn parse(more: &[&str]) -> Result<LoadtestArgs, clap::Error> {
    let token_key = token_key();
    let words = [
        "loadtest",
        "127.0.0.1:7000",
        "--key",
        KEY,
        "--token-key",
        &token_key,
    ];
    Command::try_parse_from(words.iter().chain(more)).map(|command| command.args)
}

fn refusal(more: &[&str]) -> String {
    match parse(more) {
        Err(error) => error.to_string(),
        Ok(args) => Plan::new(&args).expect_err("a refusal").to_string(),
    }
}

#[test]
fn keys_may_begin_with_a_dash() {
    let args = parse(&[]).expect("arguments");
    let plan = Plan::new(&args).expect("a plan");
    assert_eq!(
        plan.workers.iter().map(|worker| worker.count).sum::<u32>(),
        100
    );
    assert_eq!(plan.workers[0].gateway_key[0], 0xf8);
}

#[test]
fn what_does_not_exist_yet_is_refused() {
    assert!(refusal(&["--scenario", "walking"]).contains("walk"));
}

#[test]
fn unusable_values_are_refused_with_the_argument_named() {
    for (more, named) in [
        (vec!["--visible", "4"], "--visible"),
        (vec!["--scenario", "walk", "--visible", "256"], "--visible"),
        (vec!["--scenario", "walk", "--visible", "-1"], "--visible"),
        (vec!["--payload", "7"], "--payload"),
        (vec!["--payload", "40000"], "--payload"),
        (vec!["--rate", "-1"], "--rate"),
        (vec!["--rate", "NaN"], "--rate"),
        (vec!["--duration", "0"], "--duration"),
        (vec!["--clients", "0"], "--clients"),
        (vec!["--audience", ""], "--audience"),
        (vec!["--admin", "127.0.0.1:7001"], "--admin"),
        (vec!["--fail-if", "p98_us > 1"], "--fail-if"),
        (
            vec!["--fail-if", "server.gateway.cpu_seconds > 1"],
            "--admin",
        ),
        (vec!["--json", "/nonexistent/out.json"], "--json"),
        (
            vec!["--admin-token-file", "/nonexistent"],
            "--admin-token-file",
        ),
        (
            vec!["--rate", "1e9", "--duration", "3600", "--clients", "1"],
            "--rate",
        ),
    ] {
        let refusal = refusal(&more);
        assert!(refusal.contains(named), "{more:?}: {refusal}");
    }
}

#[test]
fn unusable_keys_and_targets_are_refused() {
    let changed = |change: fn(&mut LoadtestArgs)| {
        let mut args = parse(&[]).expect("arguments");
        change(&mut args);
        Plan::new(&args).expect_err("a refusal").to_string()
    };
    assert!(changed(|args| args.key.truncate(42)).contains("--key"));
    assert!(changed(|args| args.token_key.clear()).contains("--token-key"));
    assert!(changed(|args| args.target = "127.0.0.1".into()).contains("TARGET"));
}

#[test]
fn every_client_has_one_worker() {
    let args = parse(&["--clients", "10"]).expect("arguments");
    let whole = Plan::new(&args).expect("a plan").workers[0].clone();
    for processes in 1..=10 {
        let mut next = 0;
        for worker in divide(&whole, processes) {
            assert_eq!(worker.first, next);
            assert!(worker.count > 0);
            next += worker.count;
        }
        assert_eq!(next, 10);
    }
}

#[test]
fn a_high_rate_takes_a_worker_a_core() {
    let workers = |more: &[&str]| {
        let args = parse(more).expect("arguments");
        Plan::new(&args).expect("a plan").workers.len()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(workers(&["--rate", "20000"]), 1);
    assert_eq!(workers(&["--rate", "1000000"]), cores.min(50));
    assert_eq!(workers(&["--rate", "1000000", "--processes", "1"]), 1);
}

#[test]
fn each_run_has_accounts_of_its_own() {
    let args = parse(&[]).expect("arguments");
    let prefix = || {
        Plan::new(&args).expect("a plan").workers[0]
            .account_prefix
            .clone()
    };
    assert_ne!(prefix(), prefix());
}
