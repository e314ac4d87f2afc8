//! Round trips, every possible tear, every possible flipped bit.

use super::*;

const SALT: u32 = 0x5a17;

fn file(records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header(SALT).to_vec();
    for record in records {
        write_record(SALT, record, &mut bytes);
    }
    bytes
}

#[test]
fn what_was_written_is_read() {
    let records: [&[u8]; 3] = [b"one", b"two and more", &[0; 1000]];
    let bytes = file(&records);
    let contents = read(&bytes).expect("a good journal");
    assert_eq!(contents.records, records);
    assert_eq!(contents.salt, SALT);
    assert_eq!((contents.good_bytes, contents.torn_bytes), (bytes.len(), 0));
}

#[test]
fn a_tear_at_any_byte_leaves_the_records_before_it() {
    let records: [&[u8]; 3] = [b"one", b"two and more", b"three"];
    let bytes = file(&records);
    let mut ends = vec![HEADER_BYTES];
    for record in &records {
        ends.push(ends[ends.len() - 1] + RECORD_HEADER_BYTES + record.len());
    }
    for cut in HEADER_BYTES..=bytes.len() {
        let contents = read(&bytes[..cut]).expect("a torn tail is no error");
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(contents.records, records[..whole], "cut at {cut}");
        assert_eq!(contents.good_bytes, ends[whole]);
        assert_eq!(contents.torn_bytes, cut - ends[whole]);
        // Where blocks were allotted but not written there are zeros.
        let mut zeros = bytes[..cut].to_vec();
        zeros.resize(bytes.len() + 4096, 0);
        let contents = read(&zeros).expect("a tail of zeros is no error");
        assert_eq!(contents.records, records[..whole], "zeros from {cut}");
    }
}

#[test]
fn a_flipped_bit_before_a_good_record_is_named_and_in_the_last_one_is_a_tear() {
    let records: [&[u8]; 3] = [b"one", b"two and more", b"three"];
    let bytes = file(&records);
    let second = HEADER_BYTES + RECORD_HEADER_BYTES + 3;
    let third = second + RECORD_HEADER_BYTES + 12;
    for at in second..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let found = read(&flipped);
            if at < third {
                let damaged = FormatError::Damaged {
                    offset: second as u64,
                    next: third as u64,
                };
                assert_eq!(found, Err(damaged), "byte {at} bit {bit}");
            } else {
                assert_eq!(found.expect("a tear").records, records[..2]);
            }
        }
    }
}

#[test]
fn records_of_an_earlier_file_are_not_believed() {
    let mut bytes = file(&[b"mine"]);
    let good = bytes.len();
    write_record(SALT + 1, b"of another file", &mut bytes);
    let contents = read(&bytes).expect("a foreign tail is a torn tail");
    assert_eq!(contents.records, [b"mine"]);
    assert_eq!(contents.good_bytes, good);
}

#[test]
fn what_is_no_journal_is_refused() {
    assert_eq!(read(b""), Err(FormatError::NotAJournal));
    assert_eq!(read(&[0; 64]), Err(FormatError::NotAJournal));
    assert_eq!(read(&header(1)[..15]), Err(FormatError::NotAJournal));
    let mut newer = header(1);
    newer[8] = 2;
    assert_eq!(read(&newer), Err(FormatError::Version { found: 2 }));
}
