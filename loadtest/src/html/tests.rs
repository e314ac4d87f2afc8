//! The page is well-formed and loads nothing, with everything in it and with nothing in it.

use super::{Record, page};
use crate::messages::Mixed;
use crate::report::tests::good;
use crate::server::Loss;
use crate::timeline::{Latency, Reading, RoleReading, Sample, Timeline};

/// Panics unless tags are balanced, attributes quoted, and `&` begins an entity.
pub fn assert_well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text.strip_prefix("<!DOCTYPE html>").unwrap_or(text);
    while let Some(start) = rest.find('<') {
        assert_entities(&rest[..start]);
        let end = start + rest[start..].find('>').expect("an end of each tag");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {rest:.80}");
            continue;
        }
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let name = tag.split(' ').next().expect("a name");
        assert!(
            name.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "<{tag}>"
        );
        // Outside of quotes only names and `=` are left.
        let bare: String = tag.split('"').step_by(2).collect();
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert_eq!(
            bare.matches('=').count(),
            tag.matches('"').count() / 2,
            "<{tag}>"
        );
        assert_entities(tag);
        if !is_empty {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    assert_entities(rest);
}

fn assert_entities(text: &str) {
    for part in text.split('&').skip(1) {
        let entity = part.split(';').next().expect("a part");
        assert!(
            ["amp", "lt", "gt", "quot", "#39", "#47"].contains(&entity),
            "&{part:.20}"
        );
    }
}

fn full() -> Record {
    let mut timeline = Timeline::default();
    for at in 1..=90_u32 {
        timeline.push(Sample {
            at_seconds: f64::from(at),
            clients: at.min(10) * 100,
            sent_per_second: 1_000.0,
            received_per_second: 990.0,
            latency: (at > 12).then_some(Latency {
                p50_us: 150.0,
                p99_us: 900.0 + f64::from(at),
            }),
            server: Some(Reading {
                at_seconds: f64::from(at),
                roles: vec![
                    RoleReading {
                        cpu_seconds: Some(f64::from(at) / 3.0),
                        rss_bytes: Some(u64::from(at) << 20),
                    };
                    3
                ],
            }),
        });
    }
    let loss = |series: &str, count| Loss {
        series: series.to_owned(),
        count,
    };
    Record {
        timeline,
        window: Some((12.0, 70.0)),
        curve: vec![(0.0, 100.0), (0.9, 200.0), (0.999, 4_000.0)],
        roles: [("gateway", 0), ("center", 0), ("game", 1)]
            .map(|(name, process)| (name.to_owned(), process))
            .into(),
        losses: Some(vec![
            loss("sallyport_gateway_drops_total{reason=\"before_login\"}", 12),
            loss(
                "sallyport_gateway_closes_total{reason=\"logged_out\"}",
                1_000,
            ),
            loss("sallyport_center_drops_total", 3),
        ]),
    }
}

fn assert_loads_nothing(page: &str) {
    let lower = page.to_ascii_lowercase();
    for sign in [
        "http:/",
        "https:/",
        "://",
        "src=",
        "href=",
        "url(",
        "@import",
        "<script",
        "<link",
        "<img",
        "<iframe",
        "<object",
        "<embed",
        "xlink",
        "javascript:",
        "onload",
    ] {
        assert!(!lower.contains(sign), "{sign}");
    }
}

#[test]
fn a_page_is_well_formed_and_loads_nothing() {
    let mut report = good();
    report.command = String::from("sallyport loadtest --admin http://127.0.0.1:7001 '<b>&'");
    report.visible_mean = Some(4.1);
    for wrong in [
        vec![],
        vec![String::from("--fail-if 'p99_us > 5': it is 7")],
    ] {
        let page = page(&report, &wrong, &full());
        assert_well_formed(&page);
        assert_loads_nothing(&page);
        for heading in [
            "Connections",
            "Rates",
            "Latency over time",
            "Latency by percentile",
            "CPU by role",
            "Memory by role",
            "Drops by reason",
            "Closed connections by reason",
        ] {
            assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
        }
        assert_eq!(page.matches("<svg").count(), 8);
        assert!(page.contains("gateway: before_login"));
        // Of the two processes the first has two roles.
        assert!(page.contains("gateway + center"));
    }
}

#[test]
fn a_run_that_left_nothing_has_a_page_all_the_same() {
    let page = page(
        &good(),
        &[String::from("it ended early")],
        &Record::default(),
    );
    assert_well_formed(&page);
    assert_loads_nothing(&page);
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(!page.contains("Drops"));
}

#[test]
fn a_server_that_lost_nothing_is_said_to() {
    let record = Record {
        losses: Some(Vec::new()),
        ..full()
    };
    assert!(page(&good(), &[], &record).contains("The server dropped nothing."));
}

#[test]
fn a_page_of_mixed_says_what_was_done() {
    let mut report = good();
    report.mixed = Some(Mixed {
        requests_sent: 1_200,
        sequenced_sent: 600,
        unreliable_sent: 601,
        payload_bytes_sent: 3_400_000,
        cuts: 40,
        logouts: 7,
        frames_lost_allowed: 9,
    });
    report.resumes = Some(39);
    report.back_p99_us = Some(2_500);
    report.frames_sent_beside = Some(1_111);
    let page = page(&report, &[], &full());
    assert_well_formed(&page);
    for (figure, name) in [
        ("1,200 / 600 / 601", "requests / sequenced / unreliable"),
        ("3.4 MB", "payloads sent"),
        ("40 / 7", "cuts / logouts and new logins"),
        ("9", "lost where none is promised"),
        ("1,111", "sent beside the connection"),
    ] {
        let figure = super::escape(figure);
        let tile = format!("<b>{figure}</b><span>{}</span>", super::escape(name));
        assert!(page.contains(&tile), "{tile}");
    }
    assert!(page.contains("resumes; back in "));
}
