//! The binary: arguments in, exit code out.
//!
//! Owns the allocator, the dispatch to commands, and what the exit codes mean:
//! 0 done and good, 1 ran and found something wrong, 2 could not run. Commands
//! are modules of their own.

#![forbid(unsafe_code)]

mod admin;
mod args;
mod check;
mod dev;
mod doctor;
mod impair;
mod keygen;
mod keys;
mod logging;
mod operator;
mod output;
mod roles;
mod run;
mod signals;
mod token;

use std::process::ExitCode;

use clap::Parser as _;
use sallyport::config;

use args::{Arguments, Command};

/// Measured to be quicker than the system's for many small, short-lived
/// buffers, and it gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a command that could run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done, and nothing is wrong.
    Good,
    /// It ran and found something wrong, and has said what.
    Wrong,
    /// It has judged itself, and said what there is to say.
    Code(u8),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments.command) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::from(1),
        Ok(Verdict::Code(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<Verdict> {
    match command {
        Command::Loadtest(arguments) => Ok(Verdict::Code(loadtest::run_command(&arguments))),
        Command::LoadtestWorker => Ok(Verdict::Code(loadtest::worker_main())),
        Command::Impair(arguments) => impair::run(&arguments),
        Command::Admin(arguments) => operator::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Token(arguments) => token::run(&arguments.command),
        Command::Check(arguments) => check::check(&arguments),
        Command::Config(arguments) => check::effective(&arguments),
        Command::Doctor => Ok(doctor::run()),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Gateway(arguments) => run::run(&arguments, "gateway"),
        Command::Center(arguments) => run::run(&arguments, "center"),
        Command::Game(arguments) => run::run(&arguments, "game"),
    }
}
