//! Runs on an honest cluster: nothing to report, on each lane, engine and number
//! of workers; and runs that cannot be, or that lose their gateway.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use backend::stub::{Context, EchoGame, Game, Request};
use loadtest::progress::Stage;
use protocol::quality::Quality;

use crate::cluster::{Cluster, run};

const SHORT: &[&str] = &["--clients", "40", "--rate", "800", "--duration", "0.5"];

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SHORT.iter().chain(more).copied().collect()
}

#[test]
fn an_honest_cluster_leaves_nothing_to_report() {
    let cluster = Cluster::start(EchoGame);
    for more in [
        vec!["--lane", "reliable"],
        vec!["--lane", "unreliable"],
        vec!["--lane", "sequenced"],
        vec!["--engine", "epoll"],
        vec!["--transport", "ws"],
        vec![
            "--transport",
            "ws",
            "--lane",
            "unreliable",
            "--payload",
            "200",
        ],
        vec!["--transport", "udp"],
        vec!["--transport", "udp", "--lane", "unreliable"],
        vec!["--transport", "udp", "--lane", "sequenced"],
        vec![
            "--transport",
            "udp",
            "--engine",
            "epoll",
            "--lane",
            "sequenced",
        ],
        // More than one datagram holds, in either direction.
        vec!["--transport", "udp", "--payload", "4000", "--rate", "100"],
        vec!["--processes", "3"],
        vec!["--payload", "8"],
        vec!["--payload", "4000", "--rate", "100"],
        vec!["--rate", "0"],
    ] {
        let mut args = short(&[]);
        // The later of two values of an option would be refused.
        if let Some(at) = more.iter().position(|word| *word == "--rate") {
            args[3] = more[at + 1];
            args.extend(&more[..at]);
        } else {
            args.extend(&more);
        }
        let (report, wrong) = cluster.load(&args);
        assert!(wrong.is_empty(), "{more:?}: {wrong:?}");
        let rate: f64 = args[3].parse().expect("a rate");
        assert_eq!(report.frames_sent, (rate / 2.0) as u64, "{more:?}");
        assert_eq!(report.frames_received, report.frames_sent);
        assert_eq!(report.clients_connected, 40);
        assert!((report.duration_seconds - 0.5).abs() < 1e-6);
        // A send that is late by the end of the window is not in it, and how
        // many are is up to the machine.
        assert!(report.rate_reached <= rate, "{more:?}");
        if rate > 0.0 {
            assert!(report.rate_reached > 0.0);
            assert!(report.latency_us.p50 > 0);
            assert!(report.latency_us.max >= report.latency_us.p99);
        }
    }
}

/// Echoes, and looks how good the connections of those are who ask.
struct Looking(Arc<Mutex<Vec<Quality>>>);

impl Game for Looking {
    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        let quality = context.quality(request.session);
        self.0.lock().expect("no panic here").extend(quality);
        EchoGame.request(context, request, payload);
    }
}

