//! Clients that are lost and come back, and what nobody may do in their place.

use protocol::client::{Client, Shared};
use protocol::reason::CloseReason;

use super::*;

const RESUME_MS: u32 = 60_000;

/// Kinds of records, as they travel.
pub(super) const OPEN: u8 = 2;
const END: u8 = 3;
pub(super) const GONE: u8 = 5;

pub(super) fn world() -> World {
    World::new(ShardConfig {
        resume_ms: RESUME_MS,
        ..config()
    })
}

impl World {
    /// The connection of a client breaks; the shard hears of it if `told`.
    pub(super) fn cut(&mut self, id: ConnId, client: &mut Client, told: bool) {
        client.handle_disconnected(&mut |_| {});
        if told {
            self.shard.handle_closed(self.now, id);
        }
        self.collect();
    }

    /// A client begins to come back: its RESUME.
    fn resume_frame(&self, client: &mut Client, ephemeral: u8) -> Vec<u8> {
        client
            .resume([ephemeral; 32], self.now.time)
            .expect("a way back");
        let mut out = Vec::new();
        client.poll_transmit(self.now.time, &mut Shared::default(), &mut out);
        out
    }

    /// A client comes back over a new connection.
    pub(in crate::shard) fn come_back(
        &mut self,
        index: u32,
        client: &mut Client,
    ) -> (ConnId, Vec<String>) {
        let id = self.accept(index);
        let ephemeral = [index as u8 + 101; 32];
        client.resume(ephemeral, self.now.time).expect("a way back");
        let events = self.exchange(id, client);
        (id, events)
    }

    /// Time passes in steps in which the lease is renewed.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 1_000 {
            self.pass(1_000);
        }
        self.pass(ms % 1_000);
    }

    pub(super) fn kinds(&mut self) -> Vec<u8> {
        self.game.drain(..).map(|(_, kind, _)| kind).collect()
    }

    /// Whether the last OPEN said that the client is away.
    fn opened_away(&self) -> Option<bool> {
        let (_, _, record) = self.game.iter().rfind(|(_, kind, _)| *kind == OPEN)?;
        let mut run = &record[..];
        match uplink::next(&mut run) {
            Ok(Some((_, uplink::Record::Open(open)))) => Some(open.away),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_lost_client_comes_back_and_backends_see_no_end() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    let session = client.session().expect("logged in");
    world.sync(id, &mut client);
    world.game.clear();
    world.cut(id, &mut client, true);
    assert_eq!((world.shard.sessions(), world.shard.parked()), (0, 1));
    assert_eq!(world.opened_away(), Some(true));
    assert_eq!(world.kinds(), [OPEN]);
    assert!(client.can_resume());
    client.request(GROUP, MessageId(1), b"waits").expect("room");

    world.wait(u64::from(RESUME_MS) - 1_000);
    // What was on its way is dropped and counted; the outbox still has it.
    world.backend_sends(session, &push(b"late", Lane::Reliable, 1));
    let drops = &world.shard.counters;
    assert_eq!(drops.drops(DropReason::SessionAway), 1);
    let (_, events) = world.come_back(1, &mut client);
    assert_eq!(events, [format!("Resumed({session:?})")]);
    assert_eq!(client.session(), Some(session));
    assert_eq!((world.shard.sessions(), world.shard.parked()), (1, 0));
    assert_eq!(world.opened_away(), Some(false));
    assert_eq!(world.kinds(), [OPEN]);
    assert_eq!(client.outbox_messages(), 1);
    world.wait(10_000);
    assert_eq!(world.shard.counters.closes(CloseReason::NotResumed), 0);
}

#[test]
fn a_session_to_whom_nobody_comes_back_ends_once() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    world.game.clear();
    world.center.clear();
    world.cut(id, &mut client, true);
    world.wait(u64::from(RESUME_MS) - 1);
    assert_eq!(world.kinds(), [OPEN]);
    world.pass(1);
    assert_eq!(world.kinds(), [END]);
    let [
        to_backend::Message::Update(_),
        to_backend::Message::Release(_),
    ] = &world.center[..]
    else {
        panic!("{:?}", world.center)
    };
    let (_, events) = world.come_back(1, &mut client);
    assert_eq!(
        events,
        [
            "SessionLost(TicketUnknown)",
            "Closed(ByClient(TicketUnknown))"
        ]
    );
    assert!(world.shard.tickets.is_empty());
}

