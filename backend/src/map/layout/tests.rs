//! Bricks against a scan of all zones, the checks of a configuration, and quantisation.

use protocol::world::Point;

use super::*;

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

#[test]
fn at_every_place_the_watchers_are_those_whose_zone_contains_it_at_most_three() {
    // The tightest sizes that are allowed: a unit less is refused below.
    let layout = Layout::new(small()).unwrap();
    let mut most = 0;
    for y in 0..390 {
        for x in 0..700 {
            let watchers = layout.watchers(Point { x, y });
            let (x, y) = (x as i32, y as i32);
            let mut wanted = Vec::new();
            for index in 0..layout.node_count() as u32 {
                let zone = layout.zone(NodeIndex(index));
                let margin = 48;
                let inside = |by: i32| {
                    (zone.left + by..zone.left + zone.width_units as i32 - by).contains(&x)
                        && (zone.top + by..zone.top + zone.height_units as i32 - by).contains(&y)
                };
                if inside(margin) {
                    assert_eq!(watchers.owner(), NodeIndex(index), "owner at {x}, {y}");
                }
                if inside(0) {
                    wanted.push(NodeIndex(index));
                }
            }
            let mut found = watchers.nodes().to_vec();
            found.sort_unstable();
            assert_eq!(found, wanted, "watchers at {x}, {y}");
            most = most.max(found.len());
        }
    }
    assert_eq!(most, WATCHERS_MAX);
}

fn refusal(change: impl FnOnce(&mut MapConfig)) -> MapConfigError {
    let mut config = small();
    change(&mut config);
    Layout::new(config).unwrap_err()
}

#[test]
fn a_bad_configuration_is_refused_with_its_key_and_bound() {
    let error = refusal(|config| config.node_width_units = 190);
    assert_eq!((error.key, error.least), ("node_width_units", 192));
    assert_eq!(
        error.to_string(),
        "node_width_units is 190, but must be such that twice (view_units + hysteresis_units) \
         fits into half of it (192 to 1048576)"
    );
    let error = refusal(|config| config.node_height_units = 95);
    assert_eq!((error.key, error.least), ("node_height_units", 96));
    let error = refusal(|config| config.node_width_units = 193);
    assert!(error.to_string().contains("even"));
    let error = refusal(|config| config.hysteresis_units = 41);
    assert_eq!((error.key, error.most), ("hysteresis_units", 40));
    assert_eq!(refusal(|config| config.view_units = 0).key, "view_units");
    assert_eq!(
        refusal(|config| config.visible_max = 256).key,
        "visible_max"
    );
    assert_eq!(refusal(|config| config.players_max = 0).key, "players_max");
    assert_eq!(refusal(|config| config.unit_mm = 0).key, "unit_mm");
    assert_eq!(refusal(|config| config.rest_ticks = 0).key, "rest_ticks");
    assert_eq!(
        refusal(|config| config.rotation_ticks = 0).key,
        "rotation_ticks"
    );
    assert_eq!(
        refusal(|config| config.width_units = u32::MAX).key,
        "width_units"
    );
    let error = refusal(|config| {
        config.width_units = MAP_UNITS_MAX;
        config.height_units = MAP_UNITS_MAX;
    });
    assert!(error.to_string().contains("more than 65,536 nodes"));
    Layout::new(MapConfig::default()).unwrap();
}

#[test]
fn a_place_in_metres_is_off_by_half_a_unit_at_most() {
    let layout = Layout::new(MapConfig {
        unit_mm: 250,
        ..small()
    })
    .unwrap();
    for step in 0..9_000 {
        let (x, y) = (f64::from(step) * 0.0193, f64::from(step) * 0.0107);
        let at = layout.quantise(x, y).unwrap();
        let (back_x, back_y) = layout.metres(at);
        assert!((back_x - x).abs() <= 0.125 + 1e-9 && (back_y - y).abs() <= 0.125 + 1e-9);
        assert_eq!(layout.quantise(back_x, back_y), Some(at));
    }
    for outside in [-0.2, 175.0, f64::NAN, f64::INFINITY, -1e300] {
        assert_eq!(layout.quantise(outside, 1.0), None);
    }
}
