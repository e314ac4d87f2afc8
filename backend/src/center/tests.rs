//! Rules one by one; bans are in [`bans`], the queue in [`door`], sessions that go to another shard in [`moves`],
//! random histories in [`histories`].

mod bans;
mod door;
mod histories;
mod moves;

use protocol::control::{LiveSession, Rebuild, Release, Renew, Renewed, Revoke, Update};
use protocol::reason::CloseReason;

use super::*;

const LEASE_MS: u32 = 1_000;
const RESUME_MS: u32 = 3_000;
const UNIX_MS: u64 = 1_800_000_000_000;

/// A center with a journal in memory.
struct Rig {
    center: Center,
    now: Now,
    /// What a crash would leave.
    disk: Vec<Vec<u8>>,
    /// Batches become durable at once.
    syncs: bool,
    sent: Vec<(LinkId, to_shard::Message)>,
    closed: Vec<(LinkId, LinkFault)>,
}

fn at_ms(ms: u64) -> Now {
    Now {
        time: Time(0).after_ms(ms),
        unix_ms: UNIX_MS + ms,
    }
}

fn settings() -> CenterSettings {
    CenterSettings {
        instance: "center".to_owned(),
        boot: 1,
        lease_ms: LEASE_MS,
        sessions_max: 4,
        door: DoorSettings::OPEN,
    }
}

fn hello(gateway: &str, shard: u32, boot: u64) -> ShardHello {
    ShardHello {
        version: protocol::uplink::VERSION,
        gateway: gateway.to_owned(),
        shard,
        boot,
        resume_ms: RESUME_MS,
    }
}

fn to_backend(message: to_backend::Message) -> ToBackend {
    ToBackend {
        message: Some(message),
    }
}

const REVOKED: u32 = CloseReason::Revoked as u32;

fn live(session: u64, fence: u64, account: &str) -> LiveSession {
    LiveSession {
        session,
        fence,
        account: account.to_owned(),
        slot: 1,
        generation: 2,
        ..LiveSession::default()
    }
}

impl Rig {
    fn start(disk: Vec<Vec<u8>>, now: Now) -> Self {
        let recovered = Recovered::replay(&disk).expect("our own journal");
        let mut rig = Self {
            center: Center::new(now, settings(), recovered),
            now,
            disk,
            syncs: true,
            sent: Vec::new(),
            closed: Vec::new(),
        };
        rig.run();
        assert!(rig.center.is_ready());
        rig
    }

    fn new() -> Self {
        Self::start(Vec::new(), at_ms(0))
    }

    /// What is left after kill -9.
    fn crash(self) -> Self {
        Self::start(self.disk, self.now)
    }

    fn run(&mut self) {
        while self.syncs
            && let Some(batch) = self.center.poll_append()
        {
            self.write(&batch);
            self.center.handle_durable(self.now, batch.id, 1_000);
        }
        self.sent.extend(
            std::iter::from_fn(|| self.center.poll_send())
                .filter_map(|(link, message)| Some((link, message.message?))),
        );
        self.closed
            .extend(std::iter::from_fn(|| self.center.poll_close()));
    }

    fn write(&mut self, batch: &Batch) {
        if batch.rewrite {
            self.disk.clear();
        }
        self.disk.extend(batch.records.iter().cloned());
    }

    fn sent(&mut self) -> Vec<(LinkId, to_shard::Message)> {
        self.run();
        std::mem::take(&mut self.sent)
    }

    fn wait_until(&mut self, ms: u64) {
        while let Some(due) = self.center.poll_timeout()
            && due <= Time(0).after_ms(ms)
        {
            self.now = at_ms(due.ms());
            self.center.handle_timeout(self.now);
            self.run();
        }
        self.now = at_ms(ms);
    }

    fn link(&mut self, link: u64, gateway: &str, boot: u64, sessions: Vec<LiveSession>) -> LinkId {
        let link = LinkId(link);
        self.center
            .handle_link_up(self.now, link, &hello(gateway, 0, boot))
            .expect("a good hello");
        let rebuild = Rebuild {
            sessions,
            last: true,
        };
        self.say(link, to_backend::Message::Rebuild(rebuild))
            .expect("a good list");
        let sent = self.sent();
        assert!(
            sent.iter()
                .any(|(to, message)| *to == link && matches!(message, to_shard::Message::Hello(_)))
        );
        self.sent = sent
            .into_iter()
            .filter(|(_, message)| {
                use to_shard::Message::{Hello, Networks};
                !matches!(message, Hello(_) | Networks(_))
            })
            .collect();
        link
    }

