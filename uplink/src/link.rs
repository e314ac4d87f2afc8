//! One QUIC connection with its five streams, the same on both sides.
//!
//! Owns the streams, what has arrived of a unit that is not whole yet, and what
//! the loop has appended but QUIC has not taken. It does not decode units, has
//! no task and no timer of its own, and never reconnects.
//!
//! Order of calls, once a turn of the owner's loop: [`Link::poll_read`] until
//! it is pending or the turn's budget is used, appending to [`Link::buffer`],
//! then one [`Link::poll_flush`]. After the first error the link stays dead and
//! repeats that error; drop it.
//!
//! Invariant: what a peer can make a link keep is bounded: the receive windows
//! (in `tls.rs`), one read buffer a stream, one control message.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use protocol::ids::SessionId;
use protocol::limits::{CONTROL_BYTES_MAX, RECORD_BYTES_MAX, UPLINK_STREAMS};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::OwnedSemaphorePermit;

use crate::framing::{self, BadLength, CONTROL_PREFIX_BYTES};
use crate::identity::PublicKey;

/// Streams of a link: control and data.
pub(crate) const STREAMS: usize = 1 + UPLINK_STREAMS as usize;

/// Bytes of a data stream's read buffer: a largest record, and as much again so
/// that one read takes what a busy turn has brought.
const READ_BUFFER_BYTES: usize = 65_536;

/// Bytes of the control stream's read buffer while no longer message waits.
/// Most control messages have tens of bytes; it grows to one largest message
/// and shrinks again.
const CONTROL_BUFFER_BYTES: usize = 16_384;

/// Bytes that one stream may hold appended and not taken by QUIC; past it the
/// link is given up ([`LinkError::Overflow`]). Owners slow their sources far
/// below it (see [`Link::queued_bytes`]); this bound only keeps one that does
/// not from growing without end.
pub const QUEUED_BYTES_MAX: usize = 16 << 20;

/// Bytes of a stream's queue that are kept allocated while it is empty: more
/// than a loop turn appends unless there is a backlog.
const IDLE_QUEUE_BYTES: usize = 1 << 20;

/// Close code: this end is done with the link.
pub const CLOSE_DONE: u32 = 0;
/// Close code: the peer broke the rules of the uplink.
pub const CLOSE_PROTOCOL: u32 = 1;
/// Close code: the peer did not take what was sent, see [`QUEUED_BYTES_MAX`].
pub const CLOSE_FULL: u32 = 2;
/// Close code: the five streams were not opened in time, or wrongly.
pub const CLOSE_GREETING: u32 = 3;

const _: () = assert!(READ_BUFFER_BYTES >= RECORD_BYTES_MAX);
const _: () = assert!(QUEUED_BYTES_MAX > 2 * CONTROL_BYTES_MAX);

/// Which stream of a link: control or one of the data streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamIndex(u8);

impl StreamIndex {
    /// The control stream: prost messages, each after a u32 length.
    pub const CONTROL: Self = Self(0);

    /// The data stream of a session, always the same, so that its records stay
    /// in order.
    pub fn of_session(session: SessionId) -> Self {
        Self(protocol::uplink::stream_of(session))
    }

    /// All data streams.
    pub fn data() -> impl Iterator<Item = Self> {
        (1..=UPLINK_STREAMS).map(Self)
    }

    /// Whether this is the control stream.
    pub fn is_control(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        (byte <= UPLINK_STREAMS).then_some(Self(byte))
    }

    pub(crate) fn position(self) -> usize {
        self.0 as usize
    }
}

