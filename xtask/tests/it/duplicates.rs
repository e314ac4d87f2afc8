//! Every crate that stands twice in Cargo.lock is excepted in deny.toml with a
//! reason, and every exception is still needed; nothing banned is in the tree.
//! `cargo deny` says the same where it is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use toml::{Table, Value};

fn parsed(file: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

#[test]
fn duplicates_have_a_reason_and_bans_hold() {
    let lock = parsed("Cargo.lock");
    let mut versions = BTreeMap::<&str, BTreeSet<&str>>::new();
    for package in lock["package"].as_array().unwrap() {
        let known = versions.entry(text(package, "name")).or_default();
        known.insert(text(package, "version"));
    }
    let deny = parsed("deny.toml");
    for ban in deny["bans"]["deny"].as_array().unwrap() {
        let name = text(ban, "crate");
        assert!(
            !versions.contains_key(name),
            "{name} is banned and in Cargo.lock"
        );
    }
    for skip in deny["bans"]["skip"].as_array().unwrap() {
        let (name, version) = text(skip, "crate").split_once('@').unwrap();
        assert!(!text(skip, "reason").is_empty());
        let known = versions.get_mut(name).map_or(0, |known| {
            let count = known.len();
            assert!(
                known.remove(version),
                "{name} {version} is excepted and not in Cargo.lock"
            );
            count
        });
        assert!(
            known > 1,
            "{name} {version} is excepted and not there twice"
        );
    }
    for (name, known) in versions {
        assert_eq!(
            known.len(),
            1,
            "{name} stands twice without a reason: {known:?}"
        );
    }
}
