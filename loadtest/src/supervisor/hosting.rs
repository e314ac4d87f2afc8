//! Where workers live, and the pipes to them.

use std::io::{self, BufRead as _, BufReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::WORKER_SUBCOMMAND;
use crate::messages::{FromWorker, LINE_BYTES_MAX, ToWorker, WorkerPlan};
use crate::worker;

/// Messages that wait for the parent; a worker that is ahead waits.
const INBOX_MESSAGES: usize = 256;

/// Where workers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosting {
    /// In re-executions of the running binary, whose `loadtest-worker`
    /// subcommand calls [`crate::worker_main`].
    Processes,
    /// In threads of this process, for programs that are another binary. The
    /// open-file limit is then shared with everything else in it.
    Threads,
}

/// The workers of a run. Dropping it ends them.
pub(super) struct Workers {
    /// What they say, `None` at the end of each.
    pub(super) inbox: Receiver<(usize, Option<FromWorker>)>,
    inputs: Vec<Option<Box<dyn Write + Send>>>,
    children: Vec<Child>,
}

impl Workers {
    pub(super) fn start(plans: &[WorkerPlan], hosting: Hosting) -> io::Result<Self> {
        let (outbox, inbox) = sync_channel(INBOX_MESSAGES);
        let mut workers = Self {
            inbox,
            inputs: Vec::new(),
            children: Vec::new(),
        };
        for (at, plan) in plans.iter().enumerate() {
            let (input, output) = match hosting {
                Hosting::Processes => workers.spawn_process()?,
                Hosting::Threads => spawn_thread()?,
            };
            workers.inputs.push(Some(input));
            let outbox = outbox.clone();
            thread::Builder::new()
                .name(format!("loadtest-reader-{at}"))
                .spawn(move || read_lines(at, output, &outbox))?;
            workers.send_to(at, &ToWorker::Plan(Box::new(plan.clone())));
        }
        Ok(workers)
    }

    fn spawn_process(&mut self) -> io::Result<Pipes> {
        let mut child = Command::new("/proc/self/exe")
            .arg(WORKER_SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        self.children.push(child);
        let (input, output) = pipes.ok_or_else(|| io::Error::other("a worker has no pipes"))?;
        Ok((Box::new(input), Box::new(output)))
    }

    /// Tells every worker. One that is gone shows by its output's end.
    pub(super) fn send(&mut self, message: &ToWorker) {
        for at in 0..self.inputs.len() {
            self.send_to(at, message);
        }
    }

    fn send_to(&mut self, at: usize, message: &ToWorker) {
        let Some(input) = self.inputs[at].as_mut() else {
            return;
        };
        let sent = serde_json::to_vec(message)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                input.write_all(&line)?;
                input.flush()
            });
        if sent.is_err() {
            self.inputs[at] = None;
        }
    }

    /// Ends them now.
    pub(super) fn kill(&mut self) {
        self.inputs.clear();
        for child in &mut self.children {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.kill();
    }
}

type Pipes = (Box<dyn Write + Send>, Box<dyn Read + Send>);

fn spawn_thread() -> io::Result<Pipes> {
    let (worker_input, input) = io::pipe()?;
    let (output, worker_output) = io::pipe()?;
    thread::Builder::new()
        .name(String::from("loadtest-worker"))
        .spawn(move || {
            let mut worker_output: PipeWriter = worker_output;
            worker::serve(OwnedFd::from(worker_input), &mut worker_output)
        })?;
    Ok((Box::new(input), Box::new(output)))
}

/// Hands on each line of a worker until it ends or says something else.
fn read_lines(
    worker: usize,
    output: Box<dyn Read + Send>,
    outbox: &SyncSender<(usize, Option<FromWorker>)>,
) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut output)
            .take(LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line);
        let message = match read {
            Ok(1..) => serde_json::from_slice(&line).ok(),
            Ok(0) | Err(_) => None,
        };
        let is_end = message.is_none();
        if outbox.send((worker, message)).is_err() || is_end {
            return;
        }
    }
}
