//! Before and at login: frames that come too early, tokens that prove nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pasetors::keys::{AsymmetricKeyPair, AsymmetricSecretKey, Generate as _};
use pasetors::version4::{PublicToken, V4};
use protocol::body::{Body, Lane, Login, MessageKind, Sync};
use protocol::ids::Incarnation;
use protocol::reason::{CloseReason, DropReason};
use protocol::token::{Claims, issue};

use super::with_neighbour;
use crate::cluster::raw::{Raw, encoded, message, ping};
use crate::cluster::{AUDIENCE, Cluster, GROUP, random32, unix_ms};

/// Good claims, to be spoilt.
fn claims(account: &str) -> Claims {
    Claims {
        audience: AUDIENCE.to_owned(),
        account: account.to_owned(),
        id: URL_SAFE_NO_PAD.encode(random32()),
        issued_unix_ms: unix_ms(),
        expires_unix_ms: unix_ms() + 30_000,
    }
}

#[test]
fn what_comes_before_login_is_dropped_and_login_still_works() {
    with_neighbour(|cluster, calm| {
        let mut raw = Raw::greeted(cluster);
        let early = [
            message(MessageKind::Request, Lane::Reliable, 1, 0, b"early"),
            message(MessageKind::Message, Lane::Unreliable, 0, 0, b"early"),
            encoded(&Body::Ack {
                group: GROUP,
                ack: 1,
            }),
            encoded(&Body::Sync(Sync {
                fresh: false,
                group: GROUP,
                incarnation: Incarnation(1),
                next: 1,
                base: 1,
            })),
        ];
        for body in &early {
            let frame = raw.seal(0, body);
            raw.send(&frame);
        }
        calm.dropped(DropReason::BeforeLogin, early.len() as u64);
        raw.send_body(&ping(9));
        raw.expect(
            "PONG",
            |body| matches!(body, Body::Pong(pong) if pong.stamp == 9),
        );
        calm.check();
        raw.login(&cluster.token("early"));
        raw.round_trip(b"now");
        raw.logout();
        calm.closed(CloseReason::LoggedOut, 1);
        // Whoever ends before it began.
        let mut raw = Raw::greeted(cluster);
        raw.send_body(&Body::Logout);
        raw.expect_close(CloseReason::LoggedOut);
        calm.closed(CloseReason::LoggedOut, 1);
    });
}

/// Claims as JSON, signed with the cluster's key: what `issue` would not sign.
fn sign(cluster: &Cluster, json: &str) -> String {
    let secret = std::fs::read_to_string(cluster.path().join("token.secret")).expect("a secret");
    let secret = URL_SAFE_NO_PAD.decode(secret.trim()).expect("base64url");
    let key = AsymmetricSecretKey::<V4>::from(&secret).expect("a key");
    PublicToken::sign(&key, json.as_bytes(), None, None).expect("a token")
}

#[test]
fn tokens_that_prove_nothing_are_refused_by_name() {
    with_neighbour(|cluster, calm| {
        let mut refused = |what: &str, token: &str, reason| {
            let mut raw = Raw::greeted(cluster);
            println!("a token: {what}");
            raw.send_login(token);
            raw.expect_close(reason);
            calm.closed(reason, 1);
        };
        let good = cluster.token("victim");
        let flipped = |at: usize| {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).expect("ASCII")
        };
        let bad = CloseReason::BadToken;
        refused("nothing", "", bad);
        refused("no token", "let me in", bad);
        refused("another kind", &good.replacen("public", "local", 1), bad);
        refused("another version", &good.replacen("v4", "v2", 1), bad);
        refused("a cut one", &good[..good.len() - 1], bad);
        refused("other claims", &flipped("v4.public.".len() + 20), bad);
        refused("another signature", &flipped(good.len() - 20), bad);
        refused("with a footer", &format!("{good}.Zm9vdGVy"), bad);
        let stranger = AsymmetricKeyPair::<V4>::generate().expect("a key");
        let stranger = stranger.secret.as_bytes().try_into().expect("64 bytes");
        let forged = issue(&stranger, &claims("victim")).expect("a token");
        refused("of another key", &forged, bad);
        let json = r#"{"aud":"cluster","sub":"victim","iat":"2020-01-01T00:00:00Z"}"#;
        refused("without claims", &sign(cluster, json), bad);
        refused("without JSON", &sign(cluster, "victim"), bad);

        let mut other = claims("victim");
        other.audience = "another game".to_owned();
        let audience = CloseReason::TokenAudience;
        refused("for another audience", &cluster.issue(&other), audience);

        let now = unix_ms();
        let expired = CloseReason::TokenExpired;
        let mut of = |what: &str, issued_unix_ms, expires_unix_ms| {
            let claims = Claims {
                issued_unix_ms,
                expires_unix_ms,
                ..claims("victim")
            };
            refused(what, &cluster.issue(&claims), expired);
        };
        of("past its end", now - 30_000, now - 8_000);
        of("long past its end", now - 86_400_000, now - 86_370_000);
        of("not valid yet", now + 10_000, now + 20_000);
        of("too long a life", now, now + 62_000);
        of("no life at all", now, now);
        of("a life before its birth", now, now - 2_000);

        // Not a word about a token in what a second method would bring.
        let mut raw = Raw::greeted(cluster);
        raw.send_body(&Body::Login(Login {
            method: 2,
            client_version: 1,
            channel: "",
            device: "",
            credential: good.as_bytes(),
        }));
        raw.expect_close(bad);
        calm.closed(bad, 1);

        // None of all that has used the good one up.
        let mut raw = Raw::greeted(cluster);
        raw.login(&good);
        raw.logout();
        calm.closed(CloseReason::LoggedOut, 1);
    });
}

