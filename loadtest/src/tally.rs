//! What a worker counts. Invariant: reasons are labels of closed sets, so the
//! map is bounded.

use std::collections::BTreeMap;
use std::io;

use protocol::body::Lane;
use protocol::client::Closed;

use crate::latency::Latencies;
use crate::messages::{Mixed, Queued};

/// Reasons that are not close reasons of the wire.
pub const REASONS: &[&str] = &[
    "address_not_available",
    "connect_failed",
    "connect_timeout",
    "connection_refused",
    "connection_reset",
    "content",
    "closed_unknown_reason",
    "enter_refused",
    "error_reply",
    "group_not_up",
    "logout_timeout",
    "not_on_map",
    "not_sent",
    "off_path",
    "open_files",
    "overtaken",
    "place_lost",
    "token_unusable",
    "unknown_reply",
    "view_contradiction",
    "view_extra",
    "view_missing",
    "view_place",
    "worker_died",
];

/// The label of a socket's error.
pub fn socket_reason(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "connection_refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection_reset",
        io::ErrorKind::TimedOut => "connect_timeout",
        io::ErrorKind::AddrNotAvailable => "address_not_available",
        _ => "connect_failed",
    }
}

/// The label of an error when a socket is made.
pub fn connect_reason(error: &io::Error) -> &'static str {
    let limit = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    if limit
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    {
        "open_files"
    } else {
        socket_reason(error.kind())
    }
}

/// The label of how a client's connection ended.
pub fn closed_reason(closed: Closed) -> &'static str {
    match closed {
        Closed::ByGateway(Some(reason)) | Closed::ByClient(reason) => reason.label(),
        Closed::ByGateway(None) => "closed_unknown_reason",
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally {
    /// Clients that are logged in.
    pub logged_in: u32,
    /// Most of them at the same time.
    pub logged_in_most: u32,
    /// Clients that logged in at least once.
    pub ever_in: u32,
    /// Clients that were given up before they were in.
    pub failed: u32,
    /// Clients that were cut and never came back.
    pub never_back: u32,
    /// Returns to a session.
    pub resumes: u64,
    /// Returns that had to log in anew.
    pub relogins: u64,
    /// From setting out until back, all of these.
    pub back: Latencies,
    /// Only told in `login-storm`.
    pub queued: Queued,
    /// How long clients waited in the queue.
    pub waits: Latencies,
    /// Only told in `mixed`.
    pub mixed: Mixed,
    /// Application messages.
    pub sent: u64,
    /// Those that left by the path beside the stream.
    pub sent_beside: u64,
    /// Those before the end of the window.
    pub sent_in_window: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Sends of clients that are gone, without a reply.
    pub lost: u64,
    /// Sends of clients that are there, without a reply so far.
    pub outstanding: u64,
    /// Replies to what was answered already.
    pub duplicated: u64,
    /// Replies after that of a later send.
    pub out_of_order: u64,
    /// Since the last report.
    pub interval: Latencies,
    /// Before that.
    pub earlier: Latencies,
    errors: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts an error.
    pub fn error(&mut self, reason: &'static str) {
        self.errors_add(reason, 1);
    }

    /// Counts errors.
    pub fn errors_add(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.errors.entry(reason).or_default() += count;
        }
    }

    /// The errors by reason.
    pub fn errors(&self) -> &BTreeMap<&'static str, u64> {
        &self.errors
    }

    /// All of them.
    pub fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Counts a send of so many bytes.
    pub fn note_send(&mut self, lane: Lane, payload_bytes: usize) {
        self.sent += 1;
        self.mixed.payload_bytes_sent += payload_bytes as u64;
        *match lane {
            Lane::Reliable => &mut self.mixed.requests_sent,
            Lane::Sequenced => &mut self.mixed.sequenced_sent,
            Lane::Unreliable => &mut self.mixed.unreliable_sent,
        } += 1;
    }

    /// A client got in.
    pub fn enter(&mut self) {
        self.logged_in += 1;
        self.ever_in += 1;
        self.logged_in_most = self.logged_in_most.max(self.logged_in);
    }
}
