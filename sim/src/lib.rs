//! The deterministic simulator: whole clusters of the very cores of client,
//! shard, center and backend stub in one thread and virtual time, with seeded
//! faults, and the rules of the design checked at every step.
//!
//! It does not test drivers, sockets or QUIC: those have tests of their own.
//!
//! Invariant: equal seeds give equal runs, to the byte.

#![forbid(unsafe_code)]

mod book;
mod clock;
mod disk;
mod flow;
mod game;
mod line;
mod message;
mod pipe;
mod plan;
mod plant;
mod proofs;
mod random;
mod rule;
mod talk;
mod thief;
mod tickets;
mod trace;
mod truth;
mod view;
mod walker;
mod web;
mod wire;
mod world;

use std::panic::{self, AssertUnwindSafe};

pub use plan::Course;
pub use plant::Plant;
pub use rule::{Rule, Violation};
pub use world::Report;

/// Runs the world of a seed, as the seed draws it. `loud` tells each event on standard error.
///
/// # Errors
/// The first rule that was broken; a panic is one of them.
pub fn run(seed: u64, plant: Option<Plant>, loud: bool) -> Result<Report, Violation> {
    run_course(seed, Course::Drawn, plant, loud)
}

/// Runs the world of a seed on a course.
///
/// # Errors
/// The first rule that was broken; a panic is one of them.
pub fn run_course(
    seed: u64,
    course: Course,
    plant: Option<Plant>,
    loud: bool,
) -> Result<Report, Violation> {
    let mut world = world::World::new(seed, course, plant, loud);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let at_ms = world.now().ms();
    let located = |violation: Violation| Violation {
        detail: format!("{} (at {at_ms} ms)", violation.detail),
        ..violation
    };
    match outcome {
        Ok(result) => result.map_err(located),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without words");
            Err(located(Violation::new(Rule::NoPanic, said)))
        }
    }
}
