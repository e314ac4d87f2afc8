//! Asks admin ports: a minimal HTTP/1.1 exchange, bounded in time and bytes, and the few figures
//! of `/stats` and `/metrics` that a report needs.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Bytes of an answer, head included: all bans that there can be.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// Longest wait of a report for a connection, and for the whole answer after it.
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
        let answer = self.ask("GET", what, "", token, TIMEOUT)?;
        good(answer).map_err(|problem| self.failed(what, &problem))
    }

    /// One exchange; `body` is JSON, or empty. `timeout` is for the connection, and for the
    /// whole answer after it.
    ///
    /// # Errors
    /// There is no answer of HTTP. What went wrong, for people.
    pub fn ask(
        &self,
        method: &str,
        what: &str,
        body: &str,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        self.exchange(method, what, body, token, timeout)
            .map_err(|problem| self.failed(what, &problem))
    }

    fn exchange(
        &self,
        method: &str,
        what: &str,
        body: &str,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let text = |error: std::io::Error| error.to_string();
        let address = self
            .authority
            .to_socket_addrs()
            .map_err(text)?
            .next()
            .ok_or("the name has no address")?;
        let mut socket = TcpStream::connect_timeout(&address, timeout).map_err(text)?;
        socket.set_write_timeout(Some(timeout)).map_err(text)?;
        let authorization = token.map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let content = match body.len() {
            0 => String::new(),
            bytes => format!("Content-Type: application/json\r\nContent-Length: {bytes}\r\n"),
        };
        let request = format!(
            "{method} {}/{what} HTTP/1.1\r\nHost: {}\r\n{authorization}{content}\
             Connection: close\r\n\r\n{body}",
            self.path, self.authority
        );
        socket.write_all(request.as_bytes()).map_err(text)?;
        let deadline = Instant::now() + timeout;
        let mut answer = Vec::new();
        let mut chunk = [0; 16_384];
        loop {
            if let Some(answer) = parse(&answer)? {
                return Ok(answer);
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

/// An answer of an admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// Whole.
    pub body: Vec<u8>,
}

/// The body of a good answer.
fn good(answer: Answer) -> Result<Vec<u8>, String> {
    match answer.status {
        200 => Ok(answer.body),
        code @ (401 | 403) => Err(format!("{code}: it wants a token (--admin-token-file)")),
        code => Err(format!(
            "it answers {code}; is this an admin port of sallyport?"
        )),
    }
}

/// The head of an answer: its status, where its body starts and how it ends; `None` while
/// it is incomplete.
fn head(answer: &[u8]) -> Result<Option<(u16, usize, Framing)>, String> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "the answer is not HTTP")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap_or_default()
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
        .ok_or("the answer is not HTTP")?;
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
    Ok(Some((status, end + 4, framing)))
}

/// The answer, if it is complete.
fn parse(answer: &[u8]) -> Result<Option<Answer>, String> {
    let Some((status, start, framing)) = head(answer)? else {
        return Ok(None);
    };
    let body = &answer[start..];
    let body = match framing {
        Framing::Length(length) => body.get(..length).map(<[u8]>::to_vec),
        Framing::Chunked => chunks(body)?,
        Framing::ToEnd => None,
    };
    Ok(body.map(|body| Answer { status, body }))
}

/// The answer, when the server has closed.
fn parse_to_end(answer: &[u8]) -> Result<Answer, String> {
    match head(answer)? {
        Some((status, start, Framing::ToEnd)) => Ok(Answer {
            status,
            body: answer[start..].to_vec(),
        }),
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
