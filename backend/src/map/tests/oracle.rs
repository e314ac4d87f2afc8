//! Random histories against brute force: walks, jumps, borders, comings and goings.

use super::*;

/// A history in which everything happens; the views are compared after each tick.
fn history(seed: u64, config: MapConfig, players: u32, ticks: u32, far: u32) -> World {
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut world = World::new(config.clone());
    for _ in 0..players {
        let at = dice.place(&config);
        world.enter(at);
    }
    for tick in 0..ticks {
        let sessions: Vec<_> = world.bodies.keys().copied().collect();
        // Ticks in which all move, some do, one does, nobody does.
        let share = [1, 3, 20, 1_000_000][(tick / 7 % 4) as usize];
        for session in sessions {
            if dice.roll(share) == 0 {
                let at = dice.step(&config, world.bodies[&session].at, far);
                world.step(session, at);
            }
            match dice.roll(400) {
                0 => {
                    let at = dice.place(&config);
                    world.jump(session, at);
                }
                // A jump on the spot, or nearly.
                1 => {
                    let at = dice.step(&config, world.bodies[&session].at, 3);
                    world.jump(session, at);
                }
                2 => {
                    world.leave(session);
                    let at = dice.place(&config);
                    world.enter(at);
                }
                _ => {}
            }
        }
        world.tick();
        world.check_all();
    }
    world
}

#[test]
fn views_equal_brute_force_on_random_walks() {
    for seed in 0..6 {
        history(seed, small(), 120, 60, 9);
    }
}

#[test]
fn views_equal_brute_force_with_strides_across_whole_nodes() {
    for seed in 10..13 {
        history(seed, small(), 120, 40, 150);
    }
}

#[test]
fn views_equal_brute_force_on_wide_and_on_tiny_maps() {
    let wide = MapConfig {
        width_units: 100_000,
        height_units: 300,
        node_width_units: 50_000,
        node_height_units: 200,
        ..small()
    };
    let world = history(20, wide, 150, 30, 30);
    assert!(world.frames > 0);
    let tiny = MapConfig {
        width_units: 60,
        height_units: 1,
        ..small()
    };
    history(21, tiny, 30, 30, 9);
    let none = MapConfig {
        hysteresis_units: 0,
        ..small()
    };
    history(22, none, 120, 30, 9);
}

#[test]
fn views_equal_brute_force_at_the_corners_of_bricks() {
    // Everybody within a stride of the points where three nodes meet.
    let config = small();
    let mut dice = Dice(5);
    let mut world = World::new(config.clone());
    let corners = [(192, 96), (288, 96), (96, 192), (480, 288), (384, 96)];
    for index in 0..80 {
        let (x, y) = corners[index % corners.len()];
        let at = dice.step(&config, Point { x, y }, 20);
        world.enter(at);
    }
    for _ in 0..60 {
        let sessions: Vec<_> = world.bodies.keys().copied().collect();
        for (index, session) in sessions.into_iter().enumerate() {
            if dice.roll(3) > 0 {
                let (x, y) = corners[index % corners.len()];
                let at = dice.step(&config, Point { x, y }, 20);
                world.step(session, at);
            }
        }
        world.tick();
        world.check_all();
    }
}

#[test]
fn who_paces_to_and_fro_inside_the_hysteresis_is_told_once() {
    let mut world = World::new(small());
    let a = world.enter(Point { x: 100, y: 50 });
    let b = world.enter(Point { x: 139, y: 50 });
    world.tick();
    assert_eq!(world.enters[&a].len(), 1);
    for tick in 0..20 {
        world.step(
            b,
            Point {
                x: 139 + 8 * (tick % 2),
                y: 50,
            },
        );
        world.tick();
        // There may be frames: where the other one rests.
        assert!(
            world
                .enters
                .values()
                .chain(world.leaves.values())
                .all(Vec::is_empty)
        );
    }
    world.step(b, Point { x: 149, y: 50 });
    world.tick();
    assert_eq!(world.leaves[&a].len(), 1);
    assert_eq!(world.leaves[&b].len(), 1);
}

