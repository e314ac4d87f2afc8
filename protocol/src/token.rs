//! Login tokens: PASETO v4.public (paseto.io) with audience, account, id and a
//! life of at most a minute (PROTOCOL §5). Time is an argument.
//!
//! pasetors signs and takes tokens apart; the signature itself is checked by ring,
//! since every login waits for that and pasetors takes twice the time (ADR 6).

use pasetors::Public;
use pasetors::keys::{AsymmetricPublicKey, AsymmetricSecretKey};
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits::{
    ACCOUNT_BYTES_MAX, TOKEN_CLOCK_TOLERANCE_MS, TOKEN_ID_BYTES_MAX, TOKEN_LIFE_MS_MAX,
};
use crate::reason::CloseReason;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Which gateways it is for.
    pub audience: String,
    /// Whose it is: 1 to 64 bytes.
    pub account: String,
    /// Used once: 1 to 64 bytes.
    pub id: String,
    /// Unix ms, whole seconds on the wire.
    pub issued_unix_ms: u64,
    /// Unix ms, whole seconds on the wire.
    pub expires_unix_ms: u64,
}

/// The claims as JSON, by their registered names.
#[derive(Serialize, Deserialize)]
struct Payload {
    aud: String,
    sub: String,
    jti: String,
    iat: String,
    exp: String,
}

/// A token can't be issued with this key or these claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The key is not 64 bytes of an Ed25519 secret and its public half.
    #[error("the token key is not an Ed25519 secret key (64 bytes: seed, then public key)")]
    Key,
    /// A claim is empty, too long, or a time is not representable.
    #[error("a claim is empty, longer than 64 bytes, or its time is out of range")]
    Claims,
}

/// Issues tokens under one key.
#[derive(Debug)]
pub struct Issuer {
    key: AsymmetricSecretKey<V4>,
}

impl Issuer {
    /// `secret` is the Ed25519 seed followed by the public key.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn new(secret: &[u8; 64]) -> Result<Self, IssueError> {
        let key = AsymmetricSecretKey::from(secret).map_err(|_| IssueError::Key)?;
        Ok(Self { key })
    }

    /// Issues a token.
    ///
    /// # Errors
    /// A claim is unusable.
    pub fn issue(&self, claims: &Claims) -> Result<String, IssueError> {
        let label_fits = |text: &str, max: usize| (1..=max).contains(&text.len());
        if !label_fits(&claims.account, ACCOUNT_BYTES_MAX)
            || !label_fits(&claims.id, TOKEN_ID_BYTES_MAX)
        {
            return Err(IssueError::Claims);
        }
        let payload = Payload {
            aud: claims.audience.clone(),
            sub: claims.account.clone(),
            jti: claims.id.clone(),
            iat: rfc3339(claims.issued_unix_ms)?,
            exp: rfc3339(claims.expires_unix_ms)?,
        };
        let json = serde_json::to_vec(&payload).map_err(|_| IssueError::Claims)?;
        PublicToken::sign(&self.key, &json, None, None).map_err(|_| IssueError::Key)
    }
}

/// Issues one token; whoever issues many keeps an [`Issuer`].
///
/// # Errors
/// The key or a claim is unusable.
pub fn issue(secret: &[u8; 64], claims: &Claims) -> Result<String, IssueError> {
    Issuer::new(secret)?.issue(claims)
}

fn rfc3339(unix_ms: u64) -> Result<String, IssueError> {
    i64::try_from(unix_ms / 1_000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .ok_or(IssueError::Claims)
}

/// Verifies tokens of one audience against a set of public keys; several
/// overlap while keys are rotated.
#[derive(Debug)]
pub struct Verifier {
    audience: String,
    keys: Vec<[u8; 32]>,
}

impl Verifier {
    /// A verifier for these Ed25519 public keys; `None` if one is unusable.
    pub fn new(audience: String, keys: &[[u8; 32]]) -> Option<Self> {
        let is_usable = |key: &[u8; 32]| AsymmetricPublicKey::<V4>::from(key).is_ok();
        keys.iter().all(is_usable).then(|| Self {
            audience,
            keys: keys.to_vec(),
        })
    }

    /// Verifies a token at `unix_ms`.
    ///
    /// # Errors
    /// `BadToken`, `TokenAudience`, `TokenExpired`.
    pub fn verify(&self, token: &[u8], unix_ms: u64) -> Result<Claims, CloseReason> {
        let text = std::str::from_utf8(token).map_err(|_| CloseReason::BadToken)?;
        let untrusted = UntrustedToken::try_from(text).map_err(|_| CloseReason::BadToken)?;
        if !self.keys.iter().any(|key| is_signed(key, &untrusted)) {
            return Err(CloseReason::BadToken);
        }
        let payload = std::str::from_utf8(untrusted.untrusted_payload())
            .map_err(|_| CloseReason::BadToken)?;
        let claims = decode(payload)?;
        if claims.audience != self.audience {
            return Err(CloseReason::TokenAudience);
        }
        let life_ms = claims.expires_unix_ms.saturating_sub(claims.issued_unix_ms);
        if life_ms == 0
            || life_ms > TOKEN_LIFE_MS_MAX
            || unix_ms
                > claims
                    .expires_unix_ms
                    .saturating_add(TOKEN_CLOCK_TOLERANCE_MS)
            || unix_ms.saturating_add(TOKEN_CLOCK_TOLERANCE_MS) < claims.issued_unix_ms
        {
            return Err(CloseReason::TokenExpired);
        }
        Ok(claims)
    }
}

/// Whether the holder of this key signed the token (PASETO v4, "Verify", with an
/// empty implicit assertion).
fn is_signed(key: &[u8; 32], token: &UntrustedToken<Public, V4>) -> bool {
    let (message, payload) = (token.untrusted_message(), token.untrusted_payload());
    let Some(signature) = message.get(payload.len()..) else {
        return false;
    };
    let signed = pre_authentication_encoding([
        PublicToken::HEADER.as_bytes(),
        payload,
        token.untrusted_footer(),
        &[],
    ]);
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&signed, signature)
        .is_ok()
}

/// PAE of the PASETO specification: the number of pieces, then each with its length
/// before it, so that no other pieces have the same encoding.
fn pre_authentication_encoding<const N: usize>(pieces: [&[u8]; N]) -> Vec<u8> {
    let bytes: usize = pieces.iter().map(|piece| 8 + piece.len()).sum();
    let mut out = Vec::with_capacity(8 + bytes);
    out.extend_from_slice(&(N as u64).to_le_bytes());
    for piece in pieces {
        out.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}

/// Reads claims from a token's payload, whose signature the caller has checked
/// or only wants to show.
///
/// # Errors
/// `BadToken` when they are not what `issue` writes.
pub fn decode(payload: &str) -> Result<Claims, CloseReason> {
    let payload: Payload = serde_json::from_str(payload).map_err(|_| CloseReason::BadToken)?;
    let unix_ms = |text: &str| {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| CloseReason::BadToken)?;
        let ms = time.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).map_err(|_| CloseReason::BadToken)
    };
    let claims = Claims {
        issued_unix_ms: unix_ms(&payload.iat)?,
        expires_unix_ms: unix_ms(&payload.exp)?,
        audience: payload.aud,
        account: payload.sub,
        id: payload.jti,
    };
    let label_fits = |text: &str, max: usize| (1..=max).contains(&text.len());
    if label_fits(&claims.account, ACCOUNT_BYTES_MAX) && label_fits(&claims.id, TOKEN_ID_BYTES_MAX)
    {
        Ok(claims)
    } else {
        Err(CloseReason::BadToken)
    }
}

#[cfg(test)]
mod tests;
