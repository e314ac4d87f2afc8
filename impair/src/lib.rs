//! `sallyport impair`: a proxy for TCP and UDP in user space that behaves like a bad network:
//! delay, jitter, loss, reordering, duplicates, a rate, cuts, and addresses that change.
//!
//! What happens to a datagram or to a piece of a stream is decided by a pure core ([`path`]); the
//! drivers ([`tcp`], [`udp`]) own the sockets and keep what is under way until its time. It needs
//! no rights, and impairs only what is sent to its port.
//!
//! Deliberately not here: any knowledge of what the bytes mean.
//!
//! Invariant: flows, and what waits in each, are bounded; a datagram that does not pass is counted
//! by why.

#![forbid(unsafe_code)]

pub mod args;
mod clock;
pub mod counts;
pub mod path;
mod tcp;
mod udp;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::LocalSet;

pub use args::ImpairArgs;
use clock::Clock;
pub use counts::Counts;
use path::{Conditions, Random};

/// Ports that are tried where TCP and UDP are to share one and any will do: the first that TCP
/// is given is nearly always free for UDP too.
const PORT_ATTEMPTS_MAX: usize = 16;

/// What a proxy is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens. Port 0: any that is free, the same one for TCP and UDP.
    pub listen: SocketAddr,
    /// Where it forwards to.
    pub target: SocketAddr,
    /// Whether it forwards TCP.
    pub tcp: bool,
    /// Whether it forwards UDP.
    pub udp: bool,
    /// What happens on the way, the same in both directions.
    pub conditions: Conditions,
    /// Times at which a flow ends or changes its address.
    pub events: Events,
    /// TCP connections and UDP flows at once, of each. More are refused, and counted.
    pub flows_max: usize,
    /// All that is drawn at random comes from it.
    pub seed: u64,
}

/// What happens to a whole flow. Each time is spread from half of it to one and a half, so that
/// flows that began together do not end together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// A flow is cut when it is so old.
    pub cut_every: Option<Duration>,
    /// How long it is silent before it is cut.
    pub cut_silent: Duration,
    /// A UDP flow goes on from another port when it is so old, and again.
    pub rebind_every: Option<Duration>,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another --listen")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// A proxy whose port is open.
#[derive(Debug)]
pub struct Impair {
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
    address: SocketAddr,
    shared: Rc<Shared>,
}

/// What all flows of a proxy share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    clock: Clock,
    counts: RefCell<Counts>,
    random: RefCell<Random>,
}

impl Shared {
    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.borrow_mut());
    }

    /// A source of randomness for one flow, so that its fate does not hang on when others send.
    fn random(&self) -> Random {
        self.random.borrow_mut().fork()
    }
}

impl Impair {
    /// Opens the port. To be called inside the tokio current-thread runtime that runs it.
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(settings: Settings) -> Result<Self, BindError> {
        let failed = |source| BindError {
            address: settings.listen,
            source,
        };
        let mut attempt = 0;
        let (tcp, udp) = loop {
            attempt += 1;
            let mut address = settings.listen;
            let tcp = match settings.tcp {
                true => Some(TcpListener::bind(address).await.map_err(failed)?),
                false => None,
            };
            if let Some(tcp) = &tcp {
                address = tcp.local_addr().map_err(failed)?;
            }
            if !settings.udp {
                break (tcp, None);
            }
            match UdpSocket::bind(address).await {
                Ok(udp) => break (tcp, Some(udp)),
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && settings.listen.port() == 0
                        && attempt < PORT_ATTEMPTS_MAX => {}
                Err(error) => return Err(failed(error)),
            }
        };
        let address = match (&tcp, &udp) {
            (Some(tcp), _) => tcp.local_addr(),
            (None, Some(udp)) => udp.local_addr(),
            (None, None) => Err(io::Error::other("neither TCP nor UDP is wanted")),
        };
        Ok(Self {
            tcp,
            udp,
            address: address.map_err(failed)?,
            shared: Rc::new(Shared {
                clock: Clock::start(),
                counts: RefCell::default(),
                random: RefCell::new(Random::new(settings.seed)),
                settings,
            }),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards until `shutdown`, then resets what is left. Returns what was seen.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Counts {
        let shared = Rc::clone(&self.shared);
        // Flows are tasks of this set, and end with it.
        let flows = LocalSet::new();
        flows
            .run_until(async move {
                let tcp = async {
                    match self.tcp {
                        Some(listener) => tcp::accept(listener, &self.shared).await,
                        None => std::future::pending().await,
                    }
                };
                let udp = async {
                    match self.udp {
                        Some(socket) => udp::receive(socket, &self.shared).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = tcp => {}
                    () = udp => {}
                    () = shutdown => {}
                }
            })
            .await;
        drop(flows);
        shared.counts.borrow().clone()
    }
}
