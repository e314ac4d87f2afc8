//! Who gets what, under which key, and in which turn.

use protocol::body::ChannelHeader;
use protocol::client::Client;
use protocol::frame::{FLAG_CHANNEL, Header};
use protocol::ids::MessageId;
use protocol::uplink::{self, Record};

use protocol::reason::CloseReason;

use super::*;
use crate::engine::SendBuffer;
use crate::shard::ShardConfig;
use crate::shard::tests::world::World;
use crate::testing::{self, GAME, GROUP};

const ROOM: ChannelId = ChannelId(9);

/// Room for more members than a turn serves.
fn config() -> ShardConfig {
    testing::shard_config(2 * fan_out::MEMBERS_PER_TURN)
}

struct Room {
    world: World,
    next: u32,
}

impl Room {
    fn new(config: ShardConfig) -> Self {
        Self::of(World::new(config))
    }

    fn of(world: World) -> Self {
        Self { world, next: 1 }
    }

    fn record(&mut self, id: SessionId, record: &Record<'_>) {
        let mut run = Vec::new();
        uplink::encode(id, record, &mut run);
        let World { shard, now, .. } = &mut self.world;
        shard.handle_uplink_records(*now, GAME, &run);
    }

    fn member(&mut self, index: u32) -> (ConnId, Client) {
        let (conn, client) = self.world.login(index);
        self.join(client.session().expect("logged in"), ROOM);
        (conn, client)
    }

    fn join(&mut self, id: SessionId, channel: ChannelId) {
        let (incarnation, next) = (Incarnation(1), self.next);
        let join = Record::Join {
            channel,
            incarnation,
            next,
        };
        self.record(id, &join);
    }

    fn publish_as(&mut self, channel: ChannelId, lane: Lane, filter: Filter, payload: &[u8]) {
        let number = if lane == Lane::Reliable { self.next } else { 0 };
        self.next += u32::from(lane == Lane::Reliable);
        let header = ChannelHeader {
            lane,
            group: GROUP,
            number,
            channel,
            message: MessageId(1),
        };
        let mut body = Vec::new();
        Body::ChannelMessage { header, payload }.encode(&mut body);
        let body = &body;
        self.record(filter.except, &Record::Publish { filter, body });
    }

    fn publish(&mut self, payload: &[u8]) {
        self.publish_as(ROOM, Lane::Reliable, Filter::ALL, payload);
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.world.shard.counters().drops(reason)
    }
}

/// The frames for channels in some bytes that were sent.
fn shared_frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some(header) = Header::decode(bytes) {
        let (frame, rest) = bytes.split_at(header.length as usize);
        if header.flags & FLAG_CHANNEL != 0 {
            found.push(frame.to_vec());
        }
        bytes = rest;
    }
    found
}

#[test]
fn members_get_the_same_bytes_and_who_has_left_cannot_open_later_ones() {
    let mut room = Room::new(config());
    let (ann_at, mut ann) = room.member(0);
    let (bob_at, mut bob) = room.member(1);
    room.world.exchange(ann_at, &mut ann);
    room.world.exchange(bob_at, &mut bob);
    room.publish(b"to both");
    room.world.collect();
    let sent = |room: &Room, conn: ConnId| -> Vec<Vec<u8>> {
        let all = room.world.sent.iter().filter(|(to, _)| *to == conn);
        all.flat_map(|(_, bytes)| shared_frames(bytes)).collect()
    };
    assert_eq!(sent(&room, ann_at).len(), 1);
    assert_eq!(sent(&room, ann_at), sent(&room, bob_at));
    let heard = room.world.exchange(bob_at, &mut bob).concat();
    assert!(heard.contains("ChannelMessage"), "{heard}");
    room.world.exchange(ann_at, &mut ann);

    let leave = Record::Leave { channel: ROOM };
    room.record(bob.session().expect("logged in"), &leave);
    // Epochs lie apart, so the first one after somebody has left may be the old one.
    room.world.pass(EPOCH_MS_MIN);
    room.publish(b"to ann alone");
    room.world.collect();
    let frames = sent(&room, ann_at);
    assert_eq!((frames.len(), sent(&room, bob_at).len()), (1, 0));
    assert_eq!(room.world.shard.counters().channel_epochs.value(), 2);
    // Bob takes it from the wire, before he hears that he has left.
    let mut events = Vec::new();
    let (now, shared) = (room.world.now.time, &mut room.world.shared);
    for mut frame in frames {
        bob.handle_received(now, &mut frame, shared, &mut |event| {
            events.push(format!("{event:?}"));
        });
    }
    assert_eq!(events, Vec::<String>::new());
    let heard = room.world.exchange(ann_at, &mut ann).concat();
    assert!(heard.contains("ChannelMessage"), "{heard}");
    let heard = room.world.exchange(bob_at, &mut bob).concat();
    assert!(heard.contains("ChannelLeft"), "{heard}");
}

