//! What is used stays used until it has expired, and is used then as well.

use protocol::ids::ShardId;

use super::*;

fn claim(claim: u64, expires_unix_ms: u64) -> TokenUse {
    TokenUse {
        expires_unix_ms,
        boot: 5,
        shard: ShardId(0),
        claim,
    }
}

#[test]
fn a_used_id_is_known_until_it_expires_and_refused_after() {
    let mut tokens = UsedTokens::new(1_000_000, 10);
    let id: Arc<str> = "id".into();
    let (first, second) = (claim(1, 1_060_000), claim(2, 1_060_000));
    assert!(!tokens.is_used_by_another(1_000_000, &id, &first));
    tokens.insert(&id, first);
    assert!(
        !tokens.is_used_by_another(1_000_000, &id, &first),
        "the same claim"
    );
    for unix_ms in (1_000_000..1_200_000).step_by(500) {
        tokens.forget(unix_ms);
        assert!(
            tokens.is_used_by_another(unix_ms, &id, &second),
            "at {unix_ms}"
        );
    }
    assert_eq!(tokens.len(), 0, "it was forgotten");
    tokens.forget(900_000);
    assert!(
        tokens.is_used_by_another(900_000, &id, &second),
        "the calendar was set back"
    );
    assert!(tokens.is_used_by_another(1_200_000, &id, &first));
    assert!(!tokens.is_used_by_another(1_200_000, &id, &claim(2, 1_300_000)));
}

#[test]
fn an_absurd_expiry_is_refused() {
    let tokens = UsedTokens::new(0, 10);
    assert!(tokens.is_used_by_another(0, "id", &claim(1, u64::MAX)));
    assert!(!tokens.is_used_by_another(0, "id", &claim(1, TOKEN_LIFE_MS_MAX)));
}

#[test]
fn an_id_taken_back_is_unused_and_can_come_again() {
    let mut tokens = UsedTokens::new(0, 2);
    for name in ["a", "b"] {
        tokens.insert(&name.into(), claim(1, 60_000));
    }
    assert!(tokens.is_full());
    tokens.remove("a");
    assert!(!tokens.is_used_by_another(0, "a", &claim(2, 60_000)));
    assert!(tokens.is_used_by_another(0, "b", &claim(2, 60_000)));
    tokens.insert(&"a".into(), claim(2, 90_000));
    tokens.forget(70_000);
    assert_eq!(tokens.len(), 1, "only b is forgotten");
    tokens.forget(100_000);
    assert_eq!(tokens.len(), 0);
    assert!(tokens.by_second.is_empty());
}
