//! From arguments to a plan that can run: everything that can be refused is
//! refused here, before anything is connected.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::engine::{EngineKind, LISTENERS_MAX, probe};
use protocol::limits::PAYLOAD_BYTES_MAX;
use protocol::world::VISIBLE_MAX;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin::AdminUrl;
use crate::args::{EngineChoice, LaneName, LoadtestArgs, Scenario, Transport};
use crate::fail_if::Condition;
use crate::messages::{LoginStorm, RoomPlan, WalkPlan, WorkerPlan};
use crate::payload::PREFIX_BYTES;
use crate::worker::CONNECTIONS_SPARE;

/// Descriptors of a worker that are no clients: standard streams, the engine's
/// own, libraries'.
pub const OTHER_FILES: u64 = 64;
/// Messages a second for which one worker is enough: each takes it some 20 µs, and one that is
/// busy all the time measures its own queue.
const RATE_A_WORKER: f64 = 20_000.0;
/// Worker processes; above this the machine is the limit, not the files.
pub const PROCESSES_MAX: u32 = 64;
/// Sends a second unless asked for; each client of a default run sends ten times a second.
const RATE: f64 = 1_000.0;
/// The group of a game that echoes, unless asked for.
const GROUP_ECHO: u16 = 1;
/// The group of a game with a map, unless asked for: beside one that echoes.
const GROUP_WALK: u16 = 2;
/// The group of a game with channels, unless asked for.
const GROUP_CHAT: u16 = 3;
/// Messages a second that are said in `chat`, unless asked for: 4,000 that are heard.
const RATE_CHAT: f64 = 200.0;
/// Messages a second that everybody hears in `broadcast`, unless asked for.
const RATE_BROADCAST: f64 = 10.0;
/// Clients in a channel of `chat`: a guild or a room.
const ROOM_CLIENTS: u32 = 20;
/// Bytes of a SAY in front of the text, and of what is heard of it.
const SAY_BYTES: usize = 20;
/// Others in view of a walker, on average, unless asked for.
const VISIBLE: f64 = 4.0;
/// How often a client of a storm is cut, ms: long enough to come back and play in between.
const CUT_EVERY_MS: u64 = 2_000;
/// How often a part of the clients logs out and in anew in `mixed`, ms.
const LEAVE_EVERY_MS: u64 = 3_000;
/// In a window shorter than that of so many cuts, each client is cut so often; the same of leaving.
const CUTS_MIN: u64 = 3;
/// How long a client of `login-storm` stays, seconds, unless asked for.
const STAY_SECONDS: f64 = 1.0;
/// The longest, seconds.
const STAY_SECONDS_MAX: f64 = 3_600.0;
/// Longest drain, seconds.
const DRAIN_SECONDS_MAX: f64 = 300.0;
/// Longest window, seconds: ten years.
const DURATION_SECONDS_MAX: f64 = 3.2e8;
/// Bytes of an admin token file.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