    fn say(&mut self, link: LinkId, message: to_backend::Message) -> Result<(), LinkFault> {
        let result = self
            .center
            .handle_control(self.now, link, to_backend(message));
        self.run();
        result
    }

    fn claim(&mut self, link: LinkId, claim: u64, account: &str, token: &str) {
        let claim = Claim {
            claim,
            account: account.to_owned(),
            token_id: token.to_owned(),
            token_expires_unix_ms: self.now.unix_ms + 60_000,
            ..Claim::default()
        };
        self.say(link, to_backend::Message::Claim(claim))
            .expect("a good claim");
    }

    fn granted(&mut self) -> (u64, u64) {
        match self.sent().as_slice() {
            [(_, to_shard::Message::ClaimGranted(granted))] => (granted.session, granted.fence),
            other => panic!("not one grant but {other:?}"),
        }
    }

    fn refused(&mut self) -> ClaimRefusal {
        match self.sent().as_slice() {
            [(_, to_shard::Message::ClaimRefused(refused))] => refused.refusal(),
            other => panic!("not one refusal but {other:?}"),
        }
    }

    fn release(&mut self, link: LinkId, session: u64, fence: u64) {
        self.say(
            link,
            to_backend::Message::Release(Release {
                session,
                fence,
                kept: false,
            }),
        )
        .expect("a release");
    }
}

#[test]
fn a_claim_is_granted_once_an_account_and_once_a_token() {
    let mut rig = Rig::new();
    let link = rig.link(1, "a", 1, vec![]);
    rig.claim(link, 7, "ann", "t1");
    let (session, fence) = rig.granted();
    assert_ne!(session, 0);
    let seat = rig.center.seat_of("ann").expect("she is online");
    assert_eq!((seat.session.0, seat.fence.0), (session, fence));
    rig.claim(link, 8, "ann", "t2");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    rig.claim(link, 9, "bob", "t1");
    assert_eq!(rig.refused(), ClaimRefusal::TokenReused);
    rig.release(link, session, fence + 1);
    rig.claim(link, 10, "ann", "t3");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    rig.release(link, session, fence);
    // The first claim that names a token uses it up, also one that is refused.
    rig.claim(link, 11, "ann", "t2");
    assert_eq!(rig.refused(), ClaimRefusal::TokenReused);
    rig.claim(link, 12, "ann", "t4");
    let (session_2, fence_2) = rig.granted();
    assert!(session_2 > session && fence_2 > fence);
    assert_eq!(rig.center.counts().releases_ignored, 1);
}

#[test]
fn a_session_that_nobody_holds_gives_way_to_a_new_login() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    let b = rig.link(2, "b", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let (session, fence) = rig.granted();
    let update = |session, fence, parked| {
        to_backend::Message::Update(Update {
            session,
            fence,
            parked,
            ..Update::default()
        })
    };
    // Told of another claim, or by a shard that does not hold it: nothing.
    rig.say(a, update(session, fence + 1, true)).expect("good");
    rig.say(b, update(session, fence, true)).expect("good");
    rig.claim(b, 2, "ann", "t2");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    rig.say(a, update(session, fence, true)).expect("good");
    rig.say(a, update(session, fence, false)).expect("good");
    rig.claim(b, 3, "ann", "t3");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    rig.say(a, update(session, fence, true)).expect("good");
    rig.claim(b, 4, "ann", "t4");
    match rig.sent().as_slice() {
        [
            (to, to_shard::Message::Revoke(revoke)),
            (_, to_shard::Message::ClaimGranted(granted)),
        ] => {
            assert_eq!((*to, revoke.session, revoke.fence), (a, session, fence));
            assert_eq!(revoke.reason, u32::from(CloseReason::Replaced as u16));
            assert!(granted.session > session && granted.fence > fence);
        }
        other => panic!("{other:?}"),
    }
    // Where its shard cannot hear of it, it has to wait for the lease.
    let seat = rig.center.seat_of("ann").expect("she is online");
    let (session, fence) = (seat.session.0, seat.fence.0);
    rig.say(b, update(session, fence, true)).expect("good");
    rig.center.handle_link_down(b);
    rig.claim(a, 5, "ann", "t5");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
}