#[test]
fn a_logout_leaves_nothing_to_come_back_to() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    world.game.clear();
    client.logout(world.now.time);
    let events = world.exchange(id, &mut client);
    assert_eq!(events, ["Closed(ByGateway(Some(LoggedOut)))"]);
    assert!(!client.can_resume());
    assert_eq!(world.kinds(), [END]);
    assert_eq!((world.shard.parked(), world.shard.tickets.len()), (0, 0));
}

#[test]
fn a_resume_wins_over_a_connection_that_still_looks_alive() {
    let mut world = world();
    let (old, mut client) = world.login(0);
    let session = client.session().expect("logged in");
    world.cut(old, &mut client, false);
    assert_eq!(world.shard.sessions(), 1);
    world.game.clear();
    let (_, events) = world.come_back(1, &mut client);
    assert_eq!(events, [format!("Resumed({session:?})")]);
    assert_eq!(world.shard.counters.closes(CloseReason::Superseded), 1);
    assert_eq!((world.shard.sessions(), world.shard.parked()), (1, 0));
    assert_eq!(world.kinds(), [OPEN]);
    // The old one is gone a second later, and with it nothing of the session.
    world.pass(2_000);
    world.shard.handle_closed(world.now, old);
    world.collect();
    assert_eq!((world.shard.sessions(), world.shard.parked()), (1, 0));
}

#[test]
fn nothing_changes_before_the_first_sealed_frame_has_verified() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    world.game.clear();
    world.center.clear();
    // Somebody recorded it; and it is even sent while the session is in use.
    client.handle_disconnected(&mut |_| {});
    let recorded = world.resume_frame(&mut client, 9);
    for index in 1..=3 {
        let replay = world.accept(index);
        world
            .shard
            .handle_received(world.now, replay, &mut recorded.clone());
        // Without the ephemeral key nobody can go on; garbage closes.
        let mut garbage = vec![0; 40];
        garbage[0] = 40;
        if index > 1 {
            world.shard.handle_received(world.now, replay, &mut garbage);
        }
    }
    world.collect();
    assert_eq!(world.shard.sessions(), 1);
    assert_eq!(world.kinds(), [0_u8; 0]);
    assert!(world.center.is_empty(), "{:?}", world.center);
    world.pass(10_000);
    assert_eq!(world.shard.counters.closes(CloseReason::LoginTimeout), 1);
    assert_eq!(world.shard.counters.closes(CloseReason::BadCrc), 2);
    assert_eq!(world.shard.counters.closes(CloseReason::Superseded), 0);
    assert!(
        world
            .shard
            .connection(id)
            .is_some_and(|c| c.session().is_some())
    );
}

#[test]
fn a_ticket_is_good_once_and_its_second_use_harms_nobody() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    world.cut(id, &mut client, true);
    // Two connections with one ticket; the recorded frame of the first one again.
    let recorded = world.resume_frame(&mut client, 9);
    client.handle_disconnected(&mut |_| {});
    let second = world.accept(5);
    world
        .shard
        .handle_received(world.now, second, &mut recorded.clone());
    world.collect();
    let (_, events) = world.come_back(1, &mut client);
    assert!(events[0].starts_with("Resumed"), "{events:?}");
    world.sent.clear();
    let third = world.accept(6);
    world
        .shard
        .handle_received(world.now, third, &mut recorded.clone());
    world.collect();
    assert_eq!(world.shard.counters.closes(CloseReason::TicketUnknown), 1);
    assert_eq!(world.shard.sessions(), 1);
    let [(to, reject)] = &world.sent[..] else {
        panic!("{:?}", world.sent)
    };
    assert_eq!(*to, third);
    assert_eq!(reject[16..], [3, 1, CloseReason::TicketUnknown as u8, 0]);
}

