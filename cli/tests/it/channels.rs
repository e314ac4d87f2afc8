//! Channels through the real binary: who gets what, in which order, over each transport, and
//! what happens to those who leave, are away, or come back elsewhere.

use std::net::SocketAddr;

use protocol::body::Lane;
use protocol::chat::{self, Say};
use protocol::ids::{ChannelId, SessionId};
use protocol::reason::DropReason;

use crate::cluster::metrics::fetch;
use crate::cluster::player::{Carrier, Player};
use crate::cluster::{Cluster, PATIENCE, Settings, wait_until};

const CHAT: Settings = &["game.kind=chat"];
const ROOM: ChannelId = ChannelId(7);
const EVERYBODY: ChannelId = ChannelId(0);

/// What one player is to hear, in order: number and text.
type Heard = Vec<(u32, Vec<u8>)>;

fn join(player: &mut Player, channel: ChannelId) {
    player.ask(chat::JOIN, &channel.0.to_le_bytes());
    player.wait("joining", |seen| seen.channels.contains(&channel));
}

fn say(player: &mut Player, channel: ChannelId, say: &Say<'_>) {
    let mut payload = channel.0.to_le_bytes().to_vec();
    say.encode(&mut payload);
    player.tell(chat::SAY, &payload);
}

fn heard(player: &Player, lane: Lane) -> Heard {
    let said = player.seen.said.iter().filter(|said| said.0.lane == lane);
    said.map(|(header, payload)| (header.number, payload[8..].to_vec()))
        .collect()
}

/// Waits until a player has heard these in the reliable lane, and nothing else.
fn wait_heard(player: &mut Player, wanted: &[(u32, &[u8])]) {
    player.wait("messages", |seen| seen.said.len() >= wanted.len());
    let wanted: Heard = wanted
        .iter()
        .map(|(number, text)| (*number, text.to_vec()))
        .collect();
    assert_eq!(heard(player, Lane::Reliable), wanted);
}

fn open(cluster: &Cluster, account: &str, carrier: Carrier) -> Player {
    open_at(cluster, account, carrier, cluster.address())
}

fn open_at(cluster: &Cluster, account: &str, carrier: Carrier, at: SocketAddr) -> Player {
    let mut player = Player::connect_over(cluster, account, carrier, at);
    player.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
    player
}

/// What all members hear over every transport, sealed once or for each.
fn all_hear(gateway: Settings) {
    let cluster = Cluster::start(gateway, &[], CHAT);
    let mut players = [
        open(&cluster, "ann", Carrier::Tcp),
        open(&cluster, "bob", Carrier::Web),
        open(&cluster, "cid", Carrier::Udp),
        open(&cluster, "dee", Carrier::Tcp),
    ];
    let mut stranger = open(&cluster, "eve", Carrier::Tcp);
    for player in &mut players {
        join(player, ROOM);
    }
    let long = vec![b'x'; 5_000];
    for text in [&b"one"[..], b"two", &long] {
        say(&mut players[0], ROOM, &Say::all(Lane::Reliable, text));
    }
    for player in &mut players {
        wait_heard(player, &[(1, b"one"), (2, b"two"), (3, &long)]);
    }
    // A key comes before what it opens, or such a message is one of those that get lost.
    for lane in [Lane::Unreliable, Lane::Sequenced] {
        say(&mut players[1], ROOM, &Say::all(lane, b"maybe"));
    }
    for player in &mut players {
        player.wait("the other lanes", |seen| seen.said.len() == 5);
        assert_eq!(heard(player, Lane::Unreliable), [(0, b"maybe".to_vec())]);
        assert_eq!(heard(player, Lane::Sequenced), [(1, b"maybe".to_vec())]);
    }
    let speaker = players[0].seen.session.expect("logged in");
    assert_eq!(players[3].seen.said[0].1[..8], speaker.0.to_le_bytes());

    // Everybody, member or not.
    let mut shout = Vec::new();
    Say::all(Lane::Reliable, b"hear").encode(&mut shout);
    players[2].tell(chat::SHOUT, &shout);
    for player in players.iter_mut().chain([&mut stranger]) {
        player.wait("a shout", |seen| {
            seen.said.iter().any(|said| said.0.channel == EVERYBODY)
        });
    }
    assert_eq!(stranger.seen.said.len(), 1);

    // Some sessions by name.
    let some = [players[1].seen.session, stranger.seen.session];
    let some: Vec<SessionId> = some.into_iter().flatten().collect();
    for lane in [Lane::Reliable, Lane::Unreliable, Lane::Sequenced] {
        let mut list = Vec::new();
        chat::encode_tell(lane, &some, b"you", &mut list);
        players[0].tell(chat::TELL, &list);
    }
    for player in [&mut players[1], &mut stranger] {
        player.wait("what is for some", |seen| seen.messages.len() == 3);
        assert!(player.seen.messages.iter().all(|it| &it.1[8..] == b"you"));
    }
    players[0].ask(chat::MARK, &[1, 0, 1, 0, 0, 0]);
    assert_eq!(players[0].seen.messages.len(), 0);
    let gateway = cluster.metrics("gateway");
    for reason in [DropReason::SessionGone, DropReason::BadRecord] {
        assert_eq!(gateway.drops(reason), 0);
    }
    assert!(gateway.value("sallyport_gateway_channel_messages_total") >= 6);
}

