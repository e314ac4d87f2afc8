//! One end of an established datagram connection: keys, window, clock, the reliable lane,
//! and the bodies that wait to leave. See the parent module.
//!
//! Call order: `open` a datagram and hand its chunks to `handle_ack`, `receive`, …; `push`
//! what is to be sent; `handle_timeout` when `poll_timeout` is due; then `write` until it
//! says no. Time only moves forward.

use super::arq::{Arq, Received};
use super::chunk::{self, ACK_BYTES_MAX, Ack, BODY_HEAD_BYTES, COMPRESSED, Chunk, SHORT_BYTES};
use super::window::DatagramOpener;
use super::{CID_BYTES, Cid};
use crate::body::is_direct;
use crate::check::{Age, ClockOffset};
use crate::cipher::{Key, RekeyPolicy, Sealer};
use crate::frame::{self, FLAG_COMPRESSED, FLAG_HANDSHAKE, FLAGS_KNOWN, Header};
use crate::limits::{
    DATAGRAM_BYTES_MAX, FRAME_HEADER_BYTES, REPLAY_WINDOW, SEALED_FRAME_BYTES_MIN,
    SEGMENT_BYTES_MAX, TAG_BYTES,
};
use crate::quality::{Arrivals, Loss};
use crate::reason::DropReason;
use crate::time::Time;

/// Bytes of a datagram that are not chunks.
const ENVELOPE_BYTES: usize = CID_BYTES + FRAME_HEADER_BYTES + TAG_BYTES;

/// Bytes of chunks in one datagram.
const CHUNKS_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - ENVELOPE_BYTES;

/// Bytes of the shortest datagram worth sending: one with a challenge or an ACK.
const DATAGRAM_BYTES_MIN: usize = ENVELOPE_BYTES + ACK_BYTES_MAX;

/// Bytes of the longest body that leaves by itself.
pub const DIRECT_BYTES_MAX: usize =
    CHUNKS_BYTES_MAX - ACK_BYTES_MAX - 3 * SHORT_BYTES - BODY_HEAD_BYTES;

/// Capacity, bytes, above which the queue of direct bodies is freed when empty.
const IDLE_BYTES_MAX: usize = 256;

const _: () = assert!(
    SEGMENT_BYTES_MAX + chunk::DATA_HEAD_BYTES + ACK_BYTES_MAX + 3 * SHORT_BYTES
        <= CHUNKS_BYTES_MAX
);

/// A datagram that has verified.
#[derive(Debug)]
pub struct Opened<'a> {
    /// Its place among those that the peer sent.
    pub sequence: u64,
    /// None before it had a higher sequence: its address is where the peer is now.
    pub newest: bool,
    /// What its timestamp says.
    pub age: Age,
    /// Its chunks.
    pub body: &'a [u8],
}

/// See the module.
#[derive(Debug)]
pub struct End {
    /// What the peer's datagrams are sent to: ours where we are the gateway, else what
    /// the gateway gave us.
    pub cid: Cid,
    sealer: Sealer,
    opener: DatagramOpener,
    clock: Option<ClockOffset>,
    loss: Loss,
    arq: Arq,
    /// BODY chunks that wait to leave, from `direct_start`.
    direct: Vec<u8>,
    direct_start: usize,
    response: Option<[u8; 8]>,
    challenge: Option<[u8; 8]>,
    /// The challenge is to leave although nothing else does.
    asks: bool,
    /// The next datagram is to be as long as one may be.
    pads: bool,
    /// Told in every datagram, until the peer uses it.
    new_cid: Option<Cid>,
}

impl End {
    /// An end whose keys stand. `peer_ms` is the timestamp of the peer's first frame,
    /// if there was one.
    pub fn new(
        cid: Cid,
        seal: Key,
        open: Key,
        policy: RekeyPolicy,
        peer_ms: Option<u32>,
        message_bytes_max: usize,
        now: Time,
    ) -> Self {
        // With fewer frames under a key, three keys could be within one window.
        let policy = RekeyPolicy {
            frames: policy.frames.max(REPLAY_WINDOW),
        };
        Self {
            cid,
            sealer: Sealer::new(seal, now, policy),
            opener: DatagramOpener::new(open),
            clock: peer_ms.map(|peer_ms| ClockOffset::new(peer_ms, now)),
            loss: Loss::default(),
            arq: Arq::new(message_bytes_max),
            direct: Vec::new(),
            direct_start: 0,
            response: None,
            challenge: None,
            asks: false,
            pads: false,
            new_cid: None,
        }
    }

