//! Views with too few seats: bounds, the nearest first, no flapping, and everybody's turn.

use super::*;

fn crowded() -> MapConfig {
    MapConfig {
        visible_max: 16,
        rotation_ticks: 3,
        ..small()
    }
}

/// A crowd on a small spot across a corner of the bricks, where everybody is in range.
fn crowd(config: &MapConfig, players: u32, dice: &mut Dice) -> World {
    let mut world = World::new(config.clone());
    for _ in 0..players {
        let at = Point {
            x: 278 + dice.roll(20),
            y: 86 + dice.roll(20),
        };
        world.enter(at);
    }
    world
}

fn check_bounds(world: &World) {
    let config = world.config();
    let leave = u64::from(config.view_units + config.hysteresis_units).pow(2);
    let view = u64::from(config.view_units).pow(2);
    let places: BTreeMap<_, _> = world
        .bodies
        .values()
        .map(|body| (body.walker.id, body.at))
        .collect();
    for (session, body) in &world.bodies {
        let seen = body.belief.seen();
        assert!(seen.len() <= config.visible_max as usize);
        for other in seen {
            assert_eq!(other.at, places[&other.id]);
            assert!(body.at.distance_squared(other.at) <= leave);
        }
        // Nobody within the radius is left out while a seat is free.
        let seen = world.believed(*session);
        if seen.len() < config.visible_max as usize {
            for (id, at) in &places {
                let near = body.at.distance_squared(*at) <= view;
                assert!(!near || *id == body.walker.id || seen.contains(id));
            }
        }
    }
}

#[test]
fn a_moving_crowd_keeps_within_all_bounds_and_thins_out_exactly() {
    for seed in 0..3 {
        println!("seed {seed}");
        let config = crowded();
        let mut dice = Dice(seed);
        let mut world = crowd(&config, 90, &mut dice);
        for tick in 0..60 {
            let sessions: Vec<_> = world.bodies.keys().copied().collect();
            for session in sessions {
                match dice.roll(200) {
                    0 => {
                        let at = dice.place(&config);
                        world.jump(session, at);
                    }
                    1 => world.leave(session),
                    _ if dice.roll(2) == 0 => {
                        // First to and fro, then apart.
                        let far = if tick < 25 { 6 } else { 60 };
                        let at = dice.step(&config, world.bodies[&session].at, far);
                        world.step(session, at);
                    }
                    _ => {}
                }
            }
            world.tick();
            check_bounds(&world);
        }
    }
}

#[test]
fn few_seats_change_a_tick_while_nobody_goes() {
    let config = crowded();
    let mut dice = Dice(9);
    let mut world = crowd(&config, 100, &mut dice);
    world.tick();
    for _ in 0..30 {
        let sessions: Vec<_> = world.bodies.keys().copied().collect();
        for session in sessions {
            // All stay within view of all.
            let at = Point {
                x: 278 + dice.roll(20),
                y: 86 + dice.roll(20),
            };
            world.step(session, at);
        }
        world.tick();
        for leaves in world.leaves.values() {
            assert!(leaves.len() <= EXCHANGES_MAX + 1);
        }
        check_bounds(&world);
    }
}

#[test]
fn at_rest_the_near_seats_are_taken_by_the_nearest_and_nobody_flaps() {
    let config = crowded();
    let near = 14;
    let mut dice = Dice(10);
    let mut world = crowd(&config, 80, &mut dice);
    for _ in 0..30 {
        world.tick();
    }
    for _ in 0..40 {
        world.tick();
        for (session, body) in &world.bodies {
            let mut all: Vec<_> = world
                .bodies
                .values()
                .filter(|other| other.walker != body.walker)
                .map(|other| body.at.distance_squared(other.at))
                .collect();
            all.sort_unstable();
            let limit = all[near - 1] * 5 / 4;
            let seen = body.belief.seen();
            let close = seen
                .iter()
                .filter(|seen| body.at.distance_squared(seen.at) <= limit)
                .count();
            assert!(
                close >= near,
                "session {session} sees {close} of its nearest {near}"
            );
            // Only seats that go round change, one at a time.
            assert!(
                world
                    .leaves
                    .get(session)
                    .is_none_or(|leaves| leaves.len() <= 1)
            );
        }
    }
}

#[test]
fn at_rest_everybody_is_seen_at_some_time_by_everybody_in_range() {
    let config = crowded();
    let mut dice = Dice(11);
    let players = 60;
    let mut world = crowd(&config, players, &mut dice);
    for _ in 0..30 {
        world.tick();
    }
    let mut seen: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    // Each turn takes rotation_ticks, and each outsider has one.
    for _ in 0..players * config.rotation_ticks {
        world.tick();
        for session in world.bodies.keys() {
            seen.entry(*session)
                .or_default()
                .extend(world.believed(*session));
        }
    }
    for (session, seen) in seen {
        assert_eq!(
            seen.len() as u32,
            players - 1,
            "session {session} missed somebody"
        );
    }
}

#[test]
fn whoever_was_left_out_gets_in_as_others_go() {
    let config = crowded();
    let mut dice = Dice(12);
    let mut world = crowd(&config, 40, &mut dice);
    world.tick();
    let sessions: Vec<_> = world.bodies.keys().copied().collect();
    for session in &sessions[..24] {
        world.leave(*session);
    }
    world.tick();
    // Sixteen are left: fifteen others fit.
    world.check_all();
}

#[test]
fn a_view_with_one_seat_works() {
    let config = MapConfig {
        visible_max: 1,
        ..crowded()
    };
    let mut dice = Dice(13);
    let mut world = crowd(&config, 20, &mut dice);
    for _ in 0..20 {
        world.tick();
        check_bounds(&world);
    }
}

#[test]
fn a_crowd_larger_than_one_look_is_looked_at_in_turn() {
    let config = crowded();
    let mut dice = Dice(14);
    let mut map = Map::new(config).unwrap();
    let centre = Point { x: 288, y: 60 };
    let viewer = map.handle_enter(SessionId(0), 0, centre).unwrap();
    // A ring of many that are just in view, then a few close by, who come last.
    let ring = SCANNED_LEAST * 5;
    for session in 0..ring {
        let at = Point {
            x: 255 + dice.roll(4),
            y: 50 + dice.roll(20),
        };
        map.handle_enter(SessionId(1 + u64::from(session)), 0, at)
            .unwrap();
    }
    let mut belief = Belief::default();
    let look = |map: &mut Map, belief: &mut Belief| {
        map.handle_tick(&mut |session, frame| {
            if let (SessionId(0), Frame::Changes(bytes)) = (session, frame) {
                belief
                    .handle_changes(&Changes::decode(bytes).unwrap())
                    .unwrap();
            }
        });
    };
    look(&mut map, &mut belief);
    let close: Vec<_> = (0..10)
        .map(|index| {
            let at = Point {
                x: 285 + index % 3,
                y: 58,
            };
            map.handle_enter(SessionId(10_000 + u64::from(index)), 0, at)
                .unwrap()
                .id()
        })
        .collect();
    // A look all round takes six ticks, and few seats change in each.
    for _ in 0..24 {
        look(&mut map, &mut belief);
    }
    for id in close {
        assert!(belief.of(id).is_some());
    }
    assert_eq!(map.place_of(viewer), Some(centre));
    assert!(belief.seen().len() <= 16);
}
