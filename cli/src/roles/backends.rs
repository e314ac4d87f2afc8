//! The settings of center and game, and their start.
//!
//! Owns one thread a role with a runtime of its own. Invariant: `start_*`
//! returns once the role is open (journal read, port bound), or with why not.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;

use backend::center::{CenterSettings, DoorSettings, Online};
use backend::center_driver::{self, CenterConfig as OpenCenterConfig, drive_center, open_center};
use backend::chat::ChatGame;
use backend::counters::{CenterCounters, GameCounters, Metric};
use backend::game::{GameConfig as OpenGameConfig, Notices, drive_game, notices, open_game};
use backend::journal::JournalEngine;
use backend::spread::{SpreadConfig, SpreadWalk, WorkerEnd, WorkerWatch};
use backend::stub::{EchoGame, Game, StubSettings};
use protocol::ids::GroupId;
use protocol::stream::OutboxLimits;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Running, boot};
use crate::admin::{RoleView, metrics};
use crate::config::{CenterConfig, GameConfig, GameKind, JournalKind, RoleConfig};
use crate::keys;

/// Starts center.
///
/// # Errors
/// A key is missing, the journal cannot be used, the port is taken.
pub fn start_center(config: &CenterConfig) -> anyhow::Result<(Running, RoleView)> {
    let (desk, desk_end) = center_driver::desk();
    let open = OpenCenterConfig {
        listen: config.listen.quic,
        identity: keys::read_identity(&config.listen.identity_file)?,
        gateway_keys: config.listen.gateway_keys.clone(),
        data_dir: config.data_dir.clone(),
        engine: match config.journal {
            JournalKind::Auto => None,
            JournalKind::Uring => Some(JournalEngine::Uring),
            JournalKind::Thread => Some(JournalEngine::Thread),
        },
        settings: CenterSettings {
            instance: config.name.clone(),
            boot: boot()?,
            lease_ms: u32::try_from(config.lease_ms).unwrap_or(u32::MAX),
            sessions_max: config.sessions_max as usize,
            door: door(config),
        },
        desk: desk_end,
    };
    let counters = Arc::new(CenterCounters::default());
    let shown = Arc::clone(&counters);
    let mut running = spawn("center", async move |shutdown: Shutdown, opened: Opened| {
        let center = open_center(open, counters).await?;
        let _ = opened.send(center.local_address()?);
        drive_center(center, ended(shutdown)).await;
        Ok(())
    })?;
    let told = desk.clone();
    let mut set = door(config);
    running.reload = Some(Box::new(move |role: &RoleConfig| -> anyhow::Result<bool> {
        let RoleConfig::Center(config) = role else {
            return Ok(false);
        };
        let wanted = DoorSettings {
            // Shards are told in their hello whether center wants to know how busy they are.
            busy_permille_max: set.busy_permille_max,
            ..door(config)
        };
        if wanted != set {
            told.set_door(wanted)?;
            set = wanted;
        }
        // The change of the key says it.
        Ok(false)
    }));
    let stats = Arc::clone(&shown);
    let journal = Arc::clone(&shown);
    let view = RoleView {
        name: "center",
        thread_prefixes: &["center", "journal"],
        metrics: Box::new(move |text| {
            metrics::samples(text, shown.samples());
            metrics::online(text, &shown.online());
        }),
        stats: Box::new(move |own| {
            let value = |name| json!(metrics::value(name, stats.samples()));
            own.insert("sessions".to_owned(), value("sallyport_center_sessions"));
            own.insert("online".to_owned(), online_json(&stats.online()));
            own.insert(
                "queue".to_owned(),
                json!({
                    "waiting": value("sallyport_center_queue"),
                    "away": value("sallyport_center_queue_away"),
                    "admitted": value("sallyport_center_queue_admitted_total"),
                    "waited_ms": value("sallyport_center_queue_waited_ms_total"),
                }),
            );
        }),
        not_ready: Box::new(move || {
            let degraded = metrics::value("sallyport_center_degraded", journal.samples());
            (degraded == Some(1)).then(|| "the journal cannot be written".to_owned())
        }),
        operator: None,
        desk: Some(desk),
        notices: Vec::new(),
        limits: None,
    };
    Ok((running, view))
}

fn door(config: &CenterConfig) -> DoorSettings {
    DoorSettings {
        online_max: config.online_max as usize,
        busy_permille_max: config.busy_percent * 10,
        places_max: config.queue.places_max as usize,
        forgiven_ms: config.queue.forgiven_ms,
        returning_ms: config.queue.returning_ms,
    }
}

/// Who is online: lists of names and counts, `null` for those that are counted together.
fn online_json(online: &Online) -> Value {
    fn rows<K: ToString>(counts: &[(Option<K>, u64)]) -> Vec<Value> {
        let name = |name: &Option<K>| name.as_ref().map(ToString::to_string);
        let rows = counts.iter().map(|(key, count)| json!([name(key), count]));
        rows.collect()
    }
    json!({
        "versions": rows(&online.versions),
        "channels": rows(&online.channels),
        "gateways": rows(&online.gateways),
    })
}

/// Starts a game process.
///
/// # Errors
/// A key is missing, the port is taken.
pub fn start_game(config: &GameConfig) -> anyhow::Result<(Running, RoleView)> {
    let (running, counters, notices) = open_by_kind(config)?;
    Ok((running, view_games(vec![counters], vec![notices])))
}

/// Starts several games in one process. What they show is their sum: a series
/// that stood in `/metrics` twice would make all of it unreadable.
///
/// # Errors
/// As for one.
pub fn start_games(configs: &[GameConfig]) -> anyhow::Result<(Vec<Running>, RoleView)> {
    let mut running = Vec::with_capacity(configs.len());
    let mut counters = Vec::with_capacity(configs.len());
    let mut notices = Vec::with_capacity(configs.len());
    for config in configs {
        let (game, its_counters, its_notices) = open_by_kind(config)?;
        running.push(game);
        counters.push(its_counters);
        notices.push(its_notices);
    }
    Ok((running, view_games(counters, notices)))
}