#[test]
fn a_key_that_has_sealed_enough_is_replaced_before_the_next_message() {
    let mut config = self::config();
    config.rekey.frames = 16;
    let mut room = Room::new(config);
    let (conn, mut client) = room.member(0);
    let mut heard = 0;
    for _ in 0..50 {
        room.publish(b"one of many");
        let events = room.world.exchange(conn, &mut client).concat();
        heard += events.matches("ChannelMessage").count();
    }
    assert_eq!(heard, 50);
    assert_eq!(room.world.shard.counters().channel_epochs.value(), 4);
}

#[test]
fn nobody_shares_a_key_where_each_has_its_own_seal() {
    let mut config = self::config();
    config.seal_channels_once = false;
    for (config, channel) in [(config, ROOM), (self::config(), EVERYBODY)] {
        let mut room = Room::new(config);
        let (conn, mut client) = room.world.login(0);
        room.join(client.session().expect("logged in"), channel);
        room.publish_as(channel, Lane::Reliable, Filter::ALL, b"sealed for each");
        room.world.collect();
        let sent = room.world.sent.iter();
        assert!(
            sent.flat_map(|(_, bytes)| shared_frames(bytes))
                .next()
                .is_none()
        );
        let heard = room.world.exchange(conn, &mut client).concat();
        assert!(heard.contains("ChannelMessage"), "{heard}");
        assert_eq!(room.world.shard.counters().channel_epochs.value(), 0);
    }
}

#[test]
fn a_turn_hands_a_message_to_so_many_and_not_to_who_has_left_meanwhile() {
    let mut room = Room::new(config());
    let count = fan_out::MEMBERS_PER_TURN as u32 + 20;
    let members: Vec<(ConnId, Client)> = (0..count).map(|index| room.member(index)).collect();
    // The key goes first.
    room.publish(b"warm");
    while room.world.shard.channels.is_busy() {
        room.world.collect();
    }
    room.world.sent.clear();
    room.publish(b"first");
    room.publish(b"second");
    room.world.collect();
    let first_turn = room.world.sent.len();
    assert!(first_turn <= fan_out::MEMBERS_PER_TURN, "{first_turn}");
    assert_eq!(
        room.world.shard.poll_timeout(),
        Some(protocol::time::Time(0))
    );
    // The first one is gone for some; the last of those who wait leaves.
    let (last_at, last) = members.last().expect("a member");
    let leave = Record::Leave { channel: ROOM };
    room.record(last.session().expect("logged in"), &leave);
    while room.world.shard.channels.is_busy() {
        room.world.collect();
    }
    let mut frames = vec![Vec::new(); members.len()];
    for (to, bytes) in &room.world.sent {
        frames[to.index as usize].extend(shared_frames(bytes));
    }
    assert!(frames[last_at.index as usize].is_empty());
    for frames in &frames[..members.len() - 1] {
        assert_eq!(frames.len(), 2);
    }
}

#[test]
fn a_member_that_does_not_read_loses_what_may_get_lost_and_then_its_connection() {
    let mut config = self::config();
    config.send_queue_bytes_max = 4_096;
    let mut room = Room::new(config);
    let (conn, client) = room.member(0);
    room.world.collect();
    // What is on its way stays there.
    room.publish_as(ROOM, Lane::Unreliable, Filter::ALL, &[1; 60]);
    room.world.shard.handle_timeout(room.world.now);
    assert!(room.world.shard.poll_send().is_some());
    for _ in 0..200 {
        room.publish_as(ROOM, Lane::Unreliable, Filter::ALL, &[2; 60]);
        room.world.shard.handle_timeout(room.world.now);
    }
    let dropped = room.drops(DropReason::SendQueueFull);
    assert!((100..200).contains(&dropped), "{dropped}");
    // What may not get lost has the room of what waits, until that is used up too.
    for _ in 0..200 {
        if room.world.shard.counters().channels.value() > 0 {
            room.publish(&[3; 60]);
            room.world.shard.handle_timeout(room.world.now);
        }
    }
    assert!(room.drops(DropReason::SendQueueFull) > dropped);
    let counters = room.world.shard.counters();
    assert_eq!(counters.closes(CloseReason::SlowConsumer), 1);
    assert_eq!(counters.channel_members.value(), 0);
    assert_eq!(counters.channels.value(), 0);
    drop((conn, client));
}

