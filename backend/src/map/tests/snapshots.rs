//! Snapshots: what is read is what was written, and nobody is missed who walks meanwhile.

use super::*;
use crate::map::Partition;

fn standing(number: u32) -> Standing {
    Standing {
        session: SessionId(u64::from(number) << 33 | 7),
        tag: u64::MAX - u64::from(number),
        id: number,
        tick: 1_000 + number,
        at: Point {
            x: number * 3,
            y: number * 5,
        },
    }
}

fn file(round: u64, players: u32) -> Vec<u8> {
    let mut writer = SnapshotWriter::default();
    let mut bytes = Vec::new();
    for number in 0..=players {
        let mut slice = Slice {
            begins: (number == 0).then_some(round),
            is_last: number == players,
            ..Slice::default()
        };
        if number < players {
            standing(number).encode(&mut slice.players);
        }
        bytes.extend(writer.handle_slice(slice));
    }
    bytes
}

#[test]
fn what_is_read_is_what_was_written() {
    for players in [0, 1, 50] {
        let bytes = file(9, players);
        let snapshot = Snapshot::decode(&bytes).unwrap();
        assert_eq!(snapshot.round, 9);
        let read: Vec<_> = snapshot.players().collect();
        assert_eq!(read, (0..players).map(standing).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_that_was_cut_or_changed_anywhere_is_bad() {
    let good = file(3, 4);
    for length in 0..good.len() {
        assert!(Snapshot::decode(&good[..length]).is_err(), "{length}");
    }
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1 << (place % 8);
        assert!(Snapshot::decode(&bad).is_err(), "{place}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(Snapshot::decode(&longer), Err(BadSnapshot::Torn));
}

#[test]
fn whoever_wanders_between_partitions_meanwhile_is_in_the_snapshot() {
    const PLAYERS: u32 = 6_000;
    for count in [1, 2, 5] {
        let config = MapConfig {
            visible_max: 4,
            ..small()
        };
        let mut dice = Dice(u64::from(PLAYERS) + count as u64);
        let mut map = Map::with_partitions(config.clone(), count).unwrap();
        let mut walkers = Vec::new();
        for session in 0..PLAYERS {
            let at = dice.place(&config);
            let session = SessionId(session.into());
            walkers.push((map.handle_enter(session, 0, at).unwrap(), at));
        }
        map.handle_tick(&mut |_, _| {});
        map.partitions
            .iter_mut()
            .for_each(Partition::begin_snapshot);
        let mut found = BTreeMap::<u64, Standing>::new();
        let mut slices = 0;
        let mut copied = Vec::new();
        let mut is_over = false;
        while !is_over {
            // All of them go far in each tick.
            for (walker, at) in &mut walkers {
                *at = dice.step(&config, *at, 200);
                map.handle_move(*walker, *at).unwrap();
            }
            map.handle_tick(&mut |_, _| {});
            let is_ending = map.partitions.iter().all(Partition::is_copied);
            for partition in &mut map.partitions {
                copied.clear();
                partition.copy_slice(&mut copied);
                slices += usize::from(!copied.is_empty());
                let mut writer = SnapshotWriter::default();
                let bytes = writer.handle_slice(Slice {
                    begins: Some(1),
                    players: copied.clone(),
                    is_last: true,
                });
                for new in Snapshot::decode(&bytes).unwrap().players() {
                    let session = new.session.0;
                    let known = found.entry(session).or_insert(new);
                    if new.tick >= known.tick {
                        *known = new;
                    }
                }
            }
            if is_ending {
                is_over = map.partitions.iter_mut().all(Partition::end_snapshot);
            }
        }
        assert!(slices > 3, "{slices}");
        assert_eq!(found.len(), PLAYERS as usize, "{count} partitions");
    }
}