#[test]
fn nothing_is_granted_before_it_is_on_disk() {
    let mut rig = Rig::new();
    let link = rig.link(1, "a", 1, vec![]);
    rig.syncs = false;
    rig.claim(link, 1, "ann", "t1");
    let batch = rig.center.poll_append().expect("a batch");
    assert_eq!(batch.records.len(), 1);
    rig.claim(link, 2, "bob", "t2");
    assert!(rig.center.poll_append().is_none(), "one at a time");
    assert_eq!(rig.sent(), []);
    rig.claim(link, 3, "ann", "t3");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    rig.write(&batch);
    rig.center.handle_durable(rig.now, batch.id, 1_000);
    rig.granted();
    let batch = rig.center.poll_append().expect("the next batch");
    rig.center.handle_durable(rig.now, batch.id, 1_000);
    rig.granted();
}

#[test]
fn a_crash_forgets_no_token_and_repeats_no_number() {
    let mut rig = Rig::new();
    let link = rig.link(1, "a", 1, vec![]);
    rig.claim(link, 1, "ann", "t1");
    let (session, fence) = rig.granted();
    let mut rig = rig.crash();
    assert!(rig.center.counts().restarting);
    let link = rig.link(1, "a", 1, vec![live(session, fence, "ann")]);
    assert!(!rig.center.counts().restarting);
    rig.claim(link, 2, "bob", "t1");
    assert_eq!(rig.refused(), ClaimRefusal::TokenReused);
    rig.claim(link, 3, "ann", "t2");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    rig.claim(link, 4, "bob", "t3");
    let (session_2, fence_2) = rig.granted();
    assert_eq!(session_2, session + RESERVED_BLOCK);
    assert_eq!(fence_2, fence + RESERVED_BLOCK);
}

#[test]
fn a_crash_with_an_open_batch_repeats_no_number_either() {
    let mut rig = Rig::new();
    let link = rig.link(1, "a", 1, vec![]);
    rig.syncs = false;
    rig.claim(link, 1, "ann", "t1");
    assert!(rig.center.poll_append().is_some());
    let mut rig = rig.crash();
    let link = rig.link(1, "a", 1, vec![]);
    rig.claim(link, 1, "ann", "t1");
    let first = rig.granted();
    let mut rig = rig.crash();
    let link = rig.link(1, "a", 1, vec![]);
    rig.claim(link, 1, "bob", "t2");
    let second = rig.granted();
    assert!(second.0 > first.0 && second.1 > first.1);
}

#[test]
fn after_a_restart_claims_wait_for_the_lists_of_all_shards() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.link(2, "b", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let (session, fence) = rig.granted();
    let mut rig = rig.crash();
    let b = rig.link(2, "b", 1, vec![]);
    rig.claim(b, 1, "ann", "t2");
    rig.claim(b, 2, "bob", "t3");
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.center.counts().claims_waiting, 2);
    rig.link(1, "a", 1, vec![live(session, fence, "ann")]);
    match rig.sent().as_slice() {
        [
            (_, to_shard::Message::ClaimRefused(refused)),
            (_, to_shard::Message::ClaimGranted(granted)),
        ] => {
            assert_eq!((refused.claim, granted.claim), (1, 2));
            assert_eq!(refused.refusal(), ClaimRefusal::AlreadyOnline);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_a_restart_a_shard_that_stays_away_is_waited_for_one_lease() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    rig.granted();
    let mut rig = rig.crash();
    let b = rig.link(2, "b", 1, vec![]);
    rig.claim(b, 1, "ann", "t2");
    rig.wait_until(u64::from(LEASE_MS) + LEASE_MARGIN_MS - 1);
    rig.say(b, to_backend::Message::Renew(Renew { renewal: 1 }))
        .expect("a renewal");
    rig.sent.pop();
    assert_eq!(rig.sent(), []);
    rig.wait_until(u64::from(LEASE_MS) + LEASE_MARGIN_MS);
    rig.granted();
    // And the next start does not wait for it again.
    let recovered = Recovered::replay(&rig.disk).expect("our own journal");
    assert!(recovered.attached.iter().all(|key| &*key.gateway == "b"));
}

#[test]
fn a_shorter_lease_does_not_shorten_the_wait_for_those_who_were_told_a_longer_one() {
    let mut rig = Rig::new();
    rig.link(1, "a", 1, vec![]);
    let now = rig.now;
    let recovered = Recovered::replay(&rig.disk).expect("our own journal");
    let shorter = CenterSettings {
        lease_ms: 100,
        ..settings()
    };
    let center = Center::new(now, shorter, recovered);
    let wait = center.poll_timeout().expect("it waits");
    assert_eq!(
        wait,
        now.time.after_ms(u64::from(LEASE_MS) + LEASE_MARGIN_MS)
    );
}

#[test]
fn a_shard_keeps_its_sessions_for_its_lease() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    rig.granted();
    rig.wait_until(500);
    rig.say(a, to_backend::Message::Renew(Renew { renewal: 5 }))
        .expect("a renewal");
    let renewed = to_shard::Message::Renewed(Renewed { renewal: 5 });
    assert_eq!(rig.sent(), [(a, renewed)]);
    rig.center.handle_link_down(a);
    // A new process under the same name does not prove that the old one is gone.
    let a2 = rig.link(2, "a", 2, vec![]);
    rig.claim(a2, 1, "ann", "t2");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    let end = 500 + u64::from(LEASE_MS) + LEASE_MARGIN_MS;
    rig.wait_until(end - 600);
    rig.say(a2, to_backend::Message::Renew(Renew { renewal: 1 }))
        .expect("a renewal");
    rig.sent();
    rig.wait_until(end - 1);
    rig.claim(a2, 2, "ann", "t3");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    rig.wait_until(end);
    rig.claim(a2, 3, "ann", "t4");
    rig.granted();
    assert_eq!(rig.center.counts().sessions_lost, 1);
}

