//! Names are well formed and stand beside the numbers they belong to.

use super::*;

fn value(samples: impl Iterator<Item = (Metric, u64)>, name: &str, label: &str) -> u64 {
    let mut found = samples.filter(|(metric, _)| {
        metric.name == name && metric.label.map_or("", |(_, value)| value) == label
    });
    let (_, value) = found.next().expect(name);
    assert!(found.next().is_none(), "{name} {label} twice");
    value
}

#[test]
fn numbers_stand_where_their_names_say() {
    let mut links = LinkCounts {
        links: 7,
        ..LinkCounts::default()
    };
    links.faults[LinkFault::ALL.len() - 1] = 8;
    let center = CenterCounters::default();
    center.publish(
        &CenterCounts {
            granted: 1,
            restarting: true,
            ..CenterCounts::default()
        },
        &links,
    );
    let of = |name, label| value(center.samples(), name, label);
    assert_eq!(of("sallyport_center_claims_total", "granted"), 1);
    assert_eq!(of("sallyport_center_restarting", ""), 1);
    assert_eq!(of("sallyport_center_links", ""), 7);
    assert_eq!(of("sallyport_center_links_closed_total", "shutdown"), 8);
    let mut stub = StubCounts {
        syncs: 2,
        qualities: 6,
        ..StubCounts::default()
    };
    stub.drops[DropReason::SequencedStale as usize] = 3;
    stub.kicks[0] = 4;
    let game = GameCounters::default();
    let counts = GameCounts {
        frames_unsent: 5,
        ..GameCounts::default()
    };
    game.publish(&stub, &counts, &links);
    let of = |name, label| value(game.samples(), name, label);
    assert_eq!(of("sallyport_game_syncs_total", ""), 2);
    assert_eq!(of("sallyport_game_frames_unsent_total", ""), 5);
    assert_eq!(of("sallyport_game_qualities_total", ""), 6);
    assert_eq!(of("sallyport_game_drops_total", "sequenced_stale"), 3);
    assert_eq!(
        of("sallyport_game_kicks_total", CloseReason::ALL[0].label()),
        4
    );
    assert_eq!(of("sallyport_game_links_closed_total", "shutdown"), 8);
}

#[test]
fn names_tell_counters_from_gauges() {
    let center = CenterCounters::default();
    let game = GameCounters::default();
    for (metric, _) in center.samples().chain(game.samples()) {
        let is_total = metric.name.ends_with("_total");
        assert_eq!(is_total, metric.kind == Counter, "{}", metric.name);
        assert!(metric.name.starts_with("sallyport_"));
    }
}
