//! The queue and who gets in when: one in, one out, jumping, restarts, busy shards.

use protocol::control::{Abandon, Load, Placed, Places};

use super::*;

fn with_door(door: DoorSettings) -> Rig {
    let mut rig = Rig::new();
    rig.center.settings.door = door;
    rig.center.queue = Queue::new(door.places_max, door.forgiven_ms, 1);
    rig.center.returning = Returning::new(door.returning_ms);
    rig
}

fn capped(online_max: usize) -> DoorSettings {
    DoorSettings {
        online_max,
        busy_permille_max: 0,
        places_max: 100,
        forgiven_ms: 2_000,
        returning_ms: 60_000,
    }
}

impl Rig {
    /// The place that the one claim was told.
    fn placed(&mut self) -> Placed {
        match self.sent().as_slice() {
            [(_, to_shard::Message::Places(Places { placed, .. }))] if placed.len() == 1 => {
                placed[0]
            }
            other => panic!("not one place but {other:?}"),
        }
    }

    fn abandon(&mut self, link: LinkId, claim: u64, given_up: bool) {
        let abandon = Abandon { claim, given_up };
        self.say(link, to_backend::Message::Abandon(abandon))
            .expect("a claim of its own");
    }

    /// The claims that were granted, in order; sessions by claim.
    fn grants(&mut self) -> Vec<(u64, (u64, u64))> {
        let sent = self.sent();
        let granted = sent.into_iter().filter_map(|(_, message)| match message {
            to_shard::Message::ClaimGranted(it) => Some((it.claim, (it.session, it.fence))),
            _ => None,
        });
        granted.collect()
    }
}

#[test]
fn beyond_the_cap_players_wait_in_order() {
    let mut rig = with_door(capped(1));
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let ann = rig.granted();
    for (claim, name) in [(2, "bob"), (3, "cid"), (4, "dora")] {
        rig.claim(a, claim, name, &format!("t{claim}"));
        let placed = rig.placed();
        assert_eq!((placed.claim, placed.position), (claim, claim as u32 - 1));
        assert_eq!(placed.seconds, u32::MAX, "nobody was let in yet");
    }
    // A token is used up by the place.
    rig.claim(a, 9, "bob", "t2");
    assert_eq!(rig.refused(), ClaimRefusal::TokenReused);
    rig.abandon(a, 3, true);
    rig.release(a, ann.0, ann.1);
    let granted = rig.grants();
    assert_eq!(granted.iter().map(|it| it.0).collect::<Vec<_>>(), [2]);
    // Ann has just played: she goes before dora, who came first.
    rig.claim(a, 5, "ann", "t5");
    assert_eq!(rig.placed().position, 1);
    rig.wait_until(1_100);
    rig.say(a, to_backend::Message::Renew(Renew { renewal: 1 }))
        .expect("a renewal");
    let told = rig.sent();
    let moved = told.iter().any(|(_, message)| {
        matches!(message, to_shard::Message::Places(Places { placed, of: 2 })
            if placed.iter().any(|it| (it.claim, it.position) == (4, 2)))
    });
    assert!(moved, "{told:?}");
    let (session, fence) = granted[0].1;
    rig.release(a, session, fence);
    assert_eq!(rig.grants()[0].0, 5);
    let counts = rig.center.counts();
    assert_eq!((counts.queue, counts.queued, counts.admitted), (1, 4, 2));
}

