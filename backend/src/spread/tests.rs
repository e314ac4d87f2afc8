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

fn config(driver: MapDriver, snapshot: Option<SnapshotConfig>) -> SpreadConfig {
    SpreadConfig {
        map: small(),
        tick_ms: 50,
        executors: 2,
        driver: Some(driver),
        snapshot,
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
            let (mut workers, _watch) =
                start_workers(&config(driver, None), count, driver).unwrap();
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
                        step: Step::GoOn,
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
        let (workers, mut watch) = start_workers(&config(driver, None), 2, driver).unwrap();
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
            let (told, step) = (Told::default(), Step::GoOn);
            workers.hand_over(index, Work { orders, told, step });
        }
        let end = block_on(watch.ended());
        assert!(end.index < 2, "{end}");
        // Joins the other one.
        drop(workers);

        let (game, _watch) = SpreadWalk::start(config(driver, None)).unwrap();
        assert_eq!(game.driver(), driver);
        drop(game);
    }
}

/// Ticks of a map, whose players stand still, until so many rounds are over, good or bad.
fn ticks_until(
    (roster, workers, rounds): (&mut Roster, &mut Workers, &mut Rounds),
    over: u64,
) -> usize {
    let count = roster.partitions();
    let mut orders: Vec<_> = (0..count).map(|_| Orders::default()).collect();
    let mut now = Time(0);
    let mut ticks = 0;
    while rounds.written + rounds.failures < over {
        now = now.after_ms(10);
        ticks += 1;
        assert!(ticks < 200_000, "no round comes to its end");
        roster.handle_tick(&mut orders);
        let step = rounds.poll_step(now);
        for (index, orders) in orders.iter_mut().enumerate() {
            let work = Work {
                orders: std::mem::take(orders),
                told: Told::default(),
                step,
            };
            workers.hand_over(index, work);
        }
        for _ in 0..count {
            let done = block_on(poll_fn(|cx| workers.poll_done(cx))).unwrap();
            rounds.handle_progress(done.index, done.progress);
            orders[done.index] = done.orders;
        }
    }
    ticks
}

#[test]
fn snapshots_are_written_read_and_bad_ones_are_left_out() {
    const PLAYERS: u32 = 500;
    for driver in drivers() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("snapshots");
        let snapshot = SnapshotConfig {
            directory: at.clone(),
            interval_ms: 100,
        };
        prepare(&at).unwrap();
        assert_eq!(restore(&at).unwrap().round, 0);
        let config = config(driver, Some(snapshot));
        let mut roster = Roster::new(small(), 2).unwrap();
        let (mut workers, _watch) = start_workers(&config, 2, driver).unwrap();
        let mut rounds = Rounds::new(2, 100, 0);
        for player in 0..PLAYERS {
            let session = SessionId(player.into());
            let tag = u64::from(player) * 3;
            roster.handle_enter(session, tag, place(player, 0)).unwrap();
        }
        ticks_until((&mut roster, &mut workers, &mut rounds), 3);
        assert_eq!((rounds.written, rounds.failures), (3, 0));
        let restored = restore(&at).unwrap();
        assert_eq!((restored.round, restored.unreadable), (3, 0));
        assert_eq!(restored.players.len(), PLAYERS as usize);
        for (session, standing) in &restored.players {
            let player = session.0 as u32;
            assert_eq!(standing.at, place(player, 0));
            assert_eq!(standing.tag, session.0 * 3);
        }

        // One file of the last round is torn, one of the round before is changed: the others,
        // and the torn one's elder, still say where everybody is.
        let torn = at.join("map-0.0.snapshot");
        let bytes = std::fs::read(&torn).unwrap();
        std::fs::write(&torn, &bytes[..bytes.len() - 5]).unwrap();
        let changed = at.join("map-1.1.snapshot");
        let mut bytes = std::fs::read(&changed).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&changed, bytes).unwrap();
        let restored = restore(&at).unwrap();
        assert_eq!((restored.round, restored.unreadable), (3, 2));
        assert_eq!(restored.players.len(), PLAYERS as usize);

        // A round that cannot be written fails, and is done again when it can.
        std::fs::rename(&at, directory.path().join("elsewhere")).unwrap();
        ticks_until((&mut roster, &mut workers, &mut rounds), 4);
        assert_eq!((rounds.written, rounds.failures), (3, 1));
        std::fs::create_dir(&at).unwrap();
        ticks_until((&mut roster, &mut workers, &mut rounds), 5);
        assert_eq!((rounds.written, rounds.failures), (4, 1));
        let restored = restore(&at).unwrap();
        assert_eq!(restored.round, 4, "the failed one under its number");
        assert_eq!(restored.players.len(), PLAYERS as usize);
    }
}
