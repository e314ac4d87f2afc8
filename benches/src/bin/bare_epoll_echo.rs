//! TCP echo on bare epoll: see `benches::echo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    benches::echo::main(benches::echo::epoll::serve)
}
