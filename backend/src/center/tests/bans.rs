//! Bans: who is refused, whose session ends, what a restart remembers.

use protocol::control::Networks;
use protocol::limits::{BAN_TEXT_BYTES_MAX, BANS_MAX};
use protocol::network::Network;

use super::*;

const BANNED: u32 = CloseReason::Banned as u32;

fn account(name: &str) -> BanKey {
    BanKey::Account(name.into())
}

fn for_ever(text: &str) -> Ban {
    Ban {
        until_unix_ms: 0,
        text: text.into(),
    }
}

fn net() -> Network {
    Network::new(u128::from_be_bytes([7; 16]), 32).expect("a length")
}

impl Rig {
    fn ban(&mut self, key: BanKey, ban: Ban) {
        let batch = self.center.handle_ban(self.now, key, ban).expect("taken");
        self.run();
        assert!(self.center.batch_next > batch, "it is on disk");
    }

    fn claim_on(&mut self, link: LinkId, claim: u64, name: &str, device: &str) {
        let claim = Claim {
            claim,
            account: name.to_owned(),
            token_id: format!("token-{claim}"),
            token_expires_unix_ms: self.now.unix_ms + 60_000,
            device: device.to_owned(),
            ..Claim::default()
        };
        self.say(link, to_backend::Message::Claim(claim))
            .expect("a good claim");
    }

    /// The text of the one refusal, which is for a ban.
    fn told(&mut self) -> String {
        match self.sent().as_slice() {
            [(_, to_shard::Message::ClaimRefused(refused))] => {
                assert_eq!(refused.refusal(), ClaimRefusal::Banned);
                refused.text.clone()
            }
            other => panic!("not one refusal but {other:?}"),
        }
    }
}

fn revoked(link: LinkId, (session, fence): (u64, u64), text: &str) -> (LinkId, to_shard::Message) {
    let revoke = Revoke {
        session,
        fence,
        reason: BANNED,
        text: text.to_owned(),
    };
    (link, to_shard::Message::Revoke(revoke))
}

#[test]
fn a_banned_account_is_thrown_out_and_kept_out() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let held = rig.granted();
    rig.ban(account("ann"), for_ever("you cheated"));
    assert_eq!(rig.sent(), [revoked(a, held, "you cheated")]);
    assert_eq!(rig.center.counts().sessions, 0);
    rig.claim(a, 2, "ann", "t2");
    assert_eq!(rig.told(), "you cheated");
    let rig = rig.crash();
    let mut rig = rig.crash();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 3, "ann", "t3");
    assert_eq!(rig.told(), "you cheated", "two restarts later");
    assert!(rig.center.handle_unban(&account("ann")).is_some());
    assert_eq!(rig.center.handle_unban(&account("ann")), None);
    // The refused claim has not used its token up.
    rig.claim(a, 4, "ann", "t3");
    rig.granted();
    let mut rig = rig.crash();
    assert_eq!(rig.center.bans(rig.now).count(), 0);
    let counts = rig.center.counts();
    assert_eq!((counts.bans, rig.sent()), (0, vec![]));
}

#[test]
fn a_device_takes_all_its_accounts_along() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    let mut held = Vec::new();
    for (claim, name, device) in [(1, "ann", "x"), (2, "bob", "y"), (3, "cid", "x")] {
        rig.claim_on(a, claim, name, device);
        held.push(rig.granted());
    }
    rig.ban(BanKey::Device("x".into()), for_ever(""));
    assert_eq!(
        rig.sent(),
        [revoked(a, held[0], ""), revoked(a, held[2], "")]
    );
    rig.claim_on(a, 4, "dora", "x");
    assert_eq!(rig.told(), "");
    assert_eq!(rig.center.counts().sessions, 1);
}

#[test]
fn a_ban_ends_by_itself() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    let until_unix_ms = rig.now.unix_ms + 500;
    let text = "for a while".into();
    rig.ban(
        account("ann"),
        Ban {
            until_unix_ms,
            text,
        },
    );
    rig.wait_until(499);
    rig.claim(a, 1, "ann", "t1");
    rig.told();
    rig.wait_until(500);
    rig.claim(a, 2, "ann", "t2");
    rig.granted();
    assert_eq!(rig.center.bans(rig.now).count(), 0);
}

