//! How the five streams of a link begin.
//!
//! The gateway opens them and writes one byte on each, its index. When the
//! backend has seen all five it writes one byte, 0, on the control stream, and
//! only then either side has a link. The answer is needed because in TLS 1.3 a
//! client is done before the server has looked at the client's key: without it
//! a gateway whose key is refused would believe the link up for a moment.
//!
//! Owns these bytes; it has no deadline, its callers have.

use std::future::Future as _;
use std::pin::pin;
use std::task::Poll;

use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, WriteError};

use crate::link::{STREAMS, StreamIndex};

/// The backend's answer on the control stream.
const ANSWER: u8 = 0;

/// Both halves of each stream, by index.
pub(crate) type Streams = [(SendStream, RecvStream); STREAMS];

/// Why the streams did not come to be.
#[derive(Debug)]
pub(crate) enum GreetingError {
    /// The connection is gone.
    Connection(ConnectionError),
    /// The peer does not follow the rules above.
    Rule(&'static str),
}

impl From<ConnectionError> for GreetingError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl From<WriteError> for GreetingError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::Rule("the peer stopped a stream during the greeting"),
        }
    }
}

impl From<ReadExactError> for GreetingError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => {
                Self::Connection(error)
            }
            _ => Self::Rule("the peer ended a stream during the greeting"),
        }
    }
}

/// The gateway's part.
pub(crate) async fn offer(connection: &Connection) -> Result<Streams, GreetingError> {
    let mut streams = Vec::with_capacity(STREAMS);
    for index in 0..STREAMS as u8 {
        let (mut send, receive) = open_now(connection).await?;
        send.write_all(&[index]).await?;
        streams.push((send, receive));
    }
    let mut streams = by_array(streams)?;
    let mut answer = [0xFF];
    streams[0].1.read_exact(&mut answer).await?;
    match answer {
        [ANSWER] => Ok(streams),
        _ => Err(GreetingError::Rule(
            "the backend answered the greeting wrongly",
        )),
    }
}

/// Opens a stream if the peer allows it; a peer that allows fewer than five at
/// once will not allow them later.
async fn open_now(connection: &Connection) -> Result<(SendStream, RecvStream), GreetingError> {
    let mut opening = pin!(connection.open_bi());
    std::future::poll_fn(|cx| {
        Poll::Ready(match opening.as_mut().poll(cx) {
            Poll::Ready(opened) => opened.map_err(GreetingError::from),
            Poll::Pending => Err(GreetingError::Rule("the backend allows too few streams")),
        })
    })
    .await
}

/// The backend's part.
pub(crate) async fn answer(connection: &Connection) -> Result<Streams, GreetingError> {
    let mut streams: [Option<(SendStream, RecvStream)>; STREAMS] = Default::default();
    for _ in 0..STREAMS {
        let (send, mut receive) = connection.accept_bi().await?;
        let mut index = [0xFF];
        receive.read_exact(&mut index).await?;
        let slot = StreamIndex::from_byte(index[0])
            .map(|stream| &mut streams[stream.position()])
            .filter(|slot| slot.is_none())
            .ok_or(GreetingError::Rule("a stream with a wrong index"))?;
        *slot = Some((send, receive));
    }
    let mut streams = by_array(streams.into_iter().flatten().collect())?;
    streams[0].0.write_all(&[ANSWER]).await?;
    Ok(streams)
}

fn by_array(streams: Vec<(SendStream, RecvStream)>) -> Result<Streams, GreetingError> {
    Streams::try_from(streams).map_err(|_| GreetingError::Rule("streams are missing"))
}
