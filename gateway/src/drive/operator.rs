//! What operators ask and tell the shards, from other threads and back.
//!
//! Owns the queue of each shard. Invariant: a request costs a shard a bounded part of a turn, and
//! so many wait at most; who asks more is told to come again.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use protocol::ids::SessionId;
use protocol::time::Now;
use protocol::token::Verifier;
use tokio::sync::{mpsc, oneshot};

use super::Stop;
use crate::shard::look::{Cursor, Found, Look, Rank, SessionView, Wanted};
use crate::shard::{Shard, ShardConfig};

/// Requests that wait for a shard: those of a few people at once.
const WAITING_MAX: usize = 8;

/// Longest wait for a shard's answer, which takes it some turns.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody answered in time, or too many ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shards are busy: ask again")]
pub struct Busy;

/// Why a gateway did not take a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    /// Nothing has changed.
    #[error("a key in [token] keys is not an Ed25519 public key")]
    TokenKey,
    /// Some shards may have taken it.
    #[error("the shards are busy, and some may have changed: reload again")]
    Busy,
}

/// Sessions of one account or of one id on a shard: two for a moment, while one of them ends.
const SAME_MAX: usize = 2;

/// What a shard does with the sessions that a look has found.
#[derive(Debug)]
enum Then {
    Show,
    /// Ends them, with this text for their players.
    Kick(Box<str>),
}

/// A look that is under way, and who waits for it.
type Looking = (Look, Then, oneshot::Sender<Found>);

/// A request to one shard.
#[derive(Debug)]
enum Request {
    Look(Looking),
    Configure(Box<ShardConfig>, Box<Verifier>, SyncSender<()>),
}

/// A shard's end.
#[derive(Debug)]
pub(super) struct Desk {
    requests: mpsc::Receiver<Request>,
    current: Option<Looking>,
}

/// How one shard is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask(mpsc::Sender<Request>);

pub(super) fn channel() -> (Ask, Desk) {
    let (ask, requests) = mpsc::channel(WAITING_MAX);
    let desk = Desk {
        requests,
        current: None,
    };
    (Ask(ask), desk)
}

impl Desk {
    /// Goes on with what is asked. Whether there is more to do in the next turn.
    pub(super) fn turn(&mut self, shard: &mut Shard, now: Now) -> bool {
        let (mut look, then, answer) = match self.current.take() {
            Some(current) => current,
            None => match self.requests.try_recv() {
                Ok(Request::Look(looking)) => looking,
                Ok(Request::Configure(config, verifier, done)) => {
                    shard.handle_config(*config, *verifier);
                    // Who told it may have given up.
                    let _ = done.try_send(());
                    return true;
                }
                Err(_) => return false,
            },
        };
        match shard.look(now, &mut look) {
            Some(found) => {
                if let Then::Kick(text) = &then {
                    for view in &found.sessions {
                        shard.handle_operator_kick(now, view.session, view.fence, text);
                    }
                }
                // Who asked may have gone.
                let _ = answer.send(found);
            }
            None => self.current = Some((look, then, answer)),
        }
        true
    }
}

/// The operator's end of a running gateway.
#[derive(Clone, Debug)]
pub struct Operator {
    pub(super) shards: Vec<Ask>,
    pub(super) stop: Arc<Stop>,
}

