//! Nothing passes but what was sealed, in order; keys change on both sides
//! together; no (key, nonce) is used twice.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::frame::{FLAG_COMPRESSED, length, write_crc};
use crate::testing::cases;

const START: Time = Time(5_000_000);

fn pair(policy: RekeyPolicy) -> (Sealer, Opener) {
    let key = Key([7; 32]);
    (Sealer::new(key.clone(), START, policy), Opener::new(key))
}

fn seal_at(sealer: &mut Sealer, now: Time, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    sealer.seal(now, 0, &mut frame, |out| out.extend_from_slice(body));
    frame
}

fn seal(sealer: &mut Sealer, body: &[u8]) -> Vec<u8> {
    seal_at(sealer, START, body)
}

fn open(opener: &mut Opener, frame: &[u8]) -> Result<Vec<u8>, CloseReason> {
    let mut frame = frame.to_vec();
    let header = Header::decode(&frame).ok_or(CloseReason::BadLength)?;
    opener.open(&header, &mut frame).map(|body| body.to_vec())
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_body_comes_back(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 1..8)) {
        let (mut sealer, mut opener) = pair(RekeyPolicy { frames: 3 });
        for body in bodies {
            let frame = seal(&mut sealer, &body);
            prop_assert_eq!(length(&frame), Some(frame.len()));
            prop_assert_eq!(open(&mut opener, &frame), Ok(body));
            prop_assert_eq!(sealer.sequence(), opener.sequence());
        }
    }

    #[test]
    fn expanding_finds_the_nearest(expected in prop_oneof![0..1_u64 << 34, any::<u64>()], wire in any::<u32>()) {
        let expanded = expand(expected, wire);
        prop_assert_eq!(expanded as u32, wire);
        let distance = expanded.abs_diff(expected);
        for other in [expanded.checked_sub(1 << 32), expanded.checked_add(1 << 32)].into_iter().flatten() {
            prop_assert!(distance <= other.abs_diff(expected));
        }
    }

    /// Against a naive receiver: it knows which frame of the sender each one is.
    #[test]
    fn repeats_and_gaps_are_told_apart(order in prop::collection::vec(0..12_usize, 1..40)) {
        let (mut sealer, mut opener) = pair(RekeyPolicy { frames: 1 << 20 });
        let frames: Vec<_> = (0..12_u8).map(|at| seal(&mut sealer, &[at])).collect();
        let mut expected = 0;
        for at in order {
            let outcome = open(&mut opener, &frames[at]);
            let wanted = match at.cmp(&expected) {
                std::cmp::Ordering::Less => Err(CloseReason::SequenceRepeated),
                std::cmp::Ordering::Equal => Ok(vec![at as u8]),
                std::cmp::Ordering::Greater => Err(CloseReason::SequenceSkipped),
            };
            if wanted.is_ok() {
                expected += 1;
            }
            prop_assert_eq!(outcome, wanted);
            prop_assert_eq!(opener.sequence(), expected as u64);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_moves_nothing() {
    let (mut sealer, mut opener) = pair(RekeyPolicy::default());
    for _ in 0..3 {
        let frame = seal(&mut sealer, b"a body of some length");
        for at in (0..frame.len()).filter(|at| !(AAD_BYTES..FRAME_HEADER_BYTES).contains(at)) {
            for bit in 0..8 {
                let mut spoiled = frame.clone();
                spoiled[at] ^= 1 << bit;
                write_crc(&mut spoiled);
                let before = (opener.sequence(), opener.phase(), opener.key_frames);
                assert_eq!(open(&mut opener, &spoiled), Err(CloseReason::BadSeal));
                assert_eq!(
                    before,
                    (opener.sequence(), opener.phase(), opener.key_frames)
                );
            }
        }
        assert!(open(&mut opener, &frame).is_ok());
    }
}

#[test]
fn the_flags_are_authenticated() {
    let (mut sealer, mut opener) = pair(RekeyPolicy::default());
    let mut frame = Vec::new();
    sealer.seal(START, FLAG_COMPRESSED, &mut frame, |out| out.push(1));
    assert_eq!(frame[3], FLAG_COMPRESSED);
    let mut stripped = frame.clone();
    stripped[3] = 0;
    assert_eq!(open(&mut opener, &stripped), Err(CloseReason::BadSeal));
    assert_eq!(open(&mut opener, &frame), Ok(vec![1]));
}

#[test]
fn the_key_changes_after_so_many_frames() {
    let (mut sealer, mut opener) = pair(RekeyPolicy { frames: 4 });
    let phases: Vec<bool> = (0..12)
        .map(|_| {
            let frame = seal(&mut sealer, b"x");
            open(&mut opener, &frame).unwrap();
            assert_eq!(sealer.key, opener.key);
            frame[3] & FLAG_KEY_PHASE != 0
        })
        .collect();
    let (no, yes) = ([false; 4], [true; 4]);
    assert_eq!(phases, [no, yes, no].concat());
}

#[test]
fn the_key_changes_after_so_many_bytes_and_after_an_hour() {
    let (mut sealer, mut opener) = pair(RekeyPolicy::default());
    let first = seal(&mut sealer, b"x");
    assert_eq!(sealer.key_bytes, first.len() as u64);
    open(&mut opener, &first).unwrap();
    sealer.key_bytes = REKEY_BYTES - 1;
    let last = seal(&mut sealer, b"x");
    assert_eq!(last[3], 0);
    open(&mut opener, &last).unwrap();
    let next = seal(&mut sealer, b"x");
    assert_eq!(next[3], FLAG_KEY_PHASE);
    open(&mut opener, &next).unwrap();

    let almost = START.after_ms(REKEY_AGE_MS - 1);
    let frame = seal_at(&mut sealer, almost, b"x");
    assert_eq!(frame[3], FLAG_KEY_PHASE);
    open(&mut opener, &frame).unwrap();
    let frame = seal_at(&mut sealer, START.after_ms(REKEY_AGE_MS), b"x");
    assert_eq!(frame[3], 0);
    open(&mut opener, &frame).unwrap();
}

#[test]
fn after_a_rekey_the_old_key_is_forgotten() {
    let (mut sealer, mut opener) = pair(RekeyPolicy::default());
    let (mut other, _) = pair(RekeyPolicy::default());
    for _ in 0..2 {
        open(&mut opener, &seal(&mut sealer, b"x")).unwrap();
        seal(&mut other, b"x");
    }
    sealer.rekey(START);
    open(&mut opener, &seal(&mut sealer, b"x")).unwrap();
    seal(&mut other, b"x");
    // The frame that the old key would have sealed next.
    let stale = seal(&mut other, b"x");
    assert_eq!(open(&mut opener, &stale), Err(CloseReason::BadSeal));
    // Two changes without a frame between them are not followed.
    sealer.rekey(START);
    sealer.rekey(START);
    let lost = seal(&mut sealer, b"x");
    assert_eq!(open(&mut opener, &lost), Err(CloseReason::BadSeal));
}

#[test]
fn a_frame_that_fails_under_the_next_key_leaves_the_present_one() {
    let (mut sealer, mut opener) = pair(RekeyPolicy::default());
    let frame = seal(&mut sealer, b"x");
    let mut forged = frame.clone();
    forged[3] |= FLAG_KEY_PHASE;
    write_crc(&mut forged);
    assert_eq!(open(&mut opener, &forged), Err(CloseReason::BadSeal));
    // Sealed under the next key, but not the one that comes next.
    let mut ahead = Sealer::new(Key([7; 32]), START, RekeyPolicy::default());
    seal(&mut ahead, b"x");
    ahead.rekey(START);
    let skipped = seal(&mut ahead, b"x");
    assert_eq!(
        open(&mut opener, &skipped),
        Err(CloseReason::SequenceSkipped)
    );
    assert!(!opener.phase());
    assert_eq!(open(&mut opener, &frame), Ok(b"x".to_vec()));
}

#[test]
fn a_peer_that_never_changes_its_key_is_refused() {
    let (mut sealer, mut opener) = pair(RekeyPolicy::default());
    opener.key_frames = KEY_FRAMES_MAX - 1;
    open(&mut opener, &seal(&mut sealer, b"x")).unwrap();
    let frame = seal(&mut sealer, b"x");
    assert_eq!(open(&mut opener, &frame), Err(CloseReason::KeyExhausted));
}

#[test]
fn the_sequence_goes_on_past_32_bits() {
    let (mut sealer, mut opener) = pair(RekeyPolicy::default());
    (sealer.sequence, opener.expected) = ((1 << 32) - 2, (1 << 32) - 2);
    for _ in 0..4 {
        open(&mut opener, &seal(&mut sealer, b"x")).unwrap();
    }
    assert_eq!(opener.sequence(), (1 << 32) + 2);
    // The sequence counts in the nonce with all its bits.
    let frame = seal(&mut sealer, b"x");
    opener.expected -= 1 << 32;
    assert_eq!(open(&mut opener, &frame), Err(CloseReason::BadSeal));
}

#[test]
fn no_key_and_nonce_come_twice_in_100_000_frames_with_rekeys() {
    let (mut sealer, mut opener) = pair(RekeyPolicy { frames: 700 });
    let mut used = HashSet::new();
    let mut random = crate::testing::Random(11);
    let mut now = START;
    for frame in 0..100_000_u64 {
        match random.below(1_000) {
            0 => sealer.rekey(now),
            1 => now = now.after_ms(random.below(2 * REKEY_AGE_MS)),
            2 => sealer.key_bytes += REKEY_BYTES / 2,
            _ => {}
        }
        let bytes = seal_at(&mut sealer, now, b"x");
        // After sealing, the key is the one it was sealed with.
        assert!(used.insert((sealer.key.0, frame)), "frame {frame}");
        open(&mut opener, &bytes).unwrap();
        assert_eq!(opener.key, sealer.key);
    }
    let keys: HashSet<_> = used.iter().map(|(key, _)| key).collect();
    assert!(keys.len() > 140, "{} keys", keys.len());
    assert_eq!((sealer.sequence(), used.len()), (100_000, 100_000));
}

#[test]
fn the_next_key_is_the_rekey_of_noise() {
    // ChaCha20-Poly1305 over 32 zero bytes at nonce 2^64 - 1, without the tag:
    // the same as the key stream there, from its second block on.
    let key = Key([0; 32]);
    assert_ne!(key.next(), key);
    assert_ne!(key.next().next(), key);
    assert_eq!(key.next(), Key([0; 32]).next());
    assert!(!format!("{key:?}").contains('0'), "keys are not printed");
}
