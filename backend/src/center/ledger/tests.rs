//! Entries survive the trip; damaged ones are told.

use super::*;

fn key(boot: u64) -> ShardKey {
    ShardKey {
        gateway: "edge-1".into(),
        shard: ShardId(3),
        boot,
    }
}

const USED: TokenUse = TokenUse {
    expires_unix_ms: 77,
    boot: 1,
    shard: ShardId(2),
    claim: 3,
};

fn ban() -> Ban {
    Ban {
        until_unix_ms: 5,
        text: "cheating".into(),
    }
}

fn network() -> BanKey {
    BanKey::Network(Network::new(u128::MAX, 64).expect("a length"))
}

fn entries() -> Vec<Entry<'static>> {
    vec![
        Entry::Reserved {
            sessions_below: 65_537,
            fences_below: 9,
        },
        Entry::Token {
            used: USED,
            id: "token",
        },
        Entry::Attached(key(1)),
        Entry::Attached(key(2)),
        Entry::Detached(key(1)),
        Entry::Ban {
            key: Cow::Owned(BanKey::Device("phone".into())),
            ban: Cow::Owned(ban()),
        },
        Entry::Ban {
            key: Cow::Owned(network()),
            ban: Cow::Owned(ban()),
        },
        Entry::Ban {
            key: Cow::Owned(BanKey::Account("mallory".into())),
            ban: Cow::Owned(ban()),
        },
        Entry::Unban {
            key: Cow::Owned(BanKey::Device("phone".into())),
        },
        Entry::Lease { ms: 15_000 },
    ]
}

#[test]
fn entries_are_replayed() {
    let records = pack(entries().into_iter());
    assert_eq!(records.len(), 1);
    let recovered = Recovered::replay(&records).expect("our own record");
    assert_eq!(recovered.sessions_below, 65_537);
    assert_eq!(recovered.fences_below, 9);
    assert_eq!(recovered.tokens.get("token"), Some(&USED));
    assert_eq!(recovered.attached.iter().collect::<Vec<_>>(), [&key(2)]);
    assert_eq!(recovered.lease_ms, 15_000);
    let bans = [
        (BanKey::Account("mallory".into()), ban()),
        (network(), ban()),
    ];
    assert_eq!(recovered.bans, BTreeMap::from(bans));
}

#[test]
fn reservations_never_go_back() {
    let reserved = |below| Entry::Reserved {
        sessions_below: below,
        fences_below: below,
    };
    let records = pack([reserved(10), reserved(5)].into_iter());
    let recovered = Recovered::replay(&records).expect("our own record");
    assert_eq!((recovered.sessions_below, recovered.fences_below), (10, 10));
}

#[test]
fn cut_and_unknown_entries_are_told() {
    let record = &pack(entries().into_iter())[0];
    let last_at = record.len() - 5;
    for cut in last_at + 1..record.len() {
        let error = Recovered::replay(&[record[..cut].to_vec()]).expect_err("it is cut");
        assert_eq!((error.record, error.at), (0, last_at));
    }
    let error = Recovered::replay(&[record.clone(), vec![99]]).expect_err("no such entry");
    assert_eq!((error.record, error.at), (1, 0));
}

#[test]
fn many_entries_take_several_records() {
    let many = (0..20_000).map(|_| Entry::Token {
        used: USED,
        id: "0123456789012345678901234567890123456789012345678901234567890123",
    });
    let records = pack(many);
    assert!(records.len() > 1);
    assert!(
        records
            .iter()
            .all(|record| record.len() <= RECORD_BYTES_MAX)
    );
    Recovered::replay(&records).expect("our own records");
}