#[test]
fn a_shard_that_does_not_renew_is_cut_off() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    rig.granted();
    rig.wait_until(u64::from(LEASE_MS) + LEASE_MARGIN_MS);
    assert_eq!(rig.closed, [(a, LinkFault::Lease)]);
    assert_eq!(rig.center.counts().sessions, 0);
    assert_eq!(rig.center.poll_timeout(), None);
    rig.claim(a, 2, "bob", "t2");
    assert_eq!(rig.sent(), [], "it is not known any more");
}

#[test]
fn a_shard_that_released_everything_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let (session, fence) = rig.granted();
    rig.release(a, session, fence);
    rig.center.handle_link_down(a);
    rig.run();
    assert_eq!(rig.center.counts().shards, 0);
    assert!(!rig.crash().center.counts().restarting);
}

#[test]
fn a_grant_that_was_lost_with_its_link_is_taken_back() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    rig.granted();
    // The shard comes back before the old link is noticed to be gone, and does not know ann.
    let a = rig.link(2, "a", 1, vec![]);
    assert_eq!(rig.closed, [(LinkId(1), LinkFault::Replaced)]);
    rig.claim(a, 1, "ann", "t2");
    rig.granted();
    assert_eq!(rig.center.counts().vanished, 1);
    rig.center.handle_link_down(LinkId(1));
    assert!(rig.center.seat_of("ann").is_some());
}

#[test]
fn a_claim_that_got_no_answer_may_be_asked_again() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 5, "ann", "t1");
    let lost = rig.granted();
    let mut rig = rig.crash();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 6, "ann", "t1");
    assert_eq!(rig.refused(), ClaimRefusal::TokenReused, "another claim");
    // The calendar of the rig stands still, so this is word for word the same claim.
    rig.claim(a, 5, "ann", "t1");
    let again = rig.granted();
    assert!(again.0 > lost.0 && again.1 > lost.1);
    rig.claim(a, 5, "ann", "t1");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
}

#[test]
fn a_claim_whose_link_is_gone_when_it_is_durable_is_not_granted() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.syncs = false;
    rig.claim(a, 1, "ann", "t1");
    let batch = rig.center.poll_append().expect("a batch");
    rig.center.handle_link_down(a);
    rig.center.handle_durable(rig.now, batch.id, 1_000);
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.center.counts().sessions, 0);
    assert_eq!(rig.center.counts().shards, 0);
}

#[test]
fn a_list_cannot_take_what_was_never_granted_or_belongs_to_another() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let (session, fence) = rig.granted();
    let lists = [
        live(session + 1, fence, "bob"),
        live(session, fence + 1, "bob"),
        live(session, fence, "bob"),
        live(session, fence, "ann"),
    ];
    for (number, entry) in lists.into_iter().enumerate() {
        let link = rig.link(10 + number as u64, "b", 1, vec![entry.clone()]);
        let revoke = to_shard::Message::Revoke(Revoke {
            session: entry.session,
            fence: entry.fence,
            reason: REVOKED,
            text: String::new(),
        });
        assert_eq!(rig.sent(), [(link, revoke)]);
    }
    assert_eq!(
        rig.center.seat_of("ann").map(|seat| seat.session.0),
        Some(session)
    );
}

