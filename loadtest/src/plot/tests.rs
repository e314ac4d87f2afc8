//! Axes that people can read, and charts that stay well-formed whatever they are given.

use super::{Axis, Bar, Chart, Ends, Range, Scale, Series, Unit, bars, escape, written};
use crate::html::tests::assert_well_formed;

fn axis(scale: Scale, unit: Unit) -> Axis {
    Axis {
        name: "name",
        scale,
        unit,
    }
}

fn ticks(values: &[f64], scale: Scale, unit: Unit) -> Vec<String> {
    let range = Range::of(values.iter().copied(), axis(scale, unit), Ends::Tick);
    let ticks = range.ticks(unit);
    ticks.into_iter().map(|tick| written(tick, unit)).collect()
}

#[test]
fn ticks_are_round_numbers_with_units() {
    for (values, scale, unit, expected) in [
        (&[37.0][..], Scale::Linear, Unit::Count, "0 10 20 30 40"),
        (&[1.0], Scale::Linear, Unit::Count, "0 1"),
        (
            &[9_400.0],
            Scale::Linear,
            Unit::Count,
            "0 2 k 4 k 6 k 8 k 10 k",
        ),
        (&[0.35], Scale::Linear, Unit::Number, "0 0.1 0.2 0.3 0.4"),
        (
            &[90e6],
            Scale::Linear,
            Unit::Bytes,
            "0 B 20 MiB 40 MiB 60 MiB 80 MiB 100 MiB",
        ),
        (
            &[150.0, 7_000.0],
            Scale::Log,
            Unit::Micros,
            "100 µs 1 ms 10 ms",
        ),
        (&[5.0], Scale::Log, Unit::Micros, "1 µs 10 µs"),
        (
            &[0.0, 0.9995],
            Scale::Quantile,
            Unit::Percent,
            "0 % 50 % 90 % 99 % 99.9 %",
        ),
        // Nothing to show has axes all the same.
        (&[], Scale::Linear, Unit::Count, "0 1"),
        (&[0.0], Scale::Log, Unit::Micros, "1 µs 10 µs"),
    ] {
        assert_eq!(ticks(values, scale, unit).join(" "), expected, "{values:?}");
    }
}

#[test]
fn numbers_are_short() {
    for (value, unit, expected) in [
        (1_234.0, Unit::Count, "1.23 k"),
        (0.0, Unit::Micros, "0 µs"),
        (870.0, Unit::Micros, "870 µs"),
        (1_500_000.0, Unit::Micros, "1.5 s"),
        (1_536.0, Unit::Bytes, "1.5 KiB"),
        (-2_048.0, Unit::Bytes, "-2 KiB"),
        (0.999, Unit::Percent, "99.9 %"),
        (12.0, Unit::Seconds, "12"),
    ] {
        assert_eq!(written(value, unit), expected);
    }
}

#[test]
fn charts_are_well_formed_whatever_they_are_given() {
    let hard = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -1.0,
        0.0,
        1e-300,
        0.5,
        1.0,
        1e300,
    ];
    for scale in [Scale::Linear, Scale::Log, Scale::Quantile] {
        for unit in [Unit::Count, Unit::Micros, Unit::Bytes, Unit::Percent] {
            for count in 0..hard.len() {
                let points = (0..count).map(|at| (hard[at], Some(hard[count - at - 1])));
                let chart = Chart {
                    title: "a < b & \"c\"",
                    x: axis(Scale::Linear, Unit::Seconds),
                    y: axis(scale, unit),
                    series: vec![Series {
                        name: String::from("<script>"),
                        points: points.chain([(2.0, None), (3.0, Some(4.0))]).collect(),
                    }],
                    window: Some((1.0, 2.0)),
                };
                let svg = chart.svg();
                assert_well_formed(&svg);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}

#[test]
fn a_gap_interrupts_the_line() {
    let chart = Chart {
        title: "title",
        x: axis(Scale::Linear, Unit::Seconds),
        y: axis(Scale::Linear, Unit::Count),
        series: vec![Series {
            name: String::from("name"),
            points: [Some(1.0), Some(2.0), None, Some(3.0), Some(1.0)]
                .into_iter()
                .enumerate()
                .map(|(at, y)| (at as f64, y))
                .collect(),
        }],
        window: None,
    };
    assert_eq!(chart.svg().matches("<path").count(), 2);
    assert!(chart.legend().is_empty());
}

#[test]
fn bars_come_longest_first() {
    let bar = |name: &str, value| Bar {
        name: name.to_owned(),
        value,
        look: 9,
    };
    let svg = bars(
        "title",
        &[bar("few", 1), bar("many", 1_000), bar("none", 0)],
    );
    assert_well_formed(&svg);
    assert!(svg.find("many") < svg.find("few") && svg.find("few") < svg.find("none"));
    assert!(svg.contains("1,000"));
    assert_well_formed(&bars("nothing", &[]));
}

#[test]
fn text_stands_for_itself() {
    assert_eq!(
        escape("<a href=\"http://x\">'&\u{1}"),
        "&lt;a href=&quot;http:&#47;&#47;x&quot;&gt;&#39;&amp; "
    );
}
