use super::*;

#[test]
fn each_is_due_once_at_the_earliest_time_that_was_set() {
    let mut timers = Timers::new(2);
    timers.set(0, Time(30));
    timers.set(1, Time(20));
    // Later than what is set: it is looked at then, and says so again.
    timers.set(1, Time(25));
    timers.set(0, Time(10));
    assert_eq!(timers.poll_timeout(), Some(Time(10)));
    assert_eq!(timers.poll_due(Time(9)), None);
    assert_eq!(timers.poll_due(Time(10)), Some(0));
    timers.set(0, Time(40));
    assert_eq!(timers.poll_due(Time(35)), Some(1));
    // What was set for 30 was replaced by 10.
    assert_eq!(timers.poll_due(Time(35)), None);
    assert_eq!(timers.poll_due(Time(40)), Some(0));
    assert_eq!(timers.poll_due(Time(1_000)), None);
    assert_eq!(timers.poll_timeout(), None);
}
