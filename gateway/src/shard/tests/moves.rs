//! Sessions that come from another shard, and those that go there. Center is the test.

use protocol::client::Client;
use protocol::control::{Found, LiveSession, Moved, Update};
use protocol::limits::LABEL_BYTES_MAX;
use protocol::ticket::Ticket;

use super::resumes::{GONE, OPEN, world};
use super::*;

/// The update that a shard told last, and its session as center would hand it on.
fn told(world: &World) -> LiveSession {
    let update = world.center.iter().rev().find_map(|message| match message {
        to_backend::Message::Update(update) => Some(update.clone()),
        _ => None,
    });
    let Update {
        session,
        fence,
        ticket,
        login_unix_ms,
        bindings,
        left,
        ..
    } = update.expect("an update");
    LiveSession {
        session,
        fence: fence + 100,
        account: "account-2".to_owned(),
        ticket,
        channel: "c".repeat(LABEL_BYTES_MAX),
        client_version: 3,
        login_unix_ms,
        bindings,
        left,
        ..LiveSession::default()
    }
}

impl World {
    /// The one question that center was asked last.
    fn asked(&mut self) -> to_backend::Message {
        let asked = self.center.pop().expect("a question");
        assert!(
            matches!(
                asked,
                to_backend::Message::Seek(_) | to_backend::Message::Move(_)
            ),
            "{asked:?}"
        );
        asked
    }

    fn found(&mut self, live: &LiveSession) {
        let to_backend::Message::Seek(seek) = self.asked() else {
            panic!("not a seek")
        };
        self.control(
            0,
            to_shard::Message::Found(Found {
                seek: seek.seek,
                session: live.session,
                ticket: live.ticket.clone(),
                later: false,
            }),
        );
    }

    fn moved(&mut self, session: Option<LiveSession>) {
        let to_backend::Message::Move(wanted) = self.asked() else {
            panic!("not a move")
        };
        self.control(
            0,
            to_shard::Message::Moved(Moved {
                r#move: wanted.r#move,
                session,
                later: false,
            }),
        );
        self.collect();
    }
}

/// A shard to which a client comes whose session is on another one, up to its ATTACH.
fn arriving() -> (World, World, ConnId, Client, LiveSession) {
    let mut home = world();
    let (id, mut client) = home.login(0);
    home.sync(id, &mut client);
    let live = told(&home);
    home.cut(id, &mut client, false);
    home.game.clear();
    let mut other = world();
    other.moves_by_hand = true;
    let (id, events) = other.come_back(1, &mut client);
    assert_eq!(events, [""; 0]);
    other.found(&live);
    assert_eq!(other.exchange(id, &mut client), [""; 0]);
    (home, other, id, client, live)
}

