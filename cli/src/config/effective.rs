//! The configuration in force as text, and what differs between two of them.
//!
//! Owns printing for `config --effective` and judging a reload. Invariants: a
//! secret is never in the output; the output is a configuration file that
//! means the same (but for redacted secrets).

use std::fmt::Write as _;

use super::reader::Entry;
use super::tree::Origin;

/// What a reload would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub path: String,
    /// What it was, for people.
    pub before: Option<String>,
    /// What it is now, for people.
    pub after: Option<String>,
    /// Whether the running process can take it over.
    pub reloadable: bool,
}

/// The entries as TOML with the origin of each value behind it.
pub fn render(entries: &[Entry]) -> String {
    let mut out = String::new();
    let mut section = String::new();
    // Keys of the document have to stand before the first section, and a section stands once.
    let mut places = vec![""];
    for place in entries.iter().map(place_of) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let mut ordered: Vec<&Entry> = entries.iter().collect();
    ordered.sort_by_key(|entry| places.iter().position(|place| *place == place_of(entry)));
    let mut rest = ordered.into_iter().peekable();
    while let Some(entry) = rest.next() {
        let (place, name) = entry.path.rsplit_once('.').unwrap_or(("", &entry.path));
        if let Some((list, _)) = place.split_once(".instances.") {
            // The keys of one instance follow each other, and so do the
            // instances of one group: they become one array.
            let mut last = place.to_owned();
            let mut array = format!("instances = [\n    {{ {name} = {}", entry.shown());
            while let Some(next) =
                rest.next_if(|next| next.path.starts_with(&format!("{list}.instances.")))
            {
                let (place, name) = next.path.rsplit_once('.').unwrap_or(("", &next.path));
                let joint = if place == last { ", " } else { " },\n    { " };
                let _ = write!(array, "{joint}{name} = {}", next.shown());
                place.clone_into(&mut last);
            }
            let _ = writeln!(out, "{array} }},\n]");
            continue;
        }
        if place != section {
            place.clone_into(&mut section);
            match place.split_once('.') {
                Some((list, at)) if at.parse::<usize>().is_ok() => {
                    _ = writeln!(out, "\n[[{list}]]");
                }
                _ => _ = writeln!(out, "\n[{place}]"),
            }
        }
        let from = match &entry.origin {
            Origin::Default => "  # default".to_owned(),
            Origin::Line(_) => String::new(),
            origin @ (Origin::Environment(_) | Origin::Flag(_)) => format!("  # {origin}"),
        };
        let _ = writeln!(out, "{name} = {}{from}", entry.shown());
    }
    out
}

/// The section that a key stands in; "" for the top of the document.
fn place_of(entry: &Entry) -> &str {
    entry.path.rsplit_once('.').map_or("", |(place, _)| place)
}

/// The keys whose value differs.
pub fn changes(before: &[Entry], after: &[Entry]) -> Vec<Change> {
    let find =
        |entries: &'_ [Entry], path: &str| entries.iter().find(|entry| entry.path == path).cloned();
    let mut changes = Vec::new();
    for old in before {
        let new = find(after, &old.path);
        if new.as_ref().is_none_or(|new| new.value != old.value) {
            changes.push(Change {
                path: old.path.clone(),
                before: Some(old.shown().to_owned()),
                after: new.as_ref().map(|new| new.shown().to_owned()),
                reloadable: old.reloadable,
            });
        }
    }
    for new in after {
        if find(before, &new.path).is_none() {
            changes.push(Change {
                path: new.path.clone(),
                before: None,
                after: Some(new.shown().to_owned()),
                reloadable: new.reloadable,
            });
        }
    }
    // Positions of other groups or instances do not compare.
    let is_group = |change: &Change| change.path.starts_with("group.");
    if changes
        .iter()
        .any(|change| is_group(change) && !change.reloadable)
    {
        for change in changes.iter_mut().filter(|change| is_group(change)) {
            change.reloadable = false;
        }
    }
    changes
}
