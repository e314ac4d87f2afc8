//! Both implementations are the function of RFC 7748, and agree.

use proptest::prelude::*;

use super::*;
use crate::testing::cases;

fn hex(text: &str) -> [u8; KEY_BYTES] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

/// RFC 7748 §6.1.
#[test]
fn the_example_of_the_rfc() {
    let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let alice_public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let bob_public = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let both = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(public_of(&alice), alice_public);
    assert_eq!(portable::public_of(&alice), alice_public);
    assert_eq!(public_of(&bob), bob_public);
    for shared in [shared, portable::shared] {
        assert_eq!(shared(&alice, &bob_public), Some(both));
        assert_eq!(shared(&bob, &alice_public), Some(both));
    }
}

/// The points of order 1, 2, 4 and 8, and some that are not reduced: every secret
/// key leads to zeros, on both.
#[test]
fn a_point_of_small_order_is_refused() {
    for point in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        for shared in [shared, portable::shared] {
            assert_eq!(shared(&[0x5a; KEY_BYTES], &hex(point)), None, "{point}");
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn both_agree(secret in any::<[u8; KEY_BYTES]>(), point in any::<[u8; KEY_BYTES]>()) {
        prop_assert_eq!(public_of(&secret), portable::public_of(&secret));
        prop_assert_eq!(shared(&secret, &point), portable::shared(&secret, &point));
    }
}
