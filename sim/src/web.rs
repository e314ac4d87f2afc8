//! The WebSocket around the frames of a connection: the client's end of it, and what somebody who
//! looks at the bytes makes of them.
//!
//! Invariant: no frame is lost in it: what is handed in before the gateway has upgraded stays with
//! its sender.

use protocol::buffers::Buffers;
use protocol::limits::FRAME_BYTES_MAX;
use protocol::websocket::client::{ClientEnd, Received, Refused};
use protocol::websocket::decoder::{Decoder, Event};

/// What ends the request and its answer.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A client's end, with its memory.
#[derive(Debug)]
pub struct Web {
    end: ClientEnd,
    pool: Buffers,
}

impl Web {
    /// Asks for the upgrade.
    pub fn new(random: [u8; 16]) -> Self {
        Self {
            end: ClientEnd::new("sim", random),
            pool: Buffers::default(),
        }
    }

    /// Whether frames may be sent.
    pub fn is_open(&self) -> bool {
        self.end.is_open()
    }

    /// What goes to the socket for these frames, and of its own.
    pub fn wrap(&mut self, frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.end.wrap(frames, &mut out);
        out
    }

    /// The frames in what came.
    ///
    /// # Errors
    /// The connection is of no use.
    pub fn unwrap(&mut self, mut bytes: &mut [u8]) -> Result<Vec<u8>, Refused> {
        let mut frames = Vec::new();
        while let Some(received) = self.end.next(&mut bytes, &mut self.pool)? {
            if let Received::Message(frame) = received {
                frames.extend_from_slice(frame);
            }
        }
        Ok(frames)
    }
}

/// One direction of a stream, as somebody sees it who knows no key.
#[derive(Debug, Default)]
pub enum Layer {
    /// Too few bytes have come.
    #[default]
    Unknown,
    /// Frames as they stand.
    Plain,
    /// HTTP, up to its end.
    Head {
        /// From the client.
        is_request: bool,
    },
    /// Messages.
    Messages(Box<Decoder>),
    /// What nobody can read.
    Garbage,
}

impl Layer {
    /// Takes the frames out of `bytes`, which keeps what is still to be cut: all of it where there
    /// is no WebSocket.
    pub fn peel(&mut self, bytes: &mut Vec<u8>) -> Vec<Vec<u8>> {
        if let (Self::Unknown, Some(first)) = (&self, bytes.first_chunk::<3>()) {
            // No length of a frame is as large as three letters.
            *self = match first.iter().all(u8::is_ascii_uppercase) {
                true => Self::Head {
                    is_request: first == b"GET",
                },
                false => Self::Plain,
            };
        }
        if let Self::Head { is_request } = self
            && let Some(at) = bytes.windows(4).position(|four| four == HEAD_END)
        {
            bytes.drain(..at + HEAD_END.len());
            *self = Self::Messages(Box::new(match is_request {
                true => Decoder::of_client(),
                false => Decoder::of_server(),
            }));
        }
        let mut frames = Vec::new();
        let Self::Messages(decoder) = self else {
            return frames;
        };
        let mut bytes = std::mem::take(bytes);
        let mut rest = &mut bytes[..];
        loop {
            match decoder.next(&mut rest, FRAME_BYTES_MAX, &mut Buffers::default()) {
                Ok(Some(Event::Message { bytes, .. })) => frames.push(bytes.to_vec()),
                Ok(Some(_)) => {}
                Ok(None) => return frames,
                Err(_) => {
                    *self = Self::Garbage;
                    return frames;
                }
            }
        }
    }
}
