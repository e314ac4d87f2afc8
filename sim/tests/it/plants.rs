//! Each broken behaviour is found by the rule that it breaks, within 100 seeds.

use std::collections::BTreeSet;

use sim::{Plant, Rule};

/// Seeds within which a plant must be found.
const SEEDS: u64 = 100;

#[test]
fn each_plant_is_found() {
    for &plant in Plant::ALL {
        let found = (0..SEEDS).find_map(|seed| sim::run(seed, Some(plant), false).err());
        let found = found.map(|violation| violation.rule);
        assert_eq!(found, Some(plant.rule()), "{}", plant.name());
    }
}

#[test]
fn each_rule_has_a_plant() {
    let covered: BTreeSet<Rule> = Plant::ALL.iter().map(|plant| plant.rule()).collect();
    let all: BTreeSet<Rule> = Rule::ALL.into_iter().collect();
    assert_eq!(covered, all);
}
