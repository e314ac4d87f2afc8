//! What a seed draws before anything happens: sizes, limits, speeds, and which
//! faults there will be (some of them only: a fault that is always there hides
//! what happens without it).

pub mod map;

use impair::path::Conditions;
use protocol::limits::FRAME_BYTES_MAX;
use protocol::stream::OutboxLimits;
use protocol::time::Time;

use self::map::MapPlan;
use crate::random::Random;

/// Faults that a plan may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A client's connection breaks; each side hears of it, or does not.
    CutConnection,
    /// A client's bytes are held up for seconds.
    StallConnection,
    /// A client's process dies.
    CrashClient,
    /// A client does not read for seconds.
    StopReading,
    /// An uplink breaks.
    CutLink,
    /// An uplink's bytes are held up.
    StallLink,
    /// A shard cannot reach a backend for a while.
    Partition,
    /// A game instance dies and is started again.
    CrashGame,
    /// Center dies and is started again, within the lease or long after.
    CrashCenter,
    /// A gateway dies with all its shards and is started again.
    CrashGateway,
    /// A gateway is told to end, and ends a little later.
    DrainGateway,
    /// A shard's process is not scheduled for a while.
    PauseShard,
    /// Center's or a game's process is not scheduled for a while.
    PauseBackend,
    /// A write of center's journal fails.
    FailDisk,
    /// A client's datagrams come from another address from now on.
    Migrate,
    /// Somebody on the path replays, reorders or changes frames or datagrams.
    Tamper,
    /// Somebody connects and replays a recorded connection, or sends garbage,
    /// or nothing; or sends datagrams, in others' names too.
    Stranger,
    /// Somebody has copied a ticket with its key, and shows it after it was used.
    Thief,
}

impl Fault {
    const ALL: [Self; 18] = [
        Self::CutConnection,
        Self::StallConnection,
        Self::CrashClient,
        Self::StopReading,
        Self::CutLink,
        Self::StallLink,
        Self::Partition,
        Self::CrashGame,
        Self::CrashCenter,
        Self::CrashGateway,
        Self::DrainGateway,
        Self::PauseShard,
        Self::PauseBackend,
        Self::FailDisk,
        Self::Migrate,
        Self::Tamper,
        Self::Stranger,
        Self::Thief,
    ];
}

/// Between clients and shards.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// One way, microseconds.
    pub delay_us: u64,
    /// Added to it at random, microseconds.
    pub jitter_us: u64,
    /// Segments that have to be sent again; datagrams that are lost.
    pub loss_per_mille: u64,
    /// Segments and datagrams that come twice.
    pub repeat_per_mille: u64,
    /// Datagrams that are held back, so that later ones overtake them.
    pub reorder_per_mille: u64,
    /// Datagrams of which a bit is changed, which no checksum has noticed.
    pub corrupt_per_mille: u64,
    /// Largest segment, bytes.
    pub segment_bytes_max: usize,
}

impl Network {
    /// What it does to datagrams.
    pub fn conditions(&self) -> Conditions {
        let millionths = |per_mille: u64| 1_000 * per_mille as u32;
        Conditions {
            delay_us: self.delay_us,
            jitter_us: self.jitter_us,
            loss: millionths(self.loss_per_mille),
            reorder: millionths(self.reorder_per_mille),
            duplicate: millionths(self.repeat_per_mille),
            bytes_per_second: 0,
        }
    }
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Stream,
    /// TCP, in a WebSocket.
    WebSocket,
    /// UDP.
    Datagrams,
}

/// What happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// What the seed draws.
    Drawn,
    /// Minutes on a bad network: delay, jitter, losses, and cuts all the time.
    Long {
        /// Virtual ones.
        minutes: u64,
    },
}

/// Clients of a long run.
const LONG_CLIENTS: usize = 12;

/// Clusters in a thousand that have a map: runs of these take longer.
const MAP_PER_MILLE: u64 = 400;

/// Of those without one, clusters in a thousand whose center lets only so many play.
const QUEUE_PER_MILLE: u64 = 350;

/// Clusters in a thousand whose players are in channels.
const CHANNELS_PER_MILLE: u64 = 400;

