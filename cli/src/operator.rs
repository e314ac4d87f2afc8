//! `sallyport admin`: asks the admin port of a running process.
//!
//! Owns the HTTP of the asking side and what is printed. What is asked for is checked by who is
//! asked. Invariant: an exchange is bounded in time and bytes.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use crate::Verdict;
use crate::args::{AdminArguments, AdminCommand, WhomArguments};
use crate::keys;
use crate::output::say;

/// Bytes of an answer: all bans there can be.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// Longest wait for each step; above what the asked side waits for its own roles.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the command. `Wrong`: what was asked for cannot be, such as lifting a ban that is none.
///
/// # Errors
/// Nobody answers there, the token is wrong, or the request makes no sense.
pub fn run(arguments: &AdminArguments) -> anyhow::Result<Verdict> {
    let port = Port {
        authority: authority(&arguments.url)?,
        token: match &arguments.token_file {
            Some(path) => Some(keys::read_admin_token(path)?),
            None => None,
        },
    };
    match &arguments.command {
        AdminCommand::Ban {
            whom,
            for_seconds,
            text,
        } => {
            let mut body = body_of(whom);
            body.insert("text".to_owned(), json!(text));
            if let Some(seconds) = for_seconds {
                body.insert("for_seconds".to_owned(), json!(seconds));
            }
            port.change("ban", &Value::Object(body))
        }
        AdminCommand::Unban { whom } => port.change("unban", &Value::Object(body_of(whom))),
        AdminCommand::Bans => {
            let (status, body) = port.exchange("GET", "bans", "")?;
            let answer = port.judge(status, &body)?;
            let Some(answer) = answer else {
                return Ok(Verdict::Wrong);
            };
            let bans = serde_json::from_str::<Value>(&answer)?;
            for ban in bans["bans"].as_array().into_iter().flatten() {
                say!("{ban}");
            }
            Ok(Verdict::Good)
        }
    }
}

fn body_of(whom: &WhomArguments) -> Map<String, Value> {
    let named = [
        ("account", &whom.account),
        ("device", &whom.device),
        ("network", &whom.network),
    ];
    let given = named.into_iter().filter_map(|(name, value)| {
        let value = value.as_ref()?;
        Some((name.to_owned(), json!(value)))
    });
    given.collect()
}

/// `HOST:PORT` of an `http://` URL.
fn authority(url: &str) -> anyhow::Result<String> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("`{url}`: must begin with http:// (admin ports speak no TLS)"))?;
    let authority = rest.trim_end_matches('/');
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
        bail!("`{url}`: must be http://HOST:PORT");
    }
    Ok(authority.to_owned())
}

/// An admin port.
struct Port {
    authority: String,
    token: Option<String>,
}

impl Port {
    fn change(&self, path: &str, body: &Value) -> anyhow::Result<Verdict> {
        let (status, answer) = self.exchange("POST", path, &body.to_string())?;
        Ok(match self.judge(status, &answer)? {
            Some(_) => Verdict::Good,
            None => Verdict::Wrong,
        })
    }

    /// The body of a good answer; `None` where the answer is no, which is printed.
    fn judge(&self, status: u16, body: &str) -> anyhow::Result<Option<String>> {
        match status {
            200 => Ok(Some(body.to_owned())),
            404 => {
                eprintln!("error: {}", body.trim_end());
                Ok(None)
            }
            401 => bail!("{}: it wants a token: --token-file", self.authority),
            _ => bail!("{}: {status}: {}", self.authority, body.trim_end()),
        }
    }

    /// One request. HTTP/1.0, so that the answer ends with the connection.
    fn exchange(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let at = || format!("http://{}/{path}", self.authority);
        let address = self.authority.to_socket_addrs().with_context(at)?.next();
        let address = address.with_context(|| format!("{}: no such address", self.authority))?;
        let mut socket = TcpStream::connect_timeout(&address, TIMEOUT).with_context(at)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let authorization = self.token.as_ref().map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "{method} /{path} HTTP/1.0\r\nHost: {}\r\n{authorization}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        );
        socket.write_all(request.as_bytes()).with_context(at)?;
        let mut answer = Vec::new();
        socket
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .with_context(at)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("{}: the answer is not HTTP", at()))?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }
}