/// Why a link is dead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer closed it in order.
    #[error("closed by the peer (code {code}): {reason}")]
    Closed {
        /// One of the `CLOSE_…` codes.
        code: u64,
        /// The peer's words, at most what fits into one packet.
        reason: String,
    },
    /// Nothing was heard from the peer for the idle timeout.
    #[error("the peer has not been heard for {} s", crate::tls::IDLE_TIMEOUT.as_secs())]
    TimedOut,
    /// The peer's machine knows nothing of this connection: it has restarted.
    #[error("the peer has restarted")]
    Restarted,
    /// This end closed it.
    #[error("closed by this side")]
    ClosedHere,
    /// QUIC gave up. The peer's fault or the network's.
    #[error("QUIC failed: {0}")]
    Quic(String),
    /// The peer sent a length field outside its bounds.
    #[error("the peer sent a length of {length} bytes on stream {}", stream.0)]
    BadLength {
        /// Where.
        stream: StreamIndex,
        /// The length field, bytes.
        length: u32,
    },
    /// The peer ended one of the streams, which live as long as the link.
    #[error("the peer ended stream {}", stream.0)]
    StreamEnded {
        /// Which.
        stream: StreamIndex,
    },
    /// More than [`QUEUED_BYTES_MAX`] waited: the peer does not read, and the
    /// owner of this end did not slow down.
    #[error("more than {QUEUED_BYTES_MAX} bytes wait on stream {} for a peer that does not read", stream.0)]
    Overflow {
        /// Which stream.
        stream: StreamIndex,
    },
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Restarted,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            other => Self::Quic(other.to_string()),
        }
    }
}

struct Inbound {
    stream: RecvStream,
    /// Initialised once and read into; the first `filled_bytes` are a unit
    /// whose rest has not arrived.
    buffer: Vec<u8>,
    filled_bytes: usize,
}

struct Outbound {
    stream: SendStream,
    /// Appended by the owner; the first `taken_bytes` are QUIC's already.
    buffer: Vec<u8>,
    taken_bytes: usize,
    /// Bytes in front of the first record that begins in `buffer`, the rest of
    /// one that QUIC has begun to take; `None` on the control stream.
    cut_bytes: Option<usize>,
}

/// One live uplink; see the module's text for the order of calls.
pub struct Link {
    connection: Connection,
    peer: PublicKey,
    inbound: [Inbound; STREAMS],
    outbound: [Outbound; STREAMS],
    /// The data stream that the next read begins with; it moves on, so that one
    /// busy stream cannot use up every budget.
    first_data: usize,
    failure: Option<LinkError>,
    /// The acceptor's count of links falls when this is dropped.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Link {
    /// Memory of a link at most: 4 × 64 KiB + 1 MiB of read buffers, the send
    /// and receive windows of `tls.rs`, and 5 × what its owner lets wait.
    pub(crate) fn new(
        connection: Connection,
        peer: PublicKey,
        streams: [(SendStream, RecvStream); STREAMS],
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        // Claims must not wait behind a backlog of data in the send buffer.
        // Fails only on a stream that is closed, which the next write tells.
        let _ = streams[0].0.set_priority(1);
        let (outbound, inbound) = unzip(streams);
        Self {
            connection,
            peer,
            inbound,
            outbound,
            first_data: 0,
            failure: None,
            _slot: slot,
        }
    }

    /// The key that the peer proved.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// Where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.connection.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Round-trip time as QUIC estimates it, for metrics.
    pub fn round_trip(&self) -> std::time::Duration {
        self.connection.rtt()
    }

