//! Payloads against themselves and against every kind of damage.

use super::{PREFIX_BYTES, is_of, sequence, write};

#[test]
fn a_payload_is_recognised_and_any_damaged_byte_is_noticed() {
    let mut payload = Vec::new();
    for bytes in [8, 9, 15, 16, 17, 64, 1_000] {
        write(7, 3, 5, bytes, &mut payload);
        assert_eq!(payload.len(), bytes);
        assert!(is_of(&payload, 7, 3, 5, bytes));
        assert_eq!(sequence(&payload), Some(5));
        for at in 0..bytes {
            payload[at] ^= 1;
            assert!(!is_of(&payload, 7, 3, 5, bytes), "byte {at} of {bytes}");
            payload[at] ^= 1;
        }
    }
}

#[test]
fn a_payload_of_another_send_or_length_is_not_taken() {
    let mut payload = Vec::new();
    write(7, 3, 5, 64, &mut payload);
    assert!(!is_of(&payload, 8, 3, 5, 64));
    assert!(!is_of(&payload, 7, 4, 5, 64));
    assert!(!is_of(&payload, 7, 3, 6, 64));
    assert!(!is_of(&payload[..63], 7, 3, 5, 64));
    payload.push(0);
    assert!(!is_of(&payload, 7, 3, 5, 64));
    assert!(!is_of(
        &payload[..PREFIX_BYTES - 1],
        7,
        3,
        5,
        PREFIX_BYTES - 1
    ));
}

#[test]
fn bodies_of_neighbours_differ() {
    let body = |seed, client, sequence| {
        let mut payload = Vec::new();
        write(seed, client, sequence, 64, &mut payload);
        payload.split_off(PREFIX_BYTES)
    };
    assert_ne!(body(1, 0, 0), body(1, 0, 1));
    assert_ne!(body(1, 0, 0), body(1, 1, 0));
    assert_ne!(body(1, 0, 0), body(2, 0, 0));
}
