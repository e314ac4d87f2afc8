use super::*;

#[test]
fn the_bits_below_the_prefix_do_not_count() {
    let address = 0x2001_0db8_0000_0000_0000_0000_0000_1234;
    let network = Network::new(address, 64).expect("a length");
    assert_eq!(network.address(), 0x2001_0db8_0000_0000_0000_0000_0000_0000);
    assert_eq!(Some(network), Network::new(address + 1, 64));
    assert_ne!(Some(network), Network::new(address, 65));
    let all = Network::new(address, 0).expect("a length");
    assert_eq!((all.address(), all.prefix()), (0, 0));
    let one = Network::new(address, 128).expect("a length");
    assert_eq!(one.address(), address);
}

#[test]
fn what_is_no_network_is_none() {
    assert_eq!(Network::new(0, 129), None);
    assert_eq!(Network::from_wire(&[0; 15], 8), None);
    assert_eq!(Network::from_wire(&[0; 16], 300), None);
    assert!(Network::from_wire(&[0; 16], 8).is_some());
}
