//! The counters of a process as its admin port shows them, and the comparison
//! of two readings: which counter moved, and that no other did.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use protocol::reason::{CloseReason, DropReason};

use super::Cluster;
use super::process::{Holdings, RSS_SLACK_BYTES};

/// How long counters may take to get where a test expects them.
const SETTLE: Duration = Duration::from_secs(5);

/// All series of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// The value of a series, named as in the text: `name` or `name{a="b"}`.
    pub fn value(&self, series: &str) -> u64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("no series {series}"))
    }

    /// Connections that the gateway closed for this reason.
    pub fn closes(&self, reason: CloseReason) -> u64 {
        self.value(&closes(reason))
    }

    /// Frames that the gateway dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.value(&drops(reason))
    }
}

/// The series of a close reason.
pub fn closes(reason: CloseReason) -> String {
    format!(
        "sallyport_gateway_closes_total{{reason=\"{}\"}}",
        reason.label()
    )
}

/// The series of a drop reason.
pub fn drops(reason: DropReason) -> String {
    format!(
        "sallyport_gateway_drops_total{{reason=\"{}\"}}",
        reason.label()
    )
}

/// Asks an admin port; status and body.
pub fn fetch(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

/// Reads all series; fractions are cut.
pub fn read(address: SocketAddr) -> Option<Metrics> {
    let (_, text) = fetch(address, "/metrics")?;
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let parsed = series.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse::<f64>().ok()? as u64))
    });
    Some(Metrics(parsed.collect()))
}

/// How a cluster was before something was done to it.
pub struct Calm<'a> {
    cluster: &'a Cluster,
    before: Metrics,
    holdings: Holdings,
    moved: BTreeMap<String, u64>,
    tolerated: Vec<String>,
}

impl<'a> Calm<'a> {
    /// As it is now.
    pub fn before(cluster: &'a Cluster) -> Self {
        Self {
            before: cluster.metrics("gateway"),
            holdings: cluster.gateway.holdings(),
            moved: BTreeMap::new(),
            tolerated: Vec::new(),
            cluster,
        }
    }

    /// `count` connections are to have been closed for this reason.
    pub fn closed(&mut self, reason: CloseReason, count: u64) {
        *self.moved.entry(closes(reason)).or_default() += count;
    }

    /// `count` frames are to have been dropped for this reason.
    pub fn dropped(&mut self, reason: DropReason, count: u64) {
        *self.moved.entry(drops(reason)).or_default() += count;
    }

    /// However many frames may be dropped for this reason.
    pub fn tolerate(&mut self, reason: DropReason) {
        self.tolerated.push(drops(reason));
    }

    /// Checks that exactly the counters named so far have moved, and by how much.
    pub fn check(&self) {
        let moved = |now: &Metrics| -> BTreeMap<String, u64> {
            let reasons = CloseReason::ALL.iter().copied().map(closes);
            let reasons = reasons.chain(DropReason::ALL.iter().copied().map(drops));
            reasons
                .filter(|series| !self.tolerated.contains(series))
                .map(|series| (now.value(&series) - self.before.value(&series), series))
                .filter(|(by, _)| *by > 0)
                .map(|(by, series)| (series, by))
                .collect()
        };
        let end = Instant::now() + SETTLE;
        loop {
            let now = moved(&self.cluster.metrics("gateway"));
            if now == self.moved {
                return;
            }
            if Instant::now() >= end {
                assert_eq!(now, self.moved, "left: what moved; right: what should");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Checks the counters, and that connections, sessions, open files and
    /// memory are back where they were.
    pub fn over(self) {
        self.over_within(RSS_SLACK_BYTES);
    }

    /// The same where the gateway may keep other than the usual memory.
    pub fn over_within(self, kept_bytes: u64) {
        self.check();
        for gauge in [
            "sallyport_gateway_connections",
            "sallyport_gateway_sessions",
        ] {
            let before = self.before.value(gauge);
            self.cluster
                .wait_metric("gateway", gauge, |now| now == before);
        }
        let gateway = &self.cluster.gateway;
        gateway.wait_back_within(self.holdings, kept_bytes);
    }
}
