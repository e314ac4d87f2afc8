//! A cluster for tests: gateway, center and game as processes of the real
//! binary, from configuration files and keys that it makes.
//!
//! Each cluster has a loopback address of its own, so that ports are fixed and
//! clusters of concurrent tests never meet. Invariant: it ends only processes
//! that it started, and all of them when it is dropped; a test that fails gets
//! the tails of their logs.

pub mod metrics;
pub mod player;
pub mod process;
pub mod raw;
pub mod socket;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::token::{Claims, issue};
use tempfile::TempDir;

use metrics::Metrics;
use process::Process;

/// What a test waits for at most, where nothing tighter is meant.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The group that the game serves.
pub const GROUP: protocol::ids::GroupId = protocol::ids::GroupId(1);

/// The audience of its tokens.
pub const AUDIENCE: &str = "cluster";

/// The binary under test. `SALLYPORT_TEST_BINARY` names a copy where the one of
/// the build cannot be reached (a run as another user).
pub fn binary() -> PathBuf {
    std::env::var_os("SALLYPORT_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_sallyport").into(), PathBuf::from)
}

/// Looks again and again until `condition` holds.
pub fn wait_until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Unix ms.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a calendar after 1970").as_millis() as u64
}

/// Fresh random bytes.
pub fn random32() -> [u8; 32] {
    let mut bytes = [0; 32];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(32));
    bytes
}

/// What a test changes of a role's configuration: `section.key=value`.
pub type Settings = &'static [&'static str];

/// A gateway that takes clients over TLS; each cluster has these files.
pub const WITH_TLS: Settings = &[
    "listen.tls_cert_file=gateway.pem",
    "listen.tls_key_file=gateway-tls.key",
];

