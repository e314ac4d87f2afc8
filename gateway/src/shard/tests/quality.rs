//! What a shard knows and tells of how good a connection is.

use protocol::client::Client;
use protocol::quality::Quality;
use protocol::uplink::Record;

use super::*;
use crate::counters::ROUND_TRIP_BOUNDS_US;
use crate::shard::look::{Look, SessionView, Transport, Wanted};

impl World {
    /// Lets a client's PING travel for so long, ms, and its PONG for as long.
    fn ping_over(&mut self, id: ConnId, client: &mut Client, ms: u64) {
        client.handle_timeout(self.now.time, &mut |_| {});
        let mut ping = Vec::new();
        client.poll_transmit(self.now.time, &mut self.shared, &mut ping);
        assert!(!ping.is_empty(), "a PING is due");
        self.pass(ms);
        self.shard.handle_received(self.now, id, &mut ping);
        self.collect();
        self.pass(ms);
        self.exchange(id, client);
    }

    /// The QUALITYs that the game was told since the last call.
    fn qualities(&mut self) -> Vec<Quality> {
        let records = self.game.drain(..);
        records
            .filter_map(|(_, _, record)| match uplink::next(&mut &record[..]) {
                Ok(Some((_, Record::Quality(quality)))) => Some(quality),
                _ => None,
            })
            .collect()
    }

    fn find(&self, account: &str) -> Option<SessionView> {
        let mut look = Look::new(Wanted::Account(account.into()), 1, 0);
        loop {
            if let Some(found) = self.shard.look(self.now, &mut look) {
                return found.sessions.into_iter().next();
            }
        }
    }
}

#[test]
fn games_are_told_of_a_change_that_somebody_would_notice() {
    let mut world = World::new(config());
    let heartbeat_ms = u64::from(world.shard.config.heartbeat_interval_ms);
    let (id, mut client) = world.login(0);
    let mut told = Vec::new();
    // The shard knows with the second PING; then nothing changes; then it becomes far.
    for ms in [20, 20, 20, 20, 200] {
        world.ping_over(id, &mut client, ms);
        told.push(world.qualities());
        world.pass(heartbeat_ms - 2 * ms);
    }
    let round_trips: Vec<Vec<u32>> = told
        .iter()
        .map(|told| told.iter().map(|it| it.ours.round_trip_us).collect())
        .collect();
    // A quarter of what the new way there takes: 20 ms back, 200 there.
    let smoothed = (3 * 40_000 + 220_000) / 4;
    assert_eq!(
        round_trips,
        [vec![], vec![40_000], vec![], vec![], vec![smoothed]]
    );
    assert_eq!(told[1][0].theirs.round_trip_us, 40_000);
    let (buckets, count, sum_us) = world.shard.counters().round_trips.values();
    assert_eq!((count, sum_us), (4, 3 * 40_000 + 220_000));
    let below = |us: u32| {
        buckets[ROUND_TRIP_BOUNDS_US
            .iter()
            .position(|it| *it == us)
            .unwrap()]
    };
    assert_eq!(
        (below(20_000), below(50_000), below(200_000), below(500_000)),
        (0, 3, 3, 4)
    );
}

#[test]
fn who_pings_all_the_time_makes_no_more_of_it() {
    let mut world = World::new(ShardConfig {
        heartbeat_interval_ms: 100,
        ..config()
    });
    let (id, mut client) = world.login(0);
    // What the client was told is over.
    world.shard.config.heartbeat_interval_ms = 10_000;
    let began = world.now.time;
    for far in 0..200_u64 {
        let ms = 40 * (far % 2);
        world.ping_over(id, &mut client, ms);
        world.pass(100 - 2 * ms);
    }
    let told = world.qualities().len() as u64;
    let most = world.now.time.us_since(began) / 5_000_000 + 1;
    assert!((2..=most).contains(&told), "{told} of {most}");
}

#[test]
fn an_instance_that_comes_is_told_with_the_next_ping() {
    let mut world = World::new(config());
    let heartbeat_ms = u64::from(world.shard.config.heartbeat_interval_ms);
    let (id, mut client) = world.login(0);
    for _ in 0..2 {
        world.ping_over(id, &mut client, 20);
        world.pass(heartbeat_ms - 40);
    }
    assert_eq!(world.qualities().len(), 1);
    world.shard.handle_uplink_lost(GAME);
    world.ping_over(id, &mut client, 20);
    assert_eq!(world.qualities(), [], "nobody is there to be told");
    world.link(GAME, u32::from(GROUP.0));
    world.pass(heartbeat_ms - 40);
    world.ping_over(id, &mut client, 20);
    assert_eq!(
        world.qualities().len(),
        1,
        "nothing has changed, but it is new"
    );
}

#[test]
fn a_session_is_found_wherever_it_is() {
    let mut world = World::new(ShardConfig {
        resume_ms: 60_000,
        ..config()
    });
    let (id, mut client) = world.login(3);
    let account = world
        .shard
        .live_sessions()
        .next()
        .expect("one")
        .0
        .to_owned();
    world.ping_over(id, &mut client, 20);
    let view = world.find(&account).expect("it is here");
    assert_eq!(Some(view.session), client.session());
    assert_eq!(view.bindings.len(), 1);
    assert_eq!(
        (view.bindings[0].group, view.bindings[0].instance),
        (GROUP, Some(0))
    );
    assert!(view.bindings[0].is_open);
    let connection = view.connection.expect("it is here");
    assert_eq!(connection.transport, Transport::Tcp);
    assert_eq!(connection.queued_bytes, 0);
    assert_eq!(connection.quality.theirs.round_trip_us, 0, "not told yet");
    assert_eq!(world.find("somebody else"), None);
    // Its client is lost.
    client.handle_disconnected(&mut |_| {});
    world.shard.handle_closed(world.now, id);
    world.collect();
    let parked = world.find(&account).expect("it waits");
    assert_eq!((parked.session, parked.connection), (view.session, None));
}