#[test]
fn nobody_jumps_the_queue() {
    let mut rig = with_door(capped(1));
    let a = rig.link(1, "a", 1, vec![]);
    let b = rig.link(2, "b", 1, vec![]);
    rig.claim(a, 1, "first", "t1");
    let mut inside = rig.granted();
    for number in 0..20 {
        rig.claim(
            a,
            100 + number,
            &format!("honest-{number}"),
            &format!("h{number}"),
        );
    }
    rig.sent();
    rig.claim(b, 1, "mallory", "m0");
    assert_eq!(rig.placed().position, 21);
    let mut tries = 0;
    let mut admitted = Vec::new();
    for round in 1..=20_u64 {
        // She drops her connection and comes again, with a new token, with a used one, and
        // with the place of the one in front.
        rig.abandon(b, tries + 1, false);
        tries += 1;
        rig.claim(b, tries + 1, "mallory", &format!("m{round}"));
        let placed = rig.placed();
        assert_eq!(
            placed.position,
            22 - round as u32,
            "her own place, no better"
        );
        rig.claim(b, 1_000 + round, "mallory", "m0");
        assert_eq!(rig.refused(), ClaimRefusal::TokenReused);
        let first = rig.center.queue.first().expect("many wait").0;
        let copied = Claim {
            claim: 2_000 + round,
            account: format!("friend-{round}"),
            token_id: format!("f{round}"),
            token_expires_unix_ms: rig.now.unix_ms + 60_000,
            place: first.0,
            ..Claim::default()
        };
        rig.say(b, to_backend::Message::Claim(copied))
            .expect("a good claim");
        let friend = rig.placed();
        assert_eq!(
            u64::from(friend.position),
            23 - round,
            "the last place: a copy is worth nothing"
        );
        rig.abandon(b, 2_000 + round, true);
        rig.release(a, inside.0, inside.1);
        let granted = rig.grants();
        assert_eq!(granted.len(), 1);
        admitted.push(granted[0].0);
        inside = granted[0].1;
    }
    let expected: Vec<u64> = (100..120).collect();
    assert_eq!(admitted, expected, "the honest ones, in their order");
    rig.release(a, inside.0, inside.1);
    assert_eq!(rig.grants()[0].0, tries + 1, "and then she");
}

