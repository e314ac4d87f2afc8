//! `check` and `config --effective`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, run, sallyport};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config")
}

/// A game's file that is good as it stands.
const GAME: &str = "role = \"game\"\n\
    [listen]\n\
    gateway_keys = [\"hNqpNKp-uORldd8hGY_I-_FJnmGCAhMGA1xzNhYThkM\"]\n";

fn with_file(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("c.toml"), text).expect("it is written");
    directory
}

fn check(text: &str) -> Outcome {
    run(with_file(text).path(), &["check", "--config", "c.toml"])
}

#[test]
fn the_examples_pass_and_missing_key_files_are_a_warning() {
    let mut roles = Vec::new();
    for entry in fs::read_dir(examples()).expect("docs/config") {
        let path = entry.expect("an entry").path();
        let outcome = run(
            Path::new("."),
            &["check", "--config", path.to_str().expect("UTF-8")],
        );
        assert_eq!(outcome.code, 0, "{}: {}", path.display(), outcome.err);
        assert!(outcome.err.contains("warning: "), "{}", outcome.err);
        assert!(
            outcome.err.contains("sallyport keygen identity --out "),
            "{}",
            outcome.err
        );
        let text = fs::read_to_string(&path).expect("text");
        let first = text
            .lines()
            .find(|line| !line.starts_with('#'))
            .expect("a key");
        assert!(first.starts_with("role = "), "{}: {first}", path.display());
        roles.push(first.to_owned());
    }
    for role in ["gateway", "center", "game"] {
        assert!(
            roles.contains(&format!("role = \"{role}\"")),
            "no example for {role}"
        );
    }
}

#[test]
fn all_unknown_keys_are_reported_in_one_run_with_their_lines() {
    let outcome = check(&format!(
        "{GAME}tpc = 1\n[sessions]\noutbox_byte = 5\n[lgo]\nlevel = 1\n"
    ));
    assert_eq!(outcome.code, 1);
    let lines: Vec<&str> = outcome.err.lines().collect();
    assert_eq!(
        lines,
        [
            "c.toml:4: unknown key listen.tpc; did you mean listen.quic?",
            "c.toml:6: unknown key sessions.outbox_byte; did you mean sessions.outbox_bytes?",
            "c.toml:8: unknown key lgo.level; did you mean log.level?",
        ]
    );
}

#[test]
fn wrong_types_and_ranges_name_line_key_and_what_is_allowed() {
    let outcome = check(&format!(
        "{GAME}quic = 7\n[sessions]\nlink_grace_ms = 5\noutbox_messages = \"many\"\n\
         [log]\nlevel = \"loud\"\n[admin]\nlisten = \"0.0.0.0:7201\"\n"
    ));
    assert_eq!(outcome.code, 1);
    for expected in [
        "c.toml:4: listen.quic: this is an integer, expected an IP address and a port",
        "c.toml:6: sessions.link_grace_ms: 5 is out of range: allowed are 1000 to 600000",
        "c.toml:7: sessions.outbox_messages: this is a string, expected an integer from 64 to",
        "c.toml:9: log.level: \"loud\" is not allowed: expected one of error, warn, info",
        "c.toml:11: admin.listen: 0.0.0.0:7201 can be reached from other hosts and has no token",
    ] {
        assert!(
            outcome.err.contains(expected),
            "{expected}\n{}",
            outcome.err
        );
    }
}

#[test]
fn a_map_is_checked_as_a_whole_and_belongs_to_a_game_that_walks() {
    let walk = format!("{GAME}[game]\nkind = \"walk\"\n[map]\n");
    assert_eq!(check(&walk).code, 0);
    let problems = |keys: &str| {
        let outcome = check(&format!("{walk}{keys}"));
        assert_eq!(outcome.code, 1, "{keys}");
        outcome.err
    };
    assert_eq!(
        problems("node_width_units = 500\n"),
        "c.toml:7: map.node_width_units: 500 is out of range: allowed are 576 to 1048576, such \
         that twice (view_units + hysteresis_units) fits into half of it\n"
    );
    assert_eq!(
        problems("node_width_units = 577\nvisible_max = 256\ntick_ms = \"10\"\n"),
        "c.toml:8: map.visible_max: 256 is out of range: allowed are 1 to 255\n\
         c.toml:9: map.tick_ms: this is a string, expected an integer from 10 to 10000\n",
        "rules between keys come after those of each"
    );
    // The key that breaks the rule stands nowhere, the one that made it break does.
    let wide = problems("view_units = 1000\n");
    assert!(
        wide.starts_with("c.toml: map.node_width_units: 2048 is out of range"),
        "{wide}"
    );
    assert_eq!(
        problems("executors = 65\ndriver = \"uring\"\n"),
        "c.toml:7: map.executors: 65 is out of range: allowed are 0 to 64\n\
         c.toml:8: map.driver: \"uring\" is not allowed: expected one of auto, glommio, threads\n"
    );
    let outcome = check(&format!("{GAME}[map]\nvisible_max = 5\n"));
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .err
            .contains("c.toml:5: unknown key map.visible_max"),
        "{}",
        outcome.err
    );
}

