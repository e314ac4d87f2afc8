//! The crate names no clock, socket, thread, file, runtime or source of
//! randomness: a scan of its sources, since no target without an operating
//! system is installed everywhere.

use std::fs;
use std::path::{Path, PathBuf};

const FORBIDDEN: &[&str] = &[
    "std::net",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::os",
    "Instant",
    "SystemTime",
    "now_utc",
    "tokio",
    "async ",
    ".await",
    "getrandom",
    "OsRng",
    "thread_rng",
    "rand::",
    "rand_core",
    "libc::",
    "rustix",
    "static mut",
    "thread_local",
    "println!",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_source_names_what_a_pure_core_can_not_have() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    assert!(files.len() > 20, "only {} sources found", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for (at, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in FORBIDDEN {
                assert!(
                    !code.contains(word),
                    "{}:{}: {word} in a pure crate",
                    path.display(),
                    at + 1
                );
            }
        }
    }
}
