//! Cuts the byte stream of a WebSocket into messages and control frames. A frame
//! that arrived whole is unmasked and handed out where it lies in the receive
//! buffer; only what is cut, by the end of that buffer or into fragments, is
//! copied, once.
//!
//! Invariant: at most one message, never longer than the caller's maximum, and one
//! control frame are kept between two calls; a length is checked before a byte of
//! it is kept.

use super::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX, Opcode, apply_mask, close, is_close_code};
use crate::buffers::Buffers;
use crate::limits::FRAME_BYTES_MAX;

/// The peer broke the rules of the RFC or the caller's maximum. The stream can't
/// be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frame is malformed, or comes where it may not.
    Protocol,
    /// A message is longer than the maximum.
    TooLong,
    /// A text message, or the text of a close, is not UTF-8.
    NotUtf8,
}

impl Violation {
    /// What to close with.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Protocol => close::PROTOCOL_ERROR,
            Self::TooLong => close::TOO_LONG,
            Self::NotUtf8 => close::NOT_UTF8,
        }
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message {
        /// UTF-8, and it is.
        text: bool,
        /// Its content.
        bytes: &'a mut [u8],
    },
    /// A frame of a message that goes on: nothing yet, but it had its cost.
    Fragment,
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// A sign of life, with so many bytes.
    Pong(usize),
    /// The peer closes, with a code if it gave one. Nothing may follow.
    Close(Option<u16>),
}

/// The frame whose payload goes on.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    last: bool,
    left: usize,
    /// Turned so that its first byte is the next one's.
    mask: [u8; 4],
}

/// What one connection keeps between two receives.
#[derive(Debug)]
pub struct Decoder {
    /// The peer is a client, whose frames are masked, or a server, whose are not.
    masked: bool,
    /// A header that was cut.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    frame: Option<Frame>,
    /// The payload so far of a control frame that was cut.
    control: Vec<u8>,
    /// The payload so far of a message that was cut, of this kind.
    message: Vec<u8>,
    /// A message has begun: whether it is a text.
    under_way: Option<bool>,
    /// `message` or `control` was handed out; drop it at the next call.
    handed_out: bool,
}

impl Decoder {
    /// For what a client sends.
    pub fn of_client() -> Self {
        Self::new(true)
    }

    /// For what a server sends.
    pub fn of_server() -> Self {
        Self::new(false)
    }

    fn new(masked: bool) -> Self {
        Self {
            masked,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: None,
            control: Vec::new(),
            message: Vec::new(),
            under_way: None,
            handed_out: false,
        }
    }

    /// What comes next in `data`, which it shortens from the front; `None` when the
    /// rest was too short and has been kept. After a violation it must not be
    /// called again.
    pub fn next<'a, 'data: 'a>(
        &'a mut self,
        data: &mut &'data mut [u8],
        message_bytes_max: usize,
        pool: &mut Buffers,
    ) -> Result<Option<Event<'a>>, Violation> {
        if std::mem::take(&mut self.handed_out) {
            // A control frame may stand between the fragments of a message.
            if self.control.is_empty() {
                pool.give(std::mem::take(&mut self.message));
            } else {
                self.control.clear();
            }
        }
        let frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.next_frame(data, message_bytes_max)? {
                Some(frame) => frame,
                None => return Ok(None),
            },
        };
        let whole = frame.left <= data.len();
        let here = frame.left.min(data.len());
        let (piece, rest) = std::mem::take(data).split_at_mut(here);
        *data = rest;
        apply_mask(piece, frame.mask);
        if frame.opcode.is_control() {
            if whole && self.control.is_empty() {
                return control_event(frame.opcode, piece).map(Some);
            }
            self.control.extend_from_slice(piece);
            if !whole {
                self.keep(frame, piece.len());
                return Ok(None);
            }
            self.handed_out = true;
            return control_event(frame.opcode, &self.control).map(Some);
        }
        let text = match frame.opcode {
            Opcode::Continuation => self.under_way.unwrap_or_default(),
            opcode => opcode == Opcode::Text,
        };
        if whole && frame.last && self.message.is_empty() {
            self.under_way = None;
            return message_event(text, piece).map(Some);
        }
        self.under_way = Some(text);
        // Strangers, who may send little, get no buffer that was grown for others.
        if self.message.capacity() == 0 && message_bytes_max >= FRAME_BYTES_MAX {
            self.message = pool.take();
        }
        self.message.extend_from_slice(piece);
        if !whole {
            self.keep(frame, piece.len());
            return Ok(None);
        }
        if !frame.last {
            return Ok(Some(Event::Fragment));
        }
        self.under_way = None;
        self.handed_out = true;
        message_event(text, &mut self.message).map(Some)
    }

    /// Gives the buffer back, for a connection that ends.
    pub fn release(&mut self, pool: &mut Buffers) {
        pool.give(std::mem::take(&mut self.message));
    }

    /// The rest of the frame is yet to come.
    fn keep(&mut self, mut frame: Frame, taken: usize) {
        frame.left -= taken;
        frame.mask.rotate_left(taken % 4);
        self.frame = Some(frame);
    }

    /// The next header, checked; `None` while it is cut.
    fn next_frame(
        &mut self,
        data: &mut &mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Frame>, Violation> {
        let (frame, taken) = if self.header_bytes == 0 {
            match parse(data, self.masked)? {
                Some(parsed) => parsed,
                None => {
                    self.header[..data.len()].copy_from_slice(data);
                    self.header_bytes = data.len() as u8;
                    *data = &mut [];
                    return Ok(None);
                }
            }
        } else {
            let kept = usize::from(self.header_bytes);
            let wanted = data.len().min(HEADER_BYTES_MAX - kept);
            self.header[kept..kept + wanted].copy_from_slice(&data[..wanted]);
            match parse(&self.header[..kept + wanted], self.masked)? {
                Some((frame, bytes)) => {
                    self.header_bytes = 0;
                    (frame, bytes - kept)
                }
                None => {
                    self.header_bytes += wanted as u8;
                    *data = &mut [];
                    return Ok(None);
                }
            }
        };
        let (_, rest) = std::mem::take(data).split_at_mut(taken);
        *data = rest;
        let in_order = match frame.opcode {
            Opcode::Continuation => self.under_way.is_some(),
            Opcode::Text | Opcode::Binary => self.under_way.is_none(),
            _ => true,
        };
        if !in_order {
            return Err(Violation::Protocol);
        }
        if !frame.opcode.is_control()
            && frame.left > message_bytes_max.saturating_sub(self.message.len())
        {
            return Err(Violation::TooLong);
        }
        Ok(Some(frame))
    }
}

