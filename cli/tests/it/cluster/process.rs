//! One process of a cluster: starts it, ends it, looks at it from outside.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, Settings, binary, wait_until};

/// Lines of its log that a failed test shows.
const TAIL_LINES: usize = 25;

/// What a role's memory may differ by when all is over, bytes: buffers that its
/// pools keep, the ring's receive buffers (4 MiB, which count once they were
/// used), and pages of the allocator.
pub const RSS_SLACK_BYTES: u64 = 8 << 20;

/// Descriptors and memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    /// Open descriptors.
    pub open_files: usize,
    /// Memory in RAM.
    pub rss_bytes: u64,
}

/// A role's process, running or not.
pub struct Process {
    role: &'static str,
    /// What its files are named by.
    name: &'static str,
    settings: Settings,
    directory: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// For `NAME.toml` in that directory.
    pub fn new(
        directory: &Path,
        role: &'static str,
        name: &'static str,
        settings: Settings,
    ) -> Self {
        Self {
            role,
            name,
            settings,
            directory: directory.to_owned(),
            child: None,
        }
    }

    /// Starts it, again if it ran before; its log goes on.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file");
        let mut command = Command::new(binary());
        command
            .current_dir(&self.directory)
            .args([self.role, "--config", &format!("{}.toml", self.name)])
            // The allocator keeps freed pages for a second and takes memory in huge
            // ones; what is judged here is what the roles hold.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .env("MIMALLOC_ALLOW_THP", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        for setting in self.settings {
            command.args(["--set", setting]);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SALLYPORT__") {
                command.env_remove(name);
            }
        }
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&self) -> bool {
        // Its state 'Z' waits for us to collect it.
        self.child.as_ref().is_some_and(|child| {
            fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| {
                stat.rsplit(')')
                    .next()
                    .is_some_and(|rest| !rest.trim_start().starts_with('Z'))
            })
        })
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }

    /// Asks it to end in order.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Lets it read its configuration, and what that names, again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops it where it stands, until `thaw`.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("our own child");
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        wait_until(&format!("{} ends", self.name), patience, || {
            !self.is_running()
        });
        let mut child = self.child.take().expect("it was started");
        child.wait().expect("our own child")
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(self.log_path()) {
            file.read_to_end(&mut bytes).expect("a log file");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its open descriptors.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("it runs")
            .count()
    }

    /// Its memory in RAM, bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most that this has been since it was started or asked to forget.
    pub fn rss_bytes_peak(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Lets the kernel forget what the most was.
    pub fn forget_peak(&self) {
        let refs = format!("/proc/{}/clear_refs", self.id());
        fs::write(refs, "5").expect("our own child");
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a size in kB") * 1_024
    }

    /// What it holds of the machine.
    pub fn holdings(&self) -> Holdings {
        Holdings {
            open_files: self.open_files(),
            rss_bytes: self.rss_bytes(),
        }
    }

    /// Waits until it holds no more than it did, but for what pools may keep.
    pub fn wait_back(&self, before: Holdings) {
        self.wait_back_within(before, RSS_SLACK_BYTES);
    }

    /// The same where it may keep other than the usual memory.
    pub fn wait_back_within(&self, before: Holdings, kept_bytes: u64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.holdings();
            if now.open_files <= before.open_files && now.rss_bytes <= before.rss_bytes + kept_bytes
            {
                return;
            }
            let name = self.name;
            assert!(Instant::now() < end, "{name} held {before:?}, now {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("---- log of {}\n{tail}", self.name);
        }
        self.kill();
    }
}
