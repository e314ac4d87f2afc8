//! `/bans`, `/ban` and `/unban` of center's admin port.
//!
//! Owns the names of the fields and the texts of networks. Invariant: what is listed can be sent
//! back to `/ban` as it stands.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use backend::center::{Ban, BanKey};
use backend::center_driver::{Desk, DeskError};
use ipnet::{IpNet, Ipv6Net};
use protocol::network::Network;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Site;

/// Bits before an IPv4 address in the form of an IPv6 one.
const MAPPED_BITS: u8 = 96;

/// Whom a ban is about: one of the three.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whom {
    /// An account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// A device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// A network or an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// A ban as it is asked for and shown.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BanBody {
    /// Whom.
    #[serde(flatten)]
    pub whom: Whom,
    /// When it ends, Unix ms; without it, it does not by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_unix_ms: Option<u64>,
    /// The same as seconds from now; asked for only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// What the player is told.
    #[serde(default)]
    pub text: String,
}

impl Whom {
    fn key(self) -> Result<BanKey, &'static str> {
        match (self.account, self.device, self.network) {
            (Some(account), None, None) => Ok(BanKey::Account(account.into())),
            (None, Some(device), None) => Ok(BanKey::Device(device.into())),
            (None, None, Some(network)) => parse_network(&network)
                .map(BanKey::Network)
                .ok_or("network: an address or a network, such as 192.0.2.7 or 2001:db8::/32"),
            _ => Err("name one of account, device and network"),
        }
    }

    fn of(key: &BanKey) -> Self {
        let mut whom = Self::default();
        match key {
            BanKey::Account(account) => whom.account = Some(account.to_string()),
            BanKey::Device(device) => whom.device = Some(device.to_string()),
            BanKey::Network(network) => whom.network = Some(show_network(network)),
        }
        whom
    }
}

fn parse_network(text: &str) -> Option<Network> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network.ok()? {
        IpNet::V4(net) => {
            let address = net.addr().to_ipv6_mapped().to_bits();
            Network::new(address, net.prefix_len() + MAPPED_BITS)
        }
        IpNet::V6(net) => Network::new(net.addr().to_bits(), net.prefix_len()),
    }
}

fn show_network(network: &Network) -> String {
    let address = Ipv6Addr::from_bits(network.address());
    match (
        address.to_ipv4_mapped(),
        network.prefix().checked_sub(MAPPED_BITS),
    ) {
        (Some(ip), Some(prefix)) => format!("{ip}/{prefix}"),
        _ => Ipv6Net::new(address, network.prefix())
            .map_or_else(|_| address.to_string(), |net| net.to_string()),
    }
}

fn desk(site: &Site) -> Result<&Desk, (StatusCode, String)> {
    let desk = site.roles.iter().find_map(|role| role.desk.as_ref());
    let why = "center does not run in this process: ask center\n".to_owned();
    desk.ok_or((StatusCode::NOT_FOUND, why))
}

fn answer(outcome: Result<(), DeskError>) -> Response {
    let status = match outcome {
        Ok(()) => return Json(json!({})).into_response(),
        Err(DeskError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
        Err(DeskError::Refused(_)) => StatusCode::BAD_REQUEST,
        Err(DeskError::Unknown) => StatusCode::NOT_FOUND,
        Err(DeskError::NotWritten) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (
        status,
        outcome
            .err()
            .map_or_else(String::new, |error| format!("{error}\n")),
    )
        .into_response()
}

fn bad(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

/// The bans in force.
pub(super) async fn list(State(site): State<Arc<Site>>) -> Response {
    let desk = match desk(&site) {
        Ok(desk) => desk,
        Err(why) => return why.into_response(),
    };
    match desk.bans().await {
        Err(error) => answer(Err(error)),
        Ok(bans) => {
            let bans: Vec<BanBody> = bans
                .iter()
                .map(|(key, ban)| BanBody {
                    whom: Whom::of(key),
                    until_unix_ms: (ban.until_unix_ms != 0).then_some(ban.until_unix_ms),
                    for_seconds: None,
                    text: ban.text.to_string(),
                })
                .collect();
            Json(json!({ "bans": bans })).into_response()
        }
    }
}

/// Bans somebody; answered once it is in force and on disk.
pub(super) async fn ban(State(site): State<Arc<Site>>, Json(body): Json<BanBody>) -> Response {
    let desk = match desk(&site) {
        Ok(desk) => desk,
        Err(why) => return why.into_response(),
    };
    let key = match body.whom.key() {
        Ok(key) => key,
        Err(why) => return bad(why),
    };
    let until_unix_ms = match (body.until_unix_ms, body.for_seconds) {
        (None, None) => 0,
        (Some(until), None) if until > 0 => until,
        (None, Some(seconds)) if seconds > 0 => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_ms = now.map_or(0, |now| now.as_millis() as u64);
            now_ms.saturating_add(seconds.saturating_mul(1_000))
        }
        _ => return bad("give one of until_unix_ms and for_seconds, above 0, or neither"),
    };
    let text = body.text.into();
    answer(
        desk.ban(
            key,
            Ban {
                until_unix_ms,
                text,
            },
        )
        .await,
    )
}

/// Lifts a ban.
pub(super) async fn unban(State(site): State<Arc<Site>>, Json(whom): Json<Whom>) -> Response {
    let desk = match desk(&site) {
        Ok(desk) => desk,
        Err(why) => return why.into_response(),
    };
    match whom.key() {
        Ok(key) => answer(desk.unban(key).await),
        Err(why) => bad(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_shown_as_they_were_written() {
        for text in [
            "192.0.2.0/24",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::/0",
        ] {
            let network = parse_network(text).expect("a network");
            assert_eq!(show_network(&network), text);
        }
        let one = parse_network("192.0.2.7").expect("an address");
        assert_eq!(show_network(&one), "192.0.2.7/32");
        let host_bits = parse_network("192.0.2.7/24").expect("a network");
        assert_eq!(show_network(&host_bits), "192.0.2.0/24");
        for text in ["", "192.0.2", "192.0.2.0/33", "example.org"] {
            assert_eq!(parse_network(text), None, "{text}");
        }
    }
}