#[test]
fn of_two_sessions_of_an_account_the_higher_fence_stays() {
    let mut rig = Rig::new();
    rig.link(1, "a", 1, vec![]);
    rig.link(2, "b", 1, vec![]);
    // Numbers below the reserved ones, as an earlier process may have granted them.
    rig.center.session_next = 100;
    rig.center.fence_next = 100;
    let a = rig.link(3, "a", 1, vec![live(1, 5, "ann"), live(2, 8, "bob")]);
    let b = rig.link(4, "b", 1, vec![live(3, 7, "ann"), live(4, 6, "bob")]);
    let revoke = |session, fence| {
        to_shard::Message::Revoke(Revoke {
            session,
            fence,
            reason: REVOKED,
            text: String::new(),
        })
    };
    assert_eq!(rig.sent(), [(a, revoke(1, 5)), (b, revoke(4, 6))]);
    assert_eq!(rig.center.seat_of("ann").map(|seat| seat.fence.0), Some(7));
    assert_eq!(rig.center.seat_of("bob").map(|seat| seat.fence.0), Some(8));
}

#[test]
fn a_failed_journal_refuses_until_it_is_rewritten() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.syncs = false;
    rig.claim(a, 1, "ann", "t1");
    assert!(rig.center.poll_append().is_some());
    rig.claim(a, 2, "bob", "t2");
    rig.center.handle_journal_failed(rig.now);
    let sent = rig.sent();
    assert_eq!(
        sent.len(),
        2,
        "the one in flight and the one collected: {sent:?}"
    );
    for (_, message) in sent {
        match message {
            to_shard::Message::ClaimRefused(refused) => {
                assert_eq!(refused.refusal(), ClaimRefusal::Degraded);
                assert_eq!(u64::from(refused.retry_after_ms), DEGRADED_RETRY_MS);
            }
            other => panic!("{other:?}"),
        }
    }
    rig.claim(a, 3, "cid", "t3");
    assert_eq!(rig.refused(), ClaimRefusal::Degraded);
    assert!(rig.center.poll_append().is_none());
    for number in 1..100 {
        rig.now = at_ms(number * 50);
        rig.say(a, to_backend::Message::Renew(Renew { renewal: number }))
            .expect("a renewal");
    }
    rig.sent();
    rig.wait_until(DEGRADED_RETRY_MS);
    let batch = rig.center.poll_append().expect("it tries again");
    assert!(batch.rewrite);
    rig.center.handle_journal_failed(rig.now);
    assert!(rig.center.counts().degraded);
    rig.say(a, to_backend::Message::Renew(Renew { renewal: 1 }))
        .expect("a renewal");
    rig.sent();
    rig.syncs = true;
    rig.wait_until(DEGRADED_RETRY_MS + 1_900);
    rig.say(a, to_backend::Message::Renew(Renew { renewal: 1 }))
        .expect("a renewal");
    rig.wait_until(DEGRADED_RETRY_MS + 3_700);
    rig.say(a, to_backend::Message::Renew(Renew { renewal: 1 }))
        .expect("a renewal");
    rig.wait_until(2 * DEGRADED_RETRY_MS);
    rig.sent();
    assert!(!rig.center.counts().degraded);
    // A refused claim has not used its token up.
    rig.claim(a, 4, "ann", "t1");
    rig.granted();
}

#[test]
fn a_long_journal_is_rewritten() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    rig.syncs = false;
    rig.claim(a, 1, "ann", "t1");
    let batch = rig.center.poll_append().expect("a batch");
    assert!(!batch.rewrite);
    rig.center
        .handle_durable(rig.now, batch.id, JOURNAL_REWRITE_BYTES + 1);
    let batch = rig.center.poll_append().expect("a rewrite");
    assert!(batch.rewrite);
    let recovered = Recovered::replay(&batch.records).expect("our own records");
    assert!(recovered.tokens.contains_key("t1"));
    assert_eq!(recovered.attached.len(), 1);
    assert!(recovered.sessions_below > RESERVED_BLOCK);
    rig.center
        .handle_durable(rig.now, batch.id, JOURNAL_REWRITE_BYTES + 2);
    assert!(rig.center.poll_append().is_none());
}

