//! Text forms and the RFC's own key pair.

use super::*;

/// RFC 8032 §7.1, test 1.
#[test]
fn public_half_is_that_of_the_rfc() {
    let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!(Identity::from_seed(seed).public_key(), PublicKey(public));
}

#[test]
fn texts_round_trip() {
    let identity = Identity::from_seed([7; 32]);
    let again = Identity::from_text(&format!("{}\n", identity.secret_text())).unwrap();
    assert_eq!(again.public_key(), identity.public_key());
    let text = identity.public_key().to_string();
    assert_eq!(text.len(), 43);
    assert_eq!(text.parse(), Ok(identity.public_key()));
    assert_eq!(
        PublicKey::from_spki(&identity.public_key().spki()),
        Some(identity.public_key())
    );
}

#[test]
fn two_generated_identities_differ() {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    assert_ne!(a.public_key(), b.public_key());
}

#[test]
fn wrong_texts_say_what_is_wrong() {
    let parse = |text: &str| text.parse::<PublicKey>().unwrap_err();
    assert_eq!(parse("not a key!"), KeyTextError::NotBase64Url);
    assert_eq!(parse(""), KeyTextError::Length { bytes: 0 });
    assert_eq!(parse("AAAA"), KeyTextError::Length { bytes: 3 });
    // Standard base64 instead of base64url, a frequent slip.
    assert_eq!(
        parse("+/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        KeyTextError::NotBase64Url
    );
}

#[test]
fn debug_hides_the_seed() {
    let identity = Identity::from_seed([0x41; 32]);
    let shown = format!("{identity:?}");
    assert!(!shown.contains(&identity.secret_text()));
    assert!(!shown.contains("65, 65"));
    assert!(shown.contains(&identity.public_key().to_string()));
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}
