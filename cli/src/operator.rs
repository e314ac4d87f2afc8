//! `sallyport admin`: asks the admin port of a running process.
//!
//! Owns the words of the requests. What is asked for is checked by who is asked; what comes back
//! is laid out in `shown`.

mod shown;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Error, bail};
use loadtest::admin::AdminUrl;
use serde_json::{Map, Value, json};

use crate::Verdict;
use crate::args::{AdminArguments, AdminCommand, SessionArguments, WhomArguments};
use crate::keys;
use crate::output::say;

/// Longest wait for a connection, and for the answer after it; above what the asked side waits for its own roles.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks of `top`, and of `drain`.
const TOP_EVERY: Duration = Duration::from_secs(2);
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// Longer than a process takes to end by itself.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// Runs the command. `Wrong`: what was asked for cannot be, such as lifting a ban that is none.
///
/// # Errors
/// Nobody answers there, the token is wrong, or the request makes no sense.
pub fn run(arguments: &AdminArguments) -> anyhow::Result<Verdict> {
    let port = Port {
        url: AdminUrl::parse(&arguments.url).map_err(Error::msg)?,
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
        AdminCommand::Online { json } => {
            let Some(stats) = port.get("stats")? else {
                return Ok(Verdict::Wrong);
            };
            let center = &stats["roles"]["center"];
            if center.is_null() {
                bail!("no center runs there: ask the admin port of center");
            }
            if *json {
                say!(
                    "{}",
                    json!({ "sessions": center["sessions"], "online": center["online"], "queue": center["queue"] })
                );
            } else {
                say!("{}", shown::online(center).trim_end());
            }
            Ok(Verdict::Good)
        }
        AdminCommand::Bans => port.show("bans", |answer| {
            for ban in answer["bans"].as_array().into_iter().flatten() {
                say!("{ban}");
            }
        }),
        AdminCommand::Sessions {
            whom,
            after,
            limit,
            json,
        } => port.sessions(whom, after.as_deref(), *limit, *json),
        AdminCommand::Top {
            by,
            limit,
            once,
            json,
        } => port.top(&format!("top?by={by}&limit={limit}"), *once, *json),
        AdminCommand::Kick { whom, text } => {
            let mut body = Map::new();
            if let Some(account) = &whom.account {
                body.insert("account".to_owned(), json!(account));
            }
            if let Some(session) = whom.session {
                body.insert("session".to_owned(), json!(session));
            }
            body.insert("text".to_owned(), json!(text));
            port.change("kick", &Value::Object(body))
        }
        AdminCommand::Limits { json } => port.show("limits", |answer| match json {
            true => say!("{answer}"),
            false => shown::limits(answer),
        }),
        AdminCommand::Broadcast { text } => {
            let told = port.post("broadcast", &json!({ "text": text }))?;
            let Some(told) = told else {
                return Ok(Verdict::Wrong);
            };
            say!("told {} sessions", told["sessions"]);
            Ok(Verdict::Good)
        }
        AdminCommand::Drain => port.drain(),
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

/// A text as it can stand in a query.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

/// An admin port.
struct Port {
    url: AdminUrl,
    token: Option<String>,
}

impl Port {
    fn change(&self, path: &str, body: &Value) -> anyhow::Result<Verdict> {
        Ok(match self.post(path, body)? {
            Some(_) => Verdict::Good,
            None => Verdict::Wrong,
        })
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Option<Value>> {
        let (status, answer) = self.exchange("POST", path, &body.to_string())?;
        self.judge(status, &answer)
    }

    fn get(&self, what: &str) -> anyhow::Result<Option<Value>> {
        let (status, answer) = self.exchange("GET", what, "")?;
        self.judge(status, &answer)
    }

    fn show(&self, what: &str, show: impl FnOnce(&Value)) -> anyhow::Result<Verdict> {
        let Some(answer) = self.get(what)? else {
            return Ok(Verdict::Wrong);
        };
        show(&answer);
        Ok(Verdict::Good)
    }

    /// One session with its story, or a list, as many pages as it takes.
    fn sessions(
        &self,
        whom: &SessionArguments,
        after: Option<&str>,
        limit: usize,
        json: bool,
    ) -> anyhow::Result<Verdict> {
        let one = match (&whom.account, whom.session) {
            (Some(account), _) => Some(format!("sessions?account={}", escaped(account))),
            (None, Some(session)) => Some(format!("sessions?session={session}")),
            (None, None) => None,
        };
        if let Some(what) = one {
            let Some(answer) = self.get(&what)? else {
                return Ok(Verdict::Wrong);
            };
            let sessions = answer["sessions"].as_array();
            let Some(sessions) = sessions.filter(|list| !list.is_empty()) else {
                eprintln!("error: no such session on this gateway");
                return Ok(Verdict::Wrong);
            };
            for session in sessions {
                match json {
                    true => say!("{session}"),
                    false => shown::story(session),
                }
            }
            return Ok(Verdict::Good);
        }
        let (mut next, mut left) = (after.map(str::to_owned), limit);
        if !json {
            shown::session_head();
        }
        while left > 0 {
            let from = next.map_or(String::new(), |next| format!("&after={}", escaped(&next)));
            let Some(page) = self.get(&format!("sessions?limit={left}{from}"))? else {
                return Ok(Verdict::Wrong);
            };
            let sessions = page["sessions"].as_array().into_iter().flatten();
            for session in sessions {
                left = left.saturating_sub(1);
                match json {
                    true => say!("{session}"),
                    false => shown::session_line(session),
                }
            }
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() {
                return Ok(Verdict::Good);
            }
        }
        if let Some(next) = next {
            eprintln!("there may be more: --after {next}");
        }
        Ok(Verdict::Good)
    }

    /// The busiest sessions, again and again on a terminal.
    fn top(&self, what: &str, once: bool, json: bool) -> anyhow::Result<Verdict> {
        let refreshes = !once && !json && std::io::stdout().is_terminal();
        loop {
            let Some(answer) = self.get(what)? else {
                return Ok(Verdict::Wrong);
            };
            if refreshes {
                // Clears the screen, and begins at its top (ECMA-48).
                say!("\x1b[2J\x1b[H");
            }
            if !json {
                shown::session_head();
            }
            for session in answer["sessions"].as_array().into_iter().flatten() {
                match json {
                    true => say!("{session}"),
                    false => shown::session_line(session),
                }
            }
            if !refreshes {
                return Ok(Verdict::Good);
            }
            std::thread::sleep(TOP_EVERY);
        }
    }

    /// Tells a process to end in order, and what is left until it has.
    fn drain(&self) -> anyhow::Result<Verdict> {
        if self.post("drain", &json!({}))?.is_none() {
            return Ok(Verdict::Wrong);
        }
        let until = Instant::now() + DRAIN_WITHIN;
        let mut before = None;
        while Instant::now() < until {
            // Nobody answers any more: it has ended.
            let Ok((200, answer)) = self.exchange("GET", "stats", "") else {
                say!("drained");
                return Ok(Verdict::Good);
            };
            let stats: Value = serde_json::from_str(&answer)?;
            let left = shown::left(&stats);
            if before.as_ref() != Some(&left) {
                say!("{left}");
                before = Some(left);
            }
            std::thread::sleep(DRAIN_LOOK);
        }
        eprintln!(
            "error: it has not ended within {} s",
            DRAIN_WITHIN.as_secs()
        );
        Ok(Verdict::Wrong)
    }

    /// A good answer; `None` where the answer is no, which is printed.
    fn judge(&self, status: u16, body: &str) -> anyhow::Result<Option<Value>> {
        match status {
            200 => Ok(Some(serde_json::from_str(body)?)),
            404 => {
                eprintln!("error: {}", body.trim_end());
                Ok(None)
            }
            401 => bail!("it wants a token: --token-file"),
            _ => bail!("{status}: {}", body.trim_end()),
        }
    }

    fn exchange(&self, method: &str, what: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let token = self.token.as_deref();
        let answer = self.url.ask(method, what, body, token, TIMEOUT);
        let answer = answer.map_err(Error::msg)?;
        Ok((
            answer.status,
            String::from_utf8_lossy(&answer.body).into_owned(),
        ))
    }
}
