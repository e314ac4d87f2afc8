//! An address must survive the way through the C structs.

use super::AddressPool;

#[test]
fn both_families_come_back_as_stored() {
    let mut pool = AddressPool::default();
    for text in [
        "127.0.0.1:80",
        "10.1.2.3:65535",
        "[::1]:1",
        "[2001:db8::7]:443",
    ] {
        let index = pool.lend();
        let to = text.parse().unwrap();
        pool.store(index, to);
        assert_eq!(pool.load(index), Some(to));
        pool.give_back(index);
    }
    assert_eq!(pool.all.len(), 1, "one at a time needs one");
}

#[test]
fn a_lent_address_is_blank() {
    let mut pool = AddressPool::default();
    let index = pool.lend();
    pool.store(index, "127.0.0.1:80".parse().unwrap());
    pool.give_back(index);
    let again = pool.lend();
    assert_eq!(again, index);
    assert_eq!(pool.load(again), None);
}
