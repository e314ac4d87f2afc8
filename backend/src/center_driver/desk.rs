//! What operators ask of a running center, from other threads and back: bans, and how many
//! may be online.
//!
//! Owns the queue and who waits for the disk. Invariant: so many requests wait at most, and one
//! that changes something is answered well only when it is on disk.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::time::Now;
use tokio::sync::{mpsc, oneshot};

use crate::center::{Ban, BanError, BanKey, Center, DoorSettings};

/// Requests that wait: those of some people and scripts at once.
const WAITING_MAX: usize = 32;

/// Longest wait for an answer; the disk takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// A request was not fulfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// Too many ask, or the disk takes too long.
    #[error("center is busy: ask again")]
    Busy,
    /// Center did not take it.
    #[error(transparent)]
    Refused(#[from] BanError),
    /// There is no such ban.
    #[error("there is no such ban")]
    Unknown,
    /// It is in force and not on disk.
    #[error("it is in force, but the journal cannot be written: a restart would forget it")]
    NotWritten,
}

type Answer<T> = oneshot::Sender<T>;

#[derive(Debug)]
enum Request {
    Ban(BanKey, Ban, Answer<Result<(), DeskError>>),
    Unban(BanKey, Answer<Result<(), DeskError>>),
    List(Answer<Vec<(BanKey, Ban)>>),
    Door(DoorSettings, SyncSender<()>),
}

/// How operators ask; any number of copies.
#[derive(Debug, Clone)]
pub struct Desk(mpsc::Sender<Request>);

/// Center's end.
#[derive(Debug)]
pub struct DeskEnd {
    requests: mpsc::Receiver<Request>,
    /// Who waits for which batch, in their order.
    answers: VecDeque<(u64, Answer<Result<(), DeskError>>)>,
}

/// Both ends.
pub fn desk() -> (Desk, DeskEnd) {
    let (ask, requests) = mpsc::channel(WAITING_MAX);
    let end = DeskEnd {
        requests,
        answers: VecDeque::new(),
    };
    (Desk(ask), end)
}

impl Desk {
    /// Bans somebody; see [`Center::handle_ban`].
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn ban(&self, key: BanKey, ban: Ban) -> Result<(), DeskError> {
        self.ask(|answer| Request::Ban(key, ban, answer)).await?
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn unban(&self, key: BanKey) -> Result<(), DeskError> {
        self.ask(|answer| Request::Unban(key, answer)).await?
    }

    /// The bans in force.
    ///
    /// # Errors
    /// `Busy`.
    pub async fn bans(&self) -> Result<Vec<(BanKey, Ban)>, DeskError> {
        self.ask(Request::List).await
    }

    /// Sets the door anew; it is in force when this returns, which blocks until then.
    ///
    /// # Errors
    /// `Busy`.
    pub fn set_door(&self, door: DoorSettings) -> Result<(), DeskError> {
        let (answer, answered) = sync_channel(1);
        let sent = self.0.try_send(Request::Door(door, answer));
        sent.map_err(|_| DeskError::Busy)?;
        answered.recv_timeout(PATIENCE).map_err(|_| DeskError::Busy)
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, DeskError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.try_send(request(answer));
        sent.map_err(|_| DeskError::Busy)?;
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        answered
            .map_err(|_| DeskError::Busy)?
            .map_err(|_| DeskError::Busy)
    }
}

impl DeskEnd {
    /// Hands over what was asked. Nobody minds an answer to somebody who has gone.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Now, center: &mut Center) {
        while self.answers.len() < WAITING_MAX
            && let Poll::Ready(Some(request)) = self.requests.poll_recv(cx)
        {
            match request {
                Request::Ban(key, ban, answer) => match center.handle_ban(now, key, ban) {
                    Ok(batch) => self.wait(batch, answer, center),
                    Err(error) => drop(answer.send(Err(error.into()))),
                },
                Request::Unban(key, answer) => match center.handle_unban(&key) {
                    Some(batch) => self.wait(batch, answer, center),
                    None => drop(answer.send(Err(DeskError::Unknown))),
                },
                Request::Door(door, answer) => {
                    center.handle_door(now, door);
                    let _ = answer.try_send(());
                }
                Request::List(answer) => {
                    let bans = center.bans(now);
                    drop(answer.send(bans.map(|(key, ban)| (key.clone(), ban.clone())).collect()));
                }
            }
        }
    }

    fn wait(&mut self, batch: u64, answer: Answer<Result<(), DeskError>>, center: &Center) {
        if center.counts().degraded {
            let _ = answer.send(Err(DeskError::NotWritten));
        } else {
            self.answers.push_back((batch, answer));
        }
    }

    /// A batch is on disk, or could not be written.
    pub(super) fn batch_done(&mut self, batch: u64, is_durable: bool) {
        while self
            .answers
            .front()
            .is_some_and(|(number, _)| *number <= batch)
            && let Some((_, answer)) = self.answers.pop_front()
        {
            let outcome = is_durable.then_some(()).ok_or(DeskError::NotWritten);
            let _ = answer.send(outcome);
        }
    }
}
