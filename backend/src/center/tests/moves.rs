//! Sessions that go from one shard to another, and those that wait while none holds them.

use protocol::control::{Instance, Move, Moved, Seek};
use protocol::ticket::Ticket;

use super::*;

const A: u64 = 1;
const B: u64 = 2;

fn ticket(number: u8) -> Ticket {
    Ticket::from_key([number; 32])
}

fn instance(name: &str, boot: u64) -> Instance {
    Instance {
        group: 1,
        name: name.to_owned(),
        boot,
    }
}

impl Rig {
    /// Center with two shards; on the first one ann has a session with ticket 1.
    fn with_ann() -> (Self, u64, u64) {
        let mut rig = Self::new();
        rig.link(A, "a", 1, vec![]);
        rig.link(B, "b", 1, vec![]);
        let (session, fence) = rig.ann("t1");
        rig.update(session, fence, 1, false);
        (rig, session, fence)
    }

    fn ann(&mut self, token: &str) -> (u64, u64) {
        let claim = Claim {
            claim: 1,
            account: "ann".to_owned(),
            token_id: token.to_owned(),
            token_expires_unix_ms: self.now.unix_ms + 60_000,
            client_version: 5,
            channel: "store".to_owned(),
            ticket: ticket(1).key().to_vec(),
            ..Claim::default()
        };
        self.say(LinkId(A), to_backend::Message::Claim(claim))
            .expect("a good claim");
        self.granted()
    }

    fn update(&mut self, session: u64, fence: u64, with: u8, parked: bool) {
        let update = Update {
            session,
            fence,
            parked,
            ticket: ticket(with).key().to_vec(),
            login_unix_ms: 77,
            bindings: vec![instance("game-1", 9)],
            left: vec![instance("game-2", 8)],
            ..Update::default()
        };
        self.say(LinkId(A), to_backend::Message::Update(update))
            .expect("a good update");
    }

    fn seek(&mut self, link: u64, with: u8) -> (u64, Vec<u8>, bool) {
        let seek = Seek {
            seek: 3,
            ticket: ticket(with).id().0,
        };
        self.say(LinkId(link), to_backend::Message::Seek(seek))
            .expect("a good question");
        match self.sent().pop() {
            Some((to, to_shard::Message::Found(found))) if to == LinkId(link) => {
                (found.session, found.ticket, found.later)
            }
            other => panic!("{other:?}"),
        }
    }

