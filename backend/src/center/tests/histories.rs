//! Random histories against a naive oracle: shards that keep to the rules, links that are cut
//! or stall, crashes of shards and of center (with or without the batch in flight on disk),
//! failing disks. One seed, one history.
//!
//! The oracle remembers every grant that ever reached a shard and checks: at any moment one
//! live session of an account, no session id, fence or token twice, a higher fence for each
//! later session of an account. Then everything heals, and every account must get in.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use protocol::control::Renew;

use super::*;

const SHARDS: usize = 4;
const ACCOUNTS: u64 = 6;
const STEP_MS: u64 = 50;
const STEPS: u64 = 500;

/// Splitmix64: enough for drawing a history.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.roll(count) == 0
    }
}

fn message_of(claim: u64, account: &str, token: &str) -> to_backend::Message {
    to_backend::Message::Claim(Claim {
        claim,
        account: account.to_owned(),
        token_id: token.to_owned(),
        token_expires_unix_ms: UNIX_MS + 60_000,
        ..Claim::default()
    })
}

/// One gateway shard, keeping to the rules of the lease.
#[derive(Default)]
struct Shard {
    boot: u64,
    link: Option<LinkId>,
    /// Nothing is delivered while it stalls.
    stalled: bool,
    up: VecDeque<to_backend::Message>,
    down: VecDeque<to_shard::Message>,
    /// Session → (fence, account).
    sessions: BTreeMap<u64, (u64, String)>,
    /// Open claims by number: account and token.
    claims: BTreeMap<u64, (String, String)>,
    claim_next: u64,
    /// When each renewal was asked for.
    renewals: HashMap<u64, u64>,
    renewal_next: u64,
    lease_until_ms: u64,
}

impl Shard {
    fn cut(&mut self) -> Option<LinkId> {
        self.up.clear();
        self.down.clear();
        self.renewals.clear();
        self.stalled = false;
        self.link.take()
    }

    fn renew(&mut self, now_ms: u64) {
        self.renewal_next += 1;
        self.renewals.insert(self.renewal_next, now_ms);
        let renewal = self.renewal_next;
        self.up
            .push_back(to_backend::Message::Renew(Renew { renewal }));
    }

    fn hear(&mut self, message: to_shard::Message, oracle: &mut Oracle) {
        match message {
            to_shard::Message::ClaimGranted(granted) => match self.claims.remove(&granted.claim) {
                Some((account, token)) => {
                    oracle.granted(&account, &token, granted.session, granted.fence);
                    self.sessions
                        .insert(granted.session, (granted.fence, account));
                }
                None => self.up.push_back(to_backend::Message::Release(Release {
                    session: granted.session,
                    fence: granted.fence,
                    kept: false,
                })),
            },
            to_shard::Message::ClaimRefused(refused) => {
                self.claims.remove(&refused.claim);
            }
            to_shard::Message::Renewed(renewed) => {
                if let Some(asked_ms) = self.renewals.remove(&renewed.renewal) {
                    self.lease_until_ms = self.lease_until_ms.max(asked_ms + u64::from(LEASE_MS));
                }
            }
            to_shard::Message::Revoke(revoke) => {
                self.sessions.retain(|session, (fence, _)| {
                    *session != revoke.session || *fence != revoke.fence
                });
            }
            to_shard::Message::Hello(_)
            | to_shard::Message::Networks(_)
            | to_shard::Message::Places(_)
            | to_shard::Message::Found(_)
            | to_shard::Message::Moved(_) => {}
        }
    }
}

#[derive(Default)]
struct Oracle {
    sessions: HashSet<u64>,
    fences: HashSet<u64>,
    tokens: HashSet<String>,
    fence_of: HashMap<String, u64>,
}

impl Oracle {
    fn granted(&mut self, account: &str, token: &str, session: u64, fence: u64) {
        assert!(self.sessions.insert(session), "session {session} twice");
        assert!(self.fences.insert(fence), "fence {fence} twice");
        assert!(self.tokens.insert(token.to_owned()), "token {token} twice");
        let before = self.fence_of.insert(account.to_owned(), fence);
        assert!(before < Some(fence), "{account}: {fence} after {before:?}");
    }

