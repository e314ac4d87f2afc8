//! A load with one request outstanding on each connection: see
//! `benches::closed_loop`. Writes one JSON object.

use std::process::ExitCode;

use benches::closed_loop::{Args, run};
use clap::Parser as _;

fn main() -> ExitCode {
    let result = run(&Args::parse()).and_then(|outcome| Ok(serde_json::to_string(&outcome)?));
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("closed-loop: {error}");
            ExitCode::from(1)
        }
    }
}
