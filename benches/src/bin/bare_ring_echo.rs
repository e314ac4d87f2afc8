//! TCP echo on a bare ring: see `benches::echo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    benches::echo::main(benches::echo::ring::serve)
}
