//! `sallyport loadtest`: simulated clients, the schedule of what they send, the
//! verification of what comes back, and the report.
//!
//! A run is one parent and one or more workers (re-executions of the running
//! binary), which speak JSON lines over stdin and stdout. The parent plans,
//! samples the server's admin ports and reports; workers own the sockets. The
//! cores ([`schedule`], [`ledger`], [`payload`], [`fail_if`], and the fleet of a
//! worker) read no clock and open no socket; [`worker`] drives them.
//!
//! Deliberately not here: the wire (that is `protocol`), sockets (`gateway`'s
//! engines), roles of the server.
//!
//! Invariant: a send that was scheduled ends as answered, lost or not sent (a
//! move in `walk`: as sent or not, and its effect is judged at the end); it is
//! never skipped, and its latency counts from the moment it was due.

#![forbid(unsafe_code)]

pub mod admin;
pub mod args;
pub mod clock;
pub mod compare;
pub mod fail_if;
mod fleet;
pub mod html;
pub mod latency;
pub mod ledger;
mod machine;
pub mod messages;
pub mod payload;
pub mod plan;
pub mod plot;
pub mod progress;
pub mod report;
pub mod schedule;
pub mod server;
pub mod supervisor;
mod tally;
pub mod timeline;
pub mod worker;

pub use args::{LoadtestArgs, LoadtestCommand};
pub use supervisor::{Hosting, execute, run, run_hosted};
pub use worker::worker_main;

/// The hidden subcommand under which the binary must call [`worker_main`].
pub const WORKER_SUBCOMMAND: &str = "loadtest-worker";

/// Does what the command line asks for; returns the exit code.
pub fn run_command(command: &LoadtestCommand) -> u8 {
    match (&command.other, &command.run) {
        (Some(args::OtherCommand::Compare(files)), _) => compare::run(&files.a, &files.b),
        (None, Some(args)) => run(args),
        // The command line does not let this through.
        (None, None) => EXIT_UNABLE,
    }
}

/// Done, and nothing was wrong.
pub const EXIT_GOOD: u8 = 0;
/// The test ran and found something wrong.
pub const EXIT_WRONG: u8 = 1;
/// The test could not run.
pub const EXIT_UNABLE: u8 = 2;
