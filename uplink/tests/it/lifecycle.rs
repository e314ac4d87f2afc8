//! Links that break: a peer that dies without a word, one that restarts.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uplink::{Acceptor, Event, LinkError, StreamIndex};

use crate::harness::{
    Numbers, Pair, backend_identity, dialer, end_of, gateway_identity, join, loopback, pair,
    push_record, read_all, within,
};

/// A backend on a thread of its own that can be killed: its runtime stops
/// between two polls, so nothing is said to the peer.
struct Victim {
    address: SocketAddr,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Victim {
    fn start(address: SocketAddr) -> Self {
        let (kill, killed) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let allowed = [gateway_identity().public_key()];
                let mut acceptor = Acceptor::bind(address, &backend_identity(), &allowed).unwrap();
                tell.send(acceptor.local_address().unwrap()).unwrap();
                let mut links = Vec::new();
                let serve = poll_fn(|cx| {
                    while let Poll::Ready(link) = acceptor.poll_link(cx) {
                        links.push(link);
                    }
                    Poll::<()>::Pending
                });
                tokio::select! {
                    () = serve => {}
                    _ = killed => {}
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            kill,
            thread,
        }
    }

    fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_killed_peer_is_noticed_and_found_again() {
    let victim = Victim::start(loopback());
    let address = victim.address;
    let mut dialer = dialer(
        &gateway_identity(),
        address,
        backend_identity().public_key(),
    );
    let event = within(poll_fn(|cx| dialer.poll_link(cx))).await;
    let Event::Up(mut link) = event else {
        panic!("{event:?}");
    };
    victim.kill();
    let since = Instant::now();
    assert_eq!(end_of(&mut link).await, LinkError::TimedOut);
    let noticed = since.elapsed();
    assert!(noticed <= Duration::from_secs(6), "{noticed:?}");
    assert!(noticed >= Duration::from_secs(2), "{noticed:?}");

    // Nobody is there for a while, then somebody is, on the same port.
    dialer.lost();
    let event = within(poll_fn(|cx| dialer.poll_link(cx))).await;
    assert!(matches!(event, Event::Failed { .. }), "{event:?}");
    let successor = Victim::start(address);
    let since = Instant::now();
    within(poll_fn(|cx| match dialer.poll_link(cx) {
        Poll::Ready(Event::Up(_)) => Poll::Ready(()),
        Poll::Ready(Event::Failed { .. }) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => Poll::Pending,
    }))
    .await;
    let found = since.elapsed();
    assert!(found <= Duration::from_secs(4), "{found:?}");
    successor.kill();
}

#[tokio::test]
async fn a_backend_killed_and_back_at_once_says_so() {
    let victim = Victim::start(loopback());
    let address = victim.address;
    let mut dialer = dialer(
        &gateway_identity(),
        address,
        backend_identity().public_key(),
    );
    let event = within(poll_fn(|cx| dialer.poll_link(cx))).await;
    let Event::Up(mut link) = event else {
        panic!("{event:?}");
    };
    victim.kill();
    let successor = Victim::start(address);
    let since = Instant::now();
    // The next keep-alive is answered by a reset.
    assert_eq!(end_of(&mut link).await, LinkError::Restarted);
    let noticed = since.elapsed();
    assert!(noticed <= Duration::from_secs(3), "{noticed:?}");
    successor.kill();
}

#[tokio::test]
async fn a_restarted_backend_is_linked_again_and_carries_records() {
    let Pair {
        mut gateway,
        backend,
        mut acceptor,
        mut dialer,
    } = pair().await;
    let address = acceptor.local_address().unwrap();
    acceptor.close("restart");
    drop(backend);
    within(acceptor.endpoint().wait_idle()).await;
    assert!(matches!(
        end_of(&mut gateway).await,
        LinkError::Closed { code: 0, .. }
    ));
    drop(gateway);
    drop(acceptor);
    dialer.lost();

    // The old socket closes when quinn's task has seen that nobody needs it.
    let allowed = [gateway_identity().public_key()];
    let acceptor = within(async {
        loop {
            match Acceptor::bind(address, &backend_identity(), &allowed) {
                Ok(acceptor) => return acceptor,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let Pair {
        mut gateway,
        mut backend,
        acceptor: _acceptor,
        dialer: _dialer,
    } = join(acceptor, dialer).await;
    let stream = StreamIndex::data().next().unwrap();
    push_record(&mut Numbers(5), gateway.buffer(stream));
    let sent_bytes = gateway.queued_bytes(stream);
    let mut read_bytes = 0;
    within(poll_fn(|cx| {
        let _ = gateway.poll_flush(cx).map(Result::unwrap);
        read_all(&mut backend, cx, &mut |_, bytes| read_bytes += bytes.len()).unwrap();
        match read_bytes {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }))
    .await;
    assert_eq!(read_bytes, sent_bytes);
}

#[tokio::test]
async fn an_idle_link_stays_up() {
    let Pair {
        mut gateway,
        mut backend,
        acceptor: _acceptor,
        dialer: _dialer,
    } = pair().await;
    // Longer than the idle timeout: only the keep-alives hold it.
    let idle = poll_fn(|cx| {
        for link in [&mut gateway, &mut backend] {
            if let Err(error) = read_all(link, cx, &mut |_, _| {}) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    });
    let waited = tokio::time::timeout(uplink::IDLE_TIMEOUT + Duration::from_secs(1), idle).await;
    assert!(waited.is_err(), "{waited:?}");
}