#[test]
fn a_game_can_ask_how_good_connections_are() {
    let seen = Arc::default();
    let cluster = Cluster::start(Looking(Arc::clone(&seen)));
    let (_, wrong) = cluster.load(&["--clients", "20", "--rate", "400", "--duration", "1"]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let seen = seen.lock().expect("no panic there");
    assert!(seen.iter().all(|quality| quality.ours.round_trip_us > 0));
    // The client had an answer before the gateway had one.
    assert!(seen.iter().any(|quality| quality.theirs.round_trip_us > 0));
}

#[test]
fn a_condition_that_holds_makes_the_run_a_failure() {
    let cluster = Cluster::start(EchoGame);
    let (_, wrong) = cluster.load(&short(&["--fail-if", "frames_sent >= 1"]));
    assert_eq!(wrong.len(), 1);
    let (_, wrong) = cluster.load(&short(&["--fail-if", "errors.content > 0"]));
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn wrong_keys_and_groups_are_named() {
    let cluster = Cluster::start(EchoGame);
    let problem = |change: &dyn Fn(&mut loadtest::LoadtestArgs)| {
        let mut args = cluster.args(&short(&[]));
        change(&mut args);
        run(&args, |_| ControlFlow::Continue(())).expect_err("a refusal")
    };
    let other_key = "A".repeat(43);
    assert!(problem(&|args| args.key.clone_from(&other_key)).contains("--key"));
    let audience = problem(&|args| args.audience = String::from("other"));
    assert!(audience.contains("--audience"), "{audience}");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = nobody.local_addr().expect("its address").to_string();
    drop(nobody);
    let refused = problem(&|args| args.target.clone_from(&closed));
    assert!(refused.contains("connection_refused"), "{refused}");
}

#[test]
fn a_killed_gateway_ends_the_run_soon_and_is_reported() {
    let mut cluster = Cluster::start(EchoGame);
    let args = cluster.args(&["--clients", "40", "--rate", "400", "--duration", "60"]);
    let (report, wrong) = run(&args, |status| {
        if status.stage == Stage::Running {
            cluster.kill_gateway();
        }
        ControlFlow::Continue(())
    })
    .expect("a run");
    assert!(!wrong.is_empty());
    assert!(
        report.duration_seconds < 30.0,
        "{}",
        report.duration_seconds
    );
    assert_eq!(report.clients_connected, 40);
    let not_sent = report.errors["not_sent"];
    assert_eq!(report.frames_sent + not_sent, 60 * 400);
    let cut: u64 = ["peer_closed", "connection_reset"]
        .iter()
        .filter_map(|reason| report.errors.get(*reason))
        .sum();
    assert_eq!(cut, 40, "{:?}", report.errors);
}

#[test]
fn a_run_can_be_ended_early() {
    let cluster = Cluster::start(EchoGame);
    let args = cluster.args(&["--clients", "10", "--rate", "100", "--duration", "3600"]);
    let (report, _) = run(&args, |status| {
        if status.stage == Stage::Running {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .expect("a run");
    assert_eq!(report.frames_lost, 0);
    assert!(
        !report.errors.contains_key("logout_timeout"),
        "{:?}",
        report.errors
    );
}

/// Answers `/stats` with figures that rise by a known amount each time.
fn admin_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for (reading, socket) in (0_u64..).zip(listener.incoming()) {
            let Ok(mut socket) = socket else { return };
            let mut request = [0; 2_048];
            let read = socket.read(&mut request).unwrap_or(0);
            let rss = if reading == 0 { 1_000_000 } else { 1_040_000 };
            let body = format!(
                r#"{{"roles":{{"gateway":{{"engine":"uring","cpu_seconds":{},"rss_bytes":{rss}}}}}}}"#,
                reading as f64 / 100.0
            );
            let body = if request[..read].starts_with(b"GET /metrics ") {
                format!(
                    "# TYPE sallyport_gateway_drops_total counter\n\
                     sallyport_gateway_drops_total{{reason=\"rate_limited\"}} {reading}\n\
                     sallyport_gateway_drops_total{{reason=\"before_login\"}} 5\n\
                     sallyport_gateway_frames_total {reading}\n"
                )
            } else {
                body
            };
            let _ = write!(
                socket,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}

#[test]
fn the_servers_figures_come_from_its_admin_port() {
    let cluster = Cluster::start(EchoGame);
    let url = admin_port();
    let condition = "server.gateway.cpu_seconds > 1000";
    let (report, wrong) = cluster.load(&short(&["--admin", &url, "--fail-if", condition]));
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(report.engine, "uring");
    let gateway = report.server["gateway"];
    assert_eq!(gateway.rss_bytes_before, Some(1_000_000));
    assert_eq!(gateway.rss_bytes_idle, Some(1_040_000));
    assert_eq!(gateway.rss_bytes_peak, Some(1_040_000));
    assert_eq!(gateway.rss_bytes_per_client, Some(1_000.0));
    assert!(gateway.cpu_seconds.is_some_and(|seconds| seconds > 0.0));
    assert!(gateway.cpu_us_per_frame.is_some_and(|us| us > 0.0));

    let mut args = cluster.args(&short(&["--admin", &url]));
    args.fail_if = vec![String::from("server.login.cpu_seconds > 1")];
    let problem = run(&args, |_| ControlFlow::Continue(())).expect_err("a refusal");
    assert!(problem.contains("gateway"), "{problem}");
}

#[test]
fn a_page_is_written_with_what_the_server_lost_and_nothing_from_elsewhere() {
    let cluster = Cluster::start(EchoGame);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("out.html");
    let mut args = cluster.args(&short(&["--admin", &admin_port()]));
    args.html = Some(path.clone());
    assert_eq!(
        loadtest::run_hosted(&args, loadtest::Hosting::Threads),
        loadtest::EXIT_GOOD
    );
    let page = std::fs::read_to_string(&path).expect("a page");
    assert!(page.contains("gateway: rate_limited"));
    // What did not rise in the run is no loss of it, and other counters are none.
    assert!(!page.contains("before_login") && !page.contains("frames_total"));
    assert!(page.contains("CPU by role") && page.contains("Memory by role"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(!page.contains("://") && !page.contains("src="));
}
