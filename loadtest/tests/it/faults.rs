//! Games that corrupt, double, drop and reorder: each fault is found, counted
//! exactly, and makes the run a failure.

use std::collections::BTreeMap;

use backend::stub::{Context, Departure, Game, Message, Request};
use loadtest::report::Report;
use protocol::ids::SessionId;

use crate::cluster::Cluster;

/// Answers given in a run of `SHORT`.
const SENDS: u64 = 500;
/// Every so many answers one is wrong.
const FAULT_EVERY: u64 = 50;
const FAULTS: u64 = SENDS / FAULT_EVERY;
const SHORT: &[&str] = &[
    "--clients",
    "25",
    "--rate",
    "1000",
    "--duration",
    "0.5",
    "--drain",
    "0.5",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Corrupt,
    Shorten,
    Double,
    Drop,
    /// An answer waits for the next one of its player, so there must be one.
    Reorder,
    Refuse,
}

struct FaultyGame {
    fault: Fault,
    answers: u64,
    held: BTreeMap<SessionId, (Request, Vec<u8>)>,
}

impl FaultyGame {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            answers: 0,
            held: BTreeMap::new(),
        }
    }

    /// The payloads to send for one that came.
    fn answer(&mut self, payload: &[u8]) -> Vec<Vec<u8>> {
        self.answers += 1;
        let mut payload = payload.to_vec();
        if self.answers.is_multiple_of(FAULT_EVERY) {
            match self.fault {
                Fault::Corrupt => {
                    if let Some(byte) = payload.last_mut() {
                        *byte ^= 0x10;
                    }
                }
                Fault::Shorten => drop(payload.pop()),
                Fault::Double => return vec![payload.clone(), payload],
                Fault::Drop => return Vec::new(),
                Fault::Reorder | Fault::Refuse => {}
            }
        }
        vec![payload]
    }
}

impl Game for FaultyGame {
    fn disconnected(&mut self, _: &mut Context<'_>, departure: &Departure) {
        self.held.remove(&departure.session);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        for payload in self.answer(message.payload) {
            let _ = context.push(message.session, message.lane, message.message, &payload);
        }
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        let answers = self.answer(payload);
        let is_hit = self.answers.is_multiple_of(FAULT_EVERY);
        if self.fault == Fault::Refuse && is_hit {
            let _ = context.reply_error(request, 7, "no");
            return;
        }
        let held = self.held.remove(&request.session);
        if self.fault == Fault::Reorder && is_hit && self.answers <= SENDS / 2 {
            self.held
                .insert(request.session, (*request, payload.to_vec()));
        } else {
            for payload in answers {
                let _ = context.reply(request, &payload);
            }
        }
        if let Some((request, payload)) = held {
            let _ = context.reply(&request, &payload);
        }
    }
}

fn run(fault: Fault, lane: &str) -> Report {
    let cluster = Cluster::start(FaultyGame::new(fault));
    let more: Vec<&str> = SHORT.iter().copied().chain(["--lane", lane]).collect();
    let (report, wrong) = cluster.load(&more);
    assert!(!wrong.is_empty(), "{fault:?} on {lane} was not noticed");
    assert_eq!(report.clients_connected, 25);
    assert_eq!(report.frames_sent, SENDS);
    report
}

/// Lost, doubled, out of order, errors.
fn found(report: &Report) -> (u64, u64, u64, Vec<(&str, u64)>) {
    (
        report.frames_lost,
        report.frames_duplicated,
        report.frames_out_of_order,
        report
            .errors
            .iter()
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect(),
    )
}

#[test]
fn a_corrupting_game_is_reported() {
    for lane in ["reliable", "unreliable", "sequenced"] {
        let report = run(Fault::Corrupt, lane);
        assert_eq!(
            found(&report),
            (0, 0, 0, vec![("content", FAULTS)]),
            "{lane}"
        );
    }
}

#[test]
fn a_game_that_cuts_payloads_is_reported() {
    let report = run(Fault::Shorten, "reliable");
    assert_eq!(found(&report), (0, 0, 0, vec![("content", FAULTS)]));
}

#[test]
fn a_doubling_game_is_reported() {
    for lane in ["reliable", "unreliable"] {
        let report = run(Fault::Double, lane);
        assert_eq!(found(&report), (0, FAULTS, 0, vec![]), "{lane}");
        assert_eq!(report.frames_received, SENDS + FAULTS);
    }
}

#[test]
fn a_dropping_game_is_reported() {
    for lane in ["reliable", "sequenced"] {
        let report = run(Fault::Drop, lane);
        assert_eq!(found(&report), (FAULTS, 0, 0, vec![]), "{lane}");
        assert_eq!(report.frames_received, SENDS - FAULTS);
    }
}

#[test]
fn a_reordering_game_is_reported() {
    let report = run(Fault::Reorder, "reliable");
    assert_eq!(found(&report), (0, 0, FAULTS / 2, vec![]));
}

#[test]
fn a_refusing_game_is_reported() {
    let report = run(Fault::Refuse, "reliable");
    assert_eq!(found(&report), (0, 0, 0, vec![("error_reply", FAULTS)]));
}