/// Why a test could not run.
#[derive(Debug, thiserror::Error)]
pub enum Unable {
    /// An argument is unusable.
    #[error("{argument}: {problem}")]
    Argument {
        /// Which one.
        argument: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The machine or the server does not let it run.
    #[error("{0}")]
    Environment(String),
}

impl Unable {
    pub(crate) fn argument(argument: &'static str, problem: impl Into<String>) -> Self {
        Self::Argument {
            argument,
            problem: problem.into(),
        }
    }
}

/// A run that can start.
#[derive(Debug)]
pub struct Plan {
    /// One for each worker.
    pub workers: Vec<WorkerPlan>,
    /// Server processes to watch.
    pub admins: Vec<AdminUrl>,
    /// Their bearer token.
    pub admin_token: Option<String>,
    /// When the result is a failure.
    pub fail_if: Vec<Condition>,
}

impl Plan {
    /// Checks arguments.
    ///
    /// # Errors
    /// The first argument that is unusable, and why.
    pub fn new(args: &LoadtestArgs) -> Result<Self, Unable> {
        let target = resolve(&args.target)?;
        let gateway_key = decode_key::<32>(&args.key).ok_or_else(|| {
            Unable::argument(
                "--key",
                "must be the 43 letters of base64url that `sallyport keygen gateway` prints",
            )
        })?;
        decode_key::<64>(&args.token_key).ok_or_else(|| {
            Unable::argument(
                "--token-key",
                "must be a secret of `sallyport keygen token` (86 letters of base64url)",
            )
        })?;
        let payload_bytes = args.payload as usize;
        if !(PREFIX_BYTES..=PAYLOAD_BYTES_MAX).contains(&payload_bytes) {
            let problem = format!("must be between {PREFIX_BYTES} and {PAYLOAD_BYTES_MAX}");
            return Err(Unable::argument("--payload", problem));
        }
        let walks = args.scenario == Scenario::Walk;
        let room_clients = match args.scenario {
            Scenario::Chat => Some(ROOM_CLIENTS),
            Scenario::Broadcast => Some(args.clients),
            Scenario::Echo
            | Scenario::Walk
            | Scenario::ReconnectStorm
            | Scenario::Mixed
            | Scenario::LoginStorm => None,
        };
        if room_clients.is_some() && payload_bytes + SAY_BYTES > PAYLOAD_BYTES_MAX {
            let problem = format!("must be {} at most here", PAYLOAD_BYTES_MAX - SAY_BYTES);
            return Err(Unable::argument("--payload", problem));
        }
        if room_clients.is_some() && args.lane != LaneName::Reliable {
            let problem = "chat and broadcast are verified on the reliable lane; the others may lose what is said";
            return Err(Unable::argument("--lane", problem));
        }
        let rate = match args.rate {
            Some(rate) => rate,
            None if args.scenario == Scenario::Chat => RATE_CHAT,
            None if args.scenario == Scenario::Broadcast => RATE_BROADCAST,
            // Each moves once a second.
            None if walks => f64::from(args.clients),
            None => RATE,
        };
        in_range("--rate", rate, 0.0, 1e9)?;
        let visible = args.visible.unwrap_or(VISIBLE);
        in_range("--visible", visible, 0.0, VISIBLE_MAX as f64)?;
        if !walks && args.visible.is_some() {
            return Err(Unable::argument("--visible", "is for --scenario walk"));
        }
        let is_mixed = args.scenario == Scenario::Mixed;
        let is_cut = is_mixed || args.scenario == Scenario::ReconnectStorm;
        if is_cut && args.lane != LaneName::Reliable {
            let problem = if is_mixed {
                "mixed takes every lane"
            } else {
                "reconnect-storm is verified on the reliable lane; the others lose what is sent while cut"
            };
            return Err(Unable::argument("--lane", problem));
        }
        if args.side_path && args.transport == Transport::Udp {
            let problem = "is for --transport tcp and ws; over udp everything is datagrams";
            return Err(Unable::argument("--side-path", problem));
        }
        if args.side_path && args.lane == LaneName::Reliable && !is_mixed {
            let problem = "carries nothing of the reliable lane: take --lane unreliable or sequenced, or --scenario mixed";
            return Err(Unable::argument("--side-path", problem));
        }
        let login_storm = login_storm(args)?;
        let duration_ms = match login_storm {
            // Until the last one has set out.
            Some(_) if rate > 0.0 => (f64::from(args.clients) * 1e3 / rate).ceil() as u64,
            Some(_) => return Err(Unable::argument("--rate", "must be above 0 in login-storm")),
            None => seconds("--duration", args.duration, DURATION_SECONDS_MAX)?,
        };
        let mut drain_ms = seconds("--drain", args.drain, DRAIN_SECONDS_MAX)?;
        if room_clients.is_some() {
            // Nothing of it may get lost, so a machine on which a message is heard more slowly than
            // the next one is said only is late: it has the time of the window once more.
            drain_ms = (drain_ms + duration_ms).min((DRAIN_SECONDS_MAX * 1e3) as u64);
        }
        let sends_a_client = rate * duration_ms as f64 / 1e3 / f64::from(args.clients);
        if sends_a_client >= f64::from(u32::MAX) {
            let problem = "makes more than 2^32 sends a client; take more clients or less time";
            return Err(Unable::argument("--rate", problem));
        }
        if args.audience.is_empty() {
            return Err(Unable::argument("--audience", "must not be empty"));
        }
        let engine = engine_kind(args.engine)?;
        let mut run = [0; 4];
        fill_random(&mut run)
            .map_err(|error| Unable::Environment(format!("no random numbers: {error}")))?;
        let run = u32::from_le_bytes(run);
        let whole = WorkerPlan {
            target,
            gateway_key,
            token_secret: args.token_key.clone(),
            audience: args.audience.clone(),
            account_prefix: format!("loadtest-{:08x}", run),
            clients: args.clients,
            first: 0,
            count: args.clients,
            rate,
            duration_ms,
            drain_ms,
            seed: args.seed,
            transport: args.transport,
            lane: args.lane,
            side_path: args.side_path,
            group: args.group.unwrap_or(match args.scenario {
                Scenario::Walk => GROUP_WALK,
                Scenario::Chat | Scenario::Broadcast => GROUP_CHAT,
                Scenario::Echo
                | Scenario::ReconnectStorm
                | Scenario::Mixed
                | Scenario::LoginStorm => GROUP_ECHO,
            }),
            payload_bytes,
            walk: walks.then_some(WalkPlan { visible, run }),
            rooms: room_clients.map(|size| RoomPlan {
                size: size.max(1),
                first_channel: run,
            }),
            cut_every_ms: is_cut.then(|| often_enough(CUT_EVERY_MS, duration_ms)),
            leave_every_ms: is_mixed.then(|| often_enough(LEAVE_EVERY_MS, duration_ms)),
            login_storm,
            uring: engine == EngineKind::Uring,
        };
        let admins: Vec<AdminUrl> = args
            .admin
            .iter()
            .map(|url| AdminUrl::parse(url).map_err(|problem| Unable::argument("--admin", problem)))
            .collect::<Result<_, _>>()?;
        let fail_if: Vec<Condition> = args
            .fail_if
            .iter()
            .map(|text| {
                Condition::parse(text).map_err(|problem| Unable::argument("--fail-if", problem))
            })
            .collect::<Result<_, _>>()?;
        if admins.is_empty() && fail_if.iter().any(Condition::needs_server) {
            let problem = "figures of the server need --admin";
            return Err(Unable::argument("--fail-if", problem));
        }
        for (argument, path) in [("--json", &args.json), ("--html", &args.html)] {
            if let Some(path) = path {
                // Emptied now: an older result must not pass for that of a run
                // that then could not be made.
                File::create(path).map_err(|error| {
                    Unable::argument(argument, format!("{}: {error}", path.display()))
                })?;
            }
        }
        Ok(Self {
            workers: divide(&whole, processes(args, engine, &whole)?),
            admins,
            admin_token: admin_token(args)?,
            fail_if,
        })
    }
}

/// What `login-storm` wants, if that is what runs.
fn login_storm(args: &LoadtestArgs) -> Result<Option<LoginStorm>, Unable> {
    if args.scenario != Scenario::LoginStorm {
        return match args.stay {
            None => Ok(None),
            Some(_) => Err(Unable::argument("--stay", "is for --scenario login-storm")),
        };
    }
    if args.lane != LaneName::Reliable {
        let problem = "login-storm asks over the reliable lane, which alone has answers";
        return Err(Unable::argument("--lane", problem));
    }
    let stay = args.stay.unwrap_or(STAY_SECONDS);
    in_range("--stay", stay, 0.0, STAY_SECONDS_MAX)?;
    Ok(Some(LoginStorm {
        stay_ms: (stay * 1e3).round() as u64,
    }))
}

/// So often, or more often where the window is short.
fn often_enough(every_ms: u64, duration_ms: u64) -> u64 {
    every_ms.min(duration_ms / CUTS_MIN).max(1)
}

fn resolve(target: &str) -> Result<SocketAddr, Unable> {
    let problem = |problem: String| Unable::argument("TARGET", format!("`{target}`: {problem}"));
    target
        .to_socket_addrs()
        .map_err(|error| problem(format!("{error}; it must be HOST:PORT")))?
        .next()
        .ok_or_else(|| problem(String::from("the name has no address")))
}

fn in_range(argument: &'static str, value: f64, min: f64, max: f64) -> Result<(), Unable> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Unable::argument(
            argument,
            format!("must be between {min} and {max}"),
        ))
    }
}

