//! A gateway's settings and its start.
//!
//! Owns the checks of the machine that only a gateway needs: the engine and
//! the open files. Invariant: a gateway starts with every key file read and
//! every address looked up, or not at all.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gateway::counters::Counters;
use gateway::drive::{Gateway, GatewayConfig as Settings};
use gateway::engine::{self, EngineKind as Engine};
use gateway::front::FrontConfig;
use gateway::front::tls::Certificate;
use gateway::front::trust::Trust;
use gateway::limits::{Every, Limited, Limits, PLACES, Usage};
use gateway::shard::{GroupConfig as ShardGroup, ShardConfig};
use gateway::tickets::Tickets;
use protocol::check::Rate;
use protocol::cipher::RekeyPolicy;
use protocol::handshake::StaticKey;
use protocol::ids::{GroupId, ShardId};
use protocol::reason::DropReason;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use uplink::DialTarget;

use super::{Running, boot, resolve};
use crate::admin::{RoleView, metrics};
use crate::config::{
    EngineKind, GatewayConfig, LimitsConfig, PeerConfig, RoleConfig, SPARE_DESCRIPTORS,
};
use crate::doctor;
use crate::keys;

/// How often the shards' threads are looked at; what a drain takes longer.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// Networks that are named as those above the limits most.
const WORST_NETWORKS: usize = 20;

/// Starts a gateway.
///
/// # Errors
/// A key is missing, an address unknown, the engine forbidden, a limit too low,
/// the port taken.
pub fn start(config: &GatewayConfig) -> anyhow::Result<(Running, RoleView)> {
    let (settings, fixed) = settings(config)?;
    let certificate = Arc::clone(&settings.shard.front.certificate);
    let capacity = settings.connections_max;
    let mut token_keys = settings.token_keys.clone();
    let usage = Arc::clone(&fixed.usage);
    certificate.show(read_certificate(config)?);
    let gateway = Gateway::start(settings)?;
    let counters = gateway.counters();
    let engine = gateway.engine();
    let is_ready = gateway.readiness();
    let address = gateway.address();
    let operator = gateway.operator();
    let shards = operator.clone();
    let stats = counters.clone();
    let judged = counters.clone();
    let view = RoleView {
        name: "gateway",
        thread_prefixes: &["gw-"],
        metrics: Box::new(move |text| metrics::gateway(text, &counters)),
        stats: Box::new(move |own| {
            let sum = |of: fn(&gateway::counters::Counters) -> u64| -> u64 {
                stats.iter().map(|shard| of(shard)).sum()
            };
            own.insert("engine".to_owned(), json!(engine.as_str()));
            own.insert(
                "sessions".to_owned(),
                json!(sum(|shard| shard.sessions.value())),
            );
            own.insert(
                "connections".to_owned(),
                json!(sum(|shard| shard.connections.value())),
            );
            own.insert(
                "frames_received".to_owned(),
                json!(sum(|shard| shard.frames_received.value())),
            );
            own.insert(
                "frames_sent".to_owned(),
                json!(sum(|shard| shard.frames_sent.value())),
            );
            own.insert(
                "drops".to_owned(),
                json!(sum(|shard| DropReason::ALL
                    .iter()
                    .map(|&reason| shard.drops(reason))
                    .sum())),
            );
        }),
        not_ready: Box::new(move || {
            (!is_ready()).then(|| "center, or every instance of a group, is away".to_owned())
        }),
        operator: Some(operator),
        desk: None,
        notices: Vec::new(),
        limits: Some(Box::new(move || limits_json(&usage, &judged))),
    };
    let (tell, ended) = oneshot::channel();
    let draining = Arc::new(AtomicBool::new(false));
    let gateway = Arc::new(gateway);
    let watched = Arc::clone(&gateway);
    let is_draining = Arc::clone(&draining);
    thread::Builder::new()
        .name("main-watch".to_owned())
        .spawn(move || {
            let _ = tell.send(watch(&watched, &is_draining));
        })?;
    let drain = move || {
        draining.store(true, Ordering::Relaxed);
        gateway.drain();
    };
    let mut running = Running::new("gateway", address, drain, ended);
    let started = config.clone();
    running.reload = Some(Box::new(move |role: &RoleConfig| -> anyhow::Result<bool> {
        let RoleConfig::Gateway(config) = role else {
            return Ok(false);
        };
        // All of it is read and judged before any of it counts.
        check_live(&started, config, capacity)?;
        let new_certificate = read_certificate(config)?;
        let new_keys = read_token_keys(config)?;
        let mut shard = fixed.shard_config(config);
        if !has_same_instances(&started, config) {
            // Other groups or instances wait for a restart, and their versions with them.
            shard.groups.clear();
        }
        shards.configure(&shard, &config.token.audience, &new_keys)?;
        let mut changed = false;
        if new_keys != token_keys {
            changed = true;
            tracing::info!(
                keys = new_keys.len(),
                "other keys may sign tokens from now on"
            );
            token_keys = new_keys;
        }
        if certificate.show(new_certificate) {
            changed = true;
            let shown = config.listen.tls.as_ref();
            let file = shown.map(|files| files.certificate.display().to_string());
            let file = file.as_deref().unwrap_or("none, and TLS is off");
            tracing::info!(file, "another certificate is shown from now on");
        }
        Ok(changed)
    }));
    Ok((running, view))
}

