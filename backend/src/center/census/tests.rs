use std::sync::Arc;

use super::{Census, NAMES_MAX};

fn named(names: &[(&str, u64)]) -> Vec<(Option<Arc<str>>, u64)> {
    let named = names
        .iter()
        .map(|(name, count)| (Some((*name).into()), *count));
    named.collect()
}

#[test]
fn who_enters_is_counted_until_it_leaves() {
    let mut census = Census::default();
    let first = census.enter(7, "steam");
    let second = census.enter(7, "web");
    census.enter(8, "steam");
    assert_eq!(census.versions(), [(Some(7), 2), (Some(8), 1)]);
    assert_eq!(census.channels(), named(&[("steam", 2), ("web", 1)]));
    census.leave(first);
    census.leave(second);
    assert_eq!(census.versions(), [(Some(8), 1)]);
    assert_eq!(census.channels(), named(&[("steam", 1)]));
}

#[test]
fn clients_cannot_make_more_names_than_are_told_apart() {
    let mut census = Census::default();
    let counted: Vec<_> = (0..1_000)
        .map(|number| census.enter(number, &format!("made-up-{number}")))
        .collect();
    let versions = census.versions();
    assert_eq!(versions.len(), NAMES_MAX + 1);
    assert_eq!(versions.last(), Some(&(None, 1_000 - NAMES_MAX as u64)));
    for one in counted.into_iter().rev() {
        census.leave(one);
    }
    assert_eq!((census.versions(), census.channels()), (vec![], vec![]));
    // Names that nobody has any more have made room.
    census.enter(5_000, "honest");
    assert_eq!(census.versions(), [(Some(5_000), 1)]);
    assert_eq!(census.channels(), named(&[("honest", 1)]));
}