fn seconds(argument: &'static str, value: f64, max: f64) -> Result<u64, Unable> {
    in_range(argument, value, 0.001, max)?;
    Ok((value * 1e3).round() as u64)
}

fn admin_token(args: &LoadtestArgs) -> Result<Option<String>, Unable> {
    let Some(path) = &args.admin_token_file else {
        return Ok(None);
    };
    let refuse = |problem: &dyn std::fmt::Display| {
        Unable::argument(
            "--admin-token-file",
            format!("{}: {problem}", path.display()),
        )
    };
    let length = fs::metadata(path).map_err(|error| refuse(&error))?.len();
    if length > TOKEN_FILE_BYTES_MAX {
        return Err(refuse(&"a token of one line is expected"));
    }
    let text = fs::read_to_string(path).map_err(|error| refuse(&error))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse(&"a token of one line is expected"));
    }
    Ok(Some(token.to_owned()))
}

/// How many workers there are to be.
fn processes(args: &LoadtestArgs, engine: EngineKind, whole: &WorkerPlan) -> Result<u32, Unable> {
    let limit = raise_open_files()
        .map_err(|error| Unable::Environment(format!("the open-file limit: {error}")))?;
    let needed = match engine {
        EngineKind::Uring => 1,
        EngineKind::Epoll => {
            let sockets = limit.saturating_sub(OTHER_FILES);
            let a_worker = (sockets / u64::from(whole.sockets_a_client())).max(1);
            u64::from(args.clients).div_ceil(a_worker)
        }
    };
    let wanted = args
        .processes
        .map_or_else(|| needed.max(comfortable(whole, limit)), u64::from);
    if wanted < needed || needed > u64::from(PROCESSES_MAX) {
        return Err(Unable::argument(
            "--processes",
            format!(
                "{} clients need {needed} processes under the open-file limit of {limit} \
                 (at most {PROCESSES_MAX}); raise it (ulimit -n)",
                args.clients
            ),
        ));
    }
    // A worker without a client has nothing to do.
    Ok((wanted as u32).min(args.clients))
}

