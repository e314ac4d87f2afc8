//! Clients who speak in channels: an honest game leaves nothing to report, and one that forgets,
//! changes or reorders what is said does not pass.

use std::ops::ControlFlow;

use backend::chat::ChatGame;
use backend::stub::{Context, EchoGame, Filter, Game, Message, Request};
use loadtest::report::Report;
use protocol::body::Lane;
use protocol::chat::{SAY, Say};
use protocol::ids::ChannelId;

use crate::cluster::{Cluster, run};

/// The cluster has one group.
const GROUP: &[&str] = &["--group", "1", "--duration", "1.5"];

fn load(game: impl Game + Send + 'static, more: &[&str]) -> (Report, Vec<String>) {
    let cluster = Cluster::start(game);
    let args: Vec<&str> = GROUP.iter().chain(more).copied().collect();
    cluster.load(&args)
}

#[test]
fn everybody_hears_what_is_broadcast_over_every_transport() {
    for transport in ["tcp", "ws", "udp"] {
        let more = [
            "--scenario",
            "broadcast",
            "--clients",
            "50",
            "--rate",
            "40",
            "--transport",
            transport,
        ];
        let (report, wrong) = load(ChatGame, &more);
        assert!(wrong.is_empty(), "{transport}: {wrong:?}");
        assert_eq!(report.scenario, "broadcast");
        assert_eq!((report.frames_sent, report.frames_received), (60, 60 * 50));
        assert!(report.latency_us.p50 > 0);
    }
}

#[test]
fn each_room_of_a_chat_hears_its_own() {
    // Two workers, between which a room is divided; the last room has 5 clients.
    let more = [
        "--scenario",
        "chat",
        "--clients",
        "65",
        "--rate",
        "130",
        "--processes",
        "2",
    ];
    let (report, wrong) = load(ChatGame, &more);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(report.scenario, "chat");
    assert_eq!(report.frames_sent, 195);
    // Three turns each.
    assert_eq!(report.frames_received, 3 * (3 * 20 * 20 + 5 * 5));
}

/// The game with a planted bug.
struct Faulty {
    game: ChatGame,
    said: u32,
    fault: Fault,
}

#[derive(Clone, Copy)]
enum Fault {
    /// Says each tenth message to all but its speaker.
    Forgets,
    /// Changes a byte of each tenth one.
    Changes,
    /// Says nothing of each tenth one to anybody.
    Swallows,
}

impl Game for Faulty {
    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        self.game.request(context, request, payload);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        self.said += 1;
        let (channel, rest) = message.payload.split_first_chunk().expect("a channel");
        let say = Say::decode(rest).expect("our own");
        let mut said = message.session.0.to_le_bytes().to_vec();
        said.extend_from_slice(say.text);
        let is_hit = self.said.is_multiple_of(10);
        let filter = match self.fault {
            Fault::Forgets if is_hit => Filter::but(message.session),
            _ => Filter::ALL,
        };
        match self.fault {
            Fault::Changes if is_hit => said[20] ^= 1,
            Fault::Swallows if is_hit => return,
            _ => {}
        }
        let channel = ChannelId(u32::from_le_bytes(*channel));
        let published = context.publish(channel, Lane::Reliable, &filter, SAY, &said);
        assert_eq!(published, Ok(()));
    }
}

#[test]
fn a_game_that_does_not_say_what_was_said_is_found_out() {
    for (fault, named) in [
        (Fault::Forgets, "were lost"),
        (Fault::Changes, "content"),
        (Fault::Swallows, "content"),
    ] {
        let game = Faulty {
            game: ChatGame,
            said: 0,
            fault,
        };
        // Each client says several things.
        let more = [
            "--scenario",
            "broadcast",
            "--clients",
            "5",
            "--rate",
            "40",
            "--drain",
            "1",
        ];
        let (_, wrong) = load(game, &more);
        assert!(
            wrong.iter().any(|line| line.contains(named)),
            "{named}: {wrong:?}"
        );
    }
}

#[test]
fn what_cannot_be_heard_is_refused() {
    let cluster = Cluster::start(EchoGame);
    for (words, named) in [
        (["--group", "1", "--scenario", "broadcast"], "join_refused"),
        (["--lane", "unreliable", "--scenario", "chat"], "--lane"),
    ] {
        let refused = run(&cluster.args(&words), |_| ControlFlow::Continue(()));
        let refused = refused.expect_err("a refusal");
        assert!(refused.contains(named), "{refused}");
    }
}
