//! Reading /proc.

use super::{cpu_seconds, ticks};

#[test]
fn a_name_with_parentheses_and_spaces_is_skipped() {
    let stat = "7 (a) 1 (b c)) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 5 9 9\n";
    assert_eq!(ticks(stat), Some(42));
    assert_eq!(ticks("7 (a) S 1"), None);
}

#[test]
fn this_process_has_used_some() {
    assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    assert!(cpu_seconds(u32::MAX).is_err());
}
