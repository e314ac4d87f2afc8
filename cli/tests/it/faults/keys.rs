//! QUIC peers that are not who they should be: nothing of the cluster is theirs,
//! the log says what to do, and nobody else notices.

use crate::cluster::metrics::{Calm, fetch};
use crate::cluster::player::Honest;
use crate::cluster::{Cluster, PATIENCE, keygen, wait_until};

/// The admin port of the second gateway.
fn is_ready(cluster: &Cluster) -> Option<bool> {
    let admin = (cluster.ip(), 17_001).into();
    fetch(admin, "/readyz").map(|(code, _)| code == 200)
}

#[test]
fn a_backend_with_another_key_than_configured_gets_nothing() {
    let cluster = Cluster::start(&[], &[], &[]);
    let honest = Honest::start(&cluster);
    let calm = Calm::before(&cluster);
    let before = cluster.metrics("game");
    let wrong = keygen(cluster.path(), "identity", "nobody.identity");
    // The gateway is known, but takes this game for an impostor.
    let mut other = cluster.other_gateway("gateway.identity", &wrong);
    other.start();
    wait_until("a log line about the key", PATIENCE, || {
        let log = other.log();
        log.contains("has another key than configured")
            && log.contains(&wrong)
            && log.contains(&cluster.game_identity)
            && log.contains(&format!("{}:7200", cluster.ip()))
    });
    wait_until("center's uplink", PATIENCE, || {
        other.log().contains("center-1")
    });
    assert_eq!(is_ready(&cluster), Some(false));
    let refused = "sallyport_game_links_refused_total";
    cluster.wait_metric("game", refused, |now| now > before.value(refused));
    let now = cluster.metrics("game");
    for series in [
        "sallyport_game_links",
        "sallyport_game_links_accepted_total",
    ] {
        assert_eq!(now.value(series), before.value(series), "{series}");
    }
    honest.round_trips(20);
    calm.over();
    honest.finish();
}

#[test]
fn a_gateway_with_a_key_that_nobody_knows_gets_nothing() {
    let cluster = Cluster::start(&[], &[], &[]);
    let honest = Honest::start(&cluster);
    let calm = Calm::before(&cluster);
    let before = ["game", "center"].map(|role| cluster.metrics(role));
    let held = [cluster.game.holdings(), cluster.center.holdings()];
    let stranger = keygen(cluster.path(), "identity", "stranger.identity");
    let mut other = cluster.other_gateway("stranger.identity", &cluster.game_identity);
    other.start();
    wait_until("a log line about the key", PATIENCE, || {
        let log = other.log();
        log.contains("does not accept this gateway's key") && log.contains(&stranger)
    });
    for (role, before) in ["game", "center"].into_iter().zip(&before) {
        let wrong = format!("sallyport_{role}_links_wrong_key_total");
        cluster.wait_metric(role, &wrong, |now| now > before.value(&wrong));
        let now = cluster.metrics(role);
        for series in ["links", "links_accepted_total"] {
            let series = format!("sallyport_{role}_{series}");
            assert_eq!(now.value(&series), before.value(&series), "{series}");
        }
    }
    for (role, log) in [
        ("game", cluster.game.log()),
        ("center", cluster.center.log()),
    ] {
        assert!(
            log.contains("its key is not among the gateway keys") && log.contains(&stranger),
            "{role} names the key that it refused"
        );
    }
    assert_eq!(is_ready(&cluster), Some(false));
    honest.round_trips(20);
    calm.over();
    honest.finish();
    drop(other);
    cluster.game.wait_back(held[0]);
    cluster.center.wait_back(held[1]);
}
