//! A message to hundreds of members again and again, small ones that are copied and large ones that
//! go by reference, while somebody else asks the same game.

use std::thread;

use protocol::chat;

use crate::cluster::metrics::Calm;
use crate::cluster::player::{Carrier, Player};
use crate::cluster::{Cluster, Settings};

const GATEWAY: Settings = &["limits.sessions_max=1000", "limits.frames_per_second=0"];
const CHAT: Settings = &["game.kind=chat"];
const MEMBERS: u64 = 600;
/// In 2 s.
const MESSAGES: u64 = 20;

/// Everybody hears everything, over this transport, and an asker beside them goes on.
fn storm(transport: &str, payload_bytes: &str) {
    let cluster = Cluster::start(GATEWAY, &[], CHAT);
    let mut calm = Calm::before(&cluster);
    let mut asker = Player::connect_over(&cluster, "asker", Carrier::Tcp, cluster.address());
    asker.wait("login", |seen| seen.session.is_some() && seen.ups > 0);
    let members = MEMBERS.to_string();
    let result = thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let how = [
                ["--scenario", "broadcast"],
                ["--group", "1"],
                ["--clients", &members],
                ["--rate", "10"],
                ["--duration", "2"],
                ["--drain", "60"],
                ["--payload", payload_bytes],
                ["--transport", transport],
            ];
            cluster.load(cluster.address(), how.as_flattened())
        });
        while !storm.is_finished() {
            asker.ask(chat::MARK, &[1, 0, 1, 0, 0, 0]);
        }
        storm.join().expect("a load test")
    });
    let (outcome, result) = result;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(result["frames_sent"], MESSAGES);
    assert_eq!(result["frames_received"], MESSAGES * MEMBERS);
    let deliveries = cluster
        .metrics("gateway")
        .value("sallyport_gateway_channel_deliveries_total");
    assert_eq!(deliveries, MESSAGES * MEMBERS, "nothing was sent again");
    calm.closed(protocol::reason::CloseReason::LoggedOut, MEMBERS);
    calm.check();
}

#[test]
fn small_messages_reach_everybody_and_an_asker_goes_on() {
    storm("tcp", "64");
}

#[test]
fn large_messages_reach_everybody_over_websocket() {
    storm("ws", "3000");
}

#[test]
fn large_messages_reach_everybody_over_tcp() {
    storm("tcp", "3000");
}
