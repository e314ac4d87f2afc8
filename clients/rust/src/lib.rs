//! The client of a Sallyport gateway for games in Rust, on tokio.
//!
//! A [`Client`] connects over TCP, UDP or WebSocket, logs in, and stays: when its connection is
//! lost it comes back to its session by itself, and what waited on the reliable lane arrives, each
//! message once and in order. Where no way leads back it logs in anew and says so, since the
//! state that belonged to the session is lost then ([`Event::NewSession`]).
//!
//! ```no_run
//! use std::time::Duration;
//! use sallyport_client::{Client, Config, Event, GroupId, Lane, MessageId};
//!
//! # async fn ask_your_login_server() -> Result<String, std::io::Error> { Ok(String::new()) }
//! # async fn play() -> Result<(), sallyport_client::Error> {
//! const WORLD: GroupId = GroupId(1);
//! const GREET: MessageId = MessageId(1);
//! const MOVE: MessageId = MessageId(2);
//!
//! // Where the gateway is and the key that it proves to have; `sallyport keygen gateway` printed it.
//! let config = Config::new("game.example:7000", "XPsZ0LfGvcf5gm6vyp5mv2FGZmRWpzS8gW6lZVNEWxM")?;
//! // Each login takes a fresh token, so the client asks for one whenever it has to log in.
//! let client = Client::connect(config, || ask_your_login_server()).await?;
//!
//! // A request has one reply; it may also be dropped, or asked beside others.
//! let reply = client.request(WORLD, GREET, b"hello", Duration::from_secs(5))?.await?;
//! println!("{} bytes", reply.len());
//!
//! // The newest position is all that counts: a late one is dropped on its way.
//! let _ = client.send(WORLD, Lane::Sequenced, MOVE, &[1, 2, 3, 4]);
//!
//! while let Some(event) = client.recv().await {
//!     match event {
//!         Event::Message(message) => println!("{} bytes", message.payload.len()),
//!         Event::GroupUp(_) | Event::GroupDown(_) => {}
//!         Event::Reconnecting { attempt, wait, why } => println!("{why}; {attempt} in {wait:?}"),
//!         Event::Queued(queue) => println!("{} of {}", queue.position, queue.of),
//!         Event::LoggedIn(_) => println!("let in"),
//!         Event::Resumed(_) => println!("back, nothing was lost"),
//!         Event::NewSession(_) => println!("back in a new session: load the game's state anew"),
//!         Event::Closed(why) => println!("over: {why}"),
//!         _ => {} // channels
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! `examples/echo.rs` is a whole program that runs against `sallyport dev`.
//!
//! **Sending** never waits. The reliable lane has an outbox a group (1,024 messages, 256 KiB); what
//! does not fit is refused ([`Error::NotTaken`]), and so is what an unreliable lane does not take.
//! The outbox keeps its messages while the connection is away.
//!
//! **Receiving** is bounded too: with [`EVENTS_MAX`] events or [`EVENTS_BYTES_MAX`] of payload not
//! taken by [`Client::recv`], the client stops reading. So call it all the time, also while you wait for
//! replies: all methods take `&self`, and an `Arc<Client>` serves several tasks.
//!
//! **Datagrams beside a connection**: over TCP and WebSocket, messages of the unreliable and the sequenced
//! lane go as datagrams to the same port while these get through both ways, and by the connection
//! otherwise ([`Config::side_path`], [`Client::is_side_path_up`]). The game notices nothing but that
//! a lost segment no longer holds them up, and that they may be lost.
//!
//! **The end**: [`Client::logout`] ends the session. Dropping the `Client` ends its task and its
//! connection at once; the session waits at the gateway for its time (60 s by default).
//!
//! What decides is `protocol::client`, the core that load test and simulator drive as well; here
//! are its sockets, its clock, and the task that joins them, one a client.

#![forbid(unsafe_code)]

mod client;
mod config;
mod drive;
mod error;
mod event;
mod link;
mod socket;
mod state;

pub use client::{Client, Reply};
pub use config::{Config, Transport};
pub use error::{Error, Fault};
pub use event::{ChannelMessage, Event, Message};
pub use protocol::body::{Lane, QueuePosition};
pub use protocol::client::SendError;
pub use protocol::ids::{ChannelId, GroupId, MessageId, SessionId};
pub use protocol::limits::PAYLOAD_BYTES_MAX;
pub use protocol::quality::{Quality, Report};
pub use protocol::reason::CloseReason;
pub use state::{EVENTS_BYTES_MAX, EVENTS_MAX, REQUESTS_MAX};