/// A game that runs, what it counts, and who takes what its players are to be told.
type OpenedGame = (Running, Arc<GameCounters>, Notices);

fn open_by_kind(config: &GameConfig) -> anyhow::Result<OpenedGame> {
    match &config.kind {
        GameKind::Echo => open_one(config, EchoGame, None),
        GameKind::Chat => open_one(config, ChatGame, None),
        // Its rules were checked when it was read.
        GameKind::Walk(walk) => {
            let spread = SpreadConfig {
                map: walk.map.clone(),
                tick_ms: walk.tick_ms,
                executors: executors(walk.executors),
                driver: walk.driver,
                snapshot: walk.snapshot.clone(),
            };
            let (game, watch) = SpreadWalk::start(spread)?;
            open_one(config, game, Some(watch))
        }
    }
}

/// One a core, but one core for the game's own thread and what the kernel does for QUIC, unless
/// configured: it hands out the work of the others and sends what they have done.
fn executors(configured: u32) -> usize {
    match configured {
        0 => thread::available_parallelism().map_or(1, |cores| cores.get().max(2) - 1),
        count => count as usize,
    }
}

fn open_one<G: Game + Send + 'static>(
    config: &GameConfig,
    game: G,
    watch: Option<WorkerWatch>,
) -> anyhow::Result<OpenedGame> {
    let (notices, notices_end) = notices();
    let open = OpenGameConfig {
        listen: config.listen.quic,
        identity: keys::read_identity(&config.listen.identity_file)?,
        gateway_keys: config.listen.gateway_keys.clone(),
        settings: StubSettings {
            instance: config.name.clone(),
            boot: boot()?,
            group: GroupId(config.group),
            wants_address: config.client_addresses,
            sessions_max: config.sessions_max as usize,
            outbox: OutboxLimits {
                messages_max: config.outbox_messages as usize,
                bytes_max: config.outbox_bytes as usize,
            },
            link_grace_ms: config.link_grace_ms,
        },
    };
    let counters = Arc::new(GameCounters::default());
    let shown = Arc::clone(&counters);
    let running = spawn("game", async move |shutdown: Shutdown, opened: Opened| {
        let game = open_game(open, game, counters)?.with_notices(notices_end);
        let _ = opened.send(game.local_address()?);
        let mut worker_end = None;
        drive_game(game, async {
            tokio::select! {
                () = ended(shutdown) => {}
                end = worker_ended(watch) => worker_end = Some(end),
            }
        })
        .await;
        worker_end.map_or(Ok(()), |end| Err(end.into()))
    })?;
    Ok((running, shown, notices))
}

/// Waits for the end of one of the game's own threads, if it has any.
async fn worker_ended(watch: Option<WorkerWatch>) -> WorkerEnd {
    match watch {
        Some(mut watch) => watch.ended().await,
        None => std::future::pending().await,
    }
}

fn view_games(games: Vec<Arc<GameCounters>>, notices: Vec<Notices>) -> RoleView {
    let shown = Arc::new(games);
    let stats = Arc::clone(&shown);
    RoleView {
        name: "game",
        thread_prefixes: &["game", "map"],
        metrics: Box::new(move |text| metrics::samples(text, sum(&shown))),
        stats: Box::new(move |own| {
            let sessions = metrics::value("sallyport_game_sessions", sum(&stats));
            own.insert("sessions".to_owned(), json!(sessions));
        }),
        not_ready: Box::new(|| None),
        operator: None,
        desk: None,
        notices,
        limits: None,
    }
}

/// Each number, summed over the games.
fn sum(games: &[Arc<GameCounters>]) -> impl Iterator<Item = (Metric, u64)> {
    let mut sums: Vec<(Metric, u64)> = Vec::new();
    for game in games {
        if sums.is_empty() {
            sums.extend(game.samples());
        } else {
            for ((_, sum), (_, value)) in sums.iter_mut().zip(game.samples()) {
                *sum += value;
            }
        }
    }
    sums.into_iter()
}

/// Ends when the role is told to.
type Shutdown = oneshot::Receiver<()>;

/// Takes the address on which the role listens.
type Opened = mpsc::SyncSender<SocketAddr>;

/// The same as the future that drivers take. A sender that is gone ends the
/// role too: nobody is left who could.
async fn ended(shutdown: Shutdown) {
    let _ = shutdown.await;
}

/// Runs `role` on a thread of that name, and waits until it says where it
/// listens or why it cannot.
fn spawn<R>(name: &'static str, role: R) -> anyhow::Result<Running>
where
    R: AsyncFnOnce(Shutdown, Opened) -> anyhow::Result<()> + Send + 'static,
{
    let (stop, shutdown) = oneshot::channel();
    let (opened, open) = mpsc::sync_channel(1);
    let (tell, mut ended) = oneshot::channel();
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let result = runtime
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.block_on(role(shutdown, opened)));
            let _ = tell.send(result);
        })?;
    let Ok(address) = open.recv() else {
        // It ended before it listened.
        let _ = thread.join();
        return match ended.try_recv() {
            Ok(Err(error)) => Err(error),
            _ => anyhow::bail!("{name}: its thread has ended without saying why"),
        };
    };
    let mut stop = Some(stop);
    let drain = move || {
        if let Some(stop) = stop.take() {
            // Fails where the role has ended by itself, which `ended` tells.
            let _ = stop.send(());
        }
    };
    Ok(Running::new(name, address, drain, ended))
}
