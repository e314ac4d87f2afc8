//! The books of one client: a ledger for each lane that it sends on, and the turns that have come.
//!
//! Decides which sends may stay without an answer. Judges no content. Every scenario but `mixed`
//! sends on one lane, whichever it is, and has one book.
//!
//! Invariant: a send is expected to be answered until its book excuses it, and never again after.

use protocol::body::Lane;

use crate::ledger::Ledger;

/// The sends of a client on one lane.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) ledger: Ledger,
    /// Turns that have come.
    pub(super) due: u32,
    /// Sends before this one may stay without an answer.
    excused: u32,
}

impl Book {
    /// Turns that have come and are not sent.
    pub(super) fn waiting(&self) -> u32 {
        self.due - self.ledger.sent()
    }

    /// Whether the send of this number has to be answered.
    pub(super) fn expects(&self, number: u32) -> bool {
        number >= self.excused
    }

    /// Sends without an answer: those that had to have one, and the others.
    pub(super) fn missing(&self) -> (u64, u64) {
        let excused = self.ledger.missing_before(self.excused);
        (self.ledger.missing() - excused, excused)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Of the lane of the run; in `mixed`, of the reliable one.
    pub(super) main: Book,
    /// In `mixed`: of the sequenced and of the unreliable lane.
    lossy: Option<Box<[Book; 2]>>,
}

impl Books {
    /// Those of a client of `mixed`. Over datagrams nothing but the reliable lane promises answers.
    pub(super) fn mixed(over_datagrams: bool) -> Self {
        let book = || Book {
            excused: if over_datagrams { u32::MAX } else { 0 },
            ..Book::default()
        };
        Self {
            main: Book::default(),
            lossy: Some(Box::new([book(), book()])),
        }
    }

    /// The one of a lane.
    pub(super) fn of(&mut self, lane: Lane) -> &mut Book {
        match (&mut self.lossy, lane) {
            (Some(lossy), Lane::Sequenced) => &mut lossy[0],
            (Some(lossy), Lane::Unreliable) => &mut lossy[1],
            _ => &mut self.main,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Book> {
        let lossy = self.lossy.iter().flat_map(|lossy| lossy.iter());
        std::iter::once(&self.main).chain(lossy)
    }

    /// Sends on all lanes.
    pub(super) fn sent(&self) -> u32 {
        self.all().map(|book| book.ledger.sent()).sum()
    }

    /// Turns that have come, on all lanes.
    pub(super) fn due(&self) -> u32 {
        self.all().map(|book| book.due).sum()
    }

    /// See [`Book::missing`]; of all lanes.
    pub(super) fn missing(&self) -> (u64, u64) {
        self.all().map(Book::missing).fold((0, 0), |sum, one| {
            let (expected, excused) = one;
            (sum.0 + expected, sum.1 + excused)
        })
    }

    /// The connection is over: what is under way beside the reliable lane may be lost with it.
    /// Returns how many sends were expected to be answered so far.
    pub(super) fn excuse_lossy(&mut self) -> u64 {
        let lossy = self.lossy.iter_mut().flat_map(|lossy| lossy.iter_mut());
        lossy
            .map(|book| {
                let (expected, _) = book.missing();
                book.excused = book.excused.max(book.ledger.sent());
                expected
            })
            .sum()
    }
}

#[cfg(test)]
mod tests;