#[test]
fn a_place_is_kept_for_a_short_while_and_moves_with_its_account() {
    let mut rig = with_door(capped(1));
    let a = rig.link(1, "a", 1, vec![]);
    let b = rig.link(2, "b", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let ann = rig.granted();
    rig.claim(a, 2, "bob", "t2");
    rig.claim(a, 3, "cid", "t3");
    rig.sent();
    rig.abandon(a, 2, false);
    assert_eq!(rig.center.counts().queue_away, 1);
    rig.claim(b, 7, "bob", "t4");
    assert_eq!(rig.placed().position, 1, "on another gateway");
    // Once more while that one waits: the newer connection has the place.
    rig.claim(a, 4, "bob", "t5");
    match rig.sent().as_slice() {
        [
            (to, to_shard::Message::ClaimRefused(refused)),
            (_, to_shard::Message::Places(places)),
        ] => {
            assert_eq!((*to, refused.claim), (b, 7));
            assert_eq!(refused.refusal(), ClaimRefusal::PlaceTaken);
            assert_eq!(places.placed[0].position, 1);
        }
        other => panic!("{other:?}"),
    }
    // The whole gateway is lost: all places are kept, for a while.
    rig.center.handle_link_down(b);
    rig.abandon(a, 4, false);
    rig.wait_until(500);
    rig.say(a, to_backend::Message::Renew(Renew { renewal: 1 }))
        .expect("a renewal");
    rig.wait_until(1_400);
    rig.say(a, to_backend::Message::Renew(Renew { renewal: 2 }))
        .expect("a renewal");
    rig.wait_until(2_100);
    rig.sent();
    assert_eq!(rig.center.counts().queue_away, 0);
    rig.claim(a, 5, "bob", "t6");
    assert_eq!(rig.placed().position, 2, "too late");
    rig.release(a, ann.0, ann.1);
    assert_eq!(rig.grants()[0].0, 3);
}

#[test]
fn the_queue_has_an_end_and_bans_reach_into_it() {
    let mut rig = with_door(DoorSettings {
        places_max: 2,
        ..capped(0)
    });
    let a = rig.link(1, "a", 1, vec![]);
    for (claim, name) in [(1, "ann"), (2, "bob")] {
        rig.claim(a, claim, name, &format!("t{claim}"));
        rig.placed();
    }
    rig.claim(a, 3, "cid", "t3");
    assert_eq!(rig.refused(), ClaimRefusal::Full);
    let ban = Ban {
        until_unix_ms: 0,
        text: "no".into(),
    };
    rig.center
        .handle_ban(rig.now, BanKey::Account("ann".into()), ban)
        .expect("taken");
    assert_eq!(rig.refused(), ClaimRefusal::Banned);
    // The token of a claim that was refused for want of a place is good still.
    rig.claim(a, 4, "cid", "t3");
    assert_eq!(rig.placed().position, 2);
}

#[test]
fn after_a_restart_everybody_waits_where_they_waited() {
    let mut rig = with_door(capped(1));
    let a = rig.link(1, "a", 1, vec![]);
    rig.claim(a, 1, "ann", "t1");
    let (session, fence) = rig.granted();
    let mut places = Vec::new();
    for (claim, name) in [(2, "bob"), (3, "cid")] {
        rig.claim(a, claim, name, &format!("t{claim}"));
        places.push(rig.placed().place);
    }
    let door = rig.center.settings.door;
    let mut rig = rig.crash();
    rig.center.settings.door = door;
    rig.center.queue = Queue::new(door.places_max, door.forgiven_ms, 65_537);
    // Long after, when nobody remembers their tokens.
    rig.now = at_ms(900);
    let link = LinkId(5);
    rig.center
        .handle_link_up(rig.now, link, &hello("a", 0, 1))
        .expect("a good hello");
    let rebuild = Rebuild {
        sessions: vec![live(session, fence, "ann")],
        last: true,
    };
    rig.say(link, to_backend::Message::Rebuild(rebuild))
        .expect("a good list");
    rig.sent();
    // Somebody new is faster than the shard with those who wait.
    rig.claim(link, 9, "dan", "t9");
    for (claim, name, place) in [(3, "cid", places[1]), (2, "bob", places[0])] {
        let again = Claim {
            claim,
            account: name.to_owned(),
            token_id: format!("t{claim}"),
            // It has expired meanwhile.
            token_expires_unix_ms: 1,
            place,
            ..Claim::default()
        };
        rig.say(link, to_backend::Message::Claim(again))
            .expect("a good claim");
    }
    rig.sent();
    rig.release(link, session, fence);
    assert_eq!(rig.grants()[0].0, 2, "bob came first");
}

#[test]
fn a_busy_shard_lets_nobody_in_and_an_idle_one_no_more_than_it_can() {
    let mut rig = with_door(DoorSettings {
        busy_permille_max: 500,
        ..capped(4_000)
    });
    rig.center.users = Users::new(100_000);
    let load = |busy_permille| to_backend::Message::Load(Load { busy_permille });
    let a = rig.link(1, "a", 1, vec![]);
    rig.say(a, load(500)).expect("a report");
    rig.claim(a, 1, "ann", "t1");
    assert_eq!(rig.placed().position, 1);
    rig.say(a, load(700)).expect("a report");
    assert_eq!(rig.grants(), []);
    // Ten thousandths below the limit: 10 ms a second, 20 logins.
    for claim in 2..=50 {
        rig.claim(a, claim, &format!("p{claim}"), &format!("t{claim}"));
    }
    rig.sent();
    rig.say(a, load(490)).expect("a report");
    let claims: Vec<u64> = rig.grants().iter().map(|it| it.0).collect();
    assert_eq!(claims, (1..=20).collect::<Vec<_>>());
    rig.say(a, load(490)).expect("a report");
    assert_eq!(rig.grants().len(), 20);
    rig.say(a, load(0)).expect("a report");
    assert_eq!(rig.grants().len(), 10);
    rig.claim(a, 51, "late", "t51");
    assert_eq!(rig.grants().len(), 1, "nobody waits, and there is room");
}
