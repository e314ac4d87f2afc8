//! SIGHUP: what changes in a running gateway, what waits for a restart, and a new file that
//! is wrong.

use std::fs;

use protocol::body::Body;
use protocol::reason::CloseReason;

use crate::cluster::metrics::fetch;
use crate::cluster::player::Player;
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE, keygen, wait_until};

/// Changes the gateway's file and lets it read it.
fn reload(cluster: &Cluster, change: impl FnOnce(String) -> String) {
    let file = cluster.path().join("gateway.toml");
    let text = fs::read_to_string(&file).expect("it was written");
    fs::write(&file, change(text)).expect("a file");
    cluster.gateway.reload();
}

/// Waits until the log says it.
fn said(cluster: &Cluster, what: &str) {
    wait_until(what, PATIENCE, || cluster.gateway.log().contains(what));
}

/// Logs in and out, so many times, and is then refused.
fn log_in_until_refused(cluster: &Cluster, account: &str, times: usize) {
    for _ in 0..times {
        let mut raw = Raw::greeted(cluster);
        raw.login(&cluster.token(account));
        raw.logout();
        let gone = |sessions| sessions == 0;
        cluster.wait_metric("center", "sallyport_center_sessions", gone);
    }
    let mut raw = Raw::greeted(cluster);
    raw.send_login(&cluster.token(account));
    raw.expect_close(CloseReason::AccountLimit);
}

#[test]
fn limits_change_in_a_running_gateway_and_the_log_names_each_key() {
    let cluster = Cluster::start(&[], &[], &[]);
    reload(&cluster, |text| {
        let limits = "[limits]\naccount_logins_per_minute = 1\naccount_logins_burst = 2\n";
        text.replace("[limits]\n", limits)
            .replace("shards = 1", "shards = 2")
    });
    said(
        &cluster,
        "reloaded key=\"limits.account_logins_per_minute\" from=\"60\" to=\"1\"",
    );
    said(
        &cluster,
        "reloaded key=\"limits.account_logins_burst\" from=\"20\" to=\"2\"",
    );
    said(&cluster, "this key needs a restart key=\"engine.shards\"");
    log_in_until_refused(&cluster, "often", 2);
    // Under other limits only so much is owed as can be: the account is not shut out any more.
    reload(&cluster, |text| {
        text.replace(
            "account_logins_per_minute = 1\n",
            "account_logins_per_minute = 60000\n",
        )
    });
    said(&cluster, "from=\"1\" to=\"60000\"");
    let mut raw = Raw::logged_in(&cluster, "often");
    raw.round_trip(b"let in again");
}

#[test]
fn a_wrong_file_changes_nothing_and_its_lines_are_named() {
    let cluster = Cluster::start(&["limits.account_logins_burst=2"], &[], &[]);
    reload(&cluster, |text| {
        let limits = "[limits]\naccount_logins_per_minute = 0\nno_such_key = 1\nframes_burst = 0\n";
        text.replace("[limits]\n", limits)
    });
    said(&cluster, "not reloaded: gateway.toml:");
    said(&cluster, "unknown key limits.no_such_key");
    said(&cluster, "limits.frames_burst: 0 is out of range");
    let mut raw = Raw::logged_in(&cluster, "undisturbed");
    raw.round_trip(b"hello");
    raw.logout();
    // Mended, it counts: above it is the command line, with its burst of two.
    reload(&cluster, |text| {
        text.replace("no_such_key = 1\nframes_burst = 0\n", "")
            .replace(
                "account_logins_per_minute = 0",
                "account_logins_per_minute = 1",
            )
    });
    said(
        &cluster,
        "reloaded key=\"limits.account_logins_per_minute\" from=\"60\" to=\"1\"",
    );
    log_in_until_refused(&cluster, "often", 2);
    // More sessions than there is room for.
    reload(&cluster, |text| {
        text.replace("sessions_max = 256", "sessions_max = 100000")
            .replace(
                "account_logins_per_minute = 1",
                "account_logins_per_minute = 2",
            )
    });
    said(&cluster, "not reloaded: limits.sessions_max = 100000");
    assert!(!cluster.gateway.log().contains("to=\"2\""));
}

#[test]
fn who_was_told_an_idle_timeout_keeps_it_and_others_get_the_new_one() {
    let cluster = Cluster::start(&[], &[], &[]);
    let mut before = Raw::logged_in(&cluster, "before");
    reload(&cluster, |text| {
        text + "[heartbeat]\ninterval_ms = 200\nidle_timeout_ms = 400\n"
    });
    said(
        &cluster,
        "key=\"heartbeat.idle_timeout_ms\" from=\"30000\" to=\"400\"",
    );
    let mut after = Raw::logged_in(&cluster, "after");
    after.expect("the end", |body| matches!(body, Body::Close { .. }));
    let closes = cluster.metrics("gateway").closes(CloseReason::IdleTimeout);
    assert_eq!(closes, 1);
    before.round_trip(b"silent for longer than that");
}

#[test]
fn keys_of_tokens_versions_and_the_admin_token_change() {
    let mut cluster = Cluster::start(&[], &[], &[]);
    let mut playing = Raw::logged_in(&cluster, "playing");
    let old = cluster.token("left");
    let public = keygen(cluster.path(), "token", "second.secret");
    fs::write(cluster.path().join("admin.token"), "0123456789abcdef\n").expect("a file");
    reload(&cluster, |text| {
        let (before, rest) = text.split_once("keys = [\"").expect("keys");
        let (_, after) = rest.split_once('"').expect("a key");
        let text = format!("{before}keys = [\"{public}\"{after}");
        text.replace("[admin]\n", "[admin]\ntoken_file = \"admin.token\"\n")
            + "[versions]\nminimum = 7\nupgrade_address = \"https://game.example/get\"\n"
    });
    said(
        &cluster,
        "reloaded key=\"versions.minimum\" from=\"0\" to=\"7\"",
    );
    said(&cluster, "other keys may sign tokens from now on");
    let (code, _) = fetch(cluster.admin("gateway"), "/stats").expect("an answer");
    assert_eq!(code, 401);
    cluster.take_token_secret("second.secret");
    let mut raw = Raw::greeted(&cluster);
    raw.send_login(&cluster.token("old client"));
    raw.expect_close(CloseReason::UpgradeRequired);
    let mut player = Player::connect_as(&cluster, old, 7, "");
    let closed = format!("{:?}", player.wait_closed());
    assert!(closed.contains("BadToken"), "{closed}");
    let mut player = Player::connect_as(&cluster, cluster.token("new client"), 7, "");
    player.wait("a login", |seen| seen.session.is_some());
    playing.round_trip(b"sessions stay");
}
