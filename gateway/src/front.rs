//! What lies between a socket and the frames of its client, from outside in:
//! the PROXY header of a balancer (`proxy`), TLS (`tls`), HTTP (`http`), WebSocket;
//! and who may tell an address (`trust`). TLS is beside [`Front`], since everything
//! else may stand within it.
//!
//! Pure: bytes in, bytes out, no socket, no clock. A connection has a front only
//! while it needs one, so a client that speaks frames over plain TCP costs a
//! null pointer: its first bytes are a legal length, and only what is none is
//! looked at here.
//!
//! Invariant: what one front keeps is a request of at most 4 KiB before the
//! upgrade, and after it one message of the caller's maximum, one control frame
//! and [`ANSWERS_BYTES_MAX`] of answers.

pub mod http;
pub mod proxy;
pub mod tls;
pub mod trust;

use std::net::SocketAddr;
use std::sync::Arc;

use protocol::buffers::Buffers;
use protocol::frame;
use protocol::reason::CloseReason;
use protocol::websocket::decoder::{Decoder, Event, Violation};
use protocol::websocket::{HEADER_BYTES_MAX, Opcode, close, close_code, write_header};

use http::{Refusal, Request};
use proxy::{ProxyHeader, Source};
use trust::Trust;

/// Bytes of pongs that wait for the engine; pings above it are not answered, as
/// RFC 6455 §5.5.3 lets us. As much as a stranger may leave unread.
pub const ANSWERS_BYTES_MAX: usize = 4_096;

/// What a listener expects in front of the frames.
#[derive(Clone, Debug, Default)]
pub struct FrontConfig {
    /// Each connection begins with a PROXY header.
    pub proxy_required: bool,
    /// Who is believed what it says about a client's address.
    pub trusted: Trust,
    /// Origins of the pages that may connect; all, if it is empty.
    pub origins: Vec<String>,
    /// What is shown to those who come over TLS.
    pub certificate: Arc<tls::Shown>,
}

/// The layers before the frames of one connection.
#[derive(Debug)]
pub struct Front {
    layer: Layer,
    /// To be sent before the frames that wait: HTTP, pongs.
    answers: Vec<u8>,
    /// The close frame, once it is known what it says.
    ending: Option<Ending>,
    /// It has ended; nothing is read any more.
    is_over: bool,
}

#[derive(Debug)]
enum Layer {
    Proxy(ProxyHeader),
    Http(Request),
    WebSocket(Decoder),
}

/// The content of a close frame.
#[derive(Debug)]
struct Ending {
    /// None where the peer gave none.
    code: Option<u16>,
    text: &'static str,
    sent: bool,
}

/// What a front has made of some bytes.
#[derive(Debug)]
pub enum Step<'a> {
    /// They were too few.
    Wait,
    /// The front is done: what is left are the client's frames. The address is
    /// its own, where the balancer told one.
    Done(Option<SocketAddr>),
    /// The WebSocket stands; its client's address, if a proxy told one.
    Open(Option<SocketAddr>),
    /// A message.
    Message {
        /// It came as a text.
        text: bool,
        /// Its content.
        bytes: &'a mut [u8],
    },
    /// WebSocket's own traffic: one frame, with so many bytes beside what a later
    /// message brings.
    Overhead(usize),
}

impl Front {
    fn new(layer: Layer) -> Box<Self> {
        Box::new(Self {
            layer,
            answers: Vec::new(),
            ending: None,
            is_over: false,
        })
    }

    /// The front of a connection that was accepted from this address; none where
    /// its first byte is the client's own.
    ///
    /// # Errors
    /// Nobody at this address may open a connection here.
    pub fn of_accepted(
        config: &FrontConfig,
        peer: Option<SocketAddr>,
    ) -> Result<Option<Box<Self>>, CloseReason> {
        if !config.proxy_required {
            return Ok(None);
        }
        // Whom the kernel does not name cannot be trusted.
        if !peer.is_some_and(|peer| config.trusted.includes(peer.ip())) {
            return Err(CloseReason::ProxyUntrusted);
        }
        Ok(Some(Self::new(Layer::Proxy(ProxyHeader::default()))))
    }

    /// The front of a connection whose first three bytes are no length of a
    /// frame, if they are the beginning of something else: a method of HTTP. The
    /// bytes in `taken` do not come again.
    pub fn of_first_bytes(first: [u8; 3], taken: &[u8]) -> Option<Box<Self>> {
        first
            .iter()
            .all(u8::is_ascii_uppercase)
            .then(|| Self::new(Layer::Http(Request::begun(taken))))
    }