/// How many workers a run takes by itself beyond what the files ask for: a ring each, whose table
/// is as long as the open-file limit, and as many as the rate keeps busy, up to one a core.
fn comfortable(whole: &WorkerPlan, limit: u64) -> u64 {
    let sockets = u64::from(whole.clients) * u64::from(whole.sockets_a_client());
    let connections = sockets + u64::from(CONNECTIONS_SPARE);
    let rings = connections.div_ceil(limit.saturating_sub(LISTENERS_MAX as u64).max(1));
    // In `walk` each move is told to those who see it.
    let told = whole.walk.map_or(1.0, |walk| walk.visible.max(1.0));
    // In a channel each message is told to all of it.
    let told = whole.rooms.map_or(told, |rooms| f64::from(rooms.size));
    let by_rate = (whole.rate * told / RATE_A_WORKER).ceil() as u64;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    rings.max(by_rate.min(cores)).min(u64::from(PROCESSES_MAX))
}

/// Divides the clients among workers, evenly.
fn divide(whole: &WorkerPlan, processes: u32) -> Vec<WorkerPlan> {
    let border = |at: u32| (u64::from(whole.clients) * u64::from(at) / u64::from(processes)) as u32;
    (0..processes)
        .map(|at| WorkerPlan {
            first: border(at),
            count: border(at + 1) - border(at),
            ..whole.clone()
        })
        .collect()
}

/// The engine that `choice` means on this machine.
fn engine_kind(choice: EngineChoice) -> Result<EngineKind, Unable> {
    match choice {
        EngineChoice::Epoll => Ok(EngineKind::Epoll),
        EngineChoice::Auto if probe().is_err() => Ok(EngineKind::Epoll),
        EngineChoice::Auto => Ok(EngineKind::Uring),
        EngineChoice::Uring => probe()
            .map(|()| EngineKind::Uring)
            .map_err(|error| Unable::argument("--engine", error.to_string())),
    }
}

/// Raises the soft limit of open files to the hard one and returns it.
///
/// # Errors
/// The system's.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, wanted)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Decodes a key of `N` bytes from base64url.
pub fn decode_key<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Fills `bytes`, at most 256 of them, from the kernel's generator.
///
/// # Errors
/// The kernel gives none.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let wanted = bytes.len();
    let read = rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())?;
    // Up to 256 bytes come whole (getrandom(2)).
    if read == wanted {
        Ok(())
    } else {
        Err(io::Error::other("too few random bytes"))
    }
}

#[cfg(test)]
mod tests;
