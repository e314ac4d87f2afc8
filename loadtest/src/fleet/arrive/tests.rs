use protocol::time::Time;

use super::{Arrival, overtaken};

/// Set out, told that it waits, in; seconds.
fn arrival(set_out: u64, queued: u64, entered: u64) -> Arrival {
    let at = |seconds: u64| Some(Time(seconds * 1_000_000));
    Arrival {
        set_out: at(set_out),
        queued: at(queued),
        entered: at(entered),
        ..Arrival::default()
    }
}

#[test]
fn who_waited_before_another_set_out_must_not_get_in_long_after_it() {
    let first = arrival(0, 1, 10);
    for (set_out, entered, count) in [
        (2, 11, 0),
        // Together, as far as anybody can tell.
        (2, 8, 0),
        (2, 7, 1),
        // It was on its way when the other was told.
        (1, 7, 0),
    ] {
        let second = arrival(set_out, set_out + 1, entered);
        let arrivals = [&first, &second];
        assert_eq!(overtaken(&arrivals), count, "{set_out} {entered}");
    }
    let never_in = Arrival {
        entered: None,
        ..arrival(0, 1, 0)
    };
    assert_eq!(overtaken(&[&never_in, &arrival(2, 3, 4)]), 0);
}

#[test]
fn who_is_away_may_be_passed_and_who_is_back_may_not() {
    let back_at = |seconds: u64| Arrival {
        is_cut: true,
        back: Some(Time(seconds * 1_000_000)),
        ..arrival(0, 1, 20)
    };
    let passing = arrival(2, 3, 10);
    assert_eq!(overtaken(&[&back_at(11), &passing]), 0);
    assert_eq!(overtaken(&[&back_at(9), &passing]), 1);
}
