//! What carries the bodies of a client's connection: a stream or datagrams.
//!
//! Owns the ciphers of a connection past its handshake, and how a message is compressed and
//! sealed. Knows no session. Invariant: a body is sealed once, under the keys of the connection
//! that carries it.

use crate::body::{Body, MessageHeader};
use crate::check::ClockOffset;
use crate::cipher::{Opener, Sealer};
use crate::compress::Scratch;
use crate::datagram::End;
use crate::frame::FLAG_COMPRESSED;
use crate::handshake::Parameters;
use crate::quality::{Arrivals, Meter, Ping, Quality};
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) parameters: Parameters,
    pub(super) meter: Meter,
}

/// What carries the bodies.
#[derive(Debug)]
pub(super) enum Wire {
    Stream(StreamWire),
    Datagrams(Box<End>),
}

#[derive(Debug)]
pub(super) struct StreamWire {
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) clock: ClockOffset,
}

impl Connection {
    /// Bytes on their way out, where so many are in the buffer.
    pub(super) fn waiting_bytes(&self, buffered: usize) -> usize {
        match &self.wire {
            Wire::Stream(_) => buffered,
            Wire::Datagrams(end) => end.queued_bytes(),
        }
    }

    /// Sends a PING.
    pub(super) fn ping(&mut self, now: Time, out: &mut Vec<u8>) {
        self.update_loss();
        let ping = self.meter.ping(now, self.arrivals());
        self.seal(now, 0, out, |out| Body::Ping(ping).encode(out));
    }

    /// Answers a PING.
    pub(super) fn pong(&mut self, now: Time, ping: &Ping, out: &mut Vec<u8>) {
        self.update_loss();
        let (pong, _) = self.meter.handle_ping(now, ping, self.arrivals());
        self.seal(now, 0, out, |out| Body::Pong(pong).encode(out));
    }

    pub(super) fn quality(&self) -> Quality {
        self.meter.quality(self.arrivals())
    }

    fn update_loss(&mut self) {
        if let Wire::Datagrams(end) = &mut self.wire {
            end.update_loss();
        }
    }

    fn arrivals(&self) -> Arrivals {
        match &self.wire {
            Wire::Stream(wire) => Arrivals {
                jitter_us: wire.clock.jitter_us(),
                loss: 0,
            },
            Wire::Datagrams(end) => end.arrivals(),
        }
    }

    /// Sends a body: seals it behind `out`, or gives it to the datagrams.
    pub(super) fn seal(
        &mut self,
        now: Time,
        flags: u8,
        out: &mut Vec<u8>,
        write_body: impl FnOnce(&mut Vec<u8>),
    ) {
        match &mut self.wire {
            Wire::Stream(wire) => wire.sealer.seal(now, flags, out, write_body),
            Wire::Datagrams(end) => {
                let start = out.len();
                write_body(out);
                end.push(flags, &[&out[start..]]);
                out.truncate(start);
            }
        }
    }
}

pub(super) fn seal_message(
    connection: &mut Connection,
    now: Time,
    header: &MessageHeader,
    payload: &[u8],
    compress_bytes_min: usize,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let (flags, payload) = compressed(payload, compress_bytes_min, scratch);
    connection.seal(now, flags, out, |out| {
        header.encode(out);
        out.extend_from_slice(payload);
    });
}

/// Seals a message as it stands in an outbox.
pub(super) fn seal_encoded(
    connection: &mut Connection,
    now: Time,
    message: &[u8],
    compress_bytes_min: usize,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let Ok(Body::Message { header, payload }) = Body::decode(message) else {
        return;
    };
    seal_message(
        connection,
        now,
        &header,
        payload,
        compress_bytes_min,
        scratch,
        out,
    );
}

/// The payload as it should travel, and the flag that says so.
pub fn compressed<'a>(
    payload: &'a [u8],
    bytes_min: usize,
    scratch: &'a mut Scratch,
) -> (u8, &'a [u8]) {
    if payload.len() >= bytes_min
        && let Some(shorter) = scratch.compress(payload)
    {
        return (FLAG_COMPRESSED, shorter);
    }
    (0, payload)
}
