//! Who may ask an admin port.
//!
//! Owns the comparison of tokens and, where there is none, what keeps web pages out (ADR 22).
//! Invariant: a port that other hosts reach has a token at any time.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Site;
use crate::config::AdminConfig;
use crate::keys;

/// Who may ask: who gives the token, or everybody where there is none.
#[derive(Clone)]
pub struct Guard {
    bearer: Arc<RwLock<Option<String>>>,
    is_loopback: bool,
}

/// A token that has been read and is not in force yet.
pub struct NewToken(Option<String>);

impl Guard {
    /// With this token, at a port that only this host reaches, or others too.
    pub fn new(token: Option<String>, is_loopback: bool) -> Self {
        Self {
            bearer: Arc::new(RwLock::new(token)),
            is_loopback,
        }
    }

    /// Reads the token of a new configuration.
    ///
    /// # Errors
    /// Its file cannot be used, or there is none and others than this host can reach the port.
    pub fn read(&self, config: &AdminConfig) -> anyhow::Result<NewToken> {
        let token = read_token(config)?;
        anyhow::ensure!(
            token.is_some() || self.is_loopback,
            "the admin port of this process can be reached from other hosts: keep \
             admin.token_file, or restart it"
        );
        Ok(NewToken(token))
    }

    /// Lets who gives this token in from now on; whether it is another one.
    pub fn take(&self, new: NewToken) -> bool {
        let mut bearer = self.bearer.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *bearer != new.0;
        *bearer = new.0;
        changed
    }

    fn judge(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let bearer = self.bearer.read().unwrap_or_else(PoisonError::into_inner);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        match bearer.as_deref() {
            Some(bearer) => {
                let given = text(header::AUTHORIZATION);
                let given = given.and_then(|value| value.strip_prefix("Bearer "));
                let is_right = equal(given.unwrap_or_default().as_bytes(), bearer.as_bytes());
                is_right.then_some(()).ok_or(Refused::Token)
            }
            // Who is on this host may ask everything; a page that its browser shows may not, be it
            // under a name of its own that leads here.
            None if headers.contains_key(header::ORIGIN) => Err(Refused::Browser),
            None if !text(header::HOST).is_none_or(is_ours) => Err(Refused::Browser),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Token,
    Browser,
}

/// Whether nobody else can have given this name to our address: an address itself, or a name
/// without a domain.
fn is_ours(host: &str) -> bool {
    let bare = host.rsplit_once(':').map_or(host, |(name, port)| {
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port && (!name.contains(':') || name.ends_with(']')) {
            name
        } else {
            host
        }
    });
    let inside = bare
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inside.unwrap_or(bare).parse::<IpAddr>().is_ok() || !bare.contains('.')
}

/// Lets through who may ask.
pub(super) async fn authorize(
    State(site): State<Arc<Site>>,
    request: Request,
    next: Next,
) -> Response {
    match site.guard.judge(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refused::Token) => {
            let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
            let why = "give the token of admin.token_file\n";
            (StatusCode::UNAUTHORIZED, ask, why).into_response()
        }
        Err(Refused::Browser) => {
            let why = "without a token only this host may ask, and no web page: \
                       use its address, or set admin.token_file\n";
            (StatusCode::FORBIDDEN, why).into_response()
        }
    }
}

/// Compares without telling by its duration how much was right.
fn equal(given: &[u8], expected: &[u8]) -> bool {
    let different = given
        .iter()
        .zip(expected)
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == expected.len() && std::hint::black_box(different) == 0
}

/// The token of a configuration.
///
/// # Errors
/// Its file cannot be used.
pub fn read_token(config: &AdminConfig) -> anyhow::Result<Option<String>> {
    Ok(match (&config.token, &config.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(keys::read_admin_token(path)?),
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_can_give_away_are_not_ours() {
        for host in [
            "127.0.0.1:7001",
            "127.0.0.1",
            "[::1]:7001",
            "[::1]",
            "localhost:7001",
            "gw",
        ] {
            assert!(is_ours(host), "{host}");
        }
        for host in [
            "evil.example:7001",
            "evil.example",
            "127.0.0.1.evil.example:7001",
        ] {
            assert!(!is_ours(host), "{host}");
        }
    }
}
