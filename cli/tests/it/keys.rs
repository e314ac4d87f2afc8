//! `keygen` and `token`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::run;

#[test]
fn keygen_writes_a_private_file_and_prints_the_public_key_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    for (kind, letters) in [("gateway", 43), ("identity", 43), ("token", 86)] {
        let outcome = run(directory.path(), &["keygen", kind, "--out", kind]);
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        assert_eq!(outcome.out.trim().len(), 43, "{}", outcome.out);
        let path = directory.path().join(kind);
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let secret = fs::read_to_string(&path).expect("it is text");
        assert_eq!(secret.trim().len(), letters);
        assert!(!secret.contains(outcome.out.trim()));
    }
}

#[test]
fn keygen_overwrites_only_with_force() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    run(directory.path(), &["keygen", "gateway", "--out", "key"]);
    let first = fs::read(&path).expect("it exists");
    let outcome = run(directory.path(), &["keygen", "gateway", "--out", "key"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("--force"), "{}", outcome.err);
    assert_eq!(fs::read(&path).expect("it exists"), first);
    let outcome = run(
        directory.path(),
        &["keygen", "gateway", "--out", "key", "--force"],
    );
    assert_eq!(outcome.code, 0);
    assert_ne!(fs::read(&path).expect("it exists"), first);
}

#[test]
fn a_token_is_accepted_by_its_key_and_refused_by_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str]| run(directory.path(), arguments);
    let public = run(&["keygen", "token", "--out", "mine"])
        .out
        .trim()
        .to_owned();
    let other = run(&["keygen", "token", "--out", "other"])
        .out
        .trim()
        .to_owned();
    let issued = run(&["token", "issue", "--key-file", "mine", "--account", "alice"]);
    assert_eq!(issued.code, 0, "{}", issued.err);
    let token = issued.out.trim();
    assert!(token.starts_with("v4.public."));

    let shown = run(&["token", "show", token]);
    assert_eq!(shown.code, 0);
    assert!(shown.out.contains("alice"), "{}", shown.out);
    let accepted = run(&["token", "show", token, "--key", &public]);
    assert_eq!(accepted.code, 0, "{}", accepted.out);
    assert!(accepted.out.contains("accepted"));
    let refused = run(&["token", "show", token, "--key", &other]);
    assert_eq!(refused.code, 1);
    assert!(refused.out.contains("refused"), "{}", refused.out);
    let audience = run(&[
        "token",
        "show",
        token,
        "--key",
        &public,
        "--audience",
        "elsewhere",
    ]);
    assert_eq!(audience.code, 1);

    assert_eq!(run(&["token", "show", "nonsense"]).code, 2);
}

#[test]
fn a_missing_or_foreign_key_file_is_explained() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str]| run(directory.path(), arguments);
    let outcome = run(&["token", "issue", "--key-file", "none", "--account", "a"]);
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.err.contains("sallyport keygen token --out none"),
        "{}",
        outcome.err
    );
    fs::write(directory.path().join("foreign"), "something secret").expect("it is written");
    let outcome = run(&["token", "issue", "--key-file", "foreign", "--account", "a"]);
    assert_eq!(outcome.code, 2);
    assert!(!outcome.err.contains("something secret"), "{}", outcome.err);
    run(&["keygen", "token", "--out", "mine"]);
    let outcome = run(&["token", "issue", "--key-file", "mine", "--account", ""]);
    assert_eq!(outcome.code, 2);
}
