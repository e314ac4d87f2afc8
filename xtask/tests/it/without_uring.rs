//! `without-io-uring` forbids io_uring to the command and to its children, hands
//! its exit code on, and says when there is nothing to run.

use std::process::{Command, Output};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

fn without_uring(command: &[&str]) -> Output {
    Command::new(XTASK)
        .args(["without-io-uring", "--"])
        .args(command)
        .output()
        .unwrap()
}

#[test]
fn a_ring_can_not_be_set_up() {
    // Through a shell, since the filter has to reach grandchildren.
    let output = without_uring(&["sh", "-c", "\"$0\" probe-io-uring", XTASK]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Operation not permitted"), "{said}");
}

#[test]
fn the_command_is_told_and_its_exit_code_is_handed_on() {
    let script = "test \"$SALLYPORT_TEST_WITHOUT_URING\" = 1 && exit 7";
    assert_eq!(without_uring(&["sh", "-c", script]).status.code(), Some(7));
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let output = without_uring(&["/nonexistent/command"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nonexistent/command"), "{said}");
}
