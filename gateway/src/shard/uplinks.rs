//! What a shard knows of its uplinks: center's and one for each configured
//! instance. Bytes for them are collected here during a turn.

use std::ops::Range;
use std::sync::Arc;

use prost::Message;
use protocol::control::{ToBackend, to_backend};
use protocol::limits::UPLINK_STREAMS;

use super::credits::Line;
use super::{Shard, Versions};

/// Index of center's uplink.
pub const CENTER: usize = 0;

/// Streams of an uplink, the control stream first.
const STREAMS: usize = 1 + UPLINK_STREAMS as usize;

/// One uplink.
#[derive(Debug)]
pub struct Uplink {
    /// Index of its group in the configuration; `None` for center.
    pub group: Option<usize>,
    /// Versions of the client that it takes.
    pub versions: Versions,
    /// The streams stand and the hello is out.
    pub connected: bool,
    /// The hellos are exchanged.
    pub up: bool,
    /// Rises each time the uplink goes down: what was opened before is not
    /// open any more.
    pub epoch: u32,
    /// Which start of the backend's process said hello last.
    pub boot: u64,
    /// The instance's name, as it said then; empty before its first hello.
    pub instance: Arc<str>,
    /// The backend wants to know the addresses of clients.
    pub wants_address: bool,
    /// Bytes appended in this turn, by stream.
    pub out: [Vec<u8>; STREAMS],
    /// Streams of `out` that the driver has not taken; bit i is stream i.
    pub dirty: u8,
    /// Bytes that the driver has and QUIC has not taken.
    pub queued_bytes: usize,
    /// Sessions that wait for credit.
    pub line: Line,
}

const _: () = assert!(STREAMS <= 8, "`dirty` has a bit for each");

impl Uplink {
    /// An uplink that is down.
    pub fn new(group: Option<usize>, versions: Versions) -> Self {
        Self {
            group,
            versions,
            connected: false,
            up: false,
            epoch: 0,
            boot: 0,
            instance: Arc::default(),
            wants_address: false,
            out: Default::default(),
            dirty: 0,
            queued_bytes: 0,
            line: Line::default(),
        }
    }

    /// The buffer of a stream, to append to.
    pub fn stream(&mut self, stream: u8) -> &mut Vec<u8> {
        self.dirty |= 1 << stream;
        &mut self.out[usize::from(stream)]
    }

    /// Appends a control message.
    pub fn control(&mut self, message: to_backend::Message) {
        let message = ToBackend {
            message: Some(message),
        };
        let length = message.encoded_len() as u32;
        let out = self.stream(0);
        out.extend_from_slice(&length.to_le_bytes());
        // Only a buffer without room fails, and a Vec grows.
        let _ = message.encode(out);
    }

    /// Bytes that wait for the backend.
    pub fn waiting_bytes(&self) -> usize {
        self.queued_bytes + self.out.iter().map(Vec::len).sum::<usize>()
    }

    /// The link is gone, and with it what was on its way.
    pub fn reset(&mut self) {
        self.connected = false;
        self.up = false;
        self.epoch = self.epoch.wrapping_add(1);
        self.queued_bytes = 0;
        self.dirty = 0;
        for out in &mut self.out {
            out.clear();
        }
    }
}

impl Shard {
    /// Whether new clients can log in: center and an instance of each group
    /// are there.
    pub fn is_ready(&self) -> bool {
        !self.draining
            && self.uplinks[CENTER].up
            && (0..self.config.groups.len())
                .all(|group| self.uplinks_of(group).any(|at| self.uplinks[at].up))
    }

    /// Uplinks of this shard: center's, then one for each configured instance.
    pub fn uplinks(&self) -> usize {
        self.uplinks.len()
    }

    /// The uplinks of a group, by its index in the configuration.
    pub(super) fn uplinks_of(&self, group: usize) -> Range<usize> {
        let first = self.group_first_uplink[group];
        first..first + self.config.groups[group].instances.len()
    }

    /// Moves the bytes of the next stream that has some into `sink`, which
    /// takes `(uplink, stream, bytes)` and leaves `bytes` empty.
    pub fn poll_uplink(&mut self, mut sink: impl FnMut(usize, u8, &mut Vec<u8>)) {
        for (index, uplink) in self.uplinks.iter_mut().enumerate() {
            while uplink.dirty != 0 {
                let stream = uplink.dirty.trailing_zeros() as u8;
                uplink.dirty &= uplink.dirty - 1;
                sink(index, stream, &mut uplink.out[usize::from(stream)]);
            }
        }
    }

    /// The driver says, once a turn, how many bytes wait in an uplink's link.
    /// Whether the next `handle_timeout` has credit for those who wait for that.
    pub fn handle_uplink_queued(&mut self, at: usize, bytes: usize) -> bool {
        let Some(uplink) = self.uplinks.get_mut(at) else {
            return false;
        };
        uplink.queued_bytes = bytes;
        let queued = self
            .uplinks
            .iter()
            .map(|uplink| uplink.queued_bytes as u64)
            .sum();
        self.counters.uplink_queued_bytes.set(queued);
        self.credit_due(at).is_some_and(|due| due <= self.turn.time)
    }
}