#[test]
fn the_table_and_the_queue_have_an_end() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    for number in 0..4 {
        rig.claim(a, number, &format!("p{number}"), &format!("t{number}"));
        rig.granted();
    }
    rig.claim(a, 9, "p9", "t9");
    assert_eq!(rig.refused(), ClaimRefusal::Full);
    let mut rig = rig.crash();
    let b = rig.link(2, "b", 1, vec![]);
    for number in 0..CLAIMS_WAITING_PER_LINK_MAX as u64 {
        rig.claim(b, number, "q", "t");
    }
    assert_eq!(rig.sent(), []);
    rig.claim(b, 9, "q", "t");
    assert_eq!(rig.refused(), ClaimRefusal::Full);
    rig.center.handle_link_down(b);
    assert_eq!(rig.center.counts().claims_waiting, 0);
}

#[test]
fn more_claims_than_a_batch_holds_take_several() {
    let mut rig = Rig::new();
    rig.center.users = Users::new(100_000);
    let a = rig.link(1, "a", 1, vec![]);
    let b = rig.link(2, "b", 1, vec![]);
    rig.syncs = false;
    let count = CLAIMS_PER_BATCH_MAX as u64 + 1_000;
    for number in 0..count {
        let name = number.to_string();
        rig.claim(if number % 2 == 0 { a } else { b }, number, &name, &name);
    }
    assert_eq!(rig.center.counts().claims_waiting, 1_000);
    rig.syncs = true;
    let sent = rig.sent();
    assert_eq!(sent.len() as u64, count);
    assert!(
        sent.iter()
            .all(|(_, message)| matches!(message, to_shard::Message::ClaimGranted(_)))
    );
}

#[test]
fn what_a_peer_may_not_say_closes_its_link() {
    let mut rig = Rig::new();
    let a = rig.link(1, "a", 1, vec![]);
    let fault = |rig: &mut Rig, message| rig.say(a, message).expect_err("a fault");
    let hello_again = to_backend::Message::Hello(hello("a", 0, 1));
    assert_eq!(fault(&mut rig, hello_again), LinkFault::Hello);
    let list_again = to_backend::Message::Rebuild(Rebuild {
        sessions: vec![],
        last: true,
    });
    assert_eq!(fault(&mut rig, list_again), LinkFault::Rebuild);
    for (account, token) in [("", "t"), ("a", "")] {
        let claim = to_backend::Message::Claim(Claim {
            account: account.to_owned(),
            token_id: token.to_owned(),
            ..Claim::default()
        });
        assert_eq!(fault(&mut rig, claim), LinkFault::Claim);
    }
    let link = LinkId(2);
    let mut bad = hello("b", 0, 1);
    bad.version += 1;
    let up = rig.center.handle_link_up(rig.now, link, &bad);
    assert_eq!(up, Err(LinkFault::Version));
    let up = rig.center.handle_link_up(rig.now, link, &hello("", 0, 1));
    assert_eq!(up, Err(LinkFault::Name));
    let up = rig.center.handle_link_up(rig.now, link, &hello("b", 0, 1));
    assert_eq!(up, Ok(()));
    let claim = to_backend::Message::Claim(Claim {
        account: "ann".to_owned(),
        token_id: "t".to_owned(),
        ..Claim::default()
    });
    assert_eq!(rig.say(link, claim), Err(LinkFault::ClaimEarly));
    let twice = to_backend::Message::Rebuild(Rebuild {
        sessions: vec![live(0, 1, "ann")],
        last: true,
    });
    assert_eq!(rig.say(link, twice), Err(LinkFault::Rebuild));
    assert_eq!(rig.center.counts().shards, 2);
}

#[test]
fn an_abandoned_claim_does_not_take_the_place_of_the_next() {
    let mut rig = Rig::new();
    rig.link(1, "a", 1, vec![]);
    rig.link(2, "b", 1, vec![]);
    let mut rig = rig.crash();
    let b = rig.link(2, "b", 1, vec![]);
    rig.claim(b, 1, "ann", "t1");
    // Its client gave up while shard a was waited for, and came again.
    let abandon = protocol::control::Abandon {
        claim: 1,
        given_up: false,
    };
    rig.say(b, to_backend::Message::Abandon(abandon))
        .expect("a claim of its own");
    rig.claim(b, 2, "ann", "t2");
    rig.link(1, "a", 1, vec![]);
    rig.granted();
    assert_eq!(rig.center.counts().claims_abandoned, 1);
}
