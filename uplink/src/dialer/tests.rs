//! Pauses and error texts; attempts are tested over real sockets in `tests/it`.

use super::*;

fn dialer(seed: u64) -> Dialer {
    let target = DialTarget {
        address: "127.0.0.1:1".parse().unwrap(),
        key: Identity::from_seed([2; 32]).public_key(),
    };
    let endpoint = crate::client_endpoint().unwrap();
    Dialer::new(endpoint, &Identity::from_seed([1; 32]), target, seed)
}

#[tokio::test]
async fn pauses_double_up_to_the_bound_and_differ_by_seed() {
    let (mut a, mut b) = (dialer(1), dialer(2));
    let mut full = BACKOFF_MIN;
    let mut differ = false;
    for _ in 0..10 {
        let pause = a.rest();
        assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        differ |= pause != b.rest();
        full = (full * 2).min(BACKOFF_MAX);
    }
    assert!(differ);
    assert_eq!(a.backoff, BACKOFF_MAX);
}

#[tokio::test]
async fn a_link_that_dies_young_does_not_shorten_the_pause() {
    let mut dialer = dialer(3);
    dialer.backoff = BACKOFF_MAX;
    dialer.state = State::Up {
        since: Instant::now(),
    };
    dialer.lost();
    assert_eq!(dialer.backoff, BACKOFF_MAX);
    dialer.state = State::Up {
        since: Instant::now() - PROVEN_AFTER,
    };
    dialer.lost();
    assert_eq!(dialer.backoff, BACKOFF_MIN * 2);
}

#[tokio::test]
async fn texts_say_what_to_do() {
    let dialer = dialer(4);
    let text = |error| dialer.classify(error).to_string();
    let no_answer = text(AttemptError::Deadline);
    assert!(no_answer.contains("127.0.0.1:1") && no_answer.contains("is it running"));
    let error = DialError::KeyNotAccepted {
        address: dialer.target.address,
        ours: dialer.ours,
    };
    assert!(error.to_string().contains(&format!("add {}", dialer.ours)));
}