    /// Reads at most about `bytes_max` bytes and hands whole units to `sink`,
    /// which may change them in place: on a data stream the longest run of whole
    /// records, on the control stream one message at a time without its length
    /// field. The control stream comes first.
    ///
    /// `Ready(Ok(n))`: `n` bytes were read. If `n < bytes_max`, that was all and
    /// `cx` will be woken for more; otherwise there may be more: call again.
    /// `Pending`: there was nothing, `cx` will be woken.
    ///
    /// # Errors
    /// Why the link is dead; the same from then on. Whole units that came before
    /// have been handed over.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
        sink: &mut impl FnMut(StreamIndex, &mut [u8]),
    ) -> Poll<Result<usize, LinkError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let first_data = self.first_data;
        let mut read_bytes = 0;
        for step in 0..STREAMS {
            let stream = match step {
                0 => StreamIndex::CONTROL,
                _ => StreamIndex((1 + (first_data + step - 1) % (STREAMS - 1)) as u8),
            };
            let inbound = &mut self.inbound[stream.position()];
            loop {
                let budget = bytes_max.saturating_sub(read_bytes);
                if budget == 0 {
                    // The streams behind this one come first next time.
                    self.first_data = stream.position() % (STREAMS - 1);
                    return Poll::Ready(Ok(read_bytes));
                }
                match inbound.poll_fill(cx, budget) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(0)) => return self.fail(LinkError::StreamEnded { stream }),
                    Poll::Ready(Ok(n)) => read_bytes += n,
                    Poll::Ready(Err(error)) => return self.fail(read_error(stream, error)),
                }
                let handed_over = match stream.is_control() {
                    true => inbound.hand_over_messages(stream, sink),
                    false => inbound.hand_over_records(stream, sink),
                };
                if let Err(BadLength(length)) = handed_over {
                    return self.fail(LinkError::BadLength { stream, length });
                }
            }
        }
        match read_bytes {
            0 => Poll::Pending,
            n => Poll::Ready(Ok(n)),
        }
    }

    /// Where the owner appends whole records (or control messages, each after
    /// its u32 length). Append only: what stands there may be QUIC's already.
    pub fn buffer(&mut self, stream: StreamIndex) -> &mut Vec<u8> {
        &mut self.outbound[stream.position()].buffer
    }

    /// Bytes that are appended and not yet taken by QUIC. What grows here is
    /// what the peer does not read, or the network does not carry.
    pub fn queued_bytes(&self, stream: StreamIndex) -> usize {
        self.outbound[stream.position()].queued_bytes()
    }

    /// Records of a data stream of which QUIC has taken nothing: of a dead link,
    /// what the peer has certainly not seen.
    pub fn untaken_records(&self, stream: StreamIndex) -> &[u8] {
        self.outbound[stream.position()].untaken_records()
    }

    /// Gives QUIC what was appended, as far as its windows allow; the rest stays.
    /// Once a turn.
    ///
    /// `Pending`: something is left on a stream, `cx` will be woken when QUIC
    /// takes more. Going on appending meanwhile is allowed.
    ///
    /// # Errors
    /// Why the link is dead; the same from then on.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let mut is_pending = false;
        for position in 0..STREAMS {
            let stream = StreamIndex(position as u8);
            match self.outbound[position].poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return self.fail(write_error(stream, error)),
                Poll::Pending => is_pending = true,
            }
            if self.outbound[position].queued_bytes() > QUEUED_BYTES_MAX {
                return self.fail(LinkError::Overflow { stream });
            }
        }
        match is_pending {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }

    /// Ends the link and tells the peer why; what QUIC has not delivered is lost.
    pub fn close(&mut self, code: u32, reason: &str) {
        self.connection
            .close(VarInt::from_u32(code), reason.as_bytes());
        self.failure.get_or_insert(LinkError::ClosedHere);
    }

    fn fail<T>(&mut self, error: LinkError) -> Poll<Result<T, LinkError>> {
        let code = match error {
            LinkError::Overflow { .. } => CLOSE_FULL,
            _ => CLOSE_PROTOCOL,
        };
        // Without effect where the connection is gone already.
        self.connection
            .close(VarInt::from_u32(code), error.to_string().as_bytes());
        self.failure = Some(error.clone());
        Poll::Ready(Err(error))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Before the streams go: they would each be finished, and the peer would
        // take that for a broken rule instead of an end.
        self.connection.close(VarInt::from_u32(CLOSE_DONE), b"done");
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({} at {})", self.peer, self.remote_address())
    }
}

impl Inbound {
    fn new(stream: RecvStream, buffer_bytes: usize) -> Self {
        Self {
            stream,
            buffer: vec![0; buffer_bytes],
            filled_bytes: 0,
        }
    }

