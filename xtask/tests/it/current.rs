//! Everything that is generated and checked in is current.

use std::process::Command;

#[test]
fn generated_files_are_current() {
    for task in ["generate", "vectors", "docs"] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args([task, "--check"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
