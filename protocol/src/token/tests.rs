//! What is issued verifies, once in its time and for its audience; everything
//! else has its reason.

use proptest::prelude::*;

use super::*;
use crate::testing::cases;

/// The key pair of the PASETO v4 test vectors.
const SECRET: [u8; 64] = [
    0xb4, 0xcb, 0xfb, 0x43, 0xdf, 0x4c, 0xe2, 0x10, 0x72, 0x7d, 0x95, 0x3e, 0x4a, 0x71, 0x33, 0x07,
    0xfa, 0x19, 0xbb, 0x7d, 0x9f, 0x85, 0x04, 0x14, 0x38, 0xd9, 0xe1, 0x1b, 0x94, 0x2a, 0x37, 0x74,
    0x1e, 0xb9, 0xdb, 0xbb, 0xbc, 0x04, 0x7c, 0x03, 0xfd, 0x70, 0x60, 0x4e, 0x00, 0x71, 0xf0, 0x98,
    0x7e, 0x16, 0xb2, 0x8b, 0x75, 0x72, 0x25, 0xc1, 0x1f, 0x00, 0x41, 0x5d, 0x0e, 0x20, 0xb1, 0xa2,
];
const NOW_MS: u64 = 1_767_225_600_000;
const TOLERANCE_MS: u64 = TOKEN_CLOCK_TOLERANCE_MS;

fn public() -> [u8; 32] {
    std::array::from_fn(|at| SECRET[32 + at])
}

fn verifier() -> Verifier {
    Verifier::new("game".to_owned(), &[public()]).unwrap()
}

fn claims() -> Claims {
    Claims {
        audience: "game".to_owned(),
        account: "alice".to_owned(),
        id: "once".to_owned(),
        issued_unix_ms: NOW_MS,
        expires_unix_ms: NOW_MS + 30_000,
    }
}

fn verified(claims: &Claims, unix_ms: u64) -> Result<Claims, CloseReason> {
    verifier().verify(issue(&SECRET, claims).unwrap().as_bytes(), unix_ms)
}

/// A token over any payload, with the right signature.
fn signed(payload: &str) -> String {
    let key = AsymmetricSecretKey::<V4>::from(&SECRET).unwrap();
    PublicToken::sign(&key, payload.as_bytes(), None, None).unwrap()
}

fn verify_text(token: &str) -> Result<Claims, CloseReason> {
    verifier().verify(token.as_bytes(), NOW_MS)
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn what_is_issued_verifies(account in "[a-z0-9]{1,64}", id in "[a-zA-Z0-9_-]{1,64}", life_s in 1..=60_u64) {
        let claims = Claims {
            account,
            id,
            expires_unix_ms: NOW_MS + life_s * 1_000,
            ..claims()
        };
        prop_assert_eq!(verified(&claims, NOW_MS), Ok(claims));
    }

    #[test]
    fn a_changed_token_is_bad(at in any::<prop::sample::Index>(), bit in 0..7_u8) {
        let mut token = issue(&SECRET, &claims()).unwrap().into_bytes();
        let at = at.index(token.len());
        token[at] ^= 1 << bit;
        prop_assert_eq!(verifier().verify(&token, NOW_MS), Err(CloseReason::BadToken));
    }
}

#[test]
fn a_token_has_its_time() {
    let token = claims();
    let outcome = |unix_ms| verified(&token, unix_ms).map(|_| ());
    let expired = Err(CloseReason::TokenExpired);
    assert_eq!(outcome(NOW_MS - TOLERANCE_MS), Ok(()));
    assert_eq!(outcome(NOW_MS - TOLERANCE_MS - 1), expired);
    assert_eq!(outcome(NOW_MS + 30_000 + TOLERANCE_MS), Ok(()));
    assert_eq!(outcome(NOW_MS + 30_000 + TOLERANCE_MS + 1), expired);
}

#[test]
fn a_token_lives_a_minute_at_most_and_more_than_nothing() {
    for (life_ms, outcome) in [
        (60_000, Ok(())),
        (61_000, Err(CloseReason::TokenExpired)),
        (86_400_000, Err(CloseReason::TokenExpired)),
        (0, Err(CloseReason::TokenExpired)),
    ] {
        let claims = Claims {
            expires_unix_ms: NOW_MS + life_ms,
            ..claims()
        };
        assert_eq!(
            verified(&claims, NOW_MS).map(|_| ()),
            outcome,
            "{life_ms} ms"
        );
    }
    let backwards = Claims {
        issued_unix_ms: NOW_MS + 2_000,
        expires_unix_ms: NOW_MS,
        ..claims()
    };
    assert_eq!(verified(&backwards, NOW_MS), Err(CloseReason::TokenExpired));
}

#[test]
fn another_audience_is_told_from_a_bad_signature() {
    let other = Claims {
        audience: "staging".to_owned(),
        ..claims()
    };
    assert_eq!(verified(&other, NOW_MS), Err(CloseReason::TokenAudience));
    let mut flipped = issue(&SECRET, &claims()).unwrap().into_bytes();
    let last = flipped.len() - 1;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    assert_eq!(
        verifier().verify(&flipped, NOW_MS),
        Err(CloseReason::BadToken)
    );
}

