//! However the stream is cut, the frames are those of a naive splitter.

use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::testing::cases;

const FRAME_BYTES_MAX: usize = 200;

/// Frames whose header holds their length, and bytes that tell them apart.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let frame = (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX, any::<u8>()).prop_map(|(length, fill)| {
        let mut frame = vec![fill; length];
        frame[..3].copy_from_slice(&[length as u8, 0, 0]);
        frame
    });
    prop::collection::vec(frame, 0..6)
}

/// All frames that come out of the stream when it arrives in these pieces.
fn split(stream: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>, BadLength> {
    let (mut reassembly, mut pool) = (Reassembly::default(), Buffers::default());
    let mut frames = Vec::new();
    let mut from = 0;
    for &to in cuts.iter().chain(&[stream.len()]) {
        let mut piece = stream[from..to].to_vec();
        let mut data = piece.as_mut_slice();
        while let Some(frame) = reassembly.next(&mut data, FRAME_BYTES_MAX, &mut pool)? {
            frames.push(frame.to_vec());
        }
        assert!(data.is_empty(), "bytes were left lying");
        assert!(reassembly.pending_bytes() < FRAME_BYTES_MAX);
        from = to;
    }
    assert_eq!(
        reassembly.pending_bytes(),
        stream.len() - frames.iter().map(Vec::len).sum::<usize>()
    );
    Ok(frames)
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn the_frames_are_the_same_at_all_cuts(frames in frames(), tail in 0..FRAME_HEADER_BYTES) {
        let mut stream = frames.concat();
        // A frame that has begun.
        stream.extend_from_slice(&[100, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9][..tail]);
        for cut in 0..=stream.len() {
            prop_assert_eq!(split(&stream, &[cut]), Ok(frames.clone()));
        }
    }

    #[test]
    fn the_frames_are_the_same_in_any_pieces(frames in frames(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let stream = frames.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(split(&stream, &cuts), Ok(frames.clone()));
        let every_byte: Vec<_> = (0..stream.len()).collect();
        prop_assert_eq!(split(&stream, &every_byte), Ok(frames));
    }

    #[test]
    fn a_bad_length_is_seen_at_all_cuts(frames in frames(), length in prop_oneof![0..FRAME_HEADER_BYTES, FRAME_BYTES_MAX + 1..1 << 24]) {
        let mut stream = frames.concat();
        stream.extend_from_slice(&length.to_le_bytes()[..3]);
        for cut in 0..=stream.len() {
            prop_assert_eq!(split(&stream, &[cut]), Err(BadLength(length)));
        }
    }
}

#[test]
fn a_whole_frame_is_not_copied() {
    let (mut reassembly, mut pool) = (Reassembly::default(), Buffers::default());
    let mut bytes = [20; 20];
    bytes[1] = 0;
    bytes[2] = 0;
    let from = bytes.as_ptr();
    let mut data = bytes.as_mut_slice();
    let frame = reassembly.next(&mut data, FRAME_BYTES_MAX, &mut pool);
    assert_eq!(frame.unwrap().unwrap().as_ptr(), from);
    assert_eq!(reassembly.partial.capacity(), 0);
}

#[test]
fn the_buffer_goes_back_to_the_pool() {
    let (mut reassembly, mut pool) = (Reassembly::default(), Buffers::default());
    let frame = [vec![20, 0, 0], vec![1; 17]].concat();
    for _ in 0..3 {
        for piece in [&frame[..7], &frame[7..]] {
            let mut piece = piece.to_vec();
            let mut data = piece.as_mut_slice();
            while let Ok(Some(_)) = reassembly.next(&mut data, limits::FRAME_BYTES_MAX, &mut pool) {
            }
        }
        assert_eq!((pool.len(), reassembly.pending_bytes()), (1, 0));
    }
    let mut data = &mut [20_u8, 0][..];
    assert_eq!(
        reassembly.next(&mut data, limits::FRAME_BYTES_MAX, &mut pool),
        Ok(None)
    );
    assert!(pool.is_empty());
    reassembly.release(&mut pool);
    assert_eq!(pool.len(), 1);
}

#[test]
fn a_stranger_is_lent_no_buffer_that_was_grown_for_others() {
    let mut pool = Buffers::default();
    pool.give(Vec::with_capacity(16_000));
    let mut reassembly = Reassembly::default();
    let mut start = [40, 0, 0];
    let mut data = &mut start[..];
    let frame = reassembly.next(&mut data, limits::LOGIN_FRAME_BYTES_MAX, &mut pool);
    assert_eq!(frame, Ok(None));
    assert_eq!(reassembly.pending_bytes(), 3);
    assert_eq!(pool.len(), 1);
}
