//! The cores read no clock, open nothing, start nothing and wait for nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders of the cores; tests below them count too.
const CORES: [&str; 11] = [
    "center.rs",
    "center",
    "stub.rs",
    "stub",
    "link.rs",
    "journal/format.rs",
    "journal/format",
    "map.rs",
    "map",
    "walk.rs",
    "walk",
];

const IMPURE: [&str; 12] = [
    "std::net",
    "std::thread",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "Instant",
    "SystemTime",
    "tokio",
    "quinn",
    "async ",
    "rand_",
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            sources(&entry.expect("an entry").path(), found);
        }
    } else {
        found.push(path.to_owned());
    }
}

#[test]
fn cores_are_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for core in CORES {
        sources(&root.join(core), &mut found);
    }
    assert!(found.len() > 10, "{found:?}");
    for path in found {
        let text = fs::read_to_string(&path).expect("a source");
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for word in IMPURE {
                let place = format!("{}, line of code {number}", path.display());
                assert!(!line.contains(word), "`{word}` in {place}");
            }
        }
    }
}