/// Everything that is drawn beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Client processes.
    pub clients: usize,
    /// Of these, so many share the account of another one.
    pub rivals: usize,
    /// Gateways.
    pub gateways: usize,
    /// Shards of each.
    pub shards: usize,
    /// Game instances of the group with the echo.
    pub games: usize,
    /// The clients' network.
    pub network: Network,
    /// Connections over datagrams.
    pub datagrams_per_mille: u64,
    /// Of the others, those in a WebSocket.
    pub websockets_per_mille: u64,
    /// One way over an uplink, microseconds.
    pub link_delay_us: u64,
    /// A write to center's disk, microseconds.
    pub disk_us: u64,
    /// Mean pause between two acts of a client, ms.
    pub pace_ms: u64,
    /// Largest payload, bytes.
    pub payload_bytes_max: u64,
    /// Center's lease, ms.
    pub lease_ms: u32,
    /// Idle timeout, ms; the heartbeat is a third of it.
    pub idle_timeout_ms: u32,
    /// How long a session waits for its client, ms.
    pub resume_ms: u32,
    /// Handshake and login deadlines, ms.
    pub login_timeout_ms: u32,
    /// How long the stub waits for a link, ms.
    pub link_grace_ms: u64,
    /// Frames under one key.
    pub rekey_frames: u64,
    /// Payloads from this size on are compressed.
    pub compress_bytes_min: usize,
    /// Messages in an outbox, at most.
    pub outbox_messages_max: usize,
    /// Messages in an outbox of the stub, at most.
    pub stub_outbox_messages_max: usize,
    /// Bytes in one, at most: what is sent again must fit into what may wait for a client.
    pub stub_outbox_bytes_max: usize,
    /// Frames a second that a client may send.
    pub frames_per_second: u32,
    /// Bytes that wait for a client, at most.
    pub send_queue_bytes_max: usize,
    /// Bytes that wait for a backend, at most.
    pub uplink_queue_bytes_max: usize,
    /// Each client is cut off so often, ms, on average; 0: never.
    pub cut_every_ms: u64,
    /// Applications stay in their sessions as long as they can.
    pub endures: bool,
    /// Events after which a run is taken for one that never comes to rest.
    pub events_max: u64,
    /// Faults of this run.
    pub faults: Vec<Fault>,
    /// Mean pause between two faults, ms.
    pub fault_pause_ms: u64,
    /// When faults end.
    pub heal_at: Time,
    /// A second group, whose game is a map.
    pub map: Option<MapPlan>,
    /// Where not all may play at once.
    pub queue: Option<QueuePlan>,
    /// The echo has channels too.
    pub channels: bool,
}

/// A center at which players wait.
#[derive(Clone, Copy, Debug)]
pub struct QueuePlan {
    /// Sessions at a time.
    pub online_max: usize,
    /// How long a lost connection keeps its place, ms.
    pub forgiven_ms: u64,
    /// How long after its end a session's player goes before others, ms.
    pub returning_ms: u64,
}

impl QueuePlan {
    fn draw(accounts: usize, random: &mut Random) -> Self {
        Self {
            online_max: random.between(1, accounts as u64) as usize,
            forgiven_ms: random.between(1_000, 10_000),
            returning_ms: if random.chance(500) { 5_000 } else { 0 },
        }
    }
}

