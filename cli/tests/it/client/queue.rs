//! Waiting to be let in.

use super::*;

#[tokio::test]
async fn a_client_that_waits_is_told_where_and_gets_in_by_itself() {
    let capped = &["sessions_online_max=1", "queue.returning_ms=0"];
    let cluster = Cluster::start(&[], capped, &[]);
    for transport in TRANSPORTS {
        let first = login(&cluster, transport, "ann").await;
        let config = config(&cluster, cluster.address(), transport);
        let (second, logins) = connect(&cluster, config, "bob").await;
        let second = second.expect("a place");
        let event = next(&second, "a place").await;
        let Event::Queued(queue) = event else {
            panic!("{event:?}");
        };
        assert_eq!((queue.position, queue.of), (1, 1));
        assert!(!second.is_connected());
        first.logout().await.expect("the gateway's word");
        until(&second, "its turn", |event| {
            matches!(event, Event::LoggedIn(_))
        })
        .await;
        until(&second, "the group", |event| {
            matches!(event, Event::GroupUp(_))
        })
        .await;
        ask(&second, b"in at last").await;
        assert_eq!(logins.load(Ordering::Relaxed), 1);
        second.logout().await.expect("the gateway's word");
        cluster.wait_metric("center", "sallyport_center_sessions", |count| count == 0);
    }
}