/// What is known of who is above the limits.
fn limits_json(usage: &Usage, counters: &[Arc<Counters>]) -> Value {
    let census = usage.census(WORST_NETWORKS);
    let sum = |of: &dyn Fn(&Counters) -> u64| -> u64 { counters.iter().map(|it| of(it)).sum() };
    let limited: Map<String, Value> = Limited::ALL
        .into_iter()
        .map(|limit| {
            let times = sum(&|shard| shard.times_limited(limit));
            (limit.label().to_owned(), json!(times))
        })
        .collect();
    let worst: Vec<Value> = census
        .worst
        .iter()
        .map(|above| {
            json!({
                "network": above.network.to_string(),
                "open": above.open,
                "times_above": above.times,
            })
        })
        .collect();
    json!({
        "tables": {
            "places": census.places,
            "networks": census.networks,
            "accounts": census.accounts,
        },
        "forgotten": sum(&|shard| shard.limits_forgotten.value()),
        "limited": limited,
        "worst_networks": worst,
    })
}

fn read_certificate(config: &GatewayConfig) -> anyhow::Result<Option<Certificate>> {
    let files = config.listen.tls.as_ref();
    Ok(files.map(keys::read_certificate).transpose()?)
}

/// Waits for the end of all shards. One that ends without being told to takes
/// the others along: half a gateway would go on refusing half of the clients.
fn watch(gateway: &Gateway, is_draining: &AtomicBool) -> anyhow::Result<()> {
    loop {
        let (shards, ended) = gateway.shards_ended();
        if ended > 0 && !is_draining.load(Ordering::Relaxed) {
            gateway.stop();
            anyhow::bail!("{ended} of {shards} shards ended by themselves; the log says why");
        }
        if ended == shards {
            return Ok(());
        }
        thread::sleep(WATCH_EVERY);
    }
}

/// What of a new configuration a process that runs cannot take, although its keys are live.
fn check_live(started: &GatewayConfig, new: &GatewayConfig, capacity: u32) -> anyhow::Result<()> {
    // The engine's tables were made at the start.
    let sessions_max = new.limits.sessions_max;
    ensure!(
        sessions_max <= capacity,
        "limits.sessions_max = {sessions_max}: this process was started with room for {capacity} \
         connections: set less, or restart it"
    );
    ensure!(
        !started.listen.proxy_required || !new.listen.proxy_trusted.is_empty(),
        "listen.proxy_trusted is empty: this process was started with listen.proxy_protocol = \
         \"required\", and nobody could connect: name the balancers, or restart it"
    );
    Ok(())
}

