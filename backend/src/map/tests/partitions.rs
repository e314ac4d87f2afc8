//! A map cut into partitions tells each player, tick by tick, what one in one piece tells.

use super::*;

/// Frames of one tick by session; a session's frames in their order.
type Told = BTreeMap<u64, Vec<(bool, Vec<u8>)>>;

struct Pair {
    whole: Map,
    cut: Map,
    /// The same handles are good for both: records are given in the same order.
    walkers: BTreeMap<u64, (Walker, Point)>,
    next_session: u64,
    frames: usize,
    /// Views that went from one partition to another.
    handed_over: usize,
}

impl Pair {
    fn new(config: &MapConfig, partitions: usize) -> Self {
        Self {
            whole: Map::new(config.clone()).unwrap(),
            cut: Map::with_partitions(config.clone(), partitions).unwrap(),
            walkers: BTreeMap::new(),
            next_session: 1,
            frames: 0,
            handed_over: 0,
        }
    }

    fn enter(&mut self, at: Point) {
        let session = self.next_session;
        self.next_session += 1;
        let walker = self
            .whole
            .handle_enter(SessionId(session), session, at)
            .unwrap();
        let same = self.cut.handle_enter(SessionId(session), session, at);
        assert_eq!(same, Ok(walker));
        self.walkers.insert(session, (walker, at));
    }

    fn step(&mut self, session: u64, at: Point, jumps: bool) {
        let (walker, place) = self.walkers.get_mut(&session).unwrap();
        *place = at;
        for map in [&mut self.whole, &mut self.cut] {
            if jumps {
                map.handle_teleport(*walker, at).unwrap();
            } else {
                map.handle_move(*walker, at).unwrap();
            }
        }
    }

    fn leave(&mut self, session: u64) {
        let (walker, _) = self.walkers.remove(&session).unwrap();
        self.whole.handle_leave(walker).unwrap();
        self.cut.handle_leave(walker).unwrap();
    }

    fn tick(&mut self) {
        let look = |map: &mut Map| {
            let mut told = Told::new();
            map.handle_tick(&mut |session, frame| {
                let (Frame::Changes(bytes) | Frame::Positions(bytes)) = frame;
                let is_changes = matches!(frame, Frame::Changes(_));
                let frames = told.entry(session.0).or_default();
                frames.push((is_changes, bytes.to_vec()));
            });
            told
        };
        let whole = look(&mut self.whole);
        self.frames += whole.values().map(Vec::len).sum::<usize>();
        assert_eq!(look(&mut self.cut), whole);
        let released = self
            .cut
            .orders
            .iter()
            .enumerate()
            .flat_map(|(from, orders)| {
                let released = orders.released.iter();
                released.filter(move |released| usize::from(released.partition) != from)
            });
        self.handed_over += released.count();
    }
}

/// A history in which everything happens; `near` are places around which players gather.
fn history(seed: u64, config: &MapConfig, partitions: usize, far: u32, near: &[(u32, u32)]) {
    println!("seed {seed}, {partitions} partitions");
    let mut dice = Dice(seed);
    let mut pair = Pair::new(config, partitions);
    let arrive = |dice: &mut Dice| match near {
        [] => dice.place(config),
        _ => {
            let (x, y) = near[dice.roll(near.len() as u32) as usize];
            dice.step(config, Point { x, y }, 25)
        }
    };
    for _ in 0..150 {
        let at = arrive(&mut dice);
        pair.enter(at);
    }
    for tick in 0..50 {
        let sessions: Vec<_> = pair.walkers.keys().copied().collect();
        let share = [1, 3, 20, 1_000_000][(tick / 5 % 4) as usize];
        for session in sessions {
            if dice.roll(share) == 0 {
                let at = dice.step(config, pair.walkers[&session].1, far);
                pair.step(session, at, false);
            }
            match dice.roll(200) {
                0 => {
                    let at = arrive(&mut dice);
                    pair.step(session, at, true);
                }
                1 => {
                    pair.leave(session);
                    let at = arrive(&mut dice);
                    pair.enter(at);
                }
                // Comes and goes between two ticks.
                2 => {
                    let at = arrive(&mut dice);
                    pair.enter(at);
                    pair.leave(pair.next_session - 1);
                }
                _ => {}
            }
        }
        pair.tick();
    }
    assert!(pair.frames > 1_000);
    assert!(
        partitions == 1 || pair.handed_over > 20,
        "{}",
        pair.handed_over
    );
}

#[test]
fn partitions_tell_what_one_map_tells_on_random_walks_and_jumps() {
    for (seed, partitions) in [(1, 1), (2, 2), (3, 3), (4, 7), (5, PARTITIONS_MAX)] {
        history(seed, &small(), partitions, 9, &[]);
        history(seed + 10, &small(), partitions, 150, &[]);
    }
}

#[test]
fn partitions_tell_what_one_map_tells_of_crowds_at_the_corners_of_bricks() {
    let config = MapConfig {
        visible_max: 16,
        rotation_ticks: 3,
        ..small()
    };
    let corners = [(192, 96), (288, 96), (96, 192), (480, 288), (384, 96)];
    for (seed, partitions) in [(21, 2), (22, 3), (23, 8)] {
        history(seed, &config, partitions, 12, &corners);
    }
}