    fn one_session_an_account(&self, shards: &[Shard]) {
        let mut online = BTreeSet::new();
        for shard in shards {
            for (_, account) in shard.sessions.values() {
                assert!(online.insert(account), "{account} has two sessions");
            }
        }
    }
}

struct World {
    rig: Rig,
    dice: Dice,
    shards: Vec<Shard>,
    oracle: Oracle,
    links: u64,
    tokens: u64,
    in_flight: Option<Batch>,
    healed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rig: Rig::new(),
            dice: Dice(seed),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            oracle: Oracle::default(),
            links: 0,
            tokens: 0,
            in_flight: None,
            healed: false,
        }
    }

    fn now_ms(&self) -> u64 {
        self.rig.now.time.ms()
    }

    fn cut(&mut self, shard: usize) {
        if let Some(link) = self.shards[shard].cut() {
            self.rig.center.handle_link_down(link);
        }
    }

    fn connect(&mut self, index: usize) {
        let now_ms = self.now_ms();
        self.links += 1;
        let link = LinkId(self.links);
        let shard = &mut self.shards[index];
        shard.link = Some(link);
        // A shard that comes without sessions starts a lease with its hello.
        if shard.sessions.is_empty() {
            shard.lease_until_ms = now_ms + u64::from(LEASE_MS);
        }
        let gateway = ["a", "b"][index % 2];
        let mut hello = hello(gateway, index as u32 / 2, shard.boot);
        hello.shard = index as u32;
        self.rig
            .center
            .handle_link_up(self.rig.now, link, &hello)
            .expect("a good hello");
        let live: Vec<_> = shard
            .sessions
            .iter()
            .map(|(session, (fence, account))| live(*session, *fence, account))
            .collect();
        for chunk in live.chunks(2) {
            shard.up.push_back(to_backend::Message::Rebuild(Rebuild {
                sessions: chunk.to_vec(),
                last: false,
            }));
        }
        shard.up.push_back(to_backend::Message::Rebuild(Rebuild {
            sessions: vec![],
            last: true,
        }));
        shard.renew(now_ms);
        // What got no answer over the link before is asked again.
        let again: Vec<_> = shard
            .claims
            .iter()
            .map(|(claim, (account, token))| message_of(*claim, account, token))
            .collect();
        shard.up.extend(again);
    }

    fn claim(&mut self, index: usize) {
        let account = format!("p{}", self.dice.roll(ACCOUNTS));
        // Now and then somebody tries a token again.
        if self.tokens == 0 || !self.dice.one_in(6) {
            self.tokens += 1;
        }
        let token = format!("t{}", self.tokens);
        let shard = &mut self.shards[index];
        shard.claim_next += 1;
        let message = message_of(shard.claim_next, &account, &token);
        shard.up.push_back(message);
        shard.claims.insert(shard.claim_next, (account, token));
    }

    fn release(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        if let Some((session, (fence, _))) = shard.sessions.pop_first()
            && shard.link.is_some()
        {
            let kept = false;
            shard.up.push_back(to_backend::Message::Release(Release {
                session,
                fence,
                kept,
            }));
        }
    }

    fn crash_center(&mut self) {
        if let Some(batch) = self.in_flight.take()
            && self.dice.one_in(2)
        {
            self.rig.write(&batch);
        }
        for shard in &mut self.shards {
            shard.cut();
        }
        let disk = std::mem::take(&mut self.rig.disk);
        self.rig = Rig::start(disk, self.rig.now);
        self.rig.syncs = false;
    }

    fn journal(&mut self) {
        if self.in_flight.is_none() {
            self.in_flight = self.rig.center.poll_append();
        }
        if self.healed || self.dice.one_in(2) {
            let Some(batch) = self.in_flight.take() else {
                return;
            };
            if !self.healed && self.dice.one_in(20) {
                // A failed append may have reached the disk all the same.
                if !batch.rewrite && self.dice.one_in(2) {
                    self.rig.write(&batch);
                }
                self.rig.center.handle_journal_failed(self.rig.now);
            } else {
                self.rig.write(&batch);
                self.rig
                    .center
                    .handle_durable(self.rig.now, batch.id, 1_000);
            }
        }
    }

    fn deliver(&mut self) {
        for index in 0..SHARDS {
            for _ in 0..3 {
                let shard = &mut self.shards[index];
                if shard.stalled && !self.healed {
                    break;
                }
                if let Some(link) = shard.link
                    && let Some(message) = shard.up.pop_front()
                    && self.rig.say(link, message).is_err()
                {
                    panic!("an honest shard is at fault");
                }
            }
        }
        for (link, message) in self.rig.sent() {
            if let Some(shard) = self
                .shards
                .iter_mut()
                .find(|shard| shard.link == Some(link))
            {
                shard.down.push_back(message);
            }
        }
        for (link, _) in std::mem::take(&mut self.rig.closed) {
            if let Some(shard) = self
                .shards
                .iter_mut()
                .find(|shard| shard.link == Some(link))
            {
                shard.cut();
            }
        }
        for shard in &mut self.shards {
            for _ in 0..3 {
                if shard.stalled && !self.healed {
                    break;
                }
                if let Some(message) = shard.down.pop_front() {
                    shard.hear(message, &mut self.oracle);
                }
            }
        }
    }

    fn faults(&mut self) {
        let index = self.dice.roll(SHARDS as u64) as usize;
        match self.dice.roll(40) {
            0 => self.cut(index),
            1..=3 => self.shards[index].stalled = !self.shards[index].stalled,
            4 => {
                self.cut(index);
                let boot = self.shards[index].boot + 1;
                self.shards[index] = Shard {
                    boot,
                    ..Shard::default()
                };
            }
            5 if self.dice.one_in(3) => self.crash_center(),
            _ => {}
        }
    }

    fn step(&mut self) {
        let now_ms = self.now_ms() + STEP_MS;
        self.rig.now = at_ms(now_ms);
        // The lease ends before anything that arrives in this moment is looked at.
        for index in 0..SHARDS {
            if self.shards[index].lease_until_ms <= now_ms {
                self.shards[index].sessions.clear();
                self.shards[index].claims.clear();
                self.cut(index);
            }
        }
        if !self.healed {
            self.faults();
        }
        for index in 0..SHARDS {
            if self.shards[index].link.is_none() {
                if self.healed || self.dice.one_in(4) {
                    self.connect(index);
                }
                continue;
            }
            if now_ms.is_multiple_of(250) {
                self.shards[index].renew(now_ms);
            }
            if self.dice.one_in(4) {
                self.claim(index);
            }
            if self.dice.one_in(12) {
                self.release(index);
            }
        }
        if self
            .rig
            .center
            .poll_timeout()
            .is_some_and(|due| due <= self.rig.now.time)
        {
            self.rig.center.handle_timeout(self.rig.now);
        }
        self.deliver();
        self.journal();
        self.oracle.one_session_an_account(&self.shards);
    }

    /// No faults any more: everybody must get in, within the lease and the journal's pause.
    fn heal(&mut self) {
        self.healed = true;
        let before = self.oracle.fence_of.clone();
        let steps = (u64::from(LEASE_MS) + LEASE_MARGIN_MS + DEGRADED_RETRY_MS) / STEP_MS;
        for _ in 0..steps + 400 {
            self.step();
        }
        assert!(!self.rig.center.counts().degraded);
        assert!(!self.rig.center.counts().restarting);
        for account in (0..ACCOUNTS).map(|number| format!("p{number}")) {
            let after = self.oracle.fence_of.get(&account);
            assert!(after > before.get(&account), "{account} never got in");
        }
        assert_eq!(self.rig.center.counts().shards, SHARDS as u64);
    }
}

#[test]
fn random_histories_keep_the_rules() {
    let mut granted = 0;
    for seed in 0..300 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.rig.syncs = false;
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        granted += world.oracle.sessions.len();
    }
    // A history in which nobody gets in shows nothing.
    assert!(granted > 30_000, "{granted}");
}
