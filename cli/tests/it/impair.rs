//! `impair` as a user sees it: a gateway behind it, wrong arguments, its end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::Cluster;
use crate::cluster::player::Player;
use crate::{run, sallyport};

/// A proxy of this test; killed with it.
pub struct Proxy {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Proxy {
    /// Starts one before `target`.
    pub fn start(target: SocketAddr, arguments: &[&str]) -> Self {
        let target = target.to_string();
        let arguments: Vec<&str> = ["impair", &target]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let mut child = sallyport(Path::new("."), &arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("its first line");
        let address = line
            .strip_prefix("impair listen=")
            .and_then(|line| line.split(' ').next())
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        Self {
            child,
            out,
            address,
        }
    }

    /// Waits for its end; gives its last line.
    fn end(&mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("its output");
        assert_eq!(self.child.wait().expect("its end").code(), Some(0));
        rest
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_player_plays_through_a_bad_network() {
    let cluster = Cluster::start(&[], &[], &[]);
    let arguments = ["--delay-ms", "20", "--jitter-ms", "5", "--loss", "1"];
    let mut proxy = Proxy::start(cluster.address(), &arguments);
    let mut player = Player::connect_at(&cluster, proxy.address, cluster.token("far"));
    player.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
    for number in 1..=10_usize {
        let asked = Instant::now();
        player.request(b"far away");
        player.wait("its reply", |seen| seen.replies.len() == number);
        assert!(asked.elapsed() >= Duration::from_millis(30));
    }
    let pid = Pid::from_child(&proxy.child);
    kill_process(pid, Signal::TERM).expect("it runs");
    let last = proxy.end();
    assert!(
        last.starts_with("impair connections=1 ") && last.contains(" refused=0 "),
        "{last}"
    );
}

/// Runs a load test through a proxy; its exit code and its result.
fn load(cluster: &Cluster, proxy: &Proxy, how: &[&str]) -> (i32, serde_json::Value) {
    let mut arguments: Vec<_> = "--clients 20 --rate 400 --duration 1.5"
        .split(' ')
        .collect();
    arguments.extend(how);
    let (outcome, report) = cluster.load(proxy.address, &arguments);
    assert_eq!(report["clients_connected"], 20, "{}", outcome.err);
    (outcome.code, report)
}

#[test]
fn a_load_test_over_udp_misses_what_the_network_lost_and_the_lane_does_not_send_again() {
    let cluster = Cluster::start(&[], &[], &[]);
    let arguments = ["--loss", "5", "--duplicate", "5", "--delay-ms", "2"];
    let proxy = Proxy::start(cluster.address(), &arguments);
    let udp = ["--transport", "udp", "--drain", "1"];
    let (code, report) = load(&cluster, &proxy, &udp);
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        (&report["transport"], &report["lane"]),
        (&"udp".into(), &"reliable".into())
    );
    assert_eq!(report["frames_received"], 600);
    let unreliable = [&udp[..], &["--lane", "unreliable"]].concat();
    let (code, report) = load(&cluster, &proxy, &unreliable);
    assert_eq!(code, 1, "{report}");
    assert_eq!(report["lane"], "unreliable");
    let lost = report["frames_lost"].as_u64().expect("a number");
    // A tenth of the round trips, about.
    assert!((5..300).contains(&lost), "{report}");
    assert_eq!(report["frames_received"], 600 - lost);
    assert_eq!(report["frames_duplicated"], 0);
    assert_eq!(report["errors"], serde_json::json!({}));
}

/// What `scripts/soak` does for minutes with a thousand.
#[test]
fn clients_that_are_cut_again_and_again_in_a_bad_network_miss_nothing() {
    let cluster = Cluster::start(&[], &[], &[]);
    let arguments = "--protocol tcp --loss 5 --delay-ms 10 --jitter-ms 4";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let proxy = Proxy::start(cluster.address(), &arguments);
    for transport in ["tcp", "ws"] {
        let how = ["--scenario", "reconnect-storm", "--transport", transport];
        let (code, report) = load(&cluster, &proxy, &how);
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["frames_received"], report["frames_sent"]);
        assert_eq!(report["relogins"], 0, "{report}");
        // Each is cut three times; one that is still away at its next moment is not.
        assert!(report["resumes"].as_u64() >= Some(20), "{report}");
    }
}

#[test]
fn all_at_once_in_a_bad_network_misses_only_what_nothing_promises() {
    let cluster = Cluster::start(&[], &[], &[]);
    let arguments = ["--loss", "5", "--reorder", "5", "--delay-ms", "5"];
    let proxy = Proxy::start(cluster.address(), &arguments);
    for how in ["--transport udp", "--transport ws --side-path"] {
        let how: Vec<&str> = ["--scenario", "mixed"]
            .into_iter()
            .chain(how.split(' '))
            .collect();
        let (code, report) = load(&cluster, &proxy, &how);
        assert_eq!(code, 0, "{report}");
        let mixed = |name: &str| report["mixed"][name].as_u64().expect("a number");
        // A tenth of 300 round trips by datagrams, about, and what was cut.
        let lost = mixed("frames_lost_allowed");
        assert!((3..150).contains(&lost), "{report}");
        let received = report["frames_received"].as_u64().expect("a number");
        assert_eq!(received + lost, 600, "{report}");
        assert!(mixed("cuts") > 0 && mixed("logouts") > 0, "{report}");
        assert_eq!(report["resumes"], mixed("cuts"), "{report}");
    }
}

/// Cuts that nobody asked for are errors of the run; but everybody is back at its end.
#[test]
fn a_client_that_the_network_cuts_as_a_storm_ends_comes_back_to_log_out() {
    let cluster = Cluster::start(&[], &[], &[]);
    let proxy = Proxy::start(cluster.address(), &["--cut-every", "0.4"]);
    let (code, report) = load(&cluster, &proxy, &["--scenario", "reconnect-storm"]);
    assert_eq!(code, 1, "{report}");
    assert_eq!(
        (&report["connect_failures"], &report["relogins"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    assert_eq!(report["frames_received"], report["frames_sent"]);
    let errors = report["errors"].as_object().expect("an object");
    assert!(!errors.is_empty());
    for reason in errors.keys() {
        let is_a_cut = ["peer_closed", "connection_reset"].contains(&reason.as_str());
        assert!(is_a_cut, "{report}");
    }
}

#[test]
fn it_ends_by_itself_when_it_is_told_to() {
    let target = "127.0.0.1:9".parse().expect("an address");
    let mut proxy = Proxy::start(target, &["--duration", "0.2"]);
    assert!(proxy.end().contains("connections=0"));
}

#[test]
fn wrong_arguments_say_what_to_write() {
    for (arguments, expected) in [
        (&["impair"][..], "TARGET"),
        (&["impair", "nowhere"], "such as 127.0.0.1:7000"),
        (&["impair", "127.0.0.1:1", "--loss", "101"], "from 0 to 100"),
        (
            &["impair", "127.0.0.1:1", "--delay-ms", "x"],
            "not a number",
        ),
        (
            &["impair", "127.0.0.1:1", "--cut-silent", "1"],
            "--cut-every",
        ),
        (
            &["impair", "127.0.0.1:1", "--listen", "192.0.2.1:1"],
            "--listen",
        ),
    ] {
        let outcome = run(Path::new("."), arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert!(outcome.err.contains(expected), "{}", outcome.err);
    }
}
