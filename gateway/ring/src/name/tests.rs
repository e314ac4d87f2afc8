//! Bytes against addresses.

use super::{decode, encode};

#[test]
fn what_is_encoded_is_decoded() {
    for text in [
        "1.2.3.4:5",
        "255.255.255.255:65535",
        "[::1]:9",
        "[fe80::1%7]:700",
    ] {
        let address = text.parse().expect("an address");
        let (name, _) = encode(address);
        assert_eq!(decode(&name), Some(address));
    }
}

#[test]
fn another_family_is_no_address() {
    assert_eq!(decode(&[0; 28]), None);
}
