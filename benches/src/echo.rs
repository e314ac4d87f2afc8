//! The floor that the gateway is compared with: one thread that echoes whatever
//! arrives, without parsing, checks or encryption. [`ring`] does it on a bare
//! ring, [`epoll`] on bare epoll.
//!
//! Deliberately not here: limits on clients that do not read. The only client
//! is [`closed_loop`](crate::closed_loop), with one request outstanding on each
//! connection.
//!
//! Invariant: bytes come back in order and once, whatever the size of reads.

pub mod epoll;
pub mod ring;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;

use crate::cores;

/// Bytes of a receive buffer: as the gateway's.
pub(crate) const RECEIVE_BYTES: usize = 4_096;
/// How often a server without events looks whether it is to stop.
pub(crate) const STOP_CHECK: Duration = Duration::from_millis(50);

/// Arguments of both servers.
#[derive(Debug, Parser)]
pub struct EchoArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddrV4,
    /// Most connections at once.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections_max: u32,
    /// The core to stay on, counted among those allowed.
    #[arg(long)]
    core: Option<usize>,
}

/// What runs until told to stop.
pub type Serve = fn(TcpListener, u32, &AtomicBool) -> io::Result<()>;

/// Runs a server until standard input ends; then its CPU seconds are written.
pub fn main(serve: Serve) -> ExitCode {
    match run(&EchoArgs::parse(), serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &EchoArgs, serve: Serve) -> io::Result<()> {
    if !args.listen.ip().is_loopback() {
        return Err(io::Error::other(
            "an echo without any check listens on loopback only",
        ));
    }
    loadtest::plan::raise_open_files()?;
    if let Some(core) = args.core {
        cores::pin(core)?;
    }
    let listener = listen(args.listen)?;
    println!("listening {}", listener.local_addr()?);
    io::stdout().flush()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        // However it ends, nobody holds the other side any more.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stopped.store(true, Ordering::Relaxed);
    });
    serve(listener, args.connections_max, &stop)?;
    println!("cpu_seconds {:.2}", cores::cpu_seconds(std::process::id())?);
    Ok(())
}

/// A listener with a backlog that a herd of connects fits into.
///
/// # Errors
/// The address cannot be had.
pub fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    // The kernel takes the smaller of this and somaxconn (listen(2)).
    listen(&socket, 4_096)?;
    Ok(TcpListener::from(socket))
}
