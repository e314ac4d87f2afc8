//! Walkers through the whole gateway: an honest map leaves nothing to report, and one with a
//! planted bug does not pass.

use backend::map::MapConfig;
use backend::stub::{Context, Departure, Game, Message, Request};
use backend::walk::Walk;
use loadtest::report::Report;
use protocol::body::Lane;
use protocol::world::{CHANGES, Changes, Width, encode_changes};

use crate::cluster::Cluster;

/// Of so many players one is shown to nobody.
const HIDDEN_EVERY: u32 = 5;

/// The game, with a tick after whatever comes: the test needs no clock, and the last move is told.
struct TickingWalk {
    walk: Walk,
    hides: bool,
}

impl TickingWalk {
    fn new(hides: bool) -> Self {
        Self {
            walk: Walk::new(MapConfig::default(), 100).expect("a map"),
            hides,
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let Some(due) = self.walk.poll_timeout() else {
            return;
        };
        let hides = self.hides;
        self.walk
            .handle_tick(due, &mut |session, lane, message, payload| {
                let is_faulty = hides && lane == Lane::Reliable && message == CHANGES;
                let _ = if is_faulty {
                    context.push(session, lane, message, &without_some(payload))
                } else {
                    context.push(session, lane, message, payload)
                };
            });
    }
}

fn without_some(payload: &[u8]) -> Vec<u8> {
    let changes = Changes::decode(payload).expect("a frame");
    let is_shown = |id: u32| !id.is_multiple_of(HIDDEN_EVERY);
    let enters: Vec<_> = changes.enters().filter(|one| is_shown(one.id)).collect();
    let leaves: Vec<_> = changes.leaves().filter(|id| is_shown(*id)).collect();
    let rests: Vec<_> = changes.rests().filter(|one| is_shown(one.id)).collect();
    let mut out = Vec::new();
    encode_changes(
        &mut out,
        Width::Narrow,
        changes.tick,
        &enters,
        &leaves,
        &rests,
    );
    out
}

impl Game for TickingWalk {
    fn disconnected(&mut self, context: &mut Context<'_>, departure: &Departure) {
        self.walk.disconnected(context, departure);
        self.tick(context);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        self.walk.message(context, message);
        self.tick(context);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        self.walk.request(context, request, payload);
        self.tick(context);
    }
}

fn walk(hides: bool, more: &[&str]) -> (Report, Vec<String>) {
    let cluster = Cluster::start(TickingWalk::new(hides));
    let args: Vec<&str> = [
        "--scenario",
        "walk",
        "--group",
        "1",
        "--clients",
        "60",
        "--duration",
        "2",
    ]
    .iter()
    .chain(more)
    .copied()
    .collect();
    cluster.load(&args)
}

#[test]
fn an_honest_map_leaves_nothing_to_report() {
    // Two workers, each of which knows where the clients of the other are.
    let (report, wrong) = walk(false, &["--processes", "2"]);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(report.scenario, "walk");
    assert_eq!(report.rate_wanted, 60.0);
    assert_eq!(report.frames_sent, 120);
    let mean = report.visible_mean.expect("what was seen");
    assert!((2.0..7.0).contains(&mean), "{mean}");
    assert!(report.frames_received > report.frames_sent);
    assert!(report.latency_us.p50 > 0);
}

#[test]
fn more_are_in_view_if_more_are_asked_for() {
    let (report, wrong) = walk(false, &["--visible", "12"]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let mean = report.visible_mean.expect("what was seen");
    assert!((8.0..17.0).contains(&mean), "{mean}");
}

#[test]
fn a_map_that_hides_players_does_not_pass() {
    let (report, wrong) = walk(true, &["--visible", "12", "--drain", "1"]);
    assert!(!wrong.is_empty());
    let missing = report.errors["view_missing"];
    // A fifth of what is to be seen, about.
    let hidden = missing as f64 / 60.0;
    assert!((0.5..6.0).contains(&hidden), "{hidden}");
    assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
}