#[test]
fn missing_keys_roles_and_broken_toml_are_explained() {
    let outcome = check("role = \"gateway\"\n");
    assert_eq!(outcome.code, 1);
    for key in ["center.address", "center.key", "token.keys", "group"] {
        assert!(outcome.err.contains(key), "{key}\n{}", outcome.err);
    }
    let outcome = check("name = \"x\"\n");
    assert!(outcome.err.contains("role is missing"), "{}", outcome.err);
    let outcome = check("role = \"castle\"\n");
    assert!(
        outcome
            .err
            .contains("expected one of gateway, center, game"),
        "{}",
        outcome.err
    );
    let outcome = check("role = \"game\"\nname = \n");
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.starts_with("c.toml:2: "), "{}", outcome.err);
    assert_eq!(
        run(Path::new("."), &["check", "--config", "absent.toml"]).code,
        2
    );
}

#[test]
fn environment_and_flags_override_and_errors_name_them() {
    let directory = with_file(GAME);
    let effective = ["config", "--config", "c.toml", "--effective"];
    let outcome = Outcome::of(
        sallyport(directory.path(), &effective)
            .args(["--set", "game.group=3", "--set", "name=007"])
            .env("SALLYPORT__SESSIONS__OUTBOX_MESSAGES", "100")
            .env("SALLYPORT__GAME__GROUP", "2")
            .output()
            .expect("the binary starts"),
    );
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    for line in [
        "group = 3  # --set game.group",
        "name = \"007\"  # --set name",
        "outbox_messages = 100  # SALLYPORT__SESSIONS__OUTBOX_MESSAGES",
        "link_grace_ms = 90000  # default",
    ] {
        assert!(outcome.out.contains(line), "{line}\n{}", outcome.out);
    }

    let outcome = Outcome::of(
        sallyport(directory.path(), &["check", "--config", "c.toml"])
            .args(["--set", "game.gruop=3"])
            .env("SALLYPORT__GAME__GROUP", "0")
            .output()
            .expect("the binary starts"),
    );
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .err
            .contains("SALLYPORT__GAME__GROUP: game.group: 0 is out of"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("--set game.gruop: unknown key"),
        "{}",
        outcome.err
    );
}

#[test]
fn the_effective_configuration_is_one_and_shows_no_secret() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["gateway", "center", "game"] {
        let file = examples().join(format!("{name}.toml"));
        let file = file.to_str().expect("UTF-8");
        let outcome = Outcome::of(
            sallyport(
                directory.path(),
                &["config", "--effective", "--config", file],
            )
            .env("SALLYPORT__ADMIN__TOKEN", "geheimgeheimgeheim")
            .output()
            .expect("the binary starts"),
        );
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        assert!(!outcome.out.contains("geheim"), "{}", outcome.out);
        assert!(
            outcome
                .out
                .contains("token = \"<redacted>\"  # SALLYPORT__ADMIN__TOKEN")
        );
        // What was printed means the same when it is read again.
        let again = outcome.out.replace("<redacted>", "geheimgeheimgeheim");
        fs::write(directory.path().join("again.toml"), again).expect("it is written");
        let second = run(
            directory.path(),
            &["config", "--effective", "--config", "again.toml"],
        );
        assert_eq!(second.code, 0, "{}", second.err);
        let strip = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.split("  #").next().unwrap_or("").to_owned())
                .collect()
        };
        assert_eq!(strip(&second.out), strip(&outcome.out));
    }
}