/// Whether groups and their instances are those of before, in their order; versions apart.
fn has_same_instances(started: &GatewayConfig, new: &GatewayConfig) -> bool {
    let places = |config: &GatewayConfig| -> Vec<(u16, PeerConfig)> {
        let groups = config.groups.iter();
        groups
            .flat_map(|group| group.instances.iter().map(|it| (group.id, it.peer.clone())))
            .collect()
    };
    places(started) == places(new)
}

fn read_token_keys(config: &GatewayConfig) -> anyhow::Result<Vec<[u8; 32]>> {
    let mut token_keys: Vec<[u8; 32]> = config.token.keys.iter().map(|key| key.0).collect();
    for path in &config.token.key_files {
        token_keys.push(keys::read_token_public(path)?.0);
    }
    Ok(token_keys)
}

/// What of the shards' configuration comes from elsewhere than the file, and stays as long as
/// the process.
struct Fixed {
    shards: u32,
    boot: u64,
    key: StaticKey,
    usage: Arc<Usage>,
    tickets: Arc<Tickets>,
}

impl Fixed {
    /// What each shard is told.
    fn shard_config(&self, config: &GatewayConfig) -> ShardConfig {
        let limits = &config.limits;
        let per_shard = |total: u32| total.div_ceil(self.shards) as usize;
        let groups = config.groups.iter().map(|group| ShardGroup {
            group: GroupId(group.id),
            instances: group
                .instances
                .iter()
                .map(|it| it.versions.clone())
                .collect(),
        });
        let ms = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        ShardConfig {
            gateway: config.name.clone(),
            shard: ShardId(0),
            boot: self.boot,
            key: self.key.clone(),
            groups: groups.collect(),
            sessions_max: per_shard(limits.sessions_max),
            connections_before_login_max: per_shard(limits.connections_before_login_max),
            handshake_timeout_ms: ms(limits.handshake_timeout_ms),
            login_timeout_ms: ms(limits.login_timeout_ms),
            heartbeat_interval_ms: ms(config.heartbeat.interval_ms),
            idle_timeout_ms: ms(config.heartbeat.idle_timeout_ms),
            resume_ms: ms(config.resume_ms),
            frames: Rate {
                per_second: limits.frames_per_second,
                burst: limits.frames_burst,
            },
            bytes: Rate {
                per_second: limits.bytes_per_second,
                burst: limits.bytes_burst,
            },
            send_queue_bytes_max: limits.send_queue_bytes as usize,
            write_timeout_ms: ms(limits.write_timeout_ms),
            uplink_queue_bytes_max: limits.uplink_queue_bytes as usize,
            rekey: RekeyPolicy {
                frames: config.rekey_frames,
            },
            compress_bytes_min: config.compression_bytes_min as usize,
            version_min: config.versions.minimum,
            upgrade_address: config
                .versions
                .upgrade_address
                .as_deref()
                .unwrap_or_default()
                .into(),
            seal_channels_once: config.seal_channels_once,
            limits: limits_of(limits),
            usage: Arc::clone(&self.usage),
            tickets: Arc::clone(&self.tickets),
            front: FrontConfig {
                proxy_required: config.listen.proxy_required,
                trusted: Trust::new(config.listen.proxy_trusted.clone()),
                origins: config.listen.websocket_origins.clone(),
                certificate: Arc::default(),
            },
            datagrams: None,
        }
    }
}

