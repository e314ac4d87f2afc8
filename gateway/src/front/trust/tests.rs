use super::*;

fn trust(networks: &[&str]) -> Trust {
    Trust::new(networks.iter().map(|text| text.parse().unwrap()).collect())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn only_members_are_trusted() {
    let trust = trust(&["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]);
    for inside in ["10.0.0.0", "10.255.255.255", "2001:db8::1", "192.0.2.7"] {
        assert!(trust.includes(ip(inside)), "{inside}");
    }
    for outside in ["9.255.255.255", "11.0.0.0", "2001:db9::", "192.0.2.6", "::"] {
        assert!(!trust.includes(ip(outside)), "{outside}");
    }
}

#[test]
fn a_mapped_address_is_the_address_itself() {
    assert!(trust(&["10.0.0.0/8"]).includes(ip("::ffff:10.1.2.3")));
    assert!(!trust(&["10.0.0.0/8"]).includes(ip("::ffff:11.1.2.3")));
}

#[test]
fn an_empty_list_trusts_nobody() {
    assert!(!Trust::default().includes(ip("127.0.0.1")));
}
