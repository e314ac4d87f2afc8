//! The game's own part: who may enter, the rate of ticks, and walkers of the load test who end
//! up believing what brute force says.

mod stubbed;

use protocol::world::path::{self, field_units};
use protocol::world::{
    Belief, Changes, ENTER, Enter, Entry, MOVE, Move, Point, Positions, REFUSED_FULL,
    REFUSED_HERE_ALREADY, REFUSED_MALFORMED, REFUSED_OUTSIDE,
};

use super::desk::Refusal;
use super::*;

impl Walk {
    fn enter(&mut self, now: Time, session: SessionId, payload: &[u8]) -> Result<Entry, Refusal> {
        let roster = self.map.roster_mut();
        self.desk.enter(roster, now, session, payload)
    }

    fn step(&mut self, session: SessionId, message: MessageId, payload: &[u8]) {
        let roster = self.map.roster_mut();
        self.desk.step(roster, session, message, payload);
    }

    fn leave(&mut self, session: SessionId) {
        self.desk.leave(self.map.roster_mut(), session);
    }
}

fn entering(tag: u64, at: Point) -> Vec<u8> {
    let mut out = Vec::new();
    Enter { tag, at }.encode(&mut out);
    out
}

fn moving(step: u32, at: Point) -> Vec<u8> {
    let mut out = Vec::new();
    Move { step, at }.encode(&mut out);
    out
}

fn ms(ms: u64) -> Time {
    Time(ms * 1_000)
}

#[test]
fn one_player_a_session_on_the_map_and_none_after_it_has_gone() {
    let config = MapConfig {
        players_max: 2,
        ..MapConfig::default()
    };
    let mut game = Walk::new(config, 100).unwrap();
    let at = Point { x: 5, y: 6 };
    let entry = game.enter(ms(1), SessionId(1), &entering(7, at)).unwrap();
    assert_eq!((entry.view_units, entry.tick_ms, entry.tick), (128, 100, 0));
    let refused = |game: &mut Walk, session, payload: &[u8]| {
        game.enter(ms(1), SessionId(session), payload)
            .unwrap_err()
            .code
    };
    assert_eq!(
        refused(&mut game, 1, &entering(7, at)),
        REFUSED_HERE_ALREADY
    );
    assert_eq!(refused(&mut game, 2, &[1, 2]), REFUSED_MALFORMED);
    let outside = Point { x: 70_000, y: 0 };
    assert_eq!(
        refused(&mut game, 2, &entering(7, outside)),
        REFUSED_OUTSIDE
    );
    game.enter(ms(1), SessionId(2), &entering(8, at)).unwrap();
    assert_eq!(refused(&mut game, 3, &entering(7, at)), REFUSED_FULL);

    game.step(SessionId(1), MOVE, &moving(1, Point { x: 6, y: 6 }));
    assert_eq!(game.counts().moves_refused, 0);
    game.step(SessionId(1), MOVE, &moving(1, outside));
    game.step(SessionId(1), MOVE, &[0]);
    game.step(SessionId(1), ENTER, &moving(1, at));
    game.step(SessionId(3), MOVE, &moving(1, at));
    assert_eq!(game.counts().moves_refused, 4);

    game.leave(SessionId(1));
    game.leave(SessionId(1));
    assert_eq!(game.map().players(), 1);
    game.step(SessionId(1), MOVE, &moving(2, at));
    assert_eq!(game.counts().moves_refused, 5);
}

#[test]
fn ticks_come_at_a_steady_rate_only_while_somebody_is_there() {
    let mut game = Walk::new(MapConfig::default(), 100).unwrap();
    let mut nothing = |_: SessionId, _: Lane, _: MessageId, _: &[u8]| {};
    assert_eq!(game.poll_timeout(), None);
    let at = Point { x: 5, y: 6 };
    game.enter(ms(1_000), SessionId(1), &entering(1, at))
        .unwrap();
    assert_eq!(game.poll_timeout(), Some(ms(1_100)));
    game.handle_tick(ms(1_099), &mut nothing);
    assert_eq!(game.counts().ticks, 0);
    game.handle_tick(ms(1_130), &mut nothing);
    assert_eq!(game.poll_timeout(), Some(ms(1_200)));
    game.handle_tick(ms(1_450), &mut nothing);
    assert_eq!(game.poll_timeout(), Some(ms(1_500)));
    assert_eq!((game.counts().ticks, game.counts().ticks_skipped), (2, 2));
    game.leave(SessionId(1));
    // One more, so that the map forgets it.
    game.handle_tick(ms(1_500), &mut nothing);
    assert_eq!(game.poll_timeout(), None);
}

#[test]
fn walkers_of_the_load_test_end_up_believing_what_brute_force_says() {
    let config = MapConfig::default();
    let walkers = 300;
    let field = field_units(
        walkers,
        6.0,
        config.view_units,
        config.hysteresis_units,
        config.width_units,
    );
    let walk = path::Walk {
        seed: 4,
        field_units: field,
        step_units: 6,
    };
    let (view, leave) = (
        config.view_units,
        config.view_units + config.hysteresis_units,
    );
    let rest = u64::from(config.rest_ticks);
    let mut game = Walk::new(config, 100).unwrap();
    for client in 0..walkers {
        let payload = entering(client, walk.at(client, 0));
        game.enter(ms(0), SessionId(client), &payload).unwrap();
    }
    let mut beliefs = vec![Belief::default(); walkers as usize];
    let steps = 30;
    let mut tick = 0;
    let mut advance = |game: &mut Walk| {
        tick += 1;
        game.handle_tick(ms(tick * 100), &mut |session, lane, message, payload| {
            let belief = &mut beliefs[session.0 as usize];
            match (lane, message) {
                (Lane::Reliable, CHANGES) => {
                    belief
                        .handle_changes(&Changes::decode(payload).unwrap())
                        .unwrap();
                }
                (Lane::Sequenced, POSITIONS) => {
                    belief.handle_positions(&Positions::decode(payload).unwrap());
                }
                _ => panic!("{message} in {lane:?}"),
            }
        });
    };
    for step in 1..=steps {
        for part in 0..10 {
            // A tenth of them moves each tick.
            for client in (0..walkers).filter(|client| client % 10 == part) {
                let payload = moving(step, walk.at(client, step));
                game.step(SessionId(client), MOVE, &payload);
            }
            advance(&mut game);
        }
    }
    for _ in 0..=rest {
        advance(&mut game);
    }
    let mut in_view = 0;
    for (client, belief) in beliefs.iter().enumerate() {
        let own = walk.at(client as u64, steps);
        for other in (0..walkers).filter(|&other| other != client as u64) {
            let at = walk.at(other, steps);
            let seen = belief.seen().iter().find(|seen| seen.tag == other);
            let squared = own.distance_squared(at);
            // Between the two radii it depends on the past.
            if squared <= u64::from(view).pow(2) {
                assert!(seen.is_some(), "{client} does not see {other}");
            }
            if let Some(seen) = seen {
                assert!(squared <= u64::from(leave).pow(2), "{client} sees {other}");
                assert_eq!(seen.at, at);
                in_view += 1;
            }
        }
    }
    let mean = f64::from(in_view) / walkers as f64;
    assert!((4.5..7.5).contains(&mean), "{mean} in view on average");
}
