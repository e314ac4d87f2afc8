//! Roles as processes: start, load, reload, errors of a start, end.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use crate::launch::{Files, Role, get, wait_for};
use crate::{Outcome, run, sallyport};

#[test]
fn three_processes_carry_a_load_test_and_end_with_0() {
    let cluster = Files::new();
    let mut center = Role::start(cluster.path(), "center", &[]);
    let mut game = Role::start(cluster.path(), "game", &[]);
    cluster.write_gateway(&center.listen, &game.listen);
    let mut gateway = Role::start(cluster.path(), "gateway", &[]);
    wait_for(&gateway.admin, "/readyz", 200);

    let admin = format!("http://{}", gateway.admin);
    let outcome = run(
        cluster.path(),
        &[
            "loadtest",
            &gateway.listen,
            "--key",
            &cluster.gateway_key,
            "--token-key",
            &cluster.token_secret,
            "--clients",
            "40",
            "--rate",
            "400",
            "--duration",
            "1",
            "--admin",
            &admin,
            "--json",
            "out.json",
            "--fail-if",
            "frames_received < 400",
        ],
    );
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.out, outcome.err);
    let text = fs::read_to_string(cluster.path().join("out.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["clients_connected"], 40);
    assert_eq!(report["frames_received"], 400);
    assert!(["uring", "epoll"].contains(&report["engine"].as_str().expect("a name")));

    let metrics = get(&gateway.admin, "/metrics").1;
    for series in [
        "sallyport_gateway_logins_total 40",
        "sallyport_gateway_drops_total{reason=\"before_login\"} 0",
        "sallyport_gateway_closes_total{reason=\"logged_out\"} 40",
        "sallyport_process_cpu_seconds_total{role=\"gateway\"} ",
    ] {
        assert!(metrics.contains(series), "{series}\n{metrics}");
    }
    assert!(
        get(&center.admin, "/metrics")
            .1
            .contains("sallyport_center_claims_total{result=\"granted\"} 40")
    );
    assert!(
        get(&game.admin, "/metrics")
            .1
            .contains("sallyport_game_connected_total 40")
    );

    for role in [&mut gateway, &mut game, &mut center] {
        role.process.signal("TERM");
        assert_eq!(role.process.wait(Duration::from_secs(10)).code(), Some(0));
    }
}

#[test]
fn a_backend_with_a_wrong_key_keeps_the_gateway_unready_and_is_named() {
    let cluster = Files::new();
    let center = Role::start(cluster.path(), "center", &[]);
    let game = Role::start(cluster.path(), "game", &[]);
    cluster.write_gateway(&center.listen, &game.listen);
    let wrong = format!("group.0.instances.0.key={}", cluster.wrong_key());
    let mut gateway = Role::start(cluster.path(), "gateway", &[&wrong]);
    let line = gateway.process.line("uplink is down");
    assert!(line.contains(&game.listen), "{line}");
    assert!(line.contains("key"), "{line}");
    assert_eq!(get(&gateway.admin, "/readyz").0, 503);
    assert_eq!(get(&gateway.admin, "/healthz").0, 200);
}

#[test]
fn a_reload_takes_the_log_level_and_names_what_needs_a_restart() {
    let cluster = Files::new();
    let mut game = Role::start(cluster.path(), "game", &[]);
    let file = cluster.path().join("game.toml");
    let text = fs::read_to_string(&file).expect("it was written");
    fs::write(
        &file,
        format!("{text}[log]\nlevel = \"warn\"\n[sessions]\noutbox_messages = 99\n"),
    )
    .expect("it is written");
    game.process.signal("HUP");
    let line = game.process.line("needs a restart");
    assert!(line.contains("sessions.outbox_messages"), "{line}");
    game.process.line("log.level");
    fs::write(&file, "role = \"game\"\nnonsense = 1\n").expect("it is written");
    game.process.signal("HUP");
    let line = game.process.line("not reloaded");
    assert!(line.contains("game.toml:2: unknown key nonsense"), "{line}");
    game.process.signal("INT");
    assert_eq!(game.process.wait(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_taken_port_is_named_with_how_to_find_its_owner() {
    let cluster = Files::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let tcp = tcp.local_addr().expect("bound").to_string();
    let udp = udp.local_addr().expect("bound").to_string();
    cluster.write_gateway("127.0.0.1:9", "127.0.0.1:9");
    for (role, key, address, listing) in [
        ("gateway", "listen.tcp", &tcp, "ss -l"),
        ("gateway", "admin.listen", &tcp, "ss -l"),
        ("center", "listen.quic", &udp, "ss -ulpn"),
        ("game", "listen.quic", &udp, "ss -ulpn"),
    ] {
        let set = format!("{key}={address}");
        let file = format!("{role}.toml");
        let outcome = run(cluster.path(), &[role, "--config", &file, "--set", &set]);
        assert_eq!(outcome.code, 2, "{role} {key}: {}", outcome.err);
        assert!(
            outcome.err.contains(address),
            "{role} {key}: {}",
            outcome.err
        );
        assert!(
            outcome.err.contains("taken"),
            "{role} {key}: {}",
            outcome.err
        );
        assert!(
            outcome.err.contains(listing),
            "{role} {key}: {}",
            outcome.err
        );
    }
}

#[test]
fn a_start_that_cannot_work_says_what_to_do() {
    let cluster = Files::new();
    cluster.write_gateway("127.0.0.1:9", "127.0.0.1:9");
    let refused = |arguments: &[&str], advice: &str| {
        let outcome = run(cluster.path(), arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {}", outcome.err);
        assert!(
            outcome.err.contains(advice),
            "{arguments:?}: {}",
            outcome.err
        );
    };
    refused(
        &["gateway", "--config", "game.toml"],
        "sallyport game --config game.toml",
    );
    refused(&["game", "--config", "absent.toml"], "absent.toml");
    refused(
        &[
            "gateway",
            "--config",
            "gateway.toml",
            "--set",
            "listen.key_file=no.key",
        ],
        "sallyport keygen gateway --out no.key",
    );
    refused(
        &[
            "game",
            "--config",
            "game.toml",
            "--set",
            "listen.identity_file=no.identity",
        ],
        "sallyport keygen identity --out no.identity",
    );
    refused(
        &[
            "gateway",
            "--config",
            "gateway.toml",
            "--set",
            "center.address=nowhere.invalid:1",
        ],
        "center.address",
    );
    refused(
        &[
            "gateway",
            "--config",
            "gateway.toml",
            "--set",
            "admin.listen=0.0.0.0:0",
        ],
        "admin.token_file",
    );
    fs::write(cluster.path().join("file"), "").expect("it is written");
    refused(
        &[
            "center",
            "--config",
            "center.toml",
            "--set",
            "data_dir=file",
        ],
        "file",
    );
}

#[test]
fn a_limit_of_open_files_below_what_is_configured_is_refused_on_epoll() {
    let cluster = Files::new();
    cluster.write_gateway("127.0.0.1:9", "127.0.0.1:9");
    let mut command = sallyport(cluster.path(), &[]);
    let binary = command.get_program().to_owned();
    command = std::process::Command::new("sh");
    let output = command
        .current_dir(cluster.path())
        .args(["-c", "ulimit -n 1000; exec \"$0\" \"$@\""])
        .arg(binary)
        .args([
            "gateway",
            "--config",
            "gateway.toml",
            "--set",
            "engine.kind=epoll",
        ])
        .args(["--set", "limits.sessions_max=5000"])
        .output()
        .expect("sh starts");
    let outcome = Outcome::of(output);
    assert_eq!(outcome.code, 2, "{}", outcome.err);
    assert!(outcome.err.contains("ulimit -n"), "{}", outcome.err);
    assert!(
        outcome.err.contains("limits.sessions_max"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_demanded_ring_engine_is_used_or_its_absence_explained() {
    let files = Files::new();
    files.write_gateway("127.0.0.1:9", "127.0.0.1:9");
    if std::env::var_os("SALLYPORT_TEST_WITHOUT_URING").is_none() {
        let mut gateway = Role::start(files.path(), "gateway", &["engine.kind=uring"]);
        let stats = get(&gateway.admin, "/stats").1;
        assert!(stats.contains("\"engine\":\"uring\""), "{stats}");
        gateway.process.signal("TERM");
        assert_eq!(
            gateway.process.wait(Duration::from_secs(10)).code(),
            Some(0)
        );
        return;
    }
    let set = "engine.kind=uring";
    let outcome = run(
        files.path(),
        &["gateway", "--config", "gateway.toml", "--set", set],
    );
    assert_eq!(outcome.code, 2, "{}", outcome.err);
    for advice in [
        "engine.kind = \"uring\" is demanded",
        "io_uring_setup",
        "seccomp",
        "epoll",
    ] {
        assert!(outcome.err.contains(advice), "{advice}: {}", outcome.err);
    }
    // Left to itself it takes the other engine, and says so.
    let gateway = Role::start(files.path(), "gateway", &[]);
    assert!(
        get(&gateway.admin, "/stats")
            .1
            .contains("\"engine\":\"epoll\"")
    );
    let said = |line: &String| line.contains("WARN") && line.contains("epoll");
    assert!(
        gateway.process.seen.iter().any(said),
        "{:?}",
        gateway.process.seen
    );
}