#[test]
fn key_files_with_something_else_in_them_are_refused() {
    let directory = with_file(GAME);
    fs::write(directory.path().join("game.identity"), "no key\n").expect("it is written");
    let outcome = run(directory.path(), &["check", "--config", "c.toml"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("game.identity"), "{}", outcome.err);
    assert!(!outcome.err.contains("no key"), "{}", outcome.err);
}

#[test]
fn required_proxy_headers_need_somebody_who_may_send_them() {
    let file = examples().join("gateway.toml");
    let file = file.to_str().expect("UTF-8");
    let check = |set: &[&str]| {
        let mut arguments = vec![
            "check",
            "--config",
            file,
            "--set",
            "listen.proxy_protocol=required",
        ];
        for text in set {
            arguments.extend(["--set", text]);
        }
        run(Path::new("."), &arguments)
    };
    let outcome = check(&[]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("listen.proxy_trusted"),
        "{}",
        outcome.err
    );
    let outcome = check(&["listen.proxy_trusted=10.0.0.0/33"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("10.0.0.0/8"), "{}", outcome.err);
    // Datagrams have none, so they would come past the balancer.
    let trusted = "listen.proxy_trusted=10.0.0.0/8,192.0.2.7";
    let outcome = check(&[trusted]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("set listen.udp = false"),
        "{}",
        outcome.err
    );
    assert_eq!(check(&[trusted, "listen.udp=false"]).code, 0);
}

#[test]
fn without_a_word_about_udp_it_is_off_behind_a_balancer() {
    let text = fs::read_to_string(examples().join("gateway.toml")).expect("text");
    let text = text.replace("udp = true\n", "");
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("c.toml"), text).expect("it is written");
    let udp = |set: &[&str]| {
        let mut arguments = vec!["config", "--effective", "--config", "c.toml"];
        for text in set {
            arguments.extend(["--set", text]);
        }
        let outcome = run(directory.path(), &arguments);
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        let line = outcome.out.lines().find(|line| line.starts_with("udp = "));
        line.expect("it is shown").to_owned()
    };
    assert_eq!(udp(&[]), "udp = true  # default");
    let required = [
        "listen.proxy_protocol=required",
        "listen.proxy_trusted=10.0.0.0/8",
    ];
    assert_eq!(udp(&required), "udp = false  # default");
}

#[test]
fn a_certificate_needs_its_key_and_both_are_read_by_check() {
    let tls = |name: &str| crate::cluster::tls_file(name).display().to_string();
    let file = examples().join("gateway.toml");
    let file = file.to_str().expect("UTF-8");
    let check = |certificate: &str, key: &str| {
        let mut arguments = vec!["check".to_owned(), "--config".to_owned(), file.to_owned()];
        for (name, path) in [("tls_cert_file", certificate), ("tls_key_file", key)] {
            if !path.is_empty() {
                arguments.extend(["--set".to_owned(), format!("listen.{name}={path}")]);
            }
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run(Path::new("."), &arguments)
    };
    let outcome = check(&tls("first.pem"), "");
    assert_eq!(outcome.code, 1);
    let wanted = "listen.tls_cert_file: TLS needs listen.tls_key_file beside it";
    assert!(outcome.err.contains(wanted), "{}", outcome.err);
    let outcome = check("", &tls("first.key"));
    let wanted = "listen.tls_key_file: TLS needs listen.tls_cert_file beside it";
    assert!(outcome.err.contains(wanted), "{}", outcome.err);
    let outcome = check(&tls("absent.pem"), &tls("first.key"));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let wanted = "absent.pem: no such file; it is to hold the certificate chain of TLS in PEM";
    assert!(outcome.err.contains(wanted), "{}", outcome.err);
    for (certificate, key, wanted) in [
        ("first.key", "first.key", "no certificate in PEM"),
        ("first.pem", "first.pem", "no private key in PEM"),
        (
            "first.pem",
            "second.key",
            "not that of the first certificate",
        ),
    ] {
        let outcome = check(&tls(certificate), &tls(key));
        assert_eq!(outcome.code, 1);
        assert!(outcome.err.contains(wanted), "{}", outcome.err);
    }
    assert_eq!(check(&tls("first.pem"), &tls("first.key")).code, 0);
}

#[test]
fn the_examples_show_every_key_and_the_defaults_as_they_are() {
    for role in ["gateway", "center", "game", "game-walk"] {
        let file = examples().join(format!("{role}.toml"));
        let text = fs::read_to_string(&file).expect("text");
        let file = file.to_str().expect("UTF-8");
        let outcome = run(Path::new("."), &["config", "--effective", "--config", file]);
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        for line in outcome.out.lines() {
            let Some((key, _)) = line.split_once(" = ") else {
                continue;
            };
            assert!(text.contains(key.trim()), "{role}.toml does not show {key}");
        }
    }
    // What an example says of a default has to be it: without its numbers the
    // effective configuration is the same.
    let directory = tempfile::tempdir().expect("a directory");
    for role in ["gateway", "center", "game", "game-walk"] {
        let text = fs::read_to_string(examples().join(format!("{role}.toml"))).expect("text");
        let is_number = |line: &str| {
            line.split_once(" = ").is_some_and(|(key, value)| {
                !["id", "group"].contains(&key) && value.starts_with(|c: char| c.is_ascii_digit())
            })
        };
        let bare: String = text
            .lines()
            .filter(|line| !is_number(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let mut outputs = Vec::new();
        for content in [&text, &bare] {
            fs::write(directory.path().join("c.toml"), content).expect("it is written");
            let outcome = run(
                directory.path(),
                &["config", "--effective", "--config", "c.toml"],
            );
            assert_eq!(outcome.code, 0, "{}", outcome.err);
            outputs.push(outcome.out.replace("  # default", ""));
        }
        assert_eq!(outputs[0], outputs[1], "{role}");
    }
}