impl Plan {
    /// Draws a plan.
    pub fn draw(random: &mut Random) -> Self {
        let clients = random.between(2, 30) as usize;
        let rivals = if random.chance(600) {
            random.index(clients / 2 + 1)
        } else {
            0
        };
        let calm = random.chance(150);
        let network = Network {
            delay_us: random.between(50, 60_000),
            jitter_us: if calm { 0 } else { random.between(0, 80_000) },
            loss_per_mille: if calm { 0 } else { random.between(0, 80) },
            repeat_per_mille: if calm { 0 } else { random.between(0, 50) },
            reorder_per_mille: if calm { 0 } else { random.between(0, 50) },
            corrupt_per_mille: if calm { 0 } else { random.between(0, 10) },
            segment_bytes_max: if random.chance(250) {
                random.between(40, 200) as usize
            } else {
                1_448
            },
        };
        let faults = if calm {
            Vec::new()
        } else {
            let share = random.between(100, 900);
            Fault::ALL
                .into_iter()
                .filter(|_| random.chance(share))
                .collect()
        };
        let lease_ms = random.between(2_000, 6_000) as u32;
        let drawn = Self {
            clients,
            rivals,
            gateways: random.between(1, 2) as usize,
            shards: random.between(1, 2) as usize,
            games: random.between(1, 2) as usize,
            network,
            datagrams_per_mille: if random.chance(300) {
                0
            } else {
                random.between(200, 1_000)
            },
            websockets_per_mille: if random.chance(300) {
                0
            } else {
                random.between(200, 1_000)
            },
            link_delay_us: random.between(20, 10_000),
            disk_us: random.between(50, 20_000),
            // The more clients, the less each does, so that runs cost about the same.
            pace_ms: random.between(100, 400) * (clients as u64).max(4) / 4,
            payload_bytes_max: if random.chance(150) { 12_000 } else { 300 },
            lease_ms,
            idle_timeout_ms: if random.chance(120) {
                // Beyond the age at which a frame is old.
                random.between(18_000, 25_000) as u32
            } else {
                random.between(3_000, 8_000) as u32
            },
            resume_ms: if random.chance(200) {
                0
            } else {
                random.between(1_000, 12_000) as u32
            },
            login_timeout_ms: random.between(3_000, 6_000) as u32,
            link_grace_ms: random.between(2_000, 12_000),
            rekey_frames: if random.chance(500) {
                random.between(1, 60)
            } else {
                1 << 20
            },
            compress_bytes_min: if random.chance(500) { 64 } else { usize::MAX },
            outbox_messages_max: random.between(8, 64) as usize,
            stub_outbox_messages_max: if random.chance(200) {
                random.between(20, 40) as usize
            } else {
                1_024
            },
            stub_outbox_bytes_max: OutboxLimits::default().bytes_max,
            frames_per_second: if random.chance(200) {
                random.between(8, 40) as u32
            } else {
                1_000
            },
            // The smallest that a gateway can be given, or twice that.
            send_queue_bytes_max: if random.chance(200) {
                FRAME_BYTES_MAX
            } else {
                2 * FRAME_BYTES_MAX
            },
            uplink_queue_bytes_max: if random.chance(300) { 2_000 } else { 1 << 20 },
            cut_every_ms: 0,
            endures: false,
            events_max: 3_000_000,
            faults,
            fault_pause_ms: random.between(150, 2_500),
            heal_at: Time(0).after_ms(random.between(8_000, 25_000)),
            map: random
                .chance(MAP_PER_MILLE)
                .then(|| MapPlan::draw(clients, random)),
            queue: None,
            channels: false,
        };
        // Walkers are all on the map in the end.
        let has_queue = drawn.map.is_none() && random.chance(QUEUE_PER_MILLE);
        Self {
            stub_outbox_bytes_max: drawn.send_queue_bytes_max / 4,
            channels: random.chance(CHANNELS_PER_MILLE),
            queue: has_queue.then(|| QueuePlan::draw(clients - rivals, random)),
            ..drawn
        }
    }

    /// A run of minutes over a network as mobile ones are: 50 ms one way, up to 20 ms more, one
    /// segment or datagram in twenty lost, and each client cut off every ten seconds. Nothing else
    /// goes wrong, but that games kick now and then, and somebody tries tickets that were used.
    pub fn long(minutes: u64, random: &mut Random) -> Self {
        Self {
            clients: LONG_CLIENTS,
            rivals: 0,
            gateways: 1,
            shards: 1,
            games: 2,
            network: Network {
                delay_us: 50_000,
                jitter_us: 20_000,
                loss_per_mille: 50,
                repeat_per_mille: 5,
                reorder_per_mille: 5,
                corrupt_per_mille: 1,
                segment_bytes_max: 1_448,
            },
            datagrams_per_mille: 500,
            websockets_per_mille: 500,
            pace_ms: 1_000,
            payload_bytes_max: 2_000,
            outbox_messages_max: 1_024,
            stub_outbox_messages_max: 1_024,
            stub_outbox_bytes_max: OutboxLimits::default().bytes_max,
            frames_per_second: 1_000,
            send_queue_bytes_max: 1 << 20,
            uplink_queue_bytes_max: 1 << 20,
            idle_timeout_ms: 6_000,
            resume_ms: 60_000,
            rekey_frames: 500,
            cut_every_ms: 10_000,
            endures: true,
            events_max: 4_000_000 * minutes,
            faults: vec![Fault::Thief],
            fault_pause_ms: 1_000,
            heal_at: Time(0).after_ms(60_000 * minutes),
            map: None,
            queue: None,
            ..Self::draw(random)
        }
    }

    /// What the next connection of a client goes over.
    pub fn transport(&self, random: &mut Random) -> Transport {
        if random.chance(self.datagrams_per_mille) {
            Transport::Datagrams
        } else {
            self.stream(random)
        }
    }

    /// The same, where it is no datagrams.
    pub fn stream(&self, random: &mut Random) -> Transport {
        if random.chance(self.websockets_per_mille) {
            Transport::WebSocket
        } else {
            Transport::Stream
        }
    }
}
