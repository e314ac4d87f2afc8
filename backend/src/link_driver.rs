//! Joins a role's core to its uplinks: accepts gateways, checks their hello, hands messages and
//! records over, writes what the core wants sent, once a turn.
//!
//! One task on a tokio current-thread runtime polls everything; a record never changes threads.
//! It knows no role: [`Role`] is what it asks of one.
//!
//! Invariant: whatever one peer sends or does not read costs its own link only. A link whose
//! peer does not read is not read either, until it does.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use protocol::control::{ShardHello, ToBackend, ToShard, to_backend};
use protocol::time::{Now, Time};
use tokio::time::Instant;
use uplink::{Acceptor, CLOSE_DONE, CLOSE_PROTOCOL, Link, LinkError, StreamIndex};

use crate::link::{LinkFault, LinkId};

/// Bytes read from one link in a turn: some thousand small records, 1 ms of work. Other links
/// and QUIC itself come between.
const READ_BYTES_PER_TURN: usize = 256 * 1024;

/// A link with so many bytes unsent on one stream is not read until they have left: what it
/// would send makes more of them. Well below `uplink::QUEUED_BYTES_MAX`, where it is given up.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

/// Time from a link to its hello, ms.
const HELLO_DEADLINE_MS: u64 = 3_000;

/// Pause, ms, between lines about links that end.
const LOG_PAUSE_MS: u64 = 100;

/// Time that the end of the process gives QUIC to tell its peers.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// What the links have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Links now.
    pub links: u64,
    /// Links so far.
    pub accepted: u64,
    /// Peers refused for their key.
    pub wrong_keys: u64,
    /// Peers refused otherwise.
    pub refused: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Links that ended.
    pub lost: u64,
    /// Of these, closed by this side, in the order of `LinkFault::ALL`.
    pub faults: [u64; LinkFault::ALL.len()],
}

/// What a role does with its links. An error closes the link; `link_down` follows for each link
/// of which `link_up` was told.
pub(crate) trait Role {
    /// A hello has come, with the right version.
    fn link_up(&mut self, now: Now, link: LinkId, hello: &ShardHello) -> Result<(), LinkFault>;
    /// A control message has come.
    fn control(&mut self, now: Now, link: LinkId, message: ToBackend) -> Result<(), LinkFault>;
    /// Whole records have come.
    fn records(&mut self, now: Now, link: LinkId, run: &[u8]) -> Result<(), LinkFault>;
    /// The link is gone.
    fn link_down(&mut self, now: Now, link: LinkId);
    /// When `timeout` is due.
    fn poll_timeout(&self) -> Option<Time>;
    /// Time has passed.
    fn timeout(&mut self, now: Now);
    /// What the role waits for beside links and time.
    fn poll_background(&mut self, cx: &mut Context<'_>, now: Now);
    /// The next control message to send.
    fn poll_control(&mut self) -> Option<(LinkId, ToShard)>;
    /// Hands over all records to send, stream by stream. `take` empties the buffer.
    fn take_records(&mut self, take: &mut impl FnMut(LinkId, StreamIndex, &mut Vec<u8>));
    /// The next link to close.
    fn poll_close(&mut self) -> Option<(LinkId, LinkFault)>;
    /// A turn is done.
    fn turn_ended(&mut self, links: &LinkCounts);
}

/// The clocks of this process, as cores see them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Now {
            time: Time(self.origin.elapsed().as_micros() as u64),
            // A calendar before 1970 makes every token look valid for long; they are still
            // remembered by their ids.
            unix_ms: unix.map_or(0, |unix| unix.as_millis() as u64),
        }
    }

    fn instant(&self, time: Time) -> Instant {
        self.origin + Duration::from_micros(time.0)
    }
}

struct Slot {
    link: Link,
    /// The core was told of it.
    is_greeted: bool,
    hello_until: Time,
}

impl Slot {
    fn is_backlogged(&self) -> bool {
        self.link.queued_bytes(StreamIndex::CONTROL) > BACKLOG_BYTES_MAX
            || StreamIndex::data().any(|stream| self.link.queued_bytes(stream) > BACKLOG_BYTES_MAX)
    }
}

