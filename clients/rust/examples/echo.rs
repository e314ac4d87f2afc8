//! Plays with the `echo` game of `sallyport dev`: logs in, asks, sends, listens, leaves.
//!
//! Start `sallyport dev` and give this the words of the line that it prints after `try: sallyport
//! loadtest`:
//!
//! ```text
//! cargo run -p sallyport-client --example echo -- 127.0.0.1:7000 --key KEY --token-key TOKENKEY
//! ```
//!
//! `--transport udp` or `ws` goes another way. What is after `--admin` is not used.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::token::{Claims, issue};
use sallyport_client::{Client, Config, Event, GroupId, Lane, MessageId, Transport};

/// The group of `dev`'s echo game.
const ECHO: GroupId = GroupId(1);
const SHOUT: MessageId = MessageId(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// A login token. In a real game your login server makes it, once it knows who the player is; the
/// secret never leaves that server.
fn token(secret: &[u8; 64], number: u32) -> Result<String, Box<dyn Error + Send + Sync>> {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let claims = Claims {
        audience: String::from("sallyport"),
        account: format!("example-{}", std::process::id()),
        id: format!("{unix_ms}-{number}"),
        issued_unix_ms: unix_ms,
        expires_unix_ms: unix_ms + 30_000,
    };
    issue(secret, &claims).map_err(|error| format!("{error:?}").into())
}

/// Plays, and returns what happened.
pub async fn play(words: &[String]) -> Result<Vec<Event>, Box<dyn Error + Send + Sync>> {
    let option = |name: &str| {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)).map(String::as_str)
    };
    let address = words
        .first()
        .ok_or("give HOST:PORT --key KEY --token-key TOKENKEY")?;
    let mut config = Config::new(address, option("--key").ok_or("--key is missing")?)?;
    config.transport = match option("--transport") {
        None | Some("tcp") => Transport::Tcp,
        Some("udp") => Transport::Udp,
        Some("ws") => Transport::WebSocket,
        Some(_) => return Err("--transport is tcp, udp or ws".into()),
    };
    let secret = URL_SAFE_NO_PAD.decode(option("--token-key").ok_or("--token-key is missing")?)?;
    let secret: [u8; 64] = secret.try_into().map_err(|_| "--token-key is no key")?;

    let mut logins = 0;
    let tokens = move || {
        logins += 1;
        std::future::ready(token(&secret, logins))
    };
    let client = Client::connect(config, tokens).await?;
    println!("in session {:?}", client.session());

    // Requests need not wait for each other.
    let first = client.request(ECHO, SHOUT, b"hello", PATIENCE)?;
    let second = client.request(ECHO, SHOUT, b"is anybody there?", PATIENCE)?;
    for reply in [first, second] {
        println!("reply: {}", String::from_utf8_lossy(&reply.await?));
    }

    // The reliable lane keeps what is not acknowledged, also while the connection is away.
    for number in 0..5_u32 {
        client.send(ECHO, Lane::Reliable, SHOUT, &number.to_le_bytes())?;
    }
    let mut events = Vec::new();
    let mut echoes = 0;
    while echoes < 5 {
        let event = tokio::time::timeout(PATIENCE, client.recv()).await?;
        let event = event.ok_or("it ended too early")?;
        println!("event: {event:?}");
        echoes += u32::from(matches!(event, Event::Message(_)));
        events.push(event);
    }
    client.logout().await?;
    println!("logged out");
    Ok(events)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    play(&words).await.map(drop)
}
