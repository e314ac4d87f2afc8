//! Every cut of a byte sequence gives the same whole records.

use super::*;

fn record(record_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0xAB; record_bytes];
    bytes[..3].copy_from_slice(&(record_bytes as u32).to_le_bytes()[..3]);
    bytes
}

#[test]
fn finds_the_whole_records_at_every_cut() {
    let lengths = [RECORD_HEADER_BYTES, 100, RECORD_HEADER_BYTES + 1, 40];
    let bytes: Vec<u8> = lengths.iter().flat_map(|&n| record(n)).collect();
    for cut in 0..=bytes.len() {
        let mut expected = 0;
        for length in lengths {
            if expected + length > cut {
                break;
            }
            expected += length;
        }
        let found = records(&bytes[..cut]);
        assert_eq!(
            (found.whole_bytes, found.bad),
            (expected, None),
            "cut {cut}"
        );
    }
}

#[test]
fn a_length_out_of_bounds_is_found_behind_whole_records() {
    for bad in [0, RECORD_HEADER_BYTES - 1, RECORD_BYTES_MAX + 1, 0xFF_FFFF] {
        let mut bytes = record(20);
        bytes.extend_from_slice(&(bad as u32).to_le_bytes()[..3]);
        let found = records(&bytes);
        assert_eq!(found.whole_bytes, 20);
        assert_eq!(found.bad, Some(BadLength(bad as u32)));
    }
    assert_eq!(records(&record(RECORD_BYTES_MAX)).bad, None);
}

#[test]
fn control_messages_have_a_largest_length() {
    let field = |n: usize| (n as u32).to_le_bytes();
    assert_eq!(control_bytes(&field(0)[..3]), Ok(None));
    assert_eq!(control_bytes(&field(0)), Ok(Some(4)));
    assert_eq!(
        control_bytes(&field(CONTROL_BYTES_MAX)),
        Ok(Some(4 + CONTROL_BYTES_MAX))
    );
    assert_eq!(
        control_bytes(&field(CONTROL_BYTES_MAX + 1)),
        Err(BadLength(CONTROL_BYTES_MAX as u32 + 1))
    );
}
