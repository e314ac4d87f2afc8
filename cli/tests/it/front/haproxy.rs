//! A real HAProxy in front, which writes the headers itself.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{TELLING, connect_from, expect_address};
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE, Settings, wait_until};

const REQUIRED: Settings = &[
    "listen.proxy_protocol=required",
    "listen.proxy_trusted=127.0.0.0/8",
];

/// How the server lines differ: port and options. Health checks run all the time.
const WAYS: [(u16, &str); 4] = [
    (17_001, "send-proxy"),
    (17_002, "send-proxy-v2"),
    (17_003, "send-proxy-v2 proxy-v2-options crc32c"),
    (
        17_004,
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
    ),
];

/// HAProxy's process, killed when it is dropped.
pub struct Haproxy(Child);

impl Haproxy {
    /// Starts it with this configuration and waits until it accepts at `ready`.
    pub fn start(directory: &Path, config: &str, ready: SocketAddr) -> Self {
        let file = directory.join("haproxy.cfg");
        fs::write(&file, config).expect("a file");
        // Debian has it where only root looks.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let child = Command::new("haproxy")
            .env("PATH", &path)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("haproxy.log")).expect("a file"))
            .spawn()
            .expect("haproxy is needed: apt-get install haproxy");
        let mut haproxy = Self(child);
        wait_until("haproxy listens", PATIENCE, || {
            let ended = haproxy.0.try_wait().expect("our own child");
            let log = || fs::read_to_string(directory.join("haproxy.log")).unwrap_or_default();
            assert!(ended.is_none(), "haproxy has ended: {}", log());
            TcpStream::connect(ready).is_ok()
        });
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_tells_where_a_client_is_in_each_version() {
    let cluster = &Cluster::start(REQUIRED, &[], TELLING);
    let ip = cluster.ip();
    let mut config = String::from(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n",
    );
    for (port, options) in WAYS {
        config += &format!(
            "listen way{port}\n bind {ip}:{port}\n unique-id-format %pid-%rt\n \
             server gateway {ip}:7000 check inter 200ms {options}\n"
        );
    }
    let last: SocketAddr = (ip, WAYS[WAYS.len() - 1].0).into();
    let _haproxy = Haproxy::start(cluster.path(), &config, last);
    // An address that neither HAProxy nor the gateway has.
    let from = Ipv4Addr::new(127, 200, 1, 77);
    for (port, options) in WAYS {
        let account = format!("way-{port}");
        let mut raw = Raw::over(connect_from(from, (ip, port).into()));
        let own = raw.stream.local_addr().expect("a socket").to_string();
        raw.greet(&cluster.gateway_key);
        raw.login(&cluster.token(&account));
        raw.round_trip(options.as_bytes());
        expect_address(cluster, &account, &own);
        raw.logout();
    }
    // Its health checks have no client: no header of theirs is bad.
    let metrics = cluster.metrics("gateway");
    assert_eq!(
        metrics.closes(protocol::reason::CloseReason::BadProxyHeader),
        0
    );
}
