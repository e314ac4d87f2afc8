//! The tickets of a client: which one to come back with.
//!
//! Owns no connection and no key. Invariant: as long as one of the tickets that it keeps is good,
//! a client that tries them in turn finds it.

use crate::ticket::Ticket;

/// With what a client can come back. A ticket is used up when the gateway has
/// seen the first sealed frame of the connection that it opened, and that
/// connection has brought the next. A client whose connection broke in between
/// does not know which of the two is good, so it keeps both.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    newest: Option<Ticket>,
    /// The one that opened the connection which brought `newest`.
    used: Option<Ticket>,
    /// The gateway did not know `newest`.
    is_newest_refused: bool,
}

impl Tickets {
    /// The one to try.
    pub(super) fn next(&self) -> Option<&Ticket> {
        if self.is_newest_refused {
            self.used.as_ref()
        } else {
            self.newest.as_ref()
        }
    }

    /// A connection stands that the next one opened, if any, and brought this.
    pub(super) fn renew(&mut self, ticket: Ticket) {
        *self = Self {
            used: self.next().cloned(),
            newest: Some(ticket),
            is_newest_refused: false,
        };
    }

    /// The next one is not known to the gateway.
    pub(super) fn refuse(&mut self) {
        if self.is_newest_refused {
            self.used = None;
        }
        self.is_newest_refused = true;
    }
}
