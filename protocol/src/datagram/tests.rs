//! Connection ids.

use super::{Cid, SETUP, split};

#[test]
fn the_first_byte_on_the_wire_is_the_shard() {
    let cid = Cid::new(5, u64::MAX);
    assert_eq!((cid.shard(), cid.0.to_le_bytes()[0]), (5, 5));
    let mut datagram = cid.0.to_le_bytes().to_vec();
    datagram.push(9);
    let (read, frame) = split(&mut datagram).expect("long enough");
    assert_eq!((read, &*frame), (cid, &[9][..]));
    datagram[0] = SETUP;
    assert!(split(&mut datagram).is_none());
}
