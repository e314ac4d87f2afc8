//! `sallyport admin`: asks the admin port of a running process.
//!
//! Owns the words of the requests and what is printed. What is asked for is checked by who is
//! asked.

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

/// An admin port.
struct Port {
    url: AdminUrl,
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
