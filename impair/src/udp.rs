//! UDP through the proxy: a flow for each client address, with a socket of its own towards the
//! target.
//!
//! Invariant: flows, and the datagrams of each that are under way, are bounded; a flow that hears
//! nothing ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use protocol::time::Time;
use rustc_hash::FxHashMap;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::Shared;
use crate::path::{Fate, Path, Random};

/// The largest datagram there is, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Datagrams that wait for a flow to take them at most: a burst of a busy client.
const WAITING_MAX: usize = 256;

/// Datagrams of one flow that are under way at most: 100,000 a second for 40 ms, or 4,000 a second
/// for a second.
const UNDER_WAY_MAX: usize = 4_096;

/// A flow that hears nothing for so long, µs, ends: longer than any heartbeat.
const IDLE_US_MAX: u64 = 60_000_000;

/// Receives for ever what clients send.
pub(crate) async fn receive(socket: UdpSocket, shared: &Rc<Shared>) {
    let socket = Rc::new(socket);
    let mut flows: FxHashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = FxHashMap::default();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // Errors here are those of datagrams that were sent to clients who are gone.
        let Ok((count, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        shared.count(|counts| counts.datagrams += 1);
        let datagram = buffer[..count].to_vec();
        let datagram = match flows.get(&client).map(|flow| flow.try_send(datagram)) {
            Some(Ok(())) => continue,
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                shared.count(|counts| counts.overflowed += 1);
                continue;
            }
            Some(Err(mpsc::error::TrySendError::Closed(datagram))) => datagram,
            None => buffer[..count].to_vec(),
        };
        flows.retain(|_, flow| !flow.is_closed());
        let onward = match flows.len() < shared.settings.flows_max {
            true => towards(shared.settings.target).await.ok(),
            false => None,
        };
        let Some(onward) = onward else {
            shared.count(|counts| {
                counts.refused += 1;
                counts.overflowed += 1;
            });
            continue;
        };
        shared.count(|counts| counts.flows += 1);
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        // There is room: nothing has been sent yet.
        let _ = sender.try_send(datagram);
        flows.insert(client, sender);
        let flow = Flow::new(client, Rc::clone(&socket), onward, Rc::clone(shared));
        tokio::task::spawn_local(flow.run(receiver));
    }
}

/// A socket of its own towards the target, from any port.
async fn towards(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up,
    Down,
}

/// A datagram and when it is due; the number keeps the order of those that are due together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at: Time,
    number: u64,
    way: Way,
    datagram: Vec<u8>,
}

struct Flow {
    client: SocketAddr,
    towards_client: Rc<UdpSocket>,
    onward: UdpSocket,
    shared: Rc<Shared>,
    random: Random,
    up: Path,
    down: Path,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    sent: u64,
    heard_at: Time,
}

impl Flow {
    fn new(
        client: SocketAddr,
        towards_client: Rc<UdpSocket>,
        onward: UdpSocket,
        shared: Rc<Shared>,
    ) -> Self {
        let mut random = shared.random();
        let conditions = shared.settings.conditions;
        Self {
            client,
            towards_client,
            onward,
            up: Path::new(conditions, random.fork()),
            down: Path::new(conditions, random.fork()),
            random,
            under_way: BinaryHeap::new(),
            sent: 0,
            heard_at: shared.clock.now(),
            shared,
        }
    }

    /// Carries until the flow is cut or silent for too long. Dropping the receiver tells the
    /// socket's task.
    async fn run(mut self, mut from_client: mpsc::Receiver<Vec<u8>>) {
        let clock = self.shared.clock;
        let events = self.shared.settings.events;
        let mut drawn = |every: Option<Duration>| {
            every.map(|every| clock.now() + self.random.spread(every.as_micros() as u64))
        };
        let cut_at = drawn(events.cut_every);
        let mut rebind_at = drawn(events.rebind_every);
        let silent_us = events.cut_silent.as_micros() as u64;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let now = clock.now();
            if cut_at.is_some_and(|at| now >= at + silent_us) {
                let under_way = self.under_way.len() as u64;
                self.shared.count(|counts| {
                    counts.cuts += 1;
                    counts.silenced += under_way;
                });
                return;
            }
            if now.us_since(self.heard_at) >= IDLE_US_MAX {
                return;
            }
            if rebind_at.is_some_and(|at| now >= at) {
                if let Ok(socket) = towards(self.shared.settings.target).await {
                    self.onward = socket;
                    self.shared.count(|counts| counts.rebinds += 1);
                }
                rebind_at = events
                    .rebind_every
                    .map(|every| now + self.random.spread(every.as_micros() as u64));
            }
            self.deliver(now).await;
            let silent = cut_at.is_some_and(|at| now >= at);
            let due = self.under_way.peek().map(|Reverse(next)| next.at);
            let wake = [
                due,
                cut_at.map(|at| if silent { at + silent_us } else { at }),
                rebind_at,
                Some(self.heard_at + IDLE_US_MAX),
            ];
            let wake = wake.into_iter().flatten().min().unwrap_or(now);
            tokio::select! {
                datagram = from_client.recv() => match datagram {
                    Some(datagram) => self.take(Way::Up, datagram, silent),
                    None => return,
                },
                // An error here tells that the target was not there for an earlier datagram.
                count = self.onward.recv(&mut buffer) => if let Ok(count) = count {
                    self.shared.count(|counts| counts.datagrams += 1);
                    self.take(Way::Down, buffer[..count].to_vec(), silent);
                },
                () = sleep_until(clock.instant(wake)) => {}
            }
        }
    }

    fn take(&mut self, way: Way, datagram: Vec<u8>, silent: bool) {
        let now = self.shared.clock.now();
        self.heard_at = now;
        if silent {
            return self.shared.count(|counts| counts.silenced += 1);
        }
        let path = match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        };
        match path.handle_datagram(now, datagram.len()) {
            Fate::Lost => self.shared.count(|counts| counts.lost += 1),
            Fate::Overflows => self.shared.count(|counts| counts.overflowed += 1),
            Fate::Arrives { .. } if self.under_way.len() >= UNDER_WAY_MAX => {
                self.shared.count(|counts| counts.overflowed += 1);
            }
            Fate::Arrives {
                at,
                again,
                held_back,
            } => {
                self.shared.count(|counts| {
                    counts.reordered += u64::from(held_back);
                    counts.duplicated += u64::from(again.is_some());
                });
                if let Some(again) = again {
                    self.put(again, way, datagram.clone());
                }
                self.put(at, way, datagram);
            }
        }
    }

    fn put(&mut self, at: Time, way: Way, datagram: Vec<u8>) {
        self.sent += 1;
        self.under_way.push(Reverse(UnderWay {
            at,
            number: self.sent,
            way,
            datagram,
        }));
    }

    /// Sends what is due.
    async fn deliver(&mut self, now: Time) {
        while let Some(Reverse(next)) = self.under_way.peek()
            && next.at <= now
            && let Some(Reverse(next)) = self.under_way.pop()
        {
            let sent = match next.way {
                Way::Up => self.onward.send(&next.datagram).await,
                Way::Down => {
                    let to = self.client;
                    self.towards_client.send_to(&next.datagram, to).await
                }
            };
            self.shared.count(|counts| match sent {
                Ok(_) => counts.passed += 1,
                Err(_) => counts.overflowed += 1,
            });
        }
    }
}
