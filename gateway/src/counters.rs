//! What a shard counts. One writer (the shard's thread) and any number of
//! readers; a count is a plain load and store, never a locked instruction.
//!
//! Invariant: every drop and every close is in exactly one of these.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::reason::{CloseReason, DropReason};

use crate::limits::Limited;

/// A counter or gauge with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call it.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Takes `n` off a gauge. Only the owning thread may call it.
    pub fn sub(&self, n: u64) {
        self.set(self.value().wrapping_sub(n));
    }

    /// Sets a gauge, or a count that is kept elsewhere. Only the owning thread
    /// may call it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of [`Counters::round_trips`], microseconds: from a rack to a satellite.
/// What is longer is in none.
pub const ROUND_TRIP_BOUNDS_US: [u32; 12] = [
    500, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000,
];

/// Upper bounds of the buckets of [`Counters::send_queues`], bytes: from nothing to a queue
/// that no configuration exceeds by much.
pub const SEND_QUEUE_BOUNDS_BYTES: [u32; 8] =
    [0, 1_024, 4_096, 16_384, 65_536, 131_072, 262_144, 1_048_576];

/// How often values lay within each of `N` bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u32; N],
    /// By bucket; each value is counted in one, those above all bounds in none.
    buckets: [Counter; N],
    count: Counter,
    sum: Counter,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u32; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            count: Counter::default(),
            sum: Counter::default(),
        }
    }

    /// Counts one. Only the owning thread may call it.
    pub fn add(&self, value: u32) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        if let Some(bucket) = bucket {
            self.buckets[bucket].add(1);
        }
        self.count.add(1);
        self.sum.add(u64::from(value));
    }

    /// How many were up to each bound, how many there were, and their sum.
    pub fn values(&self) -> ([u64; N], u64, u64) {
        let mut below = 0;
        let cumulated = std::array::from_fn(|bucket| {
            below += self.buckets[bucket].value();
            below
        });
        (cumulated, self.count.value(), self.sum.value())
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:literal, $metric:literal;)*) => {
        /// All counters of one shard.
        #[derive(Debug)]
        pub struct Counters {
            drops: Box<[Counter]>,
            closes: Box<[Counter]>,
            limited: Box<[Counter]>,
            /// Round trips to clients, microseconds, one of each client a heartbeat.
            pub round_trips: Histogram<{ ROUND_TRIP_BOUNDS_US.len() }>,
            /// Bytes that wait for a client, looked at with each of its heartbeats.
            pub send_queues: Histogram<{ SEND_QUEUE_BOUNDS_BYTES.len() }>,
            $($(#[doc = $doc])* pub $name: Counter,)*
        }

        impl Default for Counters {
            fn default() -> Self {
                let slots = |n: usize| (0..n).map(|_| Counter::default()).collect();
                Self {
                    drops: slots(DropReason::ALL.len()),
                    closes: slots(CloseReason::ALL.len()),
                    limited: slots(Limited::ALL.len()),
                    round_trips: Histogram::new(&ROUND_TRIP_BOUNDS_US),
                    send_queues: Histogram::new(&SEND_QUEUE_BOUNDS_BYTES),
                    $($name: Counter::default(),)*
                }
            }
        }

        /// Name, kind (`counter` or `gauge`) and help of each plain metric.
        pub const METRICS: &[(&str, &str, &str)] = &[$(($metric, $kind, concat!($($doc),*)),)*];

        impl Counters {
            /// The values of the plain metrics, in the order of `METRICS`.
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name.value(),)*]
            }
        }
    };
}

