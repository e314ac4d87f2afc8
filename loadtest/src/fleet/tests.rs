//! A fleet in virtual time against a server in memory that speaks the protocol
//! and misbehaves on purpose: each fault must be reported as what it is.

mod map;
mod mixed;
mod server;
mod walks;

use gateway::engine::{ClosedBy, ConnId};
use protocol::time::{Now, Time};
use protocol::token::Issuer;

use super::{Command, Fleet, Milestone};
use crate::args::{LaneName, Transport};
use crate::messages::{Outcome, WorkerPlan};
use server::{Fault, Server};

const CLIENTS: u32 = 20;
const SENDS: u64 = 400;
/// A fault hits one reply in so many.
const FAULT_EVERY: u64 = 40;
/// Virtual time of one step.
const STEP_US: u64 = 500;
/// Steps after which a run that has not ended is stuck.
const STEPS_MAX: u64 = 200_000;

fn plan(lane: LaneName) -> WorkerPlan {
    WorkerPlan {
        target: ([127, 0, 0, 1], 7_000).into(),
        gateway_key: server::public_key(),
        token_secret: String::new(),
        audience: String::from("sallyport"),
        account_prefix: String::from("test"),
        clients: CLIENTS,
        first: 0,
        count: CLIENTS,
        rate: 200.0,
        duration_ms: SENDS * 5,
        drain_ms: 3_000,
        seed: 1,
        transport: Transport::Tcp,
        lane,
        side_path: false,
        group: 1,
        payload_bytes: 64,
        walk: None,
        rooms: None,
        cut_every_ms: None,
        leave_every_ms: None,
        login_storm: None,
        uring: false,
    }
}

/// The secret of a token key: RFC 8032 §7.1, test 1, seed and public key.
fn token_secret() -> [u8; 64] {
    let hex = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\
               d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let mut secret = [0; 64];
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hex");
    }
    secret
}

/// Runs a fleet against a server until it is done.
fn run(plan: WorkerPlan, fault: Fault) -> Outcome {
    run_on(plan, Server::new(fault, FAULT_EVERY), fault)
}

fn run_on(plan: WorkerPlan, mut server: Server, fault: Fault) -> Outcome {
    let mut now = Time(1_000_000);
    let mut fleet = Fleet::new(plan, Issuer::new(&token_secret()).unwrap(), [7; 32], now);
    let mut generation = 0;
    for _ in 0..STEPS_MAX {
        now = now + STEP_US;
        while let Some(connect) = fleet.poll_connect(now) {
            let index = connect.index;
            let conn = ConnId { index, generation };
            generation += 1;
            fleet.handle_connecting(&connect, conn);
            if fault == Fault::Refuse {
                let why = ClosedBy::Error(std::io::ErrorKind::ConnectionRefused);
                fleet.handle_closed(conn, why, now);
            } else {
                let unix_ms = 1_700_000_000_000 + now.ms();
                fleet.handle_connected(conn, Now { time: now, unix_ms });
            }
        }
        fleet.handle_turn(now);
        while let Some(command) = fleet.poll_command(now) {
            match command {
                Command::Send(conn, buf) => {
                    server.handle_received(conn, &buf, now);
                    fleet.handle_sent(conn, buf);
                }
                Command::Close(conn) => server.forget(conn),
            }
        }
        server.handle_time(now);
        for (conn, mut bytes) in server.take_answers() {
            fleet.handle_received(conn, &mut bytes, now);
        }
        for conn in server.take_closed() {
            fleet.handle_closed(conn, ClosedBy::Peer, now);
        }
        match fleet.poll_milestone() {
            Some(Milestone::Ready) => fleet.handle_start(now),
            Some(Milestone::Drained) => fleet.handle_finish(now),
            Some(Milestone::Done) => return fleet.outcome(),
            None => {}
        }
    }
    panic!("the fleet is stuck");
}

fn faults(outcome: &Outcome) -> (u64, u64, u64, Vec<(&str, u64)>) {
    let errors = outcome
        .errors
        .iter()
        .map(|(reason, count)| (reason.as_str(), *count));
    (
        outcome.lost,
        outcome.duplicated,
        outcome.out_of_order,
        errors.collect(),
    )
}

#[test]
fn an_honest_server_leaves_nothing_to_report() {
    for lane in [
        LaneName::Reliable,
        LaneName::Unreliable,
        LaneName::Sequenced,
    ] {
        let outcome = run(plan(lane), Fault::None);
        assert_eq!(faults(&outcome), (0, 0, 0, vec![]), "{lane:?}");
        assert_eq!(outcome.unable, None);
        assert_eq!(outcome.logged_in_most, CLIENTS);
        assert_eq!(outcome.connect_failures, 0);
        assert_eq!(outcome.sent, SENDS);
        assert_eq!(outcome.sent_in_window, SENDS);
        assert_eq!(outcome.received, SENDS);
        assert_eq!(
            outcome.latency.iter().map(|(_, count)| count).sum::<u64>(),
            SENDS
        );
    }
}

