//! What operators ask and tell the shards, from other threads and back.
//!
//! Owns the queue of each shard. Invariant: a request costs a shard a bounded part of a turn, and
//! so many wait at most; who asks more is told to come again.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use protocol::token::Verifier;
use tokio::sync::{mpsc, oneshot};

use super::Stop;
use crate::shard::look::{Look, SessionView};
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

/// A request to one shard.
#[derive(Debug)]
enum Request {
    Look(Look, oneshot::Sender<Option<SessionView>>),
    Configure(Box<ShardConfig>, Box<Verifier>, SyncSender<()>),
}

/// A shard's end.
#[derive(Debug)]
pub(super) struct Desk {
    requests: mpsc::Receiver<Request>,
    /// The look that is under way.
    current: Option<(Look, oneshot::Sender<Option<SessionView>>)>,
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
    pub(super) fn turn(&mut self, shard: &mut Shard) -> bool {
        let (mut look, answer) = match self.current.take() {
            Some(current) => current,
            None => match self.requests.try_recv() {
                Ok(Request::Look(look, answer)) => (look, answer),
                Ok(Request::Configure(config, verifier, done)) => {
                    shard.handle_config(*config, *verifier);
                    // Who told it may have given up.
                    let _ = done.try_send(());
                    return true;
                }
                Err(_) => return false,
            },
        };
        match shard.look(&mut look) {
            // Who asked may have gone.
            Some(view) => drop(answer.send(view)),
            None => self.current = Some((look, answer)),
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
    /// The sessions of this account: one, or none. Two for a moment, while one of them ends.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn find(&self, account: &str) -> Result<Vec<SessionView>, Busy> {
        let mut answers = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (answer, answered) = oneshot::channel();
            let request = Request::Look(Look::new(account.into()), answer);
            shard.0.try_send(request).map_err(|_| Busy)?;
            answers.push(answered);
        }
        self.wake();
        let mut found = Vec::new();
        for answered in answers {
            let answer = tokio::time::timeout(PATIENCE, answered).await;
            found.extend(answer.map_err(|_| Busy)?.map_err(|_| Busy)?);
        }
        Ok(found)
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
