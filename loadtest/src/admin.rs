//! Reads `/stats` and `/metrics` of the server's admin ports: a minimal HTTP/1.1 GET, bounded
//! in time and bytes, and the few figures of the answers that a report needs.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Bytes of an answer, head included.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Longest wait for a connection, and for the whole answer after it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where an admin port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl {
    /// `HOST:PORT`.
    authority: String,
    /// Path without a slash at its end.
    path: String,
}

impl AdminUrl {
    /// Parses `http://HOST:PORT` with an optional path.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            format!("`{url}`: must begin with http:// (admin ports speak no TLS)")
        })?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || !is_plain(rest) || authority.contains(['@', '?', '#']) {
            return Err(format!("`{url}`: must be http://HOST:PORT"));
        }
        // A colon inside of brackets belongs to an IPv6 address.
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self {
            authority: if has_port {
                authority.to_owned()
            } else {
                format!("{authority}:80")
            },
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Fetches `/stats`.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn stats(&self, token: Option<&str>) -> Result<Stats, String> {
        let body = self.fetch("stats", token)?;
        serde_json::from_slice(&body).map_err(|error| self.failed("stats", &error))
    }

    /// Fetches `/metrics` and returns what was lost or closed so far: series, as they are written
    /// there, whose name ends with `_drops_total` or `_closes_total`.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn losses(&self, token: Option<&str>) -> Result<BTreeMap<String, u64>, String> {
        let body = self.fetch("metrics", token)?;
        Ok(losses(&String::from_utf8_lossy(&body)))
    }

    fn failed(&self, what: &str, problem: &dyn std::fmt::Display) -> String {
        format!("http://{}{}/{what}: {problem}", self.authority, self.path)
    }

    fn fetch(&self, what: &str, token: Option<&str>) -> Result<Vec<u8>, String> {
        self.exchange(what, token)
            .map_err(|problem| self.failed(what, &problem))
    }

    fn exchange(&self, what: &str, token: Option<&str>) -> Result<Vec<u8>, String> {
        let text = |error: std::io::Error| error.to_string();
        let address = self
            .authority
            .to_socket_addrs()
            .map_err(text)?
            .next()
            .ok_or("the name has no address")?;
        let mut socket = TcpStream::connect_timeout(&address, TIMEOUT).map_err(text)?;
        socket.set_write_timeout(Some(TIMEOUT)).map_err(text)?;
        let authorization = token.map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "GET {}/{what} HTTP/1.1\r\nHost: {}\r\n{authorization}Connection: close\r\n\r\n",
            self.path, self.authority
        );
        socket.write_all(request.as_bytes()).map_err(text)?;
        let deadline = Instant::now() + TIMEOUT;
        let mut answer = Vec::new();
        let mut chunk = [0; 16_384];
        loop {
            if let Some(body) = parse(&answer)? {
                return Ok(body);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(String::from("no answer in time"));
            }
            socket.set_read_timeout(Some(left)).map_err(text)?;
            match socket.read(&mut chunk) {
                Ok(0) => return parse_to_end(&answer),
                Ok(read) => answer.extend_from_slice(&chunk[..read]),
                // The kernel's work for a ring that was probed interrupts what comes after it.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(text(error)),
            }
            if answer.len() as u64 > ANSWER_BYTES_MAX {
                return Err(String::from("the answer is too long"));
            }
        }
    }
}

/// The series of losses in Prometheus' text format; lines that are none are passed over.
fn losses(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| {
            let name = series.split('{').next().unwrap_or_default();
            name.ends_with("_drops_total") || name.ends_with("_closes_total")
        })
        .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
        .collect()
}

/// How a body's end is known (RFC 9112 §6.3).
enum Framing {
    Length(usize),
    Chunked,
    ToEnd,
}

/// The head of an answer: where its body starts and how it ends; `None` while
/// it is incomplete.
fn head(answer: &[u8]) -> Result<Option<(usize, Framing)>, String> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "the answer is not HTTP")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .ok_or("the answer is not HTTP")?;
    match code {
        "200" => {}
        "401" | "403" => {
            return Err(format!("{code}: it wants a token (--admin-token-file)"));
        }
        _ => {
            return Err(format!(
                "it answers {code}; is this an admin port of sallyport?"
            ));
        }
    }
    let mut framing = Framing::ToEnd;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value
                .parse()
                .map_err(|_| "its Content-Length is no number")?;
            framing = Framing::Length(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            && value.eq_ignore_ascii_case("chunked")
        {
            framing = Framing::Chunked;
        }
    }
    Ok(Some((end + 4, framing)))
}

/// The body, if it is complete.
fn parse(answer: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let Some((start, framing)) = head(answer)? else {
        return Ok(None);
    };
    let body = &answer[start..];
    match framing {
        Framing::Length(length) => Ok(body.get(..length).map(<[u8]>::to_vec)),
        Framing::Chunked => chunks(body),
        Framing::ToEnd => Ok(None),
    }
}

/// The body, when the server has closed.
fn parse_to_end(answer: &[u8]) -> Result<Vec<u8>, String> {
    match head(answer)? {
        Some((start, Framing::ToEnd)) => Ok(answer[start..].to_vec()),
        _ => Err(String::from("it closed in the middle of its answer")),
    }
}

fn chunks(mut body: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut whole = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&body[..end])
            .ok()
            .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok())
            .filter(|size| *size as u64 <= ANSWER_BYTES_MAX)
            .ok_or("a chunk of its answer has no length")?;
        if size == 0 {
            return Ok(Some(whole));
        }
        let Some(chunk) = body.get(end + 2..end + 2 + size) else {
            return Ok(None);
        };
        whole.extend_from_slice(chunk);
        body = body.get(end + 4 + size..).unwrap_or_default();
    }
}

/// What an admin port says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Stats {
    /// Figures of each role in the process.
    #[serde(default)]
    pub roles: BTreeMap<String, RoleStats>,
}

/// Figures of one role; what a server does not know is missing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RoleStats {
    /// `uring` or `epoll`.
    pub engine: Option<String>,
    /// CPU used since the start, of the role's threads.
    pub cpu_seconds: Option<f64>,
    /// Resident memory of the process.
    pub rss_bytes: Option<u64>,
}

#[cfg(test)]
mod tests;
