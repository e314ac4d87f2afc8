//! What passes, waits and is refused, in virtual time; and who can push whom out.

use super::*;

const START: Time = Time(1_000_000);

fn network(text: &str) -> Network {
    Network::of(text.parse().expect("an address"))
}

fn usage() -> Usage {
    Usage::new(PLACES, [5, 6])
}

/// Ten a second, five at once.
const TEN: Every = Every {
    us: 100_000,
    burst: 5,
};

fn verdicts(limits: &Limits, times: usize) -> Vec<Verdict> {
    let usage = usage();
    let home = network("192.0.2.1");
    let judge = |_| {
        usage
            .handshake(START, home, limits, limits.handshakes_penalty)
            .verdict
    };
    (0..times).map(judge).collect()
}

#[test]
fn a_network_is_what_one_customer_is_given() {
    assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
    assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.9"));
    assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
    assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
    assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    assert_ne!(network("::1"), network("0.0.0.0"));
}

#[test]
fn each_penalty_does_what_it_says() {
    let limited = Limited::NetworkHandshakes;
    for (penalty, expected) in [
        (Penalty::Drop, Verdict::Refuse(limited, Penalty::Drop)),
        (
            Penalty::Disconnect,
            Verdict::Refuse(limited, Penalty::Disconnect),
        ),
    ] {
        let limits = Limits {
            handshakes: TEN,
            handshakes_penalty: penalty,
            ..Limits::default()
        };
        let verdicts = verdicts(&limits, 7);
        assert_eq!(verdicts[..5], [Verdict::Pass; 5]);
        assert_eq!(verdicts[5..], [expected; 2]);
    }
    // Each waits for one turn more, up to a burst of them; then it is over.
    let limits = Limits {
        handshakes: TEN,
        ..Limits::default()
    };
    let verdicts = verdicts(&limits, 12);
    for (at, verdict) in verdicts[5..10].iter().enumerate() {
        assert_eq!(
            *verdict,
            Verdict::Wait(limited, (at as u64 + 1) * 100_000),
            "{at}"
        );
    }
    assert_eq!(
        verdicts[10..],
        [Verdict::Refuse(limited, Penalty::Disconnect); 2]
    );
}

#[test]
fn what_is_refused_costs_nothing_and_time_gives_back() {
    let usage = usage();
    let limits = Limits {
        handshakes: TEN,
        handshakes_penalty: Penalty::Drop,
        ..Limits::default()
    };
    let (home, mut passed) = (network("192.0.2.1"), 0);
    // A thousand a second for ten seconds: the burst, and ten a second.
    for ms in 0..10_000 {
        let judged = usage.handshake(START.after_ms(ms), home, &limits, limits.handshakes_penalty);
        passed += usize::from(judged.verdict == Verdict::Pass);
    }
    assert_eq!(passed, 5 + 99);
    let other = usage.handshake(
        START,
        network("192.0.3.1"),
        &limits,
        limits.handshakes_penalty,
    );
    assert_eq!(other.verdict, Verdict::Pass);
}

#[test]
fn so_many_are_open_and_no_more() {
    let usage = usage();
    let limits = Limits {
        connections_max: 3,
        ..Limits::default()
    };
    let home = network("2001:db8::1");
    let open = || {
        usage
            .open(START, home, &limits, limits.connections_penalty)
            .verdict
    };
    assert_eq!([open(), open(), open()], [Verdict::Pass; 3]);
    // There is nothing to wait for.
    let refused = Verdict::Refuse(Limited::NetworkOpen, Penalty::Disconnect);
    assert_eq!([open(), open()], [refused; 2]);
    usage.close(home);
    assert_eq!([open(), open()], [Verdict::Pass, refused]);
}

#[test]
fn a_limit_that_is_off_limits_nobody() {
    let usage = usage();
    let limits = Limits::default();
    for _ in 0..10_000 {
        let home = network("192.0.2.1");
        assert_eq!(
            usage
                .open(START, home, &limits, limits.connections_penalty)
                .verdict,
            Verdict::Pass
        );
        assert_eq!(
            usage
                .handshake(START, home, &limits, limits.handshakes_penalty)
                .verdict,
            Verdict::Pass
        );
        assert_eq!(usage.login(START, "a", &limits).verdict, Verdict::Pass);
    }
}

#[test]
fn a_flood_of_networks_does_not_make_a_limited_one_forgotten() {
    let usage = usage();
    let limits = Limits {
        connections_max: 100,
        connections: Every {
            us: 1_000_000,
            burst: 20,
        },
        connections_penalty: Penalty::Drop,
        ..Limits::default()
    };
    // It has used up all it may: 20 connections, which end at once.
    let bad = network("192.0.2.1");
    for _ in 0..20 {
        assert_eq!(
            usage
                .open(START, bad, &limits, limits.connections_penalty)
                .verdict,
            Verdict::Pass
        );
        usage.close(bad);
    }
    // Three million networks of an IPv6 provider, 46 for each place, with one each.
    let mut forgotten = 0;
    for at in 0..3_000_000_u64 {
        let stranger = Network::of(std::net::Ipv6Addr::from(u128::from(at) << 64).into());
        let judged = usage.open(
            START.after_ms(1),
            stranger,
            &limits,
            limits.connections_penalty,
        );
        forgotten += u64::from(judged.forgot);
        usage.close(stranger);
    }
    assert!(forgotten > 2_000_000, "the table was full: {forgotten}");
    let judged = usage
        .open(START.after_ms(2), bad, &limits, limits.connections_penalty)
        .verdict;
    let refused = Verdict::Refuse(Limited::NetworkConnections, Penalty::Drop);
    assert_eq!(judged, refused, "it is known still");
}

#[test]
fn who_was_shut_out_by_a_tighter_limit_goes_on_under_a_wider_one() {
    let usage = usage();
    let limits = |us, burst| Limits {
        logins: Every { us, burst },
        logins_penalty: Penalty::Disconnect,
        ..Limits::default()
    };
    let tight = limits(60_000_000, 2);
    for _ in 0..2 {
        assert_eq!(usage.login(START, "often", &tight).verdict, Verdict::Pass);
    }
    let refused = Verdict::Refuse(Limited::AccountLogins, Penalty::Disconnect);
    assert_eq!(usage.login(START, "often", &tight).verdict, refused);
    // Two minutes are more than anybody can owe of these; one may, and then the burst is used up.
    let wide = limits(1_000_000, 5);
    assert_eq!(usage.login(START, "often", &wide).verdict, Verdict::Pass);
    assert_eq!(usage.login(START, "often", &wide).verdict, refused);
    let later = START.after_ms(5_000);
    for _ in 0..5 {
        assert_eq!(usage.login(later, "often", &wide).verdict, Verdict::Pass);
    }
    assert_eq!(usage.login(later, "often", &wide).verdict, refused);
}

#[test]
fn what_an_account_has_used_up_waits_for_its_next_connection() {
    let usage = usage();
    assert_eq!(usage.kept("alice"), None);
    let (frames, bytes) = (START.after_ms(700), START.after_ms(300));
    usage.keep(START, "alice", (frames, bytes));
    // One that has used up less, and ends later, gives nothing back.
    usage.keep(START, "alice", (START.after_ms(10), START.after_ms(20)));
    assert_eq!(usage.kept("alice"), Some((frames, bytes)));
    assert_eq!(usage.kept("bob"), None);
    usage.keep(START, "bob", (START, START));
    assert_eq!(usage.kept("bob"), None, "who owes nothing takes no place");
}
