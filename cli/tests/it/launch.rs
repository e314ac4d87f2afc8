//! Roles started one by one, on free ports, from files written as an operator
//! would: what the tests of the command line need.
//!
//! The harness for load and faults is `cluster`. Invariant: every process is
//! killed when it is dropped.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::{run, sallyport};

/// Longest wait for anything that a loaded machine may delay.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running process with its lines.
pub struct Launched {
    child: Child,
    lines: Receiver<String>,
    /// Every line so far.
    pub seen: Vec<String>,
}

impl Launched {
    /// Starts a command and collects what it prints.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (sender, lines) = channel();
        let out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        let other = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                let _ = other.send(line);
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that contains `text`, and returns it.
    pub fn line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {text:?}:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("kill starts");
        assert!(status.success());
    }

    /// Waits for the end; `within` is part of what is promised.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still runs:\n{}",
                self.seen.join("\n")
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A role and where it listens.
pub struct Role {
    /// The process.
    pub process: Launched,
    /// Its listener.
    pub listen: String,
    /// Its admin port.
    pub admin: String,
}

impl Role {
    /// Starts a role from `ROLE.toml`.
    pub fn start(directory: &Path, role: &str, set: &[&str]) -> Self {
        let mut command = sallyport(directory, &[role, "--config", &format!("{role}.toml")]);
        command.args(["--set", "log.format=json"]);
        for text in set {
            command.args(["--set", text]);
        }
        let mut process = Launched::start(command);
        let line = process.line("\"started\"");
        let started: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let text = |name: &str| started[name].as_str().expect("an address").to_owned();
        Self {
            listen: text("listen"),
            admin: text("admin"),
            process,
        }
    }
}

/// Keys and files of three roles.
pub struct Files {
    directory: tempfile::TempDir,
    /// What clients pin.
    pub gateway_key: String,
    /// The secret that signs tokens.
    pub token_secret: String,
    identities: [String; 3],
    token_key: String,
}

impl Files {
    /// Makes keys, and the files of center and game.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let make = |kind: &str, file: &str| {
            let outcome = run(directory.path(), &["keygen", kind, "--out", file]);
            assert_eq!(outcome.code, 0, "{}", outcome.err);
            outcome.out.trim().to_owned()
        };
        let gateway_key = make("gateway", "gateway.key");
        let token_key = make("token", "token.secret");
        let identities = ["gateway.identity", "center.identity", "game.identity"]
            .map(|file| make("identity", file));
        let secret = fs::read_to_string(directory.path().join("token.secret")).expect("a key");
        let files = Self {
            directory,
            gateway_key,
            token_secret: secret.trim().to_owned(),
            identities,
            token_key,
        };
        for role in ["center", "game"] {
            files.write(
                role,
                &format!(
                    "role = \"{role}\"\n[listen]\nquic = \"127.0.0.1:0\"\ngateway_keys = [\"{}\"]\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\n",
                    files.identities[0]
                ),
            );
        }
        files
    }

    /// Where the files lie.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the gateway's file, whose peers are known only now.
    pub fn write_gateway(&self, center: &str, game: &str) {
        let [_, center_key, game_key] = &self.identities;
        self.write(
            "gateway",
            &format!(
                "role = \"gateway\"\n[listen]\ntcp = \"127.0.0.1:0\"\n\
             [token]\nkeys = [\"{}\"]\n\
             [center]\naddress = \"{center}\"\nkey = \"{center_key}\"\n\
             [[group]]\nid = 1\nname = \"echo\"\n\
             instances = [{{ address = \"{game}\", key = \"{game_key}\" }}]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n",
                self.token_key
            ),
        );
    }

    /// A key that is nobody's where a backend's is expected.
    pub fn wrong_key(&self) -> &str {
        &self.identities[0]
    }

    fn write(&self, role: &str, text: &str) {
        fs::write(self.path().join(format!("{role}.toml")), text).expect("it is written");
    }
}

/// Asks an admin port; status and body.
pub fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// Waits until the admin port answers `path` with `status`.
pub fn wait_for(address: &str, path: &str, status: u16) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (got, body) = get(address, path);
        if got == status {
            return body;
        }
        assert!(Instant::now() < deadline, "{path} says {got}: {body}");
        thread::sleep(Duration::from_millis(10));
    }
}
