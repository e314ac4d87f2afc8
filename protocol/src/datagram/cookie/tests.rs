//! For whom and for how long a cookie is good.

use super::{ADDRESS_BYTES, Cookies};

const NOW: u64 = 1_790_000_000_000;
const HERE: [u8; ADDRESS_BYTES] = [3; ADDRESS_BYTES];

#[test]
fn a_cookie_is_good_for_its_address_nonce_and_time_only() {
    let cookies = Cookies::new([1; 32]);
    let cookie = cookies.make(NOW, &HERE, 77);
    let good = |unix_ms, address, nonce| cookies.is_good(unix_ms, address, nonce, &cookie);
    assert!(good(NOW, &HERE, 77));
    assert!(good(NOW + 10_000, &HERE, 77));
    assert!(!good(NOW + 20_000, &HERE, 77));
    assert!(!good(NOW - 10_000, &HERE, 77));
    assert!(!good(NOW, &HERE, 78));
    let mut elsewhere = HERE;
    elsewhere[17] ^= 1;
    assert!(!good(NOW, &elsewhere, 77));
    assert!(!Cookies::new([2; 32]).is_good(NOW, &HERE, 77, &cookie));
}

#[test]
fn every_bit_of_a_cookie_counts() {
    let cookies = Cookies::new([1; 32]);
    let cookie = cookies.make(NOW, &HERE, 77);
    for bit in 0..cookie.len() * 8 {
        let mut forged = cookie;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(!cookies.is_good(NOW, &HERE, 77, &forged), "bit {bit}");
    }
    assert!(!cookies.is_good(0, &HERE, 77, &[0; 20]));
}

#[test]
fn the_key_changes_with_the_hour() {
    let cookies = Cookies::new([1; 32]);
    // A cookie made in the last period of a key is still good in the first of the next.
    let last = 3_600_000 * 500_000 - 1;
    let cookie = cookies.make(last, &HERE, 1);
    assert!(cookies.is_good(last + 2, &HERE, 1, &cookie));
}