counters! {
    /// Connections that are open, those that are closing included.
    connections: "gauge", "sallyport_gateway_connections";
    /// Sessions that are logged in.
    sessions: "gauge", "sallyport_gateway_sessions";
    /// Sessions that wait for their client to come back.
    sessions_parked: "gauge", "sallyport_gateway_sessions_parked";
    /// Clients that wait in center's queue.
    queued: "gauge", "sallyport_gateway_queued";
    /// Connections accepted.
    accepted: "counter", "sallyport_gateway_accepted_total";
    /// Handshakes of TLS done.
    tls_handshakes: "counter", "sallyport_gateway_tls_handshakes_total";
    /// Handshakes done.
    handshakes: "counter", "sallyport_gateway_handshakes_total";
    /// Logins done.
    logins: "counter", "sallyport_gateway_logins_total";
    /// Sessions resumed.
    resumes: "counter", "sallyport_gateway_resumes_total";
    /// Of these, so many whose session came from another shard.
    moves: "counter", "sallyport_gateway_moves_total";
    /// Frames from clients that passed every check of their envelope.
    frames_received: "counter", "sallyport_gateway_frames_received_total";
    /// Bytes of frames from clients.
    bytes_received: "counter", "sallyport_gateway_received_bytes_total";
    /// Frames sealed for clients.
    frames_sent: "counter", "sallyport_gateway_frames_sent_total";
    /// Bytes handed to the kernel for clients.
    bytes_sent: "counter", "sallyport_gateway_sent_bytes_total";
    /// Messages forwarded to backends.
    forwarded: "counter", "sallyport_gateway_forwarded_total";
    /// Times that reading from a client paused because it was above its rate.
    rate_pauses: "counter", "sallyport_gateway_rate_pauses_total";
    /// Networks and accounts forgotten although they used some of a limit: the tables are full.
    limits_forgotten: "counter", "sallyport_gateway_limits_forgotten_total";
    /// Times that a client got no more credit for a group, because its backend does not keep up.
    credits_withheld: "counter", "sallyport_gateway_credits_withheld_total";
    /// CREDITs sent to clients.
    credits_told: "counter", "sallyport_gateway_credits_told_total";
    /// Messages that may get lost and wait for clients that read too slowly.
    backlog_messages: "gauge", "sallyport_gateway_backlog_messages";
    /// Times that reading from a client paused because it sent far beyond its credit.
    uplink_pauses: "counter", "sallyport_gateway_uplink_pauses_total";
    /// Uplinks that are up, center included.
    uplinks_up: "gauge", "sallyport_gateway_uplinks_up";
    /// Bytes that wait for backends.
    uplink_queued_bytes: "gauge", "sallyport_gateway_uplink_queued_bytes";
    /// Times that accepting stopped because the engine was full; clients wait in the backlog.
    accept_full: "counter", "sallyport_gateway_accept_full_total";
    /// Accepts that failed: no descriptor, no memory, or the client gave up.
    accept_failed: "counter", "sallyport_gateway_accept_failed_total";
    /// Receives that found no free buffer and were started again.
    receive_starved: "counter", "sallyport_gateway_receive_starved_total";
    /// Datagrams from clients, whatever became of them.
    datagrams_received: "counter", "sallyport_gateway_datagrams_received_total";
    /// Datagrams handed to the kernel for clients.
    datagrams_sent: "counter", "sallyport_gateway_datagrams_sent_total";
    /// Datagrams of clients that never came, counted when their connections end.
    datagrams_missing: "counter", "sallyport_gateway_datagrams_missing_total";
    /// Segments of the reliable lane that were sent to clients again.
    segments_resent: "counter", "sallyport_gateway_segments_resent_total";
    /// Times that a client's datagrams came from another address, which was then asked.
    path_challenges: "counter", "sallyport_gateway_path_challenges_total";
    /// Times that a client's new address answered and became its own.
    migrations: "counter", "sallyport_gateway_migrations_total";
    /// Side paths that clients opened beside a stream.
    side_paths: "counter", "sallyport_gateway_side_paths_total";
    /// Messages that came by a side path.
    side_messages_received: "counter", "sallyport_gateway_side_messages_received_total";
    /// Messages that left by a side path.
    side_messages_sent: "counter", "sallyport_gateway_side_messages_sent_total";
    /// Channels with a member.
    channels: "gauge", "sallyport_gateway_channels";
    /// Members of all channels.
    channel_members: "gauge", "sallyport_gateway_channel_members";
    /// Messages that backends published to channels.
    channel_messages: "counter", "sallyport_gateway_channel_messages_total";
    /// Times that one of them was handed to a member.
    channel_deliveries: "counter", "sallyport_gateway_channel_deliveries_total";
    /// Keys that were drawn for channels: at the first message, and after somebody has left.
    channel_epochs: "counter", "sallyport_gateway_channel_epochs_total";
    /// Turns of the shard's loop.
    turns: "counter", "sallyport_gateway_turns_total";
    /// Time that the shard's loop was not waiting, microseconds.
    busy_us: "counter", "sallyport_gateway_busy_us_total";
}

impl Counters {
    /// Counts a lost frame or record: the only way to lose one.
    pub fn drop_frame(&self, reason: DropReason) {
        self.drop_frames(reason, 1);
    }

    /// Counts so many of them.
    pub fn drop_frames(&self, reason: DropReason, frames: u64) {
        self.drops[reason as usize].add(frames);
    }

    /// Counts a closed connection.
    pub fn close(&self, reason: CloseReason) {
        if let Some(at) = CloseReason::ALL.iter().position(|&other| other == reason) {
            self.closes[at].add(1);
        }
    }

    /// Counts somebody who was above a limit of a network or an account.
    pub fn limited(&self, limit: Limited) {
        self.limited[limit as usize].add(1);
    }

    /// How often somebody was above this limit.
    pub fn times_limited(&self, limit: Limited) -> u64 {
        self.limited[limit as usize].value()
    }

    /// How many frames were lost for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].value()
    }

    /// How many connections were closed for this reason.
    pub fn closes(&self, reason: CloseReason) -> u64 {
        CloseReason::ALL
            .iter()
            .position(|&other| other == reason)
            .map_or(0, |at| self.closes[at].value())
    }
}
