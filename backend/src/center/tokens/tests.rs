//! What is used stays used until it has expired, and is used then as well.

use super::*;

#[test]
fn a_used_id_is_known_until_it_expires_and_refused_after() {
    let mut tokens = UsedTokens::new(1_000_000, 10);
    let id: Arc<str> = "id".into();
    assert!(!tokens.contains(1_000_000, &id, 1_060_000));
    tokens.insert(&id, 1_060_000);
    for unix_ms in (1_000_000..1_200_000).step_by(500) {
        tokens.forget(unix_ms);
        assert!(tokens.contains(unix_ms, &id, 1_060_000), "at {unix_ms}");
    }
    assert_eq!(tokens.len(), 0, "it was forgotten");
    tokens.forget(900_000);
    assert!(
        tokens.contains(900_000, &id, 1_060_000),
        "the calendar was set back"
    );
    assert!(!tokens.contains(1_200_000, &id, 1_300_000));
}

#[test]
fn an_absurd_expiry_is_refused() {
    let tokens = UsedTokens::new(0, 10);
    assert!(tokens.contains(0, "id", u64::MAX));
    assert!(!tokens.contains(0, "id", TOKEN_LIFE_MS_MAX));
}

#[test]
fn an_id_taken_back_is_unused_and_can_come_again() {
    let mut tokens = UsedTokens::new(0, 2);
    for name in ["a", "b"] {
        tokens.insert(&name.into(), 60_000);
    }
    assert!(tokens.is_full());
    tokens.remove("a");
    assert!(!tokens.contains(0, "a", 60_000));
    assert!(tokens.contains(0, "b", 60_000));
    tokens.insert(&"a".into(), 90_000);
    tokens.forget(70_000);
    assert_eq!(tokens.len(), 1, "only b is forgotten");
    tokens.forget(100_000);
    assert_eq!(tokens.len(), 0);
    assert!(tokens.by_second.is_empty());
}
