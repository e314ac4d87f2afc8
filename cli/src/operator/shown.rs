//! Answers of admin ports as tables and stories for people.
//!
//! Owns widths and units. Invariant: what a player chose (an account, a device) is printed
//! without control characters, so that it cannot play with the operator's terminal.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::output::say;

/// The line above `session_line`.
pub fn session_head() {
    say!(
        "{:>16}  {:<20} {:<5} {:<24} {:>8} {:>9} {:>8} {:>10} {:>10}  on",
        "session",
        "account",
        "via",
        "address",
        "rtt",
        "queued",
        "frames/s",
        "in B/s",
        "out B/s"
    );
}

/// A session in a list.
pub fn session_line(session: &Value) {
    let connection = &session["connection"];
    let via = connection["transport"].as_str().unwrap_or("away");
    say!(
        "{:>16}  {:<20} {:<5} {:<24} {:>8} {:>9} {:>8} {:>10} {:>10}  {}",
        number(&session["session"]),
        text(&session["account"]),
        via,
        text(&connection["address"]),
        ms(&connection["measured"]["round_trip_us"]),
        number(&connection["queued_bytes"]),
        number(&connection["frames_per_second"]),
        number(&connection["received_bytes_per_second"]),
        number(&connection["sent_bytes_per_second"]),
        ago(&session["login_unix_ms"]),
    );
}

/// One session, whole.
pub fn story(session: &Value) {
    let connection = &session["connection"];
    say!(
        "session {} of {}, fence {}, shard {}",
        session["session"],
        text(&session["account"]),
        session["fence"],
        session["shard"]
    );
    say!(
        "  client    version {}, channel {}, device {}",
        session["client_version"],
        text(&session["channel"]),
        text(&session["device"])
    );
    say!("  online    since {}", ago(&session["login_unix_ms"]));
    if connection.is_null() {
        say!("  away      waits for its client");
    } else {
        let tls = if connection["tls"] == true {
            " in TLS"
        } else {
            ""
        };
        let side = match connection["side_path"] == true {
            true => ", datagrams beside it",
            false => "",
        };
        say!(
            "  {:<9} from {}, since {}{tls}{side}",
            text(&connection["transport"]),
            text(&connection["address"]),
            ago(&connection["since_unix_ms"]),
        );
        for (who, report) in [("gateway", "measured"), ("client", "told_by_client")] {
            let report = &connection[report];
            say!(
                "  {who:<9} round trip {}, jitter {}, loss {:.1} %",
                ms(&report["round_trip_us"]),
                ms(&report["jitter_us"]),
                report["loss"].as_f64().unwrap_or(0.0) * 100.0
            );
        }
        let paused = match connection["rate_paused"] == true {
            true => ", above its rate and not read",
            false => "",
        };
        say!(
            "  traffic   {} frames/s and {} B/s in, {} B/s out{paused}",
            connection["frames_per_second"],
            connection["received_bytes_per_second"],
            connection["sent_bytes_per_second"]
        );
        say!(
            "  queue     {} bytes, {} messages that may get lost",
            connection["queued_bytes"],
            connection["waiting_messages"]
        );
    }
    for group in list(&session["groups"]) {
        let state = if group["open"] == true {
            "open"
        } else {
            "closed"
        };
        let credit = match &group["credit_bytes"] {
            Value::Null => String::from("without bound"),
            bytes => format!("{bytes} bytes"),
        };
        say!(
            "  group     {} at instance {}, {state}, credit {credit}",
            group["group"],
            number(&group["instance"])
        );
    }
    let channels: Vec<String> = list(&session["channels"])
        .map(|it| format!("{}/{}", it["group"], it["channel"]))
        .collect();
    say!(
        "  channels  {}, attributes {}",
        if channels.is_empty() {
            "none".to_owned()
        } else {
            channels.join(" ")
        },
        session["attributes"]
    );
    for event in list(&session["events"]) {
        let about = match (&event["reason"], &event["group"]) {
            (Value::String(reason), _) => format!(" ({reason})"),
            (_, group) if !group.is_null() => format!(" (group {group})"),
            _ => String::new(),
        };
        let times = match event["times"].as_u64() {
            Some(times) if times > 1 => format!(", {times} times in a row"),
            _ => String::new(),
        };
        say!(
            "  {:<9} {}{about}{times}",
            ago(&event["unix_ms"]),
            text(&event["event"])
        );
    }
}

/// The limits of a gateway.
pub fn limits(answer: &Value) {
    let tables = &answer["tables"];
    say!(
        "networks {} and accounts {} of {} places each, {} forgotten",
        tables["networks"],
        tables["accounts"],
        tables["places"],
        answer["forgotten"]
    );
    for (limit, times) in answer["limited"].as_object().into_iter().flatten() {
        say!("{limit:<24} {times:>10} times above");
    }
    let mut networks = list(&answer["worst_networks"]).peekable();
    if networks.peek().is_some() {
        say!("\n{:<28} {:>8} {:>12}", "network", "open", "times above");
    }
    for network in networks {
        say!(
            "{:<28} {:>8} {:>12}",
            text(&network["network"]),
            number(&network["open"]),
            number(&network["times_above"])
        );
    }
}

/// Who is online, for people.
pub fn online(center: &Value) -> String {
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

/// What a process that ends still has.
pub fn left(stats: &Value) -> String {
    let roles = stats["roles"].as_object().into_iter().flatten();
    let roles: Vec<String> = roles
        .map(|(role, figures)| {
            let connections = match figures["connections"].as_u64() {
                Some(connections) => format!(", {connections} connections"),
                None => String::new(),
            };
            format!(
                "{role}: {} sessions{connections}",
                number(&figures["sessions"])
            )
        })
        .collect();
    roles.join("; ")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    let text = value
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or("-");
    let shown = |letter: char| match letter.is_control() {
        true => '\u{fffd}',
        false => letter,
    };
    text.chars().map(shown).collect()
}

fn number(value: &Value) -> String {
    match value.as_u64() {
        Some(number) => number.to_string(),
        None => "-".to_owned(),
    }
}

fn ms(us: &Value) -> String {
    match us.as_f64() {
        Some(us) => format!("{:.1} ms", us / 1_000.0),
        None => "-".to_owned(),
    }
}

/// How long ago a Unix time was, roughly.
fn ago(unix_ms: &Value) -> String {
    let Some(at) = unix_ms.as_u64() else {
        return "-".to_owned();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as u64);
    let seconds = Duration::from_millis(now_ms.saturating_sub(at)).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7_199 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_player_chose_cannot_play_with_a_terminal() {
        assert_eq!(text(&json!("a\x1b[2Jb\n")), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(text(&json!("")), "-");
        assert_eq!(text(&Value::Null), "-");
    }
}
