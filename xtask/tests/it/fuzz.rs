//! `fuzz` says what it needs where there is no nightly toolchain.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn what_is_missing_is_named() {
    // A cargo that knows no other toolchain.
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    fs::write(&cargo, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["fuzz", "--minutes", "1"])
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for wanted in [
        "rustup toolchain install nightly",
        "cargo install cargo-fuzz",
        "--stable",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
}