/// The right to use the machine, until it is dropped: clusters share it, but for those that
/// are judged by the clock. A file, since tests may run in several processes at a time.
struct Turn(#[expect(dead_code, reason = "closing it is what counts")] File);

impl Turn {
    fn file() -> File {
        let path = std::env::temp_dir().join("sallyport-tests.lock");
        let opened = File::open(&path).or_else(|_| File::create(&path));
        opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn shared() -> Self {
        let file = Self::file();
        file.lock_shared().expect("a lock");
        Self(file)
    }

    fn alone() -> Self {
        let file = Self::file();
        file.lock().expect("a lock");
        Self(file)
    }
}

/// Three processes and what they know of each other.
pub struct Cluster {
    /// Center's process.
    pub center: Process,
    /// The game's process.
    pub game: Process,
    /// The gateway's process.
    pub gateway: Process,
    /// What clients pin.
    pub gateway_key: [u8; 32],
    /// The public key of the game's identity, as text.
    pub game_identity: String,
    center_identity: String,
    token_public: String,
    token_secret: [u8; 64],
    ip: Ipv4Addr,
    directory: TempDir,
    /// Dropped last: the next one may begin when all processes have ended.
    _turn: Turn,
}

impl Cluster {
    /// Starts all three with these settings and waits until clients can log in.
    pub fn start(gateway: Settings, center: Settings, game: Settings) -> Self {
        Self::start_in(Turn::shared(), gateway, center, game)
    }

    /// The same while no other cluster runs: for tests that measure time.
    pub fn start_alone(gateway: Settings) -> Self {
        Self::start_in(Turn::alone(), gateway, &[], &[])
    }

    /// The same with a game that has a map, as group 2 and in a process of its own. Its role
    /// is `map` to those who ask for its metrics.
    pub fn start_with_map(gateway: Settings, map: Settings) -> (Self, Process) {
        let mut cluster = Self::prepare(Turn::shared(), gateway, &[], &[]);
        let mut game = cluster.map_game(map);
        game.start();
        cluster.start_all();
        (cluster, game)
    }

    fn start_in(turn: Turn, gateway: Settings, center: Settings, game: Settings) -> Self {
        let mut cluster = Self::prepare(turn, gateway, center, game);
        cluster.start_all();
        cluster
    }

    fn start_all(&mut self) {
        self.center.start();
        self.game.start();
        self.gateway.start();
        self.wait_ready();
    }

    /// Makes the second game, and lets the gateway know of it.
    fn map_game(&self, settings: Settings) -> Process {
        let (ip, at) = (self.ip, self.path());
        let identity = keygen(at, "identity", "map.identity");
        let game = fs::read_to_string(at.join("game.toml")).expect("it was written");
        let map = game
            .replace("game-1", "map-1")
            .replace("game.identity", "map.identity")
            .replace(":7200", ":7300")
            .replace(":7201", ":7301")
            .replace("kind = \"echo\"\ngroup = 1", "kind = \"walk\"\ngroup = 2");
        fs::write(at.join("map.toml"), map).expect("a file");
        let group = format!(
            "[[group]]\nid = 2\nname = \"walk\"\n\
             instances = [{{ address = \"{ip}:7300\", key = \"{identity}\" }}]\n"
        );
        let gateway = fs::read_to_string(at.join("gateway.toml")).expect("it was written");
        fs::write(at.join("gateway.toml"), gateway + &group).expect("a file");
        Process::new(at, "game", "map", settings)
    }

    /// Makes keys and configuration files, and starts nothing.
    fn prepare(turn: Turn, gateway: Settings, center: Settings, game: Settings) -> Self {
        static CLUSTERS: AtomicU32 = AtomicU32::new(1);
        let count = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        // 127.0.x.y is left to others; every address of 127/8 is this host's.
        let ip = Ipv4Addr::new(127, 1 + high % 250, low, (1 + count % 250) as u8);
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path();
        let gateway_key = keygen(at, "gateway", "gateway.key");
        let gateway_identity = keygen(at, "identity", "gateway.identity");
        let center_identity = keygen(at, "identity", "center.identity");
        let game_identity = keygen(at, "identity", "game.identity");
        let token_public = keygen(at, "token", "token.secret");
        let secret = fs::read_to_string(at.join("token.secret")).expect("a secret");
        let token_secret = decode(secret.trim());

        for (file, name) in [
            ("first.pem", "gateway.pem"),
            ("first.key", "gateway-tls.key"),
        ] {
            fs::copy(tls_file(file), at.join(name)).expect("a file");
        }

        let process = |role, settings, config: String| {
            fs::write(at.join(format!("{role}.toml")), config).expect("a file");
            Process::new(at, role, role, settings)
        };
        let center = process(
            "center",
            center,
            format!(
                "role = \"center\"\nname = \"center-1\"\ndata_dir = \"center-data\"\n\
                 [listen]\nquic = \"{ip}:7100\"\nidentity_file = \"center.identity\"\n\
                 gateway_keys = [\"{gateway_identity}\"]\n\
                 [admission]\nbusy_percent = 0\n\
                 [admin]\nlisten = \"{ip}:7101\"\n"
            ),
        );
        let game = process(
            "game",
            game,
            format!(
                "role = \"game\"\nname = \"game-1\"\n\
                 [listen]\nquic = \"{ip}:7200\"\nidentity_file = \"game.identity\"\n\
                 gateway_keys = [\"{gateway_identity}\"]\n\
                 [game]\nkind = \"echo\"\ngroup = 1\n\
                 [admin]\nlisten = \"{ip}:7201\"\n"
            ),
        );
        let engine = std::env::var("SALLYPORT_TEST_ENGINE").unwrap_or_else(|_| "auto".to_owned());
        let gateway = process(
            "gateway",
            gateway,
            format!(
                "role = \"gateway\"\nname = \"gateway-1\"\n\
                 [listen]\ntcp = \"{ip}:7000\"\nkey_file = \"gateway.key\"\n\
                 [engine]\nkind = \"{engine}\"\nshards = 1\npin = false\n\
                 [limits]\nsessions_max = 256\nconnections_before_login_max = 1024\n\
                 [token]\naudience = \"{AUDIENCE}\"\nkeys = [\"{token_public}\"]\n\
                 [uplink]\nidentity_file = \"gateway.identity\"\n\
                 [center]\naddress = \"{ip}:7100\"\nkey = \"{center_identity}\"\n\
                 [[group]]\nid = 1\nname = \"echo\"\n\
                 instances = [{{ address = \"{ip}:7200\", key = \"{game_identity}\" }}]\n\
                 [admin]\nlisten = \"{ip}:7001\"\n"
            ),
        );
        Self {
            center,
            game,
            gateway,
            gateway_key: decode(&gateway_key),
            game_identity,
            center_identity,
            token_public,
            token_secret,
            ip,
            directory,
            _turn: turn,
        }
    }

    /// Waits until the gateway says that clients can log in, and checks that it
    /// runs on the engine that this run of the tests is about.
    pub fn wait_ready(&self) {
        wait_until("the gateway is ready", PATIENCE, || {
            assert!(self.gateway.is_running(), "the gateway has ended");
            metrics::fetch(self.admin("gateway"), "/readyz").is_some_and(|(code, _)| code == 200)
        });
        // A ring that fails is a failure, unless it is known to be forbidden.
        let wanted = match std::env::var("SALLYPORT_TEST_ENGINE") {
            _ if std::env::var_os("SALLYPORT_TEST_WITHOUT_URING").is_some() => "epoll",
            Ok(engine) if engine == "epoll" => "epoll",
            _ => "uring",
        };
        let (_, stats) = metrics::fetch(self.admin("gateway"), "/stats").expect("figures");
        assert!(
            stats.contains(&format!("\"{wanted}\"")),
            "not {wanted}: {stats}"
        );
    }

    /// Where its files lie.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its address, which nobody else uses.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        (self.ip, 7000).into()
    }

    /// The admin port of a role.
    pub fn admin(&self, role: &str) -> SocketAddr {
        let port = match role {
            "gateway" => 7001,
            "center" => 7101,
            "map" => 7301,
            _ => 7201,
        };
        (self.ip, port).into()
    }

    /// What a role counts now.
    pub fn metrics(&self, role: &str) -> Metrics {
        metrics::read(self.admin(role)).expect("metrics")
    }

    /// Waits until a metric of a role has a value that `holds`.
    pub fn wait_metric(&self, role: &str, series: &str, holds: impl Fn(u64) -> bool) {
        let mut last = None;
        let end = Instant::now() + PATIENCE;
        while !last.is_some_and(&holds) {
            assert!(Instant::now() < end, "{role}: {series} stays at {last:?}");
            std::thread::sleep(Duration::from_millis(10));
            last = metrics::read(self.admin(role)).map(|metrics| metrics.value(series));
        }
    }

    /// A good token of an account, for one login.
    pub fn token(&self, account: &str) -> String {
        token(&self.token_secret, account)
    }

    /// Good tokens of an account, as many as are asked for.
    pub fn token_source(&self, account: &str) -> impl FnMut() -> String + Send + 'static {
        let (secret, account) = (self.token_secret, account.to_owned());
        move || token(&secret, &account)
    }

    /// A token with these claims.
    pub fn issue(&self, claims: &Claims) -> String {
        issue(&self.token_secret, claims).expect("a token")
    }

    /// Runs a load test against this address, until it ends; and its result.
    pub fn load(&self, target: SocketAddr, how: &[&str]) -> (crate::Outcome, serde_json::Value) {
        let secret = std::fs::read_to_string(self.path().join("token.secret")).expect("a key");
        let (target, key) = (target.to_string(), URL_SAFE_NO_PAD.encode(self.gateway_key));
        let mut arguments = vec!["loadtest", &target, "--key", &key, "--token-key"];
        arguments.extend([secret.trim(), "--audience", AUDIENCE, "--json", "load.json"]);
        arguments.extend(how);
        let outcome = crate::run(self.path(), &arguments);
        let text = std::fs::read_to_string(self.path().join("load.json")).expect("a result");
        (outcome, serde_json::from_str(&text).expect("JSON"))
    }

    /// Signs tokens with the key in this file from now on.
    pub fn take_token_secret(&mut self, file: &str) {
        let secret = fs::read_to_string(self.path().join(file)).expect("a secret");
        self.token_secret = decode(secret.trim());
    }

    /// A second gateway beside the first, which starts with its own `name`, ports
    /// 17000 and 17001, and the keys given.
    pub fn other_gateway(&self, identity_file: &str, game_key: &str) -> Process {
        let Self {
            ip,
            token_public,
            center_identity,
            ..
        } = self;
        let config = format!(
            "role = \"gateway\"\nname = \"gateway-2\"\n\
             [listen]\ntcp = \"{ip}:17000\"\nkey_file = \"gateway.key\"\n\
             [engine]\nshards = 1\npin = false\n\
             [limits]\nsessions_max = 16\nconnections_before_login_max = 16\n\
             [token]\naudience = \"{AUDIENCE}\"\nkeys = [\"{token_public}\"]\n\
             [uplink]\nidentity_file = \"{identity_file}\"\n\
             [center]\naddress = \"{ip}:7100\"\nkey = \"{center_identity}\"\n\
             [[group]]\nid = 1\nname = \"echo\"\n\
             instances = [{{ address = \"{ip}:7200\", key = \"{game_key}\" }}]\n\
             [admin]\nlisten = \"{ip}:17001\"\n"
        );
        fs::write(self.path().join("gateway-2.toml"), config).expect("a file");
        Process::new(self.path(), "gateway", "gateway-2", &[])
    }
}

/// A good token of an account.
fn token(secret: &[u8; 64], account: &str) -> String {
    let issued_unix_ms = unix_ms();
    let claims = Claims {
        audience: AUDIENCE.to_owned(),
        account: account.to_owned(),
        id: URL_SAFE_NO_PAD.encode(random32()),
        issued_unix_ms,
        expires_unix_ms: issued_unix_ms + 30_000,
    };
    issue(secret, &claims).expect("a token")
}

/// A certificate or key of `tests/tls`.
pub fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/tls")
        .join(name)
}

/// Makes a key with the binary, as an operator would; returns the public half.
pub fn keygen(directory: &Path, kind: &str, file: &str) -> String {
    let output = std::process::Command::new(binary())
        .current_dir(directory)
        .args(["keygen", kind, "--out", file])
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
}

/// Reads a key of base64url.
fn decode<const N: usize>(text: &str) -> [u8; N] {
    let bytes = URL_SAFE_NO_PAD.decode(text).expect("base64url");
    bytes.try_into().expect("the length of a key")
}
