//! `/sessions`, `/top` and `/kick` of a gateway's admin port.
//!
//! Owns the names of the fields, which scripts read. Invariant: what is not known is null,
//! never 0.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gateway::drive::{Busy, Operator};
use gateway::shard::look::{
    ConnectionView, Cursor, EventView, Rank, SessionView, Transport, Wanted,
};
use gateway::shard::story::Event;
use protocol::ids::SessionId;
use protocol::limits::REASON_TEXT_BYTES_MAX;
use protocol::quality::Report;
use protocol::reason::CloseReason;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Site;

/// Sessions of one answer at most: 100 KiB or so.
const PAGE_MAX: usize = 200;

/// Those of an answer unless asked otherwise.
const PAGE: usize = 50;

/// What `/sessions` is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    account: Option<String>,
    session: Option<u64>,
    /// Where the page before ended.
    after: Option<String>,
    limit: Option<usize>,
}

/// What `/top` is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopAsked {
    by: Option<String>,
    limit: Option<usize>,
}

/// Who is to go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kick {
    account: Option<String>,
    session: Option<u64>,
    #[serde(default)]
    text: String,
}

fn operator(site: &Site) -> Result<&Operator, (StatusCode, &'static str)> {
    let operator = site.roles.iter().find_map(|role| role.operator.as_ref());
    let why = "no gateway runs in this process: ask the gateways\n";
    operator.ok_or((StatusCode::NOT_FOUND, why))
}

fn bad(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

fn busy(busy: Busy) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{busy}\n")).into_response()
}

fn one(account: Option<String>, session: Option<u64>) -> Option<Wanted> {
    match (account, session) {
        (Some(account), None) => Some(Wanted::Account(account.into())),
        (None, Some(session)) => Some(Wanted::Session(SessionId(session))),
        _ => None,
    }
}

/// Sessions, page by page, or one with its story.
pub(super) async fn list(State(site): State<Arc<Site>>, Query(asked): Query<Asked>) -> Response {
    let operator = match operator(&site) {
        Ok(operator) => operator,
        Err(why) => return why.into_response(),
    };
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    if asked.account.is_some() || asked.session.is_some() {
        let Some(wanted) = one(asked.account, asked.session) else {
            return bad("name one of account and session");
        };
        return match operator.find(&wanted).await {
            Ok(found) => answer(&found, None),
            Err(error) => busy(error),
        };
    }
    let Some(cursor) = asked
        .after
        .as_deref()
        .map_or(Some(Cursor::default()), parse_cursor)
    else {
        return bad("after: what an answer gave as `next`");
    };
    match operator.page(cursor, limit).await {
        Ok((found, next)) => answer(&found, next),
        Err(error) => busy(error),
    }
}

fn answer(found: &[SessionView], next: Option<Cursor>) -> Response {
    let sessions: Vec<Value> = found.iter().map(session).collect();
    let next = next.map(|next| format!("{}.{}", next.shard, next.place));
    Json(json!({ "sessions": sessions, "next": next })).into_response()
}

fn parse_cursor(text: &str) -> Option<Cursor> {
    let (shard, place) = text.split_once('.')?;
    Some(Cursor {
        shard: shard.parse().ok()?,
        place: place.parse().ok()?,
    })
}

/// The busiest sessions, the busiest first.
pub(super) async fn top(State(site): State<Arc<Site>>, Query(asked): Query<TopAsked>) -> Response {
    let operator = match operator(&site) {
        Ok(operator) => operator,
        Err(why) => return why.into_response(),
    };
    let rank = match asked.by.as_deref().unwrap_or("bytes") {
        "bytes" => Rank::Bytes,
        "frames" => Rank::Frames,
        "queue" => Rank::Queue,
        _ => return bad("by: one of bytes, frames and queue"),
    };
    let limit = asked.limit.unwrap_or(20).clamp(1, PAGE_MAX);
    match operator.top(rank, limit).await {
        Ok(found) => answer(&found, None),
        Err(error) => busy(error),
    }
}

/// Ends a session; its client is told why.
pub(super) async fn kick(State(site): State<Arc<Site>>, Json(kick): Json<Kick>) -> Response {
    let operator = match operator(&site) {
        Ok(operator) => operator,
        Err(why) => return why.into_response(),
    };
    let Some(whom) = one(kick.account, kick.session) else {
        return bad("name one of account and session");
    };
    if kick.text.len() > REASON_TEXT_BYTES_MAX {
        return bad(&format!("text: at most {REASON_TEXT_BYTES_MAX} bytes"));
    }
    match operator.kick(&whom, &kick.text).await {
        Ok(kicked) if kicked.is_empty() => {
            (StatusCode::NOT_FOUND, "no such session on this gateway\n").into_response()
        }
        Ok(kicked) => {
            let kicked: Vec<u64> = kicked.iter().map(|session| session.0).collect();
            Json(json!({ "kicked": kicked })).into_response()
        }
        Err(error) => busy(error),
    }
}

fn session(view: &SessionView) -> Value {
    let groups: Vec<Value> = view
        .bindings
        .iter()
        .map(|binding| {
            json!({
                "group": binding.group.0,
                "instance": binding.instance,
                "open": binding.is_open,
                "credit_bytes": binding.credit,
            })
        })
        .collect();
    let channels: Vec<Value> = view
        .channels
        .iter()
        .map(|(group, channel)| json!({ "group": group.0, "channel": channel.0 }))
        .collect();
    json!({
        "session": view.session.0,
        "account": view.account,
        "fence": view.fence.0,
        "shard": view.shard.0,
        "channel": view.channel,
        "device": view.device,
        "client_version": view.client_version,
        "login_unix_ms": view.login_unix_ms,
        "connection": view.connection.as_ref().map(connection),
        "groups": groups,
        "channels": channels,
        "attributes": view.attributes,
        "events": view.events.iter().map(event).collect::<Vec<_>>(),
    })
}

fn event(view: &EventView) -> Value {
    let mut event = json!({
        "unix_ms": view.unix_ms,
        "event": view.event.label(),
        "times": view.times,
    });
    match view.event {
        Event::Lost => {
            let reason = CloseReason::from_code(view.about);
            event["reason"] = json!(reason.map(CloseReason::label));
        }
        Event::Bound | Event::CreditWithheld => event["group"] = json!(view.about),
        _ => {}
    }
    event
}

fn connection(view: &ConnectionView) -> Value {
    json!({
        "transport": match view.transport {
            Transport::Tcp => "tcp",
            Transport::WebSocket => "ws",
            Transport::Udp => "udp",
        },
        "tls": view.is_tls,
        "side_path": view.has_side_path,
        "address": view.address.map(|address| address.to_string()),
        "since_unix_ms": view.since_unix_ms,
        "queued_bytes": view.queued_bytes,
        "waiting_messages": view.waiting_messages,
        "rate_paused": view.is_rate_paused,
        "frames_per_second": view.rate.frames,
        "received_bytes_per_second": view.rate.received_bytes,
        "sent_bytes_per_second": view.rate.sent_bytes,
        "measured": report(&view.quality.ours),
        "told_by_client": report(&view.quality.theirs),
    })
}

fn report(report: &Report) -> Value {
    let round_trip_us = (report.round_trip_us > 0).then_some(report.round_trip_us);
    json!({
        "round_trip_us": round_trip_us,
        "jitter_us": report.jitter_us,
        "loss": f64::from(report.loss) / 256.0,
    })
}
