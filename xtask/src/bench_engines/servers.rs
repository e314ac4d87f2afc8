//! Processes of a bench: where they run, where they listen, and their end.
//!
//! Invariant: a server ends when its [`Server`] is dropped, and also when this
//! process is killed: then the pipe closes that the server, or the shell above
//! it, reads from.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Runs "$@", says its process id, and kills it when standard input ends.
const UNTIL_STDIN_ENDS: &str =
    "\"$@\" >&2 & echo $!; read -r _; kill -KILL $! 2>/dev/null; wait $! 2>/dev/null";

/// A server that was started.
pub struct Server {
    /// The process whose CPU counts.
    pub process: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// The started process: the server, or the shell above it.
    child: Child,
    /// Held so that it runs on.
    stdin: Option<ChildStdin>,
}

impl Server {
    /// An echo server of `benches`.
    pub fn echo(binary: &Path, core: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_on(core, command)?;
        let stdin = child.stdin.take();
        let said = first_line(&mut child)?;
        let mut server = Self {
            process: child.id(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            stdin,
        };
        server.address = said
            .strip_prefix("listening ")
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("{} said `{said}`", binary.display()))?;
        Ok(server)
    }

    /// Any other command; its standard error goes to `log`. It has no address
    /// yet.
    pub fn command(
        binary: &Path,
        arguments: &[&str],
        directory: &Path,
        log: File,
        core: usize,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-c", UNTIL_STDIN_ENDS, "sh"])
            .arg(binary)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = spawn_on(core, command)?;
        let stdin = child.stdin.take();
        let said = first_line(&mut child)?;
        let mut server = Self {
            process: 0,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            stdin,
        };
        server.process = said
            .parse()
            .with_context(|| format!("the shell said `{said}`"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

fn first_line(child: &mut Child) -> anyhow::Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.as_mut() {
        BufReader::new(stdout.take(1_024)).read_line(&mut line)?;
    }
    Ok(line.trim().to_owned())
}

/// Starts a command on one of the cores that this process may use.
pub fn spawn_on(core: usize, mut command: Command) -> anyhow::Result<Child> {
    // A child inherits the cores of the thread that starts it; that thread is
    // given up, so this one stays as it is.
    let started = thread::spawn(move || -> anyhow::Result<Child> {
        let allowed = sched_getaffinity(None)?;
        let cpu = (0..CpuSet::MAX_CPU)
            .filter(|&cpu| allowed.is_set(cpu))
            .nth(core)
            .with_context(|| format!("there is no core {core} for this process"))?;
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)?;
        command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))
    });
    match started.join() {
        Ok(child) => child,
        Err(_) => bail!("the thread that starts a process has panicked"),
    }
}