/// All links of one process.
struct Links {
    acceptor: Acceptor,
    slots: BTreeMap<LinkId, Slot>,
    link_next: u64,
    counts: LinkCounts,
    /// No line about a link until then: its gateway can cause any number of them.
    quiet_until: Time,
}

/// Drives a role until `shutdown`.
pub(crate) async fn drive_role(
    acceptor: Acceptor,
    clock: Clock,
    role: &mut impl Role,
    shutdown: impl Future<Output = ()>,
) {
    let mut links = Links {
        acceptor,
        slots: BTreeMap::new(),
        link_next: 1,
        counts: LinkCounts::default(),
        quiet_until: Time(0),
    };
    let mut shutdown = pin!(shutdown);
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        if shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let now = clock.now();
        role.poll_background(cx, now);
        links.accept(cx, now);
        let mut is_more = links.read(cx, now, role);
        if due(role, &links).is_some_and(|due| due <= now.time) {
            links.refuse_silent(now, role);
            role.timeout(now);
        }
        role.poll_background(cx, now);
        is_more |= links.write(cx, now, role);
        links.publish(role);
        if let Some(due) = due(role, &links) {
            sleep.as_mut().reset(clock.instant(due));
            is_more |= sleep.as_mut().poll(cx).is_ready();
        }
        if is_more {
            // Not a loop: QUIC's own tasks, which move the packets, run in between.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    for link in links.slots.keys().copied().collect::<Vec<_>>() {
        links.close(clock.now(), role, link, LinkFault::Shutdown);
    }
    links.publish(role);
    links.acceptor.close("this process ends");
    // The peers find out by themselves if this takes too long.
    let idle = links.acceptor.endpoint().wait_idle();
    let _ = tokio::time::timeout(CLOSE_DEADLINE, idle).await;
}

fn due(role: &impl Role, links: &Links) -> Option<Time> {
    let silent = links.slots.values().filter(|slot| !slot.is_greeted);
    let hello = silent.map(|slot| slot.hello_until).min();
    [role.poll_timeout(), hello].into_iter().flatten().min()
}

impl Links {
    fn accept(&mut self, cx: &mut Context<'_>, now: Now) {
        while let Poll::Ready(link) = self.acceptor.poll_link(cx) {
            let slot = Slot {
                link,
                is_greeted: false,
                hello_until: now.time.after_ms(HELLO_DEADLINE_MS),
            };
            self.slots.insert(LinkId(self.link_next), slot);
            self.link_next += 1;
        }
    }

    /// Reads from every link. Returns whether there may be more to read.
    fn read(&mut self, cx: &mut Context<'_>, now: Now, role: &mut impl Role) -> bool {
        let mut is_more = false;
        let mut ended = Vec::new();
        for (&id, slot) in &mut self.slots {
            if slot.is_backlogged() {
                continue;
            }
            let Slot {
                link, is_greeted, ..
            } = slot;
            let mut fault = None;
            let mut sink = |stream: StreamIndex, bytes: &mut [u8]| {
                if fault.is_some() {
                    return;
                }
                let result = if !stream.is_control() {
                    if *is_greeted {
                        role.records(now, id, bytes)
                    } else {
                        Err(LinkFault::Hello)
                    }
                } else {
                    read_control(now, role, id, is_greeted, bytes)
                };
                fault = result.err();
            };
            match link.poll_read(cx, READ_BYTES_PER_TURN, &mut sink) {
                Poll::Pending => {}
                Poll::Ready(Ok(bytes)) => {
                    self.counts.read_bytes += bytes as u64;
                    is_more |= bytes >= READ_BYTES_PER_TURN;
                }
                Poll::Ready(Err(error)) => ended.push((id, Ok(error))),
            }
            if let Some(fault) = fault {
                ended.push((id, Err(fault)));
            }
        }
        for (id, why) in ended {
            match why {
                Ok(error) => self.lost(now, role, id, &error),
                Err(fault) => self.close(now, role, id, fault),
            }
        }
        is_more
    }