#[test]
fn after_a_jump_only_the_view_counts_and_who_is_in_it_is_told_as_an_enter() {
    let mut world = World::new(small());
    let a = world.enter(Point { x: 100, y: 50 });
    let b = world.enter(Point { x: 130, y: 50 });
    world.tick();
    world.jump(b, Point { x: 135, y: 50 });
    world.tick();
    assert_eq!(world.enters[&a].len(), 1);
    assert!(world.leaves[&a].is_empty());
    world.check_all();
    world.jump(b, Point { x: 145, y: 50 });
    world.tick();
    assert_eq!(world.leaves[&a].len(), 1);
    world.check_all();
}

#[test]
fn nothing_is_told_of_a_world_at_rest() {
    let mut world = history(30, small(), 100, 20, 9);
    for _ in 0..=world.config().rest_ticks {
        world.tick();
    }
    let frames = world.frames;
    for _ in 0..20 {
        world.tick();
    }
    assert_eq!(world.frames, frames);
    world.check_all();
}

#[test]
fn lost_positions_are_made_good_once_everybody_rests() {
    for seed in 40..44 {
        let config = small();
        let mut dice = Dice(seed);
        let mut world = World::new(config.clone());
        world.loses = Some(Dice(seed + 100));
        for _ in 0..100 {
            let at = dice.place(&config);
            world.enter(at);
        }
        for _ in 0..30 {
            let sessions: Vec<_> = world.bodies.keys().copied().collect();
            for session in sessions {
                if dice.roll(4) == 0 {
                    let at = dice.step(&config, world.bodies[&session].at, 15);
                    world.step(session, at);
                }
            }
            world.tick();
        }
        for _ in 0..=config.rest_ticks {
            world.tick();
        }
        world.check_all();
    }
}

#[test]
fn the_same_calls_make_the_same_frames() {
    let run = || {
        let config = MapConfig {
            visible_max: 5,
            ..small()
        };
        let mut dice = Dice(77);
        let mut map = Map::new(config.clone()).unwrap();
        let mut frames = Vec::new();
        let mut walkers = Vec::new();
        for session in 0..150 {
            let at = dice.place(&config);
            walkers.push((map.handle_enter(SessionId(session), 0, at).unwrap(), at));
        }
        for _ in 0..20 {
            for (walker, at) in &mut walkers {
                *at = dice.step(&config, *at, 9);
                map.handle_move(*walker, *at).unwrap();
            }
            map.handle_tick(&mut |session, frame| {
                let (Frame::Changes(bytes) | Frame::Positions(bytes)) = frame;
                frames.push((session, bytes.to_vec()));
            });
        }
        frames
    };
    assert_eq!(run(), run());
}

#[test]
fn what_is_not_possible_is_refused() {
    let config = MapConfig {
        players_max: 2,
        ..small()
    };
    let mut map = Map::new(config).unwrap();
    let at = Point { x: 1, y: 1 };
    let outside = Point { x: 700, y: 1 };
    assert_eq!(
        map.handle_enter(SessionId(1), 0, outside),
        Err(MapError::Outside)
    );
    let walker = map.handle_enter(SessionId(1), 0, at).unwrap();
    map.handle_enter(SessionId(2), 0, at).unwrap();
    assert_eq!(map.handle_enter(SessionId(3), 0, at), Err(MapError::Full));
    assert_eq!(map.handle_move(walker, outside), Err(MapError::Outside));
    assert_eq!(map.handle_teleport(walker, outside), Err(MapError::Outside));
    assert_eq!(map.place_of(walker), Some(at));
    map.handle_leave(walker).unwrap();
    // Its place is free at once, and its handle is not good for whoever got it.
    let other = map.handle_enter(SessionId(3), 0, at).unwrap();
    map.handle_tick(&mut |session, _| assert_ne!(session, SessionId(1)));
    assert_eq!(map.handle_move(walker, at), Err(MapError::Gone));
    assert_eq!(map.place_of(other), Some(at));
    assert_eq!(map.players(), 2);
}
