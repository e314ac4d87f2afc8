//! What is compressed comes back; bombs and nonsense are refused by their size,
//! before anything is written.

use proptest::prelude::*;

use super::*;
use crate::testing::cases;

/// Payloads that shrink: words of a small language.
fn wordy() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec!["move ", "to ", "x=", "y=", "7", "12", "sword, "]);
    prop::collection::vec(word, 0..900).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_payload_comes_back(payload in wordy()) {
        let mut scratch = Scratch::default();
        if let Some(shorter) = scratch.compress(&payload).map(<[u8]>::to_vec) {
            prop_assert!(shorter.len() < payload.len());
            prop_assert_eq!(scratch.decompress(&shorter), Ok(payload.as_slice()));
        }
    }

    #[test]
    fn a_changed_block_is_refused_or_stays_in_its_bounds(
        payload in wordy(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut scratch = Scratch::default();
        let Some(mut shorter) = scratch.compress(&payload).map(<[u8]>::to_vec) else {
            return Ok(());
        };
        let at = at.index(shorter.len());
        shorter[at] ^= 1 << bit;
        let size = u32::from_le_bytes([shorter[0], shorter[1], shorter[2], shorter[3]]) as usize;
        if let Ok(other) = scratch.decompress(&shorter) {
            prop_assert_eq!(other.len(), size);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 0..2_000_u32) {
        let bytes = [&size.to_le_bytes(), bytes.as_slice()].concat();
        if let Ok(payload) = Scratch::default().decompress(&bytes) {
            prop_assert_eq!(payload.len(), size as usize);
        }
    }
}

fn sized(size: u32, block: &[u8]) -> Vec<u8> {
    [&size.to_le_bytes(), block].concat()
}

#[test]
fn declared_sizes_have_bounds() {
    let mut scratch = Scratch::default();
    let text = b"again and again and again and again and again and again".repeat(3);
    let whole = scratch.compress(&text).unwrap().to_vec();
    let (size, block) = (text.len() as u32, &whole[4..]);
    assert_eq!(scratch.decompress(&sized(size, block)), Ok(text.as_slice()));
    for wrong in [
        0,
        size - 1,
        size + 1,
        DECOMPRESSED_BYTES_MAX as u32 + 1,
        u32::MAX,
    ] {
        assert_eq!(
            scratch.decompress(&sized(wrong, block)),
            Err(BadCompression)
        );
    }
    for short in [&[][..], &[1, 0, 0]] {
        assert_eq!(scratch.decompress(short), Err(BadCompression));
    }
}

#[test]
fn a_ratio_above_64_is_refused_and_never_made() {
    let mut scratch = Scratch::default();
    let zeros = vec![0; 20_000];
    assert_eq!(scratch.compress(&zeros), None);
    let block = lz4_flex::block::compress(&zeros);
    assert!(zeros.len() > block.len() * DECOMPRESSED_RATIO_MAX);
    assert_eq!(
        scratch.decompress(&sized(20_000, &block)),
        Err(BadCompression)
    );
}

#[test]
fn what_does_not_shrink_or_fit_stays_as_it_is() {
    let mut scratch = Scratch::default();
    assert_eq!(scratch.compress(b""), None);
    assert_eq!(scratch.compress(b"short"), None);
    assert_eq!(scratch.compress(&vec![7; DECOMPRESSED_BYTES_MAX + 1]), None);
    let mut random = crate::testing::Random(3);
    let noise: Vec<u8> = (0..5_000).map(|_| random.next() as u8).collect();
    assert_eq!(scratch.compress(&noise), None);
}

#[test]
fn the_scratch_keeps_its_size() {
    let mut scratch = Scratch::default();
    let before = scratch.bytes.len();
    let _refused = scratch.decompress(&sized(u32::MAX, &[0xff; 4_000]));
    let _refused = scratch.decompress(&sized(32_768, &[0xff; 600]));
    assert_eq!(scratch.bytes.len(), before);
}