#[test]
fn wrong_content_is_reported() {
    let hit = SENDS / FAULT_EVERY;
    for lane in [
        LaneName::Reliable,
        LaneName::Unreliable,
        LaneName::Sequenced,
    ] {
        let outcome = run(plan(lane), Fault::Corrupt);
        assert_eq!(
            faults(&outcome),
            (0, 0, 0, vec![("content", hit)]),
            "{lane:?}"
        );
    }
}

#[test]
fn doubled_replies_are_reported() {
    let hit = SENDS / FAULT_EVERY;
    for lane in [LaneName::Reliable, LaneName::Unreliable] {
        let outcome = run(plan(lane), Fault::Double);
        assert_eq!(faults(&outcome), (0, hit, 0, vec![]), "{lane:?}");
        assert_eq!(outcome.received, SENDS + hit);
    }
}

#[test]
fn missing_replies_are_reported() {
    let hit = SENDS / FAULT_EVERY;
    for lane in [
        LaneName::Reliable,
        LaneName::Unreliable,
        LaneName::Sequenced,
    ] {
        let outcome = run(plan(lane), Fault::Drop);
        assert_eq!(faults(&outcome), (hit, 0, 0, vec![]), "{lane:?}");
        assert_eq!(outcome.received, SENDS - hit);
    }
}

#[test]
fn reordered_replies_are_reported_where_the_lane_has_an_order() {
    for lane in [LaneName::Reliable, LaneName::Sequenced] {
        let (lost, doubled, out_of_order, errors) = {
            let outcome = run(plan(lane), Fault::Reorder { before: SENDS / 2 });
            let (lost, doubled, out_of_order, errors) = faults(&outcome);
            (lost, doubled, out_of_order, errors.len())
        };
        assert_eq!((lost, doubled, errors), (0, 0, 0), "{lane:?}");
        assert!(out_of_order > 0, "{lane:?}");
    }
    let outcome = run(
        plan(LaneName::Unreliable),
        Fault::Reorder { before: SENDS / 2 },
    );
    assert_eq!(faults(&outcome), (0, 0, 0, vec![]));
}

#[test]
fn an_error_in_place_of_a_reply_is_reported() {
    let hit = SENDS / FAULT_EVERY;
    let outcome = run(plan(LaneName::Reliable), Fault::Error);
    assert_eq!(faults(&outcome), (0, 0, 0, vec![("error_reply", hit)]));
}

#[test]
fn a_reply_to_nothing_is_reported() {
    let hit = SENDS / FAULT_EVERY;
    let outcome = run(plan(LaneName::Reliable), Fault::Invent);
    assert_eq!(faults(&outcome), (0, 0, 0, vec![("unknown_reply", hit)]));
}

#[test]
fn a_server_that_cuts_everybody_ends_the_run_and_nothing_is_forgotten() {
    let outcome = run(plan(LaneName::Reliable), Fault::CutAll { after: 100 });
    assert_eq!(outcome.errors["peer_closed"], u64::from(CLIENTS));
    assert_eq!(outcome.sent + outcome.errors["not_sent"], SENDS);
    assert!(outcome.sent < SENDS);
    assert_eq!(outcome.sent - outcome.received, outcome.lost);
    assert!(outcome.window_end_us.is_some());
}

#[test]
fn a_target_that_refuses_makes_the_run_unable() {
    let outcome = run(plan(LaneName::Reliable), Fault::Refuse);
    let unable = outcome.unable.expect("a reason");
    assert!(unable.contains("connection_refused"), "{unable}");
    assert_eq!(outcome.logged_in_most, 0);
    assert_eq!(outcome.connect_failures, CLIENTS);
}

#[test]
fn another_gateway_key_makes_the_run_unable() {
    let mut plan = plan(LaneName::Reliable);
    plan.gateway_key = [9; 32];
    let unable = run(plan, Fault::None).unable.expect("a reason");
    assert!(unable.contains("--key"), "{unable}");
}

#[test]
fn a_group_that_never_comes_up_makes_the_run_unable() {
    let mut plan = plan(LaneName::Reliable);
    plan.group = 2;
    let unable = run(plan, Fault::None).unable.expect("a reason");
    assert!(unable.contains("group 2"), "{unable}");
}

#[test]
fn a_client_cut_at_its_first_attempts_gets_in_by_a_later_one() {
    let outcome = run(plan(LaneName::Reliable), Fault::CutHello { first: 30 });
    assert_eq!(faults(&outcome), (0, 0, 0, vec![]));
    assert_eq!(outcome.logged_in_most, CLIENTS);
}

#[test]
fn a_stalled_server_does_not_hide_its_latency() {
    let outcome = run(plan(LaneName::Reliable), Fault::Stall { until_ms: 1_000 });
    assert_eq!(faults(&outcome), (0, 0, 0, vec![]));
    let slow: u64 = outcome
        .latency
        .iter()
        .filter(|(us, _)| *us > 100_000)
        .map(|(_, count)| count)
        .sum();
    // Sends go on while nothing comes back: about 200 a second for a second.
    assert!(slow > 100, "{slow}");
}