#[test]
fn a_channel_is_of_the_uplink_that_made_it_and_ends_with_it() {
    let mut room = Room::new(config());
    let (conn, mut client) = room.member(0);
    let session = client.session().expect("logged in");
    room.join(session, ROOM);
    assert_eq!(room.world.shard.counters().channel_members.value(), 1);
    for channel in 0..2 * CHANNELS_PER_SESSION_MAX as u32 {
        room.join(session, ChannelId(100 + channel));
    }
    let members = room.world.shard.counters().channel_members.value();
    assert_eq!(members, CHANNELS_PER_SESSION_MAX as u64);
    assert_eq!(room.drops(DropReason::BadRecord), members + 1);
    // A session that is not there, and bodies that are no messages of a channel.
    room.join(SessionId(77), ROOM);
    assert_eq!(room.drops(DropReason::SessionGone), 1);
    let filter = Filter::ALL;
    for body in [&b""[..], &[20, 3, 0], &[16; 20]] {
        room.record(SessionId(0), &Record::Publish { filter, body });
    }
    assert_eq!(room.drops(DropReason::BadRecord), members + 4);
    room.world.exchange(conn, &mut client);
    room.world.shard.handle_uplink_lost(GAME);
    let counters = room.world.shard.counters();
    assert_eq!(counters.channel_members.value(), 0);
    assert_eq!(counters.channels.value(), 0);
    room.world.link(GAME, u32::from(GROUP.0));
    room.publish(b"nobody is told");
    room.world.collect();
    assert!(room.world.exchange(conn, &mut client).is_empty());
}

/// Frames that the next test seals, unless `SALLYPORT_NONCE_FRAMES` says otherwise.
const NONCE_FRAMES: u64 = 30_000;

/// Members come, go and are cut, keys wear out, the process is killed and starts anew: whatever
/// happens, under one key each sequence is sealed once. For ten million frames, in about a minute:
/// `SALLYPORT_NONCE_FRAMES=10000000 cargo test -p gateway --lib sealed_twice`.
#[test]
fn nothing_is_sealed_twice_under_one_key_and_sequence() {
    let wanted = std::env::var("SALLYPORT_NONCE_FRAMES");
    let wanted = wanted.map_or(NONCE_FRAMES, |frames| frames.parse().expect("a number"));
    let starts = 10;
    // By key: how much it had sealed. Sequences rise by one, so that this is a log of all.
    let mut sealed = std::collections::HashMap::<[u8; 32], u64>::new();
    let (mut frames, mut epochs) = (0, 0);
    for start in 0..starts {
        let mut config = self::config();
        // In the first start keys wear out all the time, later only when somebody has left.
        config.rekey.frames = if start == 0 { 16 } else { 1 << 20 };
        let mut room = Room::of(World::seeded(config, [start; 32]));
        let mut members: Vec<(ConnId, Client)> = (0..4).map(|index| room.member(index)).collect();
        for step in 0..wanted / starts as u64 {
            let place = (GAME as u16, ROOM);
            if step % 97 == 96 {
                let (conn, client) = &mut members[(step / 97 % 4) as usize];
                room.world.exchange(*conn, client);
                let id = client.session().expect("still in");
                room.record(id, &Record::Leave { channel: ROOM });
                if step % 2 == 0 {
                    room.world.pass(EPOCH_MS_MIN);
                }
                room.join(id, ROOM);
            }
            room.publish_as(ROOM, Lane::Unreliable, Filter::ALL, &step.to_le_bytes());
            let entry = room.world.shard.channels.table.get(&place);
            let sealer = entry.and_then(|entry| entry.sealer.as_ref());
            let sealer = sealer.expect("it has just sealed");
            let count = sealed.entry(sealer.key().0).or_default();
            assert_eq!(sealer.sequence(), *count + 1, "start {start}, step {step}");
            *count += 1;
            frames += 1;
            if step % 64 == 63 {
                for (conn, client) in &mut members {
                    room.world.exchange(*conn, client);
                }
            }
        }
        epochs += room.world.shard.counters().channel_epochs.value();
        assert_eq!(room.drops(DropReason::SendQueueFull), 0);
    }
    assert_eq!(
        sealed.len() as u64,
        epochs,
        "each epoch has a key of its own"
    );
    assert_eq!(sealed.values().sum::<u64>(), frames);
    assert!(epochs > u64::from(starts) * 2);
}

/// Bytes that LZ4 cannot shrink, more than are copied for each.
fn large() -> Vec<u8> {
    crate::testing::noise(3_000)
}

