//! A client's end of a WebSocket: the request, the check of its answer, and
//! frames of ours in masked messages. Pure: what is to be sent is appended, and
//! randomness is an argument.
//!
//! Invariant: nothing is sent behind the request before its answer was good.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::decoder::{Decoder, Event};
use super::{Opcode, SUBPROTOCOL, accept, write_masked};
use crate::buffers::Buffers;
use crate::frame;
use crate::limits::FRAME_BYTES_MAX;

/// Bytes of the longest answer to the request that is read.
pub const RESPONSE_BYTES_MAX: usize = 4_096;

/// Why the connection is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The server did not upgrade, with this status; 0 if it spoke no HTTP.
    Status(u16),
    /// It upgraded, but the answer does not belong to the request.
    Accept,
    /// It broke the rules of WebSocket.
    Violation,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// The server has upgraded: frames may be sent.
    Open,
    /// A message, which should be a frame.
    Message(&'a mut [u8]),
    /// Ping or pong, seen to here.
    Control,
    /// The server closes, with this code if it gave one.
    Close(Option<u16>),
}

/// See the module.
#[derive(Debug)]
pub struct ClientEnd {
    key: String,
    /// The answer so far; `None` once it was good.
    head: Option<Vec<u8>>,
    decoder: Decoder,
    /// The request, pongs, a close.
    own: Vec<u8>,
    /// State of the generator of masks.
    masks: u64,
}

impl ClientEnd {
    /// Asks `host` for the upgrade. `random` is fresh.
    pub fn new(host: &str, random: [u8; 16]) -> Self {
        let key = STANDARD.encode(random);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        let [a, b, c, d, e, f, g, h, ..] = random;
        Self {
            key,
            head: Some(Vec::new()),
            decoder: Decoder::of_server(),
            own: request.into_bytes(),
            masks: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        }
    }

    /// Whether frames may be sent.
    pub fn is_open(&self) -> bool {
        self.head.is_none()
    }

    /// What comes next in `data`, which it shortens from the front; `None` when the
    /// rest was too short and has been kept.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn next<'a, 'data: 'a>(
        &'a mut self,
        data: &mut &'data mut [u8],
        pool: &mut Buffers,
    ) -> Result<Option<Received<'a>>, Refused> {
        if let Some(head) = &mut self.head {
            let kept = head.len();
            head.extend_from_slice(&data[..data.len().min(RESPONSE_BYTES_MAX - kept)]);
            let from = kept.saturating_sub(3);
            let end = head[from..].windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end.map(|at| from + at + 4) else {
                *data = &mut [];
                return match head.len() {
                    0..RESPONSE_BYTES_MAX => Ok(None),
                    _ => Err(Refused::Status(0)),
                };
            };
            check(&head[..end], &self.key)?;
            self.head = None;
            let (_, rest) = std::mem::take(data).split_at_mut(end - kept);
            *data = rest;
            return Ok(Some(Received::Open));
        }
        let Some(event) = self
            .decoder
            .next(data, FRAME_BYTES_MAX, pool)
            .map_err(|_| Refused::Violation)?
        else {
            return Ok(None);
        };
        Ok(Some(match event {
            Event::Message { text: false, bytes } => Received::Message(bytes),
            Event::Message { .. } => return Err(Refused::Violation),
            Event::Fragment | Event::Pong(_) => Received::Control,
            Event::Ping(payload) => {
                write_masked(Opcode::Pong, mask(&mut self.masks), payload, &mut self.own);
                Received::Control
            }
            Event::Close(code) => {
                let payload = code.map(u16::to_be_bytes);
                let payload = payload.as_ref().map_or(&[][..], |code| &code[..]);
                write_masked(Opcode::Close, mask(&mut self.masks), payload, &mut self.own);
                Received::Close(code)
            }
        }))
    }

    /// Appends what is to go to the socket: its own, and once it is open `frames`,
    /// each in a message.
    pub fn wrap(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.own);
        let mut rest = if self.is_open() { frames } else { &[] };
        while !rest.is_empty() {
            let length = frame::length(rest).unwrap_or(rest.len());
            let (one, behind) = rest.split_at(length.clamp(1, rest.len()));
            write_masked(Opcode::Binary, mask(&mut self.masks), one, out);
            rest = behind;
        }
    }
}

/// The next mask (SplitMix64). Frames are sealed, so nobody who chose their content
/// could use a mask that he foresees.
fn mask(state: &mut u64) -> [u8; 4] {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [a, b, c, d, ..] = (z ^ (z >> 31)).to_le_bytes();
    [a, b, c, d]
}

/// Checks an answer that is whole.
fn check(head: &[u8], key: &str) -> Result<(), Refused> {
    let head = std::str::from_utf8(head).map_err(|_| Refused::Status(0))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    match status {
        Some(101) => {}
        status => return Err(Refused::Status(status.unwrap_or_default())),
    }
    let wanted = accept(key.as_bytes());
    let belongs = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && value.trim() == wanted
        });
    if belongs {
        Ok(())
    } else {
        Err(Refused::Accept)
    }
}

#[cfg(test)]
mod tests;
