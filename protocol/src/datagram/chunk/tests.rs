//! Round trips and mutations of chunks.

use proptest::prelude::*;

use super::{ACK_BYTES_MAX, Ack, Chunk, Chunks};
use crate::datagram::Cid;
use crate::testing::cases;

fn chunk(bytes: &[u8]) -> impl Strategy<Value = Chunk<'_>> {
    prop_oneof![
        (0u8..4, any::<u32>(), 1..=bytes.len()).prop_map(|(flags, number, length)| Chunk::Data {
            flags,
            number,
            bytes: &bytes[..length],
        }),
        (any::<u32>(), any::<u64>(), 0u64..65_535).prop_map(|(next, bitmap, delay)| {
            Chunk::Ack(Ack {
                next,
                bitmap,
                delay_us: delay * 10,
            })
        }),
        (prop_oneof![Just(0u8), Just(2)], 1..=bytes.len()).prop_map(|(flags, length)| {
            Chunk::Body {
                flags,
                bytes: &bytes[..length],
            }
        }),
        any::<[u8; 8]>().prop_map(Chunk::Challenge),
        any::<[u8; 8]>().prop_map(Chunk::Response),
        any::<u64>().prop_map(|cid| Chunk::NewCid(Cid(cid))),
    ]
}

const BYTES: &[u8] = &[5; 300];

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn what_is_encoded_is_decoded(chunks in prop::collection::vec(chunk(BYTES), 0..8)) {
        let mut out = Vec::new();
        for chunk in &chunks {
            let before = out.len();
            chunk.encode(&mut out);
            if matches!(chunk, Chunk::Ack(_)) {
                prop_assert!(out.len() - before <= ACK_BYTES_MAX);
            }
        }
        let decoded: Result<Vec<_>, _> = Chunks::new(&out).collect();
        prop_assert_eq!(decoded, Ok(chunks.clone()));
        // Cut anywhere, it is malformed or the beginning of what it was.
        for end in 0..out.len() {
            let cut: Vec<_> = Chunks::new(&out[..end]).collect();
            for (at, chunk) in cut.iter().enumerate() {
                prop_assert!(chunk.is_err() && at + 1 == cut.len() || *chunk == Ok(chunks[at]));
            }
        }
    }

    #[test]
    fn padding_is_the_rest(chunks in prop::collection::vec(chunk(BYTES), 0..4), bytes in 0..1_200_usize) {
        let mut out = Vec::new();
        for chunk in &chunks {
            chunk.encode(&mut out);
        }
        let before = out.len();
        Chunk::Padding(bytes).encode(&mut out);
        prop_assert_eq!(out.len(), before + bytes);
        let decoded: Result<Vec<_>, _> = Chunks::new(&out).collect();
        let padding = (bytes > 0).then_some(Chunk::Padding(bytes));
        let expected: Vec<_> = chunks.into_iter().chain(padding).collect();
        prop_assert_eq!(decoded, Ok(expected));
    }

    #[test]
    fn a_changed_bit_is_seen(chunk in chunk(BYTES), bit: prop::sample::Index) {
        let mut out = Vec::new();
        chunk.encode(&mut out);
        let bit = bit.index(out.len() * 8);
        out[bit / 8] ^= 1 << (bit % 8);
        let decoded: Vec<_> = Chunks::new(&out).collect();
        prop_assert_ne!(decoded, vec![Ok(chunk)]);
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
        prop_assert!(Chunks::new(&bytes).count() <= bytes.len());
    }
}
