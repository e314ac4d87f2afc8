//! The HTTP side of a WebSocket: the one request that asks for it, and the answer
//! (RFC 6455 §4.2). `httparse` reads the request; what it must say is checked here.
//!
//! Deliberately not here: any other HTTP. Whoever asks for something else is told
//! what this port is for.
//!
//! Invariant: no more than [`HTTP_REQUEST_BYTES_MAX`] are kept, and no byte behind
//! the request is taken.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Header};
use protocol::websocket::{SUBPROTOCOL, accept};

use super::FrontConfig;

/// Bytes of the longest request. Browsers send under 1 KiB and cookies; as much
/// as a frame before login may have, since it takes that frame's place in the
/// budget of a stranger.
pub const HTTP_REQUEST_BYTES_MAX: usize = 4_096;

/// Up to so many bytes a request is looked at before it is whole: something else
/// in capital letters, such as a PROXY header where none is expected, is told so
/// at once and not at the deadline. Not beyond, or who sends byte by byte would
/// have it read as often.
const FIRST_LOOK_BYTES: usize = 128;

/// Headers of a request: what a browser and two proxies add, three times.
const HEADERS_MAX: usize = 64;

/// Bytes of a decoded `Sec-WebSocket-Key` (RFC 6455 §4.1).
const KEY_BYTES: usize = 16;

/// What has come of one request.
#[derive(Debug, Default)]
pub struct Request {
    head: Vec<u8>,
}

/// A request that is granted.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The answer.
    pub response: Vec<u8>,
    /// Where the client is, if a trusted proxy said so.
    pub client: Option<SocketAddr>,
}

/// A request that is not granted: the answer's status, headers and text.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    status: &'static str,
    headers: &'static str,
    text: &'static str,
}

impl Refusal {
    const fn bad_request(text: &'static str) -> Self {
        Self {
            status: "400 Bad Request",
            headers: "",
            text,
        }
    }

    const NOT_HTTP: Self = Self::bad_request(
        "This is not an HTTP/1.1 request. This port takes game clients, and WebSocket with GET.\n",
    );

    const NOT_GET: Self = Self {
        status: "405 Method Not Allowed",
        headers: "Allow: GET\r\n",
        text: "Only GET with an upgrade to WebSocket is answered here.\n",
    };

    const NO_UPGRADE: Self = Self {
        status: "426 Upgrade Required",
        headers: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        text: "This port is for game clients. In a browser: new WebSocket(url, \"sallyport.1\"). \
               A proxy in front has to pass Connection, Upgrade and Sec-WebSocket-* on.\n",
    };

    const OTHER_VERSION: Self = Self {
        status: "426 Upgrade Required",
        headers: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        text: "Sec-WebSocket-Version has to be 13.\n",
    };

    const TOO_LONG: Self = Self {
        status: "431 Request Header Fields Too Large",
        headers: "",
        text: "A request may have 4096 bytes and 64 headers. Send no cookies here.\n",
    };

    const ORIGIN: Self = Self {
        status: "403 Forbidden",
        headers: "",
        text: "Pages of this origin may not connect: listen.websocket_origins names those that may.\n",
    };

    /// No fault of the request.
    pub const UNAVAILABLE: Self = Self {
        status: "503 Service Unavailable",
        headers: "Retry-After: 1\r\n",
        text: "This gateway takes no clients now. Try again, or another one.\n",
    };

    /// Appends the whole answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self {
            status,
            headers,
            text,
        } = self;
        let connection = match headers.starts_with("Upgrade") {
            true => "Upgrade, close",
            false => "close",
        };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\n{headers}Connection: {connection}\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{text}"
        );
        out.extend_from_slice(answer.as_bytes());
    }
}

impl Request {
    /// One whose first bytes were taken already.
    pub fn begun(first: &[u8]) -> Self {
        Self {
            head: first.to_vec(),
        }
    }

