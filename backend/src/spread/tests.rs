//! Both drivers: frames equal those of one thread, ticks that are not done are skipped, and the
//! end of a thread is noticed.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use protocol::ids::SessionId;
use protocol::world::Point;

use super::*;
use crate::map::Map;

fn small() -> MapConfig {
    MapConfig {
        width_units: 700,
        height_units: 390,
        node_width_units: 192,
        node_height_units: 96,
        view_units: 40,
        hysteresis_units: 8,
        ..MapConfig::default()
    }
}

/// The drivers that this host must have.
fn drivers() -> Vec<MapDriver> {
    let has_ring = journal::probe().0 == journal::JournalEngine::Uring;
    let forbidden = std::env::var_os("SALLYPORT_TEST_WITHOUT_URING").is_some();
    assert_ne!(has_ring, forbidden, "the probe, and what this run is about");
    if has_ring {
        vec![MapDriver::Glommio, MapDriver::Threads]
    } else {
        vec![MapDriver::Threads]
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(20), future).await };
    runtime.block_on(limited).expect("within 20 s")
}

/// Where a player is in a step of its way, which crosses many nodes.
fn place(player: u32, step: u32) -> Point {
    let turn = |from: u32, stride: u32, side: u32| {
        let along = (from + stride * step) % (2 * side - 2);
        along.min(2 * side - 2 - along)
    };
    Point {
        x: turn(player * 97, 11 + player % 7, 700),
        y: turn(player * 31, 5 + player % 5, 390),
    }
}

type Frames = BTreeMap<(u32, u64), Vec<Vec<u8>>>;

#[test]
fn partitions_on_threads_tell_what_the_map_in_one_thread_tells() {
    const PLAYERS: u32 = 200;
    const TICKS: u32 = 60;
    let mut map = Map::new(small()).unwrap();
    let mut wanted = Frames::new();
    let walkers: Vec<_> = (0..PLAYERS)
        .map(|player| {
            let session = SessionId(player.into());
            map.handle_enter(session, 0, place(player, 0)).unwrap()
        })
        .collect();
    for tick in 1..=TICKS {
        map.handle_tick(&mut |session, frame| {
            let (Frame::Changes(bytes) | Frame::Positions(bytes)) = frame;
            let frames = wanted.entry((tick, session.0)).or_default();
            frames.push(bytes.to_vec());
        });
        for (player, walker) in (0..).zip(&walkers) {
            map.handle_move(*walker, place(player, tick)).unwrap();
        }
    }
    for driver in drivers() {
        for count in [1, 2, 3] {
            let mut roster = Roster::new(small(), count).unwrap();
            let (mut workers, _watch) = start_workers(&small(), count, driver).unwrap();
            let mut orders: Vec<_> = (0..count).map(|_| Orders::default()).collect();
            let mut frames = Frames::new();
            for player in 0..PLAYERS {
                let session = SessionId(player.into());
                roster.handle_enter(session, 0, place(player, 0)).unwrap();
            }
            for tick in 1..=TICKS {
                roster.handle_tick(&mut orders);
                for (index, orders) in orders.iter_mut().enumerate() {
                    let work = Work {
                        orders: std::mem::take(orders),
                        told: Told::default(),
                    };
                    workers.hand_over(index, work);
                }
                for _ in 0..count {
                    let done = block_on(poll_fn(|cx| workers.poll_done(cx))).unwrap();
                    assert_eq!(done.orders.tick(), tick);
                    for (session, frame) in done.told.frames() {
                        let (Frame::Changes(bytes) | Frame::Positions(bytes)) = frame;
                        let told = frames.entry((tick, session.0)).or_default();
                        told.push(bytes.to_vec());
                    }
                    orders[done.index] = done.orders;
                }
                for (player, walker) in (0..).zip(&walkers) {
                    roster.handle_move(*walker, place(player, tick)).unwrap();
                }
            }
            assert!(frames == wanted, "{driver:?}, {count} partitions");
        }
    }
}

#[test]
fn the_end_of_a_thread_is_noticed_and_dropping_the_game_ends_all() {
    for driver in drivers() {
        let (workers, mut watch) = start_workers(&small(), 2, driver).unwrap();
        // Orders of a map with more nodes: the second partition panics, as by a bug of ours.
        let mut other = Roster::new(MapConfig::default(), 2).unwrap();
        let mut orders = [Orders::default(), Orders::default()];
        let far = Point {
            x: 60_000,
            y: 60_000,
        };
        other.handle_enter(SessionId(1), 0, far).unwrap();
        other.handle_tick(&mut orders);
        let [first, second] = orders;
        for (index, orders) in [first, second].into_iter().enumerate() {
            let told = Told::default();
            workers.hand_over(index, Work { orders, told });
        }
        let end = block_on(watch.ended());
        assert!(end.index < 2, "{end}");
        // Joins the other one.
        drop(workers);

        let config = SpreadConfig {
            map: small(),
            tick_ms: 50,
            executors: 2,
            driver: Some(driver),
        };
        let (game, _watch) = SpreadWalk::start(config).unwrap();
        assert_eq!(game.driver(), driver);
        drop(game);
    }
}