#[test]
fn members_hear_what_is_sealed_once_over_every_transport() {
    all_hear(&["engine.shards=2"]);
}

#[test]
fn members_hear_what_is_sealed_for_each_over_every_transport() {
    all_hear(&["channels.seal=each"]);
}

#[test]
fn who_is_filtered_out_hears_the_rest_in_order() {
    let cluster = Cluster::start(&[], &[], CHAT);
    let mut ann = open(&cluster, "ann", Carrier::Tcp);
    let mut bob = open(&cluster, "bob", Carrier::Udp);
    join(&mut ann, ROOM);
    join(&mut bob, ROOM);
    bob.ask(chat::MARK, &[5, 0, 9, 0, 0, 0]);
    let all = Say::all(Lane::Reliable, b"");
    let but_me = Say {
        not_to_me: true,
        text: b"not to ann",
        ..all
    };
    let newer = Say {
        version_min: 2,
        text: b"to newer clients",
        ..all
    };
    let marked = Say {
        attribute: (5, 9),
        text: b"to the marked",
        ..all
    };
    for one in [
        but_me,
        newer,
        marked,
        Say {
            text: b"all",
            ..all
        },
    ] {
        say(&mut ann, ROOM, &one);
    }
    wait_heard(&mut ann, &[(4, b"all")]);
    wait_heard(
        &mut bob,
        &[(1, b"not to ann"), (3, b"to the marked"), (4, b"all")],
    );
    // Nobody had to ask for what was not meant for it.
    assert_eq!(
        cluster
            .metrics("game")
            .value("sallyport_game_caught_up_total"),
        0
    );
}

#[test]
fn who_has_left_hears_nothing_more_and_the_key_changes() {
    let cluster = Cluster::start(&[], &[], CHAT);
    let epochs = || {
        cluster
            .metrics("gateway")
            .value("sallyport_gateway_channel_epochs_total")
    };
    let mut ann = open(&cluster, "ann", Carrier::Tcp);
    let mut bob = open(&cluster, "bob", Carrier::Tcp);
    join(&mut ann, ROOM);
    join(&mut bob, ROOM);
    say(&mut ann, ROOM, &Say::all(Lane::Reliable, b"with bob"));
    wait_heard(&mut bob, &[(1, b"with bob")]);
    assert_eq!(epochs(), 1);
    bob.ask(chat::LEAVE, &ROOM.0.to_le_bytes());
    bob.wait("leaving", |seen| seen.channels.is_empty());
    // Two epochs lie apart by a tenth of a second: until the new one has begun, more is said.
    let mut said: u32 = 1;
    wait_until("a new epoch", PATIENCE, || {
        said += 1;
        say(&mut ann, ROOM, &Say::all(Lane::Reliable, b"without"));
        ann.wait("its own words", |seen| seen.said.len() == said as usize);
        epochs() == 2
    });
    bob.ask(chat::MARK, &[1, 0, 1, 0, 0, 0]);
    assert_eq!(bob.seen.said.len(), 1);
    // Who comes again hears what is said from then on.
    join(&mut bob, ROOM);
    say(&mut ann, ROOM, &Say::all(Lane::Reliable, b"again"));
    bob.wait("a message", |seen| seen.said.len() == 2);
    assert_eq!(
        heard(&bob, Lane::Reliable)[1],
        (said + 1, b"again".to_vec())
    );
}

