//! Each target for a moment, with a fixed seed: what is found here was broken by the last change.

use std::collections::HashSet;

use fuzz::run::{Run, execute};
use fuzz::script::{Script, Way};
use fuzz::{TARGETS, Target, corpus, target};

/// Runs a target, its corpus first.
fn run(target: &Target, executions: u64) -> Run {
    let inputs = corpus::load(target).expect("the corpus can be read");
    let mut run = Run::new(*target, inputs, 1);
    for _ in 0..executions {
        if let Err(crash) = run.step() {
            panic!(
                "{} after {}: {} by the input {:02x?}",
                target.name,
                run.executions(),
                crash.message,
                crash.input
            );
        }
    }
    println!(
        "{}: {} executions, {} ways, slowest {} ms",
        target.name,
        run.executions(),
        run.ways(),
        run.slowest().as_millis()
    );
    run
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let target = target(stringify!($name)).expect("a target of this name");
            let run = run(target, target.executions);
            // A target that does the same with every input checks nothing.
            assert!(run.ways() > 3, "{} ways", run.ways());
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = HashSet::from([$(stringify!($name)),*]);
            for target in TARGETS {
                assert!(tested.contains(target.name), "{} has none", target.name);
            }
            assert_eq!(tested.len(), TARGETS.len());
        }
    };
}

targets! {
    body chunks setup records control world config token compression handshake envelope reassembly
    websocket front stream streams datagram datagrams client client_datagrams shard shard_websocket
    shard_datagrams shard_backends center stub
}

/// Trusts a length, but only in a message of the right kind that has passed a check before.
fn planted(data: &[u8]) -> u64 {
    let mut way = Way::default();
    let mut script = Script::new(data);
    if script.u8() == 7 {
        way.note(1);
        if script.u16() == 0x8000 {
            way.note(2);
            let length = usize::from(script.u8());
            let rest = script.rest();
            assert!(length <= rest.len() + 8, "a planted bug");
        }
    }
    way.value()
}

#[test]
fn the_mutator_finds_a_planted_bug_and_finds_it_again() {
    let target = Target {
        name: "planted",
        run: planted,
        seeds: || vec![b"\x05\0\0\x02rest of it".to_vec()],
        executions: 50_000,
    };
    let mut run = Run::new(target, (target.seeds)(), 1);
    let crash = (0..target.executions).find_map(|_| run.step().err());
    let crash = crash.expect("found within its executions");
    assert_eq!(crash.message, "a planted bug");
    assert_eq!(execute(&target, &crash.input), Err(crash));
    println!("found after {} executions", run.executions());
}

#[test]
fn equal_seeds_make_equal_runs() {
    let ways = |seed| {
        let target = target("body").expect("a target of this name");
        let mut run = Run::new(*target, corpus::load(target).expect("readable"), seed);
        for _ in 0..500 {
            run.step().expect("nothing is found");
        }
        run.ways()
    };
    assert_eq!(ways(3), ways(3));
}

#[test]
fn every_target_has_seeds_of_a_good_length() {
    for target in TARGETS {
        let inputs = corpus::load(target).expect("the corpus can be read");
        assert!(!inputs.is_empty(), "{} has no seeds", target.name);
        for input in inputs {
            assert!(input.len() <= fuzz::INPUT_BYTES_MAX, "{}", target.name);
        }
    }
}