    /// Writes what the role wants sent. Returns whether another turn has something to do.
    fn write(&mut self, cx: &mut Context<'_>, now: Now, role: &mut impl Role) -> bool {
        while let Some((id, message)) = role.poll_control() {
            // A link that is gone: its shard starts anew over the next one.
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            let buffer = slot.link.buffer(StreamIndex::CONTROL);
            let bytes = message.encoded_len() as u32;
            buffer.extend_from_slice(&bytes.to_le_bytes());
            message.encode_raw(buffer);
        }
        role.take_records(&mut |id, stream, records| {
            if let Some(slot) = self.slots.get_mut(&id) {
                let buffer = slot.link.buffer(stream);
                if buffer.is_empty() {
                    std::mem::swap(buffer, records);
                } else {
                    buffer.append(records);
                }
            }
            records.clear();
        });
        let mut is_more = false;
        let mut ended = Vec::new();
        for (&id, slot) in &mut self.slots {
            let was_backlogged = slot.is_backlogged();
            if let Poll::Ready(Err(error)) = slot.link.poll_flush(cx) {
                ended.push((id, error));
            }
            is_more |= was_backlogged && !slot.is_backlogged();
        }
        for (id, error) in ended {
            self.lost(now, role, id, &error);
            is_more = true;
        }
        while let Some((id, fault)) = role.poll_close() {
            self.close(now, role, id, fault);
            is_more = true;
        }
        is_more
    }

    /// Closes links whose hello does not come.
    fn refuse_silent(&mut self, now: Now, role: &mut impl Role) {
        let silent = |slot: &Slot| !slot.is_greeted && slot.hello_until <= now.time;
        let late: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(id, slot)| silent(slot).then_some(*id))
            .collect();
        for id in late {
            self.close(now, role, id, LinkFault::Hello);
        }
    }

    fn close(&mut self, now: Now, role: &mut impl Role, id: LinkId, fault: LinkFault) {
        let Some(mut slot) = self.slots.remove(&id) else {
            return;
        };
        let position = LinkFault::ALL.iter().position(|other| *other == fault);
        if let Some(count) = position.and_then(|at| self.counts.faults.get_mut(at)) {
            *count += 1;
        }
        self.counts.lost += 1;
        let code = match fault {
            LinkFault::Shutdown => CLOSE_DONE,
            _ => CLOSE_PROTOCOL,
        };
        let address = slot.link.remote_address();
        if fault != LinkFault::Shutdown && self.may_log(now) {
            tracing::warn!(%address, link = id.0, why = %fault, "closed an uplink");
        }
        slot.link.close(code, fault.label());
        if slot.is_greeted {
            role.link_down(now, id);
        }
    }

    fn lost(&mut self, now: Now, role: &mut impl Role, id: LinkId, error: &LinkError) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        self.counts.lost += 1;
        if self.may_log(now) {
            let address = slot.link.remote_address();
            tracing::info!(%address, link = id.0, why = %error, "lost an uplink");
        }
        if slot.is_greeted {
            role.link_down(now, id);
        }
    }

    fn may_log(&mut self, now: Now) -> bool {
        let may = now.time >= self.quiet_until;
        if may {
            self.quiet_until = now.time.after_ms(LOG_PAUSE_MS);
        }
        may
    }

    fn publish(&mut self, role: &mut impl Role) {
        let accepted = self.acceptor.counters();
        self.counts.links = self.slots.len() as u64;
        self.counts.accepted = accepted.links;
        self.counts.wrong_keys = accepted.wrong_keys;
        self.counts.refused =
            accepted.full + accepted.deadlines + accepted.bad_greetings + accepted.failed;
        role.turn_ended(&self.counts);
    }
}

fn read_control(
    now: Now,
    role: &mut impl Role,
    link: LinkId,
    is_greeted: &mut bool,
    bytes: &[u8],
) -> Result<(), LinkFault> {
    let message = ToBackend::decode(bytes).map_err(|_| LinkFault::Unreadable)?;
    if *is_greeted {
        return role.control(now, link, message);
    }
    let Some(to_backend::Message::Hello(hello)) = message.message else {
        return Err(LinkFault::Hello);
    };
    role.link_up(now, link, &hello)?;
    *is_greeted = true;
    // At most as many as the acceptor lets links in.
    tracing::info!(
        link = link.0,
        gateway = hello.gateway,
        shard = hello.shard,
        "an uplink is up"
    );
    Ok(())
}
