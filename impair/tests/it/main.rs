//! The proxy over real sockets: what passes, what does not, and when.

mod datagrams;
mod streams;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use impair::path::Conditions;
use impair::{Counts, Events, Impair, Settings};
use tokio::sync::oneshot;

/// Whatever is waited for must have happened by then, also on a machine that is busy.
const SOON: Duration = Duration::from_secs(30);

fn settings(target: SocketAddr) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        target,
        tcp: true,
        udp: true,
        conditions: Conditions::default(),
        events: Events::default(),
        flows_max: 100,
        seed: 1,
    }
}

/// Runs `test` with the address of a proxy; gives what the proxy has seen.
fn through<F: Future<Output = ()>>(
    settings: impl FnOnce() -> Settings,
    test: impl FnOnce(SocketAddr) -> F,
) -> Counts {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let proxy = Impair::bind(settings()).await.unwrap();
        let address = proxy.address();
        let (end, ended) = oneshot::channel::<()>();
        let test = async {
            tokio::time::timeout(SOON, test(address)).await.unwrap();
            end.send(()).unwrap();
        };
        let run = proxy.run(async {
            let _ = ended.await;
        });
        tokio::join!(run, test).0
    })
}
