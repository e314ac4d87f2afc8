//! `sallyport admin`: asks the admin port of a running process.
//!
//! Owns the words of the requests and what is printed. What is asked for is checked by who is
//! asked.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Error, bail};
use loadtest::admin::AdminUrl;
use serde_json::{Map, Value, json};

use crate::Verdict;
use crate::args::{AdminArguments, AdminCommand, WhomArguments};
use crate::keys;
use crate::output::say;

/// Longest wait for a connection, and for the answer after it; above what the asked side waits for its own roles.
const TIMEOUT: Duration = Duration::from_secs(5);

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
            let Some(stats) = port.read("stats")? else {
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
                say!("{}", online(center).trim_end());
            }
            Ok(Verdict::Good)
        }
        AdminCommand::Bans => {
            let Some(bans) = port.read("bans")? else {
                return Ok(Verdict::Wrong);
            };
            for ban in bans["bans"].as_array().into_iter().flatten() {
                say!("{ban}");
            }
            Ok(Verdict::Good)
        }
    }
}

/// Who is online, for people.
fn online(center: &Value) -> String {
    let mut out = format!("online     {}\n", center["sessions"]);
    for (kind, rows) in [
        ("version", &center["online"]["versions"]),
        ("channel", &center["online"]["channels"]),
        ("gateway", &center["online"]["gateways"]),
    ] {
        for row in rows.as_array().into_iter().flatten() {
            let name = row[0].as_str().unwrap_or("(others)");
            let name = if name.is_empty() { "(none)" } else { name };
            let _ = writeln!(
                out,
                "{kind:<10} {:<24} {}",
                name.escape_debug().to_string(),
                row[1]
            );
        }
    }
    let queue = |field: &str| center["queue"][field].as_u64().unwrap_or_default();
    let mean_s = queue("waited_ms") as f64 / 1e3 / queue("admitted").max(1) as f64;
    let _ = writeln!(
        out,
        "queue      {} wait, {} places are kept; {} were let in so far, after {mean_s:.1} s on average",
        queue("waiting"),
        queue("away"),
        queue("admitted"),
    );
    out
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

/// An admin port.
struct Port {
    url: AdminUrl,
    token: Option<String>,
}

impl Port {
    /// What the port says of this; `None` where there is nothing, which is printed.
    fn read(&self, what: &str) -> anyhow::Result<Option<Value>> {
        let (status, body) = self.exchange("GET", what, "")?;
        let answer = self.judge(status, &body)?;
        Ok(answer
            .map(|answer| serde_json::from_str(&answer))
            .transpose()?)
    }

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
