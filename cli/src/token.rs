//! `sallyport token`: issues login tokens and explains them.
//!
//! Owns the command; what a token is stands in `protocol::token`. Invariant:
//! a secret is read from a file and printed nowhere.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pasetors::Public;
use pasetors::token::UntrustedToken;
use pasetors::version4::V4;
use protocol::token::{Claims, Verifier, decode, issue};
use uplink::PublicKey;

use crate::Verdict;
use crate::args::TokenCommand;
use crate::keys;
use crate::output::say;

/// Runs the command.
///
/// # Errors
/// The key file cannot be used, or what was given is no token or key at all.
pub fn run(command: &TokenCommand) -> anyhow::Result<Verdict> {
    match command {
        TokenCommand::Issue {
            key_file,
            account,
            audience,
            life_seconds,
        } => {
            let secret = keys::read_token_secret(key_file)?;
            let issued_unix_ms = unix_ms();
            let claims = Claims {
                audience: audience.clone(),
                account: account.clone(),
                // 32 random bytes never meet again.
                id: URL_SAFE_NO_PAD.encode(keys::random32()?),
                issued_unix_ms,
                expires_unix_ms: issued_unix_ms + life_seconds * 1_000,
            };
            say!("{}", issue(&secret, &claims)?);
            Ok(Verdict::Good)
        }
        TokenCommand::Show {
            token,
            key,
            audience,
        } => show(token, key.as_deref(), audience),
    }
}

fn show(token: &str, key: Option<&str>, audience: &str) -> anyhow::Result<Verdict> {
    let now_unix_ms = unix_ms();
    let untrusted = UntrustedToken::<Public, V4>::try_from(token).map_err(|_| {
        anyhow::anyhow!("this is no PASETO v4.public token: it has to start with v4.public.")
    })?;
    let payload = std::str::from_utf8(untrusted.untrusted_payload()).unwrap_or_default();
    let Ok(claims) = decode(payload) else {
        say!("payload    {}", payload.escape_debug());
        say!("refused    the claims aud, sub, jti, iat and exp are needed, see PROTOCOL.md");
        return Ok(Verdict::Wrong);
    };
    say!("account    {}", claims.account.escape_debug());
    say!("audience   {}", claims.audience.escape_debug());
    say!("id         {}", claims.id.escape_debug());
    say!(
        "issued     {}",
        relative(claims.issued_unix_ms, now_unix_ms)
    );
    say!(
        "expires    {}",
        relative(claims.expires_unix_ms, now_unix_ms)
    );
    let Some(key) = key else {
        say!("signature  not checked: give --key");
        return Ok(Verdict::Good);
    };
    let key: PublicKey = key.parse()?;
    let verifier = Verifier::new(audience.to_owned(), &[key.0])
        .ok_or_else(|| anyhow::anyhow!("--key is no ed25519 public key"))?;
    match verifier.verify(token.as_bytes(), now_unix_ms) {
        Ok(_) => {
            say!("accepted   by a gateway with this key and audience {audience}");
            Ok(Verdict::Good)
        }
        Err(reason) => {
            say!("refused    {}", reason.label());
            Ok(Verdict::Wrong)
        }
    }
}

fn relative(unix_ms: u64, now_unix_ms: u64) -> String {
    let seconds = now_unix_ms.abs_diff(unix_ms) as f64 / 1_000.0;
    let when = if unix_ms > now_unix_ms {
        "from now"
    } else {
        "ago"
    };
    format!("{unix_ms} (Unix ms, {seconds:.0} s {when})")
}

fn unix_ms() -> u64 {
    // A clock before 1970 makes a token that nobody accepts, which is right.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