fn settings(config: &GatewayConfig) -> anyhow::Result<(Settings, Fixed)> {
    let token_keys = read_token_keys(config)?;
    let engine = choose_engine(config.engine.kind)?;
    let shards = match config.engine.shards {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        shards => shards as usize,
    };
    let fixed = Fixed {
        shards: u32::try_from(shards).unwrap_or(1),
        boot: boot()?,
        key: keys::read_gateway(&config.listen.key_file)?,
        usage: Arc::new(Usage::new(PLACES, usage_secret()?)),
        tickets: Arc::default(),
    };
    let limits = &config.limits;
    let connections = limits
        .sessions_max
        .saturating_add(limits.connections_before_login_max);
    let mut instances = Vec::new();
    for group in &config.groups {
        for instance in &group.instances {
            instances.push(target(&format!("group {}", group.name), &instance.peer)?);
        }
    }
    let settings = Settings {
        shard: fixed.shard_config(config),
        shards: fixed.shards,
        pin: config.engine.pin,
        engine: Some(engine),
        listen: config.listen.tcp,
        udp: config.listen.udp,
        connections_max: connections_within(engine, connections, limits.sessions_max)?,
        audience: config.token.audience.clone(),
        token_keys,
        identity: keys::read_identity(&config.identity_file)?,
        center: target("center.address", &config.center)?,
        instances,
    };
    Ok((settings, fixed))
}

/// What an operator allows to a network, and to an account.
fn limits_of(config: &LimitsConfig) -> Limits {
    let every = |period_us: u64, times: u32, burst| Every {
        us: match times {
            0 => 0,
            times => (period_us / u64::from(times)).max(1),
        },
        burst,
    };
    Limits {
        exempt: Trust::new(config.network_exempt.clone()),
        connections_max: config.network_connections_max,
        connections: every(
            1_000_000,
            config.network_connections_per_second,
            config.network_connections_burst,
        ),
        connections_penalty: config.network_connections_penalty,
        handshakes: every(
            1_000_000,
            config.network_handshakes_per_second,
            config.network_handshakes_burst,
        ),
        handshakes_penalty: config.network_handshakes_penalty,
        logins: every(
            60_000_000,
            config.account_logins_per_minute,
            config.account_logins_burst,
        ),
        logins_penalty: config.account_logins_penalty,
        rate_penalty: config.rate_penalty,
    }
}

/// Who shares a place with whom in the tables of the limits must not be known.
fn usage_secret() -> anyhow::Result<[u64; 2]> {
    let random = keys::random32()?;
    let (first, second) = random.split_at(random.len() / 2);
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    Ok([number(first), number(second)])
}

fn target(key: &str, peer: &PeerConfig) -> anyhow::Result<DialTarget> {
    Ok(DialTarget {
        address: resolve(key, &peer.address)?,
        key: peer.key,
    })
}

fn choose_engine(wanted: EngineKind) -> anyhow::Result<Engine> {
    match (wanted, engine::probe()) {
        (EngineKind::Epoll, _) => Ok(Engine::Epoll),
        (_, Ok(())) => Ok(Engine::Uring),
        (EngineKind::Auto, Err(why)) => {
            tracing::warn!(
                "the epoll engine is used, which costs more CPU and an open file a client: {why}"
            );
            Ok(Engine::Epoll)
        }
        (EngineKind::Uring, Err(why)) => {
            Err(why).context("engine.kind = \"uring\" is demanded, but it cannot be used here")
        }
    }
}

/// On the ring engine a client costs no open file of the process; on epoll it
/// does, so what the limit does not allow is refused at the start instead of at
/// the client that comes too much.
fn connections_within(engine: Engine, wanted: u32, sessions_max: u32) -> anyhow::Result<u32> {
    if engine == Engine::Uring {
        return Ok(wanted);
    }
    let (limit, _) = doctor::open_files();
    let allowed = limit.saturating_sub(SPARE_DESCRIPTORS);
    ensure!(
        u64::from(sessions_max) <= allowed,
        "limits.sessions_max = {sessions_max} needs {} open files on the epoll engine, and the \
         limit is {limit}: raise it (`ulimit -n`, LimitNOFILE=) or set limits.sessions_max to \
         {allowed} or less",
        u64::from(sessions_max) + SPARE_DESCRIPTORS,
    );
    // Those that have not logged in share what is left.
    Ok(u32::try_from(u64::from(wanted).min(allowed)).unwrap_or(wanted))
}

#[cfg(test)]
mod tests;