    /// The next step that `data` makes, which it shortens from the front. To be
    /// called until it says `Wait` or `Done`.
    ///
    /// # Errors
    /// Why the connection has to be closed. What the peer is to be told stands
    /// among the answers, or in the close frame.
    pub fn next<'a, 'data: 'a>(
        &'a mut self,
        config: &FrontConfig,
        peer: Option<SocketAddr>,
        data: &mut &'data mut [u8],
        message_bytes_max: usize,
        pool: &mut Buffers,
    ) -> Result<Step<'a>, CloseReason> {
        if self.is_over {
            *data = &mut [];
            return Ok(Step::Wait);
        }
        if !matches!(self.layer, Layer::WebSocket(_)) {
            return self.next_before(config, peer, data);
        }
        let Layer::WebSocket(decoder) = &mut self.layer else {
            return Ok(Step::Wait);
        };
        let event = match decoder.next(data, message_bytes_max, pool) {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Step::Wait),
            Err(violation) => {
                self.ending = Some(Ending::ours(violation.close_code(), ""));
                return Err(match violation {
                    Violation::TooLong => CloseReason::BadLength,
                    _ => CloseReason::BadWebsocket,
                });
            }
        };
        match event {
            Event::Message { text, bytes } => Ok(Step::Message { text, bytes }),
            Event::Fragment => Ok(Step::Overhead(0)),
            Event::Pong(bytes) => Ok(Step::Overhead(bytes)),
            Event::Ping(payload) => {
                if self.answers.len() < ANSWERS_BYTES_MAX {
                    write_header(Opcode::Pong, payload.len(), &mut self.answers);
                    self.answers.extend_from_slice(payload);
                }
                Ok(Step::Overhead(payload.len()))
            }
            Event::Close(code) => {
                // The same back (§5.5.1), and not a frame more.
                self.ending = Some(Ending {
                    code,
                    text: "",
                    sent: false,
                });
                self.is_over = true;
                Err(CloseReason::PeerClosed)
            }
        }
    }

    /// The same before there is a WebSocket.
    fn next_before(
        &mut self,
        config: &FrontConfig,
        peer: Option<SocketAddr>,
        data: &mut &mut [u8],
    ) -> Result<Step<'static>, CloseReason> {
        let request = match &mut self.layer {
            Layer::Proxy(header) => {
                return match header.take(data) {
                    Ok(Some(Source::Client(address))) => Ok(Step::Done(Some(address))),
                    Ok(Some(Source::Balancer)) => Ok(Step::Done(None)),
                    Ok(None) => Ok(Step::Wait),
                    Err(_) => Err(CloseReason::BadProxyHeader),
                };
            }
            Layer::Http(request) => request,
            Layer::WebSocket(_) => return Ok(Step::Wait),
        };
        let answer = match request.take(data) {
            Ok(false) => return Ok(Step::Wait),
            Ok(true) => request.answer(config, peer.map(|peer| peer.ip())),
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(upgrade) => {
                self.answers = upgrade.response;
                self.layer = Layer::WebSocket(Decoder::of_client());
                Ok(Step::Open(upgrade.client))
            }
            Err(refusal) => {
                refusal.write(&mut self.answers);
                self.is_over = true;
                Err(CloseReason::BadUpgrade)
            }
        }
    }

    /// A message came as a text, which is not taken.
    pub fn refuse_text(&mut self) {
        self.ending = Some(Ending::ours(close::UNSUPPORTED, "frames are binary"));
    }

    /// A message for the client that is no frame of ours.
    pub fn send(&mut self, text: bool, bytes: &[u8]) {
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        write_header(opcode, bytes.len(), &mut self.answers);
        self.answers.extend_from_slice(bytes);
    }

    /// Whether something waits beside frames.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether frames can still be sent, with or without a header around them.
    pub fn carries_frames(&self) -> bool {
        !self.is_over && !matches!(self.layer, Layer::Http(_))
    }

    /// The connection ends, and this is why.
    pub fn end(&mut self, reason: CloseReason) {
        match &self.layer {
            Layer::Http(_) if !self.is_over => Refusal::UNAVAILABLE.write(&mut self.answers),
            Layer::WebSocket(_) if self.ending.is_none() => {
                self.ending = Some(Ending::ours(close_code(reason), reason.label()));
            }
            _ => {}
        }
    }

    /// One frame as it goes to the socket of every WebSocket.
    pub fn message_of(frame: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(frame.len() + HEADER_BYTES_MAX);
        write_header(Opcode::Binary, frame.len(), &mut message);
        message.extend_from_slice(frame);
        message
    }

    /// Turns frames that wait into what goes to the socket: the answers before
    /// them, a header before each, and behind the `last` ones the close frame.
    pub fn wrap(&mut self, frames: &mut Vec<u8>, last: bool, pool: &mut Buffers) {
        if let Layer::Proxy(_) = self.layer {
            return;
        }
        let ending = self.ending.as_mut().filter(|ending| last && !ending.sent);
        if frames.is_empty() && self.answers.is_empty() && ending.is_none() {
            return;
        }
        let mut bytes = pool.take();
        // Its memory goes: few connections are asked for answers twice.
        bytes.extend_from_slice(&std::mem::take(&mut self.answers));
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let length = frame::length(rest).unwrap_or(rest.len());
            let (one, behind) = rest.split_at(length.clamp(1, rest.len()));
            write_header(Opcode::Binary, one.len(), &mut bytes);
            bytes.extend_from_slice(one);
            rest = behind;
        }
        if let Some(ending) = ending {
            ending.sent = true;
            let code = ending.code.map(u16::to_be_bytes);
            let code = code.as_ref().map_or(&[][..], |code| &code[..]);
            write_header(Opcode::Close, code.len() + ending.text.len(), &mut bytes);
            bytes.extend_from_slice(code);
            bytes.extend_from_slice(ending.text.as_bytes());
        }
        pool.give(std::mem::replace(frames, bytes));
    }

    /// Gives the buffers back, for a connection that ends.
    pub fn release(&mut self, pool: &mut Buffers) {
        if let Layer::WebSocket(decoder) = &mut self.layer {
            decoder.release(pool);
        }
    }
}

impl Ending {
    fn ours(code: u16, text: &'static str) -> Self {
        Self {
            code: Some(code),
            text,
            sent: false,
        }
    }
}

#[cfg(test)]
mod tests;
