//! Gateway, center and game in this process, on loopback, and a load test on
//! them whose workers are threads.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use backend::center::{CenterSettings, DoorSettings};
use backend::center_driver::{CenterConfig, desk, drive_center, open_center};
use backend::counters::{CenterCounters, GameCounters};
use backend::game::{GameConfig, drive_game, open_game};
use backend::journal::JournalEngine;
use backend::stub::{Game, StubSettings};
use clap::Parser;
use gateway::drive::{Gateway, GatewayConfig};
use gateway::engine::EngineKind;
use gateway::limits::Usage;
use gateway::shard::{ALL_VERSIONS, GroupConfig, ShardConfig};
use loadtest::progress::Status;
use loadtest::report::Report;
use loadtest::{Hosting, LoadtestArgs};
use protocol::check::Rate;
use protocol::cipher::RekeyPolicy;
use protocol::handshake::StaticKey;
use protocol::ids::{GroupId, ShardId};
use protocol::stream::OutboxLimits;
use tokio::sync::oneshot;
use uplink::{DialTarget, Identity};

/// The group that the game serves.
const GROUP: GroupId = GroupId(1);
/// Secret and public halves of a token key: RFC 8032 §7.1, test 1, base64url.
const TOKEN_SECRET: &str =
    "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL_tPJZAc6DuFy89qmIyWvAhpo9wdRGg";
const TOKEN_PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// Bound of the wait for the gateway's uplinks.
const READY_LOOKS: u32 = 2_000;

/// Center and game speak to one gateway, and each proves a key of its own.
#[derive(Clone, Copy)]
enum Who {
    Gateway = 1,
    Center = 2,
    Game = 3,
}

fn identity(who: Who) -> Identity {
    Identity::from_seed([who as u8; 32])
}

/// A role on a thread of its own, which ends with it.
struct Role {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Role {
    fn start<F>(drive: F) -> Self
    where
        F: AsyncFnOnce(mpsc::Sender<SocketAddr>, oneshot::Receiver<()>) + Send + 'static,
    {
        let (opened, open) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(drive(opened, stopped));
        });
        Self {
            address: open.recv().expect("the role to open"),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// See the module. Dropping it ends everything.
pub struct Cluster {
    gateway: Option<Gateway>,
    key: StaticKey,
    _center: Role,
    _game: Role,
    _data: tempfile::TempDir,
}

impl Cluster {
    /// Starts everything around `game` and waits until clients can log in. A session ends with
    /// its connection.
    pub fn start(game: impl Game + Send + 'static) -> Self {
        Self::with_resume(game, 0)
    }

    /// The same where a session waits for its client for so long, ms.
    pub fn with_resume(game: impl Game + Send + 'static, resume_ms: u32) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let center = start_center(data.path().to_owned());
        let game = start_game(game);
        let key = StaticKey::from_secret([5; 32]);
        let mut config = gateway_config(&key, center.address, game.address);
        config.shard.resume_ms = resume_ms;
        let gateway = Gateway::start(config).expect("a gateway");
        let mut looks = 0;
        while !gateway.is_ready() {
            looks += 1;
            assert!(looks < READY_LOOKS, "the gateway has no uplinks");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            gateway: Some(gateway),
            key,
            _center: center,
            _game: game,
            _data: data,
        }
    }

    /// The gateway dies: every connection breaks.
    pub fn kill_gateway(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
            gateway.join();
        }
    }

    /// Arguments of a load test on this gateway.
    pub fn args(&self, more: &[&str]) -> LoadtestArgs {
        let target = self
            .gateway
            .as_ref()
            .expect("a live gateway")
            .address()
            .to_string();
        let key = base64(self.key.public());
        let words = [
            "loadtest",
            &target,
            "--key",
            &key,
            "--token-key",
            TOKEN_SECRET,
        ];
        parse(words.iter().chain(more).copied())
    }

    /// Runs a load test; returns its report and what is wrong.
    pub fn load(&self, more: &[&str]) -> (Report, Vec<String>) {
        run(&self.args(more), |_| ControlFlow::Continue(())).expect("a run")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_gateway();
    }
}

/// Parses arguments as the binary does.
fn parse<'a>(words: impl Iterator<Item = &'a str>) -> LoadtestArgs {
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: LoadtestArgs,
    }
    Command::try_parse_from(words).expect("arguments").args
}

