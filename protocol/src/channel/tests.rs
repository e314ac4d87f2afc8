//! A key of a channel: what its members can open, and what nobody can.

use super::*;
use crate::frame::FLAG_COMPRESSED;

const KEY: [u8; 32] = [7; 32];

fn sealer() -> ChannelSealer {
    ChannelSealer::new(5, Key(KEY), Time(0), RekeyPolicy::default())
}

fn sealed(sealer: &mut ChannelSealer, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    sealer.seal(Time(9_000), FLAG_COMPRESSED, &mut frame, |out| {
        out.extend_from_slice(body);
    });
    frame
}

fn open(opener: &mut ChannelOpener, mut frame: Vec<u8>) -> Option<Vec<u8>> {
    let header = Header::decode(&frame)?;
    opener.open(&header, &mut frame).map(<[u8]>::to_vec)
}

#[test]
fn members_open_each_frame_once_and_may_miss_some() {
    let mut sealer = sealer();
    let frames: Vec<Vec<u8>> = (0..5_u8).map(|at| sealed(&mut sealer, &[at; 9])).collect();
    let header = Header::decode(&frames[3]).expect("a header");
    assert_eq!(header.flags, FLAG_CHANNEL | FLAG_COMPRESSED);
    assert_eq!((header.sequence, header.timestamp_ms), (3, 9));
    assert_eq!(header.length as usize, frames[3].len());
    assert_eq!(header.crc, frame::crc(&frames[3]));
    assert_eq!(key_id(&frames[3]), Some(5));
    let mut early = ChannelOpener::new(5, Key(KEY), 0);
    let mut late = ChannelOpener::new(5, Key(KEY), 3);
    assert_eq!(open(&mut early, frames[0].clone()), Some(vec![0; 9]));
    assert_eq!(open(&mut early, frames[2].clone()), Some(vec![2; 9]));
    for passed in [0, 1, 2] {
        assert_eq!(open(&mut early, frames[passed].clone()), None);
        assert_eq!(open(&mut late, frames[passed].clone()), None);
    }
    assert_eq!(open(&mut early, frames[4].clone()), Some(vec![4; 9]));
    assert_eq!(open(&mut late, frames[3].clone()), Some(vec![3; 9]));
}

#[test]
fn every_byte_but_the_crc_is_authenticated() {
    let frame = sealed(&mut sealer(), b"to all");
    for at in (0..frame.len()).filter(|at| !(AAD_BYTES..FRAME_HEADER_BYTES).contains(at)) {
        let mut changed = frame.clone();
        changed[at] ^= 1;
        let mut opener = ChannelOpener::new(5, Key(KEY), 0);
        assert_eq!(open(&mut opener, changed), None, "byte {at}");
        assert_eq!(open(&mut opener, frame.clone()), Some(b"to all".to_vec()));
    }
    let mut other = ChannelOpener::new(5, Key([8; 32]), 0);
    assert_eq!(open(&mut other, frame.clone()), None);
    for length in 0..frame.len() {
        let mut opener = ChannelOpener::new(5, Key(KEY), 0);
        assert_eq!(open(&mut opener, frame[..length].to_vec()), None);
    }
}

#[test]
fn a_key_is_worn_after_its_frames_or_its_time() {
    let policy = RekeyPolicy { frames: 2 };
    let mut few = ChannelSealer::new(1, Key(KEY), Time(0), policy);
    assert!(!few.is_worn(Time(0)));
    sealed(&mut few, b"1");
    assert!(!few.is_worn(Time(0)));
    assert!(few.is_worn(Time(0).after_ms(REKEY_AGE_MS)));
    sealed(&mut few, b"2");
    assert!(few.is_worn(Time(0)));
}

#[test]
fn a_filter_lets_through_those_for_whom_all_holds() {
    let ann = |filter: Filter| filter.passes(SessionId(1), 7, |key| (key == 3).then_some(9));
    assert!(ann(Filter::ALL));
    assert!(!ann(Filter::but(SessionId(1))));
    assert!(ann(Filter::but(SessionId(2))));
    for (version_min, version_max, passes) in [(7, 7, true), (8, 9, false), (0, 6, false)] {
        let filter = Filter {
            version_min,
            version_max,
            ..Filter::ALL
        };
        assert_eq!(ann(filter), passes);
    }
    for (attribute, passes) in [((3, 9), true), ((3, 8), false), ((4, 9), false)] {
        let attribute = Some(attribute);
        let filter = Filter {
            attribute,
            ..Filter::ALL
        };
        assert_eq!(ann(filter), passes);
    }
}
