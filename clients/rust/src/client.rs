//! The handle: what a game calls. It decides nothing and never holds the lock while it waits.
//!
//! Invariant: the task lives no longer than the handle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::body::Lane;
use protocol::ids::{GroupId, MessageId, SessionId};
use protocol::quality::Quality;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::link::Link;
use crate::state::{Outcome, Phase, State};
use crate::{Config, Error, Event, drive};

/// How long `logout` waits for the gateway's word.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// A player's connection to the game, which comes back by itself. See the crate.
pub struct Client {
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl Client {
    /// Connects and logs in, or takes a place in the queue: then [`Event::Queued`] is the first event and
    /// [`Event::LoggedIn`] says when it is in. `tokens` is asked for a token whenever the client logs in, which is
    /// now and when a session was lost; each is used once.
    ///
    /// Dropping the future ends the attempt. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// `Config`; else why the last of a few attempts failed.
    pub async fn connect<F, T, E>(config: Config, tokens: F) -> Result<Self, Error>
    where
        F: FnMut() -> T + Send + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        config.check()?;
        let transport = config.transport;
        let link = Arc::new(Link::new(State::new(config)));
        let task = tokio::spawn(drive::drive(Arc::clone(&link), transport, tokens));
        let client = Self { link, task };
        client.link.reach(&[Phase::In, Phase::Waiting]).await;
        let over = client.link.with(|state, _| state.over().cloned());
        match over {
            Some(why) => Err(why),
            None => Ok(client),
        }
    }

    /// Sends a message that has no reply. On the reliable lane it arrives once and in order, also
    /// when the connection is lost in between; on the others it may be lost.
    ///
    /// # Errors
    /// `NotTaken`: nothing was sent.
    pub fn send(
        &self,
        group: GroupId,
        lane: Lane,
        id: MessageId,
        payload: &[u8],
    ) -> Result<(), Error> {
        self.link
            .with(|state, now| state.send(now, group, lane, id, payload))?;
        self.link.to_task.notify_one();
        Ok(())
    }

    /// Sends a request, on the reliable lane. It is sent whether the reply is waited for or not.
    ///
    /// # Errors
    /// `NotTaken`, `TooManyRequests`: nothing was sent.
    pub fn request(
        &self,
        group: GroupId,
        id: MessageId,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let (request, outcome) = self
            .link
            .with(|state, _| state.request(group, id, payload))?;
        self.link.to_task.notify_one();
        let waits = Waits {
            link: Arc::clone(&self.link),
            request,
            outcome: Some(outcome),
        };
        let deadline = tokio::time::Instant::now() + timeout;
        Ok(Reply {
            request,
            future: Box::pin(waits.until(deadline)),
        })
    }

    /// The next event; `None` after `Closed`. Dropping the future loses nothing.
    pub async fn recv(&self) -> Option<Event> {
        loop {
            let (event, is_over) = self
                .link
                .with(|state, _| (state.pop(), state.over().is_some()));
            if event.is_some() || is_over {
                return event;
            }
            self.link.to_app.notified().await;
        }
    }

    /// The session that this client is in; `None` once it is lost.
    pub fn session(&self) -> Option<SessionId> {
        self.link.with(|state, _| state.session())
    }

    /// Whether it has a connection and is logged in.
    pub fn is_connected(&self) -> bool {
        self.link.with(|state, _| state.phase() == Phase::In)
    }

    /// Whether messages of the unreliable lanes leave as datagrams beside the connection now
    /// ([`Config::side_path`]). Where they do not, they leave by the connection.
    pub fn is_side_path_up(&self) -> bool {
        self.link.with(|state, now| state.is_side_path_up(now))
    }

    /// How good the connection is, for signal bars: `ours` is what this client measured,
    /// `theirs` what the gateway did. `None` while there is no connection; a round trip of 0 is
    /// not known yet, and is a moment after login.
    pub fn quality(&self) -> Option<Quality> {
        self.link.with(|state, _| state.quality())
    }

    /// Ends the session. What was sent before leaves before; a request whose reply came has
    /// arrived. The last events can still be received.
    ///
    /// # Errors
    /// `LeftAlone`: there is no connection, or no answer; why it was over before.
    pub async fn logout(&self) -> Result<(), Error> {
        self.link.with(|state, _| state.log_out());
        self.link.to_task.notify_one();
        let waited = tokio::time::timeout(LOGOUT_TIMEOUT, self.link.reach(&[Phase::Over])).await;
        let over = self.link.with(|state, _| {
            if waited.is_err() {
                state.end(Error::LeftAlone);
            }
            state.over().cloned()
        });
        match over {
            None | Some(Error::LoggedOut) => Ok(()),
            Some(why) => Err(why),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
        // Whoever still waits for a reply is told.
        self.link.with(|state, _| state.end(Error::LeftAlone));
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

/// The reply to a request: a future. Dropping it takes nothing back.
pub struct Reply {
    request: u32,
    future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

impl Reply {
    /// The id of the request, as in the parts of a reply that come before the last one
    /// ([`Message::request`](crate::Message::request)).
    pub fn request(&self) -> u32 {
        self.request
    }
}

impl Future for Reply {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.future.as_mut().poll(context)
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// Who waits for a reply.
struct Waits {
    link: Arc<Link>,
    request: u32,
    outcome: Option<oneshot::Receiver<Outcome>>,
}

impl Waits {
    async fn until(mut self, deadline: tokio::time::Instant) -> Outcome {
        let Some(outcome) = &mut self.outcome else {
            return Err(Error::SessionLost);
        };
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Error::SessionLost),
            Err(_) => Err(Error::NoReply),
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.outcome = None;
        self.link.with(|state, _| state.forget(self.request));
    }
}
