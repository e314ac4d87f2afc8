//! Walkers through the whole gateway: an honest map leaves nothing to report, and one with a
//! planted bug does not pass.

use backend::journal::{JournalEngine, probe};
use backend::map::MapConfig;
use backend::spread::{MapDriver, SpreadConfig, SpreadWalk};
use backend::stub::{Context, Departure, Game, Message, Request};
use backend::walk::{TICK_MS_DEFAULT, Walk};
use loadtest::report::Report;
use protocol::time::Time;
use protocol::world::{CHANGES, Changes, Width, encode_changes};

use crate::cluster::Cluster;

/// Of so many players one is shown to nobody.
const HIDDEN_EVERY: u32 = 5;
/// The cluster has one group.
const WALK: &[&str] = &[
    "--scenario",
    "walk",
    "--group",
    "1",
    "--clients",
    "60",
    "--duration",
    "2",
];

/// The game with a planted bug: it forgets some players whenever it says who came into view.
struct HidingWalk(Walk);

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

impl Game for HidingWalk {
    fn disconnected(&mut self, context: &mut Context<'_>, departure: &Departure) {
        self.0.disconnected(context, departure);
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        self.0.message(context, message);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        self.0.request(context, request, payload);
    }

    fn poll_timeout(&self) -> Option<Time> {
        Game::poll_timeout(&self.0)
    }

    fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now().time;
        self.0
            .handle_tick(now, &mut |session, lane, message, payload| {
                let _ = if message == CHANGES {
                    context.push(session, lane, message, &without_some(payload))
                } else {
                    context.push(session, lane, message, payload)
                };
            });
    }
}

fn game() -> Walk {
    Walk::new(MapConfig::default(), TICK_MS_DEFAULT).expect("a map")
}

fn walk(game: impl Game + Send + 'static, more: &[&str]) -> (Report, Vec<String>) {
    let cluster = Cluster::start(game);
    let args: Vec<&str> = WALK.iter().chain(more).copied().collect();
    cluster.load(&args)
}

#[test]
fn an_honest_map_leaves_nothing_to_report() {
    // Two workers, each of which knows where the clients of the other are.
    let (report, wrong) = walk(game(), &["--processes", "2"]);
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
fn an_honest_map_leaves_nothing_to_report_over_udp_either() {
    for lane in ["reliable", "unreliable", "sequenced"] {
        let (report, wrong) = walk(game(), &["--transport", "udp", "--lane", lane]);
        assert!(wrong.is_empty(), "{lane}: {wrong:?}");
        assert_eq!((report.transport, report.lane), ("udp", lane));
        assert_eq!(report.frames_sent, 120);
        assert!(report.frames_received > report.frames_sent);
    }
}

#[test]
fn a_map_spread_over_threads_leaves_nothing_to_report_on_either_driver() {
    // glommio must run wherever io_uring is not known to be forbidden.
    let forbidden = std::env::var_os("SALLYPORT_TEST_WITHOUT_URING").is_some();
    assert_eq!(probe().0 == JournalEngine::Thread, forbidden);
    let mut wanted = vec![
        (None, MapDriver::Threads),
        (Some(MapDriver::Threads), MapDriver::Threads),
    ];
    if !forbidden {
        wanted[0].1 = MapDriver::Glommio;
    }
    for (configured, driver) in wanted {
        let config = SpreadConfig {
            // Small nodes, so that views are handed over.
            map: MapConfig {
                node_width_units: 576,
                node_height_units: 288,
                ..MapConfig::default()
            },
            tick_ms: TICK_MS_DEFAULT,
            executors: 2,
            driver: configured,
            snapshot: None,
        };
        let (game, _watch) = SpreadWalk::start(config).expect("a map");
        assert_eq!(game.driver(), driver);
        let (report, wrong) = walk(game, &["--visible", "6"]);
        assert!(wrong.is_empty(), "{driver:?}: {wrong:?}");
        assert!(report.frames_received > report.frames_sent);
    }
}

#[test]
fn more_are_in_view_if_more_are_asked_for() {
    let (report, wrong) = walk(game(), &["--visible", "12"]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let mean = report.visible_mean.expect("what was seen");
    assert!((8.0..17.0).contains(&mean), "{mean}");
}

#[test]
fn a_map_that_hides_players_does_not_pass() {
    let (report, wrong) = walk(HidingWalk(game()), &["--visible", "12", "--drain", "1"]);
    assert!(!wrong.is_empty());
    let missing = report.errors["view_missing"];
    // A fifth of what is to be seen, about.
    let hidden = missing as f64 / 60.0;
    assert!((0.5..6.0).contains(&hidden), "{hidden}");
    assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
}