/// What the shard hands to the engine, which takes all of it at once.
fn pieces(room: &mut Room) -> Vec<(ConnId, SendBuffer)> {
    let World { shard, now, .. } = &mut room.world;
    shard.handle_timeout(*now);
    let mut pieces = Vec::new();
    while let Some((id, buffer)) = shard.poll_send() {
        pieces.push((id, buffer.clone()));
        shard.handle_sent(id, buffer);
    }
    pieces
}

#[test]
fn large_messages_are_references_in_order_with_what_is_sealed_around_them() {
    let mut room = Room::new(config());
    let (ann_at, mut ann) = room.member(0);
    let (bob_at, mut bob) = room.member(1);
    room.publish(b"the key goes first");
    room.world.exchange(ann_at, &mut ann);
    room.world.exchange(bob_at, &mut bob);
    room.publish(b"before");
    room.publish(&large());
    room.publish(b"between");
    room.publish(&large());
    room.publish(b"behind");
    let all = pieces(&mut room);
    let mut shared = Vec::new();
    for (conn, client) in [(ann_at, &mut ann), (bob_at, &mut bob)] {
        let of: Vec<_> = all.iter().filter(|(to, _)| *to == conn).collect();
        let kinds: Vec<bool> = of
            .iter()
            .map(|(_, piece)| matches!(piece, SendBuffer::Shared(_)))
            .collect();
        assert_eq!(kinds, [false, true, false, true, false]);
        shared.push(
            of.iter()
                .filter_map(|(_, piece)| match piece {
                    SendBuffer::Shared(bytes) => Some(Arc::as_ptr(bytes)),
                    SendBuffer::Own(_) => None,
                })
                .collect::<Vec<_>>(),
        );
        let sent = of.iter().map(|(to, piece)| (*to, piece.to_vec()));
        room.world.sent.extend(sent);
        let heard = room.world.exchange(conn, client);
        let heard = heard.iter().filter(|it| it.contains("ChannelMessage"));
        assert_eq!(heard.count(), 5);
    }
    assert_eq!(shared[0], shared[1], "the same bytes in memory");
    assert_ne!(shared[0][0], shared[0][1]);
}

#[test]
fn references_count_as_what_waits_and_go_with_the_connection() {
    let mut config = self::config();
    config.send_queue_bytes_max = 16_384;
    let mut room = Room::new(config);
    let (conn, _client) = room.member(0);
    let (_other, _) = room.member(1);
    room.world.collect();
    room.publish(&large());
    let World { shard, now, .. } = &mut room.world;
    shard.handle_timeout(*now);
    // The engine keeps what it is given for the first one.
    let mut held = Vec::new();
    while let Some((to, buffer)) = shard.poll_send() {
        if to == conn {
            held.push(buffer);
        } else {
            shard.handle_sent(to, buffer);
        }
    }
    for _ in 0..4 {
        room.publish(&large());
        pieces(&mut room);
    }
    let closes = |room: &Room| {
        let counters = room.world.shard.counters();
        counters.closes(CloseReason::SlowConsumer)
    };
    let waiting = room.world.shard.connections[conn.index as usize]
        .as_ref()
        .map_or(0, |it| it.queued_bytes());
    assert!((4 * 3_000..=16_384).contains(&waiting), "{waiting}");
    assert_eq!(closes(&room), 0);
    room.publish(&large());
    pieces(&mut room);
    assert_eq!(
        closes(&room),
        1,
        "one too many for the one that does not read"
    );
    let ahead = room.world.shard.connections[conn.index as usize]
        .as_ref()
        .is_some_and(|it| it.ahead.is_some());
    assert!(!ahead, "nothing is kept of what nobody will get");
}

#[test]
fn who_comes_while_a_message_is_handed_out_gets_the_next_one_only() {
    let mut room = Room::new(config());
    let count = fan_out::MEMBERS_PER_TURN as u32 + 20;
    let members: Vec<(ConnId, Client)> = (0..count).map(|index| room.member(index)).collect();
    room.publish(b"the key goes first");
    while room.world.shard.channels.is_busy() {
        room.world.collect();
    }
    room.world.sent.clear();
    room.publish(b"while there is room for one more");
    room.world.collect();
    assert!(room.world.shard.channels.is_busy());
    let (late, _client) = room.member(count);
    room.publish(b"to the newcomer too");
    while room.world.shard.channels.is_busy() {
        room.world.collect();
    }
    let got = |conn: ConnId| -> usize {
        let sent = room.world.sent.iter().filter(|(to, _)| *to == conn);
        sent.map(|(_, bytes)| shared_frames(bytes).len()).sum()
    };
    assert_eq!(got(late), 1);
    assert!(members.iter().all(|(conn, _)| got(*conn) == 2));
}
