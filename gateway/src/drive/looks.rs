//! Questions about sessions, from other threads to the shards and back.
//!
//! Owns the queue of each shard. Invariant: a question costs a shard a bounded part of a
//! turn, and so many wait at most; who asks more is told to come again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Stop;
use crate::shard::Shard;
use crate::shard::look::{Look, SessionView};

/// Questions that wait for a shard: those of a few people at once.
const WAITING_MAX: usize = 8;

/// Longest wait for a shard's answer, which takes it some turns.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody answered in time, or too many ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shards are busy: ask again")]
pub struct Busy;

/// A question to one shard.
#[derive(Debug)]
struct Question {
    account: Box<str>,
    answer: oneshot::Sender<Option<SessionView>>,
}

/// A shard's end.
#[derive(Debug)]
pub(super) struct Looks {
    questions: mpsc::Receiver<Question>,
    /// The one that is looked into.
    current: Option<(Look, oneshot::Sender<Option<SessionView>>)>,
}

/// How one shard is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask(mpsc::Sender<Question>);

pub(super) fn channel() -> (Ask, Looks) {
    let (ask, questions) = mpsc::channel(WAITING_MAX);
    let looks = Looks {
        questions,
        current: None,
    };
    (Ask(ask), looks)
}

impl Looks {
    /// Goes on with what is asked. Whether there is more to do in the next turn.
    pub(super) fn turn(&mut self, shard: &Shard) -> bool {
        let (mut look, answer) = match self.current.take() {
            Some(current) => current,
            None => match self.questions.try_recv() {
                Ok(question) => (Look::new(question.account), question.answer),
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

/// Finds sessions of a running gateway.
#[derive(Clone, Debug)]
pub struct Finder {
    pub(super) shards: Vec<Ask>,
    pub(super) stop: Arc<Stop>,
}

impl Finder {
    /// The sessions of this account: one, or none. Two for a moment, while one of them ends.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn find(&self, account: &str) -> Result<Vec<SessionView>, Busy> {
        let mut answers = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (answer, answered) = oneshot::channel();
            let account = account.into();
            shard
                .0
                .try_send(Question { account, answer })
                .map_err(|_| Busy)?;
            answers.push(answered);
        }
        for wake in &self.stop.wake {
            wake.notify_one();
        }
        let mut found = Vec::new();
        for answered in answers {
            let answer = tokio::time::timeout(PATIENCE, answered).await;
            found.extend(answer.map_err(|_| Busy)?.map_err(|_| Busy)?);
        }
        Ok(found)
    }
}
