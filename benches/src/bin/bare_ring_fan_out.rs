//! What anybody sends goes to all, the bare way: see `benches::fanout`.

use std::process::ExitCode;

fn main() -> ExitCode {
    benches::echo::main(benches::fanout::ring::serve)
}