#[test]
fn a_session_goes_on_where_its_client_comes() {
    let (mut home, mut other, id, mut client, live) = arriving();
    assert_eq!(
        other.kinds(),
        [0_u8; 0],
        "nothing before center has moved it"
    );
    assert_eq!(other.shard.sessions(), 0);
    other.moved(Some(live.clone()));
    let session = SessionId(live.session);
    let events = other.exchange(id, &mut client);
    assert_eq!(events, [format!("Resumed({session:?})")]);
    let (_, _, open) = other.game.last().expect("an OPEN");
    match uplink::next(&mut &open[..]) {
        Ok(Some((of, uplink::Record::Open(open)))) => {
            assert_eq!((of, open.fence.0), (session, live.fence));
            assert_eq!((open.account, open.client_version), ("account-2", 3));
            assert!(!open.away);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(other.kinds(), [OPEN]);
    assert_eq!(other.shard.counters.moves.value(), 1);
    // Where it is bound has not changed, so center is not told.
    assert!(
        !other
            .center
            .iter()
            .any(|it| matches!(it, to_backend::Message::Update(_)))
    );

    // The shard that had it hears of it, and takes it for its end nowhere.
    home.center.clear();
    let revoke = control::Revoke {
        session: live.session,
        fence: live.fence - 100,
        reason: CloseReason::Superseded as u32,
        text: String::new(),
    };
    home.control(0, to_shard::Message::Revoke(revoke));
    home.collect();
    assert_eq!(home.kinds(), [GONE]);
    assert!(home.center.is_empty(), "{:?}", home.center);
    assert_eq!((home.shard.sessions(), home.shard.parked()), (0, 0));
    assert!(home.shard.tickets.is_empty());
}

#[test]
fn a_ticket_that_was_used_meanwhile_opens_nothing() {
    let (_, mut other, id, mut client, _) = arriving();
    other.moved(None);
    let events = other.exchange(id, &mut client);
    assert_eq!(events, ["Closed(ByGateway(Some(TicketUnknown)))"]);
    assert!(client.can_resume(), "with the ticket before");
    assert_eq!(other.shard.sessions() + other.shard.parked(), 0);
    assert_eq!(other.kinds(), [0_u8; 0]);
}

#[test]
fn a_session_whose_client_is_lost_on_the_way_waits_where_it_came() {
    let (_, mut other, id, mut client, live) = arriving();
    other.cut(id, &mut client, true);
    other.moved(Some(live.clone()));
    assert_eq!((other.shard.sessions(), other.shard.parked()), (0, 1));
    assert_eq!(other.kinds(), [OPEN]);
    assert!(matches!(
        other.center.last(),
        Some(to_backend::Message::Update(update)) if update.parked
    ));
    let (_, events) = other.come_back(2, &mut client);
    assert_eq!(events, [format!("Resumed({:?})", SessionId(live.session))]);
}

#[test]
fn a_move_is_asked_again_when_center_is_back() {
    let (_, mut other, id, mut client, live) = arriving();
    let first = other.asked();
    other.shard.handle_uplink_lost(0);
    other.collect();
    other.link(0, 0);
    let again = other.center.last().cloned();
    assert_eq!(again, Some(first));
    other.moved(Some(live));
    assert!(other.exchange(id, &mut client)[0].starts_with("Resumed"));
}

#[test]
fn a_shard_that_may_not_hold_a_session_gives_it_back() {
    let (_, mut other, id, mut client, live) = arriving();
    // It was frozen for longer than its lease.
    other.now.time = other.now.time.after_ms(20_000);
    other.moved(Some(live));
    assert!(other.center.iter().any(|message| matches!(
        message,
        to_backend::Message::Release(release) if release.kept
    )));
    assert_eq!(other.shard.sessions() + other.shard.parked(), 0);
    other.exchange(id, &mut client);
    assert!(client.can_resume());
}

#[test]
fn a_resume_waits_for_center_within_its_deadline() {
    let mut home = world();
    let (id, mut client) = home.login(0);
    home.cut(id, &mut client, false);
    for is_lost in [true, false] {
        let mut other = world();
        other.moves_by_hand = true;
        let (id, _) = other.come_back(1, &mut client);
        if is_lost {
            other.shard.handle_uplink_lost(0);
            other.collect();
        } else {
            other.pass(5_000);
        }
        let events = other.exchange(id, &mut client);
        assert_eq!(events, ["Closed(ByClient(CenterUnavailable))"]);
        assert!(client.can_resume(), "that says nothing against the ticket");
        // An answer that comes too late finds nobody.
        if !is_lost {
            let live = told(&home);
            other.found(&live);
            other.collect();
            assert_eq!(other.shard.sessions(), 0);
        }
    }
    // Whoever goes on before the answer breaks the protocol.
    let mut other = world();
    other.moves_by_hand = true;
    let (id, _) = other.come_back(1, &mut client);
    let mut more = vec![0; 40];
    more[0] = 40;
    other.shard.handle_received(other.now, id, &mut more);
    other.collect();
    assert_eq!(other.shard.counters.closes(CloseReason::BadHandshake), 1);
    assert!(other.shard.seeks.is_empty());
}

#[test]
fn a_session_is_opened_where_it_was_and_never_where_it_left() {
    for (bound, left) in [(1, 2), (2, 1)] {
        let mut home = world();
        let (id, mut client) = home.login(0);
        let mut live = told(&home);
        home.cut(id, &mut client, false);
        let instance = |at: usize| control::Instance {
            group: u32::from(GROUP.0),
            name: format!("backend-{at}"),
            boot: 1,
        };
        live.bindings = vec![instance(bound)];
        live.left = vec![instance(left)];
        let groups = vec![GroupConfig {
            group: GROUP,
            instances: vec![ALL_VERSIONS; 2],
        }];
        let mut other = World::new(ShardConfig {
            resume_ms: 60_000,
            groups,
            ..config()
        });
        other.link(2, u32::from(GROUP.0));
        other.moves_by_hand = true;
        let (id, _) = other.come_back(1, &mut client);
        other.found(&live);
        other.exchange(id, &mut client);
        other.moved(Some(live));
        assert!(other.exchange(id, &mut client)[0].starts_with("Resumed"));
        let session = other
            .shard
            .connection(id)
            .and_then(|connection| connection.session());
        let at = session.and_then(|session| session.bindings[0].uplink);
        assert_eq!(at, Some(bound as u16));
        // When that one goes, only the one that it left is there: it is at its end.
        other.shard.handle_uplink_lost(bound);
        other.collect();
        assert_eq!(other.shard.counters.closes(CloseReason::LinkLost), 1);
    }
}

/// Two shards of one gateway; a client is logged in at the first.
fn siblings() -> (World, World, ConnId, Client, LiveSession) {
    let tickets = Arc::default();
    let shard = |shard| {
        World::new(ShardConfig {
            shard: ShardId(shard),
            tickets: Arc::clone(&tickets),
            ..world().shard.config
        })
    };
    let (mut home, mut other) = (shard(0), shard(1));
    other.moves_by_hand = true;
    let (id, client) = home.login(0);
    let live = told(&home);
    (home, other, id, client, live)
}

#[test]
fn from_another_shard_of_the_gateway_a_session_comes_with_one_question() {
    let (mut home, mut other, id, mut client, live) = siblings();
    let waiting = |at: &World| at.shard.config.tickets.len();
    assert_eq!(waiting(&other), 0, "it is played");
    home.cut(id, &mut client, true);
    assert_eq!(waiting(&other), 1);
    let (id, events) = other.come_back(1, &mut client);
    assert_eq!(events, [""; 0]);
    // Not whose it is, but at once that it be moved; and nothing before the answer.
    assert_eq!(other.shard.sessions(), 0);
    assert_eq!(other.shard.counters.handshakes.value(), 1);
    other.moved(Some(live.clone()));
    let session = SessionId(live.session);
    let events = other.exchange(id, &mut client);
    assert!(events.contains(&format!("Resumed({session:?})")));
    // The shard before hears of it from center, and what it remembered goes with it.
    assert_eq!(waiting(&other), 1);
    let reason = CloseReason::Superseded;
    let fence = Fence(live.fence - 100);
    home.shard
        .close_session(home.now, session, fence, reason, "");
    assert_eq!(waiting(&other), 0);
    assert!(
        other
            .shard
            .known_ticket(ticket_of(&other, session))
            .is_some()
    );
}

#[test]
fn a_ticket_that_was_used_is_forgotten_by_all_shards_of_the_gateway() {
    let (mut home, mut other, id, mut client, _) = siblings();
    let session = client.session().expect("logged in");
    let used = ticket_of(&home, session);
    assert!(other.shard.known_ticket(used).is_none(), "it is played");
    home.cut(id, &mut client, true);
    assert!(other.shard.known_ticket(used).is_some(), "it is parked");
    home.come_back(2, &mut client);
    assert!(other.shard.known_ticket(used).is_none());
    let next = ticket_of(&home, session);
    assert!(home.shard.known_ticket(next).is_some());
    // Whoever shows the used one is looked up at center, as from anywhere.
    let thief = other.accept(5);
    let ticket = Ticket::from_key([7; 32]);
    let mut resume = Vec::new();
    Initiator::resume(&ticket, [3; 32], 0, &mut resume).expect("a frame");
    other.shard.handle_received(other.now, thief, &mut resume);
    other.collect();
    assert!(matches!(other.asked(), to_backend::Message::Seek(_)));
    client.logout(home.now.time);
    let mut out = Vec::new();
    client.poll_transmit(home.now.time, &mut home.shared, &mut out);
    let id = *home.shard.sessions.get(&session).expect("in");
    home.shard.handle_received(home.now, id, &mut out);
    assert_eq!(other.shard.config.tickets.len(), 0);
}

/// The one ticket of a session that is in a shard.
fn ticket_of(world: &World, session: SessionId) -> TicketId {
    let mut tickets = world.shard.tickets.iter();
    let found = tickets.find(|(_, of)| **of == session);
    *found.expect("a ticket").0
}
