//! Roles as processes: from a configuration file to an orderly end.
//!
//! Owns the life of a process: limits, log, keys, admin port, signals, reload.
//! What a role does is behind [`Running`]. Invariants: everything that can keep
//! a role from starting is found before it serves anyone, and the error says
//! what to do; a first SIGTERM drains, a second one ends the process at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{error, info, warn};

use crate::Verdict;
use crate::admin::AdminPort;
use crate::args::RoleArguments;
use crate::check;
use crate::config::{self, Entry, Loaded, Overrides};
use crate::logging::{self, LogLevel};
use crate::roles::{self, Running};
use crate::signals::{Request, Signals};

/// A drain that has not ended by then is cut: what waits for it (an operator,
/// a service manager) gives up soon after.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(8);

/// Runs one role until a signal ends it.
///
/// # Errors
/// The configuration is wrong, or the machine does not let the role run.
pub fn run(arguments: &RoleArguments, role: &'static str) -> anyhow::Result<Verdict> {
    raise_open_files();
    let overrides = Overrides::of_process(&arguments.set);
    let read = || -> anyhow::Result<Loaded> {
        Ok(config::load(
            &arguments.config,
            &overrides,
            &check::machine(),
        )?)
    };
    let loaded = read()?;
    let file = arguments.config.display();
    anyhow::ensure!(
        loaded.role.name() == role,
        "{file}: role is \"{name}\": run it with `sallyport {name} --config {file}`",
        name = loaded.role.name()
    );
    let level = logging::start(loaded.role.log())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let admin = AdminPort::bind(loaded.role.admin())?;
    let (mut running, view) = roles::start(&loaded.role)?;
    info!(role, listen = %running.address, admin = %admin.address()?, "started");
    let guard = admin.guard();
    admin.serve(vec![view], signals.drain())?;

    let mut entries = loaded.entries;
    runtime.block_on(async {
        loop {
            tokio::select! {
                ended = running.ended() => return Ok(failed(&ended)),
                request = signals.next() => match request {
                    Request::Drain => break,
                    Request::EndNow => return Ok(Verdict::Good),
                    Request::Reload => {
                        let new = read().and_then(|new| {
                            let token = guard.read(new.role.admin())?;
                            let changed = running.reload(&new.role)?;
                            let is_other = guard.take(token);
                            if is_other {
                                info!("the admin port wants another token from now on");
                            }
                            Ok((is_other || changed, new))
                        });
                        match new {
                            Ok((changed, new)) => entries = reload(&level, entries, new, changed),
                            Err(wrong) => error!("not reloaded: {wrong:#}"),
                        }
                    }
                },
            }
        }
        Ok(drain(&mut signals, vec![running]).await)
    })
}

/// What the process answers to a role that ended while it should have run.
pub fn failed(ended: &anyhow::Result<()>) -> Verdict {
    if let Err(error) = ended {
        error!("{error:#}");
    }
    Verdict::Wrong
}

/// Ends roles in order, each once the one before it has ended, within
/// [`DRAIN_WITHIN`] for all; the next signal to end stops the waiting. A role
/// that fails while it ends makes the verdict a bad one.
pub async fn drain(signals: &mut Signals, roles: Vec<Running>) -> Verdict {
    let end = tokio::time::sleep(DRAIN_WITHIN);
    tokio::pin!(end);
    let mut verdict = Verdict::Good;
    for mut role in roles {
        info!(role = role.name, "draining");
        role.drain();
        loop {
            tokio::select! {
                ended = role.ended() => {
                    if ended.is_err() {
                        verdict = failed(&ended);
                    }
                    break;
                }
                () = &mut end => {
                    warn!(role = role.name, "the drain took too long; ending now");
                    return verdict;
                }
                request = signals.next() => if request == Request::EndNow {
                    return verdict;
                },
            }
        }
    }
    verdict
}

/// Takes over what can change, and says what cannot; `changed`: the role itself has taken
/// something over, and said so. Returns the entries that are in force as far as a later
/// reload is concerned.
fn reload(level: &LogLevel, before: Vec<Entry>, new: Loaded, changed: bool) -> Vec<Entry> {
    let changes = config::changes(&before, &new.entries);
    if changes.is_empty() && !changed {
        info!("reloaded: nothing has changed");
        return before;
    }
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    for change in &changes {
        let (from, to) = (shown(&change.before), shown(&change.after));
        if change.reloadable {
            info!(key = change.path, from, to, "reloaded");
        } else {
            warn!(
                key = change.path,
                from, to, "not reloaded: this key needs a restart"
            );
        }
    }
    level.set(new.role.log().level);
    // Keys that wait for a restart keep their old entry, so that the next
    // reload names them again.
    let waits = |path: &str| {
        changes
            .iter()
            .any(|change| change.path == path && !change.reloadable)
    };
    let kept = before.into_iter().filter(|entry| waits(&entry.path));
    let taken = new.entries.into_iter().filter(|entry| !waits(&entry.path));
    kept.chain(taken).collect()
}

/// Lifts the soft limit of open files to the hard one: the soft one exists for
/// programs that use `select`, which nothing in here does.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // Where this is forbidden, the check of `limits` says what it costs.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// The error of a listener that could not be opened, with what to do about it.
pub fn listen_error(
    key: &str,
    address: SocketAddr,
    protocol: &str,
    error: &io::Error,
) -> anyhow::Error {
    let port = address.port();
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let family = if protocol == "tcp" { "ltnp" } else { "lunp" };
            format!(
                "the {protocol} port is taken; `ss -{family} 'sport = :{port}'` shows by whom, \
                 or set {key} to another one"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no such address (`ip address` lists them); set {key}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("not allowed: ports below 1024 need CAP_NET_BIND_SERVICE; set {key}")
        }
        _ => format!("{error}; set {key}"),
    };
    anyhow::anyhow!("cannot listen on {address}: {advice}")
}