#[test]
fn any_of_several_keys_will_do() {
    let keys = [[0x20; 32], public()];
    if let Some(verifier) = Verifier::new("game".to_owned(), &keys) {
        let token = issue(&SECRET, &claims()).unwrap();
        assert_eq!(verifier.verify(token.as_bytes(), NOW_MS), Ok(claims()));
    }
    let none = Verifier::new("game".to_owned(), &[]).unwrap();
    let token = issue(&SECRET, &claims()).unwrap();
    assert_eq!(
        none.verify(token.as_bytes(), NOW_MS),
        Err(CloseReason::BadToken)
    );
}

/// pasetors knows nothing of our check of the signature: they must agree on
/// whatever a token may be changed to, its footer included.
#[test]
fn the_signature_is_judged_as_pasetors_does() {
    let key = AsymmetricSecretKey::<V4>::from(&SECRET).unwrap();
    let public = AsymmetricPublicKey::<V4>::from(&public()).unwrap();
    for footer in [None, Some(&b"kid-1"[..])] {
        let token = PublicToken::sign(&key, br#"{"aud":"game"}"#, footer, None).unwrap();
        for at in 0..token.len() {
            for other in [b'A', b'b', b'_', b'.'] {
                let mut changed = token.clone().into_bytes();
                changed[at] = other;
                let changed = String::from_utf8(changed).unwrap();
                let Ok(untrusted) = UntrustedToken::try_from(changed.as_str()) else {
                    continue;
                };
                let expected = PublicToken::verify(&public, &untrusted, None, None).is_ok();
                assert_eq!(
                    is_signed(&self::public(), &untrusted),
                    expected,
                    "{changed}"
                );
                assert_eq!(expected, changed == token, "{changed}");
            }
        }
        let asserted = PublicToken::sign(&key, b"{}", footer, Some(b"of another system")).unwrap();
        let asserted = UntrustedToken::try_from(asserted.as_str()).unwrap();
        assert!(!is_signed(&self::public(), &asserted));
    }
}

const TIMES: &str = r#""iat":"2026-01-01T00:00:00Z","exp":"2026-01-01T00:00:30Z""#;

#[test]
fn further_claims_are_ignored() {
    let payload = format!(r#"{{"aud":"game","sub":"alice","jti":"once",{TIMES},"vip":[1,2]}}"#);
    assert_eq!(verify_text(&signed(&payload)), Ok(claims()));
    // A time zone is as good as Z.
    let payload = r#"{"aud":"game","sub":"alice","jti":"once","iat":"2026-01-01T01:00:00+01:00","exp":"2026-01-01T01:00:30+01:00"}"#;
    assert_eq!(verify_text(&signed(payload)), Ok(claims()));
}

#[test]
fn missing_and_unfit_claims_are_bad() {
    let long = "a".repeat(65);
    for payload in [
        "{}".to_owned(),
        "nothing".to_owned(),
        format!(r#"{{"aud":"game","sub":"alice",{TIMES}}}"#),
        format!(r#"{{"aud":"game","sub":"","jti":"once",{TIMES}}}"#),
        format!(r#"{{"aud":"game","sub":"alice","jti":"",{TIMES}}}"#),
        format!(r#"{{"aud":"game","sub":"{long}","jti":"once",{TIMES}}}"#),
        format!(r#"{{"aud":"game","sub":"alice","jti":"{long}",{TIMES}}}"#),
        format!(r#"{{"aud":["game"],"sub":"alice","jti":"once",{TIMES}}}"#),
        r#"{"aud":"game","sub":"alice","jti":"once","iat":"today","exp":"tomorrow"}"#.to_owned(),
        r#"{"aud":"game","sub":"alice","jti":"once","iat":"1969-12-31T23:59:00Z","exp":"1970-01-01T00:00:00Z"}"#.to_owned(),
    ] {
        assert_eq!(verify_text(&signed(&payload)), Err(CloseReason::BadToken), "{payload}");
    }
    for text in ["", "hello", "v4.public.", "v4.local.AAAA", "v3.public.AAAA"] {
        assert_eq!(verify_text(text), Err(CloseReason::BadToken), "{text}");
    }
    assert_eq!(
        verifier().verify(&[0xff, 0xfe], NOW_MS),
        Err(CloseReason::BadToken)
    );
}

#[test]
fn unfit_claims_are_not_issued() {
    for claims in [
        Claims {
            account: String::new(),
            ..claims()
        },
        Claims {
            account: "a".repeat(65),
            ..claims()
        },
        Claims {
            id: String::new(),
            ..claims()
        },
        Claims {
            expires_unix_ms: u64::MAX,
            ..claims()
        },
    ] {
        assert_eq!(issue(&SECRET, &claims), Err(IssueError::Claims));
    }
}
