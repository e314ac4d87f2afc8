//! Center over real links and real files, on both journal drivers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::center::{CenterSettings, DoorSettings};
use backend::center_driver::{CenterConfig, CenterStartError, desk, drive_center, open_center};
use backend::counters::CenterCounters;
use backend::journal::{JournalEngine, probe};
use protocol::control::{
    Claim, ClaimGranted, ClaimRefusal, LiveSession, Rebuild, Release, Renew, ShardHello,
    to_backend, to_shard,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uplink::{CLOSE_PROTOCOL, DialError};

use crate::shard::{BACKEND_SEED, GATEWAY_SEED, Shard, identity, run};

fn config(dir: &Path, engine: Option<JournalEngine>) -> CenterConfig {
    CenterConfig {
        desk: desk().1,
        listen: ([127, 0, 0, 1], 0).into(),
        identity: identity(BACKEND_SEED),
        gateway_keys: vec![identity(GATEWAY_SEED).public_key()],
        data_dir: dir.to_owned(),
        engine,
        settings: CenterSettings {
            instance: "center-1".to_owned(),
            boot: 77,
            lease_ms: 15_000,
            sessions_max: 100,
            door: DoorSettings::OPEN,
        },
    }
}

struct RunningCenter {
    address: SocketAddr,
    counters: Arc<CenterCounters>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RunningCenter {
    async fn start(dir: &Path, engine: Option<JournalEngine>) -> Self {
        let counters = Arc::new(CenterCounters::default());
        let open = open_center(config(dir, engine), Arc::clone(&counters))
            .await
            .expect("a center");
        if engine.is_some() {
            assert_eq!(Some(open.engine()), engine);
        }
        let address = open.local_address().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(drive_center(open, async {
            // Dropping the sender is a stop too.
            let _ = stopped.await;
        }));
        Self {
            address,
            counters,
            stop,
            task,
        }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("no panic");
    }

    /// As kill -9 does it, as far as one process can: nothing more is said or written.
    async fn kill(self) {
        self.task.abort();
        // The lock is given back by the journal's thread.
        assert!(self.task.await.expect_err("it was aborted").is_cancelled());
    }

    fn count(&self, name: &str, label: &str) -> u64 {
        self.counters
            .samples()
            .find(|(metric, _)| {
                metric.name == name && metric.label.map_or("", |(_, value)| value) == label
            })
            .map(|(_, value)| value)
            .expect("a metric of that name")
    }
}

fn engines() -> Vec<Option<JournalEngine>> {
    match probe().0 {
        JournalEngine::Uring => vec![Some(JournalEngine::Uring), Some(JournalEngine::Thread)],
        JournalEngine::Thread => vec![Some(JournalEngine::Thread)],
    }
}

fn on_each_engine(test: impl AsyncFn(&Path, Option<JournalEngine>)) {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("a directory");
        run(test(dir.path(), engine));
    }
}

async fn attach(center: &RunningCenter, name: &str, sessions: Vec<LiveSession>) -> Shard {
    let key = identity(BACKEND_SEED).public_key();
    let (mut shard, hello) = Shard::attach(center.address, key, name, 1).await;
    assert_eq!((hello.group, hello.lease_ms, hello.boot), (0, 15_000, 77));
    assert_eq!(hello.instance, "center-1");
    shard.say(to_backend::Message::Rebuild(Rebuild {
        sessions,
        last: true,
    }));
    shard.flush().await;
    let networks = shard.hear().await;
    let all = matches!(&networks, to_shard::Message::Networks(networks) if networks.first);
    assert!(all, "the banned networks come first: {networks:?}");
    shard
}

fn claim(account: &str, token: &str) -> to_backend::Message {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a calendar after 1970");
    to_backend::Message::Claim(Claim {
        claim: 1,
        account: account.to_owned(),
        token_id: token.to_owned(),
        token_expires_unix_ms: now.as_millis() as u64 + 30_000,
        ..Claim::default()
    })
}

async fn granted(shard: &mut Shard) -> ClaimGranted {
    match shard.hear().await {
        to_shard::Message::ClaimGranted(granted) => granted,
        other => panic!("{other:?}"),
    }
}

async fn refused(shard: &mut Shard) -> ClaimRefusal {
    match shard.hear().await {
        to_shard::Message::ClaimRefused(refused) => refused.refusal(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn claims_are_granted_and_refused() {
    on_each_engine(async |dir, engine| {
        let center = RunningCenter::start(dir, engine).await;
        let mut a = attach(&center, "a", vec![]).await;
        let mut b = attach(&center, "b", vec![]).await;
        a.say(claim("ann", "t1"));
        let ann = granted(&mut a).await;
        b.say(claim("ann", "t2"));
        assert_eq!(refused(&mut b).await, ClaimRefusal::AlreadyOnline);
        b.say(claim("bob", "t1"));
        assert_eq!(refused(&mut b).await, ClaimRefusal::TokenReused);
        a.say(to_backend::Message::Renew(Renew { renewal: 3 }));
        match a.hear().await {
            to_shard::Message::Renewed(renewed) => assert_eq!(renewed.renewal, 3),
            other => panic!("{other:?}"),
        }
        a.say(to_backend::Message::Release(Release {
            session: ann.session,
            fence: ann.fence,
            kept: false,
        }));
        a.say(claim("ann", "t3"));
        let again = granted(&mut a).await;
        assert!(again.session > ann.session && again.fence > ann.fence);
        assert_eq!(center.count("sallyport_center_claims_total", "granted"), 2);
        assert_eq!(center.count("sallyport_center_sessions", ""), 1);
        assert_eq!(center.count("sallyport_center_links", ""), 2);
        center.stop().await;
        let (code, _) = a.closed().await;
        assert_eq!(code, u64::from(uplink::CLOSE_DONE));
    });
}

#[test]
fn a_killed_center_comes_back_and_knows_what_it_must() {
    on_each_engine(async |dir, engine| {
        let center = RunningCenter::start(dir, engine).await;
        let mut a = attach(&center, "a", vec![]).await;
        let b = attach(&center, "b", vec![]).await;
        a.say(claim("ann", "t1"));
        let ann = granted(&mut a).await;
        center.kill().await;
        a.cut();
        b.cut();
        let center = restart(dir, engine).await;
        let live = LiveSession {
            session: ann.session,
            fence: ann.fence,
            account: "ann".to_owned(),
            ..LiveSession::default()
        };
        let mut b = attach(&center, "b", vec![]).await;
        // Center cannot know yet what a holds.
        b.say(claim("ann", "t2"));
        b.say(to_backend::Message::Renew(Renew { renewal: 1 }));
        assert!(matches!(b.hear().await, to_shard::Message::Renewed(_)));
        assert_eq!(center.count("sallyport_center_claims_waiting", ""), 1);
        let mut a = attach(&center, "a", vec![live]).await;
        assert_eq!(refused(&mut b).await, ClaimRefusal::AlreadyOnline);
        a.say(claim("cid", "t1"));
        assert_eq!(refused(&mut a).await, ClaimRefusal::TokenReused);
        a.say(claim("cid", "t3"));
        let cid = granted(&mut a).await;
        assert!(cid.session > ann.session && cid.fence > ann.fence);
        center.stop().await;
    });
}

/// Starts a center as soon as the killed one's lock is free.
async fn restart(dir: &Path, engine: Option<JournalEngine>) -> RunningCenter {
    let lock = std::fs::File::open(dir.join("center.lock")).expect("a lock file");
    tokio::task::spawn_blocking(move || lock.lock())
        .await
        .expect("no panic")
        .expect("the lock");
    RunningCenter::start(dir, engine).await
}

#[test]
fn two_centers_do_not_share_a_directory() {
    on_each_engine(async |dir, engine| {
        let center = RunningCenter::start(dir, engine).await;
        let second = open_center(config(dir, engine), Arc::default()).await;
        let error = second.err().expect("a refusal");
        assert!(matches!(error, CenterStartError::Journal(_)));
        assert!(error.to_string().contains("in use by another center"));
        center.stop().await;
        RunningCenter::start(dir, engine).await.stop().await;
    });
}

#[test]
fn a_gateway_with_another_key_is_refused_and_nobody_notices() {
    on_each_engine(async |dir, engine| {
        let center = RunningCenter::start(dir, engine).await;
        let mut a = attach(&center, "a", vec![]).await;
        let key = identity(BACKEND_SEED).public_key();
        let stranger = Shard::dial(center.address, key, &identity(9)).await;
        let error = stranger.err().expect("a refusal");
        assert!(matches!(error, DialError::KeyNotAccepted { .. }), "{error}");
        let wrong = identity(8).public_key();
        let deceived = Shard::dial(center.address, wrong, &identity(GATEWAY_SEED)).await;
        let error = deceived.err().expect("a refusal");
        assert!(
            matches!(error, DialError::WrongBackendKey { .. }),
            "{error}"
        );
        a.say(claim("ann", "t1"));
        granted(&mut a).await;
        assert_eq!(
            center.count("sallyport_center_links_wrong_key_total", ""),
            1
        );
        center.stop().await;
    });
}

#[test]
fn what_a_gateway_may_not_say_costs_its_own_link_only() {
    on_each_engine(async |dir, engine| {
        let center = RunningCenter::start(dir, engine).await;
        let mut a = attach(&center, "a", vec![]).await;
        let key = identity(BACKEND_SEED).public_key();

        let (mut bad, _) = Shard::attach(center.address, key, "bad", 1).await;
        bad.say_bytes(b"\xff\xff\xff");
        assert_eq!(bad.closed().await, (1, "unreadable".to_owned()));

        let (mut bad, _) = Shard::attach(center.address, key, "bad", 1).await;
        bad.record(1, &protocol::uplink::Record::Gone);
        assert_eq!(bad.closed().await, (1, "role".to_owned()));

        let mut bad = Shard::dial(center.address, key, &identity(GATEWAY_SEED))
            .await
            .expect("a link");
        bad.say(claim("eve", "t0"));
        assert_eq!(bad.closed().await, (1, "hello".to_owned()));

        let mut bad = Shard::dial(center.address, key, &identity(GATEWAY_SEED))
            .await
            .expect("a link");
        bad.say(to_backend::Message::Hello(ShardHello {
            version: 99,
            gateway: "bad".to_owned(),
            shard: 0,
            boot: 1,
            resume_ms: 0,
        }));
        assert_eq!(bad.closed().await, (1, "version".to_owned()));

        a.say(claim("ann", "t1"));
        granted(&mut a).await;
        for fault in ["unreadable", "role", "hello", "version"] {
            let count = center.count("sallyport_center_links_closed_total", fault);
            assert_eq!(count, 1, "{fault}");
        }
        center.stop().await;
    });
}

#[test]
fn the_probe_chooses_what_can_be_used() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let open = open_center(config(dir.path(), None), Arc::default())
            .await
            .expect("a center");
        let expected = match std::env::var_os("SALLYPORT_TEST_WITHOUT_URING") {
            Some(_) => JournalEngine::Thread,
            None => probe().0,
        };
        assert_eq!(open.engine(), expected);
    });
}

/// Three seconds, as `HELLO_DEADLINE_MS` says; less patience would lose gateways whose host is
/// busy, more would let strangers with a key hold links.
#[test]
fn a_link_that_says_nothing_is_closed_and_others_stay() {
    const DEADLINE: Duration = Duration::from_secs(3);
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let center = RunningCenter::start(dir.path(), None).await;
        let mut greeted = attach(&center, "gw-1", Vec::new()).await;
        let key = identity(BACKEND_SEED).public_key();
        let began = Instant::now();
        let mut silent = Shard::dial(center.address, key, &identity(GATEWAY_SEED))
            .await
            .expect("a link");
        let (code, word) = silent.closed().await;
        assert_eq!((code, &*word), (u64::from(CLOSE_PROTOCOL), "hello"));
        assert!(began.elapsed() >= DEADLINE, "{:?}", began.elapsed());
        greeted.say(to_backend::Message::Renew(Renew { renewal: 4 }));
        let renewed = greeted.hear().await;
        assert!(
            matches!(renewed, to_shard::Message::Renewed(_)),
            "{renewed:?}"
        );
        center.stop().await;
    });
}