impl Operator {
    /// The sessions of an account, or the one of an id: one, or none. Two for a moment, while one
    /// of them ends.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn find(&self, wanted: &Wanted) -> Result<Vec<SessionView>, Busy> {
        let found = self.ask_all(|| {
            let look = Look::new(wanted.clone(), SAME_MAX, 0);
            (look, Then::Show)
        });
        let found = found.await?;
        Ok(found.into_iter().flat_map(|it| it.sessions).collect())
    }

    /// Up to `limit` sessions from a cursor on, and where the next ones begin, if there are more.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn page(
        &self,
        from: Cursor,
        limit: usize,
    ) -> Result<(Vec<SessionView>, Option<Cursor>), Busy> {
        let mut sessions = Vec::new();
        let mut place = from.place;
        for (shard, ask) in self.shards.iter().enumerate().skip(from.shard) {
            let left = limit - sessions.len();
            let look = Look::new(Wanted::Any, left, std::mem::take(&mut place));
            let answered = Self::ask(ask, look, Then::Show)?;
            self.wake();
            let found = wait(answered).await?;
            sessions.extend(found.sessions);
            if let Some(place) = found.next {
                return Ok((sessions, Some(Cursor { shard, place })));
            }
        }
        Ok((sessions, None))
    }

    /// The `limit` busiest sessions, the busiest first.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn top(&self, rank: Rank, limit: usize) -> Result<Vec<SessionView>, Busy> {
        let found = self.ask_all(|| (Look::busiest(rank, limit), Then::Show));
        let mut all: Vec<_> = found
            .await?
            .into_iter()
            .flat_map(|it| it.sessions)
            .collect();
        all.sort_by_key(|view| std::cmp::Reverse(view.key(rank)));
        all.truncate(limit);
        Ok(all)
    }

    /// Ends the sessions of an account, or the one of an id, connected or not; `text` is for the
    /// player. Which they were.
    ///
    /// # Errors
    /// `Busy`: some may have ended.
    pub async fn kick(&self, whom: &Wanted, text: &str) -> Result<Vec<SessionId>, Busy> {
        let found = self.ask_all(|| {
            let look = Look::new(whom.clone(), SAME_MAX, 0);
            (look, Then::Kick(text.into()))
        });
        let sessions = found.await?.into_iter().flat_map(|it| it.sessions);
        Ok(sessions.map(|view| view.session).collect())
    }

    async fn ask_all(
        &self,
        mut question: impl FnMut() -> (Look, Then),
    ) -> Result<Vec<Found>, Busy> {
        let mut answers = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (look, then) = question();
            answers.push(Self::ask(shard, look, then)?);
        }
        self.wake();
        let mut found = Vec::with_capacity(answers.len());
        for answered in answers {
            found.push(wait(answered).await?);
        }
        Ok(found)
    }

    fn ask(shard: &Ask, look: Look, then: Then) -> Result<oneshot::Receiver<Found>, Busy> {
        let (answer, answered) = oneshot::channel();
        let sent = shard.0.try_send(Request::Look((look, then, answer)));
        sent.map(|()| answered).map_err(|_| Busy)
    }

    /// Lets every shard take over what can change of a configuration and who may sign tokens.
    /// It is in force everywhere when this returns, which blocks until then.
    ///
    /// # Errors
    /// See [`ConfigureError`].
    pub fn configure(
        &self,
        config: &ShardConfig,
        audience: &str,
        token_keys: &[[u8; 32]],
    ) -> Result<(), ConfigureError> {
        let verifiers = self
            .shards
            .iter()
            .map(|_| Verifier::new(audience.to_owned(), token_keys))
            .collect::<Option<Vec<_>>>()
            .ok_or(ConfigureError::TokenKey)?;
        let (done, all_done) = sync_channel(self.shards.len());
        for (shard, verifier) in self.shards.iter().zip(verifiers) {
            let config = Box::new(config.clone());
            let request = Request::Configure(config, Box::new(verifier), done.clone());
            let sent = shard.0.try_send(request);
            sent.map_err(|_| ConfigureError::Busy)?;
        }
        self.wake();
        let until = Instant::now() + PATIENCE;
        for _ in &self.shards {
            let left = until.saturating_duration_since(Instant::now());
            let answered = all_done.recv_timeout(left);
            answered.map_err(|_| ConfigureError::Busy)?;
        }
        Ok(())
    }

    fn wake(&self) {
        for wake in &self.stop.wake {
            wake.notify_one();
        }
    }
}

async fn wait(answered: oneshot::Receiver<Found>) -> Result<Found, Busy> {
    let answer = tokio::time::timeout(PATIENCE, answered).await;
    answer.map_err(|_| Busy)?.map_err(|_| Busy)
}
