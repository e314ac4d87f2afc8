//! What parent and workers say to each other: one JSON object a line, over the
//! worker's stdin and stdout.
//!
//! Order: parent `Plan`; worker `Progress`…, `Ready`; parent `Start`; worker
//! `Progress`…, `Drained`; parent `Finish`; worker `Final`. A worker may send
//! `Final` instead of `Ready` or `Drained` when it cannot go on, and ends when
//! its stdin closes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::args::{LaneName, Transport};

/// Bytes of one line; a `Final` with a full histogram has about 200 KiB.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// What one worker has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerPlan {
    /// Where the gateway is.
    pub target: SocketAddr,
    /// Its public key.
    pub gateway_key: [u8; 32],
    /// Signs login tokens: seed, then public key; base64url.
    pub token_secret: String,
    /// Audience of the tokens.
    pub audience: String,
    /// Prefix of the accounts of this run.
    pub account_prefix: String,
    /// Clients of the whole run.
    pub clients: u32,
    /// The first one of this worker.
    pub first: u32,
    /// How many are this worker's.
    pub count: u32,
    /// Sends a second of the whole run.
    pub rate: f64,
    /// Length of the window, ms.
    pub duration_ms: u64,
    /// Longest wait for replies after it, ms.
    pub drain_ms: u64,
    /// Seed of order and content.
    pub seed: u64,
    /// What carries the frames.
    pub transport: Transport,
    /// Lane of the sends.
    pub lane: LaneName,
    /// Whether each client has a path of datagrams beside its stream.
    pub side_path: bool,
    /// Group of the sends.
    pub group: u16,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// The scenario `walk`; otherwise `echo`.
    pub walk: Option<WalkPlan>,
    /// The scenarios `chat` and `broadcast`.
    pub rooms: Option<RoomPlan>,
    /// In `reconnect-storm`: how often each client is cut, ms; in `mixed`, each of a third.
    pub cut_every_ms: Option<u64>,
    /// In `mixed`: how often a part of the clients logs out and in anew, ms.
    pub leave_every_ms: Option<u64>,
    /// The scenario `login-storm`.
    pub login_storm: Option<LoginStorm>,
    /// Whether io_uring carries the sockets; otherwise epoll.
    pub uring: bool,
}

impl WorkerPlan {
    /// Sockets that each client has.
    pub fn sockets_a_client(&self) -> u32 {
        1 + u32::from(self.side_path)
    }
}

/// What `walk` wants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WalkPlan {
    /// Others in view, on average.
    pub visible: f64,
    /// Number of the run, by which its clients know each other on the map.
    pub run: u32,
}

/// What `login-storm` wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStorm {
    /// How long a client stays once it is in, ms.
    pub stay_ms: u64,
}

/// What clients of `login-storm` saw of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Clients that were told that they wait.
    pub waited: u64,
    /// The last position that one was told.
    pub position_max: u32,
    /// Clients that were cut while they waited.
    pub cut: u64,
}

/// What `mixed` did, beside what every scenario does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mixed {
    /// Requests sent, on the reliable lane.
    pub requests_sent: u64,
    /// Messages sent on the sequenced lane.
    pub sequenced_sent: u64,
    /// Messages sent on the unreliable lane.
    pub unreliable_sent: u64,
    /// Bytes of all their payloads.
    pub payload_bytes_sent: u64,
    /// Connections cut without a word.
    pub cuts: u64,
    /// Logouts that a new login followed.
    pub logouts: u64,
    /// Messages without an answer where none is promised: those of the sequenced and unreliable
    /// lanes over datagrams, and those that were under way when their client was cut or left.
    pub frames_lost_allowed: u64,
}

/// What `chat` and `broadcast` want.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomPlan {
    /// Clients in a channel.
    pub size: u32,
    /// The first of this run's channels, which no other run uses.
    pub first_channel: u32,
}

/// From the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// Connect the clients.
    Plan(Box<WorkerPlan>),
    /// Begin to send at this moment of the machine's steady clock.
    Start {
        /// Microseconds.
        at_us: u64,
    },
    /// Log out and end.
    Finish,
}

/// From a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// About once a second.
    Progress(Progress),
    /// Every client is in, or was given up.
    Ready(Progress),
    /// Every reply is here, or was given up.
    Drained(Progress),
    /// The result; nothing follows.
    Final(Box<Outcome>),
}

/// Where a worker stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// When this was so, microseconds on the machine's steady clock.
    pub at_us: u64,
    /// Clients that are logged in.
    pub logged_in: u32,
    /// Clients that were given up.
    pub failed: u32,
    /// Clients that wait in the gateway's queue.
    pub waiting: u32,
    /// Application messages sent so far.
    pub sent: u64,
    /// Received so far.
    pub received: u64,
    /// What went wrong so far, all reasons together.
    pub errors: u64,
    /// Latencies since the last one: (microseconds, count).
    pub latency: Vec<(u64, u64)>,
}

/// What a worker found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run could not start, and why; for people.
    pub unable: Option<String>,
    /// Most clients that were logged in at the same time.
    pub logged_in_most: u32,
    /// Clients that never got in, or never came back.
    pub connect_failures: u32,
    /// First attempt to connect, microseconds on the machine's steady clock.
    pub first_attempt_us: Option<u64>,
    /// Last login.
    pub last_login_us: Option<u64>,
    /// End of the window: after its length, or earlier when no client was left.
    pub window_end_us: Option<u64>,
    /// Sends made before the window ended.
    pub sent_in_window: u64,
    /// Sends made.
    pub sent: u64,
    /// Replies received, doubled and wrong ones included.
    pub received: u64,
    /// Sends without a reply.
    pub lost: u64,
    /// Replies to what was answered already.
    pub duplicated: u64,
    /// Replies after that of a later send.
    pub out_of_order: u64,
    /// `walk`: others in view in the window, summed over as many looks at a client.
    pub visible: Option<(u64, u64)>,
    /// With `--side-path`: messages that left as datagrams beside the stream.
    pub sent_beside: Option<u64>,
    /// Only in `mixed`.
    pub mixed: Option<Mixed>,
    /// Only in `login-storm`.
    pub queued: Option<Queued>,
    /// How long clients waited in the queue, all of these: (microseconds, count).
    pub waits: Vec<(u64, u64)>,
    /// `reconnect-storm` and `mixed`: returns to a session.
    pub resumes: u64,
    /// Returns that had to log in anew.
    pub relogins: u64,
    /// From setting out until back, all of these: (microseconds, count).
    pub back: Vec<(u64, u64)>,
    /// Reason → count.
    pub errors: BTreeMap<String, u64>,
    /// All latencies: (microseconds, count).
    pub latency: Vec<(u64, u64)>,
}
