//! All that can go wrong, in one enum, with whose fault it was.

use std::io;
use std::sync::Arc;

use protocol::client::{Closed, SendError};
use protocol::reason::{self, CloseReason};

/// Whose fault an error was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of this program, or of who gave it its key and its tokens.
    Program,
    /// Of nobody: the network, the operator, the life of a session.
    Nobody,
    /// Of the gateway or a backend.
    Server,
}

/// Why something was refused or is over.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The configuration can not be used.
    #[error("{0}")]
    Config(&'static str),
    /// A message or a request was not taken; nothing of it was sent.
    #[error("not taken: {0}")]
    NotTaken(#[from] SendError),
    /// [`REQUESTS_MAX`](crate::REQUESTS_MAX) requests wait for their replies.
    #[error("too many requests wait for their replies")]
    TooManyRequests,
    /// No reply came in time. The request may have been processed.
    #[error("no reply came in time")]
    NoReply,
    /// The backend refused a request.
    #[error("the backend refused it with {code}: {text}")]
    Refused {
        /// The game's own.
        code: u16,
        /// For people.
        text: String,
    },
    /// The session ended before the reply came, or the client was dropped.
    #[error("the session has ended")]
    SessionLost,
    /// No token could be had.
    #[error("no token to log in with: {0}")]
    Token(Arc<dyn std::error::Error + Send + Sync>),
    /// The token source did not answer in time.
    #[error("no token to log in with in time")]
    TokenTimeout,
    /// No connection came about, or it was lost.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// No connection came about in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The answer to the request for a WebSocket had this status; 0: it was none.
    #[error("no WebSocket here: the status of the answer is {0}")]
    NoWebSocket(u16),
    /// The gateway closed, for this reason; `None` is one that this version does not know.
    #[error("the gateway closed: {}", closed_text(.0))]
    ByGateway(Option<CloseReason>),
    /// The handshake failed, or this client closed.
    #[error("{}", own_text(*.0))]
    ByClient(CloseReason),
    /// So many attempts were in vain.
    #[error("gave up after {attempts} attempts, the last one: {last}")]
    GaveUp {
        /// How many.
        attempts: u32,
        /// What went wrong with the last one.
        last: Box<Error>,
    },
    /// `logout` was called.
    #[error("logged out")]
    LoggedOut,
    /// `logout` was called while there was no connection, or the gateway did not answer: the
    /// session ends by itself when its time has passed.
    #[error("left without the gateway's word")]
    LeftAlone,
}

fn closed_text(reason: &Option<CloseReason>) -> &'static str {
    reason.map_or("a reason of a later version", CloseReason::text)
}

fn own_text(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::BadHandshake => {
            "the handshake failed: is it the key of this gateway, and is this a gateway?"
        }
        CloseReason::PeerClosed => "the gateway ended the connection without a word",
        CloseReason::LoginTimeout => "the gateway did not let this client in in time",
        reason => reason.text(),
    }
}

impl Error {
    pub(crate) fn of(closed: Closed) -> Self {
        match closed {
            Closed::ByGateway(Some(CloseReason::LoggedOut)) => Self::LoggedOut,
            Closed::ByGateway(reason) => Self::ByGateway(reason),
            Closed::ByClient(reason) => Self::ByClient(reason),
        }
    }

    pub(crate) fn io(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }

    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config(_) | Self::Token(_) | Self::TokenTimeout | Self::TooManyRequests => {
                Fault::Program
            }
            Self::NotTaken(SendError::TooLarge | SendError::TooManyGroups) => Fault::Program,
            Self::NotTaken(_) | Self::SessionLost | Self::LoggedOut | Self::LeftAlone => {
                Fault::Nobody
            }
            Self::Io(_) | Self::ConnectTimeout | Self::NoReply => Fault::Nobody,
            Self::Refused { .. } | Self::NoWebSocket(_) | Self::ByGateway(None) => Fault::Server,
            // A reason's fault is told as the gateway sees it.
            Self::ByGateway(Some(reason)) => match reason.fault() {
                reason::Fault::Peer => Fault::Program,
                reason::Fault::Nobody => Fault::Nobody,
                reason::Fault::Ours => Fault::Server,
            },
            Self::ByClient(CloseReason::BadHandshake | CloseReason::BadVersion) => Fault::Program,
            Self::ByClient(CloseReason::LoginTimeout) => Fault::Nobody,
            Self::ByClient(reason) => match reason.fault() {
                reason::Fault::Nobody => Fault::Nobody,
                reason::Fault::Peer | reason::Fault::Ours => Fault::Server,
            },
            Self::GaveUp { last, .. } => last.fault(),
        }
    }
}
