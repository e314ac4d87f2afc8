//! What comes out is what went in, whatever happens to the segments.

use super::*;
use crate::random::Random;

#[test]
fn segments_in_any_order_and_number_give_the_stream() {
    let mut random = Random::new(1);
    for _ in 0..200 {
        let mut pipe = Pipe::default();
        let stream: Vec<u8> = (0..random.between(1, 3_000)).map(|at| at as u8).collect();
        pipe.write(&stream);
        pipe.shut();
        let mut wire = Vec::new();
        while let Some(segment) = pipe.segment(random.between(1, 200) as usize) {
            if random.chance(200) {
                wire.push(segment.clone());
            }
            wire.push(segment);
        }
        let mut out = Vec::new();
        while !wire.is_empty() {
            let at = random.index(wire.len());
            pipe.arrive(wire.swap_remove(at));
            out.extend(pipe.take(random.index(100)));
        }
        out.extend(pipe.take(usize::MAX));
        assert_eq!(out, stream);
        assert!(pipe.is_ended());
    }
}

#[test]
fn a_reader_that_stops_closes_the_window() {
    let mut pipe = Pipe::default();
    pipe.write(&[0; 100_000]);
    let mut sent = 0;
    while let Some(segment) = pipe.segment(1_000) {
        sent += segment.bytes.len();
        pipe.arrive(segment);
    }
    assert_eq!(sent as u64, WINDOW_BYTES);
    assert!(!pipe.is_flushed());
    pipe.take(10);
    assert_eq!(
        pipe.segment(1_000).map(|segment| segment.bytes.len()),
        Some(10)
    );
}
