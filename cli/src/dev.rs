//! `sallyport dev`: gateway, center and two games in one process, on loopback.
//!
//! Owns the order of the start, what is printed, and the status line. The
//! roles are those that run alone, with their real sockets and uplinks;
//! nothing in here carries a frame. Invariant: what it prints as `try:` works
//! as it stands while the process runs.

mod clients;
mod files;
mod status;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::time::MissedTickBehavior;
use tracing::level_filters::LevelFilter;

use crate::Verdict;
use crate::admin::AdminPort;
use crate::args::DevArguments;
use crate::config::{self, GameConfig, LogConfig, LogFormat, Overrides, RoleConfig};
use crate::output::say;
use crate::roles::{self, Running};
use crate::signals::{Request, Signals};
use crate::{check, logging, run};
use clients::Clients;
use files::Files;
use status::Status;

/// How long the start may take until the gateway has its uplinks. All of it is
/// on this machine, so a longer wait means that something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// How often readiness is looked at.
const READY_LOOK: Duration = Duration::from_millis(5);

/// How often the status line comes.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Runs the command until a signal ends it.
///
/// # Errors
/// A port is taken, or the data directory cannot be used.
pub fn run(arguments: &DevArguments) -> anyhow::Result<Verdict> {
    run::raise_open_files();
    logging::start(LogConfig {
        // The status line is what dev is about; what goes wrong still shows.
        level: LevelFilter::WARN,
        format: LogFormat::Text,
    })?;
    match &arguments.data {
        Some(directory) => {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
            run_in(directory, arguments)
        }
        None => {
            // Removed when it is dropped.
            let directory = tempfile::Builder::new()
                .prefix("sallyport-dev-")
                .tempdir()?;
            run_in(directory.path(), arguments)
        }
    }
}

fn run_in(directory: &Path, arguments: &DevArguments) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        // Before anything can be waited for, so that Ctrl-C works from the start.
        let _inside = runtime.enter();
        Signals::new()?
    };
    let admin_port = match arguments.port {
        0 => 0,
        port => port
            .checked_add(1)
            .context("--port: the admin port is the next one: take less")?,
    };

    let files = Files::make(directory)?;
    let (mut center, center_view) = roles::start(&load(&files.center()?)?)?;
    let games = [files.echo()?, files.walk()?, files.chat()?];
    let games = games.iter().map(|file| load_game(file));
    let games = games.collect::<anyhow::Result<Vec<_>>>()?;
    let (games, game_view) = roles::start_games(&games)?;
    let Ok([mut echo, mut walk, mut chat]) = <[Running; 3]>::try_from(games) else {
        bail!("one game of each kind was to be started");
    };
    let role = load(&files.gateway(
        arguments.port,
        admin_port,
        center.address,
        [echo.address, walk.address, chat.address],
    )?)?;
    let admin = AdminPort::bind(role.admin())?;
    let admin_address = admin.address()?;
    let (mut gateway, gateway_view) = roles::start(&role)?;
    let views = vec![Arc::clone(&gateway_view), center_view, game_view];
    admin.serve(views, signals.drain())?;

    runtime.block_on(async {
        let deadline = Instant::now() + READY_WITHIN;
        while let Some(reason) = (gateway_view.not_ready)() {
            ensure!(
                Instant::now() < deadline,
                "the gateway is not ready: {reason}"
            );
            tokio::select! {
                () = tokio::time::sleep(READY_LOOK) => {}
                request = signals.next() => if request != Request::Reload {
                    return Ok(Verdict::Good);
                },
            }
        }
        let engine = Status::of(&gateway_view).engine;
        say!("gateway  tcp  {}  engine {engine}", gateway.address);
        say!("center   quic {}", center.address);
        say!("game     quic {}  group 1, echo", echo.address);
        say!("game     quic {}  group 2, walk", walk.address);
        say!("game     quic {}  group 3, chat", chat.address);
        say!("admin    http://{admin_address}  /metrics /healthz /readyz /stats");
        say!("data     {}", directory.display());
        say!(
            "try: sallyport loadtest {} --key {} --token-key {} --admin http://{admin_address}",
            gateway.address,
            files.gateway_key,
            files.token_secret,
        );
        let clients = match arguments.clients {
            0 => None,
            count => Some(Clients::start(count, gateway.address, &files)?),
        };
        let mut ticks = tokio::time::interval(STATUS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = Status::of(&gateway_view);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let status = Status::of(&gateway_view);
                    say!("{}", status.line(&before, clients.as_ref().map(Clients::latency).unwrap_or_default()));
                    before = status;
                }
                ended = gateway.ended() => return Ok(run::failed(&ended)),
                ended = center.ended() => return Ok(run::failed(&ended)),
                ended = echo.ended() => return Ok(run::failed(&ended)),
                ended = walk.ended() => return Ok(run::failed(&ended)),
                ended = chat.ended() => return Ok(run::failed(&ended)),
                request = signals.next() => match request {
                    Request::Drain => break,
                    Request::EndNow => return Ok(Verdict::Good),
                    // Its files are made anew at each start.
                    Request::Reload => {}
                },
            }
        }
        if let Some(clients) = &clients {
            clients.stop();
        }
        Ok(run::drain(&mut signals, vec![gateway, echo, walk, chat, center]).await)
    })
}

fn load_game(file: &Path) -> anyhow::Result<GameConfig> {
    match load(file)? {
        RoleConfig::Game(config) => Ok(*config),
        other => bail!("{}: role is {}, not game", file.display(), other.name()),
    }
}

/// Only the file counts: variables that are meant for one role would hit all.
fn load(file: &Path) -> anyhow::Result<RoleConfig> {
    Ok(config::load(file, &Overrides::default(), &check::machine())?.role)
}