/// What was said while a member was away, to it and to those who stayed.
fn comes_back(cluster: &Cluster, at: SocketAddr, carriers: &[Carrier]) {
    let mut ann = open(cluster, "ann", Carrier::Tcp);
    let mut bob = open(cluster, "bob", Carrier::Web);
    join(&mut ann, ROOM);
    join(&mut bob, ROOM);
    let mut wanted: Vec<(u32, Vec<u8>)> = Vec::new();
    for carrier in carriers {
        for _ in 0..3 {
            let text = format!("{} before {carrier:?}", wanted.len()).into_bytes();
            say(&mut ann, ROOM, &Say::all(Lane::Reliable, &text));
            wanted.push((wanted.len() as u32 + 1, text));
        }
        bob.cut();
        let text = b"while bob is away".to_vec();
        say(&mut ann, ROOM, &Say::all(Lane::Reliable, &text));
        wanted.push((wanted.len() as u32 + 1, text));
        ann.wait("its own words", |seen| seen.said.len() == wanted.len());
        bob.come_back_over(*carrier, at);
        bob.wait("what it missed", |seen| seen.said.len() == wanted.len());
        assert_eq!(heard(&bob, Lane::Reliable), wanted);
    }
    assert_eq!(heard(&ann, Lane::Reliable), wanted);
}

#[test]
fn who_was_away_hears_everything_once_over_every_transport() {
    let cluster = Cluster::start(&["engine.shards=2"], &[], CHAT);
    let ways = [Carrier::Tcp, Carrier::Udp, Carrier::Web, Carrier::Udp];
    comes_back(&cluster, cluster.address(), &ways);
    let caught_up = cluster
        .metrics("game")
        .value("sallyport_game_caught_up_total");
    assert!(caught_up >= ways.len() as u64);
}

#[test]
fn members_at_two_gateways_hear_the_same_numbers() {
    let cluster = Cluster::start(&[], &[], CHAT);
    let mut other = cluster.other_gateway("gateway.identity", &cluster.game_identity);
    other.start();
    let admin = (cluster.ip(), 17_001).into();
    wait_until("the second gateway is ready", PATIENCE, || {
        fetch(admin, "/readyz").is_some_and(|(code, _)| code == 200)
    });
    let there = (cluster.ip(), 17_000).into();
    let mut cid = open_at(&cluster, "cid", Carrier::Udp, there);
    join(&mut cid, ROOM);
    // Bob goes from one gateway to the other.
    comes_back(&cluster, there, &[Carrier::Tcp, Carrier::Udp]);
    cid.wait("all of it", |seen| seen.said.len() == 8);
    let numbers: Vec<u32> = heard(&cid, Lane::Reliable).iter().map(|it| it.0).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<u32>>());
}

#[test]
fn what_is_beyond_the_tail_is_told_as_lost() {
    let cluster = Cluster::start(&[], &[], CHAT);
    let mut ann = open(&cluster, "ann", Carrier::Tcp);
    let mut bob = open(&cluster, "bob", Carrier::Tcp);
    join(&mut ann, ROOM);
    join(&mut bob, ROOM);
    say(&mut ann, ROOM, &Say::all(Lane::Reliable, b"first"));
    wait_heard(&mut bob, &[(1, b"first")]);
    bob.cut();
    // Nine of these are in a tail of 64 KiB.
    let text: Vec<u8> = (0..7_000_u32).map(|at| ((at * at) >> 3) as u8).collect();
    for _ in 0..20 {
        say(&mut ann, ROOM, &Say::all(Lane::Reliable, &text));
        ann.pump();
    }
    ann.wait("its own words", |seen| seen.said.len() == 21);
    bob.come_back(&cluster);
    bob.wait("the tail", |seen| seen.said.len() == 10);
    assert_eq!(bob.seen.missed, 11);
    let numbers: Vec<u32> = heard(&bob, Lane::Reliable).iter().map(|it| it.0).collect();
    assert_eq!(
        numbers,
        [&[1][..], &[13, 14, 15, 16, 17, 18, 19, 20, 21]].concat()
    );
}
