//! Payloads against themselves and against every kind of damage.

use protocol::compress::Scratch;

use super::{DRAWN_BYTES, PREFIX_BYTES, Shape, is_of, sequence, write};

#[test]
fn a_payload_is_recognised_and_any_damaged_byte_is_noticed() {
    let mut payload = Vec::new();
    for bytes in [8, 9, 15, 16, 17, 64, 1_000] {
        write(7, 3, 5, Shape::random(bytes), &mut payload);
        assert_eq!(payload.len(), bytes);
        assert!(is_of(&payload, 7, 3, 5, Shape::random(bytes)));
        assert_eq!(sequence(&payload), Some(5));
        for at in 0..bytes {
            payload[at] ^= 1;
            assert!(
                !is_of(&payload, 7, 3, 5, Shape::random(bytes)),
                "byte {at} of {bytes}"
            );
            payload[at] ^= 1;
        }
    }
}

#[test]
fn a_payload_of_another_send_or_length_is_not_taken() {
    let mut payload = Vec::new();
    write(7, 3, 5, Shape::random(64), &mut payload);
    assert!(!is_of(&payload, 8, 3, 5, Shape::random(64)));
    assert!(!is_of(&payload, 7, 4, 5, Shape::random(64)));
    assert!(!is_of(&payload, 7, 3, 6, Shape::random(64)));
    assert!(!is_of(&payload[..63], 7, 3, 5, Shape::random(64)));
    payload.push(0);
    assert!(!is_of(&payload, 7, 3, 5, Shape::random(64)));
    assert!(!is_of(
        &payload[..PREFIX_BYTES - 1],
        7,
        3,
        5,
        Shape::random(PREFIX_BYTES - 1)
    ));
}

#[test]
fn bodies_of_neighbours_differ() {
    let body = |seed, client, sequence| {
        let mut payload = Vec::new();
        write(seed, client, sequence, Shape::random(64), &mut payload);
        payload.split_off(PREFIX_BYTES)
    };
    assert_ne!(body(1, 0, 0), body(1, 0, 1));
    assert_ne!(body(1, 0, 0), body(1, 1, 0));
    assert_ne!(body(1, 0, 0), body(2, 0, 0));
}

#[test]
fn drawn_payloads_have_every_length_and_a_half_of_them_shrinks() {
    let (least, most) = DRAWN_BYTES;
    let shapes: Vec<_> = (0..20_000).map(|at| Shape::drawn(9, 3, at)).collect();
    let lengths = || shapes.iter().map(|shape| shape.bytes);
    assert!(lengths().all(|bytes| (least..=most).contains(&bytes)));
    assert_eq!(
        (lengths().min(), lengths().max()),
        (Some(least), Some(most))
    );
    // Seven doublings, each as often.
    let small = lengths().filter(|bytes| *bytes < 2 * least).count();
    assert!((2_000..4_000).contains(&small), "{small}");
    let repeating = shapes.iter().filter(|shape| shape.repeats).count();
    assert!((9_000..11_000).contains(&repeating), "{repeating}");

    let (mut scratch, mut payload) = (Scratch::default(), Vec::new());
    for (at, shape) in (0..).zip(&shapes).filter(|(_, shape)| shape.bytes >= 256) {
        write(9, 3, at, *shape, &mut payload);
        assert!(is_of(&payload, 9, 3, at, *shape));
        let shrinks = scratch.compress(&payload).is_some();
        assert_eq!(shrinks, shape.repeats, "{shape:?}");
    }
}
