//! What is expected, what is excused, and that nothing is counted twice.

use protocol::body::Lane;

use super::Books;
use crate::ledger::Reply;

fn send(books: &mut Books, lane: Lane, count: u32) {
    let book = books.of(lane);
    book.due += count;
    for _ in 0..count {
        book.ledger.send();
    }
}

#[test]
fn a_client_of_another_scenario_has_one_book_for_whatever_lane() {
    let mut books = Books::default();
    for lane in [Lane::Reliable, Lane::Sequenced, Lane::Unreliable] {
        send(&mut books, lane, 1);
    }
    assert_eq!(books.main.ledger.sent(), 3);
    assert_eq!(books.excuse_lossy(), 0);
    assert_eq!(books.missing(), (3, 0));
}

#[test]
fn what_was_under_way_at_a_cut_is_excused_once_and_what_follows_is_not() {
    let mut books = Books::mixed(false);
    send(&mut books, Lane::Reliable, 2);
    send(&mut books, Lane::Sequenced, 3);
    send(&mut books, Lane::Unreliable, 1);
    assert_eq!(
        books.of(Lane::Sequenced).ledger.handle_reply(1),
        Reply::InOrder
    );
    assert_eq!(books.missing(), (5, 0));
    assert_eq!(books.excuse_lossy(), 3);
    assert_eq!(books.excuse_lossy(), 0);
    assert_eq!(books.missing(), (2, 3));
    // One of them comes after all; it was not waited for.
    let book = books.of(Lane::Sequenced);
    assert!(!book.expects(2) && book.expects(3));
    assert_eq!(book.ledger.handle_reply(2), Reply::InOrder);
    send(&mut books, Lane::Sequenced, 1);
    assert_eq!(books.missing(), (3, 2));
    assert_eq!((books.sent(), books.due()), (7, 7));
}

#[test]
fn over_datagrams_only_the_reliable_lane_promises_answers() {
    let mut books = Books::mixed(true);
    for lane in [Lane::Reliable, Lane::Sequenced, Lane::Unreliable] {
        send(&mut books, lane, 2);
    }
    assert_eq!(books.missing(), (2, 4));
    assert_eq!(books.excuse_lossy(), 0);
    assert_eq!(books.missing(), (2, 4));
}
