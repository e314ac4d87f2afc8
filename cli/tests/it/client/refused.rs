//! Clients that do not get in, or only elsewhere.

use std::future::ready;
use std::net::TcpListener;
use std::sync::atomic::Ordering;

use sallyport_client::{Client, CloseReason, Config, Error, Fault};

use super::{TRANSPORTS, ask, config, connect};
use crate::cluster::Cluster;

#[tokio::test]
async fn a_wrong_key_and_a_wrong_token_are_said_at_once() {
    let cluster = Cluster::start(&[], &[], &[]);
    for transport in TRANSPORTS {
        let mut other = config(&cluster, cluster.address(), transport);
        // The base point: a good key, and nobody's here.
        other.gateway_key = [0; 32];
        other.gateway_key[0] = 9;
        let (client, _) = connect(&cluster, other, "ann").await;
        let error = client.expect_err("another gateway's key");
        assert_eq!(error.fault(), Fault::Program, "{error}");
        let (Error::ByClient(reason) | Error::ByGateway(Some(reason))) = error else {
            panic!("{error}");
        };
        assert_eq!(reason, CloseReason::BadHandshake);

        let config = config(&cluster, cluster.address(), transport);
        let mut asked = 0;
        let tokens = move || {
            asked += 1;
            assert_eq!(asked, 1, "another one would be as bad");
            ready(Ok::<_, String>(String::from("v4.public.nonsense")))
        };
        let error = Client::connect(config, tokens).await.expect_err("no token");
        assert!(
            matches!(error, Error::ByGateway(Some(CloseReason::BadToken))),
            "{error}"
        );
        assert_eq!(error.fault(), Fault::Program);
    }
}

#[tokio::test]
async fn a_token_source_that_fails_and_a_gateway_that_is_not_there_are_given_up() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("a port").to_string();
    drop(nobody);
    let key = "A".repeat(42) + "E";
    let config = Config::new(address, &key).expect("a key");
    let no_token = Client::connect(config.clone(), || ready(Err::<String, _>("no")));
    let no_gateway = Client::connect(config, || ready(Ok::<_, String>(String::new())));
    let (no_token, no_gateway) = tokio::join!(no_token, no_gateway);
    let error = no_token.expect_err("no token");
    let Error::GaveUp { attempts: 5, last } = &error else {
        panic!("{error}");
    };
    assert!(matches!(**last, Error::Token(_)), "{error}");
    assert_eq!(error.fault(), Fault::Program);
    let error = no_gateway.expect_err("no gateway");
    let Error::GaveUp { attempts: 5, last } = &error else {
        panic!("{error}");
    };
    assert!(matches!(**last, Error::Io(_)), "{error}");
    assert_eq!(error.fault(), Fault::Nobody);
}

#[tokio::test]
async fn the_next_address_is_tried_where_one_fails() {
    let cluster = Cluster::start(&[], &[], &[]);
    let nobody = TcpListener::bind((cluster.ip(), 0)).expect("a port");
    let dead = nobody.local_addr().expect("a port").to_string();
    drop(nobody);
    for transport in TRANSPORTS {
        let mut config = config(&cluster, cluster.address(), transport);
        config.gateways.insert(0, dead.clone());
        let (client, logins) = connect(&cluster, config, "ann").await;
        let client = client.expect("it gets in");
        ask(&client, b"here").await;
        assert_eq!(logins.load(Ordering::Relaxed), 2, "{transport:?}");
        client.logout().await.expect("the gateway's word");
    }
}

#[test]
fn what_can_not_be_a_configuration_is_refused() {
    for key in ["", "short", "not base64url: ÄÖÜ", &"A".repeat(44)] {
        assert!(
            matches!(Config::new("x:1", key), Err(Error::Config(_))),
            "{key}"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let good = Config::new("x:1", &("A".repeat(42) + "E")).expect("a key");
    let changes: [fn(&mut Config); 3] = [
        |config| config.gateways.clear(),
        |config| config.channel = "x".repeat(65),
        |config| config.device = "x".repeat(65),
    ];
    for change in changes {
        let mut config = good.clone();
        change(&mut config);
        let tokens = || ready(Ok::<_, String>(String::new()));
        let refused = runtime.block_on(Client::connect(config, tokens));
        assert!(matches!(refused, Err(Error::Config(_))));
    }
}