/// Runs a load test with workers in threads.
pub fn run(
    args: &LoadtestArgs,
    mut observe: impl FnMut(&Status) -> ControlFlow<()>,
) -> Result<(Report, Vec<String>), String> {
    loadtest::execute(args, Hosting::Threads, &mut observe).map_err(|error| error.to_string())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn start_center(data_dir: std::path::PathBuf) -> Role {
    let config = CenterConfig {
        desk: desk().1,
        listen: ([127, 0, 0, 1], 0).into(),
        identity: identity(Who::Center),
        gateway_keys: vec![identity(Who::Gateway).public_key()],
        data_dir,
        engine: Some(JournalEngine::Thread),
        settings: CenterSettings {
            instance: String::from("center-1"),
            boot: 77,
            lease_ms: 15_000,
            sessions_max: 10_000,
            door: DoorSettings::OPEN,
        },
    };
    Role::start(async move |opened, stopped| {
        let open = open_center(config, Arc::new(CenterCounters::default()))
            .await
            .expect("a center");
        let _ = opened.send(open.local_address().expect("an address"));
        drive_center(open, async {
            let _ = stopped.await;
        })
        .await;
    })
}

fn start_game(game: impl Game + Send + 'static) -> Role {
    let config = GameConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        identity: identity(Who::Game),
        gateway_keys: vec![identity(Who::Gateway).public_key()],
        settings: StubSettings {
            instance: String::from("game-1"),
            boot: 88,
            group: GROUP,
            wants_address: false,
            sessions_max: 10_000,
            outbox: OutboxLimits::default(),
            link_grace_ms: 30_000,
        },
    };
    Role::start(async move |opened, stopped| {
        let open = open_game(config, game, Arc::new(GameCounters::default())).expect("a game");
        let _ = opened.send(open.local_address().expect("an address"));
        drive_game(open, async {
            let _ = stopped.await;
        })
        .await;
    })
}

fn gateway_config(key: &StaticKey, center: SocketAddr, game: SocketAddr) -> GatewayConfig {
    let unlimited = Rate {
        per_second: 0,
        burst: 0,
    };
    GatewayConfig {
        shard: ShardConfig {
            gateway: String::from("gateway-1"),
            shard: ShardId(0),
            boot: 66,
            key: key.clone(),
            groups: vec![GroupConfig {
                group: GROUP,
                instances: vec![ALL_VERSIONS],
            }],
            sessions_max: 10_000,
            connections_before_login_max: 10_000,
            handshake_timeout_ms: 10_000,
            login_timeout_ms: 10_000,
            heartbeat_interval_ms: 200,
            idle_timeout_ms: 60_000,
            resume_ms: 0,
            frames: unlimited,
            bytes: unlimited,
            send_queue_bytes_max: 1 << 20,
            write_timeout_ms: 15_000,
            uplink_queue_bytes_max: 4 << 20,
            rekey: RekeyPolicy::default(),
            compress_bytes_min: usize::MAX,
            version_min: 0,
            upgrade_address: Arc::default(),
            seal_channels_once: true,
            limits: Default::default(),
            usage: Arc::new(Usage::new(64, [1, 2])),
            tickets: Arc::default(),
            front: Default::default(),
            datagrams: None,
        },
        shards: 1,
        pin: false,
        engine: Some(EngineKind::Epoll),
        listen: ([127, 0, 0, 1], 0).into(),
        udp: true,
        connections_max: 10_000,
        audience: String::from("sallyport"),
        token_keys: vec![loadtest::plan::decode_key(TOKEN_PUBLIC).expect("a key")],
        identity: identity(Who::Gateway),
        center: DialTarget {
            address: center,
            key: identity(Who::Center).public_key(),
        },
        instances: vec![DialTarget {
            address: game,
            key: identity(Who::Game).public_key(),
        }],
    }
}