    /// Reads behind the partial unit, straight into the buffer. 0 bytes: the
    /// peer ended the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>, budget: usize) -> Poll<Result<usize, ReadError>> {
        let end = self.buffer.len().min(self.filled_bytes + budget);
        // Never empty: a partial unit is shorter than the buffer.
        let space = &mut self.buffer[self.filled_bytes..end];
        let read_bytes = ready!(self.stream.poll_read(cx, space))?;
        self.filled_bytes += read_bytes;
        Poll::Ready(Ok(read_bytes))
    }

    fn hand_over_records(
        &mut self,
        stream: StreamIndex,
        sink: &mut impl FnMut(StreamIndex, &mut [u8]),
    ) -> Result<(), BadLength> {
        let found = framing::records(&self.buffer[..self.filled_bytes]);
        if found.whole_bytes > 0 {
            sink(stream, &mut self.buffer[..found.whole_bytes]);
            self.keep_from(found.whole_bytes);
        }
        found.bad.map_or(Ok(()), Err)
    }

    fn hand_over_messages(
        &mut self,
        stream: StreamIndex,
        sink: &mut impl FnMut(StreamIndex, &mut [u8]),
    ) -> Result<(), BadLength> {
        let mut start = 0;
        let wanted_bytes = loop {
            match framing::control_bytes(&self.buffer[start..self.filled_bytes])? {
                Some(unit_bytes) if start + unit_bytes <= self.filled_bytes => {
                    let message = start + CONTROL_PREFIX_BYTES..start + unit_bytes;
                    sink(stream, &mut self.buffer[message]);
                    start += unit_bytes;
                }
                Some(unit_bytes) => break unit_bytes,
                None => break 0,
            }
        };
        self.keep_from(start);
        // The length has been checked, so this is one largest message at most.
        let buffer_bytes = wanted_bytes.max(CONTROL_BUFFER_BYTES);
        if buffer_bytes != self.buffer.len() && self.filled_bytes <= buffer_bytes {
            self.buffer.resize(buffer_bytes, 0);
            self.buffer.shrink_to_fit();
        }
        Ok(())
    }

    /// Moves the partial unit to the front; all that is ever copied.
    fn keep_from(&mut self, start: usize) {
        self.buffer.copy_within(start..self.filled_bytes, 0);
        self.filled_bytes -= start;
    }
}

impl Outbound {
    /// Where in `buffer` the first record begins of which QUIC has taken nothing.
    /// Looks at each record once over all calls, and at none while QUIC keeps up.
    fn first_untaken(&self) -> Option<usize> {
        let mut start = self.cut_bytes?;
        if self.queued_bytes() == 0 {
            return Some(self.taken_bytes);
        }
        while start < self.taken_bytes {
            let record = self.buffer.get(start..).unwrap_or_default();
            // The owner appends whole records; whatever else it did is not one.
            let Ok(Some(length)) = protocol::uplink::length(record) else {
                return Some(self.buffer.len());
            };
            start += length;
        }
        Some(start)
    }

    fn untaken_records(&self) -> &[u8] {
        let first = self.first_untaken();
        first
            .and_then(|first| self.buffer.get(first..))
            .unwrap_or_default()
    }

    fn queued_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(self.taken_bytes)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        let poll = loop {
            let queued = self.buffer.get(self.taken_bytes..).unwrap_or_default();
            if queued.is_empty() {
                break Poll::Ready(Ok(()));
            }
            // The second time round it only registers the waker.
            match Pin::new(&mut self.stream).poll_write(cx, queued) {
                Poll::Ready(Ok(n)) => self.taken_bytes += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        // Moving the rest only when it is the smaller part keeps the cost of a
        // long backlog linear.
        if self.taken_bytes > self.buffer.len() / 2 {
            let first = self.first_untaken();
            self.cut_bytes = first.map(|first| first - self.taken_bytes);
            self.buffer.drain(..self.taken_bytes.min(self.buffer.len()));
            self.taken_bytes = 0;
        }
        // What a backlog once needed is given back when it is gone.
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_QUEUE_BYTES {
            self.buffer = Vec::new();
        }
        poll
    }
}

fn unzip(
    streams: [(SendStream, RecvStream); STREAMS],
) -> ([Outbound; STREAMS], [Inbound; STREAMS]) {
    let mut inbound = Vec::with_capacity(STREAMS);
    let mut position = 0;
    let outbound = streams.map(|(send, receive)| {
        let buffer_bytes = match position {
            0 => CONTROL_BUFFER_BYTES,
            _ => READ_BUFFER_BYTES,
        };
        let cut_bytes = (position > 0).then_some(0);
        position += 1;
        inbound.push(Inbound::new(receive, buffer_bytes));
        Outbound {
            stream: send,
            buffer: Vec::new(),
            taken_bytes: 0,
            cut_bytes,
        }
    });
    let Ok(inbound) = inbound.try_into() else {
        unreachable!("one for each of the array's elements");
    };
    (outbound, inbound)
}

fn read_error(stream: StreamIndex, error: ReadError) -> LinkError {
    match error {
        ReadError::ConnectionLost(error) => error.into(),
        // Resets count as ends; the others do not happen to ordered reads
        // without 0-RTT.
        _ => LinkError::StreamEnded { stream },
    }
}

fn write_error(stream: StreamIndex, error: WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => error.into(),
        _ => LinkError::StreamEnded { stream },
    }
}
