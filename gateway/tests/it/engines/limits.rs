//! Scenarios about the whole process (open files, seccomp): each runs in a
//! process of its own, which is this test binary started again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gateway::drive::{Gateway, GatewayConfig};
use gateway::engine::{Engine, EngineKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::harness::{Driven, PATIENCE, pattern};

/// Names the scenario that the process was started for.
const ALONE: &str = "SALLYPORT_TEST_ALONE";

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

fn again(kind: EngineKind, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg("--exact")
        .arg(format!("engines::{kind}::{name}"))
        .args(["--nocapture", "--test-threads=1"])
        .env(ALONE, name);
    command
}

fn kind<E: Engine>() -> EngineKind {
    E::new(&Default::default()).unwrap().kind()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

pub fn descriptors_return<E: Engine>() {
    if !is_alone() {
        let status = again(kind::<E>(), "descriptors_return").status().unwrap();
        assert!(status.success());
        return;
    }
    let before = open_files();
    {
        let mut server = Driven::<E>::new(256);
        let mut client = Driven::<E>::new(256);
        let address = server.listen();
        let idle = open_files();
        for round in 0..3 {
            let conns: Vec<_> = (0..100).map(|_| client.connect(address)).collect();
            client.until(|c| {
                server.turn();
                conns.iter().all(|conn| c.story(*conn).connected.is_some())
            });
            server.until(|s| s.log.accepted.len() == 100 * (round + 1));
            for conn in conns {
                client.engine.close(conn);
            }
            client.until(|c| {
                server.turn();
                c.engine.connections() == 0 && server.engine.connections() == 0
            });
            assert_eq!(open_files(), idle, "after round {round}");
        }
    }
    assert_eq!(open_files(), before);
}

/// Under an open-file limit of 256: the uring engine holds 2,000 clients, in
/// tables of 248; the epoll engine holds what it can, keeps the others in the
/// backlog and serves them as soon as descriptors are free.
pub fn serves_at_the_open_file_limit<E: Engine>() {
    const LIMIT: u64 = 256;
    // The epoll engine's must fit into the limit and a backlog of 128, or those
    // beyond wait for their SYN to be sent again.
    let clients = match kind::<E>() {
        EngineKind::Uring => 2_000,
        EngineKind::Epoll => 300,
    };
    const MESSAGE_BYTES: usize = 100;
    if is_alone() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(LIMIT);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let mut server = Driven::<E>::new(clients as u32 + 1);
        server.echo = true;
        let address = server.listen();
        println!("\naddress {address}");
        if server.engine.kind() == EngineKind::Uring {
            server.until(|s| s.engine.connections() == clients as u32);
            assert!(open_files() < 64, "sockets must not be descriptors");
            assert_eq!(server.engine.counters().accept_full, 0);
        } else {
            server.until(|s| s.engine.counters().accept_failed > 0);
            assert!(server.engine.connections() < LIMIT as u32);
        }
        println!("\nholding");
        server.until(|s| s.log.accepted.len() == clients && s.engine.connections() == 0);
        return;
    }
    raise_open_files();
    let mut child = again(kind::<E>(), "serves_at_the_open_file_limit")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line_with = |start: &str| {
        lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix(start).map(str::to_owned))
            .expect("the child says so")
    };
    let address: SocketAddr = line_with("address ").parse().unwrap();
    let mut sockets: Vec<TcpStream> = (0..clients)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    line_with("holding");
    for (seed, client) in sockets.iter_mut().enumerate() {
        client
            .write_all(&pattern(seed as u64, MESSAGE_BYTES))
            .unwrap();
    }
    for (seed, mut client) in sockets.into_iter().enumerate() {
        let mut back = [0; MESSAGE_BYTES];
        client.read_exact(&mut back).unwrap();
        assert!(back[..] == pattern(seed as u64, MESSAGE_BYTES));
    }
    assert!(child.wait().unwrap().success());
}

/// A gateway without a free descriptor keeps trying to accept, though nothing
/// wakes it, and takes the client soon after there is one.
pub fn accepting_goes_on_by_itself<E: Engine>() {
    /// Other wake-ups, such as an uplink's next attempt, are at least a second
    /// apart; ten times as many retries fit into it.
    const RETRIES: u64 = 40;
    const RETRIES_WITHIN: Duration = Duration::from_secs(15);

    let kind = kind::<E>();
    if !is_alone() {
        let name = "accepting_goes_on_by_itself";
        assert!(again(kind, name).status().unwrap().success());
        return;
    }
    let gateway = lonely_gateway(kind);
    let counters = gateway.counters().remove(0);
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // Not one above the highest: there may be gaps below it.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = |current| {
        let limit = Rlimit { current, maximum };
        setrlimit(Resource::Nofile, limit).unwrap();
    };
    limit(Some(open_files() as u64 + 16));
    let fillers: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    client.connect(&gateway.address().into()).unwrap();
    if kind == EngineKind::Epoll {
        let begin = Instant::now();
        while counters.accept_failed.value() < RETRIES {
            assert!(begin.elapsed() < RETRIES_WITHIN, "too few retries");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(counters.accepted.value(), 0);
        drop(fillers);
    }
    // The uring engine needs no descriptor for it.
    let begin = Instant::now();
    while counters.accepted.value() == 0 {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    limit(maximum);
    gateway.stop();
    gateway.join();
}

/// One shard, whose center nobody is.
fn lonely_gateway(kind: EngineKind) -> Gateway {
    let identity = uplink::Identity::from_seed([1; 32]);
    let center = uplink::DialTarget {
        address: ([127, 0, 0, 1], 9).into(),
        key: identity.public_key(),
    };
    let shard = gateway::testing::shard_config(10);
    let config = GatewayConfig {
        instances: vec![center; shard.groups.len()],
        shard,
        shards: 1,
        pin: false,
        engine: Some(kind),
        listen: ([127, 0, 0, 1], 0).into(),
        udp: false,
        connections_max: 20,
        audience: "sallyport".into(),
        token_keys: vec![identity.public_key().0],
        identity,
        center,
    };
    Gateway::start(config).unwrap()
}

/// The probe in a process whose seccomp filter answers io_uring with EPERM, as
/// container runtimes do by default; epoll must work there.
pub fn probe_explains_a_filter<E: Engine>() {
    if !is_alone() {
        let mut command = again(kind::<E>(), "probe_explains_a_filter");
        let status = command
            .env_remove("SALLYPORT_TEST_WITHOUT_URING")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let kind = kind::<E>();
    forbid_uring();
    let text = gateway::engine::probe().unwrap_err().to_string();
    assert!(text.contains("io_uring is forbidden"), "{text}");
    assert!(text.contains("seccomp"), "{text}");
    let made = E::new(&Default::default());
    match kind {
        EngineKind::Uring => {
            let text = made.err().expect("forbidden").to_string();
            assert!(text.contains("io_uring is forbidden"), "{text}");
        }
        EngineKind::Epoll => drop(made.unwrap()),
    }
}

fn forbid_uring() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    // io_uring_setup has the same number on every architecture since 5.1.
    const IO_URING_SETUP: i64 = 425;
    const EPERM: u32 = 1;
    let filter = SeccompFilter::new(
        [(IO_URING_SETUP, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
