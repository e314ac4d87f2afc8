//! The header's layout, and that the CRC sees every bit.

use proptest::prelude::*;

use super::*;
use crate::testing::cases;

fn header() -> impl Strategy<Value = Header> {
    (
        0..1_u32 << 24,
        any::<u8>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(|(length, flags, sequence, timestamp_ms, crc)| Header {
            length,
            flags,
            sequence,
            timestamp_ms,
            crc,
        })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_header_comes_back(header in header()) {
        let bytes = header.encode();
        prop_assert_eq!(Header::decode(&bytes), Some(header));
        prop_assert_eq!(length(&bytes), Some(header.length as usize));
    }

    #[test]
    fn each_flipped_bit_changes_the_header(header in header(), bit in 0..128_usize) {
        let mut bytes = header.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(Header::decode(&bytes), Some(header));
    }

    #[test]
    fn the_crc_sees_each_bit(body in prop::collection::vec(any::<u8>(), 4..64), at in any::<prop::sample::Index>()) {
        let mut frame = Vec::new();
        encode_handshake(7, &body, &mut frame);
        let stored = Header::decode(&frame).unwrap().crc;
        prop_assert_eq!(crc(&frame), stored);
        let bit = at.index(frame.len() * 8);
        if !(AAD_BYTES..FRAME_HEADER_BYTES).contains(&(bit / 8)) {
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(crc(&frame), stored);
        }
    }
}

#[test]
fn the_layout_is_that_of_the_page() {
    let header = Header {
        length: 0x00_03_02_01,
        flags: 4,
        sequence: 0x0807_0605,
        timestamp_ms: 0x0c0b_0a09,
        crc: 0x100f_0e0d,
    };
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    assert_eq!(header.encode(), expected);
}

#[test]
fn the_crc_is_the_one_of_zlib() {
    // Bytes 0–11 are empty of meaning here: CRC-32 of "123456789012" + "3456".
    let mut frame = b"123456789012....3456".to_vec();
    assert_eq!(crc(&frame), crc32fast::hash(b"1234567890123456"));
    write_crc(&mut frame);
    assert_eq!(frame[12..16], crc(&frame).to_le_bytes());
    assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
}

#[test]
fn too_few_bytes_are_no_header() {
    assert_eq!(Header::decode(&[0; 15]), None);
    assert_eq!(length(&[1, 0]), None);
    assert_eq!(length(&[1, 2, 3]), Some(0x03_02_01));
}
