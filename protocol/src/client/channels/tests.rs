//! What a member takes, in which order, and when it asks.

use super::*;
use crate::body::Lane;
use crate::ids::MessageId;

const GROUP: GroupId = GroupId(1);
const CHANNEL: ChannelId = ChannelId(4);

fn header(lane: Lane, number: u32) -> ChannelHeader {
    ChannelHeader {
        lane,
        group: GROUP,
        number,
        channel: CHANNEL,
        message: MessageId(1),
    }
}

fn member(next: u32) -> Channels {
    Channels(vec![Membership {
        group: GROUP,
        channel: CHANNEL,
        incarnation: Incarnation(1),
        joined: true,
        next,
        end: next,
        ask: false,
        asked: false,
        sequenced_seen: 0,
        keys: [None, None],
    }])
}

fn asks(channels: &mut Channels) -> Option<u32> {
    match channels.poll()? {
        Body::Channel {
            notice: ChannelNotice::CatchUp { next },
            ..
        } => Some(next),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gap_is_asked_for_once_and_filled_in_order() {
    let mut channels = member(3);
    let reliable = |number| header(Lane::Reliable, number);
    assert!(channels.take(&reliable(3), Age::Fresh));
    assert!(!channels.take(&reliable(3), Age::Fresh), "once");
    assert!(
        !channels.take(&reliable(6), Age::Fresh),
        "4 and 5 are missing"
    );
    assert!(!channels.take(&reliable(7), Age::Fresh));
    assert_eq!(asks(&mut channels), Some(4));
    assert_eq!(asks(&mut channels), None);
    for number in 4..8 {
        assert!(
            channels.take(&reliable(number), Age::Old),
            "late is not lost"
        );
    }
    assert_eq!(asks(&mut channels), None);
}

#[test]
fn a_sequenced_message_is_taken_only_when_it_is_newer() {
    let mut channels = member(1);
    let mut take = |number| channels.take(&header(Lane::Sequenced, number), Age::Fresh);
    assert!(take(1) && take(5));
    assert!(!take(5) && !take(4));
    assert!(take(6));
    assert!(channels.take(&header(Lane::Unreliable, 0), Age::Fresh));
    assert!(!channels.take(&header(Lane::Unreliable, 0), Age::Old));
}

#[test]
fn nothing_is_taken_from_a_channel_that_this_connection_has_not_named() {
    let mut channels = member(1);
    channels.close();
    assert!(!channels.take(&header(Lane::Reliable, 1), Age::Fresh));
    assert_eq!(asks(&mut channels), None);
    let mut none = Channels::default();
    assert!(!none.take(&header(Lane::Reliable, 1), Age::Fresh));
}
