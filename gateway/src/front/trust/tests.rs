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

#[test]
fn the_client_is_the_last_one_that_is_no_proxy() {
    let trust = trust(&["10.0.0.0/8", "192.0.2.0/24"]);
    let client = |peer: &str, forwarded: &str, real: Option<&str>| {
        let forwarded: Vec<&str> = forwarded.split(',').filter(|e| !e.is_empty()).collect();
        let found = trust.client_behind(ip(peer), &forwarded, real);
        found.map(|address| address.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    // Whatever a stranger says.
    assert_eq!(client("8.8.8.8", "1.2.3.4", Some("1.2.3.4")), None);
    assert_eq!(client("10.0.0.1", "1.2.3.4", None), some("1.2.3.4:0"));
    assert_eq!(
        client("10.0.0.1", "6.6.6.6, 1.2.3.4, 192.0.2.8", None),
        some("1.2.3.4:0")
    );
    assert_eq!(
        client("10.0.0.1", "1.2.3.4:5678,10.9.9.9", None),
        some("1.2.3.4:5678")
    );
    assert_eq!(
        client("10.0.0.1", "[2001:db8::1]:99", None),
        some("[2001:db8::1]:99")
    );
    assert_eq!(
        client("10.0.0.1", "[2001:db8::1]", None),
        some("[2001:db8::1]:0")
    );
    assert_eq!(
        client("10.0.0.1", "2001:db8::1", None),
        some("[2001:db8::1]:0")
    );
    assert_eq!(
        client("10.0.0.1", "::ffff:1.2.3.4", None),
        some("1.2.3.4:0")
    );
    // All of them are proxies: the first.
    assert_eq!(
        client("10.0.0.1", "10.0.0.7,10.0.0.8", None),
        some("10.0.0.7:0")
    );
    // What cannot be read ends the chain.
    assert_eq!(
        client("10.0.0.1", "1.2.3.4,unknown,10.0.0.8", None),
        some("10.0.0.8:0")
    );
    assert_eq!(client("10.0.0.1", "unknown", Some("1.2.3.4")), None);
    assert_eq!(client("10.0.0.1", "", Some("1.2.3.4")), some("1.2.3.4:0"));
    assert_eq!(client("10.0.0.1", "", Some("nobody")), None);
    assert_eq!(client("10.0.0.1", "", None), None);
}