#[test]
fn a_client_that_lost_the_answer_comes_back_with_either_ticket() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    let session = client.session().expect("logged in");
    world.cut(id, &mut client, true);
    for (index, attach_arrives) in [(1, false), (3, true)] {
        // WELCOME reaches the client, which answers ATTACH; LOGIN_OK is lost.
        let resume = world.accept(index);
        let mut frame = world.resume_frame(&mut client, index as u8 + 50);
        world.shard.handle_received(world.now, resume, &mut frame);
        world.collect();
        let (_, mut welcome) = world.sent.pop().expect("WELCOME");
        client.handle_received(world.now.time, &mut welcome, &mut world.shared, &mut |_| {});
        let mut attach = Vec::new();
        client.poll_transmit(world.now.time, &mut world.shared, &mut attach);
        if attach_arrives {
            world.shard.handle_received(world.now, resume, &mut attach);
            world.collect();
            world.sent.clear();
        }
        world.cut(resume, &mut client, true);
        // The newest ticket is good only if ATTACH arrived; the other else.
        let (mut id, mut events) = world.come_back(index + 1, &mut client);
        if !attach_arrives {
            assert_eq!(events, ["Closed(ByClient(TicketUnknown))"]);
            (id, events) = world.come_back(index + 20, &mut client);
        }
        assert_eq!(events, [format!("Resumed({session:?})")]);
        world.cut(id, &mut client, true);
    }
}

#[test]
fn an_instance_that_comes_while_the_client_is_away_is_told_so() {
    let mut world = world();
    let (id, mut client) = world.login(0);
    world.cut(id, &mut client, true);
    world.shard.handle_uplink_lost(GAME);
    world.collect();
    world.game.clear();
    world.link(GAME, u32::from(GROUP.0));
    assert_eq!(world.opened_away(), Some(true));
    assert_eq!(world.kinds(), [OPEN]);
}

#[test]
fn parked_sessions_end_with_the_lease_and_by_the_word_of_others() {
    for by_center in [true, false] {
        let mut world = world();
        let (id, mut client) = world.login(0);
        let session = client.session().expect("logged in");
        world.cut(id, &mut client, true);
        world.game.clear();
        if by_center {
            let reason = CloseReason::Replaced as u32;
            let (session, fence) = (session.0, 1);
            let fence_of = world
                .shard
                .live_sessions()
                .next()
                .map(|(_, _, fence)| fence.0);
            let revoke = |fence| {
                to_shard::Message::Revoke(control::Revoke {
                    session,
                    fence,
                    reason,
                    text: String::new(),
                })
            };
            world.control(0, revoke(fence_of.expect("parked") + fence));
            world.collect();
            assert_eq!(world.shard.parked(), 1, "another claim's");
            world.control(0, revoke(fence_of.expect("parked")));
            world.collect();
            assert_eq!(world.shard.counters.closes(CloseReason::Replaced), 1);
        } else {
            world.shard.handle_uplink_lost(0);
            world.pass(16_000);
            assert_eq!(world.shard.counters.closes(CloseReason::LeaseLost), 1);
        }
        // Another shard may go on with what the lease has ended here.
        let told = if by_center { END } else { GONE };
        assert_eq!((world.shard.parked(), world.kinds()), (0, vec![told]));
    }
}

#[test]
fn a_new_login_takes_the_place_of_who_has_waited_longest() {
    let mut world = World::new(ShardConfig {
        resume_ms: RESUME_MS,
        sessions_max: 2,
        ..config()
    });
    for index in 0..2 {
        let (id, mut client) = world.login(index);
        world.cut(id, &mut client, true);
        world.pass(10);
    }
    assert_eq!(world.shard.parked(), 2);
    let first = world.shard.live_sessions().next().map(|(_, id, _)| id);
    world.login(2);
    assert_eq!((world.shard.sessions(), world.shard.parked()), (1, 1));
    assert_ne!(
        world.shard.live_sessions().last().map(|(_, id, _)| id),
        first
    );
    assert_eq!(world.shard.counters.closes(CloseReason::NotResumed), 1);
}