    /// A move by this link; the answer, and who was told to close what.
    fn moves(
        &mut self,
        link: u64,
        session: u64,
        from: u8,
        to: u8,
    ) -> (Option<LiveSession>, Vec<(u64, u64, u32)>) {
        let wanted = Move {
            r#move: 4,
            session,
            ticket: ticket(from).id().0,
            next: ticket(to).key().to_vec(),
            slot: 6,
            generation: 7,
        };
        self.say(LinkId(link), to_backend::Message::Move(wanted))
            .expect("a good move");
        let mut answer = None;
        let mut revoked = Vec::new();
        for (to, message) in self.sent() {
            match message {
                to_shard::Message::Moved(moved) => {
                    assert_eq!((to, moved.r#move), (LinkId(link), 4));
                    assert!(!moved.later);
                    answer = Some(moved.session);
                }
                to_shard::Message::Revoke(revoke) => {
                    revoked.push((to.0, revoke.fence, revoke.reason));
                }
                other => panic!("{other:?}"),
            }
        }
        (answer.expect("an answer"), revoked)
    }
}

const SUPERSEDED: u32 = CloseReason::Superseded as u32;

#[test]
fn a_ticket_moves_its_session_once() {
    let (mut rig, session, fence) = Rig::with_ann();
    assert_eq!(rig.seek(B, 2), (0, vec![], false));
    // Asking changes nothing.
    for _ in 0..2 {
        let key = ticket(1).key().to_vec();
        assert_eq!(rig.seek(B, 1), (session, key, false));
    }
    let (moved, revoked) = rig.moves(B, session, 1, 2);
    let moved = moved.expect("the session");
    assert_eq!(revoked, [(A, fence, SUPERSEDED)]);
    assert_eq!((moved.session, moved.account.as_str()), (session, "ann"));
    assert!(moved.fence > fence);
    assert_eq!((moved.channel.as_str(), moved.client_version), ("store", 5));
    assert_eq!(moved.login_unix_ms, 77);
    assert_eq!(moved.bindings, [instance("game-1", 9)]);
    assert_eq!(moved.left, [instance("game-2", 8)]);
    let seat = rig.center.seat_of("ann").expect("online");
    assert_eq!((&*seat.shard.gateway, seat.slot), ("b", 6));
    // Used, and refused wherever it comes again; the new one is not.
    assert_eq!(rig.seek(A, 1).0, 0);
    assert_eq!(rig.moves(A, session, 1, 3), (None, vec![]));
    assert_eq!(rig.moves(B, session, 1, 3), (None, vec![]));
    assert_eq!(rig.seek(A, 2).0, session);
    assert_eq!(rig.center.counts().moved, 1);
    assert_eq!(rig.center.counts().moves_refused, 2);
}

#[test]
fn of_two_moves_and_a_resume_at_home_the_first_one_wins() {
    // The home shard's word comes first.
    let (mut rig, session, fence) = Rig::with_ann();
    rig.update(session, fence, 2, false);
    assert_eq!(rig.moves(B, session, 1, 3), (None, vec![]));
    assert_eq!(rig.center.seat_of("ann").expect("online").fence.0, fence);
    // It comes after the move, and says nothing any more.
    let (mut rig, session, fence) = Rig::with_ann();
    let (moved, _) = rig.moves(B, session, 1, 3);
    let moved = moved.expect("the session");
    rig.update(session, fence, 2, false);
    assert_eq!(rig.seek(A, 2).0, 0);
    assert_eq!(rig.seek(A, 3).0, session);
    rig.release(LinkId(A), session, fence);
    assert_eq!(
        rig.center.seat_of("ann").expect("online").fence.0,
        moved.fence
    );
}

#[test]
fn a_move_whose_answer_was_lost_is_asked_again() {
    let (mut rig, session, _) = Rig::with_ann();
    let (first, _) = rig.moves(B, session, 1, 2);
    rig.center.handle_link_down(LinkId(B));
    // The shard never heard of it, so it does not list it.
    rig.link(3, "b", 1, vec![]);
    assert_eq!(rig.center.counts().orphans, 1);
    let (again, revoked) = rig.moves(3, session, 1, 2);
    assert!(again.expect("the session").fence > first.expect("the session").fence);
    assert_eq!(revoked, []);
    assert_eq!(rig.center.counts().orphans, 0);
}

#[test]
fn the_sessions_of_a_lost_shard_wait_for_their_clients() {
    let (mut rig, session, fence) = Rig::with_ann();
    rig.center.handle_link_down(LinkId(A));
    // Before the lease has ended a move is safe, a new login is not.
    rig.claim(LinkId(B), 2, "ann", "t2");
    assert_eq!(rig.refused(), ClaimRefusal::AlreadyOnline);
    assert_eq!(rig.seek(B, 1).0, session);
    for now in [2_100, 4_000] {
        rig.say(
            LinkId(B),
            to_backend::Message::Renew(Renew { renewal: now }),
        )
        .expect("good");
        rig.wait_until(now);
        rig.sent();
    }
    assert_eq!(rig.center.counts().leases_lost, 1);
    assert_eq!(rig.center.counts().orphans, 1);
    let b = rig.link(3, "b", 2, vec![]);
    let (moved, revoked) = rig.moves(3, session, 1, 2);
    assert!(moved.expect("the session").fence > fence);
    assert_eq!(revoked, []);
    assert_eq!(rig.center.counts().orphans, 0);
    // Given up again, it ends when its time is over.
    let seat = rig.center.seat_of("ann").expect("online");
    let release = Release {
        session,
        fence: seat.fence.0,
        kept: true,
    };
    rig.say(b, to_backend::Message::Release(release))
        .expect("good");
    assert_eq!(rig.center.counts().orphans, 1);
    rig.wait_until(4_000 + u64::from(RESUME_MS) - 1);
    assert_eq!(rig.center.counts().sessions, 1);
    rig.wait_until(4_000 + u64::from(RESUME_MS));
    assert_eq!(rig.center.counts().sessions, 0);
    assert_eq!(rig.center.counts().orphans_ended, 1);
}

#[test]
fn a_session_that_nobody_holds_gives_way() {
    let (mut rig, session, fence) = Rig::with_ann();
    let release = Release {
        session,
        fence,
        kept: true,
    };
    rig.say(LinkId(A), to_backend::Message::Release(release))
        .expect("good");
    for number in 0..4 {
        let token = format!("c{number}");
        rig.claim(LinkId(B), 10 + number, &token, &token);
        rig.granted();
    }
    // Four are all that center takes, and ann was a fifth.
    assert_eq!(rig.center.counts().orphans_ended, 1);
    assert_eq!(rig.seek(B, 1).0, 0);
    // To a new login of its own account as well.
    let (mut rig, session, fence) = Rig::with_ann();
    let release = Release {
        session,
        fence,
        kept: true,
    };
    rig.say(LinkId(A), to_backend::Message::Release(release))
        .expect("good");
    let (anew, _) = rig.ann("t2");
    assert_ne!(anew, session);
    assert_eq!(rig.center.counts().orphans, 0);
}

#[test]
fn a_session_whose_bindings_were_never_told_stays_where_it_is() {
    let mut rig = Rig::new();
    rig.link(A, "a", 1, vec![]);
    rig.link(B, "b", 1, vec![]);
    let (session, _) = rig.ann("t1");
    // They may be on their way: its client is to ask again, not to give the session up.
    assert_eq!(rig.seek(B, 1), (0, vec![], true));
    let wanted = Move {
        session,
        ticket: ticket(1).id().0,
        next: ticket(2).key().to_vec(),
        ..Move::default()
    };
    rig.say(LinkId(B), to_backend::Message::Move(wanted))
        .expect("a good move");
    let answer = rig.sent().pop().map(|(_, message)| message);
    let later = Moved {
        later: true,
        ..Moved::default()
    };
    assert_eq!(answer, Some(to_shard::Message::Moved(later)));
    rig.wait_until(10_000);
    assert_eq!(rig.center.counts().sessions, 0);
}

#[test]
fn a_session_whose_client_is_quicker_than_its_shard_is_found_when_that_has_told() {
    let mut rig = Rig::new();
    rig.link(A, "a", 1, vec![]);
    rig.link(B, "b", 1, vec![]);
    let (session, fence) = rig.ann("t1");
    assert_eq!(rig.seek(B, 1), (0, vec![], true));
    rig.update(session, fence, 1, false);
    assert_eq!(rig.seek(B, 1).0, session);
}

#[test]
fn a_restart_keeps_tickets_and_the_higher_fence() {
    let (mut rig, session, fence) = Rig::with_ann();
    let (moved, _) = rig.moves(B, session, 1, 2);
    let new_fence = moved.expect("the session").fence;
    let told = |fence, with: u8| LiveSession {
        ticket: ticket(with).key().to_vec(),
        bindings: vec![instance("game-1", 9)],
        ..live(session, fence, "ann")
    };
    for old_first in [true, false] {
        let disk = rig.disk.clone();
        let mut rig = Rig::start(disk, rig.now);
        // Until all have told theirs, center cannot say.
        let (first, second) = match old_first {
            true => (("a", fence, 1), ("b", new_fence, 2)),
            false => (("b", new_fence, 2), ("a", fence, 1)),
        };
        rig.link(5, first.0, 1, vec![told(first.1, first.2)]);
        assert_eq!(rig.sent(), []);
        assert_eq!(rig.seek(5, 9), (0, vec![], true));
        rig.link(6, second.0, 1, vec![told(second.1, second.2)]);
        let revoked: Vec<_> = rig
            .sent()
            .into_iter()
            .map(|(to, message)| match message {
                to_shard::Message::Revoke(revoke) => (to.0, revoke.fence, revoke.reason),
                other => panic!("{other:?}"),
            })
            .collect();
        let old = if old_first { 5 } else { 6 };
        assert_eq!(revoked, [(old, fence, SUPERSEDED)]);
        assert_eq!(rig.seek(old, 2).0, session);
        assert_eq!(rig.seek(old, 1).0, 0);
        assert!(rig.moves(old, session, 2, 3).0.expect("it").fence > new_fence);
    }
}
