//! The table against a plain map while it has room, and what gives way when it has none.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SECRET: [u64; 2] = [3, 4];

fn open(slot: &Slot) -> u64 {
    u64::from(slot.open)
}

proptest! {
    #[test]
    fn with_room_it_is_a_map(steps in proptest::collection::vec((1_u64..200, any::<bool>()), 1..2_000)) {
        // 200 keys in 4,096 places: no set of 16 is ever full.
        let table = Table::new(4_096, SECRET);
        let mut model: HashMap<u64, u32> = HashMap::new();
        for (key, more) in steps {
            if more {
                let (open, forgot) = table.with(key, open, |slot| {
                    slot.open += 1;
                    slot.open
                });
                let expected = model.entry(key).or_default();
                *expected += 1;
                prop_assert_eq!((open, forgot), (*expected, false));
            } else {
                let known = table.with_known(key, |slot| slot.open);
                prop_assert_eq!(known, model.get(&key).copied());
            }
        }
    }
}

#[test]
fn who_has_least_in_use_gives_way_and_that_is_told() {
    let table = Table::new(WAYS, SECRET);
    for key in 1..=WAYS as u64 {
        let (_, forgot) = table.with(key, open, |slot| slot.open = 10 + key as u32);
        assert!(!forgot);
    }
    let (_, forgot) = table.with(100, open, |slot| slot.open = 1);
    assert!(forgot, "the first had ten in use");
    assert_eq!(table.with_known(1, |_| ()), None);
    let (_, forgot) = table.with(101, open, |slot| slot.open = 0);
    assert!(forgot, "the hundredth had one");
    let (_, forgot) = table.with(102, open, |slot| slot.open = 50);
    assert!(!forgot, "the one before had nothing");
    let left = (2..=WAYS as u64).filter(|key| table.with_known(*key, |_| ()).is_some());
    assert_eq!(left.count(), WAYS - 1);
}

#[test]
fn its_memory_is_known() {
    assert_eq!(size_of::<Slot>(), 40);
    let set_bytes = size_of::<Mutex<[Slot; WAYS]>>();
    let table = Table::new(super::super::PLACES, SECRET);
    assert_eq!(table.sets.len() * WAYS, super::super::PLACES);
    assert!(table.sets.len() * set_bytes < 2_800_000);
}

#[test]
fn another_secret_puts_keys_elsewhere() {
    let (one, other) = (Table::new(1 << 16, [1, 2]), Table::new(1 << 16, [1, 3]));
    let same = (0..100).filter(|name: &u8| one.key_of(&[*name]) == other.key_of(&[*name]));
    assert_eq!(same.count(), 0);
}
