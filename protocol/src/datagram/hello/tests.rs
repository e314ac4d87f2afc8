//! Round trips and mutations of the datagrams that set a connection up.

use proptest::prelude::*;

use super::{Setup, decode, encode};
use crate::datagram::Cid;
use crate::handshake::{HELLO_FRAME_BYTES, RESUME_FRAME_BYTES};
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::testing::cases;

fn encoded(nonce: u64, setup: &Setup<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(nonce, setup, &mut out);
    out
}

/// A first frame of this length.
fn first_frame(length: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; length];
    frame[..3].copy_from_slice(&(length as u32).to_le_bytes()[..3]);
    frame
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn what_is_encoded_is_decoded(
        nonce: u64, cookie: [u8; 20], cid: u64, fill: u8,
        frame in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (hello, resume) = (
            first_frame(HELLO_FRAME_BYTES, fill),
            first_frame(RESUME_FRAME_BYTES, fill),
        );
        let other = first_frame(HELLO_FRAME_BYTES + 1, fill);
        let init = Setup::Init { cookie: &cookie, hello: &other };
        let bytes = encoded(nonce, &init);
        prop_assert_eq!(decode(&bytes), None);
        for setup in [
            Setup::Init { cookie: &cookie, hello: &hello },
            Setup::Init { cookie: &cookie, hello: &resume },
            Setup::Retry { cookie: &cookie },
            Setup::Accept { cid: Cid(cid), welcome: &frame },
            Setup::Refuse { reject: &frame },
        ] {
            let bytes = encoded(nonce, &setup);
            prop_assert_eq!(decode(&bytes), Some((nonce, setup)));
            if matches!(setup, Setup::Init { .. }) {
                prop_assert_eq!(bytes.len(), DATAGRAM_BYTES_MAX);
                prop_assert_eq!(decode(&bytes[..DATAGRAM_BYTES_MAX - 1]), None);
            } else {
                prop_assert!(bytes.len() < DATAGRAM_BYTES_MAX);
            }
        }
    }

    #[test]
    fn a_change_is_seen_or_changes_the_content(
        nonce: u64, cookie: [u8; 20], bit in 0usize..DATAGRAM_BYTES_MAX * 8,
    ) {
        let hello = first_frame(HELLO_FRAME_BYTES, 9);
        let setup = Setup::Init { cookie: &cookie, hello: &hello };
        let mut bytes = encoded(nonce, &setup);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(decode(&bytes), Some((nonce, setup)));
        // Head and padding are as they must be, or it is none.
        let padding = 32 + HELLO_FRAME_BYTES;
        if bit / 8 < 4 && bit / 8 != 1 || bit / 8 >= padding {
            prop_assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
        let _ = decode(&bytes);
    }
}