#[test]
fn a_token_is_good_for_one_login() {
    with_neighbour(|cluster, calm| {
        let token = cluster.token("owner");
        let mut owner = Raw::greeted(cluster);
        owner.login(&token);
        // Stolen while its owner plays, and again after.
        let mut thief = Raw::greeted(cluster);
        thief.send_login(&token);
        thief.expect_close(CloseReason::TokenReused);
        owner.round_trip(b"undisturbed");
        owner.logout();
        let mut thief = Raw::greeted(cluster);
        thief.send_login(&token);
        thief.expect_close(CloseReason::TokenReused);
        calm.closed(CloseReason::TokenReused, 2);
        calm.closed(CloseReason::LoggedOut, 1);

        // The same id in a token signed anew is the same token.
        let mut claims = claims("owner");
        let first = cluster.issue(&claims);
        let mut raw = Raw::greeted(cluster);
        raw.login(&first);
        raw.logout();
        claims.expires_unix_ms += 5_000;
        let mut raw = Raw::greeted(cluster);
        raw.send_login(&cluster.issue(&claims));
        raw.expect_close(CloseReason::TokenReused);
        calm.closed(CloseReason::LoggedOut, 1);
        calm.closed(CloseReason::TokenReused, 1);
        assert_eq!(
            cluster
                .metrics("center")
                .value("sallyport_center_claims_total{result=\"token_reused\"}"),
            3
        );
    });
}

#[test]
fn an_account_has_one_session() {
    with_neighbour(|cluster, calm| {
        let mut first = Raw::logged_in(cluster, "double");
        let mut second = Raw::greeted(cluster);
        second.send_login(&cluster.token("double"));
        second.expect_close(CloseReason::AlreadyOnline);
        calm.closed(CloseReason::AlreadyOnline, 1);
        first.round_trip(b"still here");
        first.logout();
        let mut third = Raw::logged_in(cluster, "double");
        third.round_trip(b"my turn");
        third.logout();
        calm.closed(CloseReason::LoggedOut, 2);
    });
}

#[test]
fn a_second_login_in_a_session_ends_its_connection() {
    with_neighbour(|cluster, calm| {
        let mut raw = Raw::logged_in(cluster, "twice");
        raw.send_login(&cluster.token("twice"));
        raw.expect_close(CloseReason::BadBody);
        // So does one while the first is under way.
        let mut raw = Raw::greeted(cluster);
        let first = cluster.token("hasty");
        let login = |token: &str| {
            encoded(&Body::Login(Login {
                method: 1,
                client_version: 1,
                channel: "",
                device: "",
                credential: token.as_bytes(),
            }))
        };
        let mut both = raw.seal(0, &login(&first));
        both.extend(raw.seal(0, &login(&cluster.token("hasty"))));
        raw.send(&both);
        raw.expect_close(CloseReason::BadBody);
        calm.closed(CloseReason::BadBody, 2);
        // The claim that was under way is granted, and given back at once. The session
        // of the first waits for its client.
        cluster.wait_metric("center", "sallyport_center_released_total", |n| n == 1);
        cluster.wait_metric("gateway", "sallyport_gateway_sessions_parked", |n| n == 1);
        let mut raw = Raw::logged_in(cluster, "hasty");
        raw.round_trip(b"at last");
        raw.logout();
        calm.closed(CloseReason::LoggedOut, 1);
    });
}
