//! Tells the crate which commit it is built from, for the reports.

use std::process::Command;

fn main() {
    // Rises with each commit and checkout; absent outside of a clone.
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    println!("cargo::rerun-if-changed=build.rs");
    let commit = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    if let Some(commit) = commit {
        println!("cargo::rustc-env=SALLYPORT_GIT_COMMIT={}", commit.trim());
    }
}
