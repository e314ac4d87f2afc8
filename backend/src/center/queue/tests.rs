//! The order against a naive list on random histories, and what is told of it.

use super::*;

const LINK: LinkId = LinkId(1);
const FORGIVEN_MS: u64 = 1_000;

fn claim(number: u64, account: &str) -> Claim {
    Claim {
        claim: number,
        account: account.to_owned(),
        ..Claim::default()
    }
}

fn at(ms: u64) -> Now {
    Now {
        time: Time(0).after_ms(ms),
        unix_ms: 1_800_000_000_000 + ms,
    }
}

fn accounts(queue: &Queue) -> Vec<String> {
    let waiting = queue.places.values();
    waiting
        .map(|waiting| waiting.claim.account.clone())
        .collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Who has a place: account, whether it returns, and until when it is kept while away.
type Naive = Vec<(String, bool, Option<u64>)>;

fn of_naive(naive: &Naive) -> Vec<String> {
    let lane = |returns| {
        let waiting = naive
            .iter()
            .filter(move |it| it.1 == returns && it.2.is_none());
        waiting.map(|it| it.0.clone())
    };
    lane(true).chain(lane(false)).collect()
}

#[test]
fn the_order_is_that_of_a_list() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut queue = Queue::new(12, FORGIVEN_MS, 1);
        let mut naive = Naive::new();
        let mut claims: HashMap<String, u64> = HashMap::new();
        let mut positions: HashMap<u64, u32> = HashMap::new();
        let (mut ms, mut number) = (0, 0);
        for _ in 0..600 {
            let account = format!("a{}", random.below(16));
            let known = naive.iter().position(|it| it.0 == account);
            match random.below(6) {
                0..=2 => {
                    number += 1;
                    assert_eq!(queue.takes(&account), known.is_some() || naive.len() < 12);
                    if !queue.takes(&account) {
                        continue;
                    }
                    let returns = random.below(3) == 0;
                    let older = queue.enter(at(ms), LINK, claim(number, &account), returns);
                    let waited = known.is_some_and(|place| naive[place].2.is_none());
                    let of = claims.insert(account.clone(), number);
                    assert_eq!(older.map(|(_, claim)| claim), of.filter(|_| waited));
                    match known {
                        Some(place) => naive[place].2 = None,
                        None => naive.push((account, returns, None)),
                    }
                    let word = queue
                        .first_word(at(ms).time, LINK, number)
                        .expect("it waits");
                    positions.insert(number, word.position);
                }
                3 => {
                    let Some(claim) = claims.get(&account) else {
                        continue;
                    };
                    let waits = known.is_some_and(|place| naive[place].2.is_none());
                    let given_up = random.below(4) == 0;
                    assert_eq!(queue.leave(at(ms).time, LINK, *claim, given_up), waits);
                    if let Some(place) = known.filter(|_| waits) {
                        match given_up {
                            true => drop(naive.remove(place)),
                            false => naive[place].2 = Some(ms + FORGIVEN_MS),
                        }
                    }
                }
                4 => {
                    let Some((place, _)) = queue.first() else {
                        continue;
                    };
                    let admitted = queue.admit(place).expect("the first");
                    assert_eq!(admitted.claim.account, of_naive(&naive)[0]);
                    naive.retain(|it| it.0 != admitted.claim.account);
                }
                _ => {
                    ms += random.below(400);
                    queue.expire(at(ms).time);
                    naive.retain(|it| it.2.is_none_or(|until| until > ms));
                    for placed in queue.look(at(ms).time).into_values().flatten() {
                        positions.insert(placed.claim, placed.position);
                    }
                }
            }
            assert_eq!(accounts(&queue), of_naive(&naive), "seed {seed}");
        }
        // In time everybody is told the truth.
        for _ in 0..4 {
            ms += 1_100;
            queue.expire(at(ms).time);
            for placed in queue.look(at(ms).time).into_values().flatten() {
                positions.insert(placed.claim, placed.position);
            }
        }
        for (index, account) in accounts(&queue).iter().enumerate() {
            assert_eq!(positions[&claims[account]], index as u32 + 1, "seed {seed}");
        }
    }
}

#[test]
fn a_place_outlives_center() {
    let mut queue = Queue::new(10, FORGIVEN_MS, 1);
    let mut places = Vec::new();
    for (number, account) in [(1, "ann"), (2, "bob"), (3, "cid")] {
        queue.enter(at(5_000), LINK, claim(number, account), false);
        let word = queue.first_word(at(5_000).time, LINK, number);
        places.push(word.expect("it waits").place);
    }
    // The shards tell their claims in any order; who comes meanwhile is behind.
    let mut queue = Queue::new(10, FORGIVEN_MS, 65_537);
    queue.enter(at(6_000), LINK, claim(4, "new"), false);
    for (number, account) in [(2, "bob"), (3, "cid"), (1, "ann")] {
        let again = Claim {
            place: places[number as usize - 1],
            ..claim(number, account)
        };
        queue.enter(at(6_000), LINK, again, false);
    }
    assert_eq!(accounts(&queue), ["ann", "bob", "cid", "new"]);
    // Somebody else's place is nobody's.
    let copied = Claim {
        place: places[0],
        ..claim(9, "mallory")
    };
    queue.enter(at(6_000), LINK, copied, false);
    assert_eq!(accounts(&queue)[4], "mallory");
}

#[test]
fn few_of_many_are_told_and_each_a_part_at_a_time() {
    const WAITING: u64 = 100_000;
    let mut queue = Queue::new(WAITING as usize, FORGIVEN_MS, 1);
    for number in 0..WAITING {
        queue.enter(at(0), LINK, claim(number, &number.to_string()), false);
        queue.first_word(at(0).time, LINK, number);
    }
    let (mut told, mut looks) = (0, 0);
    let mut ms = 0;
    while ms < 60_000 {
        // A hundred a second are let in.
        if ms % 1_000 == 0 {
            for _ in 0..100 {
                let (place, _) = queue.first().expect("many wait");
                queue.admit(place);
            }
        }
        let some: usize = queue.look(at(ms).time).values().map(Vec::len).sum();
        assert!(some <= LOOKED_AT_MAX);
        told += some;
        looks += 1;
        ms = (queue.next().expect("it goes on").ms()).max(ms + 1);
    }
    let a_second = told / 60;
    assert!((500..4_000).contains(&a_second), "{a_second} told a second");
    assert!(looks < 60 * 60, "{looks} looks in a minute");
}

#[test]
fn the_wait_is_told_from_how_fast_it_goes() {
    assert_eq!(seconds(50, 0), u32::MAX);
    assert_eq!(seconds(50, 10_000), 5);
    assert_eq!(seconds(1, 10_000_000), 1);
}

#[test]
fn who_returns_is_remembered_for_a_while() {
    let mut returning = Returning::new(1_000);
    let account: Arc<str> = "ann".into();
    returning.insert(Time(0), &account);
    let now = |ms| Time(0).after_ms(ms);
    assert!(returning.includes(now(999), "ann"));
    assert!(!returning.includes(now(1_000), "ann"));
    assert!(!returning.includes(now(0), "bob"));
    for number in 0..RETURNING_MAX + 10 {
        returning.insert(now(1), &number.to_string().into());
    }
    assert_eq!(returning.until.len(), RETURNING_MAX);
    returning.insert(now(5_000), &account);
    assert_eq!(returning.until.len(), 1);
}