#[test]
fn a_claim_on_its_way_to_the_disk_is_caught_there() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.syncs = false;
    rig.claim(a, 1, "ann", "t1");
    let batch = rig.center.poll_append().expect("the claim's");
    rig.center
        .handle_ban(rig.now, account("ann"), for_ever("late"))
        .expect("taken");
    rig.center.handle_durable(rig.now, batch.id, 1_000);
    assert_eq!(rig.told(), "late");
    assert_eq!(rig.center.counts().sessions, 0);
}

#[test]
fn nobody_waits_for_a_banned_player_to_come_back() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    let session = LiveSession {
        ticket: vec![7; 32],
        device: "x".to_owned(),
        ..live(1, 1, "ann")
    };
    rig.center.session_next = 100;
    rig.center.fence_next = 100;
    let a2 = rig.link(2, "b", 1, vec![session.clone()]);
    // Its shard is lost: it is an orphan, and a ban ends it.
    let release = Release {
        session: 1,
        fence: 1,
        kept: true,
    };
    rig.say(a2, to_backend::Message::Release(release))
        .expect("a release");
    assert_eq!(rig.center.counts().orphans, 1);
    rig.ban(BanKey::Device("x".into()), for_ever(""));
    assert_eq!(rig.center.counts().orphans, 0);
    // A shard without a link holds its session until it lists it.
    rig.ban(account("bob"), for_ever("bye"));
    rig.center.handle_link_down(a);
    let bob = live(2, 2, "bob");
    let link = rig.link(3, "a", 1, vec![bob]);
    assert_eq!(rig.sent(), [revoked(link, (2, 2), "bye")]);
    let counts = rig.center.counts();
    assert_eq!((counts.sessions, counts.orphans, counts.banned), (0, 0, 2));
}

#[test]
fn networks_are_told_to_shards_old_and_new() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.ban(BanKey::Network(net()), for_ever(""));
    let told = |rig: &mut Rig| match rig.sent().as_slice() {
        [(link, to_shard::Message::Networks(networks))] => (*link, networks.clone()),
        other => panic!("{other:?}"),
    };
    let (link, networks) = told(&mut rig);
    assert_eq!(
        (link, networks.first, networks.networks.len()),
        (a, false, 1)
    );
    assert!(!networks.networks[0].lifted);
    rig.center
        .handle_link_up(rig.now, LinkId(2), &hello("b", 0, 1))
        .expect("a good hello");
    let all: Vec<Networks> = rig
        .sent()
        .into_iter()
        .filter_map(|(_, message)| match message {
            to_shard::Message::Networks(networks) => Some(networks),
            _ => None,
        })
        .collect();
    assert_eq!(all.len(), 1);
    assert!(all[0].first);
    assert_eq!(all[0].networks, networks.networks);
    rig.center.handle_link_down(LinkId(2));
    rig.center
        .handle_unban(&BanKey::Network(net()))
        .expect("known");
    assert!(told(&mut rig).1.networks[0].lifted);
}

#[test]
fn the_list_has_an_end_and_makes_room_for_itself() {
    let mut rig = Rig::new();
    let now = rig.now;
    let text = "x".repeat(BAN_TEXT_BYTES_MAX + 1);
    for (key, ban) in [
        (account(""), for_ever("")),
        (account("ann"), for_ever(&text)),
    ] {
        assert_eq!(rig.center.handle_ban(now, key, ban), Err(BanError::Bounds));
    }
    for number in 0..BANS_MAX as u64 {
        let ban = Ban {
            until_unix_ms: if number == 3 { now.unix_ms + 1 } else { 0 },
            text: "".into(),
        };
        let taken = rig
            .center
            .handle_ban(now, account(&number.to_string()), ban);
        assert!(taken.is_ok());
    }
    let more = rig
        .center
        .handle_ban(now, account("one more"), for_ever(""));
    assert_eq!(more, Err(BanError::Full));
    rig.now = at_ms(1);
    rig.ban(account("one more"), for_ever(""));
    assert_eq!(rig.center.counts().bans, BANS_MAX as u64);
    let rig = rig.crash();
    assert_eq!(rig.center.bans(rig.now).count(), BANS_MAX);
}
