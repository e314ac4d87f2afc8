//! Round trips and mutations of the datagrams that set a connection up.

use proptest::prelude::*;

use super::{Setup, decode, encode};
use crate::datagram::Cid;
use crate::handshake::HELLO_FRAME_BYTES;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::testing::cases;

fn encoded(nonce: u64, setup: &Setup<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(nonce, setup, &mut out);
    out
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn what_is_encoded_is_decoded(
        nonce: u64, cookie: [u8; 20], cid: u64,
        hello in prop::collection::vec(any::<u8>(), HELLO_FRAME_BYTES),
        frame in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for setup in [
            Setup::Init { cookie: &cookie, hello: &hello },
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
        let hello = [9; HELLO_FRAME_BYTES];
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
