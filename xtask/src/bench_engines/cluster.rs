//! A gateway with its center and a game, each a process of its own
//! with a configuration file, as in production.
//!
//! Owns a directory for their files, new for each run, so that no run meets
//! what another has left. Limits that a few clients that do all this machine can
//! would reach are off.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::Bench;
use super::servers::Server;

/// Until a role is up and its links stand.
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Lines of each log that an error shows.
const LOG_LINES: usize = 10;

/// See the module. Ends in the order of its fields.
pub struct Cluster {
    /// The gateway under test.
    pub gateway: Server,
    /// The game behind it.
    pub game: Server,
    _center: Server,
    /// What clients pin.
    pub gateway_key: String,
    /// What signs tokens.
    pub token_secret: String,
    directory: TempDir,
    admin: SocketAddr,
}

/// A role that is up.
struct Role {
    server: Server,
    admin: SocketAddr,
}

impl Cluster {
    /// Starts all three, with this kind of game, and waits until clients can log in.
    pub fn start(bench: &Bench, engine: &str, game: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let sallyport = bench.binaries.join("sallyport");
        let make = |kind: &str, file: &str| keygen(&sallyport, path, kind, file);
        let gateway_key = make("gateway", "gateway.key")?;
        let token_key = make("token", "token.secret")?;
        let gateway_identity = make("identity", "gateway.identity")?;
        let center_identity = make("identity", "center.identity")?;
        let game_identity = make("identity", "game.identity")?;
        let token_secret = fs::read_to_string(path.join("token.secret"))?;

        let backend = |role: &str| {
            format!(
                "role = \"{role}\"\nname = \"{role}\"\n\n\
                 [listen]\nquic = \"127.0.0.1:0\"\nidentity_file = \"{role}.identity\"\n\
                 gateway_keys = [\"{gateway_identity}\"]\n\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\n"
            )
        };
        let center = format!("{}\n", backend("center"));
        let game = format!(
            "{}\n[game]\nkind = \"{game}\"\ngroup = 1\n",
            backend("game")
        );
        let start = |role: &str, text: &str, core: usize| -> anyhow::Result<Role> {
            fs::write(path.join(format!("{role}.toml")), text)?;
            Role::start(&sallyport, path, role, core)
        };
        let center = start("center", &center, bench.other_core)?;
        let game = start("game", &game, bench.other_core)?;
        let (center_address, game_address) = (center.server.address, game.server.address);
        let gateway = format!(
            "role = \"gateway\"\nname = \"gateway\"\n\n\
             [listen]\ntcp = \"127.0.0.1:0\"\nkey_file = \"gateway.key\"\n\n\
             [engine]\nkind = \"{engine}\"\nshards = 1\npin = true\n\n\
             [limits]\nframes_per_second = 0\nbytes_per_second = 0\n\n\
             [token]\nkeys = [\"{token_key}\"]\n\n\
             [uplink]\nidentity_file = \"gateway.identity\"\n\n\
             [center]\naddress = \"{center_address}\"\nkey = \"{center_identity}\"\n\n\
             [[group]]\nid = 1\nname = \"game\"\n\
             instances = [{{ address = \"{game_address}\", key = \"{game_identity}\" }}]\n\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n"
        );
        let gateway = start("gateway", &gateway, bench.server_core)?;
        gateway.wait_until_ready()?;
        Ok(Self {
            gateway: gateway.server,
            game: game.server,
            _center: center.server,
            gateway_key,
            token_secret: token_secret.trim().to_owned(),
            admin: gateway.admin,
            directory,
        })
    }

    /// Receives for which the gateway's ring had no buffer: each is started
    /// again, so a figure with many of them says little about the rest.
    pub fn receives_starved(&self) -> anyhow::Result<u64> {
        let metrics = get(self.admin, "/metrics")?;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix("sallyport_gateway_receive_starved_total "))
            .context("the gateway does not count starved receives")?;
        Ok(value.trim().parse()?)
    }

    /// The ends of the logs, for an error.
    pub fn logs(&self) -> String {
        ["gateway", "game", "center"]
            .map(|role| format!("{role}:\n{}", tail(&log_path(self.directory.path(), role))))
            .join("\n")
    }
}

fn keygen(sallyport: &Path, directory: &Path, kind: &str, file: &str) -> anyhow::Result<String> {
    let output = Command::new(sallyport)
        .args(["keygen", kind, "--out", file])
        .current_dir(directory)
        .output()?;
    ensure!(
        output.status.success(),
        "keygen {kind}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn log_path(directory: &Path, role: &str) -> PathBuf {
    directory.join(format!("{role}.log"))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

impl Role {
    fn start(sallyport: &Path, directory: &Path, role: &str, core: usize) -> anyhow::Result<Self> {
        let log = log_path(directory, role);
        let file = format!("{role}.toml");
        let arguments = [role, "--config", &file, "--set", "log.format=json"];
        let mut server =
            Server::command(sallyport, &arguments, directory, File::create(&log)?, core)?;
        let deadline = Instant::now() + START_MAX;
        loop {
            let text = fs::read_to_string(&log)?;
            if let Some((listen, admin)) = text.lines().find_map(started) {
                server.address = listen;
                return Ok(Self { server, admin });
            }
            ensure!(
                Instant::now() < deadline,
                "{role} does not start:\n{}",
                tail(&log)
            );
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !is_ready(self.admin).context("asking /readyz")? {
            if Instant::now() >= deadline {
                bail!("the gateway does not get ready");
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

/// The addresses in the line that a role logs once it listens.
fn started(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "started").then_some(())?;
    Some((address("listen")?, address("admin")?))
}

fn is_ready(admin: SocketAddr) -> anyhow::Result<bool> {
    Ok(get(admin, "/readyz")?.starts_with("HTTP/1.1 200"))
}

/// Asks an admin port; the answer with its head.
fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(START_MAX))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