    /// See [`Arq::open_window`].
    pub fn open_window(&mut self, message_bytes_max: usize) {
        self.arq.open_window(message_bytes_max);
    }

    /// Bytes that wait to leave or to be acknowledged.
    pub fn queued_bytes(&self) -> usize {
        self.arq.queued_bytes() + self.direct.len() - self.direct_start
    }

    /// See [`Arq::held_bytes`].
    pub fn held_bytes(&self) -> usize {
        self.arq.held_bytes()
    }

    /// See [`Arq::held_segments`].
    pub fn held_segments(&self) -> usize {
        self.arq.held_segments()
    }

    /// Segments that were sent again.
    pub fn resent(&self) -> u64 {
        self.arq.resent()
    }

    /// Datagrams of the peer that were lost, are late, or on their way.
    pub fn missing(&self) -> u64 {
        self.opener.window().missing()
    }

    /// Datagrams of the peer up to the newest: what `missing` is a part of.
    pub fn expected(&self) -> u64 {
        self.opener.window().next()
    }

    /// How the peer's datagrams came; loss is that up to the last `update_loss`.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals {
            jitter_us: self.clock.as_ref().map_or(0, ClockOffset::jitter_us),
            loss: self.loss.fraction(),
        }
    }

    /// Looks at what is missing by now, once a heartbeat.
    pub fn update_loss(&mut self) {
        let window = self.opener.window();
        self.loss.update(window.next(), window.missing());
    }

    /// Checks length, flags, CRC, window, seal and timestamp of a frame, in place.
    ///
    /// # Errors
    /// Why it is dropped; nothing has moved.
    pub fn open<'a>(&mut self, now: Time, frame: &'a mut [u8]) -> Result<Opened<'a>, DropReason> {
        let header = Header::decode(frame).ok_or(DropReason::DatagramMalformed)?;
        if frame.len() < SEALED_FRAME_BYTES_MIN
            || header.length as usize != frame.len()
            || header.flags & !(FLAGS_KNOWN & !FLAG_HANDSHAKE & !FLAG_COMPRESSED) != 0
        {
            return Err(DropReason::DatagramMalformed);
        }
        if frame::crc(frame) != header.crc {
            return Err(DropReason::DatagramCrc);
        }
        let opened = self.opener.open(&header, frame)?;
        let clock = self
            .clock
            .get_or_insert_with(|| ClockOffset::new(header.timestamp_ms, now));
        Ok(Opened {
            sequence: opened.sequence,
            newest: opened.newest,
            age: clock.judge(header.timestamp_ms, now),
            body: opened.body,
        })
    }

    /// See [`Arq::handle_ack`].
    pub fn handle_ack(&mut self, now: Time, ack: &Ack) {
        self.arq.handle_ack(now, ack);
    }

    /// See [`Arq::receive`].
    pub fn receive(&mut self, now: Time, flags: u8, number: u32, bytes: &[u8]) -> Received {
        self.arq.receive(now, flags, number, bytes)
    }

    /// See [`Arq::poll_message`].
    pub fn poll_message(&mut self) -> Option<Result<(u8, Vec<u8>), ()>> {
        self.arq.poll_message()
    }

    /// The peer wants to see this again. The last one counts.
    pub fn handle_challenge(&mut self, token: [u8; 8]) {
        self.response = Some(token);
    }

    /// Asks the peer, at once and in every datagram, to send this back; `None` ends that.
    pub fn set_challenge(&mut self, token: Option<[u8; 8]>) {
        self.challenge = token;
        self.asks = token.is_some();
    }

    /// The challenge that is set, if one is, leaves again, be it by itself.
    pub fn ask(&mut self) {
        self.asks = self.challenge.is_some();
    }

    /// The next datagram has all the bytes that one may have.
    pub fn pad(&mut self) {
        self.pads = true;
    }

    /// Tells the peer, in every datagram, its new name for this connection; `None` ends
    /// that.
    pub fn set_new_cid(&mut self, cid: Option<Cid>) {
        self.new_cid = cid;
    }

    /// Takes a body, given in pieces, of which the first holds its kind and lane: one
    /// that may get lost leaves by itself, any other in order. `flags`: of a frame.
    pub fn push(&mut self, flags: u8, pieces: &[&[u8]]) {
        let flags = if flags & FLAG_COMPRESSED != 0 {
            COMPRESSED
        } else {
            0
        };
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        // What does not fit into a datagram goes the other way, in pieces.
        let direct = bytes <= DIRECT_BYTES_MAX && pieces.first().is_some_and(|it| is_direct(it));
        if !direct {
            return self.arq.push(flags, pieces);
        }
        chunk::body_head(flags, bytes, &mut self.direct);
        for piece in pieces {
            self.direct.extend_from_slice(piece);
        }
    }

    /// Whether `write` would write a datagram.
    pub fn can_write(&self, now: Time) -> bool {
        self.arq.is_ack_due(now)
            || self.arq.can_write()
            || self.direct_start < self.direct.len()
            || self.response.is_some()
            || self.asks
    }

    /// Whether something that waits fits into so many bytes of chunks, of which there are enough
    /// for each of the short ones.
    fn has_for(&self, now: Time, chunks_bytes_max: usize) -> bool {
        let direct = first_chunk(&self.direct[self.direct_start..]);
        self.asks
            || self.response.is_some()
            || self.arq.is_ack_due(now)
            || direct.is_some_and(|bytes| bytes <= chunks_bytes_max)
            || self
                .arq
                .next_bytes()
                .is_some_and(|bytes| bytes <= chunks_bytes_max)
    }

    /// Appends the next datagram, of at most `bytes_max` bytes, to `out`, if there is one to
    /// send. Where nothing of what waits fits there is none: an empty one is no datagram, and
    /// the peer would drop it.
    pub fn write(&mut self, now: Time, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        if bytes_max < DATAGRAM_BYTES_MIN {
            return false;
        }
        let chunks_bytes_max = bytes_max.min(DATAGRAM_BYTES_MAX) - ENVELOPE_BYTES;
        if !self.has_for(now, chunks_bytes_max) {
            return false;
        }
        out.extend_from_slice(&self.cid.0.to_le_bytes());
        self.asks = false;
        let pads = std::mem::take(&mut self.pads);
        let Self {
            sealer,
            arq,
            direct,
            direct_start,
            response,
            challenge,
            new_cid,
            ..
        } = self;
        sealer.seal(now, 0, out, |out| {
            let end = out.len() + chunks_bytes_max;
            if let Some(token) = *challenge {
                Chunk::Challenge(token).encode(out);
            }
            if out.len() + ACK_BYTES_MAX <= end
                && let Some(ack) = arq.take_ack(now)
            {
                Chunk::Ack(ack).encode(out);
            }
            if let Some(token) = response.take_if(|_| out.len() + SHORT_BYTES <= end) {
                Chunk::Response(token).encode(out);
            }
            if let Some(cid) = *new_cid
                && out.len() + SHORT_BYTES <= end
            {
                Chunk::NewCid(cid).encode(out);
            }
            while let Some(bytes) = first_chunk(&direct[*direct_start..]) {
                if out.len() + bytes > end {
                    break;
                }
                out.extend_from_slice(&direct[*direct_start..*direct_start + bytes]);
                *direct_start += bytes;
            }
            arq.write(now, end - out.len(), out);
            if pads {
                Chunk::Padding(end - out.len()).encode(out);
            }
        });
        if self.direct_start == self.direct.len() {
            self.direct_start = 0;
            self.direct.clear();
            if self.direct.capacity() > IDLE_BYTES_MAX {
                self.direct = Vec::new();
            }
        }
        true
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.arq.poll_timeout()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.arq.handle_timeout(now);
    }
}

/// Bytes of the BODY chunk that `queue`, our own, begins with.
fn first_chunk(queue: &[u8]) -> Option<usize> {
    let length = u16::from_le_bytes([*queue.get(2)?, *queue.get(3)?]);
    Some(BODY_HEAD_BYTES + usize::from(length))
}

#[cfg(test)]
mod tests;