    /// Takes the request from the front of `data`; whether it is whole.
    ///
    /// # Errors
    /// It is longer than its bound, or no HTTP from its first byte.
    pub fn take(&mut self, data: &mut &mut [u8]) -> Result<bool, Refusal> {
        let kept = self.head.len();
        let wanted = data.len().min(HTTP_REQUEST_BYTES_MAX.saturating_sub(kept));
        self.head.extend_from_slice(&data[..wanted]);
        if self
            .head
            .first()
            .is_some_and(|first| !first.is_ascii_uppercase())
        {
            return Err(Refusal::NOT_HTTP);
        }
        // The end may lie across what came before.
        let from = kept.saturating_sub(3);
        let end = self.head[from..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let Some(end) = end.map(|at| from + at + 4) else {
            if self.head.len() >= HTTP_REQUEST_BYTES_MAX {
                return Err(Refusal::TOO_LONG);
            }
            if self.head.len() <= FIRST_LOOK_BYTES && !self.begins_well() {
                return Err(Refusal::NOT_HTTP);
            }
            *data = &mut [];
            return Ok(false);
        };
        self.head.truncate(end);
        let (_, rest) = std::mem::take(data).split_at_mut(end - kept);
        *data = rest;
        Ok(true)
    }

    /// Whether what has come may be the beginning of a request.
    fn begins_well(&self) -> bool {
        let mut storage = [EMPTY_HEADER; HEADERS_MAX];
        httparse::Request::new(&mut storage)
            .parse(&self.head)
            .is_ok()
    }

    /// The answer to a request that is whole and came from `peer`.
    ///
    /// # Errors
    /// What it is refused with.
    pub fn answer(&self, config: &FrontConfig, peer: Option<IpAddr>) -> Result<Upgrade, Refusal> {
        let mut storage = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut storage);
        match request.parse(&self.head) {
            Ok(status) if status.is_complete() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TOO_LONG),
            _ => return Err(Refusal::NOT_HTTP),
        }
        if request.method != Some("GET") {
            return Err(Refusal::NOT_GET);
        }
        if request.version != Some(1) {
            return Err(Refusal::NOT_HTTP);
        }
        let headers = &*request.headers;
        if values(headers, "Host").next().is_none() {
            return Err(Refusal::bad_request("The header Host is missing.\n"));
        }
        let has_body = values(headers, "Content-Length").any(|length| length != "0")
            || values(headers, "Transfer-Encoding").next().is_some();
        if has_body {
            return Err(Refusal::bad_request("The request must not have a body.\n"));
        }
        if !has_token(headers, "Upgrade", "websocket")
            || !has_token(headers, "Connection", "upgrade")
        {
            return Err(Refusal::NO_UPGRADE);
        }
        if !has_token(headers, "Sec-WebSocket-Version", "13") {
            return Err(Refusal::OTHER_VERSION);
        }
        let mut keys = values(headers, "Sec-WebSocket-Key");
        let key = match (keys.next(), keys.next()) {
            (Some(key), None) if is_key(key) => key,
            _ => {
                return Err(Refusal::bad_request(
                    "There has to be one Sec-WebSocket-Key, 16 bytes in Base64.\n",
                ));
            }
        };
        let offers = values(headers, "Sec-WebSocket-Protocol").next().is_some();
        if offers && !has_token(headers, "Sec-WebSocket-Protocol", SUBPROTOCOL) {
            return Err(Refusal::bad_request(
                "Of subprotocols there is only sallyport.1 here: new WebSocket(url, \"sallyport.1\").\n",
            ));
        }
        // Who is no browser sends none; a browser never lets a page choose it.
        let refused = !config.origins.is_empty()
            && values(headers, "Origin").any(|origin| {
                let mut allowed = config.origins.iter();
                !allowed.any(|allowed| allowed.eq_ignore_ascii_case(origin))
            });
        if refused {
            return Err(Refusal::ORIGIN);
        }
        let chosen = match offers {
            true => format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"),
            false => String::new(),
        };
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{chosen}\r\n",
            accept(key.as_bytes())
        );
        let forwarded = values(headers, "X-Forwarded-For").flat_map(|list| list.split(','));
        let forwarded: Vec<&str> = forwarded.collect();
        let real = values(headers, "X-Real-IP").next();
        Ok(Upgrade {
            response: response.into_bytes(),
            client: peer.and_then(|peer| config.trusted.client_behind(peer, &forwarded, real)),
        })
    }
}

/// The values of all headers of this name.
fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .map(str::trim)
}

/// Whether a header that is a list has this entry.
fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|list| list.split(','))
        .any(|entry| entry.trim().eq_ignore_ascii_case(token))
}

fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_BYTES)
}

#[cfg(test)]
mod tests;
