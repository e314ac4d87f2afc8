//! `sallyport dev`: what it prints can be used as it stands, and it ends in time.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loadtest::plan::decode_key;
use protocol::token::{Claims, issue};

use crate::cluster::player::Player;
use crate::launch::{Launched, get};
use crate::{run, sallyport};

/// A dev cluster on free ports, its `try:` line as arguments, its admin port.
pub fn dev(arguments: &[&str]) -> (Launched, Vec<String>, String) {
    let mut command = sallyport(Path::new("."), &["dev", "--port", "0"]);
    command.args(arguments);
    let mut process = Launched::start(command);
    let line = process.line("try: ");
    let words: Vec<String> = line
        .strip_prefix("try: sallyport ")
        .expect("a command")
        .split(' ')
        .map(str::to_owned)
        .collect();
    let admin = words
        .last()
        .expect("the admin port")
        .strip_prefix("http://")
        .expect("HTTP")
        .to_owned();
    (process, words, admin)
}

#[test]
fn the_printed_load_test_works_and_sigterm_ends_it_with_0() {
    let (mut process, words, admin) = dev(&[]);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--clients", "30", "--rate", "3000", "--duration", "1"]);
    let outcome = run(Path::new("."), &words);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("30 of 30"), "{}", outcome.out);
    let stats: serde_json::Value = serde_json::from_str(&get(&admin, "/stats").1).expect("JSON");
    for role in ["gateway", "center", "game"] {
        assert!(
            stats["roles"][role]["cpu_seconds"]
                .as_f64()
                .expect("a number")
                >= 0.0
        );
        assert!(
            stats["roles"][role]["rss_bytes"]
                .as_u64()
                .expect("a number")
                > 0
        );
        assert_eq!(stats["roles"][role]["sessions"], 0);
    }
    assert_eq!(get(&admin, "/readyz").0, 200);
    process.signal("TERM");
    assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
}

/// What it prints is true the moment it is printed, and it is not long in coming.
#[test]
fn the_first_player_is_in_within_seconds_of_a_cold_start() {
    let begun = Instant::now();
    let (_process, words, _) = dev(&[]);
    let [_, address, _, key, _, secret, ..] = words.as_slice() else {
        panic!("a shorter line: {words:?}");
    };
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64;
    let claims = Claims {
        audience: String::from("sallyport"),
        account: String::from("first"),
        id: String::from("first"),
        issued_unix_ms: unix_ms,
        expires_unix_ms: unix_ms + 30_000,
    };
    let secret = decode_key(secret).expect("a key");
    let token = issue(&secret, &claims).expect("a token");
    let address = address.parse().expect("an address");
    let mut player = Player::connect_to(address, decode_key(key).expect("a key"), token);
    player.wait("login", |seen| seen.session.is_some());
    let took = begun.elapsed();
    println!("first login {took:?} after the start of the process");
    // The aim is 2 s; what is added is for a machine that does other things as well.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn those_who_walk_on_its_map_are_told_what_they_see() {
    let (_process, words, _) = dev(&[]);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--scenario", "walk", "--clients", "40", "--duration", "2"]);
    words.extend(["--visible", "6", "--fail-if", "visible_mean < 3"]);
    // It compares what each client believes it sees with a brute-force answer.
    let outcome = run(Path::new("."), &words);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("40 of 40"), "{}", outcome.out);
}

#[test]
fn its_clients_show_in_the_status_line_and_end_with_it() {
    let (mut process, _, _) = dev(&["--clients", "25"]);
    let line = process.line("status clients=25 frames_per_second=2");
    let fields: Vec<&str> = line
        .split(' ')
        .skip(1)
        .map(|field| field.split('=').next().expect("a name"))
        .collect();
    assert_eq!(
        fields,
        ["clients", "frames_per_second", "p50_us", "p99_us", "drops"]
    );
    assert!(line.ends_with("drops=0"), "{line}");
    process.signal("INT");
    assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_directory_keeps_its_keys_over_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    let key = |words: &[String]| {
        words[words
            .iter()
            .position(|w| w == "--key")
            .expect("it is there")
            + 1]
        .clone()
    };
    let (mut first, words, _) = dev(&["--data", path]);
    let before = key(&words);
    for name in ["gateway", "center", "game", "game-walk", "game-chat"] {
        let file = format!("{path}/{name}.toml");
        assert_eq!(run(Path::new("."), &["check", "--config", &file]).code, 0);
    }
    first.signal("TERM");
    assert_eq!(first.wait(Duration::from_secs(10)).code(), Some(0));
    let (_second, words, _) = dev(&["--data", path]);
    assert_eq!(key(&words), before);
}