/// Reads a header (§5.2) and says how long it is; `None` while it is cut. It is
/// never longer than [`HEADER_BYTES_MAX`].
fn parse(bytes: &[u8], masked: bool) -> Result<Option<(Frame, usize)>, Violation> {
    let &[first, second, ..] = bytes else {
        return Ok(None);
    };
    // The three bits belong to extensions, and none was agreed.
    if first & 0x70 != 0 || (second & 0x80 != 0) != masked {
        return Err(Violation::Protocol);
    }
    let last = first & 0x80 != 0;
    let opcode = Opcode::from_code(first & 0x0f).ok_or(Violation::Protocol)?;
    let short = usize::from(second & 0x7f);
    if opcode.is_control() && (!last || short > CONTROL_BYTES_MAX) {
        return Err(Violation::Protocol);
    }
    let rest = &bytes[2..];
    let (left, length_bytes) = match short {
        126 => {
            let Some(length) = rest.first_chunk() else {
                return Ok(None);
            };
            (u64::from(u16::from_be_bytes(*length)), 2)
        }
        127 => {
            let Some(length) = rest.first_chunk() else {
                return Ok(None);
            };
            (u64::from_be_bytes(*length), 8)
        }
        short => (short as u64, 0),
    };
    // The fewest bytes that do are to be used, and the top bit never.
    let fewest = match length_bytes {
        0 => true,
        2 => left > 125,
        _ => left > 0xffff && left <= i64::MAX as u64,
    };
    if !fewest {
        return Err(Violation::Protocol);
    }
    let mut mask = [0; 4];
    if masked {
        let Some(found) = rest.get(length_bytes..length_bytes + 4) else {
            return Ok(None);
        };
        mask.copy_from_slice(found);
    }
    let frame = Frame {
        opcode,
        last,
        left: usize::try_from(left).map_err(|_| Violation::TooLong)?,
        mask,
    };
    let mask_bytes = if masked { 4 } else { 0 };
    Ok(Some((frame, 2 + length_bytes + mask_bytes)))
}

fn message_event(text: bool, bytes: &mut [u8]) -> Result<Event<'_>, Violation> {
    if text && std::str::from_utf8(bytes).is_err() {
        return Err(Violation::NotUtf8);
    }
    Ok(Event::Message { text, bytes })
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match (opcode, payload) {
        (Opcode::Ping, payload) => Ok(Event::Ping(payload)),
        (Opcode::Pong, payload) => Ok(Event::Pong(payload.len())),
        (_, []) => Ok(Event::Close(None)),
        (_, &[high, low, ref text @ ..]) => {
            let code = u16::from_be_bytes([high, low]);
            if !is_close_code(code) {
                return Err(Violation::Protocol);
            }
            if std::str::from_utf8(text).is_err() {
                return Err(Violation::NotUtf8);
            }
            Ok(Event::Close(Some(code)))
        }
        (_, [_]) => Err(Violation::Protocol),
    }
}

#[cfg(test)]
mod tests;
